//! What travels between daemons: messages (prost) and their framing.
//!
//! - [`frame`]: length, checksum, version and kind around every message; the decoder takes anything a socket may bring.
//! - [`message`]: the handshake, and how a [`gcs_core::PeerMessage`] is written.
//! - [`enrolment`]: how a node that joins gets its certificate.
//!
//! A connection between two daemons carries messages one way only, from the one that dialled. It opens with
//! [`Frame::Hello`]; the accepting side answers [`Frame::Welcome`] or [`Frame::Refused`], the only frames that travel against the
//! direction. Then come [`Frame::Message`]s, and [`Frame::Ping`]s when there is nothing else to say. docs/formats.md has the
//! bytes. A connection that opens with [`Frame::Join`] or [`Frame::Enrol`] instead ends with its answer: [`Frame::Joined`],
//! [`Frame::Enrolled`], or [`Frame::Refused`].

#![forbid(unsafe_code)]

pub mod enrolment;
pub mod frame;
pub mod message;
pub mod pieces;

pub use enrolment::{Enrol, Enrolled, EnrolledMember};
pub use frame::{Decoder, FRAME_BYTES_MAX, Frame, FrameError, encode};
pub use message::{
    Ahead, CopyUnderWay, DrainOrder, FoundingMember, HandshakeRefusal, Hello, Join, Joined, Refused, Rehearse, Rehearsed,
    Said, Show, ShownHere, Standing, Welcome,
};
