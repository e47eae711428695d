//! The console daemon, and attaching to a console.
//!
//! [`daemon::Daemon`] finds guests' consoles by xenstore (`/local/domain/N/console/{ring-ref,port,type,limit}`), gives each a
//! pseudo-terminal, whose name it writes to `console/tty`, and a log file. What a guest writes stays in its ring until it is in the log
//! file: a daemon that is killed and started anew loses nothing. A guest that writes too fast is read slowly, so that it costs little and
//! waits for itself; log files rotate.
//!
//! [`client::attach`] connects a terminal to a guest's pseudo-terminal: `xm console`.
#![forbid(unsafe_code)]

mod backlog;
pub mod client;
mod console;
pub mod daemon;
mod hypervisor;
mod logfile;
mod nodes;
mod pty;
mod rate;

pub use daemon::{Daemon, Options};
