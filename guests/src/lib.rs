//! Small PV test kernels.
#![no_std]

