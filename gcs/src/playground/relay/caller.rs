//! Who calls: the name in the first frame that a daemon sends.

use std::io;

use bytes::BytesMut;
use gcs_proto::{Decoder, Frame};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::bounds::HANDSHAKE_FRAME_BYTES_MAX;

/// The name, and everything that was read for it, which the node that is called must get too.
pub async fn who(caller: &mut (impl AsyncRead + Unpin)) -> io::Result<(String, BytesMut)> {
    let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES_MAX);
    let mut said = BytesMut::new();
    loop {
        let before = said.len();
        if caller.read_buf(&mut said).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoder.buffer.extend_from_slice(&said[before..]);
        match decoder.next_frame().map_err(io::Error::other)? {
            Some(Frame::Hello(hello)) => return Ok((hello.name, said)),
            Some(Frame::Join(join)) => return Ok((join.name, said)),
            Some(Frame::Enrol(enrol)) => return Ok((enrol.name, said)),
            Some(_) => return Err(io::Error::other("a frame that is no greeting")),
            None => {}
        }
    }
}

/// Ends when a caller that waits for an answer has gone, or says more than one does that waits.
pub async fn gone(caller: &mut (impl AsyncRead + Unpin), said: &mut BytesMut) -> io::Error {
    while said.len() <= HANDSHAKE_FRAME_BYTES_MAX {
        match caller.read_buf(said).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    io::Error::other("too much before an answer")
}
