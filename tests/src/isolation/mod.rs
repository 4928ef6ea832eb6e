//! Isolation specs across nodes: sessions on different nodes, their steps in a given order, and what each of them is told.
//!
//! A spec is written in PostgreSQL's own grammar (src/test/isolation/README there), with two words more:
//!
//! ```text
//! session "s1" on n2        the session's node; n1 when nothing is said
//! permutation a b(async) c  the next step starts as soon as b has returned, wherever b's changes are by then
//! ```
//!
//! What is printed is what isolationtester prints, with the sessions' nodes in the first line; it is compared with
//! `expected/<spec>.out` ([`expected`]).
//!
//! **When a step starts.** A step starts when every earlier one has completed or waits for a lock, and everything committed on
//! any node so far is committed on all of them: after each step the runner *settles* the group, unless the step says
//! `async`. So a spec reads like one on a single server, and its output does not depend on how fast nodes apply.
//!
//! **What waiting means.** A step waits when its backend waits for a heavyweight lock that another session of the spec holds on
//! the same node (pg_isolation_test_session_is_blocked). Waiting for the group (a verdict, the gate, the lag bound) or for
//! a remote backend is *not* waiting but running: nobody makes an earlier position wait, so it ends by itself, and when it
//! would end must not show in an output. A step that neither completes nor waits within [`run::STEP_MAX`] fails the spec, as
//! does a group that does not settle.
//!
//! **What settling does to an open transaction.** If it stands in the way of a position, the position does not wait: a step that
//! waits for a lock fails at once (40001), an idle session is ended. The next step of that session prints its FATAL.
//!
//! Left out on purpose: NOTIFY is not printed, and a step of several statements that fails shows its error alone.
//!
//! - [`spec`]: a spec, parsed and checked.  - [`lexer`]: its words.
//! - [`session`]: one connection, asked without waiting for it.
//! - [`run`]: a permutation.                - [`table`]: results as isolationtester prints them.
//! - [`pairs`]: every pair of operations, with the verdicts that the rules of certification give.
//! - [`expected`]: files of expected output.

pub mod expected;
pub mod lexer;
pub mod pairs;
pub mod run;
pub mod session;
pub mod spec;
pub mod table;

pub use run::Runner;
pub use spec::Spec;
