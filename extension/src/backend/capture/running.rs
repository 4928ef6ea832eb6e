//! The utility statements that run now, one inside the other: what each touches, and where in the order of the transaction it took effect.
//!
//! A statement sets off others: an event trigger's function runs DDL, a trigger of TRUNCATE changes rows, an expression that is evaluated over a
//! table calls a function that does either. Those are statements of their own (their parts, which PostgreSQL runs as subcommands, are not): each
//! travels by itself, in the order in which they took effect. So there is a stack, and what PostgreSQL reports belongs to the innermost.
//!
//! **Where it took effect.** A statement is appended when it is done, behind everything that it set off, and must stand before some of that and
//! behind the rest. Items are ordered by command id (docs/adr/0005), so the statement gets one that no row has:
//!
//! - DDL: the id when it first reported an object. Functions of ddl_command_start have run before, and PostgreSQL counts on after them; whatever
//!   else it sets off comes later, with a higher id, since DDL has used its own. DDL that reports nothing (COMMENT) has the id of its start.
//! - TRUNCATE: PostgreSQL does not report when it empties the tables, between BEFORE and AFTER triggers. Whatever runs in a trigger passes by
//!   here at its beginning and its end, so we look then whether a table has a new file, or fewer blocks than at the last look. Then everything
//!   so far stands before, and the statement takes an id for itself. Where no such thing is seen, no table ever had a row to lose.

use std::cell::RefCell;

use gcs_writeset::Position;
use postgres_r_protocol::capture::order::Command;

use super::base;
use super::overlap::Noted;
use super::touched::Touched;
use crate::pg::access::{Happened, Object};
use crate::pg::relation::{Lock, Oid, Open};
use crate::pg::statement::{Fills, Ordered};
use crate::pg::utility::Serial;
use crate::pg::{definition, subtransaction, trigger};

thread_local! {
    static RUNNING: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

struct Frame {
    serial: Serial,
    level: i32,
    touched: Touched,
    watched: Option<Watched>,
}

/// An ordered statement that runs.
pub struct Watched {
    pub ordered: Ordered,
    /// None where a statement of another node is applied.
    pub origin: Option<Origin>,
}

/// An ordered statement on its origin.
pub struct Origin {
    /// What travels.
    pub item: Vec<u8>,
    /// The base of its keys, from before its snapshot.
    pub base: Position,
    begun: Command,
    took_effect: Option<Command>,
    /// What other DDL of this node may have to do with.
    pub noted: Noted,
    /// CREATE TABLE for the table that it fills, from before anything that it set off could alter it.
    pub definition: Option<String>,
}

impl Origin {
    /// From now on, nothing else has the command id that it has.
    pub fn begin(item: Vec<u8>) -> Origin {
        let begun = Command(trigger::own_command());
        Origin { item, base: base::current(), begun, took_effect: None, noted: Noted::default(), definition: None }
    }

    /// Its place among the items of the transaction.
    pub fn place(&self) -> Command {
        self.took_effect.unwrap_or(self.begun)
    }
}

/// A statement starts. Unless `watched`, what it touches is of no interest, but what it sets off may be.
pub fn enter(serial: Serial, watched: Option<Watched>) {
    let frame = Frame { serial, level: subtransaction::level(), touched: Touched::default(), watched };
    RUNNING.with_borrow_mut(|running| running.push(frame));
}

/// Does what is no statement's doing: what it touches concerns nobody.
pub fn aside(act: impl FnOnce()) {
    let frame = Frame { serial: Serial::NONE, level: subtransaction::level(), touched: Touched::default(), watched: None };
    let depth = RUNNING.with_borrow_mut(|running| {
        running.push(frame);
        running.len()
    });
    act();
    RUNNING.with_borrow_mut(|running| running.truncate(depth - 1));
}

/// Whether any statement runs that might be told what others touch.
pub fn is_empty() -> bool {
    RUNNING.with_borrow(Vec::is_empty)
}

/// The statement succeeded: what it touched. None if it is not watched, or if its transaction ended meanwhile (CALL of a procedure).
pub fn leave(serial: Serial) -> Option<(Touched, Watched)> {
    let frame = RUNNING.with_borrow_mut(|running| {
        // What stands above it has failed.
        let at = running.iter().position(|frame| frame.serial == serial)?;
        running.truncate(at + 1);
        running.pop()
    })?;
    let mut watched = frame.watched?;
    let mut touched = frame.touched;
    touched.resolve();
    if let Some(origin) = watched.origin.as_mut().filter(|origin| origin.took_effect.is_none())
        && touched.have_tables_lost_rows()
    {
        origin.took_effect = Some(Command(trigger::current_command()));
    }
    Some((touched, watched))
}

/// The end of every transaction.
pub fn reset() {
    RUNNING.take();
}

/// The subtransaction at `level` was rolled back, and with it the statements started in it.
pub fn subtransaction_aborted(level: i32) {
    RUNNING.with_borrow_mut(|running| running.retain(|frame| frame.level < level));
}

/// From the object access hook.
pub fn on_object(happened: Happened, object: Object) {
    with_innermost(|frame| {
        let Some(watched) = &mut frame.watched else { return };
        if let Some(origin) = &mut watched.origin
            && !watched.ordered.is_truncate
        {
            origin.took_effect.get_or_insert_with(|| Command(trigger::current_command()));
        }
        if let Some(origin) = &mut watched.origin {
            origin.noted.object(happened, object);
        }
        frame.touched.object(happened, object);
    });
}

/// The place of the statement that runs, if that is about whatever some roles own: what it drops goes there, right before it.
pub fn place_of_owners() -> Option<Command> {
    RUNNING.with_borrow_mut(|running| {
        let watched = running.last_mut()?.watched.as_mut().filter(|watched| watched.ordered.of_owners)?;
        let origin = watched.origin.as_mut()?;
        Some(*origin.took_effect.get_or_insert_with(|| Command(trigger::current_command())))
    })
}

/// A function is about to be called, by the statements or by what they call.
pub fn on_function(function: Oid) {
    RUNNING.with(|running| {
        if let Ok(mut running) = running.try_borrow_mut() {
            for frame in running.iter_mut() {
                frame.touched.function(function);
                if let Some(Watched { origin: Some(origin), .. }) = &mut frame.watched {
                    origin.noted.function(function);
                }
            }
        }
    });
}

/// Adds relations that the innermost statement names.
pub fn add(relations: &[Oid]) {
    with_innermost(|frame| {
        relations.iter().for_each(|&relation| frame.touched.relation(relation));
        if let Some(Watched { origin: Some(origin), .. }) = &mut frame.watched {
            relations.iter().for_each(|&relation| origin.noted.find(relation));
        }
    });
}

/// A script of an extension changes how values of types read or are stored.
pub fn change_types() {
    with_innermost(|frame| {
        if let Some(watched) = &mut frame.watched {
            watched.ordered.changes_types = true;
        }
    });
}

/// A script of an extension changes rows of this relation.
pub fn fill(relation: Oid) {
    with_innermost(|frame| frame.touched.fill(relation));
}

/// Adds what the innermost statement is about, of which PostgreSQL has reported nothing.
pub fn add_targets(targets: impl IntoIterator<Item = (Oid, Oid)>) {
    with_innermost(|frame| targets.into_iter().for_each(|target| frame.touched.target(target)));
}

/// Looking things up may bring us here again.
fn with_innermost(act: impl FnOnce(&mut Frame)) {
    if let Some(mut frame) = RUNNING.with_borrow_mut(Vec::pop) {
        act(&mut frame);
        RUNNING.with_borrow_mut(|running| running.push(frame));
    }
}

/// A statement or a plan that others have set off begins or ends.
pub fn look() {
    if is_empty() {
        return;
    }
    let mut running = Taken(RUNNING.take());
    for frame in &mut running.0 {
        let Some(Watched { ordered, origin: Some(origin) }) = &mut frame.watched else { continue };
        if ordered.fills == Fills::Table && origin.definition.is_none() {
            let made = frame.touched.filled_by_query().find_map(|table| Open::by_oid(table, Lock::AccessShare));
            origin.definition = made.map(|table| definition::create_table(&table));
        }
        if origin.took_effect.is_none() && frame.touched.have_tables_lost_rows() {
            origin.took_effect = Some(Command(trigger::own_command()));
        }
    }
}

/// Goes back where it was taken from, also if an ERROR comes in between: somebody may catch that, and the statements go on.
struct Taken(Vec<Frame>);

impl Drop for Taken {
    fn drop(&mut self) {
        RUNNING.set(std::mem::take(&mut self.0));
    }
}

/// Whether a statement that runs has made or altered this table, so that its rows are to be captured from now on. Those of CREATE TABLE AS are
/// not there yet.
pub fn has_made(table: Oid) -> bool {
    RUNNING.with_borrow(|running| {
        running
            .iter()
            .filter(|frame| frame.watched.as_ref().is_some_and(|watched| watched.ordered.fills != Fills::Table))
            .any(|frame| frame.touched.has(table))
    })
}
