//! The two legacy 8259 controllers, which are moved out of the way and masked.

use super::vectors;
use crate::port::out8;

/// Moves the controllers' vectors behind the exceptions, for the spurious interrupts that masking does not prevent, and masks every line.
pub(crate) fn disable() {
    // Initialisation words 1 to 4 of the 8259A data sheet: edge, cascade, vector base, wiring, 8086 mode; then the mask.
    let words = [(0x20, 0x11), (0x21, vectors::LEGACY_FIRST), (0x21, 4), (0x21, 1), (0x21, 0xff)];
    let second = [(0xa0, 0x11), (0xa1, vectors::LEGACY_FIRST + 8), (0xa1, 2), (0xa1, 1), (0xa1, 0xff)];
    for (port, value) in words.into_iter().chain(second) {
        // SAFETY: the controllers' registers; they do not touch memory. Port 0x80 gives slow controllers time.
        unsafe {
            out8(port, value);
            out8(0x80, 0);
        }
    }
}
