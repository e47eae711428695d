//! Host-only fakes of the machine for tests.

#![forbid(unsafe_code)]
