//! The invariants of the design, one file each. Each sees every fact of a run, in order, and says when one breaks it.

mod certified_means_committed;
mod doubts_have_causes;
mod durable_before_acknowledged;
mod equal_in_the_end;
mod exactly_once;
mod gate_moves;
mod invariant;
mod minority_commits_nothing;
mod never_diverge;
mod no_lost_update;
mod one_commit_order;
mod one_holder;
mod precedence;
mod reads_see_what_was_told;
mod same_order;
mod same_verdict;

pub use invariant::Invariant;

pub fn all(reference_certifier: bool) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(same_order::SameOrder::default()),
        Box::new(same_verdict::SameVerdict::new(reference_certifier)),
        Box::new(durable_before_acknowledged::DurableBeforeAcknowledged::default()),
        Box::new(one_commit_order::OneCommitOrder::default()),
        Box::new(one_holder::OneHolder::default()),
        Box::new(exactly_once::ExactlyOnce::default()),
        Box::new(certified_means_committed::CertifiedMeansCommitted::default()),
        Box::new(never_diverge::NeverDiverge),
        Box::new(minority_commits_nothing::MinorityCommitsNothing::default()),
        Box::new(no_lost_update::NoLostUpdate::default()),
        Box::new(gate_moves::GateMoves::default()),
        Box::new(precedence::Precedence),
        Box::new(doubts_have_causes::DoubtsHaveCauses),
        Box::new(reads_see_what_was_told::ReadsSeeWhatWasTold::default()),
        Box::new(equal_in_the_end::EqualInTheEnd::default()),
    ]
}
