//! Clients on every node at once.

use std::thread;

use postgres::Client;

use crate::harness::Group;

/// Runs `one` in `clients` sessions on each node, each with a number of its own, and gives what they return. A panic of one is passed on
/// when all have ended.
pub fn on_all_nodes<T: Send>(group: &Group, clients: usize, one: impl Fn(&mut Client, u64) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in group.numbers() {
            for client in 0..clients {
                let (one, seed) = (&one, (number.0 * 1000 + client) as u64);
                threads.push(scope.spawn(move || one(&mut group.connect(number), seed)));
            }
        }
        let joined: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        joined.into_iter().map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
