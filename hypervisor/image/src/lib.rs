//! The hypervisor binary.
#![no_std]
