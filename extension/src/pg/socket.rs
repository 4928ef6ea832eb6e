//! A Unix stream socket that never blocks.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub struct Socket {
    fd: OwnedFd,
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Socket {
    /// Connects at once or not at all: a Unix socket whose listener's queue is full answers WouldBlock.
    pub fn connect(path: &str) -> io::Result<Socket> {
        // SAFETY: zeroes are a valid sockaddr_un.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_bytes();
        if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a Unix socket"));
        }
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        // SAFETY: a plain system call.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let length = offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
        debug_assert!(length <= size_of::<libc::sockaddr_un>());
        // SAFETY: `address` is initialised for `length` bytes.
        let result = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length as libc::socklen_t) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Socket { fd })
    }

    /// Sends what fits now; WouldBlock when nothing does.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: reads `bytes` only.
        let sent = unsafe { libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    /// Receives what is there; WouldBlock when nothing is, 0 at the end of the stream.
    pub fn recv(&self, bytes: &mut [u8]) -> io::Result<usize> {
        // SAFETY: writes at most `bytes.len()` bytes to `bytes`.
        let received = unsafe { libc::recv(self.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
    }
}
