//! `sysctl`: the host.

use crate::bitmap::CpuMap;
use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::domctl::{GetDomainInfo, SchedulerId};
use oxen_abi::sysctl::{
    CpuTopo, CpuTopoInfo, CpupoolCmd, CpupoolOp, DebugKeys, GetDomainInfoList, INVALID_MEM_SZ,
    MemInfo, NumaInfo, PhysInfo, ReadConsole, SchedId, Sysctl, SysctlCmd,
    XEN_SYSCTL_INTERFACE_VERSION,
};
use oxen_abi::xen::{DOMID_FIRST_RESERVED, XenctlBitmap};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_abi::{Errno, Hypercall};

/// Domains asked for in one call.
const DOMAINS_PER_CALL: u32 = 256;
/// Domains asked for first.
const FIRST_DOMAINS: u32 = 32;
/// Bytes of the console ring asked for in one call.
const CONSOLE_CHUNK: u32 = 32 * 1024;
/// Most bytes of console output that [`Xen::read_console`] collects; far above any ring's size.
const CONSOLE_LIMIT: usize = 64 * 1024 * 1024;

/// A NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub node: u32,
    /// Bytes of memory.
    pub size: u64,
    /// Bytes of free memory.
    pub free: u64,
    /// Distance to each node, by number.
    pub distances: Vec<u32>,
}

/// A pool of pCPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuPool {
    /// Its number.
    pub id: u32,
    /// Its scheduler.
    pub scheduler: SchedulerId,
    /// Its number of domains.
    pub nr_domains: u32,
    /// Its pCPUs.
    pub cpus: CpuMap,
}

impl Xen {
    /// The host's processors and memory.
    pub fn physinfo(&self) -> Result<PhysInfo> {
        // SAFETY: the structure holds no addresses.
        unsafe { self.sysctl("sysctl physinfo", SysctlCmd::PHYSINFO, &PhysInfo::default()) }
    }

    /// The scheduler.
    pub fn scheduler(&self) -> Result<SchedulerId> {
        // SAFETY: the structure holds no addresses.
        let answer =
            unsafe { self.sysctl("sysctl sched_id", SysctlCmd::SCHED_ID, &SchedId::default())? };
        Ok(answer.sched_id)
    }

    /// All domains, by ascending id.
    pub fn domains(&self) -> Result<Vec<GetDomainInfo>> {
        const CALL: &str = "sysctl getdomaininfolist";
        let mut domains: Vec<GetDomainInfo> = Vec::new();
        let mut first_domain = 0;
        // Most hosts have few: a page has room for them.
        let mut max_domains = FIRST_DOMAINS;
        while first_domain < DOMID_FIRST_RESERVED {
            let buffer = self.buffer(max_domains as usize * size_of::<GetDomainInfo>())?;
            let argument = GetDomainInfoList {
                first_domain,
                max_domains,
                buffer: buffer.handle(),
                ..GetDomainInfoList::default()
            };
            // SAFETY: the handle's buffer has room for the number of domains asked for.
            let answer = unsafe { self.sysctl(CALL, SysctlCmd::GETDOMAININFOLIST, &argument)? };
            let batch: Vec<GetDomainInfo> = buffer
                .array(answer.num_domains as usize)
                .ok_or(Error::BadAnswer { call: CALL })?;
            // Ids must rise, or this would never end.
            for info in &batch {
                first_domain = info
                    .domain
                    .checked_add(1)
                    .filter(|next| *next > first_domain)
                    .ok_or(Error::BadAnswer { call: CALL })?;
            }
            domains.extend(batch);
            if answer.num_domains < max_domains {
                break;
            }
            max_domains = DOMAINS_PER_CALL;
        }
        Ok(domains)
    }

    /// The hypervisor's console ring, oldest byte first; `clear` empties it.
    pub fn read_console(&self, clear: bool) -> Result<Vec<u8>> {
        const CALL: &str = "sysctl readconsole";
        let mut output = Vec::new();
        let mut index = 0;
        while output.len() < CONSOLE_LIMIT {
            let buffer = self.buffer(CONSOLE_CHUNK as usize)?;
            let argument = ReadConsole {
                clear: u8::from(clear),
                incremental: 1,
                index,
                buffer: buffer.handle(),
                count: CONSOLE_CHUNK,
                ..ReadConsole::default()
            };
            // SAFETY: the handle's buffer has `count` bytes.
            let answer = unsafe { self.sysctl(CALL, SysctlCmd::READCONSOLE, &argument)? };
            let bytes = buffer
                .bytes()
                .get(..answer.count as usize)
                .ok_or(Error::BadAnswer { call: CALL })?;
            output.extend_from_slice(bytes);
            index = answer.index;
            if answer.count < CONSOLE_CHUNK {
                break;
            }
        }
        Ok(output)
    }

    /// What the hypervisor's console ring got since `index` (0 for all that it holds), and the index for the next call.
    pub fn read_console_from(&self, index: u32) -> Result<(Vec<u8>, u32)> {
        const CALL: &str = "sysctl readconsole";
        let mut output = Vec::new();
        let mut index = index;
        while output.len() < CONSOLE_LIMIT {
            let buffer = self.buffer(CONSOLE_CHUNK as usize)?;
            let argument = ReadConsole {
                incremental: 1,
                index,
                buffer: buffer.handle(),
                count: CONSOLE_CHUNK,
                ..ReadConsole::default()
            };
            // SAFETY: the handle's buffer has `count` bytes.
            let answer = unsafe { self.sysctl(CALL, SysctlCmd::READCONSOLE, &argument)? };
            let bytes = buffer
                .bytes()
                .get(..answer.count as usize)
                .ok_or(Error::BadAnswer { call: CALL })?;
            output.extend_from_slice(bytes);
            index = answer.index;
            if answer.count < CONSOLE_CHUNK {
                break;
            }
        }
        Ok((output, index))
    }

    /// Presses `keys` on the hypervisor's console.
    pub fn debug_keys(&self, keys: &str) -> Result<()> {
        let nr_keys = u32::try_from(keys.len()).map_err(|_| Error::Hypercall {
            call: "sysctl debug_keys",
            errno: Errno::EINVAL,
        })?;
        let mut buffer = self.buffer(keys.len())?;
        buffer.bytes_mut().copy_from_slice(keys.as_bytes());
        let argument = DebugKeys {
            keys: buffer.handle(),
            nr_keys,
            ..DebugKeys::default()
        };
        // SAFETY: the handle's buffer has `nr_keys` bytes.
        unsafe { self.sysctl("sysctl debug_keys", SysctlCmd::DEBUG_KEYS, &argument)? };
        Ok(())
    }

    /// Core, socket and node of each pCPU, by number.
    pub fn cpu_topology(&self) -> Result<Vec<CpuTopo>> {
        const CALL: &str = "sysctl cputopoinfo";
        // SAFETY: the handle is null, which asks for the number only.
        let sizes = unsafe { self.sysctl(CALL, SysctlCmd::CPUTOPOINFO, &CpuTopoInfo::default())? };
        let buffer = self.buffer(sizes.num_cpus as usize * size_of::<CpuTopo>())?;
        let argument = CpuTopoInfo {
            num_cpus: sizes.num_cpus,
            cputopo: buffer.handle(),
            ..CpuTopoInfo::default()
        };
        // SAFETY: the handle's buffer has room for `num_cpus` entries.
        let answer = unsafe { self.sysctl(CALL, SysctlCmd::CPUTOPOINFO, &argument)? };
        buffer
            .array(answer.num_cpus.min(sizes.num_cpus) as usize)
            .ok_or(Error::BadAnswer { call: CALL })
    }

    /// The NUMA nodes.
    pub fn numa_nodes(&self) -> Result<Vec<NumaNode>> {
        const CALL: &str = "sysctl numainfo";
        // SAFETY: the handles are null, which asks for the number only.
        let sizes = unsafe { self.sysctl(CALL, SysctlCmd::NUMAINFO, &NumaInfo::default())? };
        let nr_nodes = sizes.num_nodes as usize;
        let nr_distances = nr_nodes
            .checked_mul(nr_nodes)
            .ok_or(Error::BadAnswer { call: CALL })?;
        let meminfo = self.buffer(nr_nodes * size_of::<MemInfo>())?;
        let distance = self.buffer(nr_distances.saturating_mul(size_of::<u32>()))?;
        let argument = NumaInfo {
            num_nodes: sizes.num_nodes,
            meminfo: meminfo.handle(),
            distance: distance.handle(),
            ..NumaInfo::default()
        };
        // SAFETY: the handles' buffers have room for `num_nodes` entries and `num_nodes` squared distances.
        let answer = unsafe { self.sysctl(CALL, SysctlCmd::NUMAINFO, &argument)? };
        if answer.num_nodes != sizes.num_nodes {
            return Err(Error::BadAnswer { call: CALL });
        }
        let meminfo: Vec<MemInfo> = meminfo
            .array(nr_nodes)
            .ok_or(Error::BadAnswer { call: CALL })?;
        let distances: Vec<u32> = distance
            .array(nr_distances)
            .ok_or(Error::BadAnswer { call: CALL })?;
        let nodes = (0..).zip(meminfo).zip(distances.chunks(nr_nodes.max(1)));
        Ok(nodes
            .filter(|((_, memory), _)| memory.memsize != INVALID_MEM_SZ)
            .map(|((node, memory), row)| NumaNode {
                node,
                size: memory.memsize,
                free: memory.memfree,
                distances: row.to_vec(),
            })
            .collect())
    }

    /// The pools of pCPUs. `nr_cpus` bounds the pCPU numbers ([`PhysInfo::max_cpu_id`] plus one).
    pub fn cpu_pools(&self, nr_cpus: u32) -> Result<Vec<CpuPool>> {
        const CALL: &str = "sysctl cpupool_op";
        let mut pools: Vec<CpuPool> = Vec::new();
        let mut cpupool_id = 0;
        while let Some(answer) = self.cpu_pool(CALL, CpupoolCmd::INFO, cpupool_id, nr_cpus)? {
            // The call answers for the next higher id; ids must rise, or this would never end.
            cpupool_id = answer
                .id
                .checked_add(1)
                .filter(|next| *next > cpupool_id)
                .ok_or(Error::BadAnswer { call: CALL })?;
            pools.push(answer);
        }
        Ok(pools)
    }

    /// The pCPUs that belong to no pool.
    pub fn free_cpus(&self, nr_cpus: u32) -> Result<CpuMap> {
        let answer = self.cpu_pool("sysctl cpupool_op", CpupoolCmd::FREEINFO, 0, nr_cpus)?;
        Ok(answer.map(|pool| pool.cpus).unwrap_or_default())
    }

    /// One question about pools; `None` when there is no such pool.
    fn cpu_pool(
        &self,
        call: &'static str,
        op: CpupoolCmd,
        cpupool_id: u32,
        nr_cpus: u32,
    ) -> Result<Option<CpuPool>> {
        let buffer = self.buffer(nr_cpus.div_ceil(8) as usize)?;
        let cpumap = XenctlBitmap {
            bitmap: buffer.handle(),
            nr_bits: nr_cpus,
            ..XenctlBitmap::default()
        };
        let argument = CpupoolOp {
            op,
            cpupool_id,
            cpumap,
            ..CpupoolOp::default()
        };
        // SAFETY: the handle's buffer has room for `nr_bits` bits.
        match unsafe { self.sysctl(call, SysctlCmd::CPUPOOL_OP, &argument) } {
            Ok(answer) => Ok(Some(CpuPool {
                id: answer.cpupool_id,
                scheduler: answer.sched_id,
                nr_domains: answer.n_dom,
                cpus: CpuMap::from_bytes(buffer.bytes(), nr_cpus),
            })),
            Err(Error::Hypercall {
                errno: Errno::ENOENT,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a sysctl and returns its payload as the hypervisor left it.
    ///
    /// # Safety
    ///
    /// `T` is the payload of `cmd`; addresses in it as for [`Xen::hypercall`].
    unsafe fn sysctl<T: IntoBytes + FromBytes + Immutable>(
        &self,
        call: &'static str,
        cmd: SysctlCmd,
        payload: &T,
    ) -> Result<T> {
        let sysctl = Sysctl::new(cmd, payload);
        // SAFETY: the argument is the whole structure; the caller vouches for the addresses in its payload.
        let answer = unsafe { self.hypercall_in_out(call, Hypercall::SYSCTL, None, &sysctl) }
            .map_err(|error| error.or_interface_version(XEN_SYSCTL_INTERFACE_VERSION))?;
        Ok(answer.u.read())
    }
}

#[cfg(test)]
mod tests;
