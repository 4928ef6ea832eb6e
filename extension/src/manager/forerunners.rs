//! Starting forerunners (`crate::apply::forerunner`): when gcs has something to be applied ahead and none is free. They end by themselves.

use std::time::{Duration, Instant};

use postgres_r_protocol::bounds::FORERUNNERS;

use crate::node::{DatabaseArea, Node, request};
use crate::pg::worker::{self, Kind};

/// What was started and has not come by then will not.
const COMES_WITHIN: Duration = Duration::from_secs(1);

/// When each was last started: it takes a moment until it says that it is there.
#[derive(Default)]
pub(super) struct Forerunners {
    started: [Option<Instant>; FORERUNNERS],
}

impl Forerunners {
    /// Starts one, if there is a place and room for another process. If not, gcs gives up after a moment, and what was to be applied ahead is applied in its turn.
    pub(super) fn start(&mut self, node: &Node, area: &DatabaseArea) {
        // A scout, which somebody waits for, takes the last room there may be.
        if node.requests.iter().any(request::Request::is_asked) {
            return;
        }
        let places = area.forerunners.iter().zip(&mut self.started).enumerate();
        let mut free = places.filter(|(_, (forerunner, started))| {
            forerunner.process.get().is_none() && started.is_none_or(|at| at.elapsed() >= COMES_WITHIN)
        });
        if let Some((index, (_, started))) = free.next() {
            *started = Some(Instant::now());
            let name = format!("postgres_r forerunner {index} of {}", area.replica.name.get());
            worker::start(Kind::Forerunner, &name, worker::remote_number(area.index, index));
        }
    }
}
