//! Page typing: what the hypervisor lets into page tables, and when a page may change its use.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, mmu_update, mmu_update_foreign, mmuext, mmuext_foreign, update_va_mapping, write_pte};
use oxen_guests::mem::{self, A, D, FRAME_MASK, G, NX, P, PAGE, PCD, PSE, PWT, Page, RO_PAGE, RW, RW_PAGE, US, alloc_page};
use oxen_guests::start::{ABSENT_DOMAIN, start_info};
use oxen_guests::sys::{self, DOMID_IO, DOMID_SELF, DOMID_XEN, MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE, MmuUpdate};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("page-typing", run);

/// Entry of a higher level.
const TABLE: u64 = P | RW | US | A | D;
/// A region for experiments: L4 slot 32, not mapped at the start.
const REGION_SLOT: u64 = 32;
const REGION: u64 = REGION_SLOT << 39;

/// Bits above the frame number where the hypervisor may keep notes of its own; the global bit is another such.
const SOFTWARE_BITS: u64 = 0x07f0_0000_0000_0000;

fn run() {
    writable_mapping_of_tables();
    pins();
    higher_levels();
    l1_entries();
    frames_of_others();
    hypervisor_slots();
    base_pointers();
    requests();
    machphys();
    va_mapping();
    whole_tree();
}

fn pin(level: u32, page: Page) -> Rc {
    mmuext(MMUEXT_PIN_L1_TABLE + level - 1, page.mfn(), 0)
}

fn unpin(page: Page) -> Rc {
    mmuext(MMUEXT_UNPIN_TABLE, page.mfn(), 0)
}

/// A table may not be mapped writable, by any of the calls.
fn writable_mapping_of_tables() {
    let info = start_info();
    let table = info.pt_base;
    let entry = mem::entry(table, 1) & FRAME_MASK;
    expect_text!("writable.l4_by_va", update_va_mapping(table, entry | RW_PAGE, sys::UVMF_INVLPG), "-EBUSY");
    expect_text!("writable.l4_by_mmu_update", write_pte(mem::entry_maddr(table, 1), entry | RW_PAGE), "-EBUSY");
    expect_text!("writable.l4_read_only_again", update_va_mapping(table, entry | RO_PAGE, sys::UVMF_INVLPG), "0");
    let l1 = mem::table_va(table, 1).unwrap_or(0);
    expect_text!("writable.l1_by_va", update_va_mapping(l1, (mem::va_to_mfn(l1) * PAGE) | RW_PAGE, sys::UVMF_INVLPG), "-EBUSY");
    // At another address.
    let scratch = alloc_page();
    expect_text!("writable.l4_elsewhere", update_va_mapping(scratch.va(), entry | RW_PAGE, sys::UVMF_INVLPG), "-EBUSY");
    expect_text!("writable.l4_elsewhere_read_only", update_va_mapping(scratch.va(), entry | RO_PAGE, sys::UVMF_INVLPG), "0");
    expect!("writable.alias_reads", scratch.read(511) == mem::read_entry(table, 511), true);
    expect_text!("writable.restore", scratch.make_writable(), "0");
}

fn pins() {
    let page = alloc_page();
    expect_text!("pin.while_writable", pin(1, page), "-EINVAL");
    expect_text!("pin.make_read_only", page.make_read_only(), "0");
    expect_text!("pin.l1_empty", pin(1, page), "0");
    expect_text!("pin.l1_twice", pin(1, page), "-EINVAL");
    expect_text!("pin.l2_while_l1", pin(2, page), "-EINVAL");
    expect_text!("pin.make_writable_while_pinned", page.make_writable(), "-EBUSY");
    expect_text!("pin.unpin", unpin(page), "0");
    expect_text!("pin.unpin_twice", unpin(page), "-EINVAL");
    for (name, level) in [("pin.l2_empty", 2), ("pin.l3_empty", 3), ("pin.l4_empty", 4)] {
        expect_text!(name, pin(level, page), "0");
        expect_text!("pin.unpin_higher", unpin(page), "0");
    }
    // The L4 has received the hypervisor's own slots and loses them with its type.
    expect_text!("pin.writable_again", page.make_writable(), "0");
    page.clear();
    // Contents are checked.
    let contents = |name: &'static str, level: u32, entry: u64, expected: &str| {
        let page = alloc_page();
        page.write(7, entry);
        check!(name, page.make_read_only().is_ok());
        let rc = pin(level, page);
        expect_text!(name, rc, expected);
        if rc.is_ok() {
            check!(name, unpin(page).is_ok());
        }
        check!(name, page.make_writable().is_ok());
    };
    let data = alloc_page();
    let table = mem::make_table(&[]);
    contents("pin.l1_with_page", 1, data.pte(RW_PAGE), "0");
    contents("pin.l1_with_table_writable", 1, mem::l4_maddr() | RW_PAGE, "-EBUSY");
    contents("pin.l1_with_table_read_only", 1, mem::l4_maddr() | RO_PAGE, "0");
    contents("pin.l1_not_present", 1, 0x1234_5678_9abc_def0 & !1, "0");
    contents("pin.l1_beyond_memory", 1, 0xf_ffff_ffff_f000 | RW_PAGE, "-EINVAL");
    contents("pin.l2_with_table", 2, table.pte(TABLE), "0");
    contents("pin.l2_with_writable_page", 2, data.pte(TABLE), "-EINVAL");
    contents("pin.l2_superpage", 2, table.pte(TABLE | PSE), "-EINVAL");
    contents("pin.l2_not_present", 2, 0xffff_fffe, "0");
    contents("pin.l3_with_table", 3, table.pte(TABLE), "0");
    contents("pin.l3_superpage", 3, table.pte(TABLE | PSE), "-EINVAL");
    contents("pin.l4_with_table", 4, table.pte(TABLE), "0");
    contents("pin.l4_large", 4, table.pte(TABLE | PSE), "-EINVAL");
    // A page that another table uses as L1 cannot become an L2 at the same time.
    let l2 = mem::make_table(&[(0, table.pte(TABLE))]);
    expect_text!("pin.l2_over_l1", pin(2, l2), "0");
    expect_text!("pin.inner_as_l2", pin(2, table), "-EINVAL");
    expect_text!("pin.inner_as_l1", pin(1, table), "0");
    expect_text!("pin.outer_unpin", unpin(l2), "0");
    expect_text!("pin.inner_unpin", unpin(table), "0");
    expect_text!("pin.inner_writable", table.make_writable(), "0");
    // Frames that do not exist or belong to others.
    expect_text!("pin.beyond_memory", mmuext(MMUEXT_PIN_L1_TABLE, 0xff_ffff_ffff, 0), "-EINVAL");
    expect_text!("pin.frame_zero", mmuext(MMUEXT_PIN_L1_TABLE, 0, 0), "-EINVAL");
    expect_text!("pin.shared_info", mmuext(MMUEXT_PIN_L1_TABLE, start_info().shared_info / PAGE, 0), "-EINVAL");
    expect_text!("pin.absent_domain", mmuext_foreign(MMUEXT_PIN_L1_TABLE, page.mfn(), 0, ABSENT_DOMAIN.into()), "-ESRCH");
    expect_text!("unpin.absent_domain", mmuext_foreign(MMUEXT_UNPIN_TABLE, page.mfn(), 0, ABSENT_DOMAIN.into()), "-ESRCH");
    expect_text!("unpin.beyond_memory", mmuext(MMUEXT_UNPIN_TABLE, 0xff_ffff_ffff, 0), "-EINVAL");
    expect_text!("unpin.boot_l4", mmuext(MMUEXT_UNPIN_TABLE, mem::l4_maddr() / PAGE, 0), "0");
    expect_text!("pin.boot_l4", mmuext(MMUEXT_PIN_L1_TABLE + 3, mem::l4_maddr() / PAGE, 0), "0");
}

/// Writes single entries into tables of levels 2 to 4 that are in use.
fn higher_levels() {
    let l1 = mem::make_table(&[(0, alloc_page().pte(RW_PAGE))]);
    let l2 = mem::make_table(&[]);
    let l3 = mem::make_table(&[]);
    let l4_slot = mem::l4_maddr() + REGION_SLOT * 8;
    expect_text!("higher.l1_into_l4", write_pte(l4_slot, l1.pte(TABLE)), "-EINVAL");
    expect_text!("higher.clear_l4", write_pte(l4_slot, 0), "0");
    expect_text!("higher.l3_into_l4", write_pte(l4_slot, l3.pte(TABLE)), "0");
    expect_text!("higher.l2_into_l3", write_pte(l3.maddr(), l2.pte(TABLE)), "0");
    expect_text!("higher.l1_into_l2", write_pte(l2.maddr(), l1.pte(TABLE)), "0");
    // Same frame, other flags.
    expect_text!("higher.l2_flags", write_pte(l2.maddr(), l1.pte(P | US)), "0");
    value!("higher.l2_flags_read", format_args!("{:#x}", l2.read(0) & !(FRAME_MASK | A | D)));
    expect_text!("higher.l2_no_user", write_pte(l2.maddr(), l1.pte(P | RW)), "0");
    value!("higher.l2_no_user_read", format_args!("{:#x}", l2.read(0) & !(FRAME_MASK | A | D)));
    expect_text!("higher.l2_nx", write_pte(l2.maddr(), l1.pte(TABLE | NX)), "0");
    expect_text!("higher.l2_pat_bits", write_pte(l2.maddr(), l1.pte(TABLE | PWT | PCD)), "-EINVAL");
    expect_text!("higher.l2_global", write_pte(l2.maddr(), l1.pte(TABLE | G)), "-EINVAL");
    value!("higher.l2_global_read", format_args!("{:#x}", l2.read(0) & !(FRAME_MASK | A | D)));
    expect_text!("higher.l2_available", write_pte(l2.maddr(), l1.pte(TABLE | 0xe00)), "0");
    value!("higher.l2_available_read", format_args!("{:#x}", l2.read(0) & !(FRAME_MASK | A | D)));
    expect_text!("higher.l2_high_available", write_pte(l2.maddr(), l1.pte(TABLE | 1 << 53)), "0");
    expect_text!("higher.l2_reserved", write_pte(l2.maddr(), l1.pte(TABLE) | 1 << 51), "-EINVAL");
    expect_text!("higher.l2_superpage", write_pte(l2.maddr() + 8, alloc_page().pte(TABLE | PSE)), "-EINVAL");
    expect_text!("higher.l3_superpage", write_pte(l3.maddr() + 8, l2.pte(TABLE | PSE)), "-EINVAL");
    expect_text!("higher.l3_points_to_l1", write_pte(l3.maddr() + 8, l1.pte(TABLE)), "-EINVAL");
    expect_text!("higher.l2_points_to_data", write_pte(l2.maddr() + 8, alloc_page().pte(TABLE)), "-EINVAL");
    expect_text!("higher.l2_shares_l1", write_pte(l2.maddr() + 8, l1.pte(TABLE)), "0");
    expect_text!("higher.l3_flags", write_pte(l3.maddr(), l2.pte(P | US)), "0");
    expect_text!("higher.l4_flags", write_pte(l4_slot, l3.pte(P | US)), "0");
    value!("higher.l4_flags_read", format_args!("{:#x}", mem::read_entry(start_info().pt_base, 32) & !(FRAME_MASK | A | D)));
    expect_text!("higher.unmap_l4", write_pte(l4_slot, 0), "0");
    expect_text!("higher.l1_released", l1.make_writable(), "0");
    expect_text!("higher.l2_released", l2.make_writable(), "0");
    expect_text!("higher.l3_released", l3.make_writable(), "0");
}

/// Flags of L1 entries.
fn l1_entries() {
    let (target, data) = (alloc_page(), alloc_page());
    let slot = mem::entry_maddr(target.va(), 1);
    let set = |name: &'static str, flags: u64| {
        let rc = write_pte(slot, data.pte(flags));
        value!(name, rc);
        if rc.is_ok() {
            value!("l1.reads_back", format_args!("{:#x}", mem::entry(target.va(), 1) & !(FRAME_MASK | G | SOFTWARE_BITS)));
        }
    };
    set("l1.plain", RW_PAGE);
    set("l1.minimal", P);
    set("l1.user_only", P | US);
    set("l1.supervisor", P | RW);
    set("l1.global", RW_PAGE | G);
    set("l1.available", RW_PAGE | 0xe00);
    set("l1.nx", RW_PAGE | NX);
    set("l1.pwt", RW_PAGE | PWT);
    set("l1.pcd", RW_PAGE | PCD);
    set("l1.pat", RW_PAGE | PSE);
    set("l1.all_attributes", RW_PAGE | PWT | PCD | PSE);
    set("l1.available_52", RW_PAGE | 1 << 52);
    set("l1.available_53", RW_PAGE | 1 << 53);
    set("l1.available_58", RW_PAGE | 1 << 58);
    set("l1.protection_key", RW_PAGE | 1 << 59);
    set("l1.reserved_51", RW_PAGE | 1 << 51);
    set("l1.back", RW_PAGE);
    // Preserving accessed and dirty bits.
    let (rc, _) = mmu_update(&mut [MmuUpdate { ptr: slot | 2, val: data.pte(P | US) }]);
    expect_text!("l1.preserve_ad", rc, "0");
    expect!("l1.preserve_ad_kept", mem::entry(target.va(), 1) & (A | D), A | D);
    expect_text!("l1.no_translate", mmu_update(&mut [MmuUpdate { ptr: slot | 3, val: data.pte(P | US) }]).0, "0");
    expect!("l1.no_translate_ad", mem::entry(target.va(), 1) & (A | D), 0);
    expect_text!("l1.unaligned", write_pte(slot + 4, 0), "-ENOSYS");
    expect_text!("l1.clear", write_pte(slot, 0), "0");
    expect_text!("l1.restore", target.make_writable(), "0");
}

/// Frames that are not the kernel's.
fn frames_of_others() {
    let target = alloc_page();
    let slot = mem::entry_maddr(target.va(), 1);
    let one = |domains: u64, val: u64| mmu_update_foreign(&mut [MmuUpdate { ptr: slot, val }], domains).0;
    let own = target.pte(RW_PAGE);
    expect_text!("foreign.absent_domain", one(ABSENT_DOMAIN.into(), own), "-ESRCH");
    expect_text!("foreign.self_by_number", one(0, own), "-ESRCH");
    // An address no memory or device answers.
    let nowhere = 0x0000_00ff_ffff_f000;
    value!("foreign.nowhere_self", write_pte(slot, nowhere | RW_PAGE));
    value!("foreign.nowhere_io", one(DOMID_IO.into(), nowhere | RW_PAGE));
    // The VGA window and the BIOS are device memory for the hardware domain.
    value!("foreign.vga_self", write_pte(slot, 0xb_8000 | RW_PAGE));
    value!("foreign.vga_io", one(DOMID_IO.into(), 0xb_8000 | RW_PAGE));
    // The local and I/O interrupt controllers are not.
    value!("foreign.local_apic", write_pte(slot, 0xfee0_0000 | RW_PAGE | PCD));
    value!("foreign.io_apic", write_pte(slot, 0xfec0_0000 | RW_PAGE | PCD));
    // The machine-to-phys table: its frames belong to the hypervisor's own domain, for reading only.
    let mut extents = [0_u64; 4];
    let mut list = [4_u64, hypercall::handle(&mut extents), 0];
    let rc = hypercall::memory_op(5, &mut list);
    expect_text!("foreign.machphys_mfn_list", rc, "0");
    let frame = extents[0] * PAGE;
    expect_text!("foreign.m2p_self", write_pte(slot, frame | RO_PAGE), "-EBUSY");
    expect_text!("foreign.m2p_writable", one(DOMID_XEN.into(), frame | RW_PAGE), "-EBUSY");
    expect_text!("foreign.m2p_read_only", one(DOMID_XEN.into(), frame | RO_PAGE), "0");
    check!("foreign.m2p_contents", mem::entry(target.va(), 1) & FRAME_MASK == frame);
    expect_text!("foreign.back", target.make_writable(), "0");
    // shared_info is the domain's to map, more than once.
    expect_text!("foreign.shared_info", write_pte(slot, start_info().shared_info | RW_PAGE), "0");
    expect_text!("foreign.back_again", target.make_writable(), "0");
    // The other half of the word names the domain that has the tables.
    expect_text!("foreign.tables_self", one((u64::from(DOMID_SELF) + 1) << 16 | u64::from(DOMID_SELF), own), "-ESRCH");
    expect_text!("foreign.tables_absent", one((u64::from(ABSENT_DOMAIN) + 1) << 16 | u64::from(DOMID_SELF), own), "-ESRCH");
    expect_text!("foreign.tables_zero", one(1 << 16 | u64::from(DOMID_SELF), own), "0");
}

fn hypervisor_slots() {
    let l3 = mem::make_table(&[]);
    for (name, slot) in [("hole.slot_256", 256), ("hole.slot_264", 264), ("hole.slot_271", 271)] {
        expect_text!(name, write_pte(mem::l4_maddr() + slot * 8, l3.pte(TABLE)), "-EINVAL");
        expect_text!("hole.clear", write_pte(mem::l4_maddr() + slot * 8, 0), "-EINVAL");
    }
    expect_text!("hole.slot_255", write_pte(mem::l4_maddr() + 255 * 8, l3.pte(TABLE)), "0");
    expect_text!("hole.slot_255_clear", write_pte(mem::l4_maddr() + 255 * 8, 0), "0");
    expect_text!("hole.slot_272", write_pte(mem::l4_maddr() + 272 * 8, l3.pte(TABLE)), "0");
    expect_text!("hole.slot_272_clear", write_pte(mem::l4_maddr() + 272 * 8, 0), "0");
    expect_text!("hole.va_mapping", update_va_mapping(sys::HOLE_START, alloc_page().pte(RW_PAGE), 0), "-EINVAL");
    // What a guest's own L4 holds in those slots is not used.
    let l4 = mem::make_table(&[(256, l3.pte(TABLE)), (260, 0xdead_b000 | TABLE)]);
    expect_text!("hole.pin_with_contents", pin(4, l4), "0");
    expect_text!("hole.unpin", unpin(l4), "0");
    expect_text!("hole.release", l4.make_writable(), "0");
}

fn base_pointers() {
    let boot = mem::l4_maddr() / PAGE;
    let copy = alloc_page();
    for slot in (0..256).chain(272..512) {
        copy.write(slot, mem::read_entry(start_info().pt_base, slot));
    }
    expect_text!("base.writable_page", mmuext(sys::MMUEXT_NEW_BASEPTR, copy.mfn(), 0), "-EINVAL");
    expect_text!("base.read_only", copy.make_read_only(), "0");
    expect_text!("base.copy", mmuext(sys::MMUEXT_NEW_BASEPTR, copy.mfn(), 0), "0");
    expect_text!("base.same_again", mmuext(sys::MMUEXT_NEW_BASEPTR, copy.mfn(), 0), "0");
    expect_text!("base.copy_writable_in_use", copy.make_writable(), "-EBUSY");
    expect_text!("base.boot", mmuext(sys::MMUEXT_NEW_BASEPTR, boot, 0), "0");
    expect_text!("base.l1_as_base", mmuext(sys::MMUEXT_NEW_BASEPTR, mem::va_to_mfn(mem::table_va(copy.va(), 1).unwrap_or(0)), 0), "-EINVAL");
    expect_text!("base.beyond_memory", mmuext(sys::MMUEXT_NEW_BASEPTR, 0xff_ffff_ffff, 0), "-EINVAL");
    expect_text!("base.absent_domain", mmuext_foreign(sys::MMUEXT_NEW_BASEPTR, boot, 0, ABSENT_DOMAIN.into()), "-ESRCH");
    expect_text!("base.copy_released", copy.make_writable(), "0");
    // The user base pointer accepts none, an L4, and keeps a reference.
    let user = mem::make_table(&[]);
    expect_text!("user_base.none", mmuext(sys::MMUEXT_NEW_USER_BASEPTR, 0, 0), "0");
    expect_text!("user_base.empty_l4", mmuext(sys::MMUEXT_NEW_USER_BASEPTR, user.mfn(), 0), "0");
    expect_text!("user_base.in_use", user.make_writable(), "-EBUSY");
    expect_text!("user_base.writable_page", mmuext(sys::MMUEXT_NEW_USER_BASEPTR, copy.mfn(), 0), "-EINVAL");
    expect_text!("user_base.kept_after_error", user.make_writable(), "-EBUSY");
    expect_text!("user_base.none_again", mmuext(sys::MMUEXT_NEW_USER_BASEPTR, 0, 0), "0");
    expect_text!("user_base.released", user.make_writable(), "0");
}

/// Lists of requests, counts and pointers.
fn requests() {
    let (a, b) = (alloc_page(), alloc_page());
    let (slot_a, slot_b) = (mem::entry_maddr(a.va(), 1), mem::entry_maddr(b.va(), 1));
    let mut list = [
        MmuUpdate { ptr: slot_a, val: a.pte(RO_PAGE) },
        MmuUpdate { ptr: slot_b, val: mem::l4_maddr() | RW_PAGE },
        MmuUpdate { ptr: slot_b, val: b.pte(RO_PAGE) },
    ];
    let (rc, done) = mmu_update(&mut list);
    expect_text!("requests.stops", rc, "-EBUSY");
    expect!("requests.done", done, 1);
    expect!("requests.first_happened", mem::entry(a.va(), 1) & RW, 0);
    expect!("requests.third_did_not", mem::entry(b.va(), 1) & RW, RW);
    expect_text!("requests.restore", a.make_writable(), "0");
    expect_text!("requests.none", mmu_update(&mut []).0, "0");
    let raw = |args| Rc(hypercall::raw(sys::nr::MMU_UPDATE, args));
    let me = DOMID_SELF as u64;
    expect_text!("requests.bad_pointer", raw([0x1000, 1, 0, me, 0]), "-EFAULT");
    expect_text!("requests.hole_pointer", raw([sys::HOLE_START, 1, 0, me, 0]), "-EFAULT");
    expect_text!("requests.huge_count", raw([0x1000, 0x7fff_ffff, 0, me, 0]), "-EFAULT");
    let mut one = MmuUpdate { ptr: slot_a, val: a.pte(RW_PAGE) };
    expect_text!("requests.no_done", raw([hypercall::handle(&mut one), 1, 0, me, 0]), "0");
    // Writes to a page that is no table are plain stores.
    expect_text!("requests.data_page", write_pte(b.maddr() + 16, 0x1122_3344), "0");
    expect!("requests.data_page_written", b.read(2), 0x1122_3344);
    expect_text!("requests.beyond_memory", write_pte(0x000f_ffff_ffff_f000, 0), "-EINVAL");
    expect_text!("requests.shared_info", write_pte(start_info().shared_info + 4088, 0), "0");
    expect_text!("mmuext.unknown", mmuext(99, 0, 0), "-ENOSYS");
    expect_text!("mmuext.gap_14", mmuext(14, 0, 0), "-ENOSYS");
    expect_text!("mmuext.none", Rc(hypercall::raw(sys::nr::MMUEXT_OP, [0, 0, 0, me, 0])), "0");
    expect_text!("mmuext.bad_pointer", Rc(hypercall::raw(sys::nr::MMUEXT_OP, [0x1000, 1, 0, me, 0])), "-EFAULT");
    for (name, op) in [("mmuext.flush_local", 6), ("mmuext.flush_all", 10), ("mmuext.flush_cache", 12), ("mmuext.flush_cache_global", 18)] {
        expect_text!(name, mmuext(op, 0, 0), "0");
    }
    expect_text!("mmuext.invlpg_local", mmuext(7, a.va(), 0), "0");
    expect_text!("mmuext.invlpg_local_non_canonical", mmuext(7, 1 << 63, 0), "0");
    expect_text!("mmuext.invlpg_all", mmuext(11, a.va(), 0), "0");
    let mut mask = 1_u64;
    expect_text!("mmuext.flush_multi", mmuext(8, 0, hypercall::handle(&mut mask)), "0");
    expect_text!("mmuext.invlpg_multi", mmuext(9, a.va(), hypercall::handle(&mut mask)), "0");
    expect_text!("mmuext.flush_multi_bad_mask", mmuext(8, 0, 0x1000), "-EINVAL");
    a.write(0, 0x5555);
    b.write(0, 0x6666);
    expect_text!("mmuext.copy_page", mmuext(17, a.mfn(), b.mfn()), "0");
    expect!("mmuext.copied", a.read(0), 0x6666);
    expect_text!("mmuext.clear_page", mmuext(16, a.mfn(), 0), "0");
    expect!("mmuext.cleared", a.read(0), 0);
    expect_text!("mmuext.clear_table", mmuext(16, mem::l4_maddr() / PAGE, 0), "-EINVAL");
    expect_text!("mmuext.copy_to_table", mmuext(17, mem::l4_maddr() / PAGE, b.mfn()), "-EINVAL");
    expect_text!("mmuext.copy_beyond", mmuext(17, a.mfn(), 0xff_ffff_ffff), "-EINVAL");
    expect_text!("mmuext.mark_super", mmuext(19, a.mfn(), 0), "-EOPNOTSUPP");
    expect_text!("mmuext.unmark_super", mmuext(20, a.mfn(), 0), "-EOPNOTSUPP");
}

fn machphys() {
    let page = alloc_page();
    let pfn = page.pfn();
    let one = |mfn: u64, val| mmu_update(&mut [MmuUpdate { ptr: (mfn * PAGE) | 1, val }]).0;
    expect_text!("machphys.set", one(page.mfn(), 0x1234), "0");
    expect!("machphys.read", mem::m2p(page.mfn()), 0x1234);
    expect_text!("machphys.back", one(page.mfn(), pfn), "0");
    expect!("machphys.read_back", mem::m2p(page.mfn()) == pfn, true);
    expect_text!("machphys.beyond_memory", one(0xff_ffff_ffff, 0), "-EINVAL");
    expect_text!("machphys.frame_zero", one(0, 0), "-EINVAL");
    value!("machphys.shared_info", one(start_info().shared_info / PAGE, 5));
}

fn va_mapping() {
    let page = alloc_page();
    expect_text!("va.flush_all", update_va_mapping(page.va(), page.pte(RW_PAGE), sys::UVMF_TLB_FLUSH | sys::UVMF_ALL), "0");
    expect_text!("va.invlpg_all", update_va_mapping(page.va(), page.pte(RW_PAGE), sys::UVMF_INVLPG | sys::UVMF_ALL), "0");
    let mut mask = 1_u64;
    let pointer = hypercall::handle(&mut mask);
    expect_text!("va.flush_multi", update_va_mapping(page.va(), page.pte(RW_PAGE), pointer | sys::UVMF_TLB_FLUSH), "0");
    value!("va.flush_bad_mask", update_va_mapping(page.va(), page.pte(RW_PAGE), 0x1000 | sys::UVMF_TLB_FLUSH));
    value!("va.flush_type_3", update_va_mapping(page.va(), page.pte(RW_PAGE), 3));
    expect_text!("va.no_l1", update_va_mapping(REGION, page.pte(RW_PAGE), 0), "-EINVAL");
    expect_text!("va.non_canonical", update_va_mapping(1 << 63, page.pte(RW_PAGE), 0), "-EINVAL");
    expect_text!("va.low_bits_ignored", update_va_mapping(page.va() + 5, page.pte(RW_PAGE), sys::UVMF_INVLPG), "0");
    expect_text!("va.not_present", update_va_mapping(page.va(), 0, sys::UVMF_INVLPG), "0");
    expect_text!("va.back", page.make_writable(), "0");
    let other = |domid: u64| Rc(hypercall::raw(22, [page.va(), page.pte(RW_PAGE), sys::UVMF_INVLPG, domid, 0]));
    expect_text!("va.other_domain_absent", other(ABSENT_DOMAIN.into()), "-ESRCH");
    value!("va.other_domain_self", other(DOMID_SELF.into()));
}

/// Builds, uses and tears down a tree of every level.
fn whole_tree() {
    let data = alloc_page();
    let l1 = mem::make_table(&[(5, data.pte(RW_PAGE))]);
    let l2 = mem::make_table(&[(0, l1.pte(TABLE))]);
    let l3 = mem::make_table(&[(0, l2.pte(TABLE))]);
    expect_text!("tree.link", write_pte(mem::l4_maddr() + REGION_SLOT * 8, l3.pte(TABLE)), "0");
    data.write(3, 0xfeed);
    let address = (REGION + 5 * PAGE + 24) as *const u64;
    // SAFETY: the tables just linked map the page there.
    expect!("tree.reads", unsafe { address.read_volatile() }, 0xfeed);
    expect_text!("tree.table_of_two", write_pte(l1.maddr(), l1.pte(RO_PAGE)), "0");
    expect_text!("tree.table_of_two_writable", write_pte(l1.maddr(), l1.pte(RW_PAGE)), "-EBUSY");
    expect_text!("tree.cut", write_pte(l3.maddr(), 0), "0");
    expect_text!("tree.l2_free", l2.make_writable(), "0");
    expect_text!("tree.l1_free", l1.make_writable(), "0");
    expect_text!("tree.l3_still_used", l3.make_writable(), "-EBUSY");
    expect_text!("tree.unlink", write_pte(mem::l4_maddr() + REGION_SLOT * 8, 0), "0");
    expect_text!("tree.l3_free", l3.make_writable(), "0");
}
