//! multicall: batches, their results, their limits.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, handle};
use oxen_guests::mem::alloc_page;
use oxen_guests::sys::{self, nr};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("multicall", run);

/// multicall_entry.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    op: u64,
    result: i64,
    args: [u64; 6],
}

fn entry(op: u64, args: [u64; 6]) -> Entry {
    Entry { op, result: 77, args }
}

fn multicall(list: &mut [Entry]) -> Rc {
    Rc(hypercall::raw(nr::MULTICALL, [handle(list), list.len() as u64, 0, 0, 0]))
}

fn run() {
    hypercall::vcpu_op_null(7, 0);
    batches();
}

fn batches() {
    expect_text!("multicall.none", multicall(&mut []), "0");
    let version = entry(nr::XEN_VERSION, [0; 6]);
    let mut list = [version; 3];
    expect_text!("multicall.three", multicall(&mut list), "0");
    expect!("multicall.results", list.iter().filter(|e| e.result == 0x4_0011).count(), 3);
    // A failing call does not stop the others; an unknown one is -ENOSYS.
    let mut list = [version, entry(nr::XEN_VERSION, [99, 0, 0, 0, 0, 0]), entry(99, [0; 6]), entry(u64::MAX, [0; 6]), version];
    expect_text!("multicall.mixed", multicall(&mut list), "0");
    for e in &list {
        value!("multicall.mixed_result", Rc(e.result));
    }
    // A large batch is done in steps, each call once.
    let page = alloc_page();
    let mut list = [version; 512];
    for (index, e) in list.iter_mut().enumerate() {
        // update_va_mapping alternates the mapping of one page.
        let flags = if index % 2 == 0 { oxen_guests::mem::RO_PAGE } else { oxen_guests::mem::RW_PAGE };
        *e = entry(nr::UPDATE_VA_MAPPING, [page.va(), page.pte(flags), sys::UVMF_INVLPG, 0, 0, 0]);
    }
    expect_text!("multicall.large", multicall(&mut list), "0");
    expect!("multicall.large_results", list.iter().filter(|e| e.result == 0).count(), 512);
    page.write(0, 1);
    // Five arguments arrive.
    let mut done = 0_u32;
    let mut request = sys::MmuUpdate { ptr: page.maddr(), val: 0x99 };
    let mut list = [entry(nr::MMU_UPDATE, [handle(&mut request), 1, handle(&mut done), sys::DOMID_SELF.into(), 0, 0])];
    expect_text!("multicall.arguments", multicall(&mut list), "0");
    expect!("multicall.arguments_result", list[0].result, 0);
    expect!("multicall.arguments_done", done, 1);
    expect!("multicall.arguments_effect", page.read(0), 0x99);
    // Nested.
    let mut inner = [version];
    let mut list = [entry(nr::MULTICALL, [handle(&mut inner), 1, 0, 0, 0, 0]), version];
    let rc = multicall(&mut list);
    value!("multicall.nested", format_args!("{rc} {} {} {}", Rc(list[0].result), list[1].result, inner[0].result));
    let raw = |list, count| Rc(hypercall::raw(nr::MULTICALL, [list, count, 0, 0, 0]));
    expect_text!("multicall.bad_pointer", raw(0x1000, 1), "-EFAULT");
    expect_text!("multicall.hole", raw(sys::HOLE_START, 1), "-EFAULT");
    expect_text!("multicall.bad_pointer_none", raw(0x1000, 0), "0");
    value!("multicall.huge_count", raw(0x1000, 0xffff_ffff));
    // A list that runs off its page: the first call happens.
    let pages = [alloc_page(), alloc_page()];
    check!("multicall.unmap", pages[1].va() == pages[0].va() + 4096 && pages[1].unmap().is_ok());
    pages[0].write(504, nr::XEN_VERSION);
    let rc = raw(pages[0].va() + 4096 - 64, 2);
    value!("multicall.crossing", format_args!("{rc} {:#x}", pages[0].read(505)));
    check!("multicall.restore", pages[1].make_writable().is_ok());
    // A read-only list cannot take its results.
    pages[0].write(505, 0);
    check!("multicall.read_only", pages[0].make_read_only().is_ok());
    value!("multicall.read_only_list", raw(pages[0].va() + 4096 - 64, 1));
    // iret and block have no place in a batch, but must do no harm.
    let mut nothing = 0_u32;
    let mut list = [entry(nr::SCHED_OP, [0, handle(&mut nothing), 0, 0, 0, 0]), version];
    expect_text!("multicall.yield", multicall(&mut list), "0");
    expect!("multicall.after_yield", list[1].result, 0x4_0011);
}

