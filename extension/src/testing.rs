//! For tests only (feature `testing`): capture in one database, apply in another, without a group.
//!
//! `test_origin` makes the session capture and write each writeset to a file of its own; `test_apply` applies one as
//! a remote backend would. Takes the place of `session` for capture and apply.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;

use gcs_writeset::Position;
use gcs_writeset::writeset::Envelope;
use pgrx::prelude::*;

use crate::apply::rows;
use crate::capture;
use crate::pg::testing::{End, on_transaction_end};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Outside,
    Origin,
    Remote,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Outside) };
    static ORDINAL: Cell<u16> = const { Cell::new(0) };
    static OUTPUT: RefCell<PathBuf> = RefCell::default();
    static WRITTEN: Cell<u32> = const { Cell::new(0) };
}

pub fn replicated() -> bool {
    ROLE.get() != Role::Outside
}

pub fn is_remote_backend() -> bool {
    ROLE.get() == Role::Remote
}

pub fn committed() -> Position {
    Position(u64::from(WRITTEN.get()))
}

pub fn ensure_writable() {}

pub fn ordinal() -> u16 {
    ORDINAL.get()
}

/// Captures in this session from now on; writesets go to `directory`/1, 2, ..., keys beside them.
#[pg_extern]
fn test_origin(ordinal: i32, directory: &str) {
    ROLE.set(Role::Origin);
    ORDINAL.set(ordinal as u16);
    OUTPUT.set(PathBuf::from(directory));
    WRITTEN.set(0);
    on_transaction_end(|end| match end {
        End::PreCommit => write_out(),
        End::Over => capture::reset(),
    });
}

#[pg_extern]
fn test_off() {
    ROLE.set(Role::Outside);
}

#[pg_extern]
fn test_apply(ordinal: i32, writeset: &[u8]) -> String {
    ROLE.set(Role::Remote);
    ORDINAL.set(ordinal as u16);
    let result = match Envelope::decode(writeset) {
        Ok((envelope, body)) => rows::apply(&envelope, body),
        Err(error) => pgrx::error!("not a writeset: {error}"),
    };
    ROLE.set(Role::Outside);
    match result {
        Ok(applied) => format!("{} rows, {} statements", applied.rows, applied.statements),
        Err(divergence) => pgrx::error!("divergence: {divergence}"),
    }
}

fn write_out() {
    if ROLE.get() != Role::Origin || !capture::has_writes() {
        return;
    }
    let captured = capture::take();
    let number = WRITTEN.get() + 1;
    WRITTEN.set(number);
    let path = OUTPUT.with_borrow(|output| output.join(number.to_string()));
    let mut keys = String::new();
    let unguarded = captured.unguarded.iter().flat_map(|group| {
        let base = group.base.0;
        let exclusive = group.exclusive.iter().map(move |key| (format!("X since {base}"), key));
        exclusive.chain(group.shared.iter().map(move |key| (format!("S since {base}"), key)))
    });
    let exclusive = captured.exclusive.iter().map(|key| ("X".to_owned(), key));
    let shared = captured.shared.iter().map(|key| ("S".to_owned(), key));
    for (index, (mode, key)) in (0..).zip(exclusive.chain(shared).chain(unguarded)) {
        let description = captured.describe(index).map(|d| format!("{} {}", d.table, d.key)).unwrap_or_default();
        keys.push_str(&format!("{:016x} {mode} {description}\n", key.0));
    }
    let envelope = Envelope {
        has_statements: captured.has_statements,
        started_at: crate::pg::clock::transaction_started_at(),
        ..Envelope::default()
    };
    let written = std::fs::write(&path, envelope.encode(&captured.body))
        .and_then(|()| std::fs::write(path.with_extension("keys"), keys));
    if let Err(error) = written {
        pgrx::error!("could not write \"{}\": {error}", path.display());
    }
}
