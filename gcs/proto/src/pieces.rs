//! Messages that are too long for a frame: the snapshot of a state that has grown, above all. They travel as a sequence of *pieces*, each a frame of
//! its own, with nothing in between; a byte in front of each says whether it is the last. The receiver puts them together and decodes the whole.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of a message in one piece.
pub const PIECE_BYTES: usize = 16 << 20;

/// Of a whole message. Whoever is a member may have another one keep this much, once a connection.
pub const PIECED_BYTES_MAX: usize = 4 << 30;

/// The bodies of the frames that carry `message`.
pub fn cut(message: &[u8], piece_bytes: usize) -> impl Iterator<Item = (bool, &[u8])> {
    let last = message.len().div_ceil(piece_bytes).saturating_sub(1);
    message.chunks(piece_bytes).enumerate().map(move |(number, piece)| (number == last, piece))
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PieceError {
    #[error("a piece that cannot be one")]
    Malformed,
    #[error("pieces of {length} bytes together (limit {PIECED_BYTES_MAX})")]
    TooLong { length: usize },
}

/// What has come of a message so far.
#[derive(Debug, Default)]
pub struct Pieces(BytesMut);

impl Pieces {
    /// The message, with its last piece.
    pub fn add(&mut self, mut body: Bytes) -> Result<Option<Bytes>, PieceError> {
        let is_last = match body.first() {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(PieceError::Malformed),
        };
        body.advance(1);
        let length = self.0.len() + body.len();
        if length > PIECED_BYTES_MAX {
            return Err(PieceError::TooLong { length });
        }
        self.0.extend_from_slice(&body);
        Ok(is_last.then(|| std::mem::take(&mut self.0).freeze()))
    }

    /// Whether another frame may come.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(message: &[u8], piece_bytes: usize) -> Vec<Bytes> {
        let body = |(is_last, piece): (bool, &[u8])| [&[u8::from(is_last)][..], piece].concat().into();
        cut(message, piece_bytes).map(body).collect()
    }

    #[test]
    fn pieces_are_put_together_and_the_next_message_begins_with_nothing() {
        let mut pieces = Pieces::default();
        for message in [&b"abcdefg"[..], b"abcd", b"x"] {
            let bodies = bodies(message, 4);
            for body in &bodies[..bodies.len() - 1] {
                assert_eq!(pieces.add(body.clone()), Ok(None));
                assert!(!pieces.is_empty());
            }
            assert_eq!(pieces.add(bodies[bodies.len() - 1].clone()), Ok(Some(Bytes::copy_from_slice(message))));
            assert!(pieces.is_empty());
        }
    }

    #[test]
    fn what_is_no_piece_is_refused() {
        assert!(Pieces::default().add(Bytes::new()).is_err());
        assert!(Pieces::default().add(Bytes::from_static(&[2, 0])).is_err());
    }
}
