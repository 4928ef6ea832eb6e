//! `postgres_r`: synchronous multi-master replication for PostgreSQL, the extension.
//!
//! A process is a room: [`backend`] is a client's, [`apply`] a remote backend's, [`manager`] the launcher's, a scout's and a manager's. None of
//! them imports another. They stand on common ground: [`link`], [`turn`], [`summons`], [`session`], [`spool`], [`sequences`], [`verify`]; [`node`] is shared
//! memory; [`pg`] is the fence to PostgreSQL. The rules by which processes act on one another are in the crate `postgres_r_protocol`, without PostgreSQL.
//! docs/architecture.md is the map.

use pgrx::prelude::*;

::pgrx::pg_module_magic!();

pub mod apply;
pub mod backend;
pub mod error;
pub mod functions;
pub mod guc;
pub mod link;
pub mod manager;
pub mod node;
pub mod pg;
pub mod relations;
pub mod sequences;
pub mod session;
pub mod spool;
pub mod subscriptions;
pub mod summons;
pub mod turn;
pub mod verify;

use pg::xact::Event;

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    if !pg::process::is_preloading() {
        functions::require_preload();
    }
    pg::process::leave_out_backtraces();
    guc::define();
    pg::shutdown::look();
    node::install();
    backend::capture::init();
    backend::read_only::install();
    sequences::install();
    backend::advisory::install();
    backend::row_locks::install();
    backend::hot_rows::install();
    backend::table_locks::install();
    backend::two_phase::install();
    backend::retry::install();
    pg::xact::on_end(|event| {
        backend::commit::on_end(event);
        backend::databases::on_end(event);
        apply::worker::on_end(event);
        apply::forerunner::on_end(event);
        if matches!(event, Event::Commit | Event::Abort) {
            // Also in remote backends, whose statements pass through capture's hooks.
            backend::capture::reset();
            backend::retry::reset();
            backend::advisory::let_go();
            backend::held::transaction_ended();
            backend::hot_rows::reset();
            backend::table_locks::reset();
            sequences::reset();
            verify::mark::forget();
            backend::capture::making::at_end();
            session::tell_maker(event == Event::Commit);
        }
        if event != Event::PreCommit {
            backend::levels::reset();
        }
    });
    pg::dropped::install();
    pg::explained::install();
    pg::executor::before_start(backend::commit::before_statement);
    // The last of those that install such hooks: what the others note is about what is there after the wait.
    pg::reading::before_data(|| backend::two_phase::see_own() | backend::levels::before_data());
    pg::afterwards::on_committed(backend::shown::on_committed);
    pg::afterwards::on_released(session::locks_released);
    pg::function::undo_calls(session::is_remote_backend);
    pg::log::install(|report| {
        apply::precedence::on_report(report);
        manager::statement::on_report(report);
        backend::lost::on_report(report);
    });
    pg::admission::install(|database| {
        summons::listen();
        backend::writable::admit(database);
    });
    pg::worker::install(pg::worker::Mains {
        launcher: manager::launcher::main,
        scout: manager::scout::main,
        manager: manager::process::main,
        remote: apply::worker::main,
        rehearser: apply::rehearser::main,
        forerunner: apply::forerunner::main,
        builder: apply::builder::main,
        maker: manager::maker::main,
        leaser: sequences::leaser::main,
        verifier: verify::verifier::main,
        coordinator: verify::coordinator::main,
    });
}
