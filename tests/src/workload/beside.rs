//! Two transactions of one node that run to their ends before either commits: whether the second gets through beside the first.

use crate::harness::{Group, node};
use crate::workload::client::{Failure, classify};

/// What became of the second.
///
/// # Errors
/// Why it did not get through.
///
/// # Panics
/// If the first does not.
pub fn overlap(group: &Group, first: &str, second: &str) -> Result<(), Failure> {
    println!("{first} | {second}");
    let (mut one, mut other) = (group.connect(node(1)), group.connect(node(1)));
    one.batch_execute(&format!("BEGIN; {first}")).unwrap_or_else(|error| panic!("{first}: {error:?}"));
    let done = other.batch_execute(&format!("SET lock_timeout = '5s'; BEGIN; {second}"));
    one.batch_execute("COMMIT").unwrap_or_else(|error| panic!("{first}: {error:?}"));
    done.and_then(|()| other.batch_execute("COMMIT")).map_err(|error| classify(&error))
}

/// What is wrong, where both are to get through.
pub fn unless_both_pass(group: &Group, first: &str, second: &str) -> Option<String> {
    let outcome = overlap(group, first, second);
    outcome.is_err().then(|| format!("{first} | {second}: {outcome:?}"))
}

/// What is wrong, where the second is to lose. Where PostgreSQL itself has it wait for the first, it does not come to that.
pub fn unless_second_loses(group: &Group, first: &str, second: &str) -> Option<String> {
    let outcome = overlap(group, first, second);
    let waits = matches!(&outcome, Err(Failure::Definite(text)) if text.contains("lock timeout"));
    (outcome != Err(Failure::Retry) && !waits).then(|| format!("{first} | {second}: {outcome:?}"))
}
