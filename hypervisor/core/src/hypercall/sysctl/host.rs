//! Processors and memory of the machine.

use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::domctl::SchedulerId;
use oxen_abi::sysctl::{
    AvailHeap, CpuInfo, CpuTopo, CpuTopoInfo, GetCpuInfo, MemInfo, NumaInfo, PHYSCAP_GNTTAB_V1, PHYSCAP_GNTTAB_V2, PHYSCAP_PV, PhysInfo, SchedId,
    XEN_INVALID_CORE_ID, XEN_INVALID_NODE_ID, XEN_INVALID_SOCKET_ID,
};
use oxen_hal::{Machine, MemoryKind};
use oxen_types::{CpuId, Gva, PAGE_SIZE};

/// The distance of a node to itself (ACPI specification, "System Locality Distance Information Table").
const OWN_DISTANCE: u32 = 10;
/// [`AvailHeap::node`]: all nodes together.
const ANY_NODE: i32 = -1;

/// The scheduler, as tools know it: runnable vCPUs take turns in slices of [`crate::sched::SLICE_NS`], and those that wake up go first, which is nearest
/// to what they call credit.
pub(super) const SCHEDULER: SchedulerId = SchedulerId::CREDIT;

impl<M: Machine> Ctx<'_, M> {
    pub(super) fn physinfo(&self, info: &mut PhysInfo) -> Result<(), Errno> {
        let machine = self.machine();
        let online = machine.online();
        let (threads_per_core, cores_per_socket) = self.shares_of_boot_cpu();
        *info = PhysInfo {
            threads_per_core,
            cores_per_socket,
            nr_cpus: online.len(),
            max_cpu_id: self.nr_cpu_ids().saturating_sub(1),
            nr_nodes: 1,
            max_node_id: 0,
            cpu_khz: u32::try_from(machine.tsc_khz()).unwrap_or(u32::MAX),
            capabilities: PHYSCAP_PV | PHYSCAP_GNTTAB_V1 | PHYSCAP_GNTTAB_V2,
            total_pages: self.total_pages(),
            free_pages: self.hv.memory.free_frames(),
            outstanding_pages: self.hv.memory.claimed_frames(),
            max_mfn: machine.max_mfn().saturating_sub(1),
            hw_cap: self.hardware_capabilities(),
            ..PhysInfo::default()
        };
        Ok(())
    }

    /// One more than the highest number of an online CPU.
    pub(super) fn nr_cpu_ids(&self) -> u32 {
        self.machine().online().iter().last().map_or(0, |cpu| cpu.0 + 1)
    }

    /// CPUs that share the boot CPU's core, and cores on its socket.
    fn shares_of_boot_cpu(&self) -> (u32, u32) {
        let machine = self.machine();
        let Some((own_core, own_socket, _)) = machine.topology(CpuId(0)) else { return (1, 1) };
        let (mut threads, mut on_socket) = (0, 0);
        for (core, socket, _) in machine.online().iter().filter_map(|cpu| machine.topology(cpu)) {
            if socket == own_socket {
                on_socket += 1;
                threads += u32::from(core == own_core);
            }
        }
        let threads = threads.max(1);
        (threads, (on_socket / threads).max(1))
    }

    /// Pages of RAM, whoever has them.
    fn total_pages(&self) -> u64 {
        let ram = self.machine().memory_map().iter().filter(|range| range.kind == MemoryKind::Ram);
        ram.map(|range| (range.end.0 / PAGE_SIZE).saturating_sub(range.start.0.div_ceil(PAGE_SIZE))).sum()
    }

    pub(super) fn sched_id(&self, answer: &mut SchedId) -> Result<(), Errno> {
        answer.sched_id = SCHEDULER;
        Ok(())
    }

    pub(super) fn cpu_idle_times(&self, request: &mut GetCpuInfo) -> Result<(), Errno> {
        let count = self.nr_cpu_ids().min(request.max_cpus);
        for n in 0..count {
            let idletime = self.hv.sched.idle_ns(self.machine(), CpuId(n));
            self.write_element(Gva(request.info.address()), n.into(), &CpuInfo { idletime })?;
        }
        request.nr_cpus = count;
        Ok(())
    }

    /// Free memory whose machine addresses have between `min_bitwidth` and `max_bitwidth` bits.
    pub(super) fn available_heap(&self, request: &mut AvailHeap) -> Result<(), Errno> {
        let memory = &self.hv.memory;
        let below = |bits: u32| if bits == 0 || bits >= 64 { memory.free_frames() } else { memory.free_frames_below(bits) };
        let pages = match request.node {
            ANY_NODE | 0 => {
                let smaller = if request.min_bitwidth == 0 { 0 } else { below(request.min_bitwidth) };
                below(request.max_bitwidth).saturating_sub(smaller)
            }
            _ => 0,
        };
        request.avail_bytes = pages.saturating_mul(PAGE_SIZE);
        Ok(())
    }

    pub(super) fn cpu_topology(&self, request: &mut CpuTopoInfo) -> Result<(), Errno> {
        let array = Gva(request.cputopo.address());
        let count = self.nr_cpu_ids();
        if array.is_null() {
            request.num_cpus = count;
            return Ok(());
        }
        let count = count.min(request.num_cpus);
        for n in 0..count {
            let cpu = CpuId(n);
            let place = if self.machine().online().contains(cpu) { self.machine().topology(cpu) } else { None };
            let absent = (XEN_INVALID_CORE_ID, XEN_INVALID_SOCKET_ID, XEN_INVALID_NODE_ID);
            let (core, socket, node) = place.unwrap_or(absent);
            self.write_element(array, n.into(), &CpuTopo { core, socket, node })?;
        }
        request.num_cpus = count;
        Ok(())
    }

    /// The nodes: the machine is one.
    pub(super) fn numa_info(&self, request: &mut NumaInfo) -> Result<(), Errno> {
        let (meminfo, distance) = (Gva(request.meminfo.address()), Gva(request.distance.address()));
        let only_count = meminfo.is_null() && distance.is_null();
        if !only_count && request.num_nodes == 0 {
            return Ok(());
        }
        if !meminfo.is_null() {
            let memsize = self.total_pages().saturating_mul(PAGE_SIZE);
            let memfree = self.hv.memory.free_frames().saturating_mul(PAGE_SIZE);
            self.write(meminfo, &MemInfo { memsize, memfree })?;
        }
        if !distance.is_null() {
            self.write(distance, &OWN_DISTANCE)?;
        }
        request.num_nodes = 1;
        Ok(())
    }
}
