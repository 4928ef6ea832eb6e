//! `gcs`: the group communication daemon.

fn main() {}
