//! What is counted where it happens: an addition to a number in memory, whoever looks. Counts begin with the process.

use std::collections::BTreeMap;
use std::time::Duration;

use gcs_writeset::link::{AbortCause, RefusalReason, Verdict};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What an ordered position came to, as the metric's label has it.
const OUTCOMES: [&str; 10] = [
    "certified",
    "conflict",
    "below_horizon",
    "malformed",
    "token",
    "locks_lost",
    "prepared",
    "not_prepared",
    "already_prepared",
    "too_many_prepared",
];

/// Why something that PostgreSQL wanted was not ordered.
const REFUSALS: [&str; 5] = ["no_quorum", "overloaded", "not_attached", "has_contents", "format"];

/// What is answered over HTTP.
pub const PATHS: [&str; 10] =
    ["/metrics", "/healthz", "/readyz", "/writable", "/synced", "/", "/page.css", "/page.js", "/charts.js", "/state"];

/// From a fast disk's flush to what an operator must hear of, in seconds.
const FLUSH_BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Where connections come in.
#[derive(Clone, Copy, Debug)]
pub enum Port {
    Peers,
    Local,
    Http,
}

/// Why a connection was ended before it was served.
#[derive(Clone, Copy, Debug)]
pub enum Rejection {
    /// There were too many.
    Crowd,
    /// It took too long to say what it wants.
    Late,
    /// It may not, or what it said made no sense.
    Refused,
}

const PORTS: [&str; 3] = ["peers", "local", "http"];
const REJECTIONS: [&str; 3] = ["crowd", "late", "refused"];

#[derive(Debug)]
pub struct Counted {
    pub registry: Registry,
    outcomes: [Counter; OUTCOMES.len()],
    refusals: [Counter; REFUSALS.len()],
    rejections: [[Counter; REJECTIONS.len()]; PORTS.len()],
    requests: Family<[(&'static str, &'static str); 2], Counter>,
    flushes: Histogram,
}

impl Default for Counted {
    fn default() -> Counted {
        let mut registry = Registry::default();
        let by_outcome = Family::<[(&str, &str); 1], Counter>::default();
        let by_reason = Family::<[(&str, &str); 1], Counter>::default();
        let rejected = Family::<[(&str, &str); 2], Counter>::default();
        let requests = Family::<[(&str, &str); 2], Counter>::default();
        let flushes = Histogram::new(FLUSH_BUCKETS);
        registry.register("gcs_ordered", "Positions ordered, of all databases, by what each came to", by_outcome.clone());
        registry.register("gcs_refused", "Submissions refused before they were ordered, by reason", by_reason.clone());
        let help = "Connections ended before they were served, by port and cause";
        registry.register("gcs_connections_rejected", help, rejected.clone());
        registry.register("gcs_http_requests", "Requests answered over HTTP, by path and status", requests.clone());
        let help = "Time of a flush of the log to its disk";
        registry.register_with_unit("gcs_log_flush", help, Unit::Seconds, flushes.clone());
        // Those that are always there.
        for path in PATHS {
            drop(requests.get_or_create_owned(&[("path", path), ("status", "200")]));
        }
        Counted {
            registry,
            outcomes: OUTCOMES.map(|outcome| by_outcome.get_or_create_owned(&[("outcome", outcome)])),
            refusals: REFUSALS.map(|reason| by_reason.get_or_create_owned(&[("reason", reason)])),
            rejections: PORTS
                .map(|port| REJECTIONS.map(|cause| rejected.get_or_create_owned(&[("port", port), ("cause", cause)]))),
            requests,
            flushes,
        }
    }
}

impl Counted {
    pub fn ordered(&self, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Certified { .. } => 0,
            Verdict::Aborted(AbortCause::Conflict { .. }) => 1,
            Verdict::Aborted(AbortCause::BelowHorizon { .. }) => 2,
            Verdict::Aborted(AbortCause::Malformed) => 3,
            Verdict::Aborted(AbortCause::TokenUsed { .. } | AbortCause::TokenFenced | AbortCause::TokenTooOld { .. }) => 4,
            Verdict::Aborted(AbortCause::LocksLost) => 5,
            Verdict::Aborted(AbortCause::Prepared { .. }) => 6,
            Verdict::Aborted(AbortCause::NotPrepared) => 7,
            Verdict::Aborted(AbortCause::AlreadyPrepared) => 8,
            Verdict::Aborted(AbortCause::TooManyPrepared) => 9,
        };
        self.outcomes[outcome].inc();
    }

    pub fn refused(&self, reason: RefusalReason) {
        let reason = match reason {
            RefusalReason::NoQuorum => 0,
            RefusalReason::Overloaded => 1,
            RefusalReason::NotAttached => 2,
            RefusalReason::HasContents => 3,
            RefusalReason::Format => 4,
        };
        self.refusals[reason].inc();
    }

    /// How many positions came to each outcome, and how many submissions were refused for each reason.
    pub fn decided(&self) -> (BTreeMap<&'static str, u64>, BTreeMap<&'static str, u64>) {
        let outcomes = OUTCOMES.into_iter().zip(self.outcomes.iter().map(Counter::get));
        let refusals = REFUSALS.into_iter().zip(self.refusals.iter().map(Counter::get));
        (outcomes.collect(), refusals.collect())
    }

    pub fn rejected(&self, port: Port, cause: Rejection) {
        self.rejections[port as usize][cause as usize].inc();
    }

    /// A request over HTTP was answered: on one of the known paths or on `other`.
    pub fn answered(&self, path: &'static str, status: &'static str) {
        self.requests.get_or_create(&[("path", path), ("status", status)]).inc();
    }

    /// The log was flushed.
    pub fn flushed(&self, took: Duration) {
        self.flushes.observe(took.as_secs_f64());
    }
}
