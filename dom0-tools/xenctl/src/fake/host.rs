//! A whole host for tests: domains, memory, event channels, grants.

use super::events::{FakeEvents, Port, Ports};
use super::memory::Memory;
use crate::evtchn::EventChannels;
use crate::gntdev::{GrantDevice, Grants};
use crate::mapping::SharedMemory;
use crate::privcmd::{MapFailure, Resource, Transport, Xen};
use oxen_abi::domctl::CreateDomain;
use oxen_abi::memory::ResourceType;
use oxen_abi::sched::ShutdownReason;
use oxen_abi::xen::Virq;
use oxen_abi::{Errno, Hypercall};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// A host that exists in this process only. Clones are the same host.
///
/// Its calls behave as the hypervisor's do as far as the control stack can tell: domains have frames that count, ids rise, an unknown
/// domain is `ESRCH`. Frames are real memory, which the test sees too. A call can be made to fail ([`FakeHost::fail`]).
#[derive(Clone)]
pub struct FakeHost {
    shared: Arc<Shared>,
}

/// What all handles of one host share.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(super) memory: Memory,
}

/// The host's state.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) domains: BTreeMap<u16, FakeDomain>,
    pub(super) ports: Ports,
    /// Frames that no domain has.
    pub(super) free: u64,
    /// Frames given back, to be used again.
    pub(super) returned: Vec<u64>,
    pub(super) next_frame: u64,
    pub(super) next_domid: u16,
    /// Grants by domain and reference: the frame.
    grants: BTreeMap<(u16, u32), u64>,
    /// Calls to fail: name, how many to let through first, the error.
    failures: Vec<(&'static str, u32, Errno)>,
    /// The console's messages.
    pub(super) console: Vec<u8>,
    /// How many bytes of them were forgotten.
    pub(super) console_forgotten: usize,
    /// Names of the calls made.
    pub(super) calls: Vec<&'static str>,
}

/// A domain of a [`FakeHost`].
#[derive(Clone, Debug, Default)]
pub struct FakeDomain {
    /// What it was created with.
    pub config: CreateDomain,
    /// Its frames.
    pub frames: BTreeSet<u64>,
    /// What the M2P says of its frames.
    pub m2p: BTreeMap<u64, u64>,
    /// Its limit in pages.
    pub max_pages: u64,
    /// Pages claimed.
    pub claimed: u64,
    /// How often it is paused.
    pub paused: u32,
    /// Its allocated vCPUs.
    pub nr_vcpus: u32,
    /// Contexts of vCPUs as the interface carries them.
    pub contexts: BTreeMap<u32, Vec<u8>>,
    /// Root tables that are pinned.
    pub pinned: Vec<u64>,
    /// Why it shut down.
    pub shutdown: Option<ShutdownReason>,
    /// The frame of its shared information.
    pub shared_info: u64,
    /// The first frame of its grant table.
    pub grant_frame: u64,
    /// Credit weight and cap.
    pub credit: (u16, u16),
    /// Hard and soft affinity of vCPUs that somebody asked for, as bitmaps.
    pub affinity: BTreeMap<u32, (u8, u8)>,
    /// What vCPUs do that were given something to do.
    pub activity: BTreeMap<u32, Activity>,
}

/// What a vCPU does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// The pCPU that it is on, or was on last.
    pub cpu: u32,
    /// Whether it is on it.
    pub running: bool,
    /// Whether it waits.
    pub blocked: bool,
    /// The processor time that it has had, in ns.
    pub cpu_time_ns: u64,
}

/// When a [`Hook`] is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing has happened yet.
    Before,
    /// The call has had its effect.
    After,
}

/// What is told of every hypercall and mapping of one connection; an error before a call takes the call's place.
pub type Hook = dyn Fn(Moment) -> Result<(), Errno> + Send + Sync;

impl Shared {
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeHost")
    }
}

impl fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl FakeHost {
    /// A host with domain 0 and `free` free frames.
    ///
    /// # Errors
    ///
    /// When the memory cannot be had.
    pub fn new(free: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                free,
                next_frame: 0x1000,
                next_domid: 1,
                ..State::default()
            }),
            memory: Memory::new()?,
        });
        shared.with(|state| state.insert_domain(0, CreateDomain::default()));
        Ok(Self { shared })
    }

    /// A connection of domain 0 to this hypervisor.
    #[must_use]
    pub fn xen(&self) -> Xen {
        self.xen_with(Box::new(|_| Ok(())))
    }

    /// As [`FakeHost::xen`], with something that sees, holds up or refuses its calls.
    #[must_use]
    pub fn xen_with(&self, hook: Box<Hook>) -> Xen {
        Xen::over(FakeXen {
            shared: Arc::clone(&self.shared),
            hook,
        })
    }

    /// Gives domain `domid` running vCPUs, such as domain 0, which begins without.
    pub fn add_vcpus(&self, domid: u16, nr_vcpus: u32) {
        self.shared.with(|state| {
            if let Some(domain) = state.domains.get_mut(&domid) {
                domain.nr_vcpus = nr_vcpus;
                domain.contexts.extend((0..nr_vcpus).map(|vcpu| (vcpu, Vec::new())));
            }
        });
    }

    /// Gives vCPU `vcpu` of domain `domid` something to do.
    pub fn set_activity(&self, domid: u16, vcpu: u32, activity: Activity) {
        self.shared.with(|state| {
            if let Some(domain) = state.domains.get_mut(&domid) {
                domain.activity.insert(vcpu, activity);
            }
        });
    }

    /// The hypervisor prints `text` on its console.
    pub fn print(&self, text: &str) {
        self.shared.with(|state| state.console.extend_from_slice(text.as_bytes()));
    }

    /// An event channel device of domain 0.
    ///
    /// # Errors
    ///
    /// When no descriptor can be had.
    pub fn event_channels(&self) -> io::Result<EventChannels> {
        FakeEvents::open(Arc::clone(&self.shared)).map(EventChannels::over)
    }

    /// A grant device of domain 0.
    #[must_use]
    pub fn grants(&self) -> Grants {
        Grants::over(FakeGrants {
            shared: Arc::clone(&self.shared),
        })
    }

    /// Creates domain `domid` without vCPUs and memory.
    pub fn add_domain(&self, domid: u16) {
        self.shared
            .with(|state| state.insert_domain(domid, CreateDomain::default()));
    }

    /// Removes domain `domid` with all that is its own.
    pub fn remove_domain(&self, domid: u16) {
        self.shared.with(|state| state.destroy(domid));
    }

    /// Gives domain `domid` a frame and returns its number.
    #[must_use]
    pub fn add_frame(&self, domid: u16) -> u64 {
        self.shared.with(|state| {
            let frame = state.take_frame();
            if let Some(domain) = state.domains.get_mut(&domid) {
                domain.frames.insert(frame);
            }
            frame
        })
    }

    /// The contents of `frames`, as their owner sees them.
    ///
    /// # Errors
    ///
    /// When mapping them fails.
    pub fn memory(&self, frames: &[u64]) -> io::Result<SharedMemory> {
        self.shared.memory.map(frames, true)
    }

    /// Domain `domid` grants a frame to domain 0.
    pub fn grant(&self, domid: u16, reference: u32, frame: u64) {
        self.shared
            .with(|state| state.grants.insert((domid, reference), frame));
    }

    /// A new port of domain `domid` to which domain `remote` may bind.
    #[must_use]
    pub fn guest_port(&self, domid: u16, remote: u16) -> u32 {
        self.shared
            .with(|state| state.ports.allocate(domid, Port::Unbound { remote }))
    }

    /// Domain `domid` notifies its `port`. An unconnected port swallows the event.
    pub fn guest_notify(&self, domid: u16, port: u32) {
        // A port that does not exist is the guest's mistake, without effect.
        let _ = self.shared.with(|state| state.ports.send(domid, port));
    }

    /// The ports of domain `domid` that got events since the last call.
    #[must_use]
    pub fn guest_events(&self, domid: u16) -> Vec<u32> {
        self.shared
            .with(|state| state.ports.take_guest_events(domid))
    }

    /// The number of ports that domain `domid` has.
    #[must_use]
    pub fn nr_ports(&self, domid: u16) -> usize {
        self.shared.with(|state| state.ports.count(domid))
    }

    /// Raises a virtual interrupt.
    pub fn raise_virq(&self, virq: Virq) {
        self.shared.with(|state| state.ports.raise_virq(virq.raw()));
    }

    /// Domain `domid` shuts down.
    pub fn shut_down(&self, domid: u16, reason: ShutdownReason) {
        self.shared.with(|state| {
            if let Some(domain) = state.domains.get_mut(&domid) {
                domain.shutdown = Some(reason);
            }
        });
        self.raise_virq(Virq::DOM_EXC);
    }

    /// The state of domain `domid`.
    #[must_use]
    pub fn domain(&self, domid: u16) -> Option<FakeDomain> {
        self.shared.with(|state| state.domains.get(&domid).cloned())
    }

    /// Ids of the domains.
    #[must_use]
    pub fn domids(&self) -> Vec<u16> {
        self.shared
            .with(|state| state.domains.keys().copied().collect())
    }

    /// Frames that no domain has.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.shared.with(|state| state.free)
    }

    /// Makes the call with this name (as in errors, `domctl createdomain`) fail once, after `let_through` of them succeeded. Mappings are
    /// called `map_foreign` and `map_resource`.
    pub fn fail(&self, call: &'static str, let_through: u32, errno: Errno) {
        self.shared
            .with(|state| state.failures.push((call, let_through, errno)));
    }

    /// Names of all calls made so far.
    #[must_use]
    pub fn calls(&self) -> Vec<&'static str> {
        self.shared.with(|state| state.calls.clone())
    }
}

impl State {
    pub(super) fn insert_domain(&mut self, domid: u16, config: CreateDomain) {
        let domain = FakeDomain {
            config,
            shared_info: self.take_frame(),
            grant_frame: self.take_frame(),
            credit: (256, 0),
            ..FakeDomain::default()
        };
        // The hypervisor's own pages of a domain come from its own memory.
        self.free += 2;
        self.domains.insert(domid, domain);
    }

    /// A frame that was free. The caller has made sure that there is one.
    pub(super) fn take_frame(&mut self) -> u64 {
        self.free = self.free.saturating_sub(1);
        self.returned.pop().unwrap_or_else(|| {
            self.next_frame += 1;
            self.next_frame
        })
    }

    /// The first of `len` consecutive frames that were free. The caller has made sure that there are so many.
    pub(super) fn take_extent(&mut self, len: u64) -> u64 {
        if len == 1 {
            return self.take_frame();
        }
        self.free = self.free.saturating_sub(len);
        let first = (self.next_frame + 1).next_multiple_of(len);
        self.next_frame = first + len - 1;
        first
    }

    pub(super) fn destroy(&mut self, domid: u16) {
        self.ports.close_all(domid);
        self.grants.retain(|(owner, _), _| *owner != domid);
        if let Some(domain) = self.domains.remove(&domid) {
            self.free += domain.frames.len() as u64;
            self.returned.extend(domain.frames);
            self.returned
                .extend([domain.shared_info, domain.grant_frame]);
        }
    }

    /// Notes a call; the error that was planned for it, if any.
    pub(super) fn enter(&mut self, call: &'static str) -> Result<(), Errno> {
        self.calls.push(call);
        let planned = self.failures.iter().position(|(name, ..)| *name == call);
        if let Some(index) = planned
            && let Some((_, let_through, errno)) = self.failures.get_mut(index)
        {
            if *let_through == 0 {
                let errno = *errno;
                self.failures.remove(index);
                return Err(errno);
            }
            *let_through -= 1;
        }
        Ok(())
    }
}

fn io_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(i32::from(errno.raw()))
}

/// The hypercalls.
struct FakeXen {
    shared: Arc<Shared>,
    hook: Box<Hook>,
}

impl FakeXen {
    /// Does `work` between the hook's two moments.
    fn hooked<T>(&self, work: impl FnOnce() -> T) -> Result<T, Errno> {
        (self.hook)(Moment::Before)?;
        let done = work();
        (self.hook)(Moment::After)?;
        Ok(done)
    }
}

impl fmt::Debug for FakeXen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl Transport for FakeXen {
    // SAFETY: the fake reads and writes only the arguments of the call, for which the caller vouches.
    unsafe fn hypercall(&self, op: Hypercall, args: [u64; 5]) -> io::Result<u32> {
        self.hooked(|| self.shared.with(|state| super::calls::answer(state, op, args)))
            .flatten()
            .map_err(io_error)
    }

    fn buffers(&self) -> Option<&File> {
        None
    }

    fn map_frames(
        &self,
        domid: u16,
        frames: &[u64],
        writable: bool,
    ) -> Result<SharedMemory, MapFailure> {
        self.hooked(|| ()).map_err(|errno| (None, io_error(errno)))?;
        self.shared.with(|state| {
            state
                .enter("map_foreign")
                .map_err(|errno| (None, io_error(errno)))?;
            let domain = state
                .domains
                .get(&domid)
                .ok_or_else(|| (None, io_error(Errno::ESRCH)))?;
            let foreign =
                |frame: &u64| !domain.frames.contains(frame) && *frame != domain.shared_info;
            match frames.iter().position(foreign) {
                Some(index) => Err((Some(index), io_error(Errno::EINVAL))),
                None => Ok(()),
            }
        })?;
        self.shared
            .memory
            .map(frames, writable)
            .map_err(|error| (None, error))
    }

    fn map_resource(&self, resource: &Resource, writable: bool) -> io::Result<SharedMemory> {
        self.hooked(|| ()).map_err(io_error)?;
        let frame = self.shared.with(|state| {
            state.enter("map_resource").map_err(io_error)?;
            let domain = state
                .domains
                .get(&resource.domid)
                .ok_or_else(|| io_error(Errno::ESRCH))?;
            let known = resource.kind == ResourceType::GRANT_TABLE
                && (resource.id, resource.first, resource.count) == (0, 0, 1);
            known
                .then_some(domain.grant_frame)
                .ok_or_else(|| io_error(Errno::EINVAL))
        })?;
        self.shared.memory.map(&[frame], writable)
    }
}

/// The grants.
#[derive(Debug)]
struct FakeGrants {
    shared: Arc<Shared>,
}

impl GrantDevice for FakeGrants {
    fn map(&self, domid: u16, references: &[u32], writable: bool) -> io::Result<SharedMemory> {
        let frames: Option<Vec<u64>> = self.shared.with(|state| {
            references
                .iter()
                .map(|reference| state.grants.get(&(domid, *reference)).copied())
                .collect()
        });
        let frames = frames.ok_or_else(|| io_error(Errno::EINVAL))?;
        self.shared.memory.map(&frames, writable)
    }
}
