//! `io/*.h`: what guests and the services of domain 0 say to each other in shared pages.

pub mod console;
pub mod xenbus;
pub mod xs_wire;
