//! Ports for servers that a test starts by itself.
//!
//! They lie below Linux's ephemeral ports: no outgoing connection of anybody takes one before the server does, or while it is down. Groups of the
//! playground have others (`group`).

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const PORTS: std::ops::Range<u16> = 30_400..32_700;

/// Where nobody listens on loopback, no two the same in this process.
pub fn free(count: usize) -> Vec<u16> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(61);
    let candidates = std::iter::from_fn(|| {
        let tried = begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        Some(PORTS.start + (tried % u32::from(PORTS.end - PORTS.start)) as u16)
    });
    candidates.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).take(count).collect()
}

pub fn free_one() -> u16 {
    free(1)[0]
}

/// The first of those that a playground of up to eight nodes uses, made by somebody who does not look for free ones: for its servers, daemons, and metrics.
pub fn free_base() -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let is_base = |base: &u16| [0, 100, 150].iter().all(|offset| (0..8).all(|node| is_free(base + offset + node)));
    std::iter::from_fn(|| Some(free_one())).find(is_base).unwrap_or(PORTS.start)
}
