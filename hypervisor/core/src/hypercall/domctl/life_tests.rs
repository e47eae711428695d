//! Domains made, used and killed at every stage: all that they had comes back.

use crate::domain::Life;
use crate::hypercall::testing::{BUFFER, D5, World};
use oxen_abi::arch_x86_64::{VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext};
use oxen_abi::domctl::*;
use oxen_abi::event_channel::{AllocUnbound, BindInterdomain, BindVirq, EvtchnOp, InitControl};
use oxen_abi::grant_table::{GNTMAP_DEVICE_MAP, GTF_PERMIT_ACCESS, GrantStatus, GrantTableOp, MapGrantRef, UnmapGrantRef};
use oxen_abi::memory::{MemoryOp, MemoryReservation};
use oxen_abi::vcpu::{RegisterVcpuInfo, SetPeriodicTimer, VcpuOp};
use oxen_abi::xen::{DOMID_SELF, MmuextCmd, MmuextOp, Virq};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_abi::{Errno, GuestHandle, Hypercall};
use oxen_hal::{Frames, Processors};
use oxen_mm::entry::{self, PRESENT, RW, USER};
use oxen_mm::{HeldPage, Level};
use oxen_testkit::Rng;
use oxen_types::{DomId, Mfn, VcpuId};

/// Frames of a child.
const PAGES: usize = 12;
/// The child's tables of level 1 to 4.
const TABLES: [usize; 4] = [0, 1, 2, 3];
/// Where the frames for other purposes are.
const INFO_FRAME: usize = 5;
const CONTROL_FRAME: usize = 6;
const GRANTED_FRAME: usize = 7;
const KEPT_FRAME: usize = 8;
/// Grant references that tests use.
const TO_DOM0: u32 = 9;
const TO_ITSELF: u32 = 10;
const FROM_DOM0: u32 = 11;

struct Child<'w> {
    w: &'w World,
    id: DomId,
    frames: Vec<Mfn>,
    /// Frames that somebody else refers to.
    kept: Vec<HeldPage>,
    /// Handles of dom0's mappings of its grants.
    mapped_by_dom0: Vec<u32>,
}

extern crate std;
use std::vec::Vec;

fn domctl<T: FromBytes + IntoBytes + Immutable>(w: &World, cmd: DomctlCmd, domain: DomId, request: T) -> Result<T, Errno> {
    let mut op = Domctl::new(cmd, domain.0, &request);
    w.call(DomId::DOM0, Hypercall::DOMCTL, &mut op)?;
    Ok(op.u.read())
}

fn event<T: FromBytes + IntoBytes + Immutable>(w: &World, caller: DomId, op: EvtchnOp, request: &mut T) -> Result<i64, Errno> {
    w.call_with(caller, Hypercall::EVENT_CHANNEL_OP, |at| [op.raw().into(), at, 0, 0, 0, 0], request)
}

fn vcpu_op<T: FromBytes + IntoBytes + Immutable>(w: &World, caller: DomId, op: VcpuOp, mut request: T) -> Result<i64, Errno> {
    w.call_with(caller, Hypercall::VCPU_OP, |at| [op.raw().into(), 0, at, 0, 0, 0], &mut request)
}

fn description(max_vcpus: u32) -> CreateDomain {
    CreateDomain { max_vcpus, max_evtchn_port: 1023, max_grant_frames: -1, max_maptrack_frames: -1, grant_opts: 1, ..CreateDomain::default() }
}

fn create(w: &World, wanted: u16, request: &CreateDomain) -> Result<DomId, Errno> {
    let mut op = Domctl::new(DomctlCmd::CREATEDOMAIN, wanted, request);
    w.call(DomId::DOM0, Hypercall::DOMCTL, &mut op)?;
    Ok(DomId(op.domain))
}

fn destroy(w: &World, id: DomId) -> Result<(), Errno> {
    domctl(w, DomctlCmd::DESTROYDOMAIN, id, 0_u64).map(|_| ())
}

fn exists(w: &World, id: DomId) -> bool {
    w.hv.domains.get(id).is_some()
}

impl<'w> Child<'w> {
    fn new(w: &'w World) -> Self {
        let id = create(w, 0, &description(2)).unwrap();
        Self { w, id, frames: Vec::new(), kept: Vec::new(), mapped_by_dom0: Vec::new() }
    }

    fn populate(&mut self) {
        let w = self.w;
        domctl(w, DomctlCmd::MAX_MEM, self.id, MaxMem { max_memkb: PAGES as u64 * 4 }).unwrap();
        let mut list: [u64; PAGES] = core::array::from_fn(|pfn| pfn as u64);
        w.poke(BUFFER, list.as_bytes());
        let extent_start = GuestHandle::new(BUFFER.0);
        let mut request = MemoryReservation { extent_start, nr_extents: PAGES as u64, domid: self.id.0, ..MemoryReservation::default() };
        let done = w.call_with(DomId::DOM0, Hypercall::MEMORY_OP, |at| [MemoryOp::POPULATE_PHYSMAP.raw().into(), at, 0, 0, 0, 0], &mut request);
        assert_eq!(done, Ok(PAGES as i64));
        list = w.peek(BUFFER);
        self.frames = list.iter().map(|&mfn| Mfn(mfn)).collect();
        for (pfn, &mfn) in self.frames.iter().enumerate() {
            assert_eq!(w.machine.m2p(mfn), pfn as u64);
        }
    }

    /// Tables that map some frames, as a builder writes them.
    fn fill_tables(&self) {
        let m = self.w.machine;
        for pair in TABLES.windows(2) {
            m.write_entry(self.frames[pair[1]], 0, entry::make(self.frames[pair[0]], PRESENT | RW | USER));
        }
        for (index, &mfn) in self.frames.iter().enumerate() {
            let writable = if TABLES.contains(&index) { 0 } else { RW };
            m.write_entry(self.frames[TABLES[0]], index, entry::make(mfn, PRESENT | USER | writable));
        }
    }

    fn root(&self) -> Mfn {
        self.frames[TABLES[3]]
    }

    fn pin(&self) -> Result<i64, Errno> {
        let mut op = MmuextOp { cmd: MmuextCmd::PIN_L4_TABLE, arg1: self.root().0, ..MmuextOp::default() };
        self.w.call_with(DomId::DOM0, Hypercall::MMUEXT_OP, |at| [at, 1, 0, self.id.0.into(), 0, 0], &mut op)
    }

    fn set_context(&self) {
        let mut context = VcpuGuestContext { flags: VGCF_IN_KERNEL | VGCF_ONLINE, ..VcpuGuestContext::default() };
        context.user_regs.rip = 0x1000;
        context.ctrlreg[3] = self.root().maddr().0;
        self.w.poke(BUFFER, context.as_bytes());
        let request = VcpuContext { ctxt: GuestHandle::new(BUFFER.0), ..VcpuContext::default() };
        domctl(self.w, DomctlCmd::SETVCPUCONTEXT, self.id, request).unwrap();
    }

    fn connect_ports(&self) {
        let mut theirs = AllocUnbound { dom: self.id.0, remote_dom: 0, ..AllocUnbound::default() };
        event(self.w, DomId::DOM0, EvtchnOp::ALLOC_UNBOUND, &mut theirs).unwrap();
        let mut mine = BindInterdomain { remote_dom: self.id.0, remote_port: theirs.port, ..BindInterdomain::default() };
        event(self.w, DomId::DOM0, EvtchnOp::BIND_INTERDOMAIN, &mut mine).unwrap();
        let mut virq = BindVirq { virq: Virq::TIMER, ..BindVirq::default() };
        event(self.w, self.id, EvtchnOp::BIND_VIRQ, &mut virq).unwrap();
    }

    fn use_fifo(&self) {
        let mut request = InitControl { control_gfn: self.frames[CONTROL_FRAME].0, ..InitControl::default() };
        event(self.w, self.id, EvtchnOp::INIT_CONTROL, &mut request).unwrap();
    }

    fn register_info(&self) {
        let request = RegisterVcpuInfo { mfn: self.frames[INFO_FRAME].0, offset: 64, ..RegisterVcpuInfo::default() };
        vcpu_op(self.w, self.id, VcpuOp::REGISTER_VCPU_INFO, request).unwrap();
        vcpu_op(self.w, self.id, VcpuOp::SET_PERIODIC_TIMER, SetPeriodicTimer { period_ns: 10_000_000 }).unwrap();
    }

    fn grant(&self, granter: DomId, reference: u32, to: DomId, frame: Mfn) {
        let table = self.w.domain(granter).grants.lock().frames().next().unwrap();
        let entry = frame.0 << 32 | u64::from(to.0) << 16 | u64::from(GTF_PERMIT_ACCESS);
        self.w.machine.shared_u64(table, reference as usize * 8).store(entry, core::sync::atomic::Ordering::SeqCst);
    }

    fn map_grant(&self, caller: DomId, granter: DomId, gref: u32) -> u32 {
        let mut request = MapGrantRef { flags: GNTMAP_DEVICE_MAP, gref, dom: granter.0, ..MapGrantRef::default() };
        let op = GrantTableOp::MAP_GRANT_REF.raw().into();
        self.w.call_with(caller, Hypercall::GRANT_TABLE_OP, |at| [op, at, 1, 0, 0, 0], &mut request).unwrap();
        assert_eq!(request.status, GrantStatus::OKAY);
        request.handle
    }

    fn use_grants(&mut self, dom0_frame: Mfn) {
        let id = self.id;
        self.grant(id, TO_DOM0, DomId::DOM0, self.frames[GRANTED_FRAME]);
        self.grant(id, TO_ITSELF, id, self.frames[GRANTED_FRAME]);
        self.grant(DomId::DOM0, FROM_DOM0, id, dom0_frame);
        self.mapped_by_dom0.push(self.map_grant(DomId::DOM0, id, TO_DOM0));
        self.map_grant(id, id, TO_ITSELF);
        self.map_grant(id, DomId::DOM0, FROM_DOM0);
    }

    fn unmap_by_dom0(&mut self) {
        for handle in self.mapped_by_dom0.drain(..) {
            let frame = self.frames[GRANTED_FRAME];
            let mut request = UnmapGrantRef { dev_bus_addr: frame.maddr().0, handle, ..UnmapGrantRef::default() };
            let op = GrantTableOp::UNMAP_GRANT_REF.raw().into();
            self.w.call_with(DomId::DOM0, Hypercall::GRANT_TABLE_OP, |at| [op, at, 1, 0, 0, 0], &mut request).unwrap();
            assert_eq!(request.status, GrantStatus::OKAY);
        }
    }

    fn keep(&mut self, frame: usize) {
        self.kept.push(self.w.hv.memory.get_page(self.frames[frame], self.id).unwrap().hold());
    }
}

/// What the world looks like without children; to be the same after each.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    free_frames: u64,
    timers: usize,
    ports_of_dom0: usize,
    grants_of_dom0: u64,
    queued: bool,
}

fn account(w: &World) -> Account {
    let dom0 = w.domain(DomId::DOM0);
    let table = dom0.grants.lock().frames().next().unwrap();
    Account {
        free_frames: w.hv.memory.free_frames(),
        timers: w.hv.timers.iter().map(|queue| queue.lock().len()).sum(),
        ports_of_dom0: dom0.events.lock().in_use().count(),
        grants_of_dom0: w.machine.shared_u64(table, FROM_DOM0 as usize * 8).load(core::sync::atomic::Ordering::SeqCst) & 0xffff,
        queued: w.machine.online().iter().any(|cpu| w.hv.sched.has_waiting(cpu)),
    }
}

/// Closes what dom0 still has of ports.
fn close_ports_of_dom0(w: &World) {
    w.hv.reset_events(&w.domain(DomId::DOM0)).unwrap();
}

/// A frame of dom0's, and the grant entry in the state that it returns to.
fn dom0_frame(w: &World) -> Mfn {
    let frame = w.hv.memory.alloc_for(DomId::DOM0, 0, 0).unwrap();
    let table = w.domain(DomId::DOM0).grants.lock().frames().next().unwrap();
    w.machine.shared_u64(table, FROM_DOM0 as usize * 8).store(GTF_PERMIT_ACCESS.into(), core::sync::atomic::Ordering::SeqCst);
    frame
}

/// Brings a child up to `stage` (0: just made) and kills it there; `rng` decides what is left out on the way.
fn live_and_die(w: &World, dom0_frame: Mfn, stage: u32, rng: &mut Rng) {
    let before = account(w);
    let mut child = Child::new(w);
    let mut skip = || rng.below(4) == 0;
    let (skip_info, skip_fifo, skip_grants, skip_ports) = (skip(), skip(), skip(), skip());
    let mut steps: [(bool, &mut dyn FnMut(&mut Child<'_>)); 11] = [
        (false, &mut |c| domctl(c.w, DomctlCmd::MAX_VCPUS, c.id, MaxVcpus { max: 2 }).map(|_| ()).unwrap()),
        (false, &mut |c| c.populate()),
        (false, &mut |c| c.fill_tables()),
        (false, &mut |c| assert_eq!(c.pin(), Ok(0))),
        (false, &mut |c| c.set_context()),
        (skip_ports, &mut |c| c.connect_ports()),
        (skip_fifo, &mut |c| c.use_fifo()),
        (skip_info, &mut |c| c.register_info()),
        (skip_grants, &mut |c| c.use_grants(dom0_frame)),
        (false, &mut |c| c.keep(KEPT_FRAME)),
        (false, &mut |c| domctl(c.w, DomctlCmd::UNPAUSEDOMAIN, c.id, 0_u64).map(|_| ()).unwrap()),
    ];
    for (skipped, step) in steps.iter_mut().take(stage as usize) {
        if !*skipped {
            step(&mut child);
        }
    }
    if rng.below(2) == 0 {
        w.hv.shutdown_domain(&w.domain(child.id), oxen_abi::sched::ShutdownReason::CRASH);
    }
    assert_eq!(destroy(w, child.id), Ok(()), "stage {stage}");
    if child.kept.is_empty() && child.mapped_by_dom0.is_empty() {
        assert!(!exists(w, child.id), "stage {stage}: nothing keeps it");
    } else {
        let dead = w.domain(child.id);
        assert_eq!(dead.life(), Life::Dead);
        assert!(!dead.events.lock().is_fifo(), "nobody writes to frames that were given back");
        assert!(w.hv.memory.account(child.id).unwrap().pages() != 0);
        assert_eq!(create(w, child.id.0, &description(1)), Err(Errno::EEXIST), "the number is not free");
        drop(dead);
        child.unmap_by_dom0();
        child.kept.drain(..).for_each(|page| w.hv.memory.put(page));
        assert!(w.hv.memory.take_freed_of_dying() || !exists(w, child.id));
        w.hv.bury_dead();
        assert!(!exists(w, child.id), "stage {stage}: nothing keeps it any more");
    }
    close_ports_of_dom0(w);
    let ended = w.hv.memory.account(child.id).unwrap();
    assert_eq!((ended.pages(), ended.shared()), (0, 0));
    assert_eq!(account(w), before, "stage {stage}");
}

#[test]
fn everything_comes_back_from_every_stage() {
    let w = World::new();
    let mut rng = Rng::new(7);
    let frame = dom0_frame(&w);
    for round in 0..20 {
        for stage in 0..=11 {
            live_and_die(&w, frame, stage, &mut rng);
        }
        assert!(round < 19 || w.hv.domains.snapshot().len() == 2);
    }
}

#[test]
fn records_in_shared_frames_do_not_keep_a_domain() {
    let w = World::new();
    let before = account(&w);
    let places: [fn(&Child<'_>) -> Mfn; 2] =
        [|c| c.w.domain(c.id).shared_info.mfn(), |c| c.w.domain(c.id).grants.lock().frames().next().unwrap()];
    for place in places {
        let mut child = Child::new(&w);
        domctl(&w, DomctlCmd::MAX_VCPUS, child.id, MaxVcpus { max: 2 }).unwrap();
        child.populate();
        let request = RegisterVcpuInfo { mfn: place(&child).0, offset: 2048, ..RegisterVcpuInfo::default() };
        vcpu_op(&w, child.id, VcpuOp::REGISTER_VCPU_INFO, request).unwrap();
        destroy(&w, child.id).unwrap();
        assert!(!exists(&w, child.id));
        let ended = w.hv.memory.account(child.id).unwrap();
        assert_eq!((ended.pages(), ended.shared()), (0, 0));
    }
    assert_eq!(account(&w), before);
}

#[test]
fn thousands_of_ports_are_closed_in_steps() {
    let w = World::new();
    let child = Child::new(&w);
    domctl(&w, DomctlCmd::MAX_VCPUS, child.id, MaxVcpus { max: 2 }).unwrap();
    for _ in 0..1000 {
        let mut port = AllocUnbound { dom: child.id.0, remote_dom: 0, ..AllocUnbound::default() };
        event(&w, DomId::DOM0, EvtchnOp::ALLOC_UNBOUND, &mut port).unwrap();
    }
    let domain = w.domain(child.id);
    let mut reset = [child.id.0; 4];
    assert_eq!(w.hv.reset_events(&domain), Err(Errno::ERESTART));
    assert_eq!(event(&w, DomId::DOM0, EvtchnOp::RESET, &mut reset), Ok(0));
    assert_eq!(domain.events.lock().in_use().count(), 0);
    // Not while it runs.
    domctl(&w, DomctlCmd::UNPAUSEDOMAIN, child.id, 0_u64).unwrap();
    assert_eq!(event(&w, DomId::DOM0, EvtchnOp::RESET, &mut reset), Err(Errno::EINVAL));
    drop(domain);
    destroy(&w, child.id).unwrap();
    assert!(!exists(&w, child.id));
}

#[test]
fn numbers_come_round_late() {
    let w = World::new();
    let first = create(&w, 0, &description(1)).unwrap();
    destroy(&w, first).unwrap();
    let second = create(&w, 0, &description(1)).unwrap();
    assert!(second > first);
    assert_eq!(create(&w, D5.0, &description(1)), Err(Errno::EEXIST));
    assert_eq!(create(&w, 0x7fef, &description(1)), Ok(DomId(0x7fef)));
    // A number that the caller chose does not move the next one.
    assert_eq!(create(&w, DOMID_SELF, &description(1)), Ok(DomId(second.0 + 1)));
}

#[test]
fn a_dying_domain_gets_nothing() {
    let w = World::new();
    let mut child = Child::new(&w);
    child.populate();
    child.fill_tables();
    child.keep(TABLES[3]);
    child.keep(KEPT_FRAME);
    destroy(&w, child.id).unwrap();
    assert_eq!(child.pin(), Err(Errno::EINVAL));
    assert!(w.hv.memory.alloc_for(child.id, 0, 0).is_err());
    let mut port = AllocUnbound { dom: child.id.0, remote_dom: 0, ..AllocUnbound::default() };
    assert_eq!(event(&w, DomId::DOM0, EvtchnOp::ALLOC_UNBOUND, &mut port), Err(Errno::EINVAL));
    assert_eq!(domctl(&w, DomctlCmd::MAX_VCPUS, child.id, MaxVcpus { max: 2 }).err(), Some(Errno::EINVAL));
    let info = domctl(&w, DomctlCmd::GETDOMAININFO, child.id, GetDomainInfo::default()).unwrap();
    assert_eq!((info.domain, info.flags & DOMINF_DYING, info.tot_pages), (child.id.0, DOMINF_DYING, 2));
    assert_eq!(destroy(&w, child.id), Ok(()));
    child.kept.drain(..).for_each(|page| w.hv.memory.put(page));
    w.hv.bury_dead();
    assert!(!exists(&w, child.id));
}

#[test]
fn a_context_keeps_its_tables() {
    let w = World::new();
    let mut child = Child::new(&w);
    domctl(&w, DomctlCmd::MAX_VCPUS, child.id, MaxVcpus { max: 2 }).unwrap();
    child.populate();
    child.fill_tables();
    child.set_context();
    let uses = || w.hv.memory.inspect(child.root()).map(|frame| (frame.ty.level(), frame.uses));
    assert_eq!(uses(), Some((Some(Level::L4), 1)));
    child.set_context();
    assert_eq!(uses(), Some((Some(Level::L4), 1)));
    let request = VcpuContext { ctxt: GuestHandle::new(BUFFER.0), ..VcpuContext::default() };
    domctl(&w, DomctlCmd::GETVCPUCONTEXT, child.id, request).unwrap();
    let context: VcpuGuestContext = w.peek(BUFFER);
    assert_eq!((context.user_regs.rip, context.ctrlreg[3]), (0x1000, child.root().maddr().0));
    // A null context takes everything away again.
    domctl(&w, DomctlCmd::SETVCPUCONTEXT, child.id, VcpuContext::default()).unwrap();
    assert_eq!(uses(), Some((Some(Level::L4), 0)));
    assert_eq!(domctl(&w, DomctlCmd::GETVCPUCONTEXT, child.id, request).err(), Some(Errno::ENODATA));
    assert!(!w.domain(child.id).vcpu(VcpuId(0)).unwrap().is_up());
}
