//! Two nodes that are sockets of this test, and what passes between them.

use std::net::SocketAddr;

use gcs_proto::{Frame, Hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Longer than anything here takes on its own.
const NOTHING_COMES: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);

struct Two {
    relay: Relay,
    door: SocketAddr,
    listener: TcpListener,
}

impl Two {
    /// Node "a" calls; node "b" is called at the door.
    async fn start() -> Two {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap().to_string();
        let relay = Relay::default();
        let door = relay.open(End { name: "b".to_owned(), door: "127.0.0.1:0".to_owned(), listen }).await.unwrap();
        Two { relay, door, listener }
    }

    /// A connection of a, which says who it is, and then this.
    async fn call(&self, more: &[u8]) -> TcpStream {
        let mut said = hello();
        said.extend_from_slice(more);
        let mut caller = TcpStream::connect(self.door).await.unwrap();
        caller.write_all(&said).await.unwrap();
        caller
    }

    async fn answer(&self) -> TcpStream {
        timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap().0
    }

    fn cut(&self) {
        let mut faults = LinkFaults::default();
        faults.cut("a", "b");
        self.relay.set(faults);
    }
}

fn hello() -> Vec<u8> {
    let mut said = Vec::new();
    gcs_proto::encode(&Frame::Hello(Hello { name: "a".to_owned(), ..Hello::default() }), &mut said).unwrap();
    said
}

async fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, expected);
}

async fn hears_nothing(stream: &mut TcpStream) {
    assert!(timeout(NOTHING_COMES, stream.read_u8()).await.is_err());
}

async fn hears_the_end(stream: &mut TcpStream) {
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn what_passes_is_what_was_said_both_ways_and_then_the_end() {
    let two = Two::start().await;
    let mut a = two.call(b"over").await;
    let mut b = two.answer().await;
    hears(&mut b, &[hello(), b"over".to_vec()].concat()).await;
    b.write_all(b"back").await.unwrap();
    hears(&mut a, b"back").await;
    let long = vec![7; 4 << 20];
    let (said, ()) = tokio::join!(a.write_all(&long), hears(&mut b, &long));
    said.unwrap();
    drop(a);
    hears_the_end(&mut b).await;
}

#[tokio::test]
async fn on_a_link_that_is_cut_nobody_hears_anything_until_it_is_healed() {
    let two = Two::start().await;
    let mut a = two.call(b"").await;
    let mut b = two.answer().await;
    hears(&mut b, &hello()).await;
    two.cut();
    a.write_all(b"over").await.unwrap();
    drop(a);
    hears_nothing(&mut b).await;
    two.relay.heal();
    hears(&mut b, b"over").await;
    hears_the_end(&mut b).await;
}

#[tokio::test]
async fn a_caller_on_a_link_that_is_cut_is_neither_answered_nor_turned_away() {
    let two = Two::start().await;
    two.cut();
    let mut a = two.call(b"").await;
    hears_nothing(&mut a).await;
    // One that has gone before it was healed has never been there.
    drop(two.call(b"gone").await);
    sleep(NOTHING_COMES).await;
    two.relay.heal();
    hears(&mut two.answer().await, &hello()).await;
    assert!(timeout(NOTHING_COMES, two.listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_slow_link_is_not_a_narrow_one() {
    let two = Two::start().await;
    let mut faults = LinkFaults::default();
    faults.slow("a", 20);
    two.relay.set(faults);
    let before = tokio::time::Instant::now();
    let mut a = two.call(b"").await;
    let mut b = two.answer().await;
    hears(&mut b, &hello()).await;
    b.write_all(b"back").await.unwrap();
    hears(&mut a, b"back").await;
    assert!(before.elapsed() >= Duration::from_millis(40));
    let long = vec![7; 4 << 20];
    let (said, ()) = tokio::join!(a.write_all(&long), hears(&mut b, &long));
    said.unwrap();
}

#[tokio::test]
async fn a_byte_can_be_changed_or_repeated_once_and_connections_can_break() {
    let two = Two::start().await;
    let mut a = two.call(b"").await;
    let mut b = two.answer().await;
    hears(&mut b, &hello()).await;
    for (spoiling, heard) in [(Spoiling::Changed, &b"abbd"[..]), (Spoiling::Repeated, b"abccd")] {
        two.relay.spoil("a", "b", spoiling);
        a.write_all(b"abcd").await.unwrap();
        hears(&mut b, heard).await;
        a.write_all(b"abcd").await.unwrap();
        hears(&mut b, b"abcd").await;
    }
    two.relay.break_all();
    hears_the_end(&mut a).await;
    hears_the_end(&mut b).await;
}

#[tokio::test]
async fn who_does_not_say_who_it_is_is_turned_away() {
    let two = Two::start().await;
    let mut a = TcpStream::connect(two.door).await.unwrap();
    a.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // With a reset, since not all of it was read.
    assert!(!timeout(PATIENCE, a.read(&mut [0; 8])).await.unwrap().is_ok_and(|bytes| bytes > 0));
}
