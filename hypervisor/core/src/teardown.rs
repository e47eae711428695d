//! The end of a domain: taking away what it has, in steps, at whatever stage of its life it is.
//!
//! First its vCPUs stop for ever. Then, in this order: timers and event channels; what the vCPUs hold; memory, whose page tables go with it; interrupts and the
//! grants that it had mapped, which no entry refers to any more. After that the domain is dead. It stays in the list for as long as others
//! have its frames mapped, whose grants they may map once more; its grant table and the records that other processors may still be writing to
//! (`shared_info`, registered `vcpu_info`s) go with the last reference to the domain.

use crate::Hypervisor;
use crate::domain::{Domain, Life};
use crate::sched::work;
use crate::timer::TimerKind;
use crate::vcpu::{Placement, Vcpu, stop};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;
use oxen_abi::Errno;
use oxen_abi::xen::Virq;
use oxen_hal::Machine;
use oxen_mm::{MappingRef, MmError};
use oxen_types::{CpuId, Mfn};

/// Grants unmapped in one step.
const BUDGET: usize = 512;

/// How far the end of a domain has come.
#[derive(Debug, Default)]
pub struct Teardown {
    stage: Stage,
    /// The next frame number to look at.
    frame: u64,
    /// The next handle to look at.
    handle: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Stopping,
    Events,
    Vcpus,
    Memory,
    Grants,
    Over,
}

impl<M: Machine> Hypervisor<M> {
    /// Takes the next step of a domain's end; the first one begins it. One caller at a time.
    ///
    /// # Errors
    /// `ERESTART` where more steps are to follow.
    pub fn destroy_step(&self, cpu: CpuId, domain: &Arc<Domain>) -> Result<(), Errno> {
        let stage = domain.teardown.lock().stage;
        let next = match stage {
            Stage::Stopping => {
                self.stop_for_ever(domain)?;
                Stage::Events
            }
            Stage::Events => {
                self.end_timers(cpu, domain);
                self.end_events(domain)?;
                Stage::Vcpus
            }
            Stage::Vcpus => {
                self.strip_vcpus(domain)?;
                Stage::Memory
            }
            Stage::Memory => {
                self.take_memory(domain)?;
                Stage::Grants
            }
            Stage::Grants => {
                self.end_interrupts(domain);
                self.end_grants(domain)?;
                self.declare_dead(domain);
                Stage::Over
            }
            Stage::Over => return Ok(()),
        };
        domain.teardown.lock().stage = next;
        if next == Stage::Over { Ok(()) } else { Err(Errno::ERESTART) }
    }

    fn stop_for_ever(&self, domain: &Domain) -> Result<(), Errno> {
        if domain.life() == Life::Alive {
            domain.set_life(Life::Dying);
            if let Some(account) = self.memory.account(domain.id) {
                account.set_dying();
            }
        }
        for vcpu in domain.vcpus() {
            vcpu.stop(stop::DYING);
            self.sched.unqueue(self.machine, vcpu);
            self.sched.nudge(self.machine, vcpu, work::RESCHEDULE);
        }
        let on_a_processor = |vcpu: &Arc<Vcpu>| !matches!(*vcpu.place.lock(), Placement::Off(_)) || vcpu.state.is_taken();
        if domain.vcpus().any(on_a_processor) { Err(Errno::ERESTART) } else { Ok(()) }
    }

    fn end_timers(&self, cpu: CpuId, domain: &Domain) {
        let kinds = [TimerKind::SingleShot, TimerKind::Periodic, TimerKind::Poll, TimerKind::Watchdog(1), TimerKind::Watchdog(2)];
        for vcpu in domain.vcpus() {
            vcpu.timers.lock().period_ns = 0;
            for kind in kinds {
                self.set_vcpu_timer(cpu, vcpu, kind, None);
            }
        }
    }

    fn end_events(&self, domain: &Arc<Domain>) -> Result<(), Errno> {
        domain.events.lock().close();
        self.forget_virq_handler(domain.id);
        self.reset_events(domain)
    }

    /// Takes page-table roots and descriptor tables from the vCPUs.
    fn strip_vcpus(&self, domain: &Domain) -> Result<(), Errno> {
        for vcpu in domain.vcpus() {
            let mut state = vcpu.state.try_take().ok_or(Errno::ERESTART)?;
            self.reset_vcpu(domain, &mut state)?;
        }
        Ok(())
    }

    /// Makes a vCPU one that has not been set up.
    ///
    /// # Errors
    /// `ERESTART` where giving up its page tables takes longer: to be called again.
    pub(crate) fn reset_vcpu(&self, domain: &Domain, state: &mut crate::vcpu::VcpuState) -> Result<(), Errno> {
        self.replace_gdt(state, Vec::new(), 0);
        self.drop_ldt(state);
        state.ldt = crate::vcpu::Ldt::default();
        state.initialised = false;
        for root in [&mut state.root, &mut state.user_root] {
            if let Some(table) = root.take()
                && let Err(table) = self.with_tables(domain, domain.id, |mm, ctx| mm.put_table(ctx, table))
            {
                *root = Some(table);
                return Err(Errno::ERESTART);
            }
        }
        Ok(())
    }

    fn take_memory(&self, domain: &Domain) -> Result<(), Errno> {
        let mut frame = domain.teardown.lock().frame;
        let result = self.with_tables(domain, domain.id, |mm, ctx| mm.relinquish(ctx, &mut frame));
        domain.teardown.lock().frame = frame;
        match result {
            Ok(()) => Ok(()),
            Err(MmError::Preempted) => Err(Errno::ERESTART),
            Err(error) => {
                self.log(format_args!("{}: a frame cannot be taken back: {error}", domain.id));
                domain.teardown.lock().frame += 1;
                Err(Errno::ERESTART)
            }
        }
    }

    fn end_interrupts(&self, domain: &Arc<Domain>) {
        let (numbers, page) = {
            let mut pirqs = domain.pirqs.lock();
            let numbers: Vec<u32> = pirqs.iter().map(|(number, _)| number).collect();
            (numbers, pirqs.eoi_page.take())
        };
        for number in numbers {
            // Nobody else can have taken it away: that needs a call of the domain's own or one that has found it alive.
            let _ = self.unmap_pirq(domain, number);
        }
        if let Some(page) = page {
            self.memory.put_typed(page);
        }
    }

    /// Tells the granters that the grants which the domain had mapped are no longer in use. The entries of its page tables, and with them their references, are gone.
    fn end_grants(&self, domain: &Arc<Domain>) -> Result<(), Errno> {
        let mut handle = domain.teardown.lock().handle;
        for _ in 0..BUDGET {
            let Some(mut mapping) = domain.maptrack.lock().take_next(&mut handle) else {
                domain.grants.lock().seal();
                return Ok(());
            };
            let device: Option<MappingRef> = mapping.device.take();
            let sides = u32::from(mapping.host) + u32::from(device.is_some());
            if let Some(held) = device {
                self.memory.put_mapping(held);
            }
            mapping.granter.grants.lock().unpin(self.machine, mapping.reference, mapping.writable, sides);
        }
        domain.teardown.lock().handle = handle;
        Err(Errno::ERESTART)
    }

    fn declare_dead(&self, domain: &Domain) {
        domain.set_life(Life::Dead);
        self.dead_domains.fetch_add(1, SeqCst);
        self.raise_global_virq(Virq::DOM_EXC);
    }

    /// Forgets the dead domains of which nobody uses anything any more.
    pub fn bury_dead(&self) {
        if self.dead_domains.load(SeqCst) == 0 {
            return;
        }
        for id in self.domains.dead() {
            if let Some(domain) = self.domains.take_over(id, |domain| self.is_unused(domain)) {
                self.dead_domains.fetch_sub(1, SeqCst);
                self.dispose(domain);
                self.raise_global_virq(Virq::DOM_EXC);
            }
        }
    }

    /// True where nobody has any frame of a dead domain but the domain itself: its grant table, `shared_info`, and the frames in which vCPUs have their
    /// records. Those may be any frames that the guest could write to, so also frames that are shared with it.
    fn is_unused(&self, domain: &Domain) -> bool {
        let Some(account) = self.memory.account(domain.id) else { return true };
        let mut uses: BTreeMap<Mfn, u64> = BTreeMap::from([(domain.shared_info.mfn(), 1)]);
        {
            let grants = domain.grants.lock();
            grants.frames().chain(grants.status_frames()).for_each(|mfn| *uses.entry(mfn).or_default() += 1);
        }
        for vcpu in domain.vcpus() {
            if let Some(frame) = vcpu.info_frame.lock().as_ref() {
                *uses.entry(frame.mfn()).or_default() += 1;
            }
        }
        let is_shared = |mfn: Mfn| self.memory.inspect(mfn).is_some_and(|frame| frame.shared);
        let pages = uses.keys().filter(|&&mfn| !is_shared(mfn)).count() as u64;
        // One count of the frame stands for all uses of its type; a reader would be a second.
        let alone = |(&mfn, &uses): (&Mfn, &u64)| self.memory.inspect(mfn).is_some_and(|frame| (frame.references, frame.uses) == (1, uses));
        account.pages() == pages && account.shared() == uses.len() as u64 - pages && uses.iter().all(alone)
    }

    /// Gives back what belongs to the structure of a domain that nobody else refers to.
    pub(crate) fn dispose(&self, domain: Domain) {
        for vcpu in domain.vcpus() {
            vcpu.clear_info();
            if let Some(frame) = vcpu.info_frame.lock().take() {
                self.memory.put_typed(frame);
            }
        }
        let frames = domain.grants.lock().take_frames();
        frames.into_iter().for_each(|frame| self.memory.unshare(frame));
        self.memory.unshare(domain.shared_info);
    }
}
