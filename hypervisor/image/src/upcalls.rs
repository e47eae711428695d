//! The functions through which the machine enters.

use crate::start::{entered, hypervisor, start};
use crate::{heap, local, options};
use core::fmt::Write;
use oxen_abi::Hypercall;
use oxen_hal::{GuestFrame, QUICK_NOT_DONE};
use oxen_machine::boot::{BootInfo, EarlyOptions};
use oxen_machine::{entry, percpu};
use oxen_types::CpuId;

#[unsafe(no_mangle)]
fn oxen_early_options(command_line: &str) -> EarlyOptions {
    heap::start_early();
    options::early(&oxen_options::parse(command_line).0)
}

#[unsafe(no_mangle)]
fn oxen_main(info: BootInfo) -> ! {
    start(info)
}

#[unsafe(no_mangle)]
fn oxen_cpu_main(_cpu: CpuId) -> ! {
    run_guests()
}

/// Runs guests on the calling CPU from now on.
pub fn run_guests() -> ! {
    let mut frame = GuestFrame::default();
    local::with_local(|local| {
        local.cpu = percpu::this_cpu();
        hypervisor().start_cpu(local, &mut frame);
    });
    entry::enter_guest(&frame)
}

#[unsafe(no_mangle)]
fn oxen_from_guest(frame: &mut GuestFrame) {
    local::with_entered(|local| entered().from_guest(local, frame));
}

#[unsafe(no_mangle)]
fn oxen_host_interrupt(vector: u8) {
    hypervisor().host_interrupt(percpu::this_cpu(), vector);
}

#[unsafe(no_mangle)]
fn oxen_fatal_note(out: &mut dyn Write) {
    local::describe_running(out);
}

/// Defines the function through which a quick hypercall enters.
macro_rules! quick {
    ($name:ident, $number:expr) => {
        #[unsafe(no_mangle)]
        extern "C" fn $name(a: u64, b: u64, c: u64, d: u64, frame: &mut GuestFrame) -> i64 {
            local::with_entered(|local| entered().quick_call(local, $number, [a, b, c, d], frame)).unwrap_or(QUICK_NOT_DONE)
        }
    };
}
quick!(oxen_quick_mmu_update, Hypercall::MMU_UPDATE);
quick!(oxen_quick_update_va_mapping, Hypercall::UPDATE_VA_MAPPING);
quick!(oxen_quick_mmuext_op, Hypercall::MMUEXT_OP);
quick!(oxen_quick_stack_switch, Hypercall::STACK_SWITCH);
quick!(oxen_quick_set_segment_base, Hypercall::SET_SEGMENT_BASE);
quick!(oxen_quick_fpu_taskswitch, Hypercall::FPU_TASKSWITCH);
quick!(oxen_quick_xen_version, Hypercall::XEN_VERSION);

#[unsafe(no_mangle)]
extern "C" fn oxen_quick_write_fault(frame: &mut GuestFrame) -> bool {
    local::with_entered(|local| entered().quick_write_fault(local, frame))
}
