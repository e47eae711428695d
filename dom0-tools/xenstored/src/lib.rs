//! The xenstore daemon.
//!
//! [`engine::Engine`] is the daemon without input and output: it takes requests and produces answers, events and journal records. The
//! tree ([`tree`]) is a persistent structure, so that a transaction ([`transaction`]) is a copy that costs nothing. [`server`]
//! moves bytes: sockets, domains' rings, the journal ([`journal`]) that lets a killed daemon go on where it was.
#![forbid(unsafe_code)]

pub mod client;
pub mod engine;
pub mod journal;
pub mod limits;
pub mod log;
pub mod server;
pub mod transaction;
pub mod tree;
pub mod watch;
