//! Optional ELF notes: the hypercall page, a p2m mapped apart from the kernel, a module given by frame number.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::arch::{asm, global_asm};
use oxen_guests::hypercall;
use oxen_guests::mem::{self, P, PAGE};
use oxen_guests::probe::Probe;
use oxen_guests::start::start_info;
use oxen_guests::sys::{VIRT_BASE, nr};
use oxen_guests::{check, entry, expect, expect_text, value};

oxen_guests::test_kernel!("notes", run, notes: "
XEN_NOTE 2, quad, guest_hypercall_page  // HYPERCALL_PAGE
XEN_NOTE 15, quad, 0x8000000000         // INIT_P2M
XEN_NOTE 16, quad, 1                    // MOD_START_PFN
");

global_asm!(
    ".pushsection .text, \"ax\", @progbits",
    ".balign 4096",
    ".globl guest_hypercall_page",
    "guest_hypercall_page:",
    ".fill 4096, 1, 0x90",
    ".popsection",
);

// SAFETY: the assembly above defines the symbol with this size.
unsafe extern "C" {
    static guest_hypercall_page: [[u8; 32]; 128];
}

/// Where the INIT_P2M note wants the list.
const INIT_P2M: u64 = 0x80_0000_0000;

fn run() {
    hypercall_page();
    list();
    module();
}

fn hypercall_page() {
    // SAFETY: the page is in the image; the hypervisor filled it before the kernel started, and nothing writes it since.
    let page = unsafe { &guest_hypercall_page };
    let show = |name: &str, number: usize| {
        let hex = page[number].iter().rev().fold((0_u128, 0_u128), |(high, low), byte| (high << 8 | low >> 120, low << 8 | u128::from(*byte)));
        value!(name, format_args!("{:032x}{:032x}", hex.0, hex.1));
    };
    show("page.entry_0", 0);
    show("page.entry_17", 17);
    show("page.entry_iret", 23);
    show("page.entry_63", 63);
    let result: i64;
    // SAFETY: the entry is a function that makes hypercall 17 with these arguments.
    unsafe {
        asm!(
            "call {}",
            in(reg) &raw const page[nr::XEN_VERSION as usize],
            in("rdi") 0_u64,
            in("rsi") 0_u64,
            lateout("rax") result,
            clobber_abi("C"),
        );
    }
    expect!("page.call", result, 0x4_0011);
    // It is an ordinary page of the image otherwise.
    let address = page.as_ptr() as u64;
    expect_text!("page.writable", Probe::kernel(&[0x88, 0x00]).with(|f| f.rax = address + 4000).run(), "done");
}

fn list() {
    let info = start_info();
    expect!("p2m.address", info.mfn_list == INIT_P2M, true);
    expect!("p2m.frames", info.nr_p2m_frames, info.nr_pages * 8 / PAGE + 3);
    // The list's frames lie outside what is mapped at the kernel.
    let stack_va = entry::initial_registers().gpr[7] - PAGE;
    let info_va = core::ptr::from_ref(info) as u64;
    expect!("p2m.start_info_page_offset", info_va % PAGE, 0);
    expect!("p2m.tables_after_start_info", info.pt_base - info_va, PAGE);
    expect!("p2m.stack_after_tables", stack_va - info.pt_base, info.nr_pt_frames * PAGE);
    expect!("p2m.beyond_mapped", info.first_p2m_pfn * PAGE >= stack_va - VIRT_BASE, true);
    let mut round_trips = 0_u64;
    for pfn in 0..info.nr_pages {
        round_trips += u64::from(mem::m2p(mem::p2m(pfn)) == pfn);
    }
    expect!("p2m.round_trips", round_trips, info.nr_pages);
    expect!("p2m.l4_entry", mem::read_entry(info.pt_base, 1) & P, P);
    // The list may be written, as Linux does when it changes frames.
    expect_text!("p2m.writable", Probe::kernel(&[0x48, 0x8b, 0x18, 0x48, 0x89, 0x18]).with(|f| f.rax = info.mfn_list).run(), "done");
    let after = INIT_P2M + info.nr_pages * 8;
    value!("p2m.end", Probe::kernel(&[0x48, 0x8b, 0x18]).with(|f| f.rax = after).run());
}

fn module() {
    let info = start_info();
    // Without a second module there is nothing to place, and the flag stays away.
    value!("module.flags", info.flags & 0xff);
    expect!("module.len", info.mod_len, 0);
    check!("module.still_works", hypercall::raw(nr::XEN_VERSION, [0; 5]) == 0x4_0011);
}
