//! Interrupt controllers: the local APICs, the I/O APICs, the vectors, and the legacy controllers that are switched off.

pub(crate) mod io;
pub mod local;
pub(crate) mod msr;
pub(crate) mod pic;
pub mod redirection;
pub mod vectors;

/// Lock level of hardware registers: the innermost of all.
pub(crate) const HARDWARE_LEVEL: u8 = 120;
/// Lock level of storage that is locked once, filled at start-up and never unlocked: the outermost.
pub(crate) const START_UP_LEVEL: u8 = 0;
