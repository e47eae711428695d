//! Instruction decoding and emulation, CPUID and MSR policy.
#![no_std]
#![forbid(unsafe_code)]
