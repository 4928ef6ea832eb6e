//! What this node has other than the group goes, so that what comes behind it in the writeset can take its place (docs/adr/0034).
//!
//! Its rows are found by reading the whole table: an index may be what is damaged, or may lead to a row by the key that it had. Where the table
//! itself cannot be read, all of it goes, with the file that it is in and with its indexes. Nothing is evaluated: no function of a user runs.

use std::collections::HashSet;

use gcs_writeset::body::Repair;

use super::divergence::Divergence;
use crate::pg::datum::TransmissionModes;
use crate::pg::{relation, rewrite, scan};
use crate::verify::row::Fingerprint;
use crate::{relations, session};

pub fn is_for_this_node(repair: Repair<'_>) -> bool {
    session::database().is_some_and(|area| area.replica.node() == repair.node)
}

/// Nothing of ours must have the table open.
pub fn clear(schema: &str, name: &str, repair: Repair<'_>) -> Result<(), Divergence> {
    let missing = || Divergence::NoRelation { schema: schema.to_owned(), name: name.to_owned() };
    let table = relation::find(schema, name).ok_or_else(missing)?;
    let is_done = if repair.all {
        rewrite::empty(table)
    } else {
        let wrong: HashSet<u128> = repair.identities().collect();
        scan::delete_where(table, |open| {
            let known = relations::known_open(open);
            let modes = known.table.depends_on_settings.then(TransmissionModes::enter);
            let mut fingerprint = Fingerprint::new(known);
            move |row| {
                let _in_force = &modes;
                wrong.contains(&fingerprint.identity(row))
            }
        })
    };
    if is_done { Ok(()) } else { Err(missing()) }
}
