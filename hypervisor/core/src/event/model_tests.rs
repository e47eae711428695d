//! Event channels against a model: two domains make, connect, use, move, mask and close ports by their calls, one of them in either ABI, and
//! take their events as a kernel does.

extern crate std;
use super::fifo::HEADS;
use super::*;
use crate::hypercall::testing::{BUFFER, D5, World};
use oxen_abi::event_channel::*;
use oxen_abi::memory::{MemoryOp, MemoryReservation};
use oxen_abi::xen::DOMID_SELF;
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_abi::{GuestHandle, Hypercall};
use oxen_testkit::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

const DOMAINS: [DomId; 2] = [DomId::DOM0, D5];
/// A domain that is not there.
const NOBODY: DomId = DomId(9);
const VCPUS: u32 = 2;
/// Ports that a domain has at most here; others are never named.
const PORTS: u32 = 40;
const STEPS: usize = 3000;
const SEEDS: u64 = 16;
/// Offsets in `struct shared_info` and in a vCPU's `struct vcpu_info` of 64 bytes (`xen.h`, `arch-x86_64.h`).
const PENDING: usize = 2048;
const MASK: usize = 2560;
const INFO_BYTES: usize = 64;
const SELECTOR: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Unbound(DomId),
    Connected(DomId, u32),
    Virq(Virq),
    Ipi,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    end: End,
    vcpu: u32,
    pending: bool,
}

/// The frames of the FIFO ABI: a control block for each vCPU, and one page of words.
struct FifoFrames {
    blocks: [Mfn; VCPUS as usize],
    words: Mfn,
}

struct Model {
    w: World,
    known: BTreeMap<DomId, BTreeMap<u32, Known>>,
    /// Domain 5's, where it uses that ABI.
    fifo: Option<FifoFrames>,
}

fn call<T: FromBytes + IntoBytes + Immutable>(w: &World, who: DomId, op: EvtchnOp, mut request: T) -> Result<T, Errno> {
    w.call_with(who, Hypercall::EVENT_CHANNEL_OP, |at| [op.raw().into(), at, 0, 0, 0, 0], &mut request).map(|_| request)
}

impl Model {
    fn new(fifo: bool) -> Self {
        let w = World::new();
        let fifo = fifo.then(|| {
            let mut frames: [u64; 3] = [0; 3];
            w.poke(BUFFER, frames.as_bytes());
            let mut request =
                MemoryReservation { extent_start: GuestHandle::new(BUFFER.0), nr_extents: 3, domid: DOMID_SELF, ..MemoryReservation::default() };
            let done = w.call_with(D5, Hypercall::MEMORY_OP, |at| [MemoryOp::INCREASE_RESERVATION.raw().into(), at, 0, 0, 0, 0], &mut request);
            assert_eq!(done, Ok(3));
            frames = w.peek(BUFFER);
            let [first, second, words] = frames.map(Mfn);
            FifoFrames { blocks: [first, second], words }
        });
        let model = Self { w, known: DOMAINS.map(|id| (id, BTreeMap::new())).into(), fifo };
        model.start_fifo();
        model
    }

    /// Domain 5 begins with the FIFO ABI, if it uses it, as a kernel does that has just been started.
    fn start_fifo(&self) {
        let Some(fifo) = &self.fifo else { return };
        for offset in (0..4096).step_by(8) {
            self.w.machine.shared_u64(fifo.words, offset).store(0, core::sync::atomic::Ordering::SeqCst);
        }
        for (vcpu, block) in fifo.blocks.iter().enumerate() {
            self.w.machine.shared_u32(*block, 0).store(0, core::sync::atomic::Ordering::SeqCst);
            let request = InitControl { control_gfn: block.0, vcpu: vcpu as u32, ..InitControl::default() };
            call(&self.w, D5, EvtchnOp::INIT_CONTROL, request).unwrap();
        }
        call(&self.w, D5, EvtchnOp::EXPAND_ARRAY, ExpandArray { array_gfn: fifo.words.0 }).unwrap();
    }

    fn fifo_of(&self, who: DomId) -> Option<&FifoFrames> {
        self.fifo.as_ref().filter(|_| who == D5)
    }

    fn ports(&self, who: DomId) -> &BTreeMap<u32, Known> {
        &self.known[&who]
    }

    fn ports_mut(&mut self, who: DomId) -> &mut BTreeMap<u32, Known> {
        self.known.get_mut(&who).unwrap()
    }

    /// A new port: the lowest free one, but that a port waits which is in a FIFO queue still.
    fn add(&mut self, who: DomId, port: u32, end: End, vcpu: u32) {
        let lowest = (1..).find(|port| !self.ports(who).contains_key(port)).unwrap();
        assert!(port == lowest || port > lowest && self.fifo_of(who).is_some(), "port {port} was given out instead of {lowest}");
        let old = self.ports_mut(who).insert(port, Known { end, vcpu, pending: false });
        assert!(old.is_none(), "port {port} was in use");
    }

    fn set_pending(&mut self, who: DomId, port: u32) {
        if let Some(known) = self.ports_mut(who).get_mut(&port) {
            known.pending = true;
        }
    }

    fn is_masked(&self, who: DomId, port: u32) -> bool {
        self.w.domain(who).events.lock().is_masked(self.w.machine, Port(port))
    }

    /// The guest masks a port by itself.
    fn mask(&self, who: DomId, port: u32) {
        let order = core::sync::atomic::Ordering::SeqCst;
        match self.fifo_of(who) {
            Some(fifo) => _ = self.w.machine.shared_u32(fifo.words, port as usize * 4).fetch_or(1 << EVTCHN_FIFO_MASKED, order),
            None => _ = self.w.machine.shared_u64(self.w.domain(who).shared_info.mfn(), MASK).fetch_or(1 << port, order),
        }
    }

    fn alloc_unbound(&mut self, who: DomId, rng: &mut Rng) {
        let (dom, remote) = (*rng.pick(&[DOMID_SELF, D5.0, 0, NOBODY.0]), *rng.pick(&[DomId::DOM0, D5, DomId::SELF, NOBODY]));
        let owner = if dom == DOMID_SELF { who } else { DomId(dom) };
        let result = call(&self.w, who, EvtchnOp::ALLOC_UNBOUND, AllocUnbound { dom, remote_dom: remote.0, ..AllocUnbound::default() });
        if owner == NOBODY {
            assert_eq!(result.err(), Some(Errno::ESRCH));
        } else if owner != who && who != DomId::DOM0 {
            assert_eq!(result.err(), Some(Errno::EPERM));
        } else {
            let remote = if remote == DomId::SELF { who } else { remote };
            self.add(owner, result.unwrap().port, End::Unbound(remote), 0);
        }
    }

    fn bind_interdomain(&mut self, who: DomId, rng: &mut Rng) {
        let remote = *rng.pick(&[DomId::DOM0, D5, DomId::SELF, NOBODY]);
        let remote_port = rng.below(PORTS.into()) as u32;
        let request = BindInterdomain { remote_dom: remote.0, remote_port, ..BindInterdomain::default() };
        let result = call(&self.w, who, EvtchnOp::BIND_INTERDOMAIN, request);
        let remote = if remote == DomId::SELF { who } else { remote };
        let waits = self.known.get(&remote).map(|ports| ports.get(&remote_port).is_some_and(|known| known.end == End::Unbound(who)));
        match waits {
            None => assert_eq!(result.err(), Some(Errno::ESRCH)),
            Some(false) => assert_eq!(result.err(), Some(Errno::EINVAL)),
            Some(true) => {
                let port = result.unwrap().local_port;
                self.add(who, port, End::Connected(remote, remote_port), 0);
                self.ports_mut(remote).get_mut(&remote_port).unwrap().end = End::Connected(who, port);
                self.set_pending(who, port);
            }
        }
    }

    fn bind_virq(&mut self, who: DomId, rng: &mut Rng) {
        let virq = *rng.pick(&[Virq::TIMER, Virq::DEBUG, Virq::DOM_EXC, Virq(NR_VIRQS)]);
        let vcpu = rng.below(u64::from(VCPUS) + 1) as u32;
        let result = call(&self.w, who, EvtchnOp::BIND_VIRQ, BindVirq { virq, vcpu, ..BindVirq::default() });
        let global = virq == Virq::DOM_EXC;
        let bound = self.ports(who).values().any(|known| known.end == End::Virq(virq) && (global || known.vcpu == vcpu));
        if virq.raw() >= NR_VIRQS || global && vcpu != 0 {
            assert_eq!(result.err(), Some(Errno::EINVAL));
        } else if vcpu >= VCPUS {
            assert_eq!(result.err(), Some(Errno::ENOENT));
        } else if bound {
            assert_eq!(result.err(), Some(Errno::EEXIST));
        } else {
            self.add(who, result.unwrap().port, End::Virq(virq), vcpu);
        }
    }

    fn bind_ipi(&mut self, who: DomId, rng: &mut Rng) {
        let vcpu = rng.below(u64::from(VCPUS) + 1) as u32;
        let result = call(&self.w, who, EvtchnOp::BIND_IPI, BindIpi { vcpu, ..BindIpi::default() });
        if vcpu >= VCPUS {
            assert_eq!(result.err(), Some(Errno::ENOENT));
        } else {
            self.add(who, result.unwrap().port, End::Ipi, vcpu);
        }
    }

    fn bind_vcpu(&mut self, who: DomId, port: u32, rng: &mut Rng) {
        let vcpu = rng.below(u64::from(VCPUS) + 1) as u32;
        let result = call(&self.w, who, EvtchnOp::BIND_VCPU, BindVcpu { port, vcpu });
        let movable = match self.ports(who).get(&port).map(|known| known.end) {
            None | Some(End::Ipi | End::Virq(Virq::TIMER | Virq::DEBUG)) => false,
            Some(_) => true,
        };
        if vcpu >= VCPUS {
            assert_eq!(result.err(), Some(Errno::ENOENT));
        } else if !movable {
            assert_eq!(result.err(), Some(Errno::EINVAL));
        } else {
            result.unwrap();
            self.ports_mut(who).get_mut(&port).unwrap().vcpu = vcpu;
        }
    }

    fn send(&mut self, who: DomId, port: u32) {
        let result = call(&self.w, who, EvtchnOp::SEND, Send { port });
        match self.ports(who).get(&port).map(|known| known.end) {
            None | Some(End::Virq(_)) => assert_eq!(result.err(), Some(Errno::EINVAL)),
            Some(end) => {
                result.unwrap();
                match end {
                    End::Ipi => self.set_pending(who, port),
                    End::Connected(remote, remote_port) => self.set_pending(remote, remote_port),
                    End::Unbound(_) | End::Virq(_) => {}
                }
            }
        }
    }

    fn raise_virq(&mut self, who: DomId, rng: &mut Rng) {
        let (virq, vcpu) = (*rng.pick(&[Virq::TIMER, Virq::DEBUG, Virq::DOM_EXC]), rng.below(VCPUS.into()) as u32);
        self.w.hv.raise_vcpu_virq(self.w.domain(who).vcpu(VcpuId(vcpu)).unwrap(), virq);
        // Of a global one each domain has one port, whoever is told.
        let bound = |known: &Known| known.end == End::Virq(virq) && (known.vcpu == vcpu || virq_is_global(virq));
        let port = self.ports(who).iter().find(|(_, known)| bound(known)).map(|(port, _)| *port);
        if let Some(port) = port {
            self.set_pending(who, port);
        }
    }

    fn close(&mut self, who: DomId, port: u32) {
        let result = call(&self.w, who, EvtchnOp::CLOSE, Close { port });
        assert_eq!(result.is_ok(), self.forget(who, port));
    }

    /// Whether the port was there.
    fn forget(&mut self, who: DomId, port: u32) -> bool {
        let Some(known) = self.ports_mut(who).remove(&port) else { return false };
        if let End::Connected(remote, remote_port) = known.end
            && let Some(peer) = self.ports_mut(remote).get_mut(&remote_port)
        {
            peer.end = End::Unbound(who);
        }
        true
    }

    fn reset(&mut self, who: DomId) {
        call(&self.w, who, EvtchnOp::RESET, Reset { dom: DOMID_SELF }).unwrap();
        for port in self.ports(who).keys().copied().collect::<Vec<_>>() {
            self.forget(who, port);
        }
        if who == D5 {
            self.start_fifo();
        }
    }

    fn set_priority(&self, who: DomId, port: u32, rng: &mut Rng) {
        let priority = rng.below(17) as u32;
        let result = call(&self.w, who, EvtchnOp::SET_PRIORITY, SetPriority { port, priority });
        if self.fifo_of(who).is_none() {
            assert_eq!(result.err(), Some(Errno::ENOSYS));
        } else if priority > EVTCHN_FIFO_PRIORITY_MIN {
            assert_eq!(result.err(), Some(Errno::EINVAL));
        }
    }

    fn unmask(&self, who: DomId, port: u32) {
        call(&self.w, who, EvtchnOp::UNMASK, Unmask { port }).unwrap();
        assert!(!self.is_masked(who, port) || !self.ports(who).contains_key(&port), "{who:?}'s port {port}");
    }

    /// The guest's vCPUs take their events: just those that are pending and not masked.
    fn consume(&mut self, who: DomId) {
        let wanted: BTreeSet<u32> = self.ports(who).iter().filter(|(port, known)| known.pending && !self.is_masked(who, **port)).map(|(port, _)| *port).collect();
        let mut taken = BTreeSet::new();
        for vcpu in 0..VCPUS {
            let told = self.take_upcall(who, vcpu);
            let of_vcpu = match self.fifo_of(who) {
                Some(fifo) => self.take_fifo(fifo, vcpu),
                None => self.take_two_level(who, vcpu),
            };
            assert!(told || of_vcpu.is_empty(), "{who:?}'s vCPU {vcpu} was not told of {of_vcpu:?}");
            taken.extend(of_vcpu);
        }
        assert_eq!(taken, wanted, "{who:?}");
        for port in taken {
            self.ports_mut(who).get_mut(&port).unwrap().pending = false;
        }
    }

    /// Clears a vCPU's flag; says whether it was set.
    fn take_upcall(&self, who: DomId, vcpu: u32) -> bool {
        let info = self.w.domain(who).shared_info.mfn();
        let flags = self.w.machine.shared_u64(info, vcpu as usize * INFO_BYTES);
        flags.fetch_and(!0xff, core::sync::atomic::Ordering::SeqCst) & 0xff != 0
    }

    fn take_two_level(&self, who: DomId, vcpu: u32) -> Vec<u32> {
        let order = core::sync::atomic::Ordering::SeqCst;
        let info = self.w.domain(who).shared_info.mfn();
        let words = self.w.machine.shared_u64(info, vcpu as usize * INFO_BYTES + SELECTOR).swap(0, order);
        assert_eq!(words & !1, 0, "ports above 63");
        if words == 0 {
            return Vec::new();
        }
        let open = !self.w.machine.shared_u64(info, MASK).load(order);
        let taken = self.w.machine.shared_u64(info, PENDING).fetch_and(!open, order) & open;
        (0..64).filter(|port| taken & 1 << port != 0).collect()
    }

    fn take_fifo(&self, fifo: &FifoFrames, vcpu: u32) -> Vec<u32> {
        let order = core::sync::atomic::Ordering::SeqCst;
        let block = fifo.blocks[vcpu as usize];
        let ready = self.w.machine.shared_u32(block, 0).swap(0, order);
        let mut taken = Vec::new();
        for queue in (0..FIFO_MAX_QUEUES).filter(|queue| ready & 1 << queue != 0) {
            let head = self.w.machine.shared_u32(block, HEADS + 4 * queue);
            let mut port = head.load(order);
            while port != 0 {
                let word = self.w.machine.shared_u32(fifo.words, port as usize * 4);
                let seen = word.fetch_and(!(1 << EVTCHN_FIFO_LINKED | EVTCHN_FIFO_LINK_MASK), order);
                assert!(seen & 1 << EVTCHN_FIFO_LINKED != 0, "port {port} is in a queue without being linked");
                if seen & (1 << EVTCHN_FIFO_PENDING | 1 << EVTCHN_FIFO_MASKED) == 1 << EVTCHN_FIFO_PENDING {
                    word.fetch_and(!(1 << EVTCHN_FIFO_PENDING), order);
                    taken.push(port);
                }
                port = seen & EVTCHN_FIFO_LINK_MASK;
            }
            head.store(0, order);
        }
        taken
    }

    /// Every port is what it should be, to its owner and to the control domain.
    fn check(&self) {
        for who in DOMAINS {
            for port in 0..PORTS + 2 {
                let found = call(&self.w, DomId::DOM0, EvtchnOp::STATUS, Status { dom: who.0, port, ..Status::default() }).unwrap();
                let pending = self.w.domain(who).events.lock().is_pending(self.w.machine, Port(port));
                let known = self.ports(who).get(&port);
                let (status, vcpu, u) = match known {
                    None => (EvtchnStatus::CLOSED, 0, [0, 0]),
                    Some(known) => {
                        let (status, u) = match known.end {
                            End::Unbound(remote) => (EvtchnStatus::UNBOUND, [remote.0.into(), 0]),
                            End::Connected(remote, port) => (EvtchnStatus::INTERDOMAIN, [remote.0.into(), port]),
                            End::Virq(virq) => (EvtchnStatus::VIRQ, [virq.raw(), 0]),
                            End::Ipi => (EvtchnStatus::IPI, [0, 0]),
                        };
                        (status, known.vcpu, u)
                    }
                };
                assert_eq!((found.status, found.vcpu, found.u), (status, vcpu, u), "{who:?}'s port {port}: {known:?}");
                assert_eq!(pending, known.is_some_and(|known| known.pending), "{who:?}'s port {port}: {known:?}");
            }
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        let who = *rng.pick(&DOMAINS);
        let port = rng.below(PORTS.into()) as u32;
        let full = DOMAINS.iter().any(|who| self.ports(*who).len() as u32 + 2 >= PORTS / 2);
        match rng.below(20) {
            0 | 1 if !full => self.alloc_unbound(who, rng),
            2..=4 if !full => self.bind_interdomain(who, rng),
            5 if !full => self.bind_virq(who, rng),
            6 if !full => self.bind_ipi(who, rng),
            0..=6 | 7 => self.close(who, port),
            8 => self.bind_vcpu(who, port, rng),
            9..=12 => self.send(who, port),
            13 => self.raise_virq(who, rng),
            14 => self.mask(who, port),
            15 | 16 => self.unmask(who, port),
            17 => self.set_priority(who, port, rng),
            18 if rng.one_in(30) => self.reset(who),
            _ => self.consume(who),
        }
    }
}

fn run(fifo: bool) {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut model = Model::new(fifo);
        for step in 0..STEPS {
            model.step(&mut rng);
            if step % 8 == 0 {
                model.check();
            }
        }
        for who in DOMAINS {
            model.consume(who);
        }
        model.check();
    }
}

#[test]
fn two_level() {
    run(false);
}

#[test]
fn fifo() {
    run(true);
}
