//! The functions through which the machine enters.

use crate::start::{hypervisor, start};
use crate::{heap, local, options};
use core::fmt::Write;
use oxen_hal::GuestFrame;
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
    local::with_local(|local| hypervisor().from_guest(local, frame));
}

#[unsafe(no_mangle)]
fn oxen_host_interrupt(vector: u8) {
    hypervisor().host_interrupt(percpu::this_cpu(), vector);
}

#[unsafe(no_mangle)]
fn oxen_fatal_note(out: &mut dyn Write) {
    local::describe_running(out);
}
