//! The machine's upcalls.

use crate::{heap, space, steps};
use core::fmt::Write;
use oxen_hal::{AddressSpace, CpuOps, GuestFrame, VcpuContext};
use oxen_machine::boot::{BootInfo, EarlyOptions};
use oxen_machine::console::{ConsoleSettings, SerialSettings};
use oxen_machine::{MACHINE, entry, log};
use oxen_types::CpuId;

core::arch::global_asm!(include_str!("guest.s"));

// SAFETY: the guest's assembly defines the symbols; only their addresses and bytes are used.
unsafe extern "C" {
    static guest_program: [u8; 0];
    static guest_program_end: [u8; 0];
}

#[unsafe(no_mangle)]
fn oxen_early_options(_command_line: &str) -> EarlyOptions {
    EarlyOptions { console: ConsoleSettings { com1: Some(SerialSettings::COM1), com2: None, screen: false }, ..EarlyOptions::default() }
}

#[unsafe(no_mangle)]
fn oxen_main(info: BootInfo) -> ! {
    heap::start(info.heap.0, info.heap.1);
    let start = &raw const guest_program;
    let len = (&raw const guest_program_end).addr() - start.addr();
    // SAFETY: the two symbols bound the program in the image's constants.
    let program = unsafe { core::slice::from_raw_parts(start.cast::<u8>(), len) };
    let (root, stack) = space::build(program);
    steps::set_stack_frame(stack);
    let cpus = oxen_machine::smp::start_all();
    log!("{cpus} CPUs");
    MACHINE.load_root(root, true);
    log!("cr0 {:#x} cr4 {:#x} extended state {} bytes", MACHINE.cr0(), MACHINE.cr4(), MACHINE.fpu_bytes());

    let mut context = VcpuContext::new(MACHINE.fpu_bytes());
    context.frame = GuestFrame { rip: space::CODE, cs: 0xe033, rflags: 0x202, rsp: space::STACK_TOP, ss: 0xe02b, ..GuestFrame::default() };
    let mut frame = GuestFrame::default();
    assert!(MACHINE.load_context(&context, &mut frame));
    entry::enter_guest(&frame);
}

#[unsafe(no_mangle)]
fn oxen_cpu_main(_cpu: CpuId) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[unsafe(no_mangle)]
fn oxen_from_guest(frame: &mut GuestFrame) {
    steps::arrived(frame);
}

#[unsafe(no_mangle)]
fn oxen_host_interrupt(vector: u8) {
    log!("interrupt {vector} in the hypervisor");
}

#[unsafe(no_mangle)]
fn oxen_fatal_note(out: &mut dyn Write) {
    let _ = writeln!(out, "at step {}", steps::current());
}
