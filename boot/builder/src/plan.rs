//! The layout of a domain's memory.

use crate::error::PlanError;
use crate::tables::{self, TableFrames, TableLevel};
use oxen_abi::features;
use oxen_abi::xen::Dom0VgaConsoleInfo;
use oxen_kernel_image::KernelInfo;
use oxen_types::{Gva, HYPERVISOR_VIRT_START, PAGE_SHIFT, PAGE_SIZE, Pfn};

/// Bytes mapped behind the boot stack for the kernel's first allocations. Public header `xen.h`, start-of-day memory layout.
const SPARE_LEN: u64 = 512 << 10;
/// The mapped range ends on a multiple of this.
const END_ALIGN: u64 = 4 << 20;
/// Bytes of a p2m entry.
const P2M_ENTRY_LEN: u64 = 8;
/// More pages than any 46-bit machine has; keeps every product below in 64 bits.
const MAX_PAGES: u64 = 1 << 34;

/// Who the domain is, with what its start information says accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The hardware and control domain, built by the hypervisor.
    Dom0 {
        /// The screen that the boot loader left.
        vga: Option<Dom0VgaConsoleInfo>,
        /// Power management options, bits 8 to 15 of `flags`.
        pm_bits: u8,
    },
    /// Any other domain; it gets a xenstore page and a console page.
    DomU {
        /// Event channel of the xenstore ring.
        store_port: u32,
        /// Event channel of the console ring.
        console_port: u32,
    },
}

/// What a plan depends on beside the kernel.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput {
    /// Pages that the domain starts with: PFNs `0..nr_pages` have frames.
    pub nr_pages: u64,
    /// Length of the initial RAM disk in bytes; 0 for none.
    pub initrd_len: u64,
    /// Who the domain is.
    pub role: Role,
}

/// Consecutive PFNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PfnRange {
    /// The first.
    pub first: Pfn,
    /// How many.
    pub count: u64,
}

impl PfnRange {
    /// One past the last.
    #[must_use]
    pub const fn end(&self) -> Pfn {
        self.first.offset(self.count)
    }

    /// Whether `pfn` is one of them.
    #[must_use]
    pub const fn contains(&self, pfn: Pfn) -> bool {
        pfn.0 >= self.first.0 && pfn.0 < self.end().0
    }
}

/// Where the initial RAM disk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// Its frames. The caller may give these PFNs the frames in which the disk already lies.
    pub pfns: PfnRange,
    /// Its length in bytes.
    pub len: u64,
    /// Its virtual address, where it is mapped.
    pub va: Option<Gva>,
}

/// Where the p2m goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P2m {
    /// Its frames.
    pub pfns: PfnRange,
    /// Its virtual address.
    pub va: Gva,
    /// The tables that map it where it is outside the kernel's range. Their frames come right before `pfns`.
    pub tables: Option<TableFrames>,
}

/// The layout of a PV domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Pages that the domain starts with.
    pub nr_pages: u64,
    /// Virtual address of PFN 0.
    pub virt_base: Gva,
    /// The PFNs mapped from `virt_base` on: `0..mapped`.
    pub mapped: u64,
    /// The frames that the kernel's segments fill.
    pub kernel: PfnRange,
    /// The initial RAM disk.
    pub initrd: Option<Initrd>,
    /// The p2m.
    pub p2m: P2m,
    /// The page with the start information.
    pub start_info: Pfn,
    /// The xenstore ring of a domU.
    pub xenstore: Option<Pfn>,
    /// The console ring of a domU.
    pub console: Option<Pfn>,
    /// The root page table.
    pub root: Pfn,
    /// The other tables of the range from `virt_base` on. Their frames come right after `root`.
    pub tables: TableFrames,
    /// The boot stack.
    pub stack: Pfn,
    /// Entry point.
    pub entry: Gva,
    /// The page that the kernel wants filled with hypercall stubs.
    pub hypercall_page: Option<Pfn>,
    /// Whether the kernel takes the RAM disk by PFN.
    pub mod_start_pfn: bool,
    /// Whether domain 0's magic ends in `p`.
    pub pae: bool,
    /// Who the domain is.
    pub role: Role,
}

impl Plan {
    /// Lays out a domain for the kernel. Errors: every [`PlanError`].
    pub fn new(kernel: &KernelInfo, input: &PlanInput) -> Result<Self, PlanError> {
        check_features(kernel, input.role)?;
        check_addresses(kernel)?;
        if input.nr_pages > MAX_PAGES || input.initrd_len > MAX_PAGES * PAGE_SIZE {
            return Err(PlanError::NoRoom {
                va: kernel.virt_base,
                len: input.nr_pages.max(input.initrd_len),
            });
        }
        let initrd_pages = input.initrd_len.div_ceil(PAGE_SIZE);
        let p2m_pages = (input.nr_pages * P2M_ENTRY_LEN).div_ceil(PAGE_SIZE);
        let initrd_is_mapped = initrd_pages != 0 && !kernel.mod_start_pfn;

        // Offsets from VIRT_BASE in bytes, so that nothing can wrap before the end has been checked.
        let kernel_end = kernel.paddr(kernel.virt_end);
        let mut cursor = Cursor {
            next: pages(kernel_end, kernel)?,
        };
        let mapped_initrd = cursor.take(if initrd_is_mapped { initrd_pages } else { 0 });
        let mapped_p2m = cursor.take(if kernel.init_p2m.is_none() {
            p2m_pages
        } else {
            0
        });
        let start_info = cursor.take(1).first;
        let (xenstore, console) = match input.role {
            Role::Dom0 { .. } => (None, None),
            Role::DomU { .. } => (Some(cursor.take(1).first), Some(cursor.take(1).first)),
        };
        let root = cursor.take(1).first;
        let tables_first = Pfn(cursor.next);
        let (tables, mapped) = fit_tables(kernel.virt_base, tables_first)?;
        cursor.take(tables.total());
        let stack = cursor.take(1).first;

        cursor.next = mapped;
        let initrd_pfns = if initrd_is_mapped {
            mapped_initrd
        } else {
            cursor.take(initrd_pages)
        };
        let initrd = (initrd_pages != 0).then(|| Initrd {
            pfns: initrd_pfns,
            len: input.initrd_len,
            va: initrd_is_mapped.then(|| va_of(kernel.virt_base, initrd_pfns.first)),
        });
        let p2m = match kernel.init_p2m {
            None => P2m {
                pfns: mapped_p2m,
                va: va_of(kernel.virt_base, mapped_p2m.first),
                tables: None,
            },
            Some(va) => {
                let tables = p2m_tables(va, p2m_pages, &tables, Pfn(cursor.next))?;
                cursor.take(tables.total());
                P2m {
                    pfns: cursor.take(p2m_pages),
                    va: Gva(va),
                    tables: Some(tables),
                }
            }
        };
        if cursor.next > input.nr_pages {
            return Err(PlanError::TooLittleMemory {
                need: cursor.next,
                have: input.nr_pages,
            });
        }
        let kernel_first = kernel.paddr(kernel.virt_start) >> PAGE_SHIFT;
        Ok(Self {
            nr_pages: input.nr_pages,
            virt_base: Gva(kernel.virt_base),
            mapped,
            kernel: PfnRange {
                first: Pfn(kernel_first),
                count: kernel_end.div_ceil(PAGE_SIZE) - kernel_first,
            },
            initrd,
            p2m,
            start_info,
            xenstore,
            console,
            root,
            tables,
            stack,
            entry: Gva(kernel.entry),
            hypercall_page: kernel
                .hypercall_page
                .map(|va| Pfn(kernel.paddr(va) >> PAGE_SHIFT)),
            mod_start_pfn: kernel.mod_start_pfn,
            pae: kernel.pae,
            role: input.role,
        })
    }

    /// Virtual address of a PFN that is mapped from `virt_base` on.
    #[must_use]
    pub fn va(&self, pfn: Pfn) -> Gva {
        va_of(self.virt_base.0, pfn)
    }

    /// The page tables that the start information tells the kernel of: those that lie in the mapped range.
    #[must_use]
    pub fn table_pfns(&self) -> PfnRange {
        PfnRange {
            first: self.root,
            count: 1 + self.tables.total(),
        }
    }

    /// The frames that the start information calls p2m frames: the p2m outside the mapped range and the tables that map it.
    #[must_use]
    pub fn p2m_pfns(&self) -> Option<PfnRange> {
        let tables = self.p2m.tables?;
        Some(PfnRange {
            first: tables.first(TableLevel::L3),
            count: tables.total() + self.p2m.pfns.count,
        })
    }

    /// Every page-table frame with its level, the root first.
    pub fn table_frames(&self) -> impl Iterator<Item = (Pfn, TableLevel)> + use<> {
        core::iter::once((self.root, TableLevel::L4))
            .chain(self.tables.iter())
            .chain(self.p2m.tables.into_iter().flat_map(|tables| tables.iter()))
    }
}

/// Hands out consecutive PFNs.
struct Cursor {
    next: u64,
}

impl Cursor {
    fn take(&mut self, count: u64) -> PfnRange {
        let range = PfnRange {
            first: Pfn(self.next),
            count,
        };
        self.next += count;
        range
    }
}

fn va_of(virt_base: u64, pfn: Pfn) -> Gva {
    Gva(virt_base.wrapping_add(pfn.0 << PAGE_SHIFT))
}

/// Pages that `len` bytes from the kernel's base take.
fn pages(len: u64, kernel: &KernelInfo) -> Result<u64, PlanError> {
    let pages = len.div_ceil(PAGE_SIZE);
    if pages > MAX_PAGES {
        Err(PlanError::NoRoom {
            va: kernel.virt_base,
            len,
        })
    } else {
        Ok(pages)
    }
}

fn check_features(kernel: &KernelInfo, role: Role) -> Result<(), PlanError> {
    for (bit, name) in [
        (
            features::XENFEAT_SUPERVISOR_MODE_KERNEL,
            "supervisor_mode_kernel",
        ),
        (
            features::XENFEAT_AUTO_TRANSLATED_PHYSMAP,
            "auto_translated_physmap",
        ),
    ] {
        if kernel.features.requires(bit) {
            return Err(PlanError::FeatureUnsupported(name));
        }
    }
    if matches!(role, Role::Dom0 { .. }) && !kernel.features.supports(features::XENFEAT_DOM0) {
        return Err(PlanError::NotForDom0);
    }
    Ok(())
}

fn check_addresses(kernel: &KernelInfo) -> Result<(), PlanError> {
    if let Some(hv_start_low) = kernel.hv_start_low
        && hv_start_low > HYPERVISOR_VIRT_START
    {
        return Err(PlanError::HypervisorRangeTooLow { hv_start_low });
    }
    let base = Gva(kernel.virt_base);
    if base.page_offset() != 0 || !base.is_canonical() {
        return Err(PlanError::BadAddress {
            what: "VIRT_BASE",
            va: base.0,
        });
    }
    if kernel.virt_start < kernel.virt_base || kernel.virt_end <= kernel.virt_start {
        return Err(PlanError::BadAddress {
            what: "the kernel",
            va: kernel.virt_start,
        });
    }
    Ok(())
}

/// The tables in frames from `first_pfn` on, and the number of pages they map: everything from `virt_base` to the end of the spare
/// memory, which the tables themselves push up. Growing until it fits finds the smallest such set.
fn fit_tables(virt_base: u64, first_pfn: Pfn) -> Result<(TableFrames, u64), PlanError> {
    let mut nr_tables = 0;
    loop {
        let stack_end = (first_pfn.0 + nr_tables + 1) << PAGE_SHIFT;
        let len = stack_end + SPARE_LEN;
        let no_room = PlanError::NoRoom { va: virt_base, len };
        let end = virt_base
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(END_ALIGN))
            .ok_or(no_room)?;
        let mapped_len = end - virt_base;
        let usable =
            usize::try_from(mapped_len).is_ok_and(|len| Gva(virt_base).range_is_guest(len));
        if !usable {
            return Err(no_room);
        }
        let tables = TableFrames::new(virt_base, end - 1, first_pfn);
        if tables.total() <= nr_tables {
            return Ok((tables, mapped_len >> PAGE_SHIFT));
        }
        nr_tables = tables.total();
    }
}

/// The tables that map the p2m at the address that the kernel wants.
fn p2m_tables(
    va: u64,
    nr_pages: u64,
    kernel_tables: &TableFrames,
    first_pfn: Pfn,
) -> Result<TableFrames, PlanError> {
    let first = Gva(va);
    if first.page_offset() != 0 || !first.is_canonical() {
        return Err(PlanError::BadAddress {
            what: "the initial p2m",
            va,
        });
    }
    let len = nr_pages.max(1) << PAGE_SHIFT;
    let usable = usize::try_from(len).is_ok_and(|len| first.range_is_guest(len));
    if !usable {
        return Err(PlanError::NoRoom { va, len });
    }
    let tables = TableFrames::new(va, va + (len - 1), first_pfn);
    if tables::share_root_entry(&tables, kernel_tables) {
        return Err(PlanError::P2mBesideKernel { va });
    }
    Ok(tables)
}
