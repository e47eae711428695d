//! Starting a domain that the hypervisor itself built.

use crate::Hypervisor;
use crate::domain::Domain;
use oxen_abi::arch_x86_64::{FLAT_KERNEL_CS, FLAT_KERNEL_SS};
use oxen_hal::{GuestFrame, Machine};
use oxen_mm::{Level, MmError};
use oxen_types::{DomId, Gva, Mfn, VcpuId};

/// RFLAGS of a new vCPU: IF and the bit that is always set.
const START_FLAGS: u64 = 1 << 9 | 1 << 1;

/// Frames of an extent of the machine-to-phys table (2 MiB), and its entries, of 8 bytes.
const FRAMES_PER_EXTENT: u64 = 512;
const M2P_ENTRIES_PER_EXTENT: u64 = FRAMES_PER_EXTENT * 4096 / 8;

/// How vCPU 0 of a domain that the hypervisor built starts.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Instruction pointer.
    pub rip: Gva,
    /// Stack pointer.
    pub rsp: Gva,
    /// Address of the start information.
    pub rsi: Gva,
    /// Root page table.
    pub root: Mfn,
}

impl<M: Machine> Hypervisor<M> {
    /// Lets privileged domains map the machine-to-phys table, for reading, as memory of [`DomId::XEN`]. Once, before any guest runs.
    pub fn share_machphys(&self) {
        for index in 0..self.machine.max_mfn().div_ceil(M2P_ENTRIES_PER_EXTENT) {
            let Some(first) = self.machine.m2p_extent(index as usize) else { continue };
            for n in 0..FRAMES_PER_EXTENT {
                self.memory.share_forever(first.offset(n), DomId::XEN);
            }
        }
    }

    /// Validates the tables of a domain that the hypervisor built, pins their root, and sets vCPU 0 up to start.
    pub fn set_start(&self, domain: &Domain, start: &Start) -> Result<(), MmError> {
        loop {
            match self.with_tables(domain, domain.id, |mm, ctx| mm.pin(ctx, start.root, Level::L4)) {
                Ok(()) => break,
                Err(MmError::Preempted) => {}
                Err(error) => return Err(error),
            }
        }
        self.mask_upcalls(domain);
        let root = self.get_root(domain, start.root)?;
        let Some(vcpu) = domain.vcpu(VcpuId(0)) else { return Ok(()) };
        let mut state = vcpu.state.take();
        state.root = Some(root);
        state.kernel_ss = FLAT_KERNEL_SS.into();
        state.kernel_sp = start.rsp.0;
        state.context.in_kernel = true;
        state.context.frame = GuestFrame {
            rip: start.rip.0,
            cs: FLAT_KERNEL_CS.into(),
            rflags: START_FLAGS,
            rsp: start.rsp.0,
            ss: FLAT_KERNEL_SS.into(),
            rsi: start.rsi.0,
            ..GuestFrame::default()
        };
        state.initialised = true;
        Ok(())
    }
}
