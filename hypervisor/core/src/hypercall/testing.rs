//! A hypervisor on a fake machine with two processors: domain 0, which controls, and domain 5, which does not; two vCPUs each. Calls come from vCPU 0
//! on processor 0.

use super::{Answer, Args};
use crate::console::Ring;
use crate::ctx::Ctx;
use crate::domain::{Domain, DomainSpec, Privileges};
use crate::{Config, Hypervisor};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::AtomicU8;
use oxen_abi::{Errno, Hypercall};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_hal::{AddressSpace, Frames, GuestFrame, GuestMemory};
use oxen_mm::Mm;
use oxen_mm::entry::{self, PRESENT, RW, USER};
use oxen_testkit::FakeMachine;
use oxen_types::{CpuId, DomId, Gva, Mfn, VcpuId};

/// Frames of the machine.
pub const FRAMES: u64 = 1024;
/// Where the guests' memory begins, and how many pages of it there are.
pub const BASE: Gva = Gva(0x1000);
const PAGES: usize = 8;
/// Entries of a root that every address space has (PML4 slots 256 to 271).
const FIRST_HYPERVISOR_SLOT: usize = 256;
const HYPERVISOR_SLOTS: usize = 16;
/// Where arguments of calls are put, and room for what they point to.
const ARGUMENT: Gva = BASE;
pub const BUFFER: Gva = Gva(0x2000);
/// An address without a page.
pub const NOWHERE: Gva = Gva(0x10_0000);
/// The domain without privileges.
pub const D5: DomId = DomId(5);
/// Bytes of the console ring.
const RING_BYTES: usize = 4096;

pub struct World {
    pub machine: &'static FakeMachine,
    pub hv: Hypervisor<FakeMachine>,
}

impl World {
    pub fn new() -> Self {
        let config = oxen_testkit::Config { frames: FRAMES, cpus: 2, ..oxen_testkit::Config::default() };
        let machine = FakeMachine::new(config);
        let memory = Mm::new(machine);
        memory.add_range(Mfn(0), FRAMES);
        machine.load_root(address_space(machine, &memory), true);
        let region = Box::leak((0..RING_BYTES).map(|_| AtomicU8::new(0)).collect());
        let hv = Hypervisor::new(machine, memory, Config::default(), Ring::in_region(region).0);
        for (id, control) in [(DomId::DOM0, true), (D5, false)] {
            hv.memory.account(id).unwrap().set_limit(100);
            let domain = hv.add_domain(&DomainSpec::new(id, Privileges { control, hardware: control }, 2)).unwrap();
            hv.add_vcpus(&domain, false);
        }
        Self { machine, hv }
    }

    pub fn domain(&self, id: DomId) -> Arc<Domain> {
        self.hv.domains.get(id).unwrap()
    }

    /// Makes a call with a structure as its only argument, which comes back as the hypervisor left it.
    pub fn call<T: FromBytes + IntoBytes + Immutable>(&self, caller: DomId, number: Hypercall, argument: &mut T) -> Answer {
        self.call_with(caller, number, |at| [at, 0, 0, 0, 0, 0], argument)
    }

    /// As [`World::call`], with the words that `words` makes of the structure's address, and as often as the call wants to be made again.
    pub fn call_with<T: FromBytes + IntoBytes + Immutable>(
        &self,
        caller: DomId,
        number: Hypercall,
        words: impl Fn(u64) -> Args,
        argument: &mut T,
    ) -> Answer {
        self.machine.copy_to_guest(ARGUMENT, argument.as_bytes()).unwrap();
        let mut args = words(ARGUMENT.0);
        let answer = loop {
            match self.dispatch(caller, number, &mut args) {
                Err(Errno::ERESTART) => {}
                answer => break answer,
            }
        };
        *argument = self.peek(ARGUMENT);
        answer
    }

    /// One attempt at a call.
    pub fn dispatch(&self, caller: DomId, number: Hypercall, args: &mut Args) -> Answer {
        let domain = self.domain(caller);
        let vcpu = domain.vcpu(VcpuId(0)).unwrap();
        let mut state = vcpu.state.take();
        let mut frame = GuestFrame::default();
        let mut ctx = Ctx { hv: &self.hv, cpu: CpuId(0), vcpu, domain: &domain, state: &mut state, frame: &mut frame };
        ctx.dispatch(number, args)
    }

    pub fn peek<T: FromBytes + IntoBytes>(&self, at: Gva) -> T {
        let mut value = T::new_zeroed();
        self.machine.copy_from_guest(value.as_mut_bytes(), at).unwrap();
        value
    }

    pub fn poke(&self, at: Gva, bytes: &[u8]) {
        self.machine.copy_to_guest(at, bytes).unwrap();
    }
}

/// Page tables that map some pages from [`BASE`] on.
fn address_space(machine: &'static FakeMachine, memory: &Mm<FakeMachine>) -> Mfn {
    let page = || memory.alloc_zeroed(0, 0).unwrap().mfn();
    let tables = [page(), page(), page(), page()];
    for (i, pair) in tables.windows(2).enumerate() {
        machine.write_entry(pair[0], BASE.pt_index(4 - i as u32), entry::make(pair[1], PRESENT | RW | USER));
    }
    for i in 0..HYPERVISOR_SLOTS {
        machine.write_entry(tables[0], FIRST_HYPERVISOR_SLOT + i, machine.hypervisor_slot(i));
    }
    for i in 0..PAGES {
        machine.write_entry(tables[3], BASE.pt_index(1) + i, entry::make(page(), PRESENT | RW | USER));
    }
    tables[0]
}
