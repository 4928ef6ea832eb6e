//! Having indexes built, or taken out of use, for sessions of other nodes that make or drop them CONCURRENTLY (docs/adr/0058-concurrently.md).
//!
//! A session asks twice: when do all who write here know the index, and when is it built? Or once: when does nobody use it? Each question is answered when it is so, when it has
//! failed, or when its patience is over; then the session hears that it is under way, and asks again. A builder ([`super::builder`]) does the
//! work, one for each index.

use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::building::{Building, Wish};
use gcs_writeset::link::Rehearsal;

use super::failure::failure;
use crate::node::building::{Build, Stage};
use crate::node::{DatabaseArea, wake};
use crate::pg::concurrent::{self, State};
use crate::pg::relation::{self, Oid};
use crate::pg::worker::{self, Kind};
use crate::pg::{clock, process, xact};

/// For how long an answer is waited for at most.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// A position that this node has yet to commit, or a builder that does not come, says nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What was started and has not come by then will not.
const COMES_WITHIN: Duration = Duration::from_secs(2);

/// "It is under way."
const UNDER_WAY: Rehearsal = Rehearsal::Clear { committed: Position::ZERO };

/// A question.
struct Asked {
    number: u64,
    building: Building,
    /// The place in shared memory; none as long as the index is not there.
    place: Option<usize>,
    since: Instant,
    until: Instant,
}

/// All of them.
pub struct Buildings {
    area: &'static DatabaseArea,
    open: Vec<Asked>,
}

impl Buildings {
    pub fn new(area: &'static DatabaseArea) -> Buildings {
        Buildings { area, open: Vec::new() }
    }

    /// An answer at once if the question can't be read.
    pub fn begin(&mut self, number: u64, patience: Duration, request: &[u8]) -> Option<Rehearsal> {
        let Ok(building) = Building::decode(request) else { return Some(Rehearsal::Partly) };
        let since = Instant::now();
        self.open.push(Asked { number, building, place: None, since, until: since + patience.min(PATIENCE_MAX) });
        None
    }

    /// What can be said by now.
    pub fn done(&mut self) -> Vec<(u64, Rehearsal)> {
        let area = self.area;
        let mut answers = Vec::new();
        self.open.retain_mut(|asked| match answer(area, asked) {
            Some(outcome) => {
                answers.push((asked.number, outcome));
                false
            }
            None => true,
        });
        answers
    }

    /// How long nothing need be looked at, if nobody wakes us.
    pub fn rest(&self) -> Option<Duration> {
        let until = self.open.iter().map(|asked| asked.until).min()?;
        Some(until.saturating_duration_since(Instant::now()).min(LOOK_AGAIN))
    }
}

fn answer(area: &'static DatabaseArea, asked: &mut Asked) -> Option<Rehearsal> {
    let is_late = asked.until <= Instant::now();
    if asked.place.is_none() && area.gate.committed() >= asked.building.after {
        let Building { schema, name, .. } = &asked.building;
        let found = xact::transaction(|| {
            let index = relation::find(schema, name)?;
            Some((index, concurrent::state(index)?))
        });
        let Ok(Some((index, state))) = found else { return Some(Rehearsal::Partly) };
        asked.place = place_of(area, index, asked.building.wish == Wish::Unused, &state);
    }
    let Some(build) = asked.place.and_then(|place| area.builds.get(place)) else {
        return is_late.then_some(UNDER_WAY);
    };
    build.is_asked(clock::millis());
    if let Wish::Built(seen) = asked.building.wish
        && build.seen().is_none()
    {
        build.set_seen(seen);
        wake(&build.process);
    }
    match build.stage.load() {
        Stage::Failed => Some(Rehearsal::Failed(failure(area, build.error()))),
        Stage::Done => Some(Rehearsal::Clear { committed: area.gate.committed() }),
        Stage::Known if asked.building.wish == Wish::Known => Some(Rehearsal::Clear { committed: build.known() }),
        Stage::Free => Some(Rehearsal::Partly),
        Stage::Asked if asked.since.elapsed() >= COMES_WITHIN && process::me().is_some_and(|me| build.give_up(me)) => {
            Some(Rehearsal::Partly)
        }
        Stage::Asked | Stage::Known => is_late.then_some(UNDER_WAY),
    }
}

/// Where the index is built, or has been. None as long as there is no room.
fn place_of(area: &DatabaseArea, index: Oid, is_to_go: bool, state: &State) -> Option<usize> {
    let is_done = if is_to_go { !state.is_live } else { state.is_ready };
    let is_its = |build: &Build| {
        let stage = build.stage.load();
        // One that was done and is not has the number of an index that is gone.
        build.index() == index && build.is_to_go() == is_to_go && stage != Stage::Free && (is_done || stage != Stage::Done)
    };
    if let Some(place) = area.builds.iter().position(is_its) {
        return Some(place);
    }
    let place = area.builds.iter().position(|build| build.process.get().is_none() && build.is_over())?;
    area.builds[place].begin(index, is_to_go, clock::millis());
    let name = format!("postgres_r builder {place} of {}", area.replica.name.get());
    if !worker::start(Kind::Builder, &name, worker::remote_number(area.index, place)) {
        area.builds[place].stage.store(Stage::Free);
    }
    Some(place)
}
