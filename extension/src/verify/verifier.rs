//! The verifier: there while a verification is under way. It says that it is ready, takes its snapshot at each mark, looks, and orders what it
//! has seen.
//!
//! It stays for a moment after the end, since one verification is often followed by another.

use std::time::{Duration, Instant};

use gcs_writeset::Position;
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::verification::{Answer, EVERYTHING, Part, Trouble};

use super::look::{self, Watch};
use super::store;
use crate::node::{self, DatabaseArea};
use crate::pg::snapshot::Kept;
use crate::pg::{interrupt, latch, log, process, worker, xact};
use crate::session;
use crate::summons;

/// How long it stays without a verification.
const STAYS: Duration = Duration::from_secs(5);

/// Nothing else wakes the verifier when its database goes out of service, or a verification has taken too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a table's lock may take.
const LOCK_TIMEOUT: &str = "2s";

/// How often what was seen is ordered again when others come first.
const TRIES_MAX: u32 = 200;

/// The pause after such a try.
const PAUSE: Duration = Duration::from_millis(20);

pub fn main(number: u64) {
    let Some(area) = node::get().and_then(|node| node.databases.get(number as usize)) else { return };
    let Some(place) = process::me() else { return };
    if !area.is_in_use() || !area.verification.verifier.claim(place) {
        return;
    }
    process::on_exit(|| {
        area.verification.set_ready(false);
        if area.verification.verifier.get() == process::me() {
            area.verification.verifier.set(None);
        }
        area.verification.progress.end();
    });
    worker::connect(area.oid());
    configure("postgres_r verifier", "repeatable read");
    summons::listen();
    let mut verifier = Verifier { area, place, announced: 0, last_mark: 0, last_seen: Instant::now() };
    while area.is_in_use() && verifier.round() {}
}

/// The further settings that verifiers and coordinators need, whatever the database or the superuser's role have been given.
pub(super) fn configure(name: &str, isolation: &str) {
    session::become_verification();
    for (name, value) in [
        ("default_transaction_isolation", isolation),
        ("lock_timeout", LOCK_TIMEOUT),
        ("search_path", "pg_catalog"),
        ("row_security", "off"),
        ("zero_damaged_pages", "off"),
        ("ignore_checksum_failure", "off"),
        ("application_name", name),
    ] {
        worker::set_setting(name, value);
    }
}

/// The current transaction lost to somebody, or waited too long.
pub(super) fn passes(code: PgSqlErrorCode) -> bool {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_QUERY_CANCELED
            | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
    )
}

/// After a transaction of ours that failed, nothing is left of what ended it.
pub(super) fn forgive() {
    process::forget_summons();
    interrupt::forget_cancel();
    if let Some(slot) = node::my_slot() {
        slot.victim.clear();
    }
}

struct Verifier {
    area: &'static DatabaseArea,
    place: ProcNo,
    /// The verification that was last told that this node is ready.
    announced: i64,
    /// The mark up to which this node has said what it can.
    last_mark: i64,
    /// When there last was one.
    last_seen: Instant,
}

impl Verifier {
    /// False when there is nothing more to do.
    fn round(&mut self) -> bool {
        interrupt::forget_cancel();
        interrupt::check();
        interrupt::reload_config();
        let verification = self.area.verification;
        if let Some((mark, position)) = verification.offered() {
            self.serve(mark, position);
            return true;
        }
        let changes = verification.changes();
        // An ERROR here is of a moment in which tables of ours are not there.
        let run = xact::transaction(store::run).ok().flatten().filter(|run| run.left.is_some());
        match run {
            Some(run) => {
                self.last_seen = Instant::now();
                // Whoever hears that this node is ready may order the next mark at once.
                verification.set_ready(true);
                self.attend(run.id);
            }
            None if self.last_seen.elapsed() >= STAYS => return self.stays_after_all(),
            None => {}
        }
        if verification.offered().is_none() && verification.changes() == changes {
            worker::report_statistics(false);
            latch::wait(Some(LOOK_EVERY));
        }
        true
    }

    /// Says that this node is ready, and which marks have passed without a snapshot.
    fn attend(&mut self, run: i64) {
        if run != self.announced {
            (self.announced, self.last_mark) = (run, run);
            self.put(run, &[], self.area.gate.committed());
        }
        let missed = xact::transaction(|| store::looks_after(run, self.last_mark)).unwrap_or_default();
        for mark in missed {
            self.last_mark = mark;
            self.put_trouble(mark, "the snapshot came too late".to_owned(), self.area.gate.committed());
        }
    }

    /// Whoever begins a verification and finds a verifier starts none. It says so first, and we have let go first: one of us sees the other.
    fn stays_after_all(&mut self) -> bool {
        let verification = self.area.verification;
        verification.set_ready(false);
        verification.verifier.set(None);
        let is_under_way = || xact::transaction(store::run).ok().flatten().is_some_and(|run| run.left.is_some());
        if self.area.gate.committed() >= verification.begun_at() && !is_under_way() {
            return false;
        }
        self.last_seen = Instant::now();
        verification.verifier.claim(self.place)
    }

    fn serve(&mut self, mark: i64, position: Position) {
        let verification = self.area.verification;
        verification.set_ready(false);
        let mut is_taken = false;
        let seen = xact::transaction(|| {
            let _snapshot = Kept::take();
            is_taken = verification.take(mark);
            if !is_taken || !self.comes(position) {
                return None;
            }
            look::look(position, &store::scope(mark), Watch::new(self.area, mark))
        });
        verification.set_ready(true);
        if !is_taken {
            // It is among those that were missed, when it is committed.
            return;
        }
        self.last_mark = mark;
        match seen {
            Ok(Some(answers)) => self.put(mark, &answers, position),
            Ok(None) => {}
            Err(failed) => {
                forgive();
                log::log(format!("a verification could not look at position {position}: {}", failed.message), None, None);
                self.put_trouble(mark, failed.message, position);
            }
        }
    }

    fn put_trouble(&self, mark: i64, why: String, position: Position) {
        let part = Part::Trouble(Trouble::Interrupted(why));
        self.put(mark, &[Answer { object: EVERYTHING.to_owned(), part }], position);
    }

    /// Waits until the mark is committed here, which is a moment after its snapshot.
    fn comes(&self, position: Position) -> bool {
        while self.area.gate.committed() < position {
            if !self.area.is_in_use() {
                return false;
            }
            interrupt::check();
            latch::wait(Some(LOOK_EVERY));
        }
        true
    }

    fn put(&self, mark: i64, answers: &[Answer], position: Position) {
        let name = self.area.replica.node_name(self.area.replica.node());
        let mut last = String::new();
        for _ in 0..TRIES_MAX {
            match xact::transaction(|| store::put_answers(mark, &name, answers, position)) {
                Ok(()) => return,
                Err(failed) if passes(failed.code) => {
                    forgive();
                    latch::wait(Some(PAUSE));
                    last = failed.message;
                }
                Err(failed) => {
                    forgive();
                    last = failed.message;
                    break;
                }
            }
        }
        log::log(format!("could not tell what a verification saw: {last}"), None, None);
    }
}
