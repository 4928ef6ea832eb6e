//! What the current transaction does to large objects (docs/adr/0057-large-objects.md): each change travels as what was done, in its place among the rows.
//!
//! Writes are told by the functions that write, making and dropping by the hook on access to objects. COMMENT, GRANT and OWNER TO are statements like
//! others; they and whoever writes need the large object to be there.
//!
//! **Keys**, by the number: exclusive for whoever makes, writes or truncates, guarded by what PostgreSQL locks: the entry of the new number, the
//! versions of pages that are changed. But nothing of PostgreSQL keeps a page from being added to what another transaction truncates or drops, or
//! the other way round: so whoever opens a large object to write holds the key shared besides, as of then, and whoever drops it exclusively, as of
//! then. (Of two that write to different pages of one large object at the same time one loses, though on one server neither does.)
//!
//! Bases are read before PostgreSQL looks: it reads pg_largeobject and pg_largeobject_metadata by a new snapshot each time.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use gcs_writeset::Position;
use gcs_writeset::body::PutItem;
use gcs_writeset::bounds::GROUP_MEMBERS_MAX;
use gcs_writeset::large_object::{Change, LargeObject, PIECE_BYTES_MAX};
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::capture::buffer::{Guard, Strength};
use postgres_r_protocol::capture::order::Command;

use super::running;
use super::touched::Touched;
use super::{base, transaction};
use crate::error::{self, Error};
use crate::pg::large_object::{self, Listener};
use crate::pg::object::{self, Class, Reading};
use crate::pg::relation::Oid;
use crate::pg::statement::Ordered;
use crate::pg::{extension, role, trigger};
use crate::{relations, session};

thread_local! {
    /// The committed position before what runs now.
    static BEFORE: Cell<Position> = const { Cell::new(Position::ZERO) };
    /// The transaction has dropped one. Its descriptors may be open still.
    static HAS_DROPPED: Cell<bool> = const { Cell::new(false) };
    /// The numbers of those that it has changed, for messages.
    static NUMBERS: RefCell<HashSet<u32>> = RefCell::default();
}

/// Called while libraries are preloaded. A server that can't be made to tell must not start: it would change large objects on its own.
pub fn install() {
    let listener =
        Listener { concerns: session::is_captured, number: new_number, opens: look, opened, before, wrote, truncated };
    if !large_object::on_change(listener) {
        error::unknown_server().raise();
    }
}

/// The end of every transaction.
pub fn reset() {
    HAS_DROPPED.set(false);
    take();
}

/// Those that the transaction has changed, or more.
pub fn take() -> HashSet<u32> {
    NUMBERS.take()
}

fn new_number() -> Oid {
    large_object::unused(u32::from(session::ordinal()), GROUP_MEMBERS_MAX as u32)
}

fn look() {
    BEFORE.set(session::committed());
    base::announce();
}

fn before(number: Option<Oid>) {
    refuse_scripts();
    look();
    transaction::ensure_writable();
    if let Some(number) = number.filter(|_| HAS_DROPPED.get())
        && !large_object::exists(number)
    {
        // PostgreSQL would add pages to what is gone.
        let message = format!("large object {} does not exist", number.to_u32());
        Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message).raise();
    }
}

/// The script of an extension runs on every node.
fn refuse_scripts() {
    if extension::script_runs() {
        let message = "changing large objects in the script of an extension is not supported in a replicated database";
        Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .hint("Change them by statements of their own.")
            .raise();
    }
}

/// It must still be there when what is written through the descriptor is applied.
fn opened(number: Oid) {
    let key = relations::large_object_key(number.to_u32());
    transaction::add_key(key, Strength::Shared, Guard::Since(BEFORE.get()));
}

fn wrote(number: Oid, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    changed(number);
    let mut item = Vec::with_capacity(bytes.len().min(PIECE_BYTES_MAX) + 32);
    let (mut offset, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        // Pieces end where pages do.
        let room = PIECE_BYTES_MAX - (offset % PIECE_BYTES_MAX as u64) as usize;
        let (piece, behind) = rest.split_at(room.min(rest.len()));
        append(number, Change::Write { offset, bytes: piece }, None, &mut item);
        offset += piece.len() as u64;
        rest = behind;
    }
}

/// Whoever has come between since it was opened meets the key that is held shared.
fn changed(number: Oid) {
    transaction::ensure_writable();
    let key = relations::large_object_key(number.to_u32());
    transaction::add_key(key, Strength::Exclusive, Guard::Locked);
}

fn truncated(number: Oid, length: u64) {
    changed(number);
    append(number, Change::Truncate { length }, None, &mut Vec::new());
}

/// It was made, whoever has done that. Its owner must be there when it is made elsewhere.
pub fn created(number: Oid) {
    if !session::is_captured() {
        return;
    }
    refuse_scripts();
    let held = Guard::Held(session::committed());
    transaction::ensure_writable();
    let owner = role::current();
    let Ok(identity) = object::identity(Class::Role, owner, Reading::Fresh) else { return no_owner(owner) };
    let Some(name) = role::name_of(owner) else { return no_owner(owner) };
    for part in identity.parts {
        transaction::add_key(relations::object_key(part), Strength::Shared, held);
    }
    transaction::add_key(relations::owned_large_objects_key(), Strength::Shared, Guard::Locked);
    transaction::add_key(relations::large_object_key(number.to_u32()), Strength::Exclusive, Guard::Locked);
    append(number, Change::Create { owner: &name }, None, &mut Vec::new());
}

fn no_owner(owner: Oid) {
    let message = format!("role with OID {} does not exist", owner.to_u32());
    Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message).raise();
}

/// It is about to be dropped, whoever does that.
pub fn dropped(number: Oid) {
    if !session::is_captured() {
        return;
    }
    refuse_scripts();
    let since = Guard::Since(session::committed());
    transaction::ensure_writable();
    HAS_DROPPED.set(true);
    transaction::add_key(relations::large_object_key(number.to_u32()), Strength::Exclusive, since);
    append(number, Change::Unlink, running::place_of_owners(), &mut Vec::new());
}

/// Of a statement that has run.
pub fn add_keys(touched: &Touched, base: Position, ordered: &Ordered) {
    let since = Guard::Since(base);
    for number in touched.altered_in(Oid::from(large_object::CATALOG)) {
        transaction::add_key(relations::large_object_key(number.to_u32()), Strength::Shared, since);
    }
    if ordered.of_owners {
        transaction::add_key(relations::owned_large_objects_key(), Strength::Exclusive, since);
    }
}

fn append(number: Oid, change: Change<'_>, place: Option<Command>, item: &mut Vec<u8>) {
    let number = number.to_u32();
    NUMBERS.with_borrow_mut(|numbers| numbers.insert(number));
    item.clear();
    item.put_large_object(LargeObject { number, change });
    transaction::append_large_object(place.unwrap_or_else(|| Command(trigger::current_command())), item);
}
