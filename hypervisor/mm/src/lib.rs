//! Frame table, buddy allocator, PV page-table validation.
#![no_std]
#![forbid(unsafe_code)]
