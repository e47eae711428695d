//! Supervisor-mode access prevention: the hypervisor reaches guest pages only between `stac` and `clac`.
//!
//! The places of both instructions hold no-ops in the image; where the processor has SMAP, they are filled in once at start. A CPU without it
//! pays one no-op and no branch.

/// A place for `stac`, for inline assembly.
macro_rules! stac {
    () => {
        $crate::entry::smap::smap_site!("0xcb")
    };
}
/// A place for `clac`, for inline assembly.
macro_rules! clac {
    () => {
        $crate::entry::smap::smap_site!("0xca")
    };
}
macro_rules! smap_site {
    ($last_byte:literal) => {
        concat!(
            "771: nop dword ptr [rax]\n.pushsection .smap_sites, \"a\", @progbits\n.balign 8\n.quad 771b, ",
            $last_byte,
            "\n.popsection"
        )
    };
}
pub(crate) use {clac, smap_site, stac};

/// A record of the section `.smap_sites`: the address of a three-byte no-op, and the last byte of the instruction for it.
#[repr(C)]
struct Site {
    address: u64,
    last_byte: u64,
}

// SAFETY: the linker script defines both symbols, around records of this type.
unsafe extern "C" {
    static smap_sites_start: [Site; 0];
    static smap_sites_end: [Site; 0];
}

/// Fills in `stac` and `clac` everywhere.
///
/// # Safety
/// The processor has SMAP; only the calling CPU runs; CR0.WP is clear, so that the read-only text can be written.
pub(crate) unsafe fn fill_in() {
    let start = &raw const smap_sites_start;
    let end = &raw const smap_sites_end;
    let len = (end.addr() - start.addr()) / size_of::<Site>();
    // SAFETY: the linker script puts the two symbols around the records of all `.smap_sites` sections, which are constant.
    let sites = unsafe { core::slice::from_raw_parts(start.cast::<Site>(), len) };
    for site in sites {
        let at = core::ptr::with_exposed_provenance_mut::<[u8; 3]>(site.address as usize);
        // SAFETY: each record names a three-byte no-op of the text, which nobody executes at the moment.
        unsafe { at.write_volatile([0x0f, 0x01, site.last_byte as u8]) };
    }
}
