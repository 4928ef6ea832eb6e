//! Does to a large object what a writeset says.
//!
//! By its number, which is the same everywhere. Only who makes one matters: that role owns it. Everything else is done with a remote backend's own
//! rights: the origin has asked for the session's.

use gcs_writeset::large_object::{Change, LargeObject};

use super::divergence::Divergence;
use crate::pg::large_object;
use crate::pg::relation::Oid;
use crate::pg::role::{self, Acting};

/// Raises PostgreSQL's own error if the large object is there and should not be.
pub fn apply(LargeObject { number, change }: LargeObject<'_>) -> Result<(), Divergence> {
    let is_new = matches!(change, Change::Create { .. });
    if !is_new && !large_object::exists(Oid::from(number)) {
        return Err(Divergence::NoLargeObject(number));
    }
    let number = Oid::from(number);
    match change {
        Change::Create { owner } => {
            let owner = role::find(owner).ok_or_else(|| Divergence::NoRole(owner.to_owned()))?;
            let _owner = Acting::restricted(owner);
            large_object::create(number);
        }
        Change::Write { offset, bytes } => large_object::write(number, offset, bytes),
        Change::Truncate { length } => large_object::truncate(number, length),
        Change::Unlink => large_object::unlink(number),
    }
    Ok(())
}
