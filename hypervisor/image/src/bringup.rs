//! The machine's upcalls while there is no logic above it: prints what the boot stage found.

use core::fmt::Write;
use oxen_hal::GuestFrame;
use oxen_machine::boot::{BootInfo, EarlyOptions};
use oxen_machine::console::{ConsoleSettings, SerialSettings};
use oxen_machine::{MACHINE, fatal, log, memory};
use oxen_types::CpuId;

#[unsafe(no_mangle)]
fn oxen_early_options(command_line: &str) -> EarlyOptions {
    EarlyOptions {
        console: ConsoleSettings { com1: Some(SerialSettings::COM1), com2: None, screen: true },
        no_reboot: command_line.split_ascii_whitespace().any(|word| word == "noreboot"),
        ..EarlyOptions::default()
    }
}

#[unsafe(no_mangle)]
fn oxen_main(info: BootInfo) -> ! {
    use oxen_hal::Frames;
    log!("Oxen {}", env!("CARGO_PKG_VERSION"));
    // SAFETY: the region is mapped and this is its only use.
    unsafe { crate::heap::start(info.heap.0, info.heap.1) };
    for range in MACHINE.memory_map() {
        log!("  {:#018x}-{:#018x} {:?}", range.start.0, range.end.0, range.kind);
    }
    for module in info.modules.iter().flatten() {
        log!("module at {}, {} bytes: {}", module.start(), module.bytes().len(), module.command_line());
    }
    if info.command_line.contains("selftest-panic") {
        panic!("asked for by the command line");
    }
    let free: u64 = memory::free_ranges().map(|(_, count)| count).sum();
    log!("{} MiB free, {} KiB used by the hypervisor: {:?}", free >> 8, memory::memory_use().total() >> 10, memory::memory_use());
    if info.modules[0].is_none() {
        fatal::cannot_go_on(format_args!("No dom0 kernel: give it to GRUB as the first module2 of this entry."));
    }
    loop {
        core::hint::spin_loop();
    }
}

#[unsafe(no_mangle)]
fn oxen_cpu_main(_cpu: CpuId) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[unsafe(no_mangle)]
fn oxen_from_guest(_frame: &mut GuestFrame) {}

#[unsafe(no_mangle)]
fn oxen_host_interrupt(_vector: u8) {}

#[unsafe(no_mangle)]
fn oxen_fatal_note(out: &mut dyn Write) {
    let _ = writeln!(out, "no guest");
}
