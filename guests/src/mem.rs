//! Frames, page tables and a pool of pages.

use crate::hypercall::{self, Rc, handle};
use crate::start::{self, start_info};
use crate::sys::{self, VIRT_BASE, nr};
use core::cell::UnsafeCell;
use oxen_abi::GuestHandle;
use oxen_abi::memory::MemoryReservation;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Entry is present.
pub const P: u64 = 1;
/// Entry allows writing.
pub const RW: u64 = 2;
/// Entry allows user accesses.
pub const US: u64 = 4;
/// Write-through.
pub const PWT: u64 = 8;
/// Cache disabled.
pub const PCD: u64 = 0x10;
/// Accessed.
pub const A: u64 = 0x20;
/// Dirty.
pub const D: u64 = 0x40;
/// Page size in L2 and L3; PAT in L1.
pub const PSE: u64 = 0x80;
/// Global.
pub const G: u64 = 0x100;
/// No execute.
pub const NX: u64 = 1 << 63;
/// What the tests put in ordinary entries.
pub const RW_PAGE: u64 = P | RW | US | A | D;
/// The same without write permission.
pub const RO_PAGE: u64 = P | US | A | D;
/// Frame number field of an entry, in place.
pub const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;

/// Pages in the pool.
pub const POOL_PAGES: usize = 320;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u64; 512]; POOL_PAGES]>);
// SAFETY: pages are handed out once each and then belong to their holder; the pool itself is never accessed as a whole.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([[0; 512]; POOL_PAGES]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A page of the kernel's own memory, mapped at [`Page::va`] unless a test changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    va: u64,
}

/// Takes a zeroed page out of the pool.
pub fn alloc_page() -> Page {
    alloc_pages(1)
}

/// Takes `count` adjacent zeroed pages; the result is the first.
pub fn alloc_pages(count: usize) -> Page {
    let index = NEXT.fetch_add(count, Ordering::Relaxed);
    assert!(index + count <= POOL_PAGES, "page pool is empty");
    Page { va: POOL.0.get() as u64 + index as u64 * PAGE }
}

impl Page {
    /// The page at `va`, which a former [`alloc_pages`] returned.
    pub(crate) fn at(va: u64) -> Self {
        Self { va }
    }

    /// The page at a pseudo-physical frame number.
    pub fn at_pfn(pfn: u64) -> Self {
        Self { va: VIRT_BASE + pfn * PAGE }
    }

    /// The page `index` places after this one, in a run from [`alloc_pages`].
    pub fn nth(self, index: usize) -> Self {
        Self { va: self.va + index as u64 * PAGE }
    }

    /// Virtual address.
    pub fn va(self) -> u64 {
        self.va
    }

    /// Pseudo-physical frame number.
    pub fn pfn(self) -> u64 {
        (self.va - VIRT_BASE) / PAGE
    }

    /// Machine frame number.
    pub fn mfn(self) -> u64 {
        p2m(self.pfn())
    }

    /// Machine address.
    pub fn maddr(self) -> u64 {
        self.mfn() * PAGE
    }

    /// An entry for this page with `flags`.
    pub fn pte(self, flags: u64) -> u64 {
        self.maddr() | flags
    }

    /// Reads word `index`.
    pub fn read(self, index: usize) -> u64 {
        assert!(index < 512);
        // SAFETY: inside the page; volatile because the hypervisor or another mapping may write it.
        unsafe { (self.va as *const u64).add(index).read_volatile() }
    }

    /// Writes word `index`; faults if the page is not mapped writable.
    pub fn write(self, index: usize, value: u64) {
        assert!(index < 512);
        // SAFETY: inside the page, which belongs to the holder.
        unsafe { (self.va as *mut u64).add(index).write_volatile(value) }
    }

    /// Copies `bytes` to `offset`.
    pub fn write_bytes(self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= PAGE as usize);
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: inside the page, which belongs to the holder.
            unsafe { ((self.va as *mut u8).add(offset + i)).write_volatile(*byte) };
        }
    }

    /// Fills the page with zeroes.
    pub fn clear(self) {
        for index in 0..512 {
            self.write(index, 0);
        }
    }

    /// Makes the kernel's mapping of the page read-only.
    pub fn make_read_only(self) -> Rc {
        hypercall::update_va_mapping(self.va, self.pte(RO_PAGE), sys::UVMF_INVLPG)
    }

    /// Makes the kernel's mapping of the page writable.
    pub fn make_writable(self) -> Rc {
        hypercall::update_va_mapping(self.va, self.pte(RW_PAGE), sys::UVMF_INVLPG)
    }

    /// Removes the kernel's mapping of the page.
    pub fn unmap(self) -> Rc {
        hypercall::update_va_mapping(self.va, 0, sys::UVMF_INVLPG)
    }
}

/// Machine frame of pseudo-physical frame `pfn`.
pub fn p2m(pfn: u64) -> u64 {
    assert!(pfn < start_info().nr_pages);
    // SAFETY: the hypervisor mapped a list of nr_pages entries at mfn_list.
    unsafe { (start_info().mfn_list as *const u64).add(pfn as usize).read_volatile() }
}

/// Records in the list that `pfn` is now at `mfn`.
pub fn set_p2m(pfn: u64, mfn: u64) {
    assert!(pfn < start_info().nr_pages);
    // SAFETY: as in `p2m`; the list is ordinary writable memory of the kernel.
    unsafe { (start_info().mfn_list as *mut u64).add(pfn as usize).write_volatile(mfn) }
}

/// Address of the machine-to-phys entry of `mfn`.
pub fn m2p_address(mfn: u64) -> u64 {
    sys::HOLE_START + mfn * 8
}

/// Pseudo-physical frame of `mfn`, for frames that the domain owns.
pub fn m2p(mfn: u64) -> u64 {
    // SAFETY: entries of existing frames are mapped readable.
    unsafe { (m2p_address(mfn) as *const u64).read_volatile() }
}

/// Machine frame behind an address of the kernel image, its start pages or its tables.
pub fn va_to_mfn(va: u64) -> u64 {
    p2m((va - VIRT_BASE) / PAGE)
}

/// Level of a page table: 1 is the level whose entries map 4 KiB pages.
pub type Level = u32;

/// Index of `va` in a table of `level`.
pub fn index_of(va: u64, level: Level) -> usize {
    (va >> (12 + 9 * (level - 1))) as usize & 511
}

/// Virtual address of the table of `level` on the path to `va` in the boot address space; `None` where the path ends earlier.
pub fn table_va(va: u64, level: Level) -> Option<u64> {
    let mut table = start_info().pt_base;
    let mut at = 4;
    while at > level {
        let entry = read_entry(table, index_of(va, at));
        if entry & P == 0 {
            return None;
        }
        table = VIRT_BASE + m2p((entry & FRAME_MASK) / PAGE) * PAGE;
        at -= 1;
    }
    Some(table)
}

/// Entry `index` of the table mapped at `table`.
pub fn read_entry(table: u64, index: usize) -> u64 {
    assert!(index < 512);
    // SAFETY: tables of the boot address space and pool pages stay mapped, at least read-only.
    unsafe { (table as *const u64).add(index).read_volatile() }
}

/// Machine address of the entry of `level` that maps `va`.
pub fn entry_maddr(va: u64, level: Level) -> u64 {
    let Some(table) = table_va(va, level) else { panic!("{va:#x} has no level {level} table") };
    va_to_mfn(table) * PAGE + index_of(va, level) as u64 * 8
}

/// The entry of `level` that maps `va`.
pub fn entry(va: u64, level: Level) -> u64 {
    table_va(va, level).map_or(0, |table| read_entry(table, index_of(va, level)))
}

/// Machine address of the boot address space's L4 table.
pub fn l4_maddr() -> u64 {
    va_to_mfn(start_info().pt_base) * PAGE
}

/// Maps the shared_info frame.
pub(crate) fn map_shared_info() {
    let va = start::shared_info_va();
    let rc = hypercall::update_va_mapping(va, start_info().shared_info | RW_PAGE, sys::UVMF_INVLPG);
    if !rc.is_ok() {
        crate::check::abort(format_args!("cannot map shared_info: {rc}"));
    }
    start::use_shared_vcpu_info();
}

/// A page-table page filled from `entries`, made read-only so that the hypervisor can take it as a table.
pub fn make_table(entries: &[(usize, u64)]) -> Page {
    let page = alloc_page();
    for (index, value) in entries {
        page.write(*index, *value);
    }
    if !page.make_read_only().is_ok() {
        crate::check::fail("make_table");
    }
    page
}

/// Issues memory_op decrease_reservation for one frame; returns the number of frames taken.
pub fn release_frame(mfn: u64) -> Rc {
    let mut list = [mfn];
    let mut reservation = reservation(&mut list, 0, sys::DOMID_SELF);
    Rc(hypercall::raw(nr::MEMORY_OP, [1, handle(&mut reservation), 0, 0, 0]))
}

/// Reservation for a list of extents.
pub fn reservation(list: &mut [u64], extent_order: u32, domid: u16) -> MemoryReservation {
    let nr_extents = list.len() as u64;
    MemoryReservation { extent_start: GuestHandle::new(handle(list)), nr_extents, extent_order, domid, ..MemoryReservation::default() }
}
