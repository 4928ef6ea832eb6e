//! The project's own source, as the checks of style read it: files, words of code, functions, and which file imports which.
//!
//! Rust is read here by its words alone, without macros expanded and without types. That is enough to see what a reader sees who
//! follows `use` lines and paths from one file to the next.
//!
//! - [`tree`]: the files.
//! - [`words`]: code as words, without comments and the content of strings.
//! - [`functions`]: where each function begins and ends.
//! - [`names`]: what a module declares and imports.
//! - [`imports`]: which file of a crate takes what from which other.
//! - [`circles`]: files that import each other in a circle.

pub mod circles;
pub mod functions;
pub mod imports;
pub mod names;
pub mod tree;
pub mod words;
