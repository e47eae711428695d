//! physdev_op: interrupts, PCI devices, and the errors of every operation.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::event;
use oxen_guests::hypercall::{self, Rc, physdev_op};
use oxen_guests::mem::alloc_page;
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::{DOMID_SELF, nr};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("physdev", run);

fn run() {
    interrupts();
    legacy_interrupts();
    pci();
    physdev_errors();
}

/// physdev_map_pirq.
#[derive(Clone, Copy)]
#[repr(C)]
struct MapPirq {
    domid: u16,
    kind: u32,
    index: i32,
    pirq: i32,
    bus: u32,
    devfn: u32,
    entry_nr: u32,
    table_base: u64,
}

const GSI: u32 = 1;
const MSI: u32 = 0;

fn map_pirq(domid: u16, kind: u32, index: i32, pirq: i32) -> (Rc, i32) {
    let mut arg = MapPirq { domid, kind, index, pirq, bus: 0, devfn: 0xf8, entry_nr: 0, table_base: 0 };
    (physdev_op(13, &mut arg), arg.pirq)
}

fn interrupts() {
    let setup_gsi = |gsi: u32, triggering: u32, polarity: u32| physdev_op(21, &mut [gsi, triggering | polarity << 8]);
    let accepted = |rc: Rc| rc.is_ok() || rc.0 == -17;
    check!("setup_gsi.rtc", accepted(setup_gsi(8, 0, 0)));
    check!("setup_gsi.pci", accepted(setup_gsi(20, 1, 1)));
    value!("setup_gsi.absent", setup_gsi(4000, 0, 0));
    let (rc, pirq) = map_pirq(DOMID_SELF, GSI, 8, 8);
    expect_text!("map_pirq.gsi", rc, "0");
    expect!("map_pirq.gsi_pirq", pirq, 8);
    let (rc, pirq) = map_pirq(DOMID_SELF, GSI, 8, 8);
    value!("map_pirq.again", format_args!("{rc} {pirq}"));
    let (rc, pirq) = map_pirq(DOMID_SELF, GSI, 20, -1);
    expect_text!("map_pirq.any", rc, "0");
    check!("map_pirq.any_pirq", pirq >= 0);
    value!("map_pirq.gsi_huge", map_pirq(DOMID_SELF, GSI, 100_000, 9).0);
    value!("map_pirq.gsi_negative", map_pirq(DOMID_SELF, GSI, -5, 9).0);
    value!("map_pirq.absent_domain", map_pirq(ABSENT_DOMAIN, GSI, 9, 9).0);
    value!("map_pirq.unknown_kind", map_pirq(DOMID_SELF, 9, 9, 9).0);
    value!("map_pirq.msi_absent_device", map_pirq(DOMID_SELF, MSI, -1, -1).0);
    let query = |irq: u32| {
        let mut arg = [irq, 0xffff_ffff];
        (physdev_op(5, &mut arg), arg[1])
    };
    let (rc, flags) = query(8);
    value!("irq_status.mapped", format_args!("{rc} {flags:#x}"));
    value!("irq_status.huge", query(100_000).0);
    let mut vector = [8_u32, 0];
    expect_text!("alloc_irq_vector", physdev_op(10, &mut vector), "0");
    value!("free_irq_vector", physdev_op(11, &mut [8_u32, 0]));
    let port = event::bind_pirq(8, 0);
    expect_text!("bind_pirq", event::rc_of(port), "0");
    expect_text!("bind_pirq.twice", event::rc_of(event::bind_pirq(8, 0)), "-EEXIST");
    value!("eoi", physdev_op(12, &mut { 8_u32 }));
    value!("eoi.huge", physdev_op(12, &mut { 100_000_u32 }));
    let unmap = |domid: u16, pirq: i32| physdev_op(14, &mut [i32::from(domid), pirq]);
    if let Ok(port) = port {
        let (rc, status) = event::status(port);
        value!("bind_pirq.status", format_args!("{rc} {} {}", status.status.0, status.u[0]));
        expect_text!("bind_pirq.close", event::close(port), "0");
    }
    value!("unmap_pirq", unmap(DOMID_SELF, 8));
    value!("unmap_pirq.again", unmap(DOMID_SELF, 8));
    value!("unmap_pirq.huge", unmap(DOMID_SELF, 100_000));
    value!("unmap_pirq.absent_domain", unmap(ABSENT_DOMAIN, 9));
    let mut free = [0_u32, 0];
    value!("get_free_pirq", physdev_op(23, &mut free));
    let page = alloc_page();
    value!("pirq_eoi_gmfn", physdev_op(28, &mut { page.mfn() }));
    value!("pirq_eoi_gmfn.again", physdev_op(28, &mut { page.mfn() }));
    value!("pirq_eoi_gmfn.beyond_memory", physdev_op(28, &mut { 0xff_ffff_ffff_u64 }));
    value!("irq_unmask_notify", physdev_op(4, &mut { 0_u32 }));
}

fn legacy_interrupts() {
    // The I/O controller's version register, through the hypervisor. Only the results: the values are the machine's.
    let mut arg = [0xfec0_0000_u64, 1];
    value!("apic_read", physdev_op(8, &mut arg));
    let mut arg = [0x1234_0000_u64, 1];
    value!("apic_read.absent", physdev_op(8, &mut arg));
    value!("apic_write.absent", physdev_op(9, &mut arg));
}

fn pci() {
    let device = |seg: u32, bus: u32, devfn: u32| seg | bus << 16 | devfn << 24;
    let add = |seg, bus, devfn| physdev_op(25, &mut [device(seg, bus, devfn), 0, 0]);
    let remove = |seg, bus, devfn| physdev_op(26, &mut { device(seg, bus, devfn) });
    value!("pci_device_add.host_bridge", add(0, 0, 0));
    value!("pci_device_add.again", add(0, 0, 0));
    value!("pci_device_remove.absent", remove(0, 200, 0));
    value!("pci_mmcfg.absent_segment", physdev_op(24, &mut [0x1000_0000_u64, 9, 0]));
    value!("prepare_msix.absent", physdev_op(30, &mut { device(0, 200, 0) }));
    value!("release_msix.absent", physdev_op(31, &mut { device(0, 200, 0) }));
    value!("restore_msi.absent", physdev_op(27, &mut { device(0, 200, 0) }));
}

fn physdev_errors() {
    let raw = |cmd, arg| Rc(hypercall::raw(nr::PHYSDEV_OP, [cmd, arg, 0, 0, 0]));
    for cmd in [5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 17, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31] {
        value!("physdev.bad_pointer", format_args!("{cmd} {} {}", raw(cmd, 0x1000), raw(cmd, 0xffff_8300_0000_0000)));
    }
    for cmd in [0, 1, 2, 3, 16, 18, 22, 32, 99, 0xffff_ffff] {
        value!("physdev.other", format_args!("{cmd} {}", raw(cmd, 0x1000)));
    }
}
