//! The link between daemons, made safe: TLS 1.3 in which both sides show a certificate.
//!
//! Who may be a member is said by one authority a group: whoever shows a certificate that it signed is what the certificate says, a
//! node of a group ([`NodeName`]), and nothing else. Both ends look: the dialler that it has reached the member it dialled, the acceptor
//! that the node which greets is the one in its certificate. Every message that comes later on the connection counts as that
//! node's, whatever it says of itself.
//!
//! - [`name`]: the name in a certificate. [`certificate`]: what else is read in one. [`moment`]: points in time, in words.
//! - [`files`]: what is read from disk, and who may read it.
//! - [`credentials`]: everything that a handshake needs, loaded and checked as a whole.
//! - [`verifier`]: whom a dialler believes.
//! - [`keeper`]: the credentials in force: loaded again on SIGHUP and when their files change, and watched for their end.
//! - [`stream`]: a connection under TLS, written and read without a task of its own. [`reason`]: why a handshake failed, in words.
//!
//! What is left out on purpose: session tickets (a resumed session would not look at certificates, so that one that was revoked could go
//! on), early data, TLS 1.2, and lists of revoked certificates fetched from elsewhere.

pub mod certificate;
pub mod credentials;
pub mod files;
pub mod keeper;
pub mod moment;
pub mod name;
pub mod reason;
pub mod stream;
pub mod verifier;

pub use credentials::Credentials;
pub use files::TlsError;
pub use keeper::Security;
pub use moment::Moment;
pub use name::NodeName;
