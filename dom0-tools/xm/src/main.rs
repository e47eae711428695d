//! The `xm` command.
#![forbid(unsafe_code)]
fn main() {}
