//! `postgres_r`: synchronous multi-master replication for PostgreSQL, the extension.

use pgrx::prelude::*;

::pgrx::pg_module_magic!();

pub mod apply;
pub mod capture;
pub mod pg;
pub mod relations;
pub mod session;

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {}
