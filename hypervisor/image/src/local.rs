//! What each processor keeps for itself.

use core::cell::UnsafeCell;
use oxen_core::Local;
use oxen_machine::percpu;
use oxen_types::{CpuId, MAX_CPUS};

struct Locals([UnsafeCell<Local>; MAX_CPUS]);

// SAFETY: a processor reaches only its own element (`with_local`).
unsafe impl Sync for Locals {}

static LOCALS: Locals = Locals([const { UnsafeCell::new(Local::new(CpuId(0))) }; MAX_CPUS]);

/// Calls `f` with what the calling processor keeps for itself.
///
/// Interrupts are off while hypervisor code runs, but for the idle loop, whose interrupt handler does not come here; so no second call
/// is ever under way on the same processor.
#[inline]
pub fn with_local<R>(f: impl FnOnce(&mut Local) -> R) -> R {
    let cpu = percpu::this_cpu();
    // SAFETY: only the processor with that number uses the element, and it does not come here twice at a time.
    f(unsafe { &mut *LOCALS.0[cpu.index() % MAX_CPUS].get() })
}

/// [`with_local`] for entries from guests.
#[inline(always)]
pub fn with_entered<R>(f: impl FnOnce(&mut Local) -> R) -> R {
    let cpu = percpu::entered_cpu();
    // SAFETY: as in `with_local`; an entry from a guest comes from no other code of this processor.
    f(unsafe { &mut *LOCALS.0[cpu.index() % MAX_CPUS].get() })
}

/// Which guest runs on the calling processor, for fatal reports: reads without asking whether the element is in use.
pub fn describe_running(out: &mut dyn core::fmt::Write) {
    let cpu = percpu::this_cpu();
    // SAFETY: nothing but this processor changes the element, and it is in a fatal report now.
    let local = unsafe { &*LOCALS.0[cpu.index() % MAX_CPUS].get() };
    let _ = match &local.running {
        Some(running) => writeln!(out, "running: {}v{}", running.vcpu.domid, running.vcpu.id),
        None => writeln!(out, "running: no guest"),
    };
}
