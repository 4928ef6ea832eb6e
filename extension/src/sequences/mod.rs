//! Sequences of a replicated database: values that no two nodes give, and through one node those that PostgreSQL gives (docs/adr/0025).
//!
//! ```text
//! nextval (draw)      the node's own sequence gives a value; it stands if a lease of this node has it
//!    |  no lease                                                                  ^ shared memory: node::leases
//!    v                                                                            |
//! the leaser          moves the group's value forward in a transaction of its own: an ordinary ordered one, that may lose
//!                     (state: a row of postgres_r.sequences)
//! ```
//!
//! What keeps a value from being given twice: the group's value only moves forward, but by statements that start a sequence again; a lease is
//! what it moved over, in a certified transaction, so leases have nothing in common; the node's own sequence only moves forward, too, while it
//! has its file; and it gives a value that is in a lease once. A crash may set the node's sequence back, but takes the leases with it.
//!
//! A sequence that the current transaction has made or started again is its own until it commits: others cannot see its file. Its values need no
//! lease; at the end its state becomes the group's ([`pending`]). [`statement`] has ALTER SEQUENCE mean the group's value, on every node.
//!
//! Left out on purpose: values come in blocks where several nodes draw, and their order says nothing about time across nodes.

mod copy;
mod draw;
pub mod leaser;
mod pending;
mod set;
mod sql;
mod state;
pub mod statement;

pub use copy::{ends as copy_ends, starts as copy_starts};
pub use pending::{flush, note};

use crate::error;
use crate::pg::{nextval, plan, setval, shown};
use crate::session;

/// Called while libraries are preloaded. A server that can't be made to ask must not start: nodes would give the same values.
pub fn install() {
    let is_asked = nextval::on_draw(nextval::Listener { before: draw::before, stands: draw::stands })
        && setval::on_setval(set::on_setval)
        && shown::on_shown(state::shown);
    if !is_asked {
        error::unknown_server().raise();
    }
    plan::install(session::replicated);
}

/// At the end of every transaction.
pub fn reset() {
    pending::reset();
    copy::reset();
}
