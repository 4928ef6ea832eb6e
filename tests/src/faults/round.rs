//! One fault, once: inflicted, lived with, healed, recovered from; and how long the last two took.

use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::NodeNumber;
use gcs::playground::group::describe;

use super::fault::{Cast, Fault};
use super::testbed::Testbed;
use crate::harness::wait;
use crate::workload::ledger::Ledger;

/// Nobody waits for longer in any test; what is required is judged by the report.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a fault lasts at least, where nothing says that it has been noticed.
const LASTS: Duration = Duration::from_millis(2_000);
/// What libpq's `target_session_attrs` goes by.
const SAYS_READ_ONLY: &str = "SELECT current_setting('default_transaction_read_only') = 'on'";

#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From the fault until every node that is not outside has acknowledged a write that was asked for after it; none if all are outside.
    pub back: Option<Duration>,
    /// From the fault until the last node outside refused writes; none if none has to.
    pub refused: Option<Duration>,
    /// From the end of the fault until every node has acknowledged a write that was asked for after it, and has all that the others have.
    pub healed: Duration,
}

/// Panics when something does not come about at all.
pub fn run(testbed: &Testbed, ledger: &Ledger, fault: Fault, round: usize) -> Times {
    let numbers = testbed.group.numbers();
    all_write(ledger, &numbers, Instant::now(), "before the fault");
    let (leader, _) = wait::until("a leader", PATIENCE, || testbed.leader().ok_or_else(|| "none".to_owned()));
    let cast = Cast::of(leader, &numbers, round);
    let outside = fault.outside(cast);
    let inside: Vec<NodeNumber> = numbers.iter().copied().filter(|number| !outside.contains(number)).collect();

    let ongoing = fault.inflict(testbed, cast);
    // A packet filter takes a moment to be told; what was sent before it was is not under the fault.
    let since = Instant::now();
    let what = format!("{} of {cast:?}", fault.name());
    let back = (!inside.is_empty()).then(|| all_write(ledger, &inside, since, &what));
    let refused = fault.must_refuse().then(|| all_refuse(testbed, &outside, since)).flatten();
    if fault.lasts() {
        // Where nothing tells that it has been noticed, it has to be there for a time to be one.
        thread::sleep(LASTS.saturating_sub(since.elapsed()));
    }

    let since = Instant::now();
    ongoing.heal(testbed);
    let wrote = all_write(ledger, &numbers, since, &format!("after {what}"));
    testbed.group.settle();
    Times { back, refused, healed: wrote.max(since.elapsed()) }
}

/// Until each of the nodes has acknowledged a write that was asked for after `since`.
fn all_write(ledger: &Ledger, numbers: &[NodeNumber], since: Instant, what: &str) -> Duration {
    let first_on = |&number: &NodeNumber| {
        let what = format!("a write on node {}: {what}", number.0);
        wait::until(&what, PATIENCE, || ledger.first_on(since, number).ok_or_else(|| "none".to_owned())).0
    };
    numbers.iter().map(first_on).max().unwrap_or_default()
}

/// Until each of the nodes says that it takes no writes, refuses one and serves a read; none if there is no such node.
fn all_refuse(testbed: &Testbed, numbers: &[NodeNumber], since: Instant) -> Option<Duration> {
    numbers.iter().map(|&number| refuses(testbed, number, since)).max()
}

fn refuses(testbed: &Testbed, number: NodeNumber, since: Instant) -> Duration {
    let mut client = testbed.group.connect(number);
    wait::until(&format!("node {} says that it is read-only", number.0), PATIENCE, || {
        let row = client.query_one(SAYS_READ_ONLY, &[]).map_err(|error| describe(&error))?;
        if row.get(0) { Ok(()) } else { Err("it does not".to_owned()) }
    });
    let took = since.elapsed();
    let refused = client.execute("INSERT INTO ledger VALUES (-1, 0, 0)", &[]);
    let code = refused.as_ref().map_err(|error| error.code().map(|code| code.code().to_owned()));
    assert_eq!(code, Err(Some("25006".to_owned())), "a write on node {}, which is in a minority", number.0);
    let read = client.query_one("SELECT count(*) FROM ledger", &[]);
    read.unwrap_or_else(|error| panic!("a read on node {}, which is in a minority: {}", number.0, describe(&error)));
    took
}
