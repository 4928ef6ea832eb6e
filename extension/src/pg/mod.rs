//! The fence: all `unsafe` code and every use of PostgreSQL's symbols, behind types that are safe to use.
//!
//! It calls nobody above it by name: who wants to be told of something registers plain functions with the module that sees it
//! (`on_...`, `install`). Inside, too, there is one direction: [`names`] < [`relation`], [`object`], [`types`], [`varlena`]
//! < [`naming`] < [`datum`] < [`index`] < [`table`] < what changes and watches tables.
//!
//! A function here may raise a PostgreSQL ERROR (a Rust panic on its way to the next guard) unless its comment says that it
//! doesn't. Nothing here holds a resource that needs a `Drop` while an ERROR unwinds: locks and memory are PostgreSQL's, and
//! its abort releases them.

pub mod about_tables;
pub mod access;
pub mod admission;
pub mod advisory;
pub mod afterwards;
pub mod alter;
pub mod bearing;
pub mod before_change;
pub mod blockers;
mod builtin;
pub mod candidates;
pub mod capture;
pub mod catalog;
pub mod clock;
pub mod columns;
mod constraint;
pub mod database;
pub mod datum;
pub mod definition;
pub mod dependency;
pub mod difference;
pub mod encoding;
mod entering;
pub mod execution;
pub mod executor;
mod expressions;
pub mod extension;
pub mod foreign_key;
pub mod function;
pub mod global;
mod hasher;
pub mod heap;
pub mod holding_back;
pub mod index;
mod inheritance;
mod inlined;
pub mod interrupt;
pub mod invalidation;
mod kinds;
pub mod latch;
mod list;
pub mod lock;
pub mod lock_rows;
pub mod log;
pub mod lookup;
pub mod materialized;
pub mod memory;
pub mod names;
pub mod naming;
mod nested;
pub mod nextval;
pub mod notify;
pub mod number;
pub mod object;
pub mod origin;
pub mod partition;
pub mod place;
pub mod plan;
mod planstate;
pub mod privilege;
pub mod process;
pub mod query;
mod ranges;
pub mod read_only;
pub mod reading;
pub mod relation;
pub mod rerun;
pub mod rewrite;
pub mod role;
pub mod row;
pub mod rowlock;
pub mod scan;
pub mod sequence;
mod sequence_statement;
pub mod setting;
pub mod setval;
pub mod shmem;
pub mod shown;
pub mod shutdown;
pub mod snapshot;
pub mod socket;
pub mod statement;
pub mod subtransaction;
mod summons;
pub mod table;
mod target;
pub mod tempfile;
pub mod timer;
pub mod trigger;
mod types;
pub mod utility;
mod varlena;
mod version;
pub mod worker;
pub mod writers;
pub mod xact;
