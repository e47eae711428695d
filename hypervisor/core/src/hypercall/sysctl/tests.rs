use crate::hypercall::testing::{BUFFER, D5, FRAMES, NOWHERE, World};
use core::fmt::Debug;
use oxen_abi::domctl::{DOMINF_PAUSED, GetDomainInfo, SchedulerId};
use oxen_abi::sysctl::*;
use oxen_abi::xen::XenctlBitmap;
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_abi::{Errno, GuestHandle, Hypercall};
use oxen_types::{CpuId, DomId};

fn sysctl<T: FromBytes + IntoBytes + Immutable + Debug>(w: &World, cmd: SysctlCmd, request: T) -> Result<T, Errno> {
    let mut op = Sysctl::new(cmd, &request);
    assert_eq!(w.call(DomId::DOM0, Hypercall::SYSCTL, &mut op)?, 0);
    Ok(op.u.read())
}

#[test]
fn is_for_the_control_domain_and_this_version() {
    let w = World::new();
    let mut op = Sysctl::new(SysctlCmd::SCHED_ID, &SchedId::default());
    assert_eq!(w.call(D5, Hypercall::SYSCTL, &mut op), Err(Errno::EPERM));
    op.interface_version = 0x14;
    assert_eq!(w.call(DomId::DOM0, Hypercall::SYSCTL, &mut op), Err(Errno::EACCES));
    op.interface_version = XEN_SYSCTL_INTERFACE_VERSION;
    assert_eq!(w.call(DomId::DOM0, Hypercall::SYSCTL, &mut op), Ok(0));
    assert_eq!(op.u.read::<SchedId>().sched_id, SchedulerId::CREDIT);
}

#[test]
fn what_is_not_implemented_says_so() {
    let w = World::new();
    assert_eq!(sysctl(&w, SysctlCmd::CPU_HOTPLUG, CpuHotplug::default()), Err(Errno::ENOSYS));
    let mut text = [0; 200];
    let (length, _) = w.hv.console_copy_ring(0, &mut text);
    assert!(core::str::from_utf8(&text[..length]).unwrap().contains("XEN_SYSCTL_cpu_hotplug"));
    assert_eq!(sysctl(&w, SysctlCmd::PCITOPOINFO, PciTopoInfo::default()), Err(Errno::ENODEV));
}

#[test]
fn the_machine() {
    let w = World::new();
    let info = sysctl(&w, SysctlCmd::PHYSINFO, PhysInfo::default()).unwrap();
    assert_eq!((info.nr_cpus, info.max_cpu_id, info.threads_per_core, info.cores_per_socket), (2, 1, 1, 2));
    assert_eq!((info.nr_nodes, info.total_pages, info.max_mfn), (1, FRAMES, FRAMES - 1));
    assert_eq!(info.free_pages, w.hv.memory.free_frames());
    assert_eq!(info.capabilities, PHYSCAP_PV | PHYSCAP_GNTTAB_V1 | PHYSCAP_GNTTAB_V2);
    let numa = sysctl(&w, SysctlCmd::NUMAINFO, NumaInfo::default()).unwrap();
    assert_eq!(numa.num_nodes, 1);
    sysctl(&w, SysctlCmd::NUMAINFO, NumaInfo { meminfo: GuestHandle::new(BUFFER.0), ..numa }).unwrap();
    assert_eq!(w.peek::<MemInfo>(BUFFER).memsize, FRAMES * 4096);
}

#[test]
fn topology_is_counted_then_told() {
    let w = World::new();
    let count = sysctl(&w, SysctlCmd::CPUTOPOINFO, CpuTopoInfo::default()).unwrap();
    assert_eq!(count.num_cpus, 2);
    let request = CpuTopoInfo { num_cpus: 100, cputopo: GuestHandle::new(BUFFER.0), ..CpuTopoInfo::default() };
    assert_eq!(sysctl(&w, SysctlCmd::CPUTOPOINFO, request).unwrap().num_cpus, 2);
    let [first, second]: [CpuTopo; 2] = w.peek(BUFFER);
    assert_eq!((first.core, second.core, second.socket, second.node), (0, 1, 0, 0));
    let elsewhere = CpuTopoInfo { cputopo: GuestHandle::new(NOWHERE.0), ..request };
    assert_eq!(sysctl(&w, SysctlCmd::CPUTOPOINFO, elsewhere), Err(Errno::EFAULT));
}

#[test]
fn domains_in_order() {
    let w = World::new();
    w.hv.pause_domain(&w.domain(D5)).unwrap();
    let list = |first_domain, max_domains| {
        let buffer = GuestHandle::new(BUFFER.0);
        let request = GetDomainInfoList { first_domain, max_domains, buffer, ..GetDomainInfoList::default() };
        sysctl(&w, SysctlCmd::GETDOMAININFOLIST, request).unwrap().num_domains
    };
    assert_eq!(list(0, 100), 2);
    let [zero, five]: [GetDomainInfo; 2] = w.peek(BUFFER);
    assert_eq!((zero.domain, five.domain), (0, 5));
    assert_eq!((zero.flags, five.flags), (0xff << 16, 0xff << 16 | DOMINF_PAUSED));
    assert_eq!((zero.max_pages, zero.max_vcpu_id, zero.nr_online_vcpus), (100, 1, 0));
    assert_eq!(list(1, 100), 1);
    assert_eq!(w.peek::<GetDomainInfo>(BUFFER).domain, 5);
    assert_eq!((list(0, 1), list(6, 100)), (1, 0));
}

#[test]
fn the_ring_in_pieces() {
    let w = World::new();
    w.hv.console_output(b"one two three");
    let read = |index, count, incremental, clear| {
        let buffer = GuestHandle::new(BUFFER.0);
        let request = ReadConsole { clear, incremental, index, buffer, count, ..ReadConsole::default() };
        let answer = sysctl(&w, SysctlCmd::READCONSOLE, request).unwrap();
        (answer.count, answer.index)
    };
    assert_eq!(read(0, 4, 1, 0), (4, 4));
    assert_eq!(read(4, 100, 1, 0), (9, 13));
    assert_eq!(&w.peek::<[u8; 9]>(BUFFER), b"two three");
    assert_eq!(read(99, 100, 0, 0), (13, 13));
    // Only what was read is forgotten.
    assert_eq!(read(0, 4, 1, 1), (4, 4));
    assert_eq!(read(0, 100, 1, 1), (9, 13));
    assert_eq!(read(0, 100, 1, 0), (0, 13));
}

#[test]
fn one_pool_has_all() {
    let w = World::new();
    let ask = |op, cpupool_id| {
        let cpumap = XenctlBitmap { bitmap: GuestHandle::new(BUFFER.0), nr_bits: 8, ..XenctlBitmap::default() };
        sysctl(&w, SysctlCmd::CPUPOOL_OP, CpupoolOp { op, cpupool_id, cpumap, ..CpupoolOp::default() })
    };
    let pool = ask(CpupoolCmd::INFO, 0).unwrap();
    assert_eq!((pool.cpupool_id, pool.n_dom, pool.sched_id, w.peek::<u8>(BUFFER)), (0, 2, SchedulerId::CREDIT, 3));
    assert_eq!(ask(CpupoolCmd::INFO, 1), Err(Errno::ENOENT));
    ask(CpupoolCmd::FREEINFO, 0).unwrap();
    assert_eq!(w.peek::<u8>(BUFFER), 0);
    assert_eq!(ask(CpupoolCmd::CREATE, 1), Err(Errno::EOPNOTSUPP));
    assert_eq!((ask(CpupoolCmd::CREATE, 0), ask(CpupoolCmd::DESTROY, 0)), (Err(Errno::EEXIST), Err(Errno::EBUSY)));
    assert_eq!((ask(CpupoolCmd::DESTROY, 1), ask(CpupoolCmd::RMCPU, 1)), (Err(Errno::ENOENT), Err(Errno::ENOENT)));
    assert_eq!((ask(CpupoolCmd::ADDCPU, 0), ask(CpupoolCmd::RMCPU, 0)), (Err(Errno::ENODEV), Err(Errno::EINVAL)));
    let move_domain = |domid, cpupool_id| {
        let request = CpupoolOp { op: CpupoolCmd::MOVEDOMAIN, domid, cpupool_id, ..CpupoolOp::default() };
        sysctl(&w, SysctlCmd::CPUPOOL_OP, request).map(|_| ())
    };
    assert_eq!((move_domain(5, 0), move_domain(5, 1)), (Ok(()), Err(Errno::ENOENT)));
    assert_eq!((move_domain(0, 0), move_domain(6, 0)), (Err(Errno::EPERM), Err(Errno::ESRCH)));
}

#[test]
fn parameters_of_the_scheduler() {
    let w = World::new();
    let call = |cmd, cpupool_id, sched_id, values: [u32; 3]| {
        let mut request = SchedulerOp { cmd, cpupool_id, sched_id, ..SchedulerOp::default() };
        let [tslice_ms, ratelimit_us, vcpu_migr_delay_us] = values;
        request.u.write(&CreditSchedule { tslice_ms, ratelimit_us, vcpu_migr_delay_us });
        let answer = sysctl(&w, SysctlCmd::SCHEDULER_OP, request)?.u.read::<CreditSchedule>();
        Ok([answer.tslice_ms, answer.ratelimit_us, answer.vcpu_migr_delay_us])
    };
    let credit = SchedulerId::CREDIT;
    assert_eq!(call(SCHEDOP_GETINFO, 0, credit, [0; 3]), Ok([30, 1000, 0]));
    assert_eq!(call(SCHEDOP_PUTINFO, 0, credit, [5, 0, 100]), Ok([5, 0, 100]));
    assert_eq!(call(SCHEDOP_PUTINFO, 0, credit, [5, 50, 100]), Err(Errno::EINVAL));
    assert_eq!(call(SCHEDOP_GETINFO, 0, credit, [0; 3]), Ok([5, 0, 100]));
    assert_eq!(call(SCHEDOP_GETINFO, 1, credit, [0; 3]), Err(Errno::ESRCH));
    assert_eq!(call(SCHEDOP_GETINFO, 0, SchedulerId::RTDS, [0; 3]), Err(Errno::EINVAL));
    assert_eq!(call(2, 1, credit, [0; 3]), Err(Errno::EINVAL));
}

#[test]
fn idle_time_adds_up() {
    let w = World::new();
    w.machine.advance_ns(1000);
    let request = GetCpuInfo { max_cpus: 10, info: GuestHandle::new(BUFFER.0), ..GetCpuInfo::default() };
    assert_eq!(sysctl(&w, SysctlCmd::GETCPUINFO, request).unwrap().nr_cpus, 2);
    assert_eq!(w.peek::<CpuInfo>(BUFFER).idletime, 1000);
    let dom0 = w.domain(DomId::DOM0);
    let vcpu = dom0.vcpus().next().unwrap();
    vcpu.unstop(crate::vcpu::stop::DOWN);
    w.hv.sched.wake(w.machine, vcpu);
    assert!(w.hv.sched.pick(w.machine, CpuId(0)).is_some());
    w.machine.advance_ns(500);
    assert_eq!(w.hv.sched.idle_ns(w.machine, CpuId(0)), 1000);
    assert_eq!(w.hv.sched.idle_ns(w.machine, CpuId(1)), 1500);
}

#[test]
fn features_by_words() {
    let w = World::new();
    let ask = |index, nr_features| {
        let mut op = Sysctl::new(
            SysctlCmd::GET_CPU_FEATURESET,
            &CpuFeatureset { index, nr_features, features: GuestHandle::new(BUFFER.0) },
        );
        let answer = w.call(DomId::DOM0, Hypercall::SYSCTL, &mut op);
        (answer, op.u.read::<CpuFeatureset>().nr_features)
    };
    assert_eq!(ask(CPU_FEATURESET_HOST, 40), (Ok(0), 19));
    assert_eq!(ask(CPU_FEATURESET_PV, 5), (Err(Errno::ENOBUFS), 5));
    assert_eq!(ask(CPU_FEATURESET_HVM, 19).0, Err(Errno::EOPNOTSUPP));
}
