//! The hypervisor command line, declared in one table.
#![no_std]
#![forbid(unsafe_code)]
