//! Frames: a message, and a payload that no codec touches, with their lengths in front.

use super::codec::Message;
use crate::bounds::LINK_FRAME_BYTES_MAX;
use crate::wire::{Reader, WireError};

/// Before the message: the frame's length, and the message's.
const LENGTH_BYTES: usize = 4;
const FRONT_BYTES: usize = 8;

/// Appends one frame to `out`, or nothing if it cannot be written.
pub fn put_frame<M: Message>(out: &mut Vec<u8>, message: &M, payload: &[u8]) -> Result<(), WireError> {
    put_frame_with(out, message, |out| {
        out.extend_from_slice(payload);
        Ok(())
    })
}

/// Appends one frame to `out`, or nothing if it cannot be written. `put_payload` appends the payload where it belongs in the
/// frame, so that what is made for this frame alone need not be put together elsewhere first.
pub fn put_frame_with<M: Message>(
    out: &mut Vec<u8>,
    message: &M,
    put_payload: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    let result = put_parts(out, message, put_payload);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn put_parts<M: Message>(
    out: &mut Vec<u8>,
    message: &M,
    put_payload: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; FRONT_BYTES]);
    message.put(out)?;
    let payload_at = out.len();
    put_payload(out)?;
    assert!(out.len() >= payload_at, "a payload is appended and takes nothing away");
    let length = out.len() - start - LENGTH_BYTES;
    check_length(length as u64)?;
    let head = payload_at - start - FRONT_BYTES;
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + LENGTH_BYTES..start + FRONT_BYTES].copy_from_slice(&(head as u32).to_le_bytes());
    Ok(())
}

fn check_length(length: u64) -> Result<(), WireError> {
    let limit = LINK_FRAME_BYTES_MAX as u64;
    if length > limit { Err(WireError::TooLarge { what: "link frame", value: length, limit }) } else { Ok(()) }
}

/// How long the frame at the front of `input` is, length field included; `None` if even that is not there yet.
pub fn frame_len(input: &[u8]) -> Result<Option<usize>, WireError> {
    let Ok(length) = Reader::new(input).u32() else { return Ok(None) };
    check_length(u64::from(length))?;
    Ok(Some(length as usize + LENGTH_BYTES))
}

/// Decodes one whole frame, as measured by [`frame_len`]; the payload is borrowed.
pub fn decode_frame<M: Message>(frame: &[u8]) -> Result<(M, &[u8]), WireError> {
    let mut reader = Reader::new(frame);
    let length = reader.u32()? as usize;
    let mut content = Reader::new(reader.take(length)?);
    reader.finish("link frame")?;
    let head = content.u32()? as usize;
    let message = M::decode(content.take(head)?)?;
    Ok((message, content.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Sequence, SlotId};
    use crate::link::{Reply, Request};
    use proptest::prelude::*;

    const SUBMIT: Request = Request::Submit { slot: SlotId(3), sequence: Sequence(9) };

    #[test]
    fn a_frame_carries_its_message_and_its_payload() {
        let mut out = Vec::new();
        put_frame(&mut out, &SUBMIT, b"writeset").unwrap();
        assert_eq!(frame_len(&out), Ok(Some(out.len())));
        assert_eq!(decode_frame::<Request>(&out), Ok((SUBMIT, &b"writeset"[..])));
    }

    #[test]
    fn a_payload_may_be_made_inside_the_frame() {
        let (mut whole, mut made) = (b"before".to_vec(), b"before".to_vec());
        put_frame(&mut whole, &SUBMIT, b"writeset").unwrap();
        let put_payload = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"write");
            out.extend_from_slice(b"set");
            Ok(())
        };
        put_frame_with(&mut made, &SUBMIT, put_payload).unwrap();
        assert_eq!(made, whole);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let mut out = b"before".to_vec();
        let refused = WireError::OutOfRange { what: "payload" };
        let put_payload = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half");
            Err(refused.clone())
        };
        assert_eq!(put_frame_with(&mut out, &SUBMIT, put_payload), Err(refused.clone()));
        assert_eq!(out, b"before");

        let long = vec![0; LINK_FRAME_BYTES_MAX];
        assert!(matches!(put_frame(&mut out, &SUBMIT, &long), Err(WireError::TooLarge { what: "link frame", .. })));
        assert_eq!(out, b"before");
    }

    #[test]
    fn a_frame_that_is_not_as_long_as_it_says_is_refused() {
        let mut out = Vec::new();
        put_frame(&mut out, &SUBMIT, b"writeset").unwrap();
        assert!(matches!(decode_frame::<Request>(&out[..out.len() - 1]), Err(WireError::Truncated { missing: 1 })));
        out.push(0);
        assert!(matches!(decode_frame::<Request>(&out), Err(WireError::Trailing { what: "link frame", extra: 1 })));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = frame_len(&bytes);
            let _ = decode_frame::<Request>(&bytes);
            let _ = decode_frame::<Reply>(&bytes);
        }
    }
}
