//! Random definitions and rows, written by sessions on all nodes at once, from a seed.
//!
//! What a statement means elsewhere depends on its session: settings, roles, temporary objects, what its triggers set off, what other
//! sessions define meanwhile. Nobody lists all of that, so statements are drawn at random and the nodes compared. A run is true to
//! three things:
//!
//! - **A seed replays.** Each session draws its statements from the seed, its node and its number alone ([`plan`]); no outcome decides
//!   what is drawn next. So a seed gives the same statements per session each time, though not the same interleaving.
//! - **Errors are ordinary.** Names come from a small pool, so statements meet, and many fail: that is a user's life. What may not
//!   happen is an error of the server, a lost connection or an unknown outcome ([`outcome`]).
//! - **Rounds.** After so many statements a session the group settles, every node must be in service, and catalogs and rows
//!   must be equal ([`run`]).
//!
//! What is drawn are *ingredients* ([`ingredient`]), short sequences of statements that can be switched off by name, since the first
//! find ends a run: `GENERATOR_WITHOUT=a,b`. Those that a known fault keeps out are listed in one place with the reason.
//!
//! Left out on purpose: faults of machines and networks, which other tests make, and what is refused by kind
//! (docs/compatibility.md), of which there is only a handful to see that it is refused in the midst of others.

mod code;
pub mod ingredient;
mod names;
pub mod outcome;
pub mod plan;
mod references;
mod rows;
pub mod run;
mod session;
mod tables;
mod values;
