//! Writesets of other nodes: the queue, the pool of remote backends, and who gives way to them.

pub mod victim;
