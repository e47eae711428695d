//! How a fake host answers hypercalls.

use super::events::Port;
use super::host::{Activity, FakeDomain, State};
use super::{read, read_bytes, write, write_bytes};
use oxen_abi::arch_x86_64::VcpuGuestContext;
use oxen_abi::domctl::{
    CreateDomain, DOMINF_BLOCKED, DOMINF_PAUSED, DOMINF_RUNNING, DOMINF_SHUTDOWN, DOMINF_SHUTDOWN_SHIFT, Domctl, DomctlCmd,
    GetDomainInfo, GetVcpuInfo, MaxMem, MaxVcpus, SCHEDOP_PUTINFO, SchedCredit,
    SchedulerOp, SetDomainHandle, VCPUAFFINITY_HARD, VCPUAFFINITY_SOFT, VcpuAffinity, VcpuContext,
    XEN_INVALID_MAX_VCPU_ID,
};
use oxen_abi::event_channel::{AllocUnbound, EvtchnOp};
use oxen_abi::memory::{MemoryOp, MemoryReservation};
use oxen_abi::sched::{RemoteShutdown, SchedOp};
use oxen_abi::version::{CompileInfo, PlatformParameters, VersionOp};
use oxen_abi::xen::{DOMID_FIRST_RESERVED, MmuUpdate, MmuextCmd, MmuextOp, MulticallEntry, Virq};
use oxen_abi::{Errno, Hypercall};

/// The most vCPUs of a domain.
const MAX_VCPUS: u32 = 512;
/// pCPUs of the host.
pub(super) const NR_CPUS: u32 = 2;
/// All of them, as the bitmap of an affinity.
pub(super) const ALL_CPUS: u8 = (1 << NR_CPUS) - 1;

/// Answers one call.
pub(super) fn answer(state: &mut State, op: Hypercall, args: [u64; 5]) -> Result<u32, Errno> {
    let [first, second, ..] = args;
    match op {
        Hypercall::DOMCTL => domctl(state, first),
        Hypercall::SYSCTL => super::sysctl::answer(state, first),
        Hypercall::MEMORY_OP => memory_op(state, MemoryOp(first as u32), second),
        Hypercall::MMUEXT_OP => mmuext_op(state, first, args[3] as u16),
        Hypercall::MMU_UPDATE => mmu_update(state, first, second, args[3] as u16),
        Hypercall::EVENT_CHANNEL_OP => event_channel_op(state, EvtchnOp(first as u32), second),
        Hypercall::SCHED_OP => sched_op(state, SchedOp(first as u32), second),
        Hypercall::MULTICALL => multicall(first, second),
        Hypercall::XEN_VERSION => version(state, VersionOp(first as u32), second),
        _ => Err(Errno::ENOSYS),
    }
}

/// The domain with this id, which the call is about.
fn domain(state: &mut State, domid: u16) -> Result<&mut FakeDomain, Errno> {
    state.domains.get_mut(&domid).ok_or(Errno::ESRCH)
}

fn domctl(state: &mut State, address: u64) -> Result<u32, Errno> {
    let mut domctl: Domctl = read(address);
    let domid = domctl.domain;
    let call = match domctl.cmd {
        DomctlCmd::CREATEDOMAIN => "domctl createdomain",
        DomctlCmd::DESTROYDOMAIN => "domctl destroydomain",
        DomctlCmd::PAUSEDOMAIN => "domctl pausedomain",
        DomctlCmd::UNPAUSEDOMAIN => "domctl unpausedomain",
        DomctlCmd::GETDOMAININFO => "domctl getdomaininfo",
        DomctlCmd::MAX_VCPUS => "domctl max_vcpus",
        DomctlCmd::MAX_MEM => "domctl max_mem",
        DomctlCmd::SETVCPUCONTEXT => "domctl setvcpucontext",
        DomctlCmd::GETVCPUCONTEXT => "domctl getvcpucontext",
        DomctlCmd::GETVCPUINFO => "domctl getvcpuinfo",
        DomctlCmd::SCHEDULER_OP => "domctl scheduler_op",
        DomctlCmd::SETDOMAINHANDLE => "domctl setdomainhandle",
        DomctlCmd::HYPERCALL_INIT => "domctl hypercall_init",
        DomctlCmd::SETTSCINFO => "domctl settscinfo",
        DomctlCmd::SETTIMEOFFSET => "domctl settimeoffset",
        DomctlCmd::SET_CPU_POLICY => "domctl set_cpu_policy",
        DomctlCmd::SETVCPUAFFINITY => "domctl setvcpuaffinity",
        DomctlCmd::GETVCPUAFFINITY => "domctl getvcpuaffinity",
        DomctlCmd::RESUMEDOMAIN => "domctl resumedomain",
        _ => return Err(Errno::ENOSYS),
    };
    state.enter(call)?;
    match domctl.cmd {
        DomctlCmd::CREATEDOMAIN => {
            domctl.domain = create(state, domid, domctl.u.read())?;
        }
        DomctlCmd::DESTROYDOMAIN => {
            domain(state, domid)?;
            state.destroy(domid);
            state.ports.raise_virq(Virq::DOM_EXC.raw());
        }
        DomctlCmd::GETDOMAININFO => {
            let (id, domain) = state.domains.range(domid..).next().ok_or(Errno::ESRCH)?;
            domctl.u.write(&info(*id, domain));
        }
        cmd => of_domain(domain(state, domid)?, cmd, &mut domctl)?,
    }
    write(address, &domctl);
    Ok(0)
}

fn create(state: &mut State, domid: u16, config: CreateDomain) -> Result<u16, Errno> {
    let domid = if domid == 0 || domid >= DOMID_FIRST_RESERVED {
        let next = state.next_domid;
        state.next_domid = next.checked_add(1).ok_or(Errno::ENOMEM)?;
        next
    } else {
        domid
    };
    if state.domains.contains_key(&domid) {
        return Err(Errno::EEXIST);
    }
    if config.max_vcpus == 0 || config.max_vcpus > MAX_VCPUS {
        return Err(Errno::EINVAL);
    }
    state.insert_domain(domid, config);
    domain(state, domid)?.paused = 1;
    Ok(domid)
}

/// The commands that concern an existing domain.
fn of_domain(domain: &mut FakeDomain, cmd: DomctlCmd, domctl: &mut Domctl) -> Result<(), Errno> {
    match cmd {
        DomctlCmd::PAUSEDOMAIN => domain.paused += 1,
        DomctlCmd::UNPAUSEDOMAIN => {
            domain.paused = domain.paused.checked_sub(1).ok_or(Errno::EINVAL)?;
        }
        DomctlCmd::RESUMEDOMAIN => domain.shutdown = None,
        DomctlCmd::MAX_VCPUS => {
            let MaxVcpus { max } = domctl.u.read();
            if max != domain.config.max_vcpus {
                return Err(Errno::EINVAL);
            }
            domain.nr_vcpus = max;
        }
        DomctlCmd::MAX_MEM => {
            let MaxMem { max_memkb } = domctl.u.read();
            domain.max_pages = max_memkb / 4;
        }
        DomctlCmd::SETVCPUCONTEXT => {
            let argument: VcpuContext = domctl.u.read();
            if argument.vcpu >= domain.nr_vcpus {
                return Err(Errno::EINVAL);
            }
            let bytes = read_bytes(argument.ctxt.address(), size_of::<VcpuGuestContext>());
            domain.contexts.insert(argument.vcpu, bytes);
        }
        DomctlCmd::GETVCPUCONTEXT => {
            let argument: VcpuContext = domctl.u.read();
            let bytes = domain.contexts.get(&argument.vcpu).ok_or(Errno::ENODATA)?;
            write_bytes(argument.ctxt.address(), bytes);
        }
        DomctlCmd::GETVCPUINFO => {
            let info: GetVcpuInfo = domctl.u.read();
            if info.vcpu >= domain.nr_vcpus {
                return Err(Errno::ESRCH);
            }
            let online = u8::from(domain.contexts.contains_key(&info.vcpu));
            let Activity { cpu, running, blocked, cpu_time_ns } = domain.activity.get(&info.vcpu).copied().unwrap_or_default();
            domctl.u.write(&GetVcpuInfo { online, running: running.into(), blocked: blocked.into(), cpu, cpu_time: cpu_time_ns, ..info });
        }
        DomctlCmd::SETVCPUAFFINITY | DomctlCmd::GETVCPUAFFINITY => {
            let argument: VcpuAffinity = domctl.u.read();
            if argument.vcpu >= domain.nr_vcpus {
                return Err(Errno::EINVAL);
            }
            let (hard, soft) = domain.affinity.entry(argument.vcpu).or_insert((ALL_CPUS, ALL_CPUS));
            for (flag, set, map) in [(VCPUAFFINITY_HARD, hard, argument.cpumap_hard), (VCPUAFFINITY_SOFT, soft, argument.cpumap_soft)] {
                if cmd == DomctlCmd::SETVCPUAFFINITY && argument.flags & flag != 0 {
                    *set = read::<u8>(map.bitmap.address()) & ALL_CPUS;
                }
                write(map.bitmap.address(), set);
            }
        }
        DomctlCmd::SCHEDULER_OP => {
            let mut argument: SchedulerOp = domctl.u.read();
            let wanted: SchedCredit = argument.u.read();
            if argument.cmd == SCHEDOP_PUTINFO {
                if wanted.weight != 0 {
                    domain.credit.0 = wanted.weight;
                }
                if wanted.cap != 0xffff {
                    domain.credit.1 = wanted.cap;
                }
            }
            let (weight, cap) = domain.credit;
            argument.u.write(&SchedCredit { weight, cap });
            domctl.u.write(&argument);
        }
        DomctlCmd::SETDOMAINHANDLE => {
            let SetDomainHandle { handle } = domctl.u.read();
            domain.config.handle = handle;
        }
        // Accepted, without effect here.
        _ => {}
    }
    Ok(())
}

/// What getdomaininfo tells of a domain.
pub(super) fn info(domid: u16, domain: &FakeDomain) -> GetDomainInfo {
    let running = if domain.activity.values().any(|vcpu| vcpu.running) { DOMINF_RUNNING } else { 0 };
    let waits = |vcpu: &u32| domain.activity.get(vcpu).is_some_and(|vcpu| vcpu.blocked);
    let blocked = if !domain.contexts.is_empty() && domain.contexts.keys().all(waits) { DOMINF_BLOCKED } else { 0 };
    let paused = if domain.paused > 0 { DOMINF_PAUSED } else { 0 };
    let shutdown = domain.shutdown.map_or(0, |reason| {
        DOMINF_SHUTDOWN | reason.raw() << DOMINF_SHUTDOWN_SHIFT
    });
    GetDomainInfo {
        domain: domid,
        flags: running | blocked | paused | shutdown,
        cpu_time: domain.activity.values().map(|vcpu| vcpu.cpu_time_ns).sum(),
        tot_pages: domain.frames.len() as u64,
        max_pages: domain.max_pages,
        outstanding_pages: domain.claimed,
        shared_info_frame: domain.shared_info,
        nr_online_vcpus: domain.contexts.len() as u32,
        max_vcpu_id: domain
            .nr_vcpus
            .checked_sub(1)
            .unwrap_or(XEN_INVALID_MAX_VCPU_ID),
        handle: domain.config.handle,
        ..GetDomainInfo::default()
    }
}

/// Several calls in one, of which only the counts of shared memory are known: there is none.
fn multicall(address: u64, count: u64) -> Result<u32, Errno> {
    for n in 0..count {
        let at = address + n * size_of::<MulticallEntry>() as u64;
        let mut entry: MulticallEntry = read(at);
        let [op, ..] = entry.args;
        let known = [MemoryOp::GET_SHARING_FREED_PAGES, MemoryOp::GET_SHARING_SHARED_PAGES].contains(&MemoryOp(op as u32));
        let known = entry.op == u64::from(Hypercall::MEMORY_OP.raw()) && known;
        entry.result = if known { 0 } else { Errno::ENOSYS.to_ret().cast_unsigned() };
        write(at, &entry);
    }
    Ok(0)
}

fn version(state: &mut State, op: VersionOp, address: u64) -> Result<u32, Errno> {
    state.enter("xen_version")?;
    match op {
        VersionOp::VERSION => return Ok(4 << 16 | 17),
        VersionOp::PAGESIZE => return Ok(4096),
        VersionOp::EXTRAVERSION => write_bytes(address, b".fake\0"),
        VersionOp::CAPABILITIES => write_bytes(address, b"xen-3.0-x86_64 \0"),
        VersionOp::CHANGESET | VersionOp::COMMANDLINE => write_bytes(address, b"\0"),
        VersionOp::COMPILE_INFO => write(address, &CompileInfo::default()),
        VersionOp::PLATFORM_PARAMETERS => write(address, &PlatformParameters::default()),
        _ => return Err(Errno::ENOSYS),
    }
    Ok(0)
}

fn memory_op(state: &mut State, op: MemoryOp, address: u64) -> Result<u32, Errno> {
    match op {
        MemoryOp::POPULATE_PHYSMAP => {
            state.enter("memory_op populate_physmap")?;
            populate(state, &read(address))
        }
        MemoryOp::DECREASE_RESERVATION => {
            state.enter("memory_op decrease_reservation")?;
            decrease(state, &read(address))
        }
        MemoryOp::CLAIM_PAGES => {
            state.enter("memory_op claim_pages")?;
            let argument: MemoryReservation = read(address);
            let others = state.domains.iter().filter(|(domid, _)| **domid != argument.domid);
            let free = state.free.saturating_sub(others.map(|(_, domain)| domain.claimed).sum());
            let domain = domain(state, argument.domid)?;
            let more = argument
                .nr_extents
                .saturating_sub(domain.frames.len() as u64);
            if argument.nr_extents > domain.max_pages {
                return Err(Errno::EINVAL);
            }
            if more > free {
                return Err(Errno::ENOMEM);
            }
            domain.claimed = more;
            Ok(0)
        }
        MemoryOp::SET_MEMORY_MAP => {
            state.enter("memory_op set_memory_map")?;
            Ok(0)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn populate(state: &mut State, argument: &MemoryReservation) -> Result<u32, Errno> {
    let len = 1_u64 << argument.extent_order;
    for done in 0..argument.nr_extents {
        let at = argument.extent_start.element(done).ok_or(Errno::EFAULT)?;
        let pfn: u64 = read(at.address());
        let free = state.free;
        let domain = domain(state, argument.domid)?;
        if len > free || domain.frames.len() as u64 + len > domain.max_pages {
            return Ok(done as u32);
        }
        let first = state.take_extent(len);
        let domain = self::domain(state, argument.domid)?;
        domain.claimed = domain.claimed.saturating_sub(len);
        for n in 0..len {
            domain.frames.insert(first + n);
            domain.m2p.insert(first + n, pfn + n);
        }
        write(at.address(), &first);
    }
    Ok(argument.nr_extents as u32)
}

fn decrease(state: &mut State, argument: &MemoryReservation) -> Result<u32, Errno> {
    let len = 1_u64 << argument.extent_order;
    for done in 0..argument.nr_extents {
        let at = argument.extent_start.element(done).ok_or(Errno::EFAULT)?;
        let first: u64 = read(at.address());
        let domain = domain(state, argument.domid)?;
        if !(first..first + len).all(|mfn| domain.frames.contains(&mfn)) {
            return Ok(done as u32);
        }
        for mfn in first..first + len {
            domain.frames.remove(&mfn);
            domain.m2p.remove(&mfn);
        }
        state.free += len;
        state.returned.extend(first..first + len);
    }
    Ok(argument.nr_extents as u32)
}

fn mmuext_op(state: &mut State, address: u64, domid: u16) -> Result<u32, Errno> {
    let operation: MmuextOp = read(address);
    match operation.cmd {
        MmuextCmd::PIN_L4_TABLE => {
            state.enter("mmuext_op pin_l4_table")?;
            let domain = domain(state, domid)?;
            if !domain.frames.contains(&operation.arg1) {
                return Err(Errno::EINVAL);
            }
            domain.pinned.push(operation.arg1);
            Ok(0)
        }
        MmuextCmd::UNPIN_TABLE => {
            state.enter("mmuext_op unpin_table")?;
            let domain = domain(state, domid)?;
            let pinned = domain.pinned.iter().position(|mfn| *mfn == operation.arg1);
            domain.pinned.remove(pinned.ok_or(Errno::EINVAL)?);
            Ok(0)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn mmu_update(state: &mut State, address: u64, count: u64, domid: u16) -> Result<u32, Errno> {
    state.enter("mmu_update machphys")?;
    let domain = domain(state, domid)?;
    for n in 0..count {
        let update: MmuUpdate = read(address + n * size_of::<MmuUpdate>() as u64);
        let mfn = update.ptr >> 12;
        if update.ptr & 3 != 1 || !domain.frames.contains(&mfn) {
            return Err(Errno::EINVAL);
        }
        domain.m2p.insert(mfn, update.val);
    }
    Ok(0)
}

fn event_channel_op(state: &mut State, op: EvtchnOp, address: u64) -> Result<u32, Errno> {
    if op != EvtchnOp::ALLOC_UNBOUND {
        return Err(Errno::ENOSYS);
    }
    state.enter("event_channel_op alloc_unbound")?;
    let mut argument: AllocUnbound = read(address);
    domain(state, argument.dom)?;
    let remote = argument.remote_dom;
    argument.port = state.ports.allocate(argument.dom, Port::Unbound { remote });
    write(address, &argument);
    Ok(0)
}

fn sched_op(state: &mut State, op: SchedOp, address: u64) -> Result<u32, Errno> {
    if op != SchedOp::REMOTE_SHUTDOWN {
        return Err(Errno::ENOSYS);
    }
    state.enter("sched_op remote_shutdown")?;
    let argument: RemoteShutdown = read(address);
    domain(state, argument.domain_id)?.shutdown = Some(argument.reason);
    Ok(0)
}
