//! What differs between PostgreSQL's major versions, and nothing else: signatures, names of fields and symbols, layouts of structures that
//! pgrx does not bind. Everything outside of this folder reads the same for each of them.
//!
//! One name here stands for one thing of PostgreSQL's. Its comment says what it is, and its arms say as of which version it is what.
//! Where no `feature` of an older version is given it is as in the newest one that is known.

pub(super) mod process;
pub(super) mod query;
pub(super) mod relation;
pub(super) mod subscription;
