//! How a node gets its certificate: one question and one answer, on a connection of its own under TLS.
//!
//! Asked by `gcs join` with a one-time token, before the node has a certificate, and by `gcs renew` with the certificate that it has.

use bytes::Bytes;

/// The part of a token that only those know who were given it.
pub const SECRET_BYTES: usize = 16;

/// "Let me be node `name`, with this key."
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Enrol {
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    /// Of the token; empty if the caller's certificate speaks for it.
    #[prost(bytes = "bytes", tag = "2")]
    pub secret: Bytes,
    #[prost(string, tag = "3")]
    pub name: String,
    /// Where the others will find the node.
    #[prost(string, tag = "4")]
    pub address: String,
    /// A certificate signing request (PKCS #10, DER). Nothing in it counts but the key.
    #[prost(bytes = "bytes", tag = "5")]
    pub request: Bytes,
    /// What the caller's clock says, in seconds of Unix time.
    #[prost(int64, tag = "6")]
    pub clock: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Enrolled {
    #[prost(string, tag = "1")]
    pub group: String,
    /// The new certificate (DER).
    #[prost(bytes = "bytes", tag = "2")]
    pub certificate: Bytes,
    /// The authorities that are believed in the group (DER).
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub authorities: Vec<Bytes>,
    #[prost(message, repeated, tag = "4")]
    pub members: Vec<EnrolledMember>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnrolledMember {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub address: String,
}
