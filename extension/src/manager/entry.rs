//! The table of replicated databases: how an entry is named, activated and answered for.

use std::sync::atomic::Ordering;

use pgrx::pg_sys;
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::replica::Phase;

use crate::node::request::Answer;
use crate::node::{DatabaseArea, Node};
use crate::pg::origin::{self, OriginId};

/// What every origin of this extension is named after; then group and database oid.
const PREFIX: &str = "postgres_r/";

pub fn origin_name(group: &str, database: pg_sys::Oid) -> String {
    format!("{PREFIX}{group}/{}", database.to_u32())
}

pub fn parse_origin_name(name: &str) -> Option<(&str, pg_sys::Oid)> {
    let (group, oid) = name.strip_prefix(PREFIX)?.rsplit_once('/')?;
    Some((group, pg_sys::Oid::from(oid.parse::<u32>().ok()?)))
}

/// From here on the database's changes are the group's.
pub fn activate(area: &DatabaseArea, id: OriginId) {
    area.reset(origin::progress(id));
    area.set_origin(id);
    area.set_phase(Phase::Active);
}

/// Answers the request that this database's START or STOP came from, if it still has one: whose it was.
pub fn answer(node: &Node, area: &DatabaseArea, answer: Answer) -> Option<ProcNo> {
    let index = area.entry.request.swap(0, Ordering::SeqCst);
    let request = (index as usize).checked_sub(1).and_then(|index| node.requests.get(index))?;
    let requester = request.requester();
    request.answer(answer);
    requester
}
