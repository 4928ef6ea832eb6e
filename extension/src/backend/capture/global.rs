//! Statements about what all databases of a server share: those about roles are taken in one database of the group.
//!
//! Each database has an order of its own, and nothing says how the orders of two databases go together. Were roles changed in both, one node
//! could apply `ALTER ROLE r LOGIN` of the one before `ALTER ROLE r NOLOGIN` of the other, and another node behind it. So there is one database
//! for them: of those that are replicated on a server the one that has the lowest number in the group, which the group gives for ever, in its
//! order. The origin asks that of itself, and each other node when it tries the statement: a node that replicates more databases than the
//! origin refuses what the origin would take (docs/adr/0056-roles.md).

use gcs_writeset::DatabaseId;
use gcs_writeset::body::PutItem;
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::platform::Exclusion;

use super::running::Origin;
use crate::error::Error;
use crate::node::{self, DatabaseArea};
use crate::pg::global::Global;
use crate::pg::statement::Ordered;
use crate::pg::utility::Utility;
use crate::session;

/// Raises an error if the statement is to be sent in another database.
pub fn require_database(utility: &Utility, ordered: &Ordered) {
    if ordered.global == Some(Global::Roles) {
        require_first(&utility.tag(), "its roles");
    }
}

/// Raises an error if this is not the database that takes statements about what all databases of a server share.
pub fn require_first(tag: &str, what: &str) {
    let (Some(node), Some(ours), Some(first)) = (node::get(), session::database(), session::first_database()) else {
        return;
    };
    if first.replica.number() >= ours.replica.number() {
        return;
    }
    let name = |area: &DatabaseArea| node.table.shared(|| area.replica.name.get());
    if first.replica.number() == DatabaseId(0) {
        let message = format!("cannot tell yet in which database {tag} is taken");
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .detail(format!("Database \"{}\" has not heard of its group since the server was started.", name(first)))
            .hint("Try again in a moment.")
            .raise();
    }
    let (here, there) = (name(ours), name(first));
    let message = format!("{tag} is not supported in replicated database \"{here}\"");
    Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
        .detail(format!("All databases of a server share {what}, and the group changes them in the order of one database."))
        .hint(format!("Run it in database \"{there}\"."))
        .raise()
}

/// The statement as it travels, now that it has run: with the verifier of its password, if it has one.
pub fn item(origin: &Origin, utility: &Utility) -> Vec<u8> {
    let mut item = Vec::new();
    if let Some(verifier) = utility.verifier() {
        item.put_verifier(&verifier);
    }
    item.extend(&origin.item);
    item
}
