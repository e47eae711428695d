use crate::hypercall::testing::{BUFFER, D5, World};
use crate::vcpu::{Placement, stop};
use core::fmt::Debug;
use oxen_abi::domctl::*;
use oxen_abi::xen::XenctlBitmap;
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_abi::{Errno, GuestHandle, Hypercall};
use oxen_testkit::Event;
use oxen_types::{CpuId, DomId, VcpuId};

fn domctl<T: FromBytes + IntoBytes + Immutable + Debug>(w: &World, cmd: DomctlCmd, domain: DomId, request: T) -> Result<T, Errno> {
    let mut op = Domctl::new(cmd, domain.0, &request);
    assert_eq!(w.call(DomId::DOM0, Hypercall::DOMCTL, &mut op)?, 0);
    Ok(op.u.read())
}

#[test]
fn is_for_the_control_domain_and_this_version() {
    let w = World::new();
    let mut op = Domctl::new(DomctlCmd::GETDOMAININFO, 5, &GetDomainInfo::default());
    assert_eq!(w.call(D5, Hypercall::DOMCTL, &mut op), Err(Errno::EPERM));
    op.interface_version = 0x16;
    assert_eq!(w.call(DomId::DOM0, Hypercall::DOMCTL, &mut op), Err(Errno::EACCES));
}

#[test]
fn a_missing_domain_is_the_next_one() {
    let w = World::new();
    let ask = |domain| domctl(&w, DomctlCmd::GETDOMAININFO, DomId(domain), GetDomainInfo::default()).map(|info| info.domain);
    assert_eq!([ask(0), ask(1), ask(5)], [Ok(0), Ok(5), Ok(5)]);
    assert_eq!(ask(6), Err(Errno::ESRCH));
    assert_eq!(ask(0x7ff0), Err(Errno::EINVAL));
    assert_eq!(domctl(&w, DomctlCmd::GET_ADDRESS_SIZE, DomId(1), AddressSize::default()), Err(Errno::ESRCH));
}

#[test]
fn pauses_are_counted() {
    let w = World::new();
    let d5 = w.domain(D5);
    let vcpu = d5.vcpu(VcpuId(0)).unwrap();
    vcpu.unstop(stop::DOWN);
    w.hv.sched.wake(w.machine, vcpu);
    let step = |cmd, domain| domctl(&w, cmd, domain, 0_u64).map(|_| ());
    assert_eq!(step(DomctlCmd::PAUSEDOMAIN, DomId::DOM0), Err(Errno::EINVAL));
    step(DomctlCmd::PAUSEDOMAIN, D5).unwrap();
    step(DomctlCmd::PAUSEDOMAIN, D5).unwrap();
    assert!(matches!(*vcpu.place.lock(), Placement::Off(_)));
    step(DomctlCmd::UNPAUSEDOMAIN, D5).unwrap();
    assert!(matches!(*vcpu.place.lock(), Placement::Off(_)) && d5.is_paused());
    step(DomctlCmd::UNPAUSEDOMAIN, D5).unwrap();
    assert!(matches!(*vcpu.place.lock(), Placement::Queued(_)) && !d5.is_paused());
    assert_eq!(step(DomctlCmd::UNPAUSEDOMAIN, D5), Err(Errno::EINVAL));
}

#[test]
fn vcpus_by_number() {
    let w = World::new();
    let ask = |vcpu| domctl(&w, DomctlCmd::GETVCPUINFO, D5, GetVcpuInfo { vcpu, ..GetVcpuInfo::default() });
    assert_eq!(ask(0).map(|info| (info.online, info.blocked, info.running)), Ok((0, 0, 0)));
    assert_eq!(ask(1).map(|info| info.cpu), Ok(1));
    assert_eq!(ask(2), Err(Errno::EINVAL));
    w.domain(D5).vcpu(VcpuId(0)).unwrap().unstop(stop::DOWN);
    w.domain(D5).vcpu(VcpuId(0)).unwrap().stop(stop::BLOCKED);
    assert_eq!(ask(0).map(|info| (info.online, info.blocked)), Ok((1, 1)));
    let info = domctl(&w, DomctlCmd::GETDOMAININFO, D5, GetDomainInfo::default()).unwrap();
    assert_eq!((info.flags & 0xffff, info.nr_online_vcpus), (DOMINF_BLOCKED, 1));
}

#[test]
fn affinity_moves_what_waits_and_what_runs() {
    let w = World::new();
    let d5 = w.domain(D5);
    let vcpu = d5.vcpu(VcpuId(0)).unwrap();
    vcpu.unstop(stop::DOWN);
    w.hv.sched.wake(w.machine, vcpu);
    let set = |flags, cpus: u8| {
        w.poke(BUFFER, &[cpus]);
        let map = XenctlBitmap { bitmap: GuestHandle::new(BUFFER.0), nr_bits: 8, ..XenctlBitmap::default() };
        let request = VcpuAffinity { vcpu: 0, flags, cpumap_hard: map, cpumap_soft: map };
        domctl(&w, DomctlCmd::SETVCPUAFFINITY, D5, request).map(|_| w.peek::<u8>(BUFFER))
    };
    assert_eq!(*vcpu.place.lock(), Placement::Queued(CpuId(0)));
    // CPU 1 is online, CPUs 2 and up are not.
    assert_eq!(set(VCPUAFFINITY_HARD, 0b1110), Ok(0b10));
    assert_eq!(*vcpu.place.lock(), Placement::Queued(CpuId(1)));
    assert!(w.machine.take_events().contains(&Event::Kick(CpuId(1))));
    assert_eq!(set(VCPUAFFINITY_HARD, 0b1100), Err(Errno::EINVAL));
    assert_eq!(set(0, 1), Err(Errno::EINVAL));

    assert!(w.hv.sched.pick(w.machine, CpuId(0)).is_none());
    assert!(w.machine.on_cpu(1, || w.hv.sched.pick(w.machine, CpuId(1))).is_some());
    assert_eq!(set(VCPUAFFINITY_HARD, 0b01), Ok(0b01));
    assert_eq!(*vcpu.place.lock(), Placement::Running(CpuId(1)));
    assert!(w.machine.take_events().contains(&Event::Kick(CpuId(1))) && w.hv.sched.has_work(CpuId(1)));
    w.machine.on_cpu(1, || w.hv.sched.put_back(w.machine, CpuId(1), vcpu));
    assert_eq!(*vcpu.place.lock(), Placement::Queued(CpuId(0)));
    assert!(w.machine.take_events().contains(&Event::Kick(CpuId(0))));
    assert_eq!(set(VCPUAFFINITY_SOFT, 0b11), Ok(0b01));
}

#[test]
fn properties() {
    let w = World::new();
    domctl(&w, DomctlCmd::MAX_MEM, D5, MaxMem { max_memkb: 4003 }).unwrap();
    assert_eq!(w.hv.memory.account(D5).unwrap().limit(), 1000);
    let handle = core::array::from_fn(|i| i as u8);
    domctl(&w, DomctlCmd::SETDOMAINHANDLE, D5, SetDomainHandle { handle }).unwrap();
    assert_eq!(domctl(&w, DomctlCmd::GETDOMAININFO, D5, GetDomainInfo::default()).unwrap().handle, handle);
    assert_eq!(domctl(&w, DomctlCmd::GET_ADDRESS_SIZE, D5, AddressSize::default()).unwrap().size, 64);
    assert_eq!(domctl(&w, DomctlCmd::GETTSCINFO, DomId::DOM0, TscInfo::default()), Err(Errno::EINVAL));
    w.poke(BUFFER, &[0xff; 3]);
    let nodemap = XenctlBitmap { bitmap: GuestHandle::new(BUFFER.0), nr_bits: 12, ..XenctlBitmap::default() };
    domctl(&w, DomctlCmd::GETNODEAFFINITY, D5, NodeAffinity { nodemap }).unwrap();
    assert_eq!(w.peek::<[u8; 3]>(BUFFER), [1, 0, 0xff]);
    w.poke(BUFFER, &[2, 0]);
    assert_eq!(domctl(&w, DomctlCmd::SETNODEAFFINITY, D5, NodeAffinity { nodemap }), Err(Errno::EINVAL));
}

#[test]
fn weights_and_caps() {
    let w = World::new();
    let call = |sched_id, cmd, weight, cap| {
        let mut request = SchedulerOp { sched_id, cmd, ..SchedulerOp::default() };
        request.u.write(&SchedCredit { weight, cap });
        domctl(&w, DomctlCmd::SCHEDULER_OP, D5, request).map(|answer| answer.u.read::<SchedCredit>()).map(|c| (c.weight, c.cap))
    };
    let credit = SchedulerId::CREDIT;
    assert_eq!(call(credit, SCHEDOP_GETINFO, 1, 1), Ok((256, 0)));
    call(credit, SCHEDOP_PUTINFO, 512, 150).unwrap();
    call(credit, SCHEDOP_PUTINFO, 0, 0xffff).unwrap();
    assert_eq!(call(credit, SCHEDOP_GETINFO, 0, 0), Ok((512, 150)));
    for cmd in [SCHEDOP_PUTVCPUINFO, SCHEDOP_GETVCPUINFO, 4] {
        assert_eq!(call(credit, cmd, 0, 0), Err(Errno::EINVAL));
    }
    assert_eq!(call(SchedulerId::CREDIT2, SCHEDOP_GETINFO, 0, 0), Err(Errno::EINVAL));
}

#[test]
fn permissions_reach_the_domain() {
    let w = World::new();
    let ports = |first_port, nr_ports, allow_access| {
        domctl(&w, DomctlCmd::IOPORT_PERMISSION, D5, IoportPermission { first_port, nr_ports, allow_access, ..IoportPermission::default() }).map(|_| ())
    };
    ports(0x3f0, 8, 1).unwrap();
    ports(0x3f2, 1, 0).unwrap();
    let has = |first, last| w.domain(D5).access.lock().ports.contains(first, last);
    assert!(has(0x3f0, 0x3f1) && has(0x3f3, 0x3f7) && !has(0x3f0, 0x3f7) && !has(0x3f8, 0x3f8));
    assert_eq!([ports(0x20, 1, 1), ports(0x1f, 2, 1)], [Err(Errno::EPERM); 2], "the interrupt controller's");
    assert_eq!([ports(5, 0, 1), ports(0xffff, 2, 1), ports(u32::MAX, 2, 1)], [Err(Errno::EINVAL); 3]);
    let memory = |first_mfn, nr_mfns| {
        domctl(&w, DomctlCmd::IOMEM_PERMISSION, D5, IomemPermission { first_mfn, nr_mfns, allow_access: 1, ..IomemPermission::default() }).map(|_| ())
    };
    memory(0xfeb00, 16).unwrap();
    assert!(w.domain(D5).access.lock().memory.contains(0xfeb00, 0xfeb0f));
    assert_eq!([memory(100, 1), memory(0xfee00, 1), memory(0xfeb00, 1 << 30)], [Err(Errno::EPERM); 3], "RAM, the local APIC, too many");
    assert_eq!([memory(1, 0), memory(u64::MAX, 2)], [Err(Errno::EINVAL); 2]);
}

#[test]
fn virtual_interrupts_find_their_handler() {
    let w = World::new();
    let bind = |domain: DomId| {
        let handler = w.domain(domain);
        handler.events.lock().bind_virq(w.machine, VcpuId(0), oxen_abi::xen::Virq::DOM_EXC).unwrap()
    };
    let ports = [bind(DomId::DOM0), bind(D5)];
    let pending = || [(DomId::DOM0, ports[0]), (D5, ports[1])].map(|(id, port)| w.domain(id).events.lock().is_pending(w.machine, port));
    let set = |domain, virq| domctl(&w, DomctlCmd::SET_VIRQ_HANDLER, domain, SetVirqHandler { virq }).map(|_| ());
    set(D5, 3).unwrap();
    w.hv.raise_global_virq(oxen_abi::xen::Virq::DOM_EXC);
    assert_eq!(pending(), [false, true]);
    // Its end gives the interrupt back.
    w.hv.forget_virq_handler(D5);
    w.hv.raise_global_virq(oxen_abi::xen::Virq::DOM_EXC);
    assert_eq!(pending(), [true, true]);
    assert_eq!([set(D5, 0), set(D5, 24), set(D5, u32::MAX)], [Err(Errno::EINVAL); 3]);
}
