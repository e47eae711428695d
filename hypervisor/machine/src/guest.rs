//! Copies to and from guest memory.
//!
//! Every access lies between `stac` and `clac` and has a record in the exception table. The string instructions are opaque to the compiler, which
//! is what memory that another vCPU may change needs.

use crate::X86;
use crate::cpu::cr2;
use crate::entry::ex_table;
use crate::entry::smap::{clac, stac};
use core::arch::asm;
use core::mem::MaybeUninit;
use oxen_hal::GuestMemory;
use oxen_types::{Fault, Gva, HYPERVISOR_VIRT_END};

/// Bytes of the guest's two ranges of addresses together, which are adjacent modulo 2^64: from the hypervisor's end up, and the lower half.
pub(crate) const GUEST_SPAN: u64 = (1_u64 << 47).wrapping_sub(HYPERVISOR_VIRT_END);
/// log2 of the grain of [`GUEST_SPAN`].
pub(crate) const SPAN_SHIFT: u32 = 40;

const _: () = assert!(GUEST_SPAN.is_multiple_of(1 << SPAN_SHIFT));

/// True where a guest may have something mapped at `va`. A short access that begins there and leaves the range hits addresses that are not canonical.
#[inline(always)]
const fn starts_in_guest(va: Gva) -> bool {
    va.0.wrapping_sub(HYPERVISOR_VIRT_END) >> SPAN_SHIFT < GUEST_SPAN >> SPAN_SHIFT
}

/// The fault of a short access at `va`, `bytes` long, that the exception table has just ended: the page-fault address where it can be the cause.
#[cold]
fn fault_at(va: Gva, bytes: u64) -> Fault {
    let address = cr2();
    let within = address.wrapping_sub(va.0) < bytes;
    Fault { va: if within { Gva(address) } else { va } }
}

#[inline(always)]
fn read_word(from: Gva) -> Result<u64, Fault> {
    if !starts_in_guest(from) {
        return Err(Fault { va: from });
    }
    let mut word = MaybeUninit::<u64>::uninit();
    // SAFETY: the address is outside the hypervisor's range; a fault goes on in the block. The second `mov` fills `word`.
    unsafe {
        asm!(stac!(), "2: mov {value}, [{from}]", "3: mov [{to}], {value}", clac!(), ex_table!("2b", "3b", "{failed}"),
             value = out(reg) _, from = in(reg) from.0, to = in(reg) word.as_mut_ptr(),
             failed = label { close(); return Err(fault_at(from, 8)) }, options(nostack, preserves_flags));
        Ok(word.assume_init())
    }
}

/// Ends the permission to touch guest pages after a fault.
#[inline(always)]
fn close() {
    // SAFETY: changes a flag.
    unsafe { asm!(clac!(), options(nomem, nostack, preserves_flags)) };
}

/// Copies out of or into a guest; gives the number of bytes that were not copied. A fault in a word repeats its bytes one by one, so that all bytes before the
/// bad one are done.
///
/// # Safety
/// One of the ranges belongs to the caller and is valid for `len` bytes; the other is outside the hypervisor's addresses.
#[inline]
unsafe fn copy(to: u64, from: u64, len: usize) -> usize {
    let left: usize;
    // SAFETY: the caller's promise; faults go on at the instruction after.
    unsafe {
        asm!(
            stac!(),
            "2: rep movsq",
            "3: lea rcx, [{tail} + rcx * 8]",
            "4: rep movsb",
            "5:",
            clac!(),
            ex_table!("2b", "3b", "3b"),
            ex_table!("4b", "5b", "5b"),
            tail = in(reg) len % 8,
            inout("rcx") len / 8 => left,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    left
}

macro_rules! write_exactly {
    ($name:ident, $count:literal, $($word:ident at $offset:literal),*) => {
        /// Writes consecutive words; straight code, for the sizes that bounce frames have.
        #[inline(always)]
        fn $name(to: Gva, words: &[u64; $count]) -> Result<(), Fault> {
            let [$($word),*] = *words;
            // SAFETY: the caller has checked the address; a fault goes on in the block.
            unsafe {
                asm!(stac!(), "2:", $(concat!("mov [{to} + ", $offset, "], {", stringify!($word), "}"),)* "3:", clac!(),
                     ex_table!("2b", "3b", "{failed}"), to = in(reg) to.0, $($word = in(reg) $word,)*
                     failed = label { close(); return Err(fault_at(to, 8 * $count)) }, options(nostack, preserves_flags));
            }
            Ok(())
        }
    };
}
write_exactly!(write_1, 1, a at 0);
write_exactly!(write_7, 7, a at 0, b at 8, c at 16, d at 24, e at 32, f at 40, g at 48);
write_exactly!(write_8, 8, a at 0, b at 8, c at 16, d at 24, e at 32, f at 40, g at 48, h at 56);

macro_rules! read_exactly {
    ($name:ident, $bytes:literal, $($offset:literal),*) => {
        /// Reads consecutive words; straight code, for the sizes that arguments of frequent calls have.
        #[inline(always)]
        fn $name(to: &mut [u8; $bytes], from: Gva) -> Result<(), Fault> {
            if !starts_in_guest(from) {
                return Err(Fault { va: from });
            }
            // SAFETY: the address is outside the hypervisor's range, `to` has room for the words; a fault goes on in the block.
            unsafe {
                asm!(stac!(), "2:", $(concat!("mov {value}, [{from} + ", $offset, "]"), concat!("mov [{to} + ", $offset, "], {value}"),)* "3:", clac!(),
                     ex_table!("2b", "3b", "{failed}"), value = out(reg) _, from = in(reg) from.0, to = in(reg) to.as_mut_ptr(),
                     failed = label { close(); return Err(fault_at(from, $bytes)) }, options(nostack, preserves_flags));
            }
            Ok(())
        }
    };
}
read_exactly!(read_16, 16, 0, 8);
read_exactly!(read_24, 24, 0, 8, 16);
read_exactly!(read_64, 64, 0, 8, 16, 24, 32, 40, 48, 56);

/// Reads two words.
#[inline(always)]
fn read_pair(from: Gva) -> Result<[u64; 2], Fault> {
    if !starts_in_guest(from) {
        return Err(Fault { va: from });
    }
    let mut words = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: as in `read_word`; the block fills both words.
    unsafe {
        asm!(stac!(), "2: mov {value}, [{from}]", "mov [{to}], {value}", "mov {value}, [{from} + 8]", "mov [{to} + 8], {value}", "3:", clac!(),
             ex_table!("2b", "3b", "{failed}"), value = out(reg) _, from = in(reg) from.0, to = in(reg) words.as_mut_ptr(),
             failed = label { close(); return Err(fault_at(from, 16)) }, options(nostack, preserves_flags));
        Ok(words.assume_init())
    }
}

/// Reads a 32-bit word.
#[inline(always)]
fn read_u32(from: Gva) -> Result<u32, Fault> {
    if !starts_in_guest(from) {
        return Err(Fault { va: from });
    }
    let mut word = MaybeUninit::<u32>::uninit();
    // SAFETY: as in `read_word`.
    unsafe {
        asm!(stac!(), "2: mov {value:e}, [{from}]", "3: mov [{to}], {value:e}", clac!(), ex_table!("2b", "3b", "{failed}"),
             value = out(reg) _, from = in(reg) from.0, to = in(reg) word.as_mut_ptr(),
             failed = label { close(); return Err(fault_at(from, 4)) }, options(nostack, preserves_flags));
        Ok(word.assume_init())
    }
}

/// Writes a 32-bit word.
#[inline(always)]
fn write_u32(to: Gva, value: u32) -> Result<(), Fault> {
    // SAFETY: the caller has checked the address; a fault goes on in the block.
    unsafe {
        asm!(stac!(), "2: mov [{to}], {value:e}", "3:", clac!(), ex_table!("2b", "3b", "{failed}"), to = in(reg) to.0, value = in(reg) value,
             failed = label { close(); return Err(fault_at(to, 4)) }, options(nostack, preserves_flags));
    }
    Ok(())
}

impl GuestMemory for X86 {
    #[inline(always)]
    fn copy_from_guest(&self, to: &mut [u8], from: Gva) -> Result<(), Fault> {
        // Callers' lengths are mostly constants: one of the cases remains.
        if let Ok(to) = <&mut [u8; 4]>::try_from(&mut *to) {
            *to = read_u32(from)?.to_le_bytes();
            return Ok(());
        }
        if let Ok(to) = <&mut [u8; 8]>::try_from(&mut *to) {
            *to = read_word(from)?.to_le_bytes();
            return Ok(());
        }
        if let Ok(to) = <&mut [u8; 16]>::try_from(&mut *to) {
            return read_16(to, from);
        }
        if let Ok(to) = <&mut [u8; 24]>::try_from(&mut *to) {
            return read_24(to, from);
        }
        if let Ok(to) = <&mut [u8; 64]>::try_from(&mut *to) {
            return read_64(to, from);
        }
        if !from.range_is_guest(to.len()) {
            return Err(Fault { va: from });
        }
        // SAFETY: `to` is the caller's, the other range is outside the hypervisor's.
        let left = unsafe { copy(to.as_mut_ptr() as u64, from.0, to.len()) };
        if left == 0 { Ok(()) } else { Err(Fault { va: Gva(from.0 + (to.len() - left) as u64) }) }
    }

    #[inline(always)]
    fn copy_to_guest(&self, to: Gva, from: &[u8]) -> Result<(), Fault> {
        if starts_in_guest(to) {
            if let Ok(word) = from.try_into() {
                return write_u32(to, u32::from_le_bytes(word));
            }
            if let Ok(word) = from.try_into() {
                return write_1(to, &[u64::from_le_bytes(word)]);
            }
        }
        if !to.range_is_guest(from.len()) {
            return Err(Fault { va: to });
        }
        // SAFETY: `from` is the caller's, the other range is outside the hypervisor's.
        let left = unsafe { copy(to.0, from.as_ptr() as u64, from.len()) };
        if left == 0 { Ok(()) } else { Err(Fault { va: Gva(to.0 + (from.len() - left) as u64) }) }
    }

    #[inline(always)]
    fn read_guest_u64(&self, from: Gva) -> Result<u64, Fault> {
        read_word(from)
    }

    #[inline(always)]
    fn read_guest_pair(&self, from: Gva) -> Result<[u64; 2], Fault> {
        read_pair(from)
    }

    #[inline(always)]
    fn write_guest_words(&self, to: Gva, words: &[u64]) -> Result<(), Fault> {
        if !starts_in_guest(to) {
            return Err(Fault { va: to });
        }
        if let Ok(words) = words.try_into() {
            write_7(to, words)
        } else if let Ok(words) = words.try_into() {
            write_8(to, words)
        } else if let Ok(words) = words.try_into() {
            write_1(to, words)
        } else {
            // SAFETY: words are plain bytes.
            let bytes = unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) };
            self.copy_to_guest(to, bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_check_agrees_with_the_exact_one() {
        for va in [0, 1 << 46, (1 << 47) - 8, 1 << 47, u64::MAX << 47, HYPERVISOR_VIRT_END - 1, HYPERVISOR_VIRT_END, u64::MAX - 7] {
            assert_eq!(starts_in_guest(Gva(va)), Gva(va).range_is_guest(1), "{va:#x}");
        }
    }
}
