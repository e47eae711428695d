//! Compares the ABI crate with the public C headers.
#![no_std]
#![forbid(unsafe_code)]
