//! Lays out a PV domain: page tables, p2m, start info.
#![no_std]
#![forbid(unsafe_code)]
