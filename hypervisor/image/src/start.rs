//! Start-up, from the moment the machine is ready to the first guest.

use crate::{dom0, heap, upcalls};
use alloc::string::{String, ToString};
use oxen_core::console::Ring;
use oxen_core::sched::params::Params;
use oxen_core::{Config, Hypervisor, VersionInfo};
use oxen_hal::{Clock, Frames};
use oxen_machine::boot::BootInfo;
use oxen_machine::{MACHINE, X86, console, fatal, info, log, memory, smp};
use oxen_mm::{FrameBlock, Mm};
use oxen_sync::OnceCell;

static HYPERVISOR: OnceCell<Hypervisor<X86>> = OnceCell::new();

/// The hypervisor's state, which exists once start-up has made it; before, no guest runs and no interrupt is taken.
#[inline]
pub fn hypervisor() -> &'static Hypervisor<X86> {
    match HYPERVISOR.get() {
        Some(hypervisor) => hypervisor,
        None => panic!("entered before start-up was done"),
    }
}

/// [`hypervisor`] for entries from guests.
#[inline(always)]
pub fn entered() -> &'static Hypervisor<X86> {
    // SAFETY: guests run only after `start` has set it, on this processor or before it started the others.
    unsafe { HYPERVISOR.get_unchecked() }
}

/// Frames for the heap, once there is a frame allocator.
pub fn spare_frames(order: u32) -> Option<FrameBlock> {
    HYPERVISOR.get()?.memory.alloc(order, 0).ok()
}

/// Brings everything up and starts dom0.
pub fn start(info: BootInfo) -> ! {
    // SAFETY: the machine gives the region once and uses it for nothing else.
    unsafe { heap::start_main(info.heap.0, info.heap.1) };
    let (options, complaints) = oxen_options::parse(info.command_line);
    let config = Config {
        command_line: String::from(info.command_line),
        no_reboot: options.noreboot,
        guest_lines: crate::options::guest_lines(&options),
        console_input: options.console.com1 || options.console.com2,
    };
    let Some(region) = memory::persistent_region() else {
        fatal::cannot_go_on(format_args!("Too little memory for the console ring: conring_size asks for {} bytes", options.conring_len_bytes));
    };
    let (ring, previous) = Ring::in_region(region);
    if HYPERVISOR.set(Hypervisor::new(&MACHINE, Mm::new(&MACHINE), config, ring)).is_err() {
        panic!("started twice");
    }
    let hv = hypervisor();
    hv.sched.set_params(Params {
        tslice_ms: options.sched_credit_tslice_ms,
        ratelimit_us: options.sched_ratelimit_us,
        ..Params::default()
    });
    if let Some(text) = &previous {
        hv.console_seed_previous(text);
    }
    drop(previous);
    hv.console_seed(console::early_text());
    console::set_sink(|text| hypervisor().console_output(text));
    if hv.version.set(version()).is_err() {
        panic!("version set twice");
    }
    log!("Oxen {} (Xen 4.17 interface), started by {}{}", env!("CARGO_PKG_VERSION"), info.loader, if info.efi { " on UEFI" } else { "" });
    log!("command line: {}", info.command_line);
    for complaint in &complaints {
        log!("{complaint}");
    }
    report_memory();
    let mut modules = info.modules;
    let kernel = dom0::unpack(modules[0].take());
    let initrd = modules[1].take();
    for (first, count) in memory::free_ranges() {
        hv.memory.add_range(first, count);
    }
    hv.share_machphys();
    let cpus = smp::start_all();
    log!("{cpus} CPUs, TSC at {} MHz", MACHINE.tsc_khz() / 1000);
    dom0::build(hv, &options, kernel, initrd, info.screen, info.efi);
    info!("memory left: {} MiB", hv.memory.free_frames() >> 8);
    if console::enable_serial_interrupt().is_some() {
        log!("*** Serial input to DOM0 (type CTRL-a three times to switch input)");
    }
    fatal::set_sink(|text| hypervisor().console_fatal(text));
    if !options.vga_keep {
        console::release_screen();
    }
    upcalls::run_guests()
}

fn report_memory() {
    for range in MACHINE.memory_map() {
        info!("  {:#014x}-{:#014x} {:?}", range.start.0, range.end.0, range.kind);
    }
    info!("hypervisor uses {}", memory::memory_use());
}

fn version() -> VersionInfo {
    let text = |s: &str| s.to_string();
    VersionInfo {
        extra: alloc::format!(".Oxen-{}", env!("CARGO_PKG_VERSION")),
        capabilities: text("xen-3.0-x86_64 "),
        changeset: text(option_env!("OXEN_CHANGESET").unwrap_or("")),
        compiler: text(option_env!("OXEN_COMPILER").unwrap_or("rustc")),
        compile_by: text("oxen"),
        compile_domain: text(""),
        compile_date: text(option_env!("OXEN_DATE").unwrap_or("")),
    }
}
