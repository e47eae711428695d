//! Domains, vCPUs, scheduling, events, grants, timers and hypercalls.
#![no_std]
#![forbid(unsafe_code)]
