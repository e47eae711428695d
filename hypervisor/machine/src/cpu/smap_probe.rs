//! Whether SMAP concerns the hypervisor alone, as it should. QEMU 7.2 also applies it to the stack accesses of far returns in ring 3, which PV kernels execute
//! early: their page faults would make no sense to them. Under an emulator or hypervisor this is tried once, in ring 3.

use crate::descriptors::{Gate, Ist, USER_CS64, USER_DS, VECTOR_BREAKPOINT};
use crate::layout::{FIRST_SLOT, NR_SLOTS, direct};
use crate::boot::ranges::Span;
use crate::memory::Purpose;
use crate::paging::bits::{PRESENT, USER, WRITABLE};
use crate::{memory, paging};
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use oxen_types::{Maddr, PAGE_SIZE};

core::arch::global_asm!(include_str!("../entry/probe.s"), USER_DS = const USER_DS, USER_CS64 = const USER_CS64);

unsafe extern "C" {
    fn oxen_probe_ring_3(rip: u64, rsp: u64) -> i64;
    static oxen_probe_page_fault: [u8; 0];
    static oxen_probe_breakpoint: [u8; 0];
    static oxen_probe_program: [u8; 0];
    static oxen_probe_program_end: [u8; 0];
}

const VECTOR_PAGE_FAULT: usize = 14;
/// Where the page with program and stack is mapped.
const PAGE: u64 = 0x1_0000;
/// CPUID leaf 1, ecx: a hypervisor is present.
const UNDER_HYPERVISOR: u32 = 1 << 31;

fn new_page() -> Maddr {
    let page = memory::early_alloc(1, 1).maddr();
    // SAFETY: the frame was just allocated, and the direct map shows all memory.
    unsafe { core::ptr::write_bytes(direct(page) as *mut u8, 0, PAGE_SIZE as usize) };
    page
}

fn set(table: Maddr, index: usize, value: u64) {
    // SAFETY: the page comes from `new_page`; the index is below 512.
    unsafe { (direct(table) as *mut u64).add(index).write(value) };
}

/// Tables that show the hypervisor and the program's page; and the pages that they take.
fn build() -> [Maddr; 5] {
    let [root, l3, l2, l1, page] = core::array::from_fn(|_| new_page());
    for index in 0..NR_SLOTS {
        set(root, FIRST_SLOT + index, paging::hypervisor_slot(index));
    }
    let bits = PRESENT | WRITABLE | USER;
    set(root, 0, l3.0 | bits);
    set(l3, 0, l2.0 | bits);
    set(l2, 0, l1.0 | bits);
    set(l1, (PAGE / PAGE_SIZE) as usize, page.0 | bits);
    let start = &raw const oxen_probe_program;
    let len = (&raw const oxen_probe_program_end).addr() - start.addr();
    // SAFETY: the symbols bound the program in the image's constants; the page was just allocated.
    unsafe { core::ptr::copy_nonoverlapping(start.cast::<u8>(), direct(page) as *mut u8, len) };
    [root, l3, l2, l1, page]
}

/// True where SMAP faults on what ring 3 does itself.
///
/// # Safety
/// Only the boot CPU runs, with its descriptor tables and SMAP in use, interrupts off, and an empty main stack. `idt` is its interrupt table.
pub(super) unsafe fn is_faulty(idt: &mut [Gate; 256]) -> bool {
    if __cpuid(1).ecx & UNDER_HYPERVISOR == 0 {
        return false;
    }
    let pages = build();
    let kept = [idt[VECTOR_BREAKPOINT], idt[VECTOR_PAGE_FAULT]];
    idt[VECTOR_BREAKPOINT] = Gate::new((&raw const oxen_probe_breakpoint).addr() as u64, Ist::None, 3);
    idt[VECTOR_PAGE_FAULT] = Gate::new((&raw const oxen_probe_page_fault).addr() as u64, Ist::None, 0);
    // SAFETY: the new tables carry all of the hypervisor; the two gates lead back here from whatever the program meets.
    let error = unsafe {
        let old: u64;
        asm!("mov {}, cr3", out(reg) old, options(nomem, nostack, preserves_flags));
        asm!("mov cr3, {}", in(reg) pages[0].0, options(nostack, preserves_flags));
        let error = oxen_probe_ring_3(PAGE, PAGE + PAGE_SIZE);
        asm!("mov cr3, {}", in(reg) old, options(nostack, preserves_flags));
        error
    };
    [idt[VECTOR_BREAKPOINT], idt[VECTOR_PAGE_FAULT]] = kept;
    for page in pages {
        memory::unreserve(Span::new(page.0, PAGE_SIZE), Purpose::PerCpu);
    }
    error != -1
}
