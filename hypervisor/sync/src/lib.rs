//! Locks with levels, per-CPU cells and once-cells.
#![no_std]

