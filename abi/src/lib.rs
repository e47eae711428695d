//! The frozen Xen ABI: numbers and layouts, one file per public header.
#![no_std]
#![forbid(unsafe_code)]
