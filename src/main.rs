//! The `exocom` binary.

fn main() {}
