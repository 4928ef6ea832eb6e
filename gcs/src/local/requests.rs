//! Requests as they come in on one connection.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use gcs_writeset::link::{self, Request};

use super::error::SessionError;
use crate::outbox::Stream;

pub struct Requests {
    stream: Rc<Stream>,
    buffer: BytesMut,
}

impl Requests {
    pub fn new(stream: Rc<Stream>) -> Requests {
        Requests { stream, buffer: BytesMut::new() }
    }

    /// The next request with its payload; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Request, Bytes)>, SessionError> {
        loop {
            if let Some(length) = link::frame_len(&self.buffer)? {
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
