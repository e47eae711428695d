//! Virtual processors.

use crate::domain::Domain;
use crate::runstate::RunstateClock;
use crate::sched::credit::{Credit, Share};
use crate::timer::VcpuTimers;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use oxen_abi::arch_x86_64::{NR_TRAP_VECTORS, TrapInfo};
use oxen_hal::{Frames, VcpuContext};
use oxen_sync::{Exclusive, SpinLock, level};
use oxen_mm::{HeldTable, HeldTyped};
use oxen_types::{CpuId, CpuSet, DomId, Gva, Maddr, Mfn, VcpuId};

/// Reasons why a vCPU does not run, one bit each in [`Vcpu::stopped`].
pub mod stop {
    /// It waits for an event (`SCHEDOP_block`).
    pub const BLOCKED: u32 = 1 << 0;
    /// It has not been brought up, or has been taken down.
    pub const DOWN: u32 = 1 << 1;
    /// It waits in `SCHEDOP_poll`.
    pub const POLLING: u32 = 1 << 2;
    /// Its domain has shut down.
    pub const SHUTDOWN: u32 = 1 << 3;
    /// Its domain is being destroyed.
    pub const DYING: u32 = 1 << 4;
}

/// [`Vcpu::polled_port`] of a vCPU that polls several ports, or none and only a time-out.
pub const POLL_ANY: u32 = u32::MAX;

/// The part of a vCPU that other processors may look at while it runs.
#[derive(Debug)]
pub struct Vcpu {
    /// Its number within the domain.
    pub id: VcpuId,
    /// Its domain's number.
    pub domid: DomId,
    domain: Weak<Domain>,
    /// Machine address of its `vcpu_info`; 0 while it has none (numbers from 32 up, before `VCPUOP_register_vcpu_info`).
    info: AtomicU64,
    /// Reasons why it does not run ([`stop`]).
    stopped: AtomicU32,
    /// Times that its controller or the hypervisor paused it.
    pause_count: AtomicU32,
    /// Port that it polls: 0 for none, [`POLL_ANY`] for several.
    pub polled_port: AtomicU32,
    /// A non-maskable interrupt is to be delivered.
    pub nmi_pending: AtomicBool,
    /// A page that may be part of its LDT is mapped no more: the processor that runs it is to drop the LDT pages it has.
    pub ldt_stale: AtomicBool,
    /// Device interrupts may be bound to it ...
    pub has_interrupts: AtomicBool,
    /// ... and are sent to this processor.
    pub interrupts_at: AtomicU32,
    /// Whether it has been up before.
    pub started: AtomicBool,
    /// The frame of a registered `vcpu_info`.
    pub info_frame: SpinLock<Option<HeldTyped>, { level::DOMAIN }>,
    /// Where the scheduler has it.
    pub place: SpinLock<Placement, { level::RUN_QUEUE - 1 }>,
    /// CPUs on which it may run.
    pub hard_affinity: SpinLock<CpuSet, { level::RUN_QUEUE + 1 }>,
    /// CPUs on which it prefers to run.
    pub soft_affinity: SpinLock<CpuSet, { level::RUN_QUEUE + 1 }>,
    /// Its account with the scheduler.
    pub credit: SpinLock<Credit, { level::RUN_QUEUE + 2 }>,
    /// Its domain's part of the processors.
    pub share: Arc<Share>,
    /// Time spent in each state.
    pub runstate: SpinLock<RunstateClock, { level::TIMER + 1 }>,
    /// Its timers.
    pub timers: SpinLock<VcpuTimers, { level::TIMER - 1 }>,
    /// What only the processor that runs it may touch.
    pub state: Arc<Exclusive<VcpuState>>,
}

/// Requests of `mmu_update` that are worked on together: as many as Linux sends in one call.
pub const BATCH: usize = 32;

/// Where the scheduler has a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In no queue: it is stopped. The CPU is the one that ran it last.
    Off(CpuId),
    /// In the run queue of a CPU.
    Queued(CpuId),
    /// On a CPU.
    Running(CpuId),
}

impl Placement {
    /// The CPU that has it or had it last.
    #[must_use]
    pub fn cpu(self) -> CpuId {
        match self {
            Placement::Off(cpu) | Placement::Queued(cpu) | Placement::Running(cpu) => cpu,
        }
    }
}

impl Vcpu {
    /// A vCPU that is down and not initialised.
    pub fn new(domain: &Weak<Domain>, domid: DomId, id: VcpuId, cpu: CpuId, affinity: CpuSet, fpu_bytes: usize, now_ns: u64) -> Self {
        let soft = affinity.clone();
        Self {
            id,
            domid,
            domain: domain.clone(),
            info: AtomicU64::new(0),
            stopped: AtomicU32::new(stop::DOWN),
            pause_count: AtomicU32::new(0),
            polled_port: AtomicU32::new(0),
            nmi_pending: AtomicBool::new(false),
            ldt_stale: AtomicBool::new(false),
            has_interrupts: AtomicBool::new(false),
            interrupts_at: AtomicU32::new(u32::MAX),
            started: AtomicBool::new(false),
            info_frame: SpinLock::new(None),
            place: SpinLock::new(Placement::Off(cpu)),
            hard_affinity: SpinLock::new(affinity),
            soft_affinity: SpinLock::new(soft),
            credit: SpinLock::new(Credit::default()),
            share: domain.upgrade().map(|domain| domain.share.clone()).unwrap_or_default(),
            runstate: SpinLock::new(RunstateClock::new(now_ns)),
            timers: SpinLock::new(VcpuTimers::default()),
            state: Arc::new(Exclusive::new(VcpuState::new(fpu_bytes))),
        }
    }

    /// Its domain; `None` once the domain is gone.
    #[must_use]
    pub fn domain(&self) -> Option<Arc<Domain>> {
        self.domain.upgrade()
    }

    /// True where nothing keeps it from running.
    #[must_use]
    pub fn is_runnable(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) == 0 && self.pause_count.load(Ordering::SeqCst) == 0
    }

    /// Adds reasons not to run.
    pub fn stop(&self, reasons: u32) {
        self.stopped.fetch_or(reasons, Ordering::SeqCst);
    }

    /// Takes reasons away; returns those of them that were set. The caller wakes the vCPU through the scheduler.
    pub fn unstop(&self, reasons: u32) -> u32 {
        self.stopped.fetch_and(!reasons, Ordering::SeqCst) & reasons
    }

    /// The reasons that are set.
    #[must_use]
    pub fn stop_reasons(&self) -> u32 {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Counts one more pause.
    pub fn pause(&self) {
        self.pause_count.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts one pause less; the caller wakes the vCPU through the scheduler. A count of zero stays.
    pub fn unpause(&self) {
        let _ = self.pause_count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    }

    /// True where the vCPU is up, whatever else keeps it from running.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.stop_reasons() & stop::DOWN == 0
    }

    /// True where its hard affinity allows it to run on `cpu`.
    #[must_use]
    pub fn may_run_on(&self, cpu: CpuId) -> bool {
        self.hard_affinity.lock().contains(cpu)
    }

    /// True where its soft affinity names `cpu`.
    #[must_use]
    pub fn prefers(&self, cpu: CpuId) -> bool {
        self.soft_affinity.lock().contains(cpu)
    }

    /// Where its `vcpu_info` is.
    #[must_use]
    pub fn info(&self) -> Option<VcpuInfoPtr> {
        match self.info.load(Ordering::Acquire) {
            0 => None,
            at => Some(VcpuInfoPtr(Maddr(at))),
        }
    }

    /// Leaves it without a `vcpu_info`.
    pub fn clear_info(&self) {
        self.info.store(0, Ordering::Release);
    }

    /// Points it at another `vcpu_info`.
    pub fn set_info(&self, at: Maddr) {
        self.info.store(at.0, Ordering::Release);
    }
}

/// The place of a `vcpu_info` in a frame that the domain holds for as long as the vCPU exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuInfoPtr(pub Maddr);

/// Offsets in `struct vcpu_info` (public header `xen.h`).
mod info_offset {
    pub const UPCALL_PENDING: usize = 0;
    pub const UPCALL_MASK: usize = 1;
    pub const PENDING_SEL: usize = 8;
    pub const CR2: usize = 16;
    pub const TIME: usize = 32;
}

impl VcpuInfoPtr {
    #[inline]
    fn at(self, offset: usize) -> (Mfn, usize) {
        (self.0.mfn(), self.0.page_offset() + offset)
    }

    /// Sets the pending flag; returns whether it was clear.
    pub fn set_upcall_pending(self, frames: &impl Frames) -> bool {
        let (mfn, offset) = self.at(info_offset::UPCALL_PENDING);
        frames.shared_u8(mfn, offset).swap(1, Ordering::SeqCst) == 0
    }

    /// True where an upcall is pending.
    #[inline]
    pub fn upcall_pending(self, frames: &impl Frames) -> bool {
        let (mfn, offset) = self.at(info_offset::UPCALL_PENDING);
        frames.shared_u8(mfn, offset).load(Ordering::Relaxed) != 0
    }

    /// True where the guest has masked upcalls.
    #[inline]
    pub fn upcall_masked(self, frames: &impl Frames) -> bool {
        let (mfn, offset) = self.at(info_offset::UPCALL_MASK);
        frames.shared_u8(mfn, offset).load(Ordering::Relaxed) != 0
    }

    /// Sets or clears the mask.
    #[inline]
    pub fn set_upcall_mask(self, frames: &impl Frames, masked: bool) {
        let (mfn, offset) = self.at(info_offset::UPCALL_MASK);
        frames.shared_u8(mfn, offset).store(masked.into(), Ordering::Relaxed);
    }

    /// True where an upcall is pending and not masked, with one read of both bytes.
    #[inline]
    pub fn upcall_deliverable(self, frames: &impl Frames) -> bool {
        self.upcall_pending(frames) && !self.upcall_masked(frames)
    }

    /// Sets bits of the pending selector; returns the old value.
    pub fn or_pending_selector(self, frames: &impl Frames, bits: u64) -> u64 {
        let (mfn, offset) = self.at(info_offset::PENDING_SEL);
        frames.shared_u64(mfn, offset).fetch_or(bits, Ordering::SeqCst)
    }

    /// Stores the faulting address of a page fault.
    #[inline]
    pub fn set_cr2(self, frames: &impl Frames, cr2: u64) {
        let (mfn, offset) = self.at(info_offset::CR2);
        frames.shared_u64(mfn, offset).store(cr2, Ordering::Relaxed);
    }

    /// The faulting address as the guest has it.
    #[inline]
    pub fn cr2(self, frames: &impl Frames) -> u64 {
        let (mfn, offset) = self.at(info_offset::CR2);
        frames.shared_u64(mfn, offset).load(Ordering::Relaxed)
    }

    /// Where its `vcpu_time_info` is.
    #[must_use]
    pub fn time(self) -> Maddr {
        Maddr(self.0.0 + info_offset::TIME as u64)
    }
}

/// An entry point that a guest registered with `callback_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Callback {
    /// Address in the guest's kernel; 0 for none.
    pub address: u64,
    /// Whether upcalls are masked when it is entered.
    pub masks_events: bool,
}

/// The guest kernel's entry points.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Callbacks {
    pub event: u64,
    pub failsafe: Callback,
    pub syscall: Callback,
    pub syscall32: Callback,
    pub sysenter: Callback,
}

/// What a guest's LDT is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ldt {
    /// Its address in the guest.
    pub base: Gva,
    /// Number of descriptors, at most 8192.
    pub entries: u32,
}

/// The guest's I/O permission bitmap (`PHYSDEVOP_set_iobitmap`).
#[derive(Clone, Copy, Debug, Default)]
pub struct IoBitmap {
    /// Its address in the guest.
    pub address: Gva,
    /// Ports that it covers.
    pub nr_ports: u32,
}

/// The part of a vCPU that belongs to the processor that runs it.
#[derive(Debug)]
pub struct VcpuState {
    /// Registers.
    pub context: VcpuContext,
    /// Whether `VCPUOP_initialise` or the domain builder has set it up.
    pub initialised: bool,
    /// The FPU state was given to it, not only what a new vCPU has.
    pub fpu_given: bool,
    /// Exception handlers.
    pub traps: Box<[TrapInfo; NR_TRAP_VECTORS]>,
    /// Other entry points.
    pub callbacks: Callbacks,
    /// Stack for entries from user mode: selector.
    pub kernel_ss: u64,
    /// Stack for entries from user mode: pointer.
    pub kernel_sp: u64,
    /// Root of the page tables for kernel mode; the vCPU holds a type reference.
    pub root: Option<HeldTable>,
    /// Root for user mode; likewise.
    pub user_root: Option<HeldTable>,
    /// Frames of the GDT; the vCPU holds a type reference on each.
    pub gdt_frames: Vec<HeldTyped>,
    /// Entries of the GDT that the guest asked for.
    pub gdt_entries: u32,
    /// LDT.
    pub ldt: Ldt,
    /// LDT pages that are mapped; the vCPU holds a type reference on each.
    pub ldt_frames: [Option<HeldTyped>; 16],
    /// Virtual I/O privilege level, 0 to 3.
    pub iopl: u8,
    /// Virtual I/O permission bitmap.
    pub io_bitmap: Option<IoBitmap>,
    /// What the machine's fast paths use has changed since they were told.
    pub fast_paths_stale: bool,
    /// Where the guest wants its run state times.
    pub runstate_area: Gva,
    /// Where the guest wants a second copy of its time record.
    pub time_area: Gva,
    /// Hard affinity to return to after `SCHEDOP_pin_override`.
    pub affinity_before_pin: Option<CpuSet>,
    /// Room for requests of `mmu_update` that are worked on together; what is in it between calls means nothing.
    pub requests: Box<[[u64; 2]; BATCH]>,
    /// A non-maskable interrupt is being handled: until the guest's `iret` no other is delivered.
    pub nmi_masked: bool,
}

impl VcpuState {
    fn new(fpu_bytes: usize) -> Self {
        Self {
            context: VcpuContext::new(fpu_bytes),
            initialised: false,
            fpu_given: false,
            traps: Box::new([TrapInfo::default(); NR_TRAP_VECTORS]),
            callbacks: Callbacks::default(),
            kernel_ss: 0,
            kernel_sp: 0,
            root: None,
            user_root: None,
            gdt_frames: Vec::new(),
            gdt_entries: 0,
            ldt: Ldt::default(),
            ldt_frames: [const { None }; 16],
            iopl: 0,
            io_bitmap: None,
            fast_paths_stale: true,
            runstate_area: Gva::NULL,
            time_area: Gva::NULL,
            affinity_before_pin: None,
            requests: Box::new([[0; 2]; BATCH]),
            nmi_masked: false,
        }
    }

    /// Sets the stack for entries from user mode.
    #[inline]
    pub fn set_kernel_stack(&mut self, ss: u64, sp: u64) {
        self.kernel_ss = ss & 0xffff | 3;
        self.kernel_sp = sp;
    }

    /// The root that belongs to the guest's present mode.
    #[must_use]
    pub fn active_root(&self) -> Option<Mfn> {
        if self.context.in_kernel { self.root.as_ref() } else { self.user_root.as_ref() }.map(HeldTable::mfn)
    }
}
