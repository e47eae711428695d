//! Distinct types for frames, addresses, identifiers and faults.
#![no_std]
#![forbid(unsafe_code)]
