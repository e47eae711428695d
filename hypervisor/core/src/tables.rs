//! Page tables of a domain as `mm` sees them: contexts, flushes, roots, descriptor frames.

use crate::Hypervisor;
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::sched::work;
use crate::vcpu::{Placement, Vcpu, VcpuState};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use oxen_abi::Errno;
use oxen_hal::{CpuOps, FlushScope, Frames, Machine, Platform};
use oxen_mm::{Effects, HeldTable, HeldTyped, Level, Mm, MmError, MmioAccess, MmioPolicy, MmuContext};
use oxen_types::{CpuSet, DomId, Gva, Mfn, VcpuId};

/// Page-table entries that one call may look at before the guest may take interrupts.
pub(crate) const BUDGET: u32 = 64 * 1024;

/// Width of machine addresses where CPUID does not tell it (Intel SDM vol. 2, "CPUID", leaf 0x80000008), and the architecture's limit.
const COMMON_ADDRESS_BITS: u32 = 36;
const MAX_ADDRESS_BITS: u32 = 52;

/// Which device memory a domain may map: the hardware domain all of it, for reading only where the hypervisor uses it itself; others what they were given.
#[derive(Debug)]
pub(crate) struct Mmio<'a, M> {
    machine: &'a M,
    domain: &'a Domain,
}

impl<M: Frames + Platform + CpuOps> MmioPolicy for Mmio<'_, M> {
    fn mmio_access(&self, mfn: Mfn) -> MmioAccess {
        let allowed = self.domain.has_devices() || self.domain.access.lock().memory.contains(mfn.0, mfn.0);
        if !allowed || mfn == LOCAL_APIC || beyond_machine(self.machine, mfn) || is_hypertransport(self.machine, mfn) {
            MmioAccess::Refused
        } else if self.machine.is_hypervisor_mmio(mfn) {
            MmioAccess::ReadOnly
        } else {
            MmioAccess::ReadWrite
        }
    }
}

/// The frame of the local APICs' registers.
const LOCAL_APIC: Mfn = Mfn(0xfee0_0000 >> 12);

/// Whether the address belongs to the HyperTransport range, in which AMD processors have no memory (AMD BKDG, "HyperTransport Technology
/// Configuration and Mapping": 0xfd_0000_0000 to 0xff_ffff_ffff).
fn is_hypertransport<M: CpuOps>(machine: &M, mfn: Mfn) -> bool {
    let amd = u32::from_le_bytes(*b"Auth");
    let hygon = u32::from_le_bytes(*b"Hygo");
    (0xfd_0000_0000 >> 12..1 << (40 - 12)).contains(&mfn.0) && [amd, hygon].contains(&machine.cpuid(0, 0)[1])
}

/// Whether the processor has no such machine address.
fn beyond_machine<M: CpuOps>(machine: &M, mfn: Mfn) -> bool {
    // CPUID can be slow, and few devices are that high.
    mfn.0 >> (COMMON_ADDRESS_BITS - 12) != 0 && {
        let has_sizes = machine.cpuid(0x8000_0000, 0)[0] >= 0x8000_0008;
        let bits = if has_sizes { machine.cpuid(0x8000_0008, 0)[0] & 0xff } else { COMMON_ADDRESS_BITS };
        mfn.0 >> (bits.clamp(COMMON_ADDRESS_BITS, MAX_ADDRESS_BITS) - 12) != 0
    }
}

/// On which CPUs translations are dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FlushTarget {
    /// The calling one.
    Local,
    /// All that may have translations of the domain.
    All,
    /// Those that run the vCPUs of a bitmap at this guest address.
    Vcpus(Gva),
}

impl<M: Machine> Hypervisor<M> {
    /// Which device memory a domain may map.
    pub(crate) const fn device_memory<'a>(&'a self, domain: &'a Domain) -> Mmio<'a, M> {
        Mmio { machine: self.machine, domain }
    }

    /// Works on `owner`'s page tables under their lock, and does what the work leaves to the caller.
    #[inline]
    pub(crate) fn with_tables<R>(
        &self,
        owner: &Domain,
        foreign: DomId,
        f: impl FnOnce(&Mm<M>, &mut MmuContext<'_, Mmio<'_, M>>) -> R,
    ) -> R {
        let policy = self.device_memory(owner);
        let mut tables = owner.page_tables.lock();
        let mut ctx = MmuContext::new(&mut tables, owner.id, &owner.dirty_cpus, &policy, owner.has_devices(), BUDGET).with_foreign(foreign);
        let result = f(&self.memory, &mut ctx);
        let effects = ctx.effects;
        drop(tables);
        if effects != Effects::default() {
            self.after_tables(owner, effects);
        }
        result
    }

    #[cold]
    fn after_tables(&self, owner: &Domain, effects: Effects) {
        if effects.upper_changed {
            self.machine.flush_remote(&owner.dirty_cpus, FlushScope::All);
        }
        if effects.ldt_stale {
            for vcpu in owner.vcpus() {
                vcpu.ldt_stale.store(true, Ordering::SeqCst);
                self.sched.nudge(self.machine, vcpu, work::RESCHEDULE);
            }
        }
    }

    /// Drops the LDT pages of the running vCPU where a page that may have been one of them is mapped no more. The processor finds them again through the
    /// guest's page tables.
    pub(crate) fn refresh_ldt(&self, vcpu: &Vcpu, state: &mut VcpuState) {
        if vcpu.ldt_stale.load(Ordering::Relaxed) && vcpu.ldt_stale.swap(false, Ordering::SeqCst) && state.ldt.entries != 0 {
            self.machine.set_guest_ldt(state.ldt.entries);
            self.drop_ldt(state);
        }
    }

    /// Takes a use of a root table. Restarts by itself where the work is long; only for contexts that come from the hypervisor.
    pub(crate) fn get_root(&self, owner: &Domain, mfn: Mfn) -> Result<HeldTable, MmError> {
        loop {
            match self.with_tables(owner, owner.id, |mm, ctx| mm.get_table(ctx, mfn, Level::L4)) {
                Err(MmError::Preempted) => {}
                other => return other,
            }
        }
    }

    /// Gives a use of a root table back.
    pub(crate) fn put_root(&self, owner: &Domain, root: HeldTable) {
        let mut root = Some(root);
        while let Some(table) = root.take() {
            root = self.with_tables(owner, owner.id, |mm, ctx| mm.put_table(ctx, table)).err();
        }
    }

    /// Takes uses of frames as descriptor tables; all or none.
    pub(crate) fn take_descriptor_frames(&self, owner: &Domain, frames: &[Mfn]) -> Result<Vec<HeldTyped>, Errno> {
        let mut held = Vec::new();
        for &mfn in frames {
            match self.with_tables(owner, owner.id, |mm, ctx| mm.get_descriptors(ctx, mfn)) {
                Ok(frame) => held.push(frame),
                Err(error) => {
                    held.into_iter().for_each(|frame| self.memory.put_typed(frame));
                    return Err(if error == MmError::Preempted { Errno::ERESTART } else { Errno::EINVAL });
                }
            }
        }
        Ok(held)
    }

    /// Replaces the GDT of a vCPU.
    pub(crate) fn replace_gdt(&self, state: &mut VcpuState, frames: Vec<HeldTyped>, entries: u32) {
        let old = core::mem::replace(&mut state.gdt_frames, frames);
        state.gdt_entries = entries;
        old.into_iter().for_each(|frame| self.memory.put_typed(frame));
    }

    /// Gives the LDT pages of a vCPU back, as nothing maps them any more.
    pub(crate) fn drop_ldt(&self, state: &mut VcpuState) {
        for frame in state.ldt_frames.iter_mut().filter_map(Option::take) {
            self.memory.put_typed(frame);
        }
    }
}

impl<M: Machine> Ctx<'_, M> {
    /// The frame numbers of the vCPU's GDT.
    pub(crate) fn gdt_mfns(&self) -> Vec<Mfn> {
        self.state.gdt_frames.iter().map(HeldTyped::mfn).collect()
    }

    /// Drops translations.
    #[inline]
    pub(crate) fn flush(&self, target: FlushTarget, scope: FlushScope) -> Result<(), Errno> {
        match (target, scope) {
            (FlushTarget::Local, FlushScope::Page(va)) => self.machine().flush_page_local(va),
            (FlushTarget::Local, FlushScope::All) => self.machine().flush_local(scope),
            (FlushTarget::All, _) => self.machine().flush_remote(&self.domain.dirty_cpus, scope),
            (FlushTarget::Vcpus(mask), _) => {
                let cpus = self.cpus_of_mask(mask)?;
                self.machine().flush_remote(&cpus, scope);
            }
        }
        Ok(())
    }

    /// The CPUs that run the vCPUs of a bitmap in guest memory.
    fn cpus_of_mask(&self, mask: Gva) -> Result<CpuSet, Errno> {
        let cpus = CpuSet::new();
        let words = self.domain.max_vcpus().div_ceil(64);
        for word in 0..words {
            let mut bits: u64 = self.read_element(mask, word.into())?;
            while bits != 0 {
                let id = word * 64 + bits.trailing_zeros();
                bits &= bits - 1;
                if let Some(vcpu) = self.domain.vcpu(VcpuId(id))
                    && let Placement::Running(cpu) = *vcpu.place.lock()
                {
                    cpus.insert(cpu);
                }
            }
        }
        Ok(cpus)
    }
}
