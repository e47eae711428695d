//! Set-up of a processor: its area, descriptor tables, control registers and the registers behind the system call instructions.

use super::features::{self, Features};
use super::registers::{self, rdmsr, wrmsr, xsetbv};
use super::{DR6_CLEAR, DR7_CLEAR, msr};
use crate::boot::EarlyOptions;
use crate::descriptors::{self, FIXED, GUEST_GDT_PAGES, Gate, HYPERVISOR_CS, HYPERVISOR_DS, LDT_PAGES, Tss, USER_CS32};
use crate::entry::{self, Entries};
use crate::layout::direct;
use crate::paging::{self, Access};
use crate::percpu::{self, DATA, GDT, IST_STACK_PAGES, MAIN_STACK, MAIN_STACK_PAGES, MAIN_STACK_TOP, Fast, PerCpu, STUB};
use crate::{memory, space};
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::cell::{Cell, UnsafeCell};
use oxen_types::{CpuId, Maddr, PAGE_SIZE};

/// CR0: protection, native FPU errors, write protection in ring 0, alignment checks for guests, paging.
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | CR0_WP | 1 << 18 | 1 << 31;
const CR0_WP: u64 = 1 << 16;
/// CR0.TS: FPU instructions raise #NM.
pub(crate) const CR0_TS: u64 = 1 << 3;

const CR4_PAE: u64 = 1 << 5;
const CR4_MCE: u64 = 1 << 6;
/// CR4.PGE: translations may be global.
pub(crate) const CR4_PGE: u64 = 1 << 7;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// CR4.FSGSBASE: the instructions for segment bases work.
pub(crate) const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
pub(crate) const CR4_SMAP: u64 = 1 << 21;
const CR4_TSD: u64 = 1 << 2;
const CR4_DE: u64 = 1 << 3;
/// The bits of CR4 that follow the running guest's choice. OSXSAVE stays on, as the hypervisor itself needs it.
pub(crate) const CR4_GUEST: u64 = CR4_TSD | CR4_DE | CR4_FSGSBASE;

const EFER_SCE: u64 = 1;
/// The page attribute table that the PV interface fixes: WB, WT, UC-, UC, WC, WP, UC, UC.
const PAT: u64 = 0x0000_0500_0107_0406;
/// Flags that `syscall` clears: TF, IF, DF, IOPL, NT, RF, AC.
const SFMASK: u64 = 0x100 | 0x200 | 0x400 | 0x3000 | 0x4000 | 0x1_0000 | 0x4_0000;

#[repr(C, align(4096))]
struct Idt(UnsafeCell<[Gate; 256]>);

// SAFETY: written by the boot CPU before any other CPU runs, and then only read by processors.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([Gate(0, 0); 256]));

/// The operand of `lgdt` and `lidt`.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Allocates, maps and fills in the area of `cpu`. Done by the boot CPU, for itself and for all others before they start, while the early
/// allocator is open.
pub fn prepare(cpu: CpuId) {
    let area = percpu::area_of(cpu);
    let entries = Entries::get();
    let Some(stub) = paging::translate(entries.stub_page) else { panic!("the system call stub is not mapped") };
    paging::map(area + STUB, stub, PAGE_SIZE, Access::Execute);
    let map_new = |offset: u64, pages: u64| {
        let maddr = memory::early_alloc(pages, 1).maddr();
        // SAFETY: the frames were just allocated, and the direct map shows all memory.
        unsafe { core::ptr::write_bytes(direct(maddr) as *mut u8, 0, (pages * PAGE_SIZE) as usize) };
        paging::map(area + offset, maddr, pages * PAGE_SIZE, Access::ReadWrite);
        maddr
    };
    let data = map_new(DATA, 1);
    let own_gdt = map_new(GDT + GUEST_GDT_PAGES as u64 * PAGE_SIZE, 1);
    for page in 0..GUEST_GDT_PAGES as u64 {
        paging::map(area + GDT + page * PAGE_SIZE, space::empty_page(), PAGE_SIZE, Access::ReadOnly);
    }
    for index in 0..descriptors::NR_IST {
        map_new(percpu::ist_stack(index), IST_STACK_PAGES);
    }
    map_new(MAIN_STACK, MAIN_STACK_PAGES);

    let ist = core::array::from_fn(|index| area + percpu::ist_stack(index) + IST_STACK_PAGES * PAGE_SIZE);
    let contents = PerCpu {
        syscall_entry: entries.syscall,
        syscall32_entry: entries.syscall32,
        fast: Fast::none(),
        cpu,
        cr0: Cell::new(0),
        cr4: Cell::new(0),
        xcr0: Cell::new(0),
        tsc_aux: Cell::new(0),
        debug: [const { Cell::new(0) }; 4],
        dr7: Cell::new(DR7_CLEAR),
        gdt_frames: [const { Cell::new(u64::MAX) }; GUEST_GDT_PAGES],
        ldt_frames: [const { Cell::new(u64::MAX) }; LDT_PAGES],
        ldt_entries: Cell::new(0),
        entries: space::leaf_entries(area),
        tss: UnsafeCell::new(Tss::new(area + MAIN_STACK_TOP, ist)),
    };
    // SAFETY: the page was just allocated and is large and aligned enough; nobody uses it yet.
    unsafe { (direct(data) as *mut PerCpu).write(contents) };
    fill_gdt(own_gdt, area + DATA + core::mem::offset_of!(PerCpu, tss) as u64);
}

fn fill_gdt(page: Maddr, tss: u64) {
    // SAFETY: the page was just allocated, is visible in the direct map, and nobody uses it yet.
    let table = unsafe { &mut *(direct(page) as *mut [u64; 512]) };
    for (selector, descriptor) in FIXED {
        table[descriptors::index_in_page(selector)] = descriptor;
    }
    let index = descriptors::index_in_page(descriptors::TSS);
    table[index..index + 2].copy_from_slice(&descriptors::tss_descriptor(tss));
}

/// Sets up the boot CPU. To be called as soon as mappings can be made; faults are reported from here on. The CPU stays on the stack it has: go on
/// with [`crate::entry::idle_on_main_stack`].
///
/// # Safety
/// Called once, on the boot CPU, with the final page tables loaded and interrupts off, before any other CPU runs.
pub unsafe fn start_boot_cpu(options: &EarlyOptions) {
    let mut features = Features::detect();
    features.smep &= options.smep;
    features.smap &= options.smap;
    // SAFETY: no other CPU runs, and this one does not use the table yet.
    entry::write_idt(unsafe { &mut *IDT.0.get() });
    if features.xsave {
        // SAFETY: the processor has XSAVE; the bit only enables its instructions.
        unsafe { registers::set_cr4(registers::cr4() | CR4_OSXSAVE) };
        xsetbv(features.xcr0);
        features.fpu_bytes = __cpuid_count(0xd, 0).ebx as usize;
    } else {
        features.fpu_bytes = 512;
    }
    if features.smap {
        // SAFETY: the processor has SMAP, only this CPU runs, and writing to read-only pages is allowed in between.
        unsafe {
            registers::set_cr0(registers::cr0() & !CR0_WP);
            entry::smap::fill_in();
            registers::set_cr0(registers::cr0() | CR0_WP);
        }
    }
    features::set(features);
    prepare(CpuId(0));
    // SAFETY: the caller's promise; the area was just prepared.
    unsafe { start(CpuId(0)) };
}

/// Gives the calling CPU, which is `cpu`, its descriptor tables, control registers and system call registers.
///
/// # Safety
/// Called once on each CPU, in 64-bit mode with the hypervisor's page tables and interrupts off. [`prepare`] was called for `cpu`.
pub(crate) unsafe fn start(cpu: CpuId) {
    let area = percpu::area_of(cpu);
    // SAFETY: the tables are filled in and mapped in every address space; the code segment has the same properties as the one in use.
    unsafe { load_tables(area) };

    let features = features::features();
    let mut cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    for (present, bit) in [
        (features.pge, CR4_PGE),
        (features.mce, CR4_MCE),
        (features.smep, CR4_SMEP),
        (features.smap, CR4_SMAP),
        (features.xsave, CR4_OSXSAVE),
    ] {
        if present {
            cr4 |= bit;
        }
    }
    // SAFETY: the hypervisor runs in 64-bit mode with its own code outside user pages, and touches user pages only between `stac` and `clac`.
    unsafe {
        registers::set_cr0(CR0);
        registers::set_cr4(cr4);
        asm!("push 2", "popfq", "fninit");
    }
    // SAFETY: the area was prepared, and only this CPU uses it.
    let data = unsafe { &*((area + DATA) as *const PerCpu) };
    data.cr0.set(CR0);
    data.cr4.set(cr4);
    if features.xsave {
        xsetbv(features.xcr0);
        data.xcr0.set(features.xcr0);
    }
    set_msrs(&features, area);
    // SAFETY: all watchpoints off.
    unsafe {
        registers::set_debug_register(7, DR7_CLEAR);
        registers::set_debug_register(6, DR6_CLEAR);
        for number in 0..4 {
            registers::set_debug_register(number, 0);
        }
    }
}

fn set_msrs(features: &Features, area: u64) {
    let entries = Entries::get();
    let star = u64::from(USER_CS32) << 48 | u64::from(HYPERVISOR_CS) << 32;
    let mut values = [
        (msr::EFER, rdmsr(msr::EFER).unwrap_or(0) | EFER_SCE, true),
        (msr::STAR, star, true),
        (msr::LSTAR, area + STUB, true),
        (msr::CSTAR, area + STUB + entry::SYSCALL32_STUB, true),
        (msr::SFMASK, SFMASK, true),
        (msr::PAT, PAT, features.pat),
        (msr::TSC_AUX, 0, features.tsc_aux),
        (msr::SYSENTER_CS, 0, true),
        (msr::SYSENTER_ESP, 0, true),
        (msr::SYSENTER_EIP, 0, true),
    ];
    if features.sysenter {
        values[7].1 = u64::from(HYPERVISOR_CS);
        values[8].1 = area + MAIN_STACK_TOP;
        values[9].1 = entries.sysenter;
    }
    for (register, value, exists) in values {
        if exists {
            // SAFETY: these are the values that the entry code and the page tables are made for.
            unsafe { wrmsr(register, value) };
        }
    }
}

/// # Safety
/// The area is prepared, and interrupts are off.
unsafe fn load_tables(area: u64) {
    let gdt = TablePointer { limit: descriptors::GDT_LIMIT, base: area + GDT };
    let idt = TablePointer { limit: (size_of::<[Gate; 256]>() - 1) as u16, base: IDT.0.get() as u64 };
    // SAFETY: the caller's promise. The far return loads the code segment; data segments are not used and become null.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "push {cs}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {ss:e}",
            "xor {scratch:e}, {scratch:e}",
            "mov ds, {scratch:e}",
            "mov es, {scratch:e}",
            "mov fs, {scratch:e}",
            "mov gs, {scratch:e}",
            "lldt {scratch:x}",
            "lidt [{idt}]",
            "ltr {tss:x}",
            gdt = in(reg) &raw const gdt,
            idt = in(reg) &raw const idt,
            cs = const HYPERVISOR_CS,
            ss = in(reg) u32::from(HYPERVISOR_DS),
            tss = in(reg) u32::from(descriptors::TSS),
            scratch = out(reg) _,
        );
    }
}
