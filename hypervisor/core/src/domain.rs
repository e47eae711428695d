//! Domains.

use crate::access::Access;
use crate::event::EventTable;
use crate::grant::{GrantTable, MapTrack};
use crate::sched::credit::Share;
use crate::teardown::Teardown;
use crate::vcpu::Vcpu;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use oxen_abi::sched::ShutdownReason;
use oxen_abi::xen::DomainHandle;
use oxen_emul::policy::CpuidPolicy;
use oxen_hal::MemoryRange;
use oxen_mm::{HeldTyped, PageTables, SharedFrame};
use oxen_sync::{OnceCell, SpinLock, level};
use oxen_types::{CpuSet, DomId, VcpuId};

/// What a domain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Privileges {
    /// It runs the control stack: `domctl`, `sysctl`, `platform_op`.
    pub control: bool,
    /// It drives the hardware: I/O ports, MMIO, interrupts, cache control.
    pub hardware: bool,
}

/// Why a domain shut down, in [`Domain::shutdown_code`]; this value while it has not.
pub const NOT_SHUT_DOWN: u32 = u32::MAX;

/// What a domain is made with.
#[derive(Clone, Debug)]
pub struct DomainSpec {
    /// Its number.
    pub id: DomId,
    /// What it may do.
    pub privileges: Privileges,
    /// Places for vCPUs.
    pub max_vcpus: u32,
    /// UUID.
    pub handle: DomainHandle,
    /// Highest event channel port.
    pub max_port: u32,
    /// Most frames of its grant table; 0 for none.
    pub max_grant_frames: u32,
    /// Newest version of its format that the domain may choose.
    pub max_grant_version: u32,
    /// Most frames' worth of handles for grants that it maps.
    pub max_maptrack_frames: u32,
    /// Times that its controller has it paused from the start.
    pub pauses: u32,
}

impl DomainSpec {
    /// A domain with the usual limits.
    #[must_use]
    pub fn new(id: DomId, privileges: Privileges, max_vcpus: u32) -> Self {
        Self {
            id,
            privileges,
            max_vcpus,
            handle: [0; 16],
            max_port: u32::MAX,
            max_grant_frames: crate::grant::MAX_FRAMES,
            max_grant_version: crate::grant::MAX_VERSION,
            max_maptrack_frames: crate::grant::MAX_MAPTRACK_FRAMES,
            pauses: 0,
        }
    }
}

/// Where a domain is between its creation and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Life {
    /// It lives.
    Alive = 0,
    /// What it has is being taken away, in steps.
    Dying = 1,
    /// Nothing is left but what others still use.
    Dead = 2,
}

/// How guests see the time stamp counter, as the tools keep it with a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TscSettings {
    /// 0: the processor's counter where it is good, 1: always emulated, 2: never.
    pub mode: u32,
    /// Times that it was set.
    pub incarnation: u32,
}

/// A guest.
#[derive(Debug)]
pub struct Domain {
    /// Its number.
    pub id: DomId,
    /// What it may do.
    pub privileges: Privileges,
    /// UUID that the tools gave it.
    pub handle: SpinLock<DomainHandle, { level::DOMAIN }>,
    /// Its part of the processors.
    pub share: Arc<Share>,
    /// Its vCPUs, each created once.
    vcpus: Vec<OnceCell<Arc<Vcpu>>>,
    /// The frame that holds `struct shared_info`; the hypervisor owns a reference to it.
    pub shared_info: SharedFrame,
    /// Event channels.
    pub events: SpinLock<EventTable, { level::EVENT }>,
    /// Grants.
    pub grants: SpinLock<GrantTable, { level::GRANT }>,
    /// Grants of others, and of its own, that it has mapped. Never held together with a grant table.
    pub maptrack: SpinLock<MapTrack, { level::GRANT }>,
    /// Held while page tables of the domain change.
    pub page_tables: SpinLock<PageTables, { level::PAGE_TABLES }>,
    /// Frames of the FIFO event ABI.
    pub event_frames: SpinLock<Vec<HeldTyped>, { level::DOMAIN }>,
    /// CPUs whose TLB may hold translations of its page tables.
    pub dirty_cpus: CpuSet,
    /// Assists that it enabled (bits of `VmAssistType`).
    pub vm_assist: AtomicU64,
    /// Number of vCPUs that poll.
    pub pollers: AtomicU32,
    /// Seconds by which its wall clock differs from the machine's.
    pub time_offset_secs: AtomicU64,
    /// Memory map set by `XENMEM_set_memory_map`.
    pub memory_map: SpinLock<Vec<MemoryRange>, { level::DOMAIN }>,
    /// Shutdown reason, or [`NOT_SHUT_DOWN`].
    shutdown_code: AtomicU32,
    /// Reason that it announced for a later shutdown, or [`NOT_SHUT_DOWN`].
    announced_code: AtomicU32,
    /// [`Life`].
    life: AtomicU8,
    /// How far its end has come.
    pub(crate) teardown: SpinLock<Teardown, { level::DOMAIN }>,
    /// It has been let run once, which ends its creation.
    pub created: AtomicBool,
    /// What the tools set about its time stamp counter.
    pub tsc: SpinLock<TscSettings, { level::DOMAIN }>,
    /// What CPUID shows it, where the tools have set that.
    pub cpuid: SpinLock<Option<Arc<CpuidPolicy>>, { level::DOMAIN }>,
    /// Times that its controller paused it.
    controller_pauses: AtomicU32,
    /// Physical interrupts, by the domain's own numbers.
    pub pirqs: SpinLock<crate::irq::DomainPirqs, { level::IRQ }>,
    /// Last dword written to port 0xcf8.
    pub pci_address_latch: AtomicU32,
    /// What of the machine it was given.
    pub access: SpinLock<Access, { level::IRQ }>,
    /// Its port by which its suspension is told; 0 for none.
    pub suspend_port: AtomicU32,
}

impl Domain {
    /// A domain without vCPUs.
    #[must_use]
    pub fn new(spec: &DomainSpec, shared_info: SharedFrame) -> Self {
        let shared_mfn = shared_info.mfn();
        Self {
            id: spec.id,
            privileges: spec.privileges,
            handle: SpinLock::new(spec.handle),
            share: Arc::default(),
            vcpus: (0..spec.max_vcpus).map(|_| OnceCell::new()).collect(),
            shared_info,
            events: SpinLock::new(EventTable::new(shared_mfn, spec.max_vcpus, spec.max_port)),
            grants: SpinLock::new(GrantTable::new(spec.max_grant_frames, spec.max_grant_version)),
            maptrack: SpinLock::new(MapTrack::new(spec.max_maptrack_frames)),
            page_tables: SpinLock::new(PageTables::new()),
            event_frames: SpinLock::new(Vec::new()),
            dirty_cpus: CpuSet::new(),
            vm_assist: AtomicU64::new(0),
            pollers: AtomicU32::new(0),
            time_offset_secs: AtomicU64::new(0),
            memory_map: SpinLock::new(Vec::new()),
            shutdown_code: AtomicU32::new(NOT_SHUT_DOWN),
            announced_code: AtomicU32::new(NOT_SHUT_DOWN),
            life: AtomicU8::new(Life::Alive as u8),
            teardown: SpinLock::new(Teardown::default()),
            created: AtomicBool::new(false),
            tsc: SpinLock::new(TscSettings::default()),
            cpuid: SpinLock::new(None),
            controller_pauses: AtomicU32::new(spec.pauses),
            pirqs: SpinLock::new(crate::irq::DomainPirqs::default()),
            pci_address_latch: AtomicU32::new(0),
            access: SpinLock::new(Access::default()),
            suspend_port: AtomicU32::new(0),
        }
    }

    /// The vCPU with that number, where it has been created.
    #[inline]
    #[must_use]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Arc<Vcpu>> {
        self.vcpus.get(id.index())?.get()
    }

    /// Adds a created vCPU in its place; gives it back where the place is taken or does not exist.
    pub fn add_vcpu(&self, vcpu: Arc<Vcpu>) -> Result<(), Arc<Vcpu>> {
        match self.vcpus.get(vcpu.id.index()) {
            Some(place) => place.set(vcpu),
            None => Err(vcpu),
        }
    }

    /// The created vCPUs.
    pub fn vcpus(&self) -> impl Iterator<Item = &Arc<Vcpu>> {
        self.vcpus.iter().filter_map(OnceCell::get)
    }

    /// Places for vCPUs.
    #[must_use]
    pub fn max_vcpus(&self) -> u32 {
        u32::try_from(self.vcpus.len()).unwrap_or(u32::MAX)
    }

    /// Records that it shut down; returns whether it had not before.
    pub fn set_shutdown(&self, reason: ShutdownReason) -> bool {
        self.shutdown_code
            .compare_exchange(NOT_SHUT_DOWN, reason.raw() & 0xff, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Records the reason that a later shutdown is to have, unless one is recorded already.
    pub fn announce_shutdown(&self, reason: ShutdownReason) {
        let _ = self.announced_code.compare_exchange(NOT_SHUT_DOWN, reason.raw() & 0xff, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The announced reason.
    #[must_use]
    pub fn announced_reason(&self) -> Option<ShutdownReason> {
        Some(self.announced_code.load(Ordering::SeqCst)).filter(|&code| code != NOT_SHUT_DOWN).map(ShutdownReason)
    }

    /// Why it shut down.
    #[must_use]
    pub fn shutdown_reason(&self) -> Option<ShutdownReason> {
        match self.shutdown_code.load(Ordering::SeqCst) {
            NOT_SHUT_DOWN => None,
            code => Some(ShutdownReason(code)),
        }
    }

    /// Where it is between its creation and its end.
    #[must_use]
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::SeqCst) {
            0 => Life::Alive,
            1 => Life::Dying,
            _ => Life::Dead,
        }
    }

    /// Records that its end has begun, or is done.
    pub(crate) fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::SeqCst);
    }

    /// True from the moment when its end has begun.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        self.life() != Life::Alive
    }

    /// Forgets that it shut down: it is to run on.
    pub(crate) fn clear_shutdown(&self) {
        self.announced_code.store(NOT_SHUT_DOWN, Ordering::SeqCst);
        self.shutdown_code.store(NOT_SHUT_DOWN, Ordering::SeqCst);
    }

    /// Times that its controller has it paused.
    #[must_use]
    pub fn pauses(&self) -> u32 {
        self.controller_pauses.load(Ordering::SeqCst)
    }

    /// True while its controller has it paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.controller_pauses.load(Ordering::SeqCst) != 0
    }

    /// Counts one more pause by the controller; `false` where the count is at its end.
    pub(crate) fn count_pause(&self) -> bool {
        self.controller_pauses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_add(1)).is_ok()
    }

    /// Counts one pause less; `false` where there is none.
    pub(crate) fn count_unpause(&self) -> bool {
        self.controller_pauses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    /// True where the assist with that number is on.
    #[inline]
    #[must_use]
    pub fn has_assist(&self, number: u32) -> bool {
        self.vm_assist.load(Ordering::Relaxed) >> number & 1 != 0
    }

    /// True for a domain with access to devices: it may control caches and map MMIO.
    #[must_use]
    pub fn has_devices(&self) -> bool {
        self.privileges.hardware
    }
}

/// The domains, ordered by number.
#[derive(Debug, Default)]
pub struct DomainList {
    list: SpinLock<Vec<Arc<Domain>>, { level::DOMAIN_LIST }>,
}

impl DomainList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: SpinLock::new(Vec::new()) }
    }

    /// The domain with that number.
    #[must_use]
    pub fn get(&self, id: DomId) -> Option<Arc<Domain>> {
        let list = self.list.lock();
        list.binary_search_by_key(&id, |d| d.id).ok().and_then(|i| list.get(i).cloned())
    }

    /// The first domain whose number is at least `id`.
    #[must_use]
    pub fn at_or_after(&self, id: DomId) -> Option<Arc<Domain>> {
        let list = self.list.lock();
        let index = list.partition_point(|d| d.id < id);
        list.get(index).cloned()
    }

    /// Adds a domain; gives it back where its number is taken.
    pub fn insert(&self, domain: Arc<Domain>) -> Result<(), Arc<Domain>> {
        let mut list = self.list.lock();
        match list.binary_search_by_key(&domain.id, |d| d.id) {
            Ok(_) => Err(domain),
            Err(index) => {
                list.insert(index, domain);
                Ok(())
            }
        }
    }

    /// Takes a domain out that nobody else refers to and of which `is_over` says that nothing is left to wait for.
    pub(crate) fn take_over(&self, id: DomId, is_over: impl FnOnce(&Domain) -> bool) -> Option<Domain> {
        let mut list = self.list.lock();
        let index = list.binary_search_by_key(&id, |d| d.id).ok()?;
        let domain = list.get(index)?;
        if Arc::strong_count(domain) != 1 || !is_over(domain) {
            return None;
        }
        match Arc::try_unwrap(list.remove(index)) {
            Ok(domain) => Some(domain),
            Err(domain) => {
                // A weak reference was just made a strong one.
                list.insert(index, domain);
                None
            }
        }
    }

    /// The numbers of dead domains.
    pub(crate) fn dead(&self) -> Vec<DomId> {
        self.list.lock().iter().filter(|d| d.life() == Life::Dead).map(|d| d.id).collect()
    }

    /// All domains at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<Domain>> {
        self.list.lock().clone()
    }
}
