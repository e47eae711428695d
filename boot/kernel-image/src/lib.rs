//! Reads bzImage and ELF kernels: headers, payload decompression, Xen notes.
#![no_std]
#![forbid(unsafe_code)]
