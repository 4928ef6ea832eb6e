//! Statements about subscriptions, beyond their text: what the group is to know of who subscribes (docs/adr/0069-subscriptions.md).
//!
//! ```text
//! on the origin     before the statement    ENABLE takes the subscription for this node, DISABLE says that nobody subscribes
//!                   after it                CREATE, DROP and RENAME, and which tables there are
//! where it is applied                       ENABLE disables, unless this is the node that the rows name
//! ```
//!
//! CREATE travels as a definition that does not connect; behind the rows stands an ENABLE, for the node itself where it has crashed before its commit.

use pgrx::PgSqlErrorCode;
use postgres_r_protocol::capture::order::Command;

use super::item::{item_of, refuse};
use super::transaction;
use crate::error::Error;
use crate::pg::names::quoted;
use crate::pg::relation::Oid;
use crate::pg::statement::Refusal;
use crate::pg::subscription::{About, Statement, refused};
use crate::pg::utility::Utility;
use crate::pg::{subscriber as workers, trigger};
use crate::session;
use crate::subscriptions::group::{self, Subscription};
use crate::subscriptions::here;

/// Before an ordered statement runs on its origin.
pub fn before(utility: &Utility) {
    let Some(Statement { name, about }) = utility.about_subscription() else { return };
    let subscription = group::find(&name);
    match about {
        About::Enable => {
            let (two_phase, disable_on_error) = group::local_options(&name);
            if let Some((what, hint)) = refused(two_phase, disable_on_error) {
                refuse(&Refusal { what: what.to_owned(), hint });
            }
            transaction::ensure_writable();
            group::take(&name);
        }
        About::Disable if subscription.is_some() => {
            transaction::ensure_writable();
            group::disable(&name);
        }
        About::Options { refused } if subscription.as_ref().is_some_and(|subscription| subscription.enabled) => {
            match refused {
                Some(what) => {
                    refuse(&Refusal { what: what.to_owned(), hint: "What the group decides against would disable it." });
                }
                None => Error::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("cannot set slot_name of subscription \"{name}\" while it is enabled"),
                )
                .hint("Run ALTER SUBSCRIPTION ... DISABLE first.")
                .raise(),
            }
        }
        About::Refresh => {
            if let Some(subscription) = subscription.filter(|subscription| subscription.enabled) {
                require(subscription.is_carried_here(), || elsewhere(&subscription, "Run the statement there."));
                session::alone(|| here::come_to(&subscription));
            }
        }
        About::Drop => {
            if let Some(subscription) = subscription.filter(|subscription| subscription.enabled) {
                require(subscription.is_carried_here(), || {
                    elsewhere(&subscription, "Run the statement there, or ALTER SUBSCRIPTION ... DISABLE first.")
                });
            }
        }
        About::Create { .. } | About::Disable | About::Options { .. } | About::Rename { .. } => {}
    }
}

fn require(holds: bool, error: impl FnOnce() -> Error) {
    if !holds {
        error().raise();
    }
}

fn elsewhere(subscription: &Subscription, hint: &str) -> Error {
    let Subscription { name, node, .. } = subscription;
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("subscription \"{name}\" is carried by node \"{node}\""),
    )
    .hint(hint)
}

/// When it has run, and stands among what its transaction does.
pub fn after(utility: &Utility) {
    let Some(Statement { name, about }) = utility.about_subscription() else { return };
    match about {
        About::Create { enables } => {
            group::created(&name, enables);
            if enables {
                let item = item_of(&format!("ALTER SUBSCRIPTION {} ENABLE", quoted(&name)));
                transaction::append_statement(Command(trigger::own_command()), &item);
            }
        }
        About::Refresh => group::note_tables(&name),
        About::Drop => group::forget(&name),
        About::Rename { to } => group::rename(&name, &to),
        About::Enable | About::Disable | About::Options { .. } => {}
    }
}

/// A table goes that another node has dropped. PostgreSQL drops none that this server still copies for a subscription; on the other node nobody did.
pub fn dropped(table: Oid) {
    if session::is_remote_backend() {
        group::copying(table).into_iter().for_each(|subscription| workers::forget_table(subscription, table));
    }
}

/// A statement of another node is about to be applied.
pub fn applied(utility: &mut Utility) {
    let Some(Statement { name, about: About::Enable }) = utility.about_subscription() else { return };
    if !group::find(&name).is_some_and(|subscription| subscription.is_carried_here()) {
        utility.disable_subscription();
    }
}
