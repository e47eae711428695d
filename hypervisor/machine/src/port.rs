//! I/O ports.

use core::arch::asm;

/// Reads a byte from an I/O port.
///
/// # Safety
/// Reading the port must have no effect on memory that Rust code uses.
#[inline]
#[must_use]
pub unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller answers for the device's side effects; the instruction itself touches registers only.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to an I/O port.
///
/// # Safety
/// As for [`in8`].
#[inline]
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: as in `in8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads a 16-bit word from an I/O port.
///
/// # Safety
/// As for [`in8`].
#[inline]
#[must_use]
pub unsafe fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: as in `in8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a 16-bit word to an I/O port.
///
/// # Safety
/// As for [`in8`].
#[inline]
pub unsafe fn out16(port: u16, value: u16) {
    // SAFETY: as in `in8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads a 32-bit word from an I/O port.
///
/// # Safety
/// As for [`in8`].
#[inline]
#[must_use]
pub unsafe fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `in8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a 32-bit word to an I/O port.
///
/// # Safety
/// As for [`in8`].
#[inline]
pub unsafe fn out32(port: u16, value: u32) {
    // SAFETY: as in `in8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}
