//! The traits that hardware implements.
#![no_std]
#![forbid(unsafe_code)]
