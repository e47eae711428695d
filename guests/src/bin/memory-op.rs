//! memory_op: reservations, exchange, maps, limits, and their errors.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, handle, memory_op};
use oxen_guests::mem::{self, PAGE, RW_PAGE, alloc_page, alloc_pages};
use oxen_abi::GuestHandle;
use oxen_abi::memory::MemoryReservation;
use oxen_guests::start::{ABSENT_DOMAIN, start_info};
use oxen_guests::sys::{self, DOMID_SELF, nr};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("memory-op", run);

const INCREASE: u64 = 0;
const DECREASE: u64 = 1;
const POPULATE: u64 = 6;
/// A pseudo-physical frame that the initial tables do not map, nor the ones after it.
const UNMAPPED: u64 = 2048;

fn run() {
    numbers();
    decrease_and_populate();
    increase();
    mapped_page();
    exchange();
    maps();
    errors();
}

fn reservation(cmd: u64, list: &mut [u64], order: u32, domid: u16) -> Rc {
    memory_op(cmd, &mut mem::reservation(list, order, domid))
}

fn numbers() {
    let by_domain = |cmd: u64, domid: u16| {
        let mut arg = domid;
        memory_op(cmd, &mut arg)
    };
    expect!("current_reservation", by_domain(3, DOMID_SELF).0, start_info().nr_pages as i64);
    expect!("current_reservation.zero", by_domain(3, 0).0, start_info().nr_pages as i64);
    check!("maximum_reservation", by_domain(4, DOMID_SELF).0 >= start_info().nr_pages as i64);
    expect_text!("current_reservation.absent", by_domain(3, ABSENT_DOMAIN), "-ESRCH");
    expect_text!("maximum_reservation.absent", by_domain(4, ABSENT_DOMAIN), "-ESRCH");
    check!("maximum_ram_page", Rc(hypercall::raw(nr::MEMORY_OP, [2, 0, 0, 0, 0])).0 > start_info().nr_pages as i64);
    let mut mapping = [0_u64; 3];
    expect_text!("machphys_mapping", memory_op(12, &mut mapping), "0");
    expect!("machphys_mapping.start", mapping[0] == sys::HOLE_START, true);
    value!("machphys_mapping.end", format_args!("{:#x}", mapping[1]));
    check!("machphys_mapping.max_mfn", mapping[2] >= mem::p2m(0));
    let mut extents = [0_u64; 8];
    let mut list = [8_u64, handle(&mut extents), 0];
    expect_text!("machphys_mfn_list", memory_op(5, &mut list), "0");
    check!("machphys_mfn_list.some", list[2] as u32 >= 1 && extents[0] != 0);
    let mut list = [0_u64, handle(&mut extents), 0xffff_ffff];
    expect_text!("machphys_mfn_list.none", memory_op(5, &mut list), "0");
    expect!("machphys_mfn_list.none_written", list[2] as u32, 0);
}

/// Gives frames back and takes others for the same places.
fn decrease_and_populate() {
    let total = start_info().nr_pages as i64;
    let current = || memory_op(3, &mut { DOMID_SELF }).0;
    let pfns = [16, 17, 18, 19].map(|n| UNMAPPED + n);
    let mut frames = pfns.map(mem::p2m);
    expect_text!("decrease", reservation(DECREASE, &mut frames, 0, DOMID_SELF), "4");
    expect!("decrease.current", current() - total, -4);
    expect_text!("decrease.again", reservation(DECREASE, &mut frames, 0, DOMID_SELF), "0");
    let mut list = pfns;
    expect_text!("populate", reservation(POPULATE, &mut list, 0, DOMID_SELF), "4");
    expect!("populate.current", current() - total, 0);
    let mut right = 0;
    for (pfn, mfn) in pfns.iter().zip(list) {
        mem::set_p2m(*pfn, mfn);
        right += u32::from(mem::m2p(mfn) == *pfn);
    }
    expect!("populate.machphys", right, 4);
    // The new frames hold nothing of anyone else.
    let window = alloc_page();
    let mut zero = 0;
    for pfn in pfns {
        check!("populate.map", hypercall::update_va_mapping(window.va(), (mem::p2m(pfn) * PAGE) | RW_PAGE, sys::UVMF_INVLPG).is_ok());
        zero += (0..512).filter(|word| window.read(*word) == 0).count();
    }
    value!("populate.zero_words", zero);
    check!("populate.window", window.make_writable().is_ok());
    // A list with a bad frame in the middle stops there.
    let mut frames = [mem::p2m(UNMAPPED + 20), 0xff_ffff_ffff, mem::p2m(UNMAPPED + 21)];
    expect_text!("decrease.bad_in_middle", reservation(DECREASE, &mut frames, 0, DOMID_SELF), "1");
    let mut list = [UNMAPPED + 20];
    expect_text!("populate.back", reservation(POPULATE, &mut list, 0, DOMID_SELF), "1");
    mem::set_p2m(UNMAPPED + 20, list[0]);
    // An extent of four frames.
    let first = UNMAPPED + 24;
    let mut list = [first];
    for pfn in first..first + 4 {
        check!("populate.free", mem::release_frame(mem::p2m(pfn)).0 == 1);
    }
    expect_text!("populate.order_2", reservation(POPULATE, &mut list, 2, DOMID_SELF), "1");
    expect!("populate.order_2_aligned", list[0] % 4, 0);
    for pfn in first..first + 4 {
        mem::set_p2m(pfn, list[0] + pfn - first);
    }
    expect!("populate.order_2_machphys", (first..first + 4).filter(|pfn| mem::m2p(mem::p2m(*pfn)) == *pfn).count(), 4);
    expect_text!("populate.order_huge", reservation(POPULATE, &mut [UNMAPPED + 32], 30, DOMID_SELF), "0");
    expect_text!("populate.order_max", reservation(POPULATE, &mut [UNMAPPED + 32], u32::MAX, DOMID_SELF), "0");
}

fn increase() {
    // The domain is at its maximum or below it, by configuration: make room first.
    check!("increase.room", mem::release_frame(mem::p2m(UNMAPPED + 30)).0 == 1);
    let mut list = [0_u64];
    expect_text!("increase", reservation(INCREASE, &mut list, 0, DOMID_SELF), "1");
    check!("increase.frame", list[0] != 0);
    expect_text!("increase.give_back", reservation(DECREASE, &mut list, 0, DOMID_SELF), "1");
    let mut none = MemoryReservation { nr_extents: 1, domid: DOMID_SELF, ..MemoryReservation::default() };
    value!("increase.no_list", memory_op(INCREASE, &mut none));
    value!("populate.no_list", memory_op(POPULATE, &mut none));
    value!("decrease.no_list", memory_op(DECREASE, &mut none));
}

/// A frame that is still mapped is given up, but freed only with its last mapping.
fn mapped_page() {
    let page = alloc_page();
    page.write(0, 0x4242);
    let mfn = page.mfn();
    value!("mapped.decrease", mem::release_frame(mfn));
    value!("mapped.still_reads", page.read(0) == 0x4242);
    expect_text!("mapped.unmap", page.unmap(), "0");
    let mut list = [page.pfn()];
    expect_text!("mapped.populate", reservation(POPULATE, &mut list, 0, DOMID_SELF), "1");
    mem::set_p2m(page.pfn(), list[0]);
    expect_text!("mapped.map", page.make_writable(), "0");
}

/// xen_memory_exchange.
#[repr(C)]
struct Exchange {
    input: MemoryReservation,
    output: MemoryReservation,
    nr_exchanged: u64,
}

fn exchange() {
    let pages = alloc_pages(4);
    let mut give = [0, 1, 2, 3].map(|i| pages.nth(i).mfn());
    for i in 0..4 {
        check!("exchange.unmap", pages.nth(i).unmap().is_ok());
    }
    let run = |input: &mut [u64], in_order: u32, output: &mut [u64], out_order: u32, bits: u32| {
        let mut output_side = mem::reservation(output, out_order, DOMID_SELF);
        output_side.mem_flags = bits;
        let mut arg = Exchange { input: mem::reservation(input, in_order, DOMID_SELF), output: output_side, nr_exchanged: 0 };
        (memory_op(11, &mut arg), arg.nr_exchanged)
    };
    let mut list = [pages.pfn()];
    let (rc, exchanged) = run(&mut give, 0, &mut list, 1, 0);
    value!("exchange.sizes_differ", format_args!("{rc} {exchanged}"));
    let (rc, exchanged) = run(&mut give, 0, &mut list, 2, 8);
    value!("exchange.address_bits_too_few", format_args!("{rc} {exchanged}"));
    let (rc, exchanged) = run(&mut [0xff_ffff_ffff, 0, 0, 0], 0, &mut list, 2, 0);
    value!("exchange.bad_frame", format_args!("{rc} {exchanged}"));
    let (rc, exchanged) = run(&mut give, 0, &mut list, 2, 32);
    value!("exchange.done", format_args!("{rc} {exchanged}"));
    if rc.is_ok() {
        for i in 0..4 {
            mem::set_p2m(pages.pfn() + i, list[0] + i);
        }
        let right = (0..4).filter(|i| mem::m2p(list[0] + i) == pages.pfn() + i).count();
        expect!("exchange.machphys", right, 4);
        expect!("exchange.below_4g", list[0] < 1 << 20, true);
        expect!("exchange.mapped", (0..4).filter(|i| pages.nth(*i).make_writable().is_ok()).count(), 4);
    }
    let (rc, exchanged) = run(&mut [], 0, &mut [], 0, 0);
    value!("exchange.nothing", format_args!("{rc} {exchanged}"));
    let (rc, exchanged) = run(&mut [0], 20, &mut [0], 20, 0);
    value!("exchange.order_20", format_args!("{rc} {exchanged}"));
    expect_text!("exchange.bad_pointer", Rc(hypercall::raw(nr::MEMORY_OP, [11, 0x1000, 0, 0, 0])), "-EFAULT");
}

fn maps() {
    let page = alloc_page();
    let mut map = [128_u64, page.va()];
    expect_text!("machine_memory_map", memory_op(10, &mut map), "0");
    check!("machine_memory_map.entries", (3..128).contains(&(map[0] as u32)));
    // Twenty bytes per entry: base, size, type. The first is RAM from address 0.
    expect!("machine_memory_map.first_base", page.read(0), 0);
    expect!("machine_memory_map.first_type", page.read(2) as u32, 1);
    map = [1, page.va()];
    value!("machine_memory_map.short", memory_op(10, &mut map));
    expect_text!("machine_memory_map.bad_pointer", Rc(hypercall::raw(nr::MEMORY_OP, [10, 0x1000, 0, 0, 0])), "-EFAULT");
    map = [128, page.va()];
    value!("memory_map.unset", memory_op(9, &mut map));
    let entries = alloc_page();
    entries.write(0, 0);
    entries.write(1, 0x800_0000);
    entries.write(2, 1);
    let set = |domid: u16, count: u64| memory_op(13, &mut [u64::from(domid), count, entries.va()]);
    expect_text!("set_memory_map", set(DOMID_SELF, 1), "0");
    map = [128, page.va()];
    expect_text!("memory_map.set", memory_op(9, &mut map), "0");
    expect!("memory_map.count", map[0], 1);
    expect!("memory_map.size", page.read(1), 0x800_0000);
    expect_text!("set_memory_map.too_many", set(DOMID_SELF, 1025), "-EINVAL");
    expect_text!("set_memory_map.absent", set(ABSENT_DOMAIN, 1), "-ESRCH");
    map = [0, page.va()];
    expect_text!("memory_map.no_room", memory_op(9, &mut map), "0");
    expect!("memory_map.no_room_count", map[0], 0);
}

fn errors() {
    let raw = |cmd: u64, arg: u64| Rc(hypercall::raw(nr::MEMORY_OP, [cmd, arg, 0, 0, 0]));
    for (name, cmd) in [("unknown.8", 8), ("unknown.29", 29), ("unknown.63", 63)] {
        value!(name, raw(cmd, 0));
    }
    for (name, cmd) in [
        ("pointer.increase", 0),
        ("pointer.decrease", 1),
        ("pointer.current", 3),
        ("pointer.machphys_list", 5),
        ("pointer.populate", 6),
        ("pointer.memory_map", 9),
        ("pointer.machphys_mapping", 12),
        ("pointer.set_memory_map", 13),
    ] {
        value!(name, format_args!("{} {}", raw(cmd, 0x1000), raw(cmd, 0xffff_8300_0000_0000)));
    }
    // A list that is not there, and one that is too long.
    let mut arg = MemoryReservation { extent_start: GuestHandle::new(0x1000), nr_extents: 4, domid: DOMID_SELF, ..MemoryReservation::default() };
    expect_text!("list.unmapped_populate", memory_op(POPULATE, &mut arg), "0");
    expect_text!("list.unmapped_decrease", memory_op(DECREASE, &mut arg), "0");
    arg = MemoryReservation { extent_start: GuestHandle::new(0xffff_8300_0000_0000), nr_extents: 4, domid: DOMID_SELF, ..MemoryReservation::default() };
    expect_text!("list.hole", memory_op(POPULATE, &mut arg), "0");
    arg = MemoryReservation { extent_start: GuestHandle::new(0x1000), nr_extents: u64::MAX, domid: DOMID_SELF, ..MemoryReservation::default() };
    expect_text!("list.endless", memory_op(POPULATE, &mut arg), "0");
    expect_text!("list.endless_decrease", memory_op(DECREASE, &mut arg), "0");
    expect_text!("list.absent_domain", reservation(POPULATE, &mut [40], 0, ABSENT_DOMAIN), "0");
    // Progress that a caller makes up is checked like anything else: the start extent lies in the command's upper bits.
    let mut list = [50_u64, 51];
    let mut arg = mem::reservation(&mut list, 0, DOMID_SELF);
    expect_text!("list.start_beyond_end", memory_op(POPULATE | 100 << 6, &mut arg), "100");
    value!("list.start_endless", memory_op(POPULATE | (u64::MAX >> 6) << 6, &mut arg));
}
