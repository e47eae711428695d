//! Registers, memory layout, start_info and shared_info as the first vCPU finds them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall;
use oxen_guests::mem::{self, P, PAGE, RW};
use oxen_guests::probe::{Probe, catch};
use oxen_guests::start::{offsets, shared_info_va, shared_word, start_info, vcpu_info};
use oxen_guests::sys::{self, VIRT_BASE};
use oxen_guests::{check, entry, expect, expect_text, value};

oxen_guests::test_kernel!("start-state", run);

/// Flags of an entry, without the frame number and without what the hypervisor adds for itself: the global bit and software bits.
fn flags(entry: u64) -> u64 {
    entry & !(mem::FRAME_MASK | mem::G | 0x07f0_0000_0000_0000)
}

fn run() {
    registers();
    information();
    layout();
    tables();
    machine_to_phys();
    shared_info();
}

fn registers() {
    let initial = entry::initial_registers();
    let names = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    for (name, content) in names.iter().zip(initial.gpr) {
        // rsi and rsp are addresses; rcx and r11 hold what the entry instruction left.
        if !matches!(*name, "rsi" | "rsp" | "rcx" | "r11") {
            check!("registers.zero", content == 0);
        }
    }
    expect!("registers.rsp_page_offset", initial.gpr[7] % PAGE, 0);
    // Interrupt flag, I/O privilege level, direction, alignment check, trap.
    expect!("registers.rflags", initial.rflags & 0x4_7700, 0x200);
    for (name, selector) in ["cs", "ss", "ds", "es", "fs", "gs"].iter().zip(initial.selectors) {
        value!(*name, format_args!("{selector:#x}"));
    }
    check!("registers.cs", initial.selectors[0] == sys::FLAT_CS64);
    check!("registers.ss", initial.selectors[1] == sys::FLAT_SS);
    // The stack of the start is one page, writable up to its end.
    let stack_page = initial.gpr[7] - PAGE;
    expect_text!("boot_stack.writable", Probe::kernel(&[0x48, 0x89, 0x00]).with(|f| f.rax = stack_page).run(), "done");
}

fn information() {
    let info = start_info();
    let len = info.magic.iter().position(|b| *b == 0).unwrap_or(0);
    expect_text!("info.magic", core::str::from_utf8(&info.magic[..len]).unwrap_or("not text"), "xen-3.0-x86_64p");
    expect!("info.nr_pages", info.nr_pages, 32768);
    expect!("info.flags", info.flags & 0xff, 3);
    expect!("info.store_mfn", info.store_mfn, 0);
    expect!("info.store_evtchn", info.store_evtchn, 0);
    expect!("info.mod_start", info.mod_start, 0);
    expect!("info.mod_len", info.mod_len, 0);
    expect!("info.nr_p2m_frames", info.nr_p2m_frames, 0);
    expect!("info.shared_info_page_offset", info.shared_info % PAGE, 0);
    check!("info.rsi", core::ptr::from_ref(info) as u64 == entry::initial_registers().gpr[4]);
}

/// Order of the parts: kernel, p2m, start_info, tables, boot stack, spare.
fn layout() {
    let info = start_info();
    let info_va = core::ptr::from_ref(info) as u64;
    let stack_va = entry::initial_registers().gpr[7] - PAGE;
    expect!("layout.mfn_list_page_offset", info.mfn_list % PAGE, 0);
    expect!("layout.mfn_list_after_kernel", info.mfn_list > shared_info_va(), true);
    expect!("layout.start_info_after_p2m", info_va - info.mfn_list, info.nr_pages * 8);
    expect!("layout.tables_after_start_info", info.pt_base - info_va, PAGE);
    expect!("layout.stack_after_tables", stack_va - info.pt_base, info.nr_pt_frames * PAGE);
    expect!("layout.nr_pt_frames", info.nr_pt_frames, 5);
    // At least 512 KiB after the stack, rounded up to 4 MiB, and the same from the region's start on.
    let end = (stack_va + PAGE + 512 * 1024).next_multiple_of(4 << 20);
    expect!("layout.mapped_first", mem::entry(VIRT_BASE, 1) & P, P);
    expect!("layout.mapped_last", mem::entry(end - PAGE, 1) & P, P);
    expect!("layout.mapped_beyond", mem::entry(end, 1) & P, 0);
    let mut linear = true;
    let mut writable_tables = 0;
    let mut read_only_others = 0;
    let mut va = VIRT_BASE;
    while va < end {
        let entry = mem::entry(va, 1);
        if va != shared_info_va() {
            linear &= (entry & mem::FRAME_MASK) / PAGE == mem::va_to_mfn(va);
        }
        let is_table = (info.pt_base..stack_va).contains(&va);
        writable_tables += u32::from(is_table && entry & RW != 0);
        read_only_others += u32::from(!is_table && entry & RW == 0);
        va += PAGE;
    }
    expect!("layout.linear", linear, true);
    expect!("layout.writable_tables", writable_tables, 0);
    expect!("layout.read_only_others", read_only_others, 0);
}

fn tables() {
    let code = VIRT_BASE + 0x10_0000;
    value!("entry.l1_code", format_args!("{:#x}", flags(mem::entry(code, 1))));
    value!("entry.l1_table", format_args!("{:#x}", flags(mem::entry(start_info().pt_base, 1)) & !mem::D));
    value!("entry.l2", format_args!("{:#x}", flags(mem::entry(code, 2))));
    value!("entry.l3", format_args!("{:#x}", flags(mem::entry(code, 3))));
    value!("entry.l4", format_args!("{:#x}", flags(mem::entry(code, 4))));
    // Nothing else in the L4 outside the hypervisor's slots.
    let others = (0..256).chain(272..511).filter(|slot| mem::read_entry(start_info().pt_base, *slot) != 0).count();
    expect!("tables.other_l4_entries", others, 0);
    expect_text!("tables.write_l4", Probe::kernel(&[0x48, 0x89, 0x00]).with(|f| f.rax = start_info().pt_base).run(), "#PF(0x3)+0");
}

fn machine_to_phys() {
    let info = start_info();
    let mut round_trips = 0_u64;
    for pfn in 0..info.nr_pages {
        round_trips += u64::from(mem::m2p(mem::p2m(pfn)) == pfn);
    }
    expect!("m2p.round_trips", round_trips, info.nr_pages);
    let address = mem::m2p_address(mem::p2m(1));
    expect_text!("m2p.write", Probe::kernel(&[0x48, 0x89, 0x00]).with(|f| f.rax = address).run(), "#PF(0x3)+0");
    // An address inside the table's range, far beyond the memory of any machine, and the part behind it.
    let load = |address| Probe::kernel(&[0x48, 0x8b, 0x00]).with(|f| f.rax = address).run();
    expect_text!("m2p.read_beyond_memory", load(0xffff_807f_ffff_f000), "#PF(0x0)+0");
    for (name, address) in [("hole.read", 0xffff_8200_0000_0000), ("direct_map.read", 0xffff_8300_0000_0000)] {
        let trap = load(address);
        // Whether the hypervisor maps something there is its own business; it is a page fault either way.
        check!(name, trap.is(14) && trap.cr2 == address);
    }
}

fn shared_info() {
    let info = vcpu_info(0);
    expect!("shared.upcall_mask", info.upcall_mask(), true);
    expect!("shared.upcall_pending", info.upcall_pending(), false);
    let masked = (0..32).filter(|vcpu| vcpu_info(*vcpu).upcall_mask()).count();
    expect!("shared.masked_vcpus", masked, 32);
    let pending = (0..64).filter(|w| shared_word(offsets::EVTCHN_PENDING + w * 8).load(core::sync::atomic::Ordering::Relaxed) != 0).count();
    expect!("shared.pending_words", pending, 0);
    let masks = (0..64).filter(|w| shared_word(offsets::EVTCHN_MASK + w * 8).load(core::sync::atomic::Ordering::Relaxed) != 0).count();
    expect!("shared.mask_words", masks, 0);
    let wall = shared_word(offsets::WALL_CLOCK).load(core::sync::atomic::Ordering::Relaxed);
    expect!("shared.wall_clock_set", wall >> 32 > 1_000_000_000, true);
    expect!("shared.wall_clock_version_even", wall & 1, 0);
    for (name, index) in [("max_pfn", 0), ("frame_list_list", 1), ("nmi_reason", 2), ("p2m_cr3", 3), ("p2m_vaddr", 4)] {
        value!(name, shared_word(offsets::ARCH + index * 8).load(core::sync::atomic::Ordering::Relaxed));
    }
    // A read of an unmapped page through ordinary Rust code is caught like any other.
    expect!("catch", catch(|| { hypercall::raw(sys::nr::XEN_VERSION, [0; 5]); }).is_none(), true);
}
