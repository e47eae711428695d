//! How a fake host answers questions about itself.

use super::calls::{ALL_CPUS, NR_CPUS, info};
use super::host::State;
use super::{read, read_bytes, write, write_bytes};
use oxen_abi::Errno;
use oxen_abi::domctl::SchedulerId;
use oxen_abi::sysctl::{
    CpuTopo, CpuTopoInfo, CpupoolCmd, CpupoolOp, DebugKeys, GetDomainInfoList, MemInfo, NumaInfo,
    PHYSCAP_PV, PhysInfo, ReadConsole, SchedId, Sysctl, SysctlCmd,
};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// The distance of a node to itself.
const LOCAL_DISTANCE: u32 = 10;

/// Answers the call whose argument is at `address`.
pub(super) fn answer(state: &mut State, address: u64) -> Result<u32, Errno> {
    let mut sysctl: Sysctl = read(address);
    match sysctl.cmd {
        SysctlCmd::PHYSINFO => {
            state.enter("sysctl physinfo")?;
            sysctl.u.write(&physinfo(state));
        }
        SysctlCmd::GETDOMAININFOLIST => {
            state.enter("sysctl getdomaininfolist")?;
            let mut list: GetDomainInfoList = sysctl.u.read();
            let mut count = 0;
            let found = state.domains.range(list.first_domain..);
            for (domid, domain) in found.take(list.max_domains as usize) {
                let at = list.buffer.element(count).ok_or(Errno::EFAULT)?;
                write(at.address(), &info(*domid, domain));
                count += 1;
            }
            list.num_domains = u32::try_from(count).map_err(|_| Errno::EINVAL)?;
            sysctl.u.write(&list);
        }
        SysctlCmd::SCHED_ID => {
            state.enter("sysctl sched_id")?;
            sysctl.u.write(&SchedId { sched_id: SchedulerId::CREDIT });
        }
        SysctlCmd::CPUTOPOINFO => {
            state.enter("sysctl cputopoinfo")?;
            let mut info: CpuTopoInfo = sysctl.u.read();
            for cpu in 0..info.num_cpus.min(NR_CPUS) {
                if let Some(at) = info.cputopo.element(u64::from(cpu)) {
                    write(at.address(), &CpuTopo { core: cpu, socket: 0, node: 0 });
                }
            }
            info.num_cpus = NR_CPUS;
            sysctl.u.write(&info);
        }
        SysctlCmd::NUMAINFO => {
            state.enter("sysctl numainfo")?;
            let mut info: NumaInfo = sysctl.u.read();
            if info.num_nodes > 0 {
                let host = physinfo(state);
                write(info.meminfo.address(), &MemInfo { memsize: host.total_pages * PAGE, memfree: host.free_pages * PAGE });
                write(info.distance.address(), &LOCAL_DISTANCE);
            }
            info.num_nodes = 1;
            sysctl.u.write(&info);
        }
        SysctlCmd::CPUPOOL_OP => {
            state.enter("sysctl cpupool_op")?;
            let mut pool: CpupoolOp = sysctl.u.read();
            let cpus = match (pool.op, pool.cpupool_id) {
                (CpupoolCmd::INFO, 0) => ALL_CPUS,
                (CpupoolCmd::FREEINFO, _) => 0,
                (CpupoolCmd::INFO, _) => return Err(Errno::ENOENT),
                _ => return Err(Errno::ENOSYS),
            };
            pool.n_dom = u32::try_from(state.domains.len()).map_err(|_| Errno::EINVAL)?;
            pool.sched_id = SchedulerId::CREDIT;
            write(pool.cpumap.bitmap.address(), &cpus);
            sysctl.u.write(&pool);
        }
        SysctlCmd::READCONSOLE => {
            state.enter("sysctl readconsole")?;
            let mut argument: ReadConsole = sysctl.u.read();
            read_console(state, &mut argument);
            sysctl.u.write(&argument);
        }
        SysctlCmd::DEBUG_KEYS => {
            state.enter("sysctl debug_keys")?;
            let DebugKeys { keys, nr_keys, .. } = sysctl.u.read();
            for key in read_bytes(keys.address(), nr_keys as usize) {
                state.console.extend(format!("(XEN) '{}' pressed\n", char::from(key)).bytes());
            }
        }
        _ => return Err(Errno::ENOSYS),
    }
    write(address, &sysctl);
    Ok(0)
}

fn physinfo(state: &State) -> PhysInfo {
    let used: u64 = state.domains.values().map(|domain| domain.frames.len() as u64).sum();
    PhysInfo {
        threads_per_core: 1,
        cores_per_socket: NR_CPUS,
        nr_cpus: NR_CPUS,
        max_cpu_id: NR_CPUS - 1,
        nr_nodes: 1,
        cpu_khz: 2_400_000,
        capabilities: PHYSCAP_PV,
        total_pages: state.free + used,
        free_pages: state.free,
        outstanding_pages: state.domains.values().map(|domain| domain.claimed).sum(),
        ..PhysInfo::default()
    }
}

/// Reads what follows the index, or all that is left; clearing forgets what was read.
fn read_console(state: &mut State, argument: &mut ReadConsole) {
    let wanted = if argument.incremental != 0 { argument.index as usize } else { 0 };
    let start = wanted.clamp(state.console_forgotten, state.console.len());
    let end = state.console.len().min(start.saturating_add(argument.count as usize));
    if let Some(bytes) = state.console.get(start..end) {
        write_bytes(argument.buffer.address(), bytes);
    }
    if argument.clear != 0 {
        state.console_forgotten = end;
    }
    argument.count = (end - start) as u32;
    argument.index = end as u32;
}
