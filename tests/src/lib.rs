//! Harness for tests across many nodes.
