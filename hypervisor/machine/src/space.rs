//! The address space and the descriptor tables of the calling CPU.

use crate::cpu::{CR4_PGE, invlpg};
use crate::descriptors::{self, GUEST_GDT_PAGES, LDT_PAGES};
use crate::layout::direct;
use crate::paging::bits::{ADDRESS, LARGE, PRESENT};
use crate::paging::{self, Access};
use crate::percpu::{self, GDT, LDT, PerCpu, current};
use crate::{X86, tlb};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use oxen_hal::{AddressSpace, FlushScope};
use oxen_types::{CpuId, CpuSet, Gva, Maddr, Mfn, PAGE_SIZE};

/// No frame in a window's page.
const NONE: u64 = u64::MAX;
/// Most descriptors that an LDT can have.
const MAX_LDT_ENTRIES: u32 = 8192;

#[repr(C, align(4096))]
struct EmptyPage([u64; 512]);
/// What the GDT window shows where the guest has no page: absent descriptors. The processor never writes to an absent descriptor.
static EMPTY_PAGE: EmptyPage = EmptyPage([0; 512]);

/// Machine address of a page of zeros.
pub(crate) fn empty_page() -> Maddr {
    let Some(maddr) = paging::translate(EMPTY_PAGE.0.as_ptr() as u64) else { panic!("the image is not mapped") };
    maddr
}

/// The last-level entries that map the area at `area`, one for each page, in the direct map. One page of the area is mapped already.
pub(crate) fn leaf_entries(area: u64) -> *mut u64 {
    let mut table = paging::idle_root().maddr().0;
    for shift in [39, 30, 21] {
        let index = (area >> shift) as usize % 512;
        // SAFETY: `table` is a page table of the hypervisor, which the direct map shows for ever.
        let entry = unsafe { (direct(Maddr(table)) as *const u64).add(index).read_volatile() };
        assert!(entry & PRESENT != 0 && entry & LARGE == 0, "a per-CPU area is mapped in small pages");
        table = entry & ADDRESS;
    }
    (direct(Maddr(table)) as *mut u64).wrapping_add((area >> 12) as usize % 512)
}

/// Replaces the entry that maps the page at `offset` of the calling CPU's area.
fn set_entry(cpu: &PerCpu, offset: u64, value: u64) {
    // SAFETY: the area's entries stay where they are; only this CPU changes and uses those of the windows, which nothing but the processor's descriptor
    // fetches reads.
    unsafe { AtomicU64::from_ptr(cpu.entries.add((offset / PAGE_SIZE) as usize)) }.store(value, Ordering::Release);
    invlpg(percpu::area() + offset);
}

/// Bits of a window page's entry, as far as this processor has them: those of the CPU's data page.
fn window_bits(cpu: &PerCpu) -> u64 {
    // SAFETY: as in `set_entry`.
    let data = unsafe { AtomicU64::from_ptr(cpu.entries.add((percpu::DATA / PAGE_SIZE) as usize)) };
    data.load(Ordering::Relaxed) & !ADDRESS
}

fn load_cr3(root: Mfn) {
    // SAFETY: every root that is loaded carries the hypervisor's slots, which map all that the hypervisor uses.
    unsafe { asm!("mov cr3, {}", in(reg) root.maddr().0, options(nostack, preserves_flags)) };
}

impl AddressSpace for X86 {
    #[inline]
    fn load_root(&self, root: Mfn, flush_global: bool) {
        if !flush_global {
            return load_cr3(root);
        }
        let cpu = current();
        let clock = tlb::begin_full_flush();
        let cr4 = cpu.cr4.get();
        // SAFETY: turning PGE off and on drops all translations and changes nothing else (SDM vol. 3, "Operations that Invalidate TLBs").
        unsafe {
            asm!("mov cr4, {}", in(reg) cr4 & !CR4_PGE, options(nostack, preserves_flags));
            load_cr3(root);
            asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
        }
        tlb::end_full_flush(cpu.cpu, clock);
    }

    fn load_idle_root(&self) {
        self.load_root(paging::idle_root(), true);
    }

    fn hypervisor_slot(&self, index: usize) -> u64 {
        paging::hypervisor_slot(index)
    }

    fn set_guest_gdt(&self, frames: &[Mfn]) {
        let cpu = current();
        for page in 0..GUEST_GDT_PAGES {
            let wanted = frames.get(page).map_or(NONE, |mfn| mfn.0);
            if cpu.gdt_frames[page].replace(wanted) == wanted {
                continue;
            }
            let value = if wanted == NONE {
                empty_page().0 | Access::ReadOnly.entry_bits() & window_bits(cpu)
            } else {
                Mfn(wanted).maddr().0 | window_bits(cpu)
            };
            set_entry(cpu, GDT + page as u64 * PAGE_SIZE, value);
        }
    }

    fn set_guest_ldt(&self, entries: u32) {
        let cpu = current();
        for (page, frame) in cpu.ldt_frames.iter().enumerate() {
            if frame.replace(NONE) != NONE {
                set_entry(cpu, LDT + page as u64 * PAGE_SIZE, 0);
            }
        }
        let entries = entries.min(MAX_LDT_ENTRIES);
        if cpu.ldt_entries.replace(entries) == 0 && entries == 0 {
            return;
        }
        if entries == 0 {
            // SAFETY: no LDT: selectors that refer to it fault.
            unsafe { asm!("lldt {:x}", in(reg) 0, options(nostack, preserves_flags)) };
            return;
        }
        let descriptor = descriptors::ldt_descriptor(percpu::area() + LDT, entries);
        let own_page = percpu::area() + GDT + (GUEST_GDT_PAGES as u64) * PAGE_SIZE;
        let slot = own_page as *mut [u64; 512];
        let index = descriptors::index_in_page(descriptors::LDT);
        // SAFETY: the page is this CPU's own part of its GDT; nothing refers to this descriptor while it changes but `lldt` below, which follows. The window that
        // it describes faults where no page is mapped.
        unsafe {
            (*slot)[index] = descriptor[0];
            (*slot)[index + 1] = descriptor[1];
            asm!("lldt {:x}", in(reg) u32::from(descriptors::LDT), options(nostack, preserves_flags));
        }
    }

    fn map_ldt_page(&self, index: usize, frame: Mfn) {
        let cpu = current();
        if index < LDT_PAGES {
            cpu.ldt_frames[index].set(frame.0);
            set_entry(cpu, LDT + index as u64 * PAGE_SIZE, frame.maddr().0 | window_bits(cpu));
        }
    }

    fn ldt_offset(&self, fault: Gva) -> Option<u64> {
        let offset = fault.0.wrapping_sub(percpu::area() + LDT);
        (offset < u64::from(current().ldt_entries.get()) * 8).then_some(offset)
    }

    #[inline]
    fn flush_page_local(&self, va: Gva) {
        tlb::flush_page(va);
    }

    #[inline]
    fn flush_local(&self, scope: FlushScope) {
        tlb::flush_local(scope);
    }

    fn flush_remote(&self, cpus: &CpuSet, scope: FlushScope) {
        tlb::flush_remote(cpus, scope);
    }

    fn flush_clock(&self) -> u32 {
        tlb::flush_clock()
    }

    fn last_flush(&self, cpu: CpuId) -> u32 {
        tlb::last_flush(cpu)
    }
}
