//! What a domain without privileges is refused: everything that concerns other domains or the machine.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::domctl::{Domctl, DomctlCmd, GetDomainInfo};
use oxen_abi::event_channel::{AllocUnbound, BindInterdomain, BindPirq, BindVirq, EvtchnOp, Status};
use oxen_abi::memory::{MemoryOp, MemoryReservation};
use oxen_abi::physdev::PhysdevOp;
use oxen_abi::sysctl::{PhysInfo, Sysctl, SysctlCmd};
use oxen_abi::xen::{DOMID_IO, DOMID_XEN, MmuUpdate, Virq};
use oxen_abi::GuestHandle;
use oxen_guests::domu::{CHILD_BASE, CHILD_PAGES, Remote, SPARE, exists, wait_until};
use oxen_guests::mem::{PAGE, RW_PAGE, alloc_page};
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::{self, DOMID_SELF, nr};
use oxen_guests::{check, event, expect, expect_text, value};

oxen_guests::test_kernel!("domain-privileges", run);

fn run() {
    let (window, data) = (alloc_page(), alloc_page());
    let remote = Remote::start(window, data);
    tools(&remote);
    memory(&remote);
    tables(&remote);
    events(&remote);
    hardware(&remote);
    balloon(&remote);
    let id = remote.child.id;
    remote.end();
    check!("gone", wait_until(20, || !exists(id)));
}

fn tools(remote: &Remote) {
    for (name, domain, answer) in [("domctl.dom0", 0, "-EPERM"), ("domctl.own", remote.child.id, "-EPERM"), ("domctl.absent", ABSENT_DOMAIN, "-ESRCH")] {
        remote.put(&Domctl::new(DomctlCmd::GETDOMAININFO, domain, &GetDomainInfo::default()));
        expect_text!(name, remote.call(nr::DOMCTL, [remote.argument(), 0, 0, 0, 0]), answer);
    }
    for (name, cmd) in [("domctl.pause", DomctlCmd::PAUSEDOMAIN), ("domctl.destroy", DomctlCmd::DESTROYDOMAIN), ("domctl.create", DomctlCmd::CREATEDOMAIN)] {
        remote.put(&Domctl::new(cmd, 0, &0_u64));
        value!(name, remote.call(nr::DOMCTL, [remote.argument(), 0, 0, 0, 0]));
    }
    remote.put(&Sysctl::new(SysctlCmd::PHYSINFO, &PhysInfo::default()));
    expect_text!("sysctl", remote.call(nr::SYSCTL, [remote.argument(), 0, 0, 0, 0]), "-EPERM");
    remote.put(&[17_u32, 0x0300_0001, 0, 0]);
    expect_text!("platform_op", remote.call(nr::PLATFORM_OP, [remote.argument(), 0, 0, 0, 0]), "-EPERM");
    value!("remote_shutdown", remote.op(nr::SCHED_OP, 4, &[0_u32, 0]));
    value!("remote_shutdown.absent", remote.op(nr::SCHED_OP, 4, &[u32::from(ABSENT_DOMAIN), 0]));
    value!("pin_override", remote.op(nr::SCHED_OP, 7, &[0_u32, 0]));
    value!("console_read", remote.call(nr::CONSOLE_IO, [1, 8, remote.argument(), 0, 0]));
}

fn memory(remote: &Remote) {
    let of = |domid: u16| MemoryReservation {
        extent_start: GuestHandle::new(remote.argument() + 256),
        nr_extents: 1,
        domid,
        ..MemoryReservation::default()
    };
    let op = |op: MemoryOp, domid: u16| remote.op(nr::MEMORY_OP, op.raw().into(), &of(domid));
    for domid in [0, ABSENT_DOMAIN] {
        expect_text!("populate_physmap", op(MemoryOp::POPULATE_PHYSMAP, domid), "0");
        expect_text!("decrease_reservation", op(MemoryOp::DECREASE_RESERVATION, domid), "0");
        expect_text!("increase_reservation", op(MemoryOp::INCREASE_RESERVATION, domid), "0");
        value!("current_reservation", remote.op(nr::MEMORY_OP, 3, &[domid, 0, 0, 0]));
        value!("maximum_reservation", remote.op(nr::MEMORY_OP, 4, &[domid, 0, 0, 0]));
        value!("maximum_gpfn", remote.op(nr::MEMORY_OP, 14, &[domid, 0, 0, 0]));
        value!("set_memory_map", remote.op(nr::MEMORY_OP, 13, &[u64::from(domid), 0, 0]));
        value!("acquire_resource", remote.op(nr::MEMORY_OP, 28, &[u64::from(domid) | 1 << 16, 1, 0, 0]));
    }
    value!("claim_pages", remote.op(nr::MEMORY_OP, 24, &[0_u64, 1, 0, 0]));
    value!("machine_memory_map", remote.op(nr::MEMORY_OP, 10, &[100_u64, remote.argument() + 256]));
    value!("machphys_mfn_list", remote.op(nr::MEMORY_OP, 5, &[1_u64, remote.argument() + 256, 0]));
    value!("memory_map", remote.op(nr::MEMORY_OP, 9, &[100_u64, remote.argument() + 256]));
    value!("own.current", remote.op(nr::MEMORY_OP, 3, &[DOMID_SELF, 0, 0, 0]));
    value!("own.maximum", remote.op(nr::MEMORY_OP, 4, &[DOMID_SELF, 0, 0, 0]));
}

fn tables(remote: &Remote) {
    let spare = CHILD_BASE + SPARE as u64 * PAGE;
    let own = alloc_page();
    let mine = own.mfn() * PAGE | RW_PAGE;
    let map = |value: u64, domain: u16| remote.call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, [spare, value, sys::UVMF_INVLPG, domain.into(), 0]);
    value!("map.dom0_as_dom0", map(mine, 0));
    value!("map.dom0_as_own", remote.call(nr::UPDATE_VA_MAPPING, [spare, mine, sys::UVMF_INVLPG, 0, 0]));
    value!("map.as_io", map(mine, DOMID_IO));
    value!("map.as_xen", map(mine, DOMID_XEN));
    value!("map.absent", map(mine, ABSENT_DOMAIN));
    let device = 0xfec0_0000 | RW_PAGE;
    value!("map.device", remote.call(nr::UPDATE_VA_MAPPING, [spare, device, sys::UVMF_INVLPG, 0, 0]));
    value!("map.device_as_io", map(device, DOMID_IO));
    let uncached = remote.child.frames[SPARE] * PAGE | RW_PAGE | 0x10;
    value!("map.uncached", remote.call(nr::UPDATE_VA_MAPPING, [spare, uncached, sys::UVMF_INVLPG, 0, 0]));
    remote.put(&MmuUpdate { ptr: own.maddr(), val: 0 });
    value!("mmu_update.of_dom0", remote.call(nr::MMU_UPDATE, [remote.argument(), 1, 0, u64::from(DOMID_SELF) | 1 << 16, 0]));
    value!("mmu_update.foreign", remote.call(nr::MMU_UPDATE, [remote.argument(), 1, 0, 0, 0]));
    remote.put(&MmuUpdate { ptr: own.maddr() | 1, val: 0 });
    value!("machphys", remote.call(nr::MMU_UPDATE, [remote.argument(), 1, 0, DOMID_SELF.into(), 0]));
    let mmuext = |cmd: u64, mfn: u64, domain: u16| {
        remote.put(&[cmd, mfn, 0]);
        remote.call(nr::MMUEXT_OP, [remote.argument(), 1, 0, domain.into(), 0])
    };
    value!("pin.of_dom0", mmuext(0, own.mfn(), 0));
    value!("pin.dom0_frame", mmuext(0, own.mfn(), DOMID_SELF));
    value!("clear_page.of_dom0", mmuext(16, own.mfn(), 0));
    value!("clear_page.dom0_frame", mmuext(16, own.mfn(), DOMID_SELF));
    value!("flush_cache", mmuext(12, 0, DOMID_SELF));
    expect!("own_page_untouched", own.read(0), 0);
}

fn events(remote: &Remote) {
    let op = |op: EvtchnOp| u64::from(op.raw());
    let alloc = |dom: u16| AllocUnbound { dom, remote_dom: DOMID_SELF, ..AllocUnbound::default() };
    value!("alloc_unbound.dom0", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::ALLOC_UNBOUND), &alloc(0)));
    value!("alloc_unbound.absent", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::ALLOC_UNBOUND), &alloc(ABSENT_DOMAIN)));
    value!("status.dom0", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::STATUS), &Status { port: 1, ..Status::default() }));
    value!("reset.dom0", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::RESET), &[0_u16; 4]));
    value!("bind_pirq", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::BIND_PIRQ), &BindPirq { pirq: 4, ..BindPirq::default() }));
    let virq = |virq: Virq| BindVirq { virq, ..BindVirq::default() };
    value!("bind_virq.timer", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::BIND_VIRQ), &virq(Virq::TIMER)));
    value!("bind_virq.dom_exc", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::BIND_VIRQ), &virq(Virq::DOM_EXC)));
    value!("bind_virq.console", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::BIND_VIRQ), &virq(Virq::CONSOLE)));
    // A port that is reserved for somebody else.
    let reserved = event::alloc_unbound(DOMID_SELF, ABSENT_DOMAIN).unwrap_or(0);
    let for_child = event::alloc_unbound(DOMID_SELF, remote.child.id).unwrap_or(0);
    let bind = |remote_port: u32| BindInterdomain { remote_dom: 0, remote_port, ..BindInterdomain::default() };
    value!("bind_interdomain.reserved", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::BIND_INTERDOMAIN), &bind(reserved)));
    value!("bind_interdomain.free", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::BIND_INTERDOMAIN), &bind(900)));
    event::clear_pending(for_child);
    expect_text!("bind_interdomain", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::BIND_INTERDOMAIN), &bind(for_child)), "0");
    let theirs: [u64; 2] = remote.get();
    let port = theirs[1] as u32;
    check!("bind_interdomain.silent", !event::is_pending(for_child));
    expect_text!("send", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::SEND), &port), "0");
    check!("send.arrives", event::is_pending(for_child));
    let (rc, status) = event::status(for_child);
    value!("status", format_args!("{rc} {}", status.status.raw()));
    expect_text!("close", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::CLOSE), &port), "0");
    let (rc, status) = event::status(for_child);
    value!("status.after_close", format_args!("{rc} {} {}", status.status.raw(), status.u[0] == u32::from(remote.child.id)));
    expect_text!("send.closed", event::send(for_child), "0");
    // The other's port is free again, and this one waits for it.
    expect_text!("bind_again", remote.op(nr::EVENT_CHANNEL_OP, op(EvtchnOp::BIND_INTERDOMAIN), &bind(for_child)), "0");
    check!("close_both", event::close(for_child).is_ok() && event::close(reserved).is_ok());
}

fn hardware(remote: &Remote) {
    let physdev = |op: PhysdevOp, argument: &[u64; 4]| remote.op(nr::PHYSDEV_OP, op.raw().into(), argument);
    value!("set_iopl", physdev(PhysdevOp::SET_IOPL, &[1, 0, 0, 0]));
    value!("apic_read", physdev(PhysdevOp::APIC_READ, &[0xfec0_0000, 0, 0, 0]));
    value!("setup_gsi", physdev(PhysdevOp::SETUP_GSI, &[4, 0, 0, 0]));
    value!("map_pirq", physdev(PhysdevOp::MAP_PIRQ, &[u64::from(DOMID_SELF) | 1 << 32, 4, 0, 0]));
    value!("pci_device_add", physdev(PhysdevOp::PCI_DEVICE_ADD, &[0, 0, 0, 0]));
    value!("wbinvd_by_mmuext", {
        remote.put(&[18_u64, 0, 0]);
        remote.call(nr::MMUEXT_OP, [remote.argument(), 1, 0, DOMID_SELF.into(), 0])
    });
}

fn balloon(remote: &Remote) {
    let frame = remote.child.frames[SPARE + 1];
    let spare = CHILD_BASE + (SPARE + 1) as u64 * PAGE;
    let list = remote.argument() + 256;
    let request = [list, 1, 0, u64::from(DOMID_SELF)];
    let with_list = |first: u64| {
        let mut words = [0_u64; 33];
        words[..4].copy_from_slice(&request);
        words[32] = first;
        words
    };
    let pages = || remote.child.info().1.tot_pages;
    // Mapped: it is given up, and freed with its last mapping.
    expect_text!("balloon.mapped", remote.op(nr::MEMORY_OP, 1, &with_list(frame)), "1");
    expect!("balloon.still_there", pages(), CHILD_PAGES as u64);
    expect_text!("balloon.unmap", remote.call(nr::UPDATE_VA_MAPPING, [spare, 0, sys::UVMF_INVLPG, 0, 0]), "0");
    expect!("balloon.freed", pages(), CHILD_PAGES as u64 - 1);
    expect_text!("balloon.twice", remote.op(nr::MEMORY_OP, 1, &with_list(frame)), "0");
    expect_text!("balloon.up", remote.op(nr::MEMORY_OP, 6, &with_list(SPARE as u64 + 1)), "1");
    let words: [u64; 33] = remote.get();
    expect_text!("balloon.map", remote.call(nr::UPDATE_VA_MAPPING, [spare, words[32] * PAGE | RW_PAGE, sys::UVMF_INVLPG, 0, 0]), "0");
    expect!("balloon.pages", pages(), CHILD_PAGES as u64);
    expect_text!("balloon.too_much", remote.op(nr::MEMORY_OP, 6, &with_list(100)), "0");
    // A page table cannot be given up while it is one.
    expect_text!("balloon.table", remote.op(nr::MEMORY_OP, 1, &with_list(remote.child.root())), "1");
    expect!("balloon.table_there", pages(), CHILD_PAGES as u64);
}
