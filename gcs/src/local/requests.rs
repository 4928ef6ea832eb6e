//! Requests as they come in on one connection.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use gcs_writeset::link::{self, Request};
use gcs_writeset::wire::WireError;

use super::error::SessionError;
use crate::outbox::Stream;

/// Of the field in front of a frame, which its own length does not count.
const LENGTH_BYTES: usize = 4;

pub struct Requests {
    stream: Rc<Stream>,
    buffer: BytesMut,
    bytes_max: usize,
}

impl Requests {
    /// No frame may be longer than `bytes_max`; before the greeting that is little.
    pub fn new(stream: Rc<Stream>, bytes_max: usize) -> Requests {
        Requests { stream, buffer: BytesMut::new(), bytes_max }
    }

    pub fn set_limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The next request with its payload; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Request, Bytes)>, SessionError> {
        loop {
            if let Some(length) = link::frame_len(&self.buffer)? {
                if length > self.bytes_max + LENGTH_BYTES {
                    let (value, limit) = (length as u64, self.bytes_max as u64);
                    return Err(WireError::TooLarge { what: "link frame", value, limit }.into());
                }
                if self.buffer.len() >= length {
                    let frame = self.buffer.split_to(length).freeze();
                    let (request, payload) = link::decode_frame::<Request>(&frame)?;
                    return Ok(Some((request, frame.slice_ref(payload))));
                }
                self.buffer.reserve(length - self.buffer.len());
            }
            if self.stream.read(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}
