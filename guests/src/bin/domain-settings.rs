//! What tools set and ask of a domain besides its memory and registers: permissions, triggers, virtual interrupts' receivers, and the state that saving needs.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::domctl::{
    AddressSize, DomctlCmd, ExtVcpuContext, IomemPermission, IoportPermission, IrqPermission, SetVirqHandler, SendTrigger, Subscribe, TscInfo,
    VcpuExtState, VcpuMsr, VcpuMsrs,
};
use oxen_abi::GuestHandle;
use oxen_guests::domu::{Remote, domctl, domctl_plain, exists, wait_until};
use oxen_guests::hypercall::{Rc, handle};
use oxen_guests::mem::alloc_page;
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("domain-settings", run);

fn run() {
    let (window, data) = (alloc_page(), alloc_page());
    let remote = Remote::start(window, data);
    let id = remote.child.id;
    permissions(id);
    triggers(id);
    handlers(id);
    state(id);
    extended(id);
    registers(id);
    devices(id);
    remote.end();
    check!("gone", wait_until(20, || !exists(id)));
}

fn permissions(id: u16) {
    let ports = |name: &str, first_port: u32, nr_ports: u32, allow_access: u8| {
        let request = IoportPermission { first_port, nr_ports, allow_access, ..IoportPermission::default() };
        value!(name, domctl(DomctlCmd::IOPORT_PERMISSION, id, request).0);
    };
    ports("ports.allow", 0x3f0, 8, 1);
    ports("ports.refuse", 0x3f0, 8, 0);
    ports("ports.none", 0x3f0, 0, 1);
    ports("ports.last", 0xffff, 1, 1);
    ports("ports.beyond", 0xffff, 2, 1);
    ports("ports.overflow", u32::MAX, 2, 1);
    ports("ports.hypervisor", 0x20, 2, 1);
    let memory = |name: &str, first_mfn: u64, nr_mfns: u64, allow_access: u8| {
        let request = IomemPermission { first_mfn, nr_mfns, allow_access, ..IomemPermission::default() };
        value!(name, domctl(DomctlCmd::IOMEM_PERMISSION, id, request).0);
    };
    memory("memory.allow", 0xfeb00, 16, 1);
    memory("memory.refuse", 0xfeb00, 16, 0);
    memory("memory.none", 0xfeb00, 0, 1);
    memory("memory.overflow", u64::MAX, 2, 1);
    memory("memory.too_far", 1 << 40, 1, 1);
    memory("memory.local_apic", 0xfee00, 1, 1);
    let interrupt = |name: &str, pirq: u32, allow_access: u8| {
        let request = IrqPermission { pirq, allow_access, ..IrqPermission::default() };
        value!(name, domctl(DomctlCmd::IRQ_PERMISSION, id, request).0);
    };
    interrupt("interrupt.unknown", 100_000, 1);
    interrupt("interrupt.none", u32::MAX, 0);
}

fn triggers(id: u16) {
    for (name, trigger, vcpu) in [
        ("trigger.nmi", 0, 0),
        ("trigger.nmi_absent_vcpu", 0, 1),
        ("trigger.nmi_far_vcpu", 0, 5000),
        ("trigger.reset", 1, 0),
        ("trigger.init", 2, 0),
        ("trigger.power", 3, 0),
        ("trigger.sleep", 4, 0),
        ("trigger.unknown", 9, 0),
    ] {
        value!(name, domctl(DomctlCmd::SENDTRIGGER, id, SendTrigger { trigger, vcpu }).0);
    }
}

fn handlers(id: u16) {
    for (name, domain, virq) in [
        ("handler.timer", id, 0),
        ("handler.console", id, 2),
        ("handler.dom_exc", id, 3),
        ("handler.twice", id, 3),
        ("handler.unknown", id, 24),
        ("handler.back", 0, 3),
        ("handler.console_back", 0, 2),
        ("handler.absent", ABSENT_DOMAIN, 3),
    ] {
        value!(name, domctl(DomctlCmd::SET_VIRQ_HANDLER, domain, SetVirqHandler { virq }).0);
    }
}

fn state(id: u16) {
    for (name, domain, size) in [("width.64", id, 64), ("width.16", id, 16), ("width.own", 0, 64)] {
        value!(name, domctl(DomctlCmd::SET_ADDRESS_SIZE, domain, AddressSize { size }).0);
    }
    let (rc, width) = domctl(DomctlCmd::GET_ADDRESS_SIZE, id, AddressSize::default());
    value!("width", format_args!("{rc} {}", width.size));
    value!("tsc.own", domctl(DomctlCmd::GETTSCINFO, 0, TscInfo::default()).0);
    for (name, port) in [("subscribe", 1), ("subscribe.far", 100_000)] {
        value!(name, domctl(DomctlCmd::SUBSCRIBE, id, Subscribe { port }).0);
    }
}

fn extended(id: u16) {
    for (name, vcpu) in [("extended", 0), ("extended.absent", 1)] {
        let (rc, context) = domctl(DomctlCmd::GET_EXT_VCPUCONTEXT, id, ExtVcpuContext { vcpu, ..ExtVcpuContext::default() });
        value!(name, format_args!("{rc} {}", context.size));
    }
    let (_, context) = domctl(DomctlCmd::GET_EXT_VCPUCONTEXT, id, ExtVcpuContext::default());
    value!("extended.set", domctl(DomctlCmd::SET_EXT_VCPUCONTEXT, id, context).0);
    value!("extended.set_small", domctl(DomctlCmd::SET_EXT_VCPUCONTEXT, id, ExtVcpuContext { size: 8, ..context }).0);
    let wild = ExtVcpuContext { sysenter_callback_eip: 1 << 63, ..context };
    value!("extended.set_wild", domctl(DomctlCmd::SET_EXT_VCPUCONTEXT, id, wild).0);
    value!("extended.own", domctl(DomctlCmd::GET_EXT_VCPUCONTEXT, 0, ExtVcpuContext::default()).0);
    let (rc, size) = domctl(DomctlCmd::GETVCPUEXTSTATE, id, VcpuExtState::default());
    value!("area.size", format_args!("{rc} {} {}", size.xfeature_mask & 7, size.size > 576));
    let mut area = [0_u64; 512];
    let mask = size.xfeature_mask;
    let request = |size: u64, area: &mut [u64]| VcpuExtState { size, xfeature_mask: mask, buffer: GuestHandle::new(handle(area)), ..VcpuExtState::default() };
    let (rc, got) = domctl(DomctlCmd::GETVCPUEXTSTATE, id, request(size.size, &mut area));
    // How much comes depends on what the vCPU has used.
    expect_text!("area.get", rc, "0");
    check!("area.fits", got.size <= size.size);
    value!("area.absent_vcpu", domctl(DomctlCmd::GETVCPUEXTSTATE, id, VcpuExtState { vcpu: 1, ..VcpuExtState::default() }).0);
    let mut set = |name: &str, size: u64, words: &[(usize, u64)]| {
        area.fill(0);
        // x87 and SSE: enabled, were enabled, in the area; their control words.
        for &(index, value) in [(0, 3), (1, 3), (2, 0x37f), (5, 0x1f80), (66, 3)].iter().chain(words) {
            area[index] = value;
        }
        value!(name, domctl(DomctlCmd::SETVCPUEXTSTATE, id, request(size, &mut area)).0);
    };
    set("area.set", 592, &[]);
    set("area.set_large", size.size, &[]);
    set("area.set_too_large", size.size + 1, &[]);
    set("area.set_small", 15, &[]);
    set("area.set_head", 16, &[]);
    set("area.set_head_of_nothing", 16, &[(0, 0), (1, 0)]);
    set("area.set_head_of_enabled", 16, &[(1, 0)]);
    set("area.set_cut", 591, &[]);
    set("area.set_unknown", size.size, &[(1, 1 << 60 | 3)]);
    set("area.set_without_x87", size.size, &[(0, 2)]);
    set("area.set_not_accumulated", size.size, &[(1, 1)]);
    set("area.set_not_enabled", size.size, &[(66, 7)]);
    set("area.set_compact", size.size, &[(67, 1 << 63)]);
}

fn registers(id: u16) {
    let (rc, count) = domctl(DomctlCmd::GET_VCPU_MSRS, id, VcpuMsrs::default());
    value!("msrs.count", format_args!("{rc} {}", count.msr_count != 0));
    let mut list = [VcpuMsr::default(); 16];
    let request = |msr_count: u32, list: &mut [VcpuMsr]| VcpuMsrs { vcpu: 0, msr_count, msrs: GuestHandle::new(handle(list)) };
    let (rc, got) = domctl(DomctlCmd::GET_VCPU_MSRS, id, request(16, &mut list));
    value!("msrs.get", format_args!("{rc} {}", got.msr_count));
    list[0] = VcpuMsr { index: 0x1234, ..VcpuMsr::default() };
    value!("msrs.set_none", domctl(DomctlCmd::SET_VCPU_MSRS, id, request(0, &mut list)).0);
    value!("msrs.set_unknown", domctl(DomctlCmd::SET_VCPU_MSRS, id, request(1, &mut list)).0);
    value!("msrs.own", domctl(DomctlCmd::GET_VCPU_MSRS, 0, VcpuMsrs::default()).0);
    value!("msrs.absent_vcpu", domctl(DomctlCmd::GET_VCPU_MSRS, id, VcpuMsrs { vcpu: 1, ..VcpuMsrs::default() }).0);
}

/// There is neither an IOMMU nor a processor with resource control.
fn devices(id: u16) {
    for (name, cmd) in [
        ("device.assign", DomctlCmd::ASSIGN_DEVICE),
        ("device.test", DomctlCmd::TEST_ASSIGN_DEVICE),
        ("device.take", DomctlCmd::DEASSIGN_DEVICE),
        ("device.group", DomctlCmd::GET_DEVICE_GROUP),
        ("mempool.get", DomctlCmd::GET_PAGING_MEMPOOL_SIZE),
        ("mempool.set", DomctlCmd::SET_PAGING_MEMPOOL_SIZE),
        ("hvm.get", DomctlCmd::GETHVMCONTEXT),
        ("hvm.set", DomctlCmd::SETHVMCONTEXT),
        ("hvm.part", DomctlCmd::GETHVMCONTEXT_PARTIAL),
        ("hvm.map_ports", DomctlCmd::IOPORT_MAPPING),
        ("real_mode", DomctlCmd::REAL_MODE_AREA),
        ("cache_flush", DomctlCmd::CACHEFLUSH),
        ("monitor", DomctlCmd::MONITOR_OP),
        ("allocation", DomctlCmd::PSR_ALLOC),
        ("accounting", DomctlCmd::PSR_CMT_OP),
        ("uart", DomctlCmd::VUART_OP),
        ("audit", DomctlCmd::AUDIT_P2M),
        ("sharing", DomctlCmd::MEM_SHARING_OP),
        ("vm_event", DomctlCmd::VM_EVENT_OP),
        ("target", DomctlCmd::SET_TARGET),
        ("gdbsx.memory", DomctlCmd::GDBSX_GUESTMEMIO),
        ("gdbsx.pause", DomctlCmd::GDBSX_PAUSEVCPU),
        ("gdbsx.unpause", DomctlCmd::GDBSX_UNPAUSEVCPU),
        ("gdbsx.status", DomctlCmd::GDBSX_DOMSTATUS),
        ("unknown", DomctlCmd(999)),
    ] {
        value!(name, domctl_plain(cmd, id));
    }
    let _: Rc = domctl_plain(DomctlCmd::PAUSEDOMAIN, id);
    expect!("unpause", domctl_plain(DomctlCmd::UNPAUSEDOMAIN, id).0, 0);
}
