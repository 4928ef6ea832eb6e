//! What the current transaction tells whoever listens, on every node: NOTIFY and pg_notify(), with `postgres_r.notify = group` (docs/adr/0053-notify.md).
//!
//! PostgreSQL keeps its own list of what a transaction sends, and this is the same list: without what is there already, in the order in which it came, without what came in a
//! subtransaction that was rolled back. Listeners of this node are told by PostgreSQL from its list. This one goes behind everything else into the
//! writeset, so that those of other nodes are told by whoever commits the writeset there.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use gcs_writeset::body::PutItem;

use crate::backend::writable;
use crate::error;
use crate::guc::{self, LockScope};
use crate::pg::{encoding, extension, notify, subtransaction};
use crate::session;

/// How full PostgreSQL's queue may be for a transaction to be submitted that adds to it. What is left is for those that are on their way.
const QUEUE_USAGE_MAX: f64 = 0.99;

#[derive(Default)]
struct Pending {
    /// Items as they travel, with the level of the subtransaction that each belongs to: levels never go down.
    items: Vec<(i32, Rc<[u8]>)>,
    known: HashSet<Rc<[u8]>>,
}

thread_local! {
    static PENDING: RefCell<Pending> = RefCell::default();
}

/// Called while libraries are preloaded. A server that can't be made to tell must not start: listeners of other nodes would miss what this one
/// sends.
pub fn install() {
    if !notify::on_notify(noted) {
        error::unknown_server().raise();
    }
}

/// PostgreSQL has noted it. What the script of an extension sends, it sends on every node.
fn noted(channel: &[u8], payload: &[u8]) {
    if !session::is_captured() || extension::script_runs() || guc::notify() != LockScope::Group {
        return;
    }
    let (Some(channel), Some(payload)) = (encoding::exactly(channel), encoding::exactly(payload)) else {
        error::notification_not_utf8().raise()
    };
    if !is_any() {
        writable::ensure();
    }
    let mut item = Vec::with_capacity(channel.len() + payload.len() + 8);
    item.put_notify(&channel, &payload);
    PENDING.with_borrow_mut(|pending| {
        let item: Rc<[u8]> = item.into();
        if pending.known.insert(Rc::clone(&item)) {
            pending.items.push((subtransaction::level(), item));
        }
    });
}

pub fn is_any() -> bool {
    PENDING.with_borrow(|pending| !pending.items.is_empty())
}

/// Raises PostgreSQL's own error, if what the transaction sends is not likely to find room. Later, when the group has certified the transaction, it
/// could no longer fail.
pub fn ensure_room() {
    if is_any() && notify::queue_usage() > QUEUE_USAGE_MAX {
        error::notify_queue_full().raise();
    }
}

/// Hands them over, in order.
pub fn take() -> Vec<Rc<[u8]>> {
    PENDING.take().items.into_iter().map(|(_, item)| item).collect()
}

/// The end of every transaction.
pub fn reset() {
    if is_any() {
        PENDING.take();
    }
}

pub fn subtransaction_released(level: i32) {
    PENDING.with_borrow_mut(|pending| {
        let of_it = pending.items.iter_mut().rev().take_while(|(of, _)| *of >= level);
        of_it.for_each(|(of, _)| *of = level - 1);
    });
}

pub fn subtransaction_aborted(level: i32) {
    PENDING.with_borrow_mut(|pending| {
        while let Some((_, item)) = pending.items.pop_if(|(of, _)| *of >= level) {
            pending.known.remove(&item);
        }
    });
}
