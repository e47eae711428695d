//! Stores into live page tables by instructions that compilers do not choose for it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::write_pte;
use oxen_guests::mem::{self, Page, RW_PAGE, alloc_page};
use oxen_guests::probe::{Probe, Trap};
use oxen_guests::{check, expect, expect_text};

oxen_guests::test_kernel!("writable-tables-rare", run);

const REGION_SLOT: u64 = 33;

struct Tables {
    l1: Page,
    data: Page,
}

fn run() {
    let data = alloc_page();
    let l1 = mem::make_table(&[(0, data.pte(RW_PAGE))]);
    let l2 = mem::make_table(&[(0, l1.pte(0x67))]);
    let l3 = mem::make_table(&[(0, l2.pte(0x67))]);
    expect_text!("link", write_pte(mem::l4_maddr() + REGION_SLOT * 8, l3.pte(0x67)), "0");
    check!("assist", oxen_guests::hypercall::vm_assist(0, 2).is_ok());
    let tables = Tables { l1, data };
    strings(&tables);
    arithmetic(&tables);
}

fn strings(t: &Tables) {
    let trap = Probe::kernel(&[0x48, 0xab]).with(|f| f.rdi = t.l1.va() + 8).run();
    expect_text!("width.stosq", trap, "done");
    expect!("width.stosq_rdi", trap.frame.rdi == t.l1.va() + 16, true);
    let trap = Probe::kernel(&[0xf3, 0x48, 0xab]).with(|f| { f.rdi = t.l1.va() + 8; f.rcx = 3; }).run();
    expect_text!("width.rep_stosq", trap, "done");
    expect!("width.rep_stosq_rcx", trap.frame.rcx, 0);
    let trap = Probe::kernel(&[0x48, 0xa5]).with(|f| { f.rsi = t.data.va(); f.rdi = t.l1.va() + 8; }).run();
    expect_text!("width.movsq", trap, "done");
}

fn at(code: &[u8], table: Page, index: u64, value: u64) -> Trap {
    Probe::kernel(code).with(|f| { f.rax = table.va() + index * 8; f.rbx = value; }).run()
}

fn arithmetic(t: &Tables) {
    check!("clear", write_pte(t.l1.maddr() + 24, 0).is_ok());
    expect_text!("inc", at(&[0x48, 0xff, 0x00], t.l1, 3, 0), "done");
    check!("clear", write_pte(t.l1.maddr() + 24, 0).is_ok());
    expect_text!("xadd", at(&[0xf0, 0x48, 0x0f, 0xc1, 0x18], t.l1, 3, 0x4000), "done");
    expect!("xadd.read", t.l1.read(3), 0x4000);
}
