//! The hypervisor's own page tables.
//!
//! One root holds the hypervisor's slots (PML4 entries 256 to 271) and nothing else; the idle loop runs on it, and every guest root carries a copy of
//! those entries. All top-level entries that will ever be used are made before the first guest exists, so the copies never go stale. No
//! mapping is both writable and executable; constants and code are read-only in the direct map too.

use crate::boot::ranges::Span;
use crate::layout::{self, FIRST_SLOT, MMIO, MMIO_END, NR_SLOTS, direct};
use crate::memory::{self, Purpose};
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU64, Ordering};
use oxen_sync::{SpinLock, level};
use oxen_types::{Maddr, Mfn, PAGE_SIZE};

/// Page-table entry bits (Intel SDM vol. 3, "4-Level Paging").
pub mod bits {
    #![allow(missing_docs)]
    pub const PRESENT: u64 = 1;
    pub const WRITABLE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const WRITE_THROUGH: u64 = 1 << 3;
    pub const CACHE_DISABLE: u64 = 1 << 4;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const LARGE: u64 = 1 << 7;
    pub const PAT: u64 = 1 << 7;
    pub const GLOBAL: u64 = 1 << 8;
    pub const PAT_LARGE: u64 = 1 << 12;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// The address field.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}
use bits::*;

const COMMON: u64 = PRESENT | ACCESSED | GLOBAL;

/// What a mapping allows. Mappings that are both writable and executable cannot be expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Hypervisor reads and writes.
    ReadWrite,
    /// Hypervisor reads.
    ReadOnly,
    /// Hypervisor reads and executes.
    Execute,
    /// Guests and the hypervisor read.
    GuestReadOnly,
    /// Hypervisor reads and writes device registers: uncached, in program order.
    Device,
    /// Hypervisor writes pixels: write-combining where the page attribute table has it at index 4, as start-up sets it.
    WriteCombining,
}

impl Access {
    /// Entry bits for a 4 KiB page.
    #[must_use]
    pub const fn entry_bits(self) -> u64 {
        match self {
            Access::ReadWrite => COMMON | WRITABLE | DIRTY | NO_EXECUTE,
            Access::ReadOnly => COMMON | NO_EXECUTE,
            Access::Execute => COMMON,
            Access::GuestReadOnly => COMMON | USER | NO_EXECUTE,
            Access::Device => COMMON | WRITABLE | DIRTY | NO_EXECUTE | CACHE_DISABLE | WRITE_THROUGH,
            Access::WriteCombining => COMMON | WRITABLE | DIRTY | NO_EXECUTE | PAT,
        }
    }
}

/// Entry bits of the tables above the last level: the leaf decides.
const TABLE: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY;

static ROOT: AtomicU64 = AtomicU64::new(0);
/// Bits that this processor does not have are cleared from every entry (NX on processors of the first days).
static ENTRY_MASK: AtomicU64 = AtomicU64::new(!NO_EXECUTE);
static HAS_GIANT_PAGES: AtomicU64 = AtomicU64::new(0);

/// The next free address of the MMIO window. The lock also makes changes to the tables exclusive.
static TABLES: SpinLock<u64, { level::ALLOCATOR - 1 }> = SpinLock::new(MMIO);

fn entry_at(table: u64, index: usize) -> &'static AtomicU64 {
    // SAFETY: `table` is the machine address of a page-table page made by this module, which the direct map shows for ever; `index` is below 512.
    unsafe { AtomicU64::from_ptr((direct(Maddr(table)) as *mut u64).add(index & 511)) }
}

fn new_table() -> u64 {
    let frame = memory::take_table_frame();
    for index in 0..512 {
        entry_at(frame.0, index).store(0, Ordering::Relaxed);
    }
    frame.0
}

/// The table below `entry`, made where there is none.
fn descend(entry: &AtomicU64, user: u64) -> u64 {
    let value = entry.load(Ordering::Relaxed);
    if value & PRESENT != 0 {
        if value & LARGE != 0 {
            panic!("page-table entry {value:#x} is already a large page");
        }
        return value & ADDRESS;
    }
    let table = new_table();
    entry.store(table | TABLE | user, Ordering::Release);
    table
}

const GIANT: u64 = 1 << 30;
const LARGE_PAGE: u64 = 1 << 21;

fn map_into(root: u64, mut va: u64, mut maddr: u64, len: u64, access: Access) {
    let mask = ENTRY_MASK.load(Ordering::Relaxed);
    let giant_pages = HAS_GIANT_PAGES.load(Ordering::Relaxed) != 0;
    let small = access.entry_bits() & mask;
    let large = if small & PAT != 0 { small | PAT_LARGE } else { small | LARGE };
    let user = small & USER;
    let end = va + len;
    while va < end {
        let left = end - va;
        let fits = |size: u64| (va | maddr).is_multiple_of(size) && left >= size;
        let l3 = descend(entry_at(root, (va >> 39) as usize), user);
        let l3_entry = entry_at(l3, (va >> 30) as usize);
        let (entry, value, size) = if giant_pages && fits(GIANT) {
            (l3_entry, maddr | large, GIANT)
        } else {
            let l2_entry = entry_at(descend(l3_entry, user), (va >> 21) as usize);
            if fits(LARGE_PAGE) {
                (l2_entry, maddr | large, LARGE_PAGE)
            } else {
                (entry_at(descend(l2_entry, user), (va >> 12) as usize), maddr | small, PAGE_SIZE)
            }
        };
        if entry.swap(value, Ordering::Release) & PRESENT != 0 {
            panic!("{va:#x} is already mapped");
        }
        va += size;
        maddr += size;
    }
}

/// Maps `len` bytes at `va` to the memory at `maddr`, in the largest pages that fit. All three are multiples of the page size.
///
/// # Panics
/// Where part of the range is mapped already.
pub fn map(va: u64, maddr: Maddr, len: u64, access: Access) {
    let _tables = TABLES.lock();
    map_into(ROOT.load(Ordering::Relaxed), va, maddr.0, len, access);
}

/// Maps physical memory outside the direct map (devices, firmware tables, the screen) and gives the address of its first byte, which
/// has the same offset in its page as `maddr`. The mapping stays for ever. Made before the second CPU starts or used only by the CPU
/// that made it: fresh addresses need no flush.
#[must_use]
pub fn map_physical(maddr: Maddr, len: u64, access: Access) -> u64 {
    let pages = Span::new(maddr.0, len).outer_pages();
    let mut next = TABLES.lock();
    let align = if pages.len() >= LARGE_PAGE { LARGE_PAGE } else { PAGE_SIZE };
    let va = next.next_multiple_of(align) + pages.start % align;
    if va + pages.len() > MMIO_END {
        panic!("no room to map {len} bytes at {maddr}");
    }
    map_into(ROOT.load(Ordering::Relaxed), va, pages.start, pages.len(), access);
    *next = va + pages.len();
    va + maddr.0 % PAGE_SIZE
}

/// Maps device registers, uncached. See [`map_physical`].
#[must_use]
pub fn map_mmio(maddr: Maddr, len: u64) -> *mut u8 {
    map_physical(maddr, len, Access::Device) as *mut u8
}

/// The entry that maps `va` and the bytes it covers, where `va` is mapped.
#[must_use]
pub fn lookup(va: u64) -> Option<(u64, u64)> {
    let mut table = ROOT.load(Ordering::Relaxed);
    for (shift, size) in [(39, 0), (30, GIANT), (21, LARGE_PAGE), (12, PAGE_SIZE)] {
        let value = entry_at(table, (va >> shift) as usize).load(Ordering::Relaxed);
        if value & PRESENT == 0 {
            return None;
        }
        if shift == 12 || (shift != 39 && value & LARGE != 0) {
            return Some((value, size));
        }
        table = value & ADDRESS;
    }
    None
}

/// Machine address that a hypervisor address is mapped to.
#[must_use]
pub fn translate(va: u64) -> Option<Maddr> {
    let (entry, size) = lookup(va)?;
    Some(Maddr((entry & ADDRESS & !(size - 1)) + va % size))
}

/// The root that has the hypervisor's slots only.
#[must_use]
pub fn idle_root() -> Mfn {
    Maddr(ROOT.load(Ordering::Relaxed)).mfn()
}

/// The hypervisor's entry for PML4 slot 256 + `index`; 0 beyond its 16 slots.
#[must_use]
pub fn hypervisor_slot(index: usize) -> u64 {
    if index >= NR_SLOTS {
        return 0;
    }
    entry_at(ROOT.load(Ordering::Relaxed), FIRST_SLOT + index).load(Ordering::Relaxed)
}

/// A root below 4 GiB with the hypervisor's slots and the first 2 MiB mapped to themselves, for the first instructions of the other processors.
#[must_use]
pub fn trampoline_root() -> Maddr {
    let below_4g = || memory::early_alloc_below(1, 1, 1 << 32, Purpose::PageTables).unwrap_or_else(|| panic!("no memory below 4 GiB"));
    let [root, l3, l2] = [below_4g(), below_4g(), below_4g()].map(|mfn| mfn.maddr().0);
    for table in [root, l3, l2] {
        for index in 0..512 {
            entry_at(table, index).store(0, Ordering::Relaxed);
        }
    }
    for index in 0..NR_SLOTS {
        entry_at(root, FIRST_SLOT + index).store(hypervisor_slot(index), Ordering::Relaxed);
    }
    entry_at(root, 0).store(l3 | TABLE, Ordering::Relaxed);
    entry_at(l3, 0).store(l2 | TABLE, Ordering::Relaxed);
    entry_at(l2, 0).store(PRESENT | WRITABLE | ACCESSED | DIRTY | LARGE, Ordering::Release);
    Maddr(root)
}

/// The parts of the image by permission, as virtual addresses from the linker script.
#[derive(Clone, Copy, Debug)]
pub struct ImageParts {
    /// Machine address of the image's first byte.
    pub load_base: u64,
    /// Code.
    pub text: Span,
    /// Constants.
    pub rodata: Span,
    /// Variables, up to the guard page under the boot stack.
    pub data: Span,
    /// The boot stack, up to the image's end.
    pub stack: Span,
}

impl ImageParts {
    /// Where a linked address was loaded.
    #[must_use]
    pub fn loaded(&self, span: Span) -> Span {
        let shift = |va: u64| va.wrapping_sub(layout::IMAGE).wrapping_add(self.load_base);
        Span { start: shift(span.start), end: shift(span.end) }
    }
}

/// Builds the final tables (direct map of `ram`, image) and loads them. Further mappings are added with [`map`].
///
/// # Safety
/// Called once, by the boot CPU on the boot tables; `image` describes the running image and `ram` whole pages of memory.
pub unsafe fn start(image: &ImageParts, ram: &[Span]) {
    // SAFETY: EFER exists in every 64-bit processor; setting NXE gives bit 63 of entries its meaning, and the boot tables do not use it.
    unsafe { enable_no_execute() };
    let root = new_table();
    ROOT.store(root, Ordering::Relaxed);

    let constant = [image.loaded(image.text), image.loaded(image.rodata)];
    let read_only = Span { start: constant[0].start, end: constant[1].end };
    for &span in ram {
        let below = Span { start: span.start, end: span.end.min(read_only.start) };
        let above = Span { start: span.start.max(read_only.end), end: span.end };
        for (piece, access) in
            [(below, Access::ReadWrite), (span.intersection(read_only), Access::ReadOnly), (above, Access::ReadWrite)]
        {
            if !piece.is_empty() {
                map_into(root, direct(Maddr(piece.start)), piece.start, piece.len(), access);
            }
        }
    }
    for (part, access) in
        [(image.text, Access::Execute), (image.rodata, Access::ReadOnly), (image.data, Access::ReadWrite), (image.stack, Access::ReadWrite)]
    {
        map_into(root, part.start, image.loaded(part).start, part.len(), access);
    }
    for va in [layout::M2P, layout::PER_CPU] {
        let user = if va == layout::M2P { USER } else { 0 };
        descend(entry_at(root, (va >> 39) as usize), user);
    }

    // SAFETY: the new tables map the running code, its data and its stack as before, and the direct map.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

/// Turns the NX bit on where the processor has it, and notes which page sizes it has.
///
/// # Safety
/// No page table in use has bit 63 set in an entry.
unsafe fn enable_no_execute() {
    const EFER: u32 = 0xc000_0080;
    const EFER_NXE: u32 = 1 << 11;
    if __cpuid(0x8000_0000).eax < 0x8000_0001 {
        return;
    }
    let features = __cpuid(0x8000_0001).edx;
    HAS_GIANT_PAGES.store(u64::from(features >> 26 & 1), Ordering::Relaxed);
    if features & 1 << 20 == 0 {
        return;
    }
    // SAFETY: EFER is there, and NXE is a bit that this processor has.
    unsafe {
        asm!("rdmsr", "or eax, {nxe}", "wrmsr", nxe = const EFER_NXE, in("ecx") EFER, out("eax") _, out("edx") _,
             options(nostack));
    }
    ENTRY_MASK.store(u64::MAX, Ordering::Relaxed);
}
