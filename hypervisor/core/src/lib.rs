//! Domains, vCPUs, scheduling, events, grants, timers and hypercalls.
//!
//! [`Hypervisor`] is the root of all state. The machine enters through [`Hypervisor::from_guest`] (each trap, interrupt and hypercall from a guest) and
//! [`Hypervisor::host_interrupt`] (interrupts in the idle loop); everything else follows from there. Maskable interrupts are off throughout.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod access;
pub mod console;
mod context;
pub mod create;
mod ctx;
pub mod domain;
mod enter;
pub mod event;
pub mod grant;
mod hypercall;
pub mod irq;
pub mod keys;
mod lifecycle;
mod notify;
mod pause;
mod pv;
mod quick;
pub mod runstate;
pub mod sched;
pub mod start;
mod tables;
pub mod teardown;
mod time;
pub mod timer;
pub mod vcpu;

pub use ctx::Ctx;
pub use enter::{Local, Running};
pub use hypercall::VersionInfo;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, AtomicU32};
use domain::DomainList;
use oxen_abi::xen::NR_VIRQS;
use oxen_hal::Machine;
use oxen_mm::Mm;
use oxen_sync::{Exclusive, OnceCell, SpinLock, level};
use oxen_types::{DomId, MAX_CPUS};
use sched::Scheduler;
use timer::TimerQueue;

/// What the command line and the loader said, as far as logic needs it.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The hypervisor's command line, for `xm info`.
    pub command_line: String,
    /// Stop instead of rebooting when dom0 or the hypervisor dies.
    pub no_reboot: bool,
    /// What becomes of lines that guests cause.
    pub guest_lines: console::GuestLines,
    /// Debug-key input comes from this serial line.
    pub console_input: bool,
}

/// The hypervisor's state.
#[derive(Debug)]
pub struct Hypervisor<M: Machine> {
    /// The machine.
    pub machine: &'static M,
    /// Machine frames: who owns them, how they are used.
    pub memory: Mm<M>,
    /// What it was told at start-up.
    pub config: Config,
    /// Guests.
    pub domains: DomainList,
    /// Run queues.
    pub sched: Scheduler,
    /// Timers, per processor.
    pub timers: Vec<SpinLock<TimerQueue, { level::TIMER }>>,
    /// Physical interrupts.
    pub irqs: SpinLock<irq::IrqTable, { level::IRQ }>,
    /// Console ring and input.
    pub console: console::ConsoleState,
    /// Making and ending domains has one user at a time.
    pub control: Arc<Exclusive<create::Control>>,
    /// The domain that gets each virtual interrupt of the whole machine.
    pub(crate) virq_handlers: [AtomicU16; NR_VIRQS as usize],
    /// Domains that are dead and still in the list.
    pub(crate) dead_domains: AtomicU32,
    /// Values for `xen_version`, built once.
    pub version: OnceCell<hypercall::VersionInfo>,
}

impl<M: Machine> Hypervisor<M> {
    /// A hypervisor without guests.
    pub fn new(machine: &'static M, memory: Mm<M>, config: Config, ring: console::Ring) -> Self {
        Self {
            machine,
            memory,
            config,
            domains: DomainList::new(),
            sched: Scheduler::new(),
            timers: (0..MAX_CPUS).map(|_| SpinLock::new(TimerQueue::new())).collect(),
            irqs: SpinLock::new(irq::IrqTable::default()),
            console: console::ConsoleState::new(ring),
            control: Arc::new(Exclusive::new(create::Control::default())),
            virq_handlers: [const { AtomicU16::new(DomId::DOM0.0) }; NR_VIRQS as usize],
            dead_domains: AtomicU32::new(0),
            version: OnceCell::new(),
        }
    }
}
