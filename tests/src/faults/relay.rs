//! The relay of the playground ([`gcs::playground::relay`]) between the daemons of a testbed, on a thread of its own.
//!
//! What it does to a link is the same as in a playground: bytes are held back, where a packet filter would drop packets; they are late; and,
//! for tests alone, changed, repeated, or cut short with the connection.

use std::ops::Deref;

use gcs::playground::relay::{self, End};
use tokio::runtime::{Builder, Runtime};

/// Runs until it is dropped.
pub struct Relay {
    relay: relay::Relay,
    _runtime: Runtime,
}

impl Relay {
    /// # Errors
    /// A door that cannot be opened.
    pub fn start(ends: Vec<End>) -> Result<Relay, String> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|error| error.to_string())?;
        let relay = relay::Relay::default();
        for end in ends {
            let door = end.door.clone();
            runtime.block_on(relay.open(end)).map_err(|error| format!("{door}: {error}"))?;
        }
        Ok(Relay { relay, _runtime: runtime })
    }
}

impl Deref for Relay {
    type Target = relay::Relay;

    fn deref(&self) -> &relay::Relay {
        &self.relay
    }
}
