//! The page below 1 MiB from which other processors start.

use crate::layout::direct;
use oxen_types::{Maddr, Mfn, PAGE_SIZE};

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("trampoline.s"), options(att_syntax));

// SAFETY: the trampoline's assembly defines the symbols.
#[cfg(target_os = "none")]
unsafe extern "C" {
    static oxen_trampoline: u8;
    static oxen_trampoline_end: u8;
    static oxen_trampoline_gdt_pointer: u8;
    static oxen_trampoline_far: u8;
    static oxen_trampoline_parameters: u8;
}

/// What a starting processor finds in the page; the layout is the one at the end of `trampoline.s`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Parameters {
    pub stack: u64,
    pub entry: u64,
    pub cr3: u32,
    pub cr4: u32,
    pub cr0: u32,
    pub efer: u32,
    pub cpu: u32,
    pub padding: u32,
}

/// The page with its code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trampoline {
    page: Maddr,
}

/// Offsets of the patched words in the code.
struct Offsets {
    len: usize,
    gdt_base: usize,
    far: usize,
    parameters: usize,
}

#[cfg(target_os = "none")]
fn code() -> (*const u8, Offsets) {
    let start = &raw const oxen_trampoline;
    let offset = |symbol: *const u8| symbol as usize - start as usize;
    let offsets = Offsets {
        len: offset(&raw const oxen_trampoline_end),
        // The base follows the 16-bit limit.
        gdt_base: offset(&raw const oxen_trampoline_gdt_pointer) + 2,
        far: offset(&raw const oxen_trampoline_far),
        parameters: offset(&raw const oxen_trampoline_parameters),
    };
    (start, offsets)
}

/// On the host there is no trampoline and nothing to start.
#[cfg(not(target_os = "none"))]
fn code() -> (*const u8, Offsets) {
    (core::ptr::null(), Offsets { len: 0, gdt_base: 0, far: 0, parameters: 0 })
}

impl Trampoline {
    /// Copies the code to `page`, a frame below 1 MiB that nobody else uses.
    pub(super) fn install(page: Mfn) -> Self {
        let page = page.maddr();
        let (from, offsets) = code();
        assert!(page.0 < 1 << 20 && offsets.len as u64 <= PAGE_SIZE);
        let to = direct(page) as *mut u8;
        let relocate = |offset: usize| {
            // SAFETY: the word lies in the copy, and no processor runs it yet.
            unsafe {
                let word = to.add(offset).cast::<u32>();
                word.write_unaligned(word.read_unaligned().wrapping_add(page.0 as u32));
            }
        };
        // SAFETY: the direct map shows the page, which has room for the code and belongs to this module.
        unsafe { core::ptr::copy_nonoverlapping(from, to, offsets.len) };
        relocate(offsets.gdt_base);
        relocate(offsets.far);
        Self { page }
    }

    /// Sets what the next processor finds. No processor is on its way through the page.
    pub(super) fn prepare(self, parameters: Parameters) {
        let (_, offsets) = code();
        // SAFETY: as in `install`; volatile because the reader is not known to the compiler.
        unsafe { (direct(self.page) as *mut u8).add(offsets.parameters).cast::<Parameters>().write_volatile(parameters) };
    }

    /// The page number that the start-up message carries.
    pub(super) fn page_number(self) -> u8 {
        (self.page.0 >> 12) as u8
    }
}
