//! Everything that touches the x86 machine.
#![no_std]

