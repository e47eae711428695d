//! Wrong arguments to every hypercall: whatever comes back, the machine must survive and the kernel go on.
//!
//! Results are not compared here, except where another kernel does not look.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc};
use oxen_guests::mem::{self, PAGE, alloc_page, alloc_pages};
use oxen_guests::probe::Probe;
use oxen_guests::start::start_info;
use oxen_guests::sys::{self, DOMID_IO, DOMID_SELF, DOMID_XEN, MmuUpdate, nr};
use oxen_guests::{check, expect, expect_text, say, value};

oxen_guests::test_kernel!("hostile", run);

/// Numbers that a careless decoder mishandles.
const NUMBERS: &[u64] = &[
    0,
    1,
    0x7f,
    0xfff,
    0x1000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x0000_7fff_ffff_fff8,
    0x0000_8000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0xffff_82d0_4020_0000,
    0xffff_8300_0000_0000,
    0xffff_87ff_ffff_fff9,
    0xffff_8800_0000_0000,
    0xffff_ffff_ffff_f001,
    0xffff_ffff_ffff_ffff,
];

fn run() {
    say!("NOTE pointers");
    pointers();
    say!("NOTE counts");
    counts();
    say!("NOTE domains");
    domains();
    say!("NOTE page tables");
    page_tables();
    say!("NOTE random");
    random();
    still_alive();
}

/// Calls whose success would end the kernel, or take its console, by number and first argument.
fn is_fatal(number: u64, command: u64) -> bool {
    match number {
        // iret leaves the kernel; set_trap_table, set_callbacks, stack_switch and set_segment_base change what catches errors.
        nr::IRET | nr::SET_TRAP_TABLE | nr::SET_CALLBACKS | nr::STACK_SWITCH | nr::CALLBACK_OP | nr::NMI_OP | nr::SET_SEGMENT_BASE => true,
        // block may never return, shutdown does not; a watchdog without timeout shuts down too.
        nr::SCHED_OP => matches!(command as u32, 1..=6),
        nr::SCHED_OP_COMPAT => true,
        // Going down, moving vcpu_info, and an NMI to oneself.
        nr::VCPU_OP => matches!(command as u32, 2 | 10 | 11),
        // The crash kernel's own calls, and the control interface: what they do needs a right version first.
        37 => true,
        _ => false,
    }
}

/// Every call and command with each strange number as every argument.
fn pointers() {
    let mut calls = 0_u64;
    // xenoprof (31) only fills the console.
    for number in (0..64).filter(|n| *n != 31) {
        for command in 0..34 {
            if is_fatal(number, command) {
                continue;
            }
            for value in NUMBERS {
                let arguments = match number {
                    // Lists: pointer and count.
                    nr::MMU_UPDATE | nr::MMUEXT_OP => [*value, command, 0, DOMID_SELF.into(), 0],
                    nr::MULTICALL | nr::SET_GDT => [*value, command, 0, 0, 0],
                    nr::UPDATE_VA_MAPPING | nr::UPDATE_VA_MAPPING_OTHERDOMAIN => [*value, *value, command, DOMID_SELF.into(), 0],
                    // Writing memory of the kernel's own image through a plain store would be its own fault: never a valid address.
                    nr::UPDATE_DESCRIPTOR => [*value | 1 << 51, *value, 0, 0, 0],
                    nr::VCPU_OP => [command, 0, *value, 0, 0],
                    nr::GRANT_TABLE_OP => [command, *value, 1, 0, 0],
                    nr::CONSOLE_IO => [command, 64, *value, 0, 0],
                    nr::SET_TIMER_OP => [0; 5],
                    nr::SET_DEBUGREG => [command, if command == 7 { 0x400 } else { *value }, 0, 0, 0],
                    _ => [command, *value, *value, *value, *value],
                };
                if touches_own_memory(&arguments) {
                    continue;
                }
                hypercall::raw(number, arguments);
                calls += 1;
            }
        }
    }
    check!("pointers.calls", calls > 10_000);
    hypercall::set_timer_op(0);
    hypercall::vcpu_op_null(7, 0);
}

/// Whether an argument could be a valid address of this kernel, which the call would then change.
fn touches_own_memory(arguments: &[u64; 5]) -> bool {
    arguments.iter().any(|a| (sys::VIRT_BASE..sys::VIRT_BASE + (4 << 20)).contains(a))
}

/// Valid pointers with absurd counts.
fn counts() {
    let page = alloc_page();
    let last = alloc_page();
    check!("counts.hole_after", last.unmap().is_ok());
    for count in [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
        for number in [nr::MMU_UPDATE, nr::MMUEXT_OP] {
            page.clear();
            // Requests that fail, or do nothing: an unknown type at once.
            page.write(0, 0xff);
            hypercall::raw(number, [page.va(), count, 0, DOMID_SELF.into(), 0]);
            // The same with a pointer whose list runs into unmapped memory.
            hypercall::raw(number, [page.va() + PAGE - 8, count, 0, DOMID_SELF.into(), 0]);
        }
        page.clear();
        // One entry, with a number that does not exist, and then unmapped memory.
        page.write(504, 99);
        hypercall::raw(nr::MULTICALL, [page.va() + PAGE - 64, count, 0, 0, 0]);
        hypercall::raw(nr::SET_GDT, [page.va(), count | 0x2000, 0, 0, 0]);
        for command in 0..14 {
            // Grant operations with their list at the page's end.
            hypercall::raw(nr::GRANT_TABLE_OP, [command, page.va() + PAGE - 40, count, 0, 0]);
        }
        hypercall::raw(nr::CONSOLE_IO, [1, count, page.va(), 0, 0]);
        let mut poll = [page.va(), count & 0xffff_ffff, 1];
        hypercall::sched_op(3, &mut poll);
    }
    check!("counts.restore", last.make_writable().is_ok());
}

/// Real requests, in the name of the wrong domain.
fn domains() {
    let page = alloc_page();
    let slot = mem::entry_maddr(page.va(), 1);
    for domid in [1, 5, 0x7fef, DOMID_IO, DOMID_XEN, 0x7ff3, 0x7ff4, 0x7fff, 0x8000, 0xffff] {
        for high in [0, 1, 2, 0x7ff1, 0x7ff2, 0x8000, 0xffff] {
            let foreign = u64::from(domid) | high << 16;
            // A table entry, a machine-to-phys entry, and a frame that is nobody's.
            for request in [
                MmuUpdate { ptr: slot, val: mem::l4_maddr() | mem::RW_PAGE },
                MmuUpdate { ptr: mem::l4_maddr() + 256 * 8, val: page.pte(mem::RW_PAGE) },
                MmuUpdate { ptr: 0xff_ffff_f001, val: 5 },
            ] {
                let (rc, done) = hypercall::mmu_update_foreign(&mut [request], foreign);
                check!("domains.refused", rc.0 < 0 && done == 0);
            }
        }
        for command in 0..21 {
            if command == 5 || command == 13 || command == 15 {
                continue;
            }
            hypercall::mmuext_foreign(command, 0xff_ffff_ffff, u64::MAX, domid.into());
        }
    }
    check!("domains.page_kept", page.make_writable().is_ok());
}

/// Entries of every shape into tables of every level, at every kind of place.
fn page_tables() {
    let l1 = mem::make_table(&[]);
    let l2 = mem::make_table(&[(0, l1.pte(0x67))]);
    let l3 = mem::make_table(&[(0, l2.pte(0x67))]);
    let slot = mem::l4_maddr() + 40 * 8;
    expect_text!("tables.link", hypercall::write_pte(slot, l3.pte(0x67)), "0");
    let tables = [l1, l2, l3];
    let mut accepted = [0_u32; 3];
    let frames = [
        0,
        l1.maddr(),
        l2.maddr(),
        l3.maddr(),
        mem::l4_maddr(),
        start_info().shared_info,
        0xfee0_0000,
        0xfec0_0000,
        0x000f_ffff_ffff_f000,
        0x0000_00ff_ffff_f000,
        0x0010_0000,
    ];
    for (index, table) in tables.iter().enumerate() {
        for frame in frames {
            for flags in [1, 3, 7, 0x67, 0xe7, 0x1e7, 0xfff, 0x8000_0000_0000_0067, 0xfff0_0000_0000_0067] {
                let rc = hypercall::write_pte(table.maddr() + 511 * 8, frame | flags);
                accepted[index] += u32::from(rc.is_ok());
                check!("tables.clear", hypercall::write_pte(table.maddr() + 511 * 8, 0).is_ok());
            }
        }
    }
    // None of these is a table of the right level, save that a lower one of one's own may appear twice.
    check!("tables.accepted", accepted[1] <= 9 && accepted[2] <= 9);
    // A table never becomes writable through any of them.
    for table in tables {
        let trap = Probe::kernel(&[0x48, 0x89, 0x18]).with(|f| { f.rax = table.va() + 8; f.rbx = u64::MAX; }).run();
        check!("tables.read_only", trap.is(14));
    }
    expect_text!("tables.unlink", hypercall::write_pte(slot, 0), "0");
    for table in tables {
        expect_text!("tables.release", table.make_writable(), "0");
    }
}

/// xorshift64*: the same sequence on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[(self.next() % list.len() as u64) as usize]
    }
}

/// Random page-table work on a few frames, then everything taken apart again: the counts must come out even.
fn random() {
    let pages = alloc_pages(8);
    let page = |index: u64| pages.nth((index % 8) as usize);
    let mut rng = Random(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0_u32;
    let mut taken = 0_u32;
    for _ in 0..4000 {
        let (a, b) = (page(rng.next()), page(rng.next()));
        let index = rng.next() % 4;
        let flags = rng.of(&[0, 1, 5, 7, 0x65, 0x67]);
        let rc = match rng.next() % 8 {
            0 => hypercall::update_va_mapping(a.va(), a.pte(flags), sys::UVMF_INVLPG),
            1 => hypercall::update_va_mapping(a.va(), b.pte(flags), sys::UVMF_INVLPG),
            2 => hypercall::mmuext(rng.of(&[0, 1, 2, 3]), a.mfn(), 0),
            3 => hypercall::mmuext(4, a.mfn(), 0),
            4..=6 => hypercall::write_pte(a.maddr() + index * 8, if flags == 0 { 0 } else { b.pte(flags) }),
            _ => hypercall::mmuext(15, if flags & 2 == 0 { 0 } else { a.mfn() }, 0),
        };
        if rc.is_ok() { taken += 1 } else { refused += 1 }
    }
    value!("random.taken", taken > 100);
    value!("random.refused", refused > 100);
    hypercall::mmuext(15, 0, 0);
    // Take it apart. An entry can only be cleared while its page is a table or plain memory, and pins come off first.
    for round in 0..4 {
        for index in 0..8 {
            hypercall::mmuext(4, page(index).mfn(), 0);
            check!("random.unmap", page(index).unmap().is_ok());
        }
        for index in 0..8 {
            for slot in 0..4 {
                check!("random.clear", hypercall::write_pte(page(index).maddr() + slot * 8, 0).is_ok() || round < 3);
            }
        }
    }
    for index in 0..8 {
        expect_text!("random.writable_again", page(index).make_writable(), "0");
    }
}

fn still_alive() {
    expect!("alive.version", hypercall::raw(nr::XEN_VERSION, [0; 5]), 0x4_0011);
    expect_text!("alive.trap", Probe::kernel(&[0x0f, 0x0b]).run(), "#UD+0");
    let page = alloc_page();
    expect_text!("alive.remap", page.make_read_only(), "0");
    expect_text!("alive.remap_back", page.make_writable(), "0");
    expect_text!("alive.unknown", Rc(hypercall::raw(1000, [0; 5])), "-ENOSYS");
}
