//! Ordinary stores into live page tables, which the hypervisor emulates.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{vm_assist, write_pte};
use oxen_guests::mem::{self, FRAME_MASK, P, PAGE, Page, RO_PAGE, RW, RW_PAGE, alloc_page};
use oxen_guests::probe::{Probe, Trap};
use oxen_guests::sys::{MMUEXT_TLB_FLUSH_LOCAL};
use oxen_guests::{check, expect, expect_text, hypercall, value};

oxen_guests::test_kernel!("writable-tables", run);

const STORE: &[u8] = &[0x48, 0x89, 0x18];
const REGION_SLOT: u64 = 33;
const REGION: u64 = REGION_SLOT << 39;
/// Assist number of writable page tables.
const WRITABLE: u64 = 2;

struct Tables {
    l1: Page,
    l2: Page,
    l3: Page,
    data: Page,
}

fn run() {
    let data = alloc_page();
    let l1 = mem::make_table(&[(0, data.pte(RW_PAGE))]);
    let l2 = mem::make_table(&[(0, l1.pte(0x67))]);
    let l3 = mem::make_table(&[(0, l2.pte(0x67))]);
    let tables = Tables { l1, l2, l3, data };
    expect_text!("link", write_pte(mem::l4_maddr() + REGION_SLOT * 8, l3.pte(0x67)), "0");
    without_assist(&tables);
    expect_text!("enable", vm_assist(0, WRITABLE), "0");
    plain_stores(&tables);
    widths(&tables);
    read_modify_write(&tables);
    refused(&tables);
    other_levels(&tables);
    expect_text!("disable", vm_assist(1, WRITABLE), "0");
    without_assist(&tables);
    expect_text!("unknown_assist", vm_assist(0, 63), "-EINVAL");
    expect_text!("unknown_command", vm_assist(2, WRITABLE), "-ENOSYS");
}

/// Runs `code` with the address of entry `index` of the table in rax and `value` in rbx.
fn at(code: &[u8], table: Page, index: u64, value: u64) -> Trap {
    Probe::kernel(code).with(|f| { f.rax = table.va() + index * 8; f.rbx = value; }).run()
}

fn flags_of(entry: u64) -> u64 {
    entry & !(FRAME_MASK | mem::G | 0x07f0_0000_0000_0000)
}

/// The assist is accepted and remembered; a 64-bit guest's stores are emulated whether it is on or off.
fn without_assist(t: &Tables) {
    expect_text!("off.store", at(STORE, t.l1, 1, 0), "done");
    expect_text!("off.store_l2", at(STORE, t.l2, 1, 0), "#PF(0x3)+0");
}

fn plain_stores(t: &Tables) {
    let other = alloc_page();
    other.write(0, 0xabcd);
    expect_text!("store.zero", at(STORE, t.l1, 1, 0), "done");
    expect_text!("store.page", at(STORE, t.l1, 1, other.pte(RW_PAGE)), "done");
    expect!("store.page_frame", t.l1.read(1) & FRAME_MASK == other.maddr(), true);
    value!("store.page_flags", format_args!("{:#x}", flags_of(t.l1.read(1))));
    let address = (REGION + PAGE) as *const u64;
    // SAFETY: the entry just written maps the page.
    expect!("store.mapped", unsafe { address.read_volatile() }, 0xabcd);
    expect_text!("store.read_only", at(STORE, t.l1, 1, other.pte(RO_PAGE)), "done");
    hypercall::mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
    expect_text!("store.now_read_only", Probe::kernel(STORE).with(|f| f.rax = REGION + PAGE).run(), "#PF(0x3)+0");
    expect_text!("store.supervisor", at(STORE, t.l1, 1, other.pte(P | RW)), "done");
    value!("store.supervisor_flags", format_args!("{:#x}", flags_of(t.l1.read(1))));
    expect_text!("store.not_present", at(STORE, t.l1, 1, 0x1234_5678_0000), "done");
    expect!("store.not_present_read", t.l1.read(1), 0x1234_5678_0000);
    // mov qword [rax], imm32
    expect_text!("store.immediate", at(&[0x48, 0xc7, 0x00, 0, 0, 0, 0], t.l1, 1, 0), "done");
    expect!("store.immediate_read", t.l1.read(1), 0);
    // Registers and flags survive, rip advances: xor ecx, ecx; stc; mov [rax], rbx; adc ecx, 0.
    let trap = at(&[0x31, 0xc9, 0xf9, 0x48, 0x89, 0x18, 0x83, 0xd1, 0x00], t.l1, 1, 0);
    expect_text!("store.flags", trap, "done");
    expect!("store.flags_kept", trap.frame.rcx, 1);
    expect!("store.target_untouched", t.data.read(0), 0);
}

/// Stores of less than an entry, and ones that are not aligned.
fn widths(t: &Tables) {
    check!("width.reset", write_pte(t.l1.maddr() + 8, 0x1111_2222_3333_4440).is_ok());
    expect_text!("width.1", at(&[0x88, 0x18], t.l1, 1, 0x50), "done");
    value!("width.1_read", format_args!("{:#x}", t.l1.read(1)));
    expect_text!("width.2", at(&[0x66, 0x89, 0x18], t.l1, 1, 0x7770), "done");
    value!("width.2_read", format_args!("{:#x}", t.l1.read(1)));
    expect_text!("width.4", at(&[0x89, 0x18], t.l1, 1, 0x9999_aaa0), "done");
    value!("width.4_read", format_args!("{:#x}", t.l1.read(1)));
    expect_text!("width.4_high", at(&[0x89, 0x58, 0x04], t.l1, 1, 0x5555_6666), "done");
    value!("width.4_high_read", format_args!("{:#x}", t.l1.read(1)));
    // Unaligned: mov [rax+3], ebx crosses nothing but is not aligned; mov [rax+4], rbx spans two entries.
    value!("width.unaligned", at(&[0x89, 0x58, 0x03], t.l1, 1, 0));
    value!("width.spanning", at(&[0x48, 0x89, 0x58, 0x04], t.l1, 1, 0));
    check!("width.clear", write_pte(t.l1.maddr() + 8, 0).is_ok());
}

/// Locked and unlocked instructions that read what they write.
fn read_modify_write(t: &Tables) {
    let entry = t.data.pte(RW_PAGE);
    let set = |value| check!("rmw.set", write_pte(t.l1.maddr() + 16, value).is_ok());
    set(entry);
    let entry = t.l1.read(2);
    let trap = at(&[0x48, 0x87, 0x18], t.l1, 2, 0);
    expect_text!("rmw.xchg", trap, "done");
    expect!("rmw.xchg_old", trap.frame.rbx & FRAME_MASK == t.data.maddr(), true);
    expect!("rmw.xchg_new", t.l1.read(2), 0);
    // cmpxchg [rdi], rbx with the right and with a wrong old value in rax.
    let cmpxchg = |old: u64, new: u64| {
        Probe::kernel(&[0xf0, 0x48, 0x0f, 0xb1, 0x1f]).with(|f| { f.rax = old; f.rbx = new; f.rdi = t.l1.va() + 16; }).run()
    };
    let trap = cmpxchg(0, entry);
    expect_text!("rmw.cmpxchg", trap, "done");
    expect!("rmw.cmpxchg_zf", trap.frame.rflags & 0x40, 0x40);
    expect!("rmw.cmpxchg_new", t.l1.read(2) & FRAME_MASK == t.data.maddr(), true);
    let trap = cmpxchg(0x123, 0);
    expect_text!("rmw.cmpxchg_other", trap, "done");
    expect!("rmw.cmpxchg_other_zf", trap.frame.rflags & 0x40, 0);
    expect!("rmw.cmpxchg_other_rax", trap.frame.rax & FRAME_MASK == t.data.maddr(), true);
    expect!("rmw.cmpxchg_other_kept", t.l1.read(2) & P, P);
    // and qword [rax], ~RW; lock or; lock btr; lock bts.
    expect_text!("rmw.and", at(&[0x48, 0x83, 0x20, 0xfd], t.l1, 2, 0), "done");
    value!("rmw.and_read", format_args!("{:#x}", flags_of(t.l1.read(2))));
    expect_text!("rmw.lock_or", at(&[0xf0, 0x48, 0x83, 0x08, 0x02], t.l1, 2, 0), "done");
    value!("rmw.lock_or_read", format_args!("{:#x}", flags_of(t.l1.read(2))));
    expect_text!("rmw.lock_btr", at(&[0xf0, 0x48, 0x0f, 0xba, 0x30, 0x01], t.l1, 2, 0), "done");
    value!("rmw.lock_btr_read", format_args!("{:#x}", flags_of(t.l1.read(2))));
    expect_text!("rmw.bts", at(&[0x48, 0x0f, 0xba, 0x28, 0x09], t.l1, 2, 0), "done");
    value!("rmw.bts_read", format_args!("{:#x}", flags_of(t.l1.read(2))));
    check!("rmw.clear", write_pte(t.l1.maddr() + 16, 0).is_ok());
}

/// Entries that mmu_update would refuse.
fn refused(t: &Tables) {
    expect_text!("refused.table_writable", at(STORE, t.l1, 4, mem::l4_maddr() | RW_PAGE), "#PF(0x3)+0");
    expect_text!("refused.beyond_memory", at(STORE, t.l1, 4, 0xf_ffff_ffff_f000 | RW_PAGE), "#PF(0x3)+0");
    expect!("refused.unchanged", t.l1.read(4), 0);
    expect_text!("refused.table_read_only", at(STORE, t.l1, 4, mem::l4_maddr() | RO_PAGE), "done");
    expect_text!("refused.cleared", at(STORE, t.l1, 4, 0), "done");
    // The page table in user memory, by a user access, is out of reach; a fetch is a plain fault.
    expect_text!("refused.non_entry_instruction", at(&[0x0f, 0x11, 0x00], t.l1, 4, 0), "#PF(0x3)+0");
}

/// Only L1 tables are writable in this way.
fn other_levels(t: &Tables) {
    expect_text!("level.l2", at(STORE, t.l2, 1, 0), "#PF(0x3)+0");
    expect_text!("level.l3", at(STORE, t.l3, 1, 0), "#PF(0x3)+0");
    let data = alloc_page();
    check!("level.read_only", data.make_read_only().is_ok());
    expect_text!("level.data", at(STORE, data, 1, 0), "#PF(0x3)+0");
    check!("level.restore", data.make_writable().is_ok());
}
