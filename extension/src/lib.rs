//! `postgres_r`: synchronous multi-master replication for PostgreSQL, the extension.
//!
//! The rooms, in the direction of a commit: [`capture`], [`submit`], [`commit`] with the [`gate`]; and for what other nodes
//! committed, [`manager`] and [`apply`]. [`pg`] is the fence to PostgreSQL. docs/architecture.md is the map.

use pgrx::prelude::*;

::pgrx::pg_module_magic!();

pub mod apply;
pub mod capture;
pub mod commit;
pub mod conflicts;
pub mod error;
pub mod functions;
pub mod gate;
pub mod guc;
pub mod manager;
pub mod pg;
pub mod progress;
pub mod recent;
pub mod relations;
pub mod retry;
pub mod session;
pub mod shmem;
pub mod stats;
pub mod submit;
pub mod token;

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    if !pg::process::is_preloading() {
        functions::require_preload();
    }
    guc::define();
    shmem::install();
    capture::init();
    commit::install();
    retry::install();
    pg::executor::before_start(commit::before_statement);
    pg::log::install(|report| {
        apply::victim::on_report(report);
        manager::statement::on_report(report);
        commit::on_report(report);
    });
    pg::admission::install(|database| {
        commit::hear_summons();
        manager::admit(database);
    });
    pg::worker::install(pg::worker::Mains {
        launcher: manager::launcher::main,
        scout: manager::scout::main,
        manager: manager::main,
        remote: apply::worker::main,
    });
}
