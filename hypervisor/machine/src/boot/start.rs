//! The boot CPU's way from its first Rust instruction to the binary's main function.

use super::info::{BootInfo, MAX_MODULES, Module};
use super::multiboot2::BootInformation;
use super::ranges::Span;
use crate::layout::{IMAGE, direct};
use crate::memory::{self, Purpose};
use crate::paging::{self, ImageParts};
use crate::{console, fatal, info, symbols, upcall};
use oxen_types::Maddr;

/// Least memory, in bytes, with which a start is tried.
const LEAST_MEMORY: u64 = 48 << 20;
/// Most ranges of RAM that get into the direct map.
const MAX_RAM_SPANS: usize = 128;

// SAFETY: the linker script defines these symbols; only their addresses are used.
unsafe extern "C" {
    static image_text_start: u8;
    static image_text_end: u8;
    static image_rodata_end: u8;
    static boot_stack_guard: u8;
    static boot_stack_start: u8;
    static image_end: u8;
}

/// The parts of the running image.
fn image_parts(load_base: u64) -> ImageParts {
    // Only the addresses of these symbols mean something.
    let at = |symbol: *const u8| symbol as u64;
    let text_end = at(&raw const image_text_end);
    let rodata_end = at(&raw const image_rodata_end);
    ImageParts {
        load_base,
        text: Span { start: at(&raw const image_text_start), end: text_end },
        rodata: Span { start: text_end, end: rodata_end },
        data: Span { start: rodata_end, end: at(&raw const boot_stack_guard) },
        stack: Span { start: at(&raw const boot_stack_start), end: at(&raw const image_end) },
    }
}

/// First Rust code: boot CPU, paging on with the boot tables, boot stack, interrupts off. `info` is the machine address of the multiboot2
/// information, `load_base` that of the image.
pub(super) extern "C" fn rust_entry(info: u64, load_base: u64) -> ! {
    // SAFETY: the loader left its information there, below 4 GiB, which the boot tables show; it is reserved below before memory is handed out.
    let bytes: &'static [u8] = unsafe {
        let head = core::slice::from_raw_parts(direct(Maddr(info)) as *const u8, 8);
        let total = BootInformation::total_bytes(head).unwrap_or(8);
        core::slice::from_raw_parts(direct(Maddr(info)) as *const u8, total as usize)
    };
    let loader = BootInformation::new(bytes);
    let options = upcall::oxen_early_options(loader.command_line());
    fatal::set_no_reboot(options.no_reboot);
    console::set_informative(options.informative);
    console::start(&options.console, loader.screen());

    let image = image_parts(load_base);
    let image_span = Span { start: load_base, end: image.loaded(image.stack).end };
    let information = Span::new(info, bytes.len() as u64);
    memory::set_map(loader.memory_map(), options.memory_limit);
    claim_memory(loader, image_span, information);
    memory::start_persistent(options.console_ring_bytes);

    let mut ram = [Span::default(); MAX_RAM_SPANS];
    let count = memory::ram().zip(&mut ram).map(|(span, slot)| *slot = span).count();
    // SAFETY: called once, here; the arguments describe the image and the RAM.
    unsafe { paging::start(&image, &ram[..count]) };
    memory::reach_all();
    console::move_screen();
    if let Some((table, strings)) = loader.elf_sections().and_then(symbols::find) {
        // Only whole pages are given back: the loader may have put something else into the rest of the outer ones.
        // SAFETY: the loader put the sections below 4 GiB; they were reserved and are given back only afterwards.
        unsafe { symbols::start(symbols::section(table), symbols::section(strings)) };
        memory::unreserve(table.inner_pages(), Purpose::Image);
        memory::unreserve(strings.inner_pages(), Purpose::Image);
    }
    // The boot tables and the first instructions are not needed any more; the final tables do not show them.
    memory::unreserve(Span { start: load_base, end: image.loaded(image.text).start }, Purpose::Image);
    memory::start_tables(options.heap_bytes);

    let mut modules = [const { None }; MAX_MODULES];
    for (slot, module) in modules.iter_mut().zip(loader.modules()) {
        let len = (module.end - module.start) as usize;
        *slot = Some(Module { start: Maddr(u64::from(module.start)), len, command_line: module.command_line });
    }
    let boot_info = BootInfo {
        command_line: loader.command_line(),
        loader: loader.loader_name(),
        modules,
        screen: loader.screen(),
        efi: loader.is_efi(),
        efi_system_table: loader.efi_system_table(),
        rsdp: loader.rsdp(),
        image: image_span,
        heap: memory::heap_region(),
        options,
    };
    start_machine(boot_info)
}

/// Seeds the early allocator with the RAM that the loader has not filled.
fn claim_memory(loader: BootInformation<'_>, image: Span, information: Span) {
    memory::seed(memory::ram());
    let total: u64 = memory::ram().map(Span::len).sum();
    if total < LEAST_MEMORY {
        fatal::cannot_go_on(format_args!(
            "Not enough memory: the machine has {} MiB of RAM, Oxen needs at least {} MiB and more for dom0.",
            total >> 20,
            LEAST_MEMORY >> 20
        ));
    }
    memory::reserve(image, Some(Purpose::Image));
    memory::reserve(information, Some(Purpose::Image));
    for module in loader.modules() {
        memory::reserve(Span { start: module.start.into(), end: module.end.into() }, None);
    }
    if let Some((table, strings)) = loader.elf_sections().and_then(symbols::find) {
        memory::reserve(table, Some(Purpose::Image));
        memory::reserve(strings, Some(Purpose::Image));
    }
    if memory::free_bytes() < LEAST_MEMORY / 2 {
        fatal::cannot_go_on(format_args!(
            "Not enough memory: of {} MiB of RAM the modules leave {} MiB, Oxen needs at least {} MiB and more for dom0.",
            total >> 20,
            memory::free_bytes() >> 20,
            LEAST_MEMORY >> 21
        ));
    }
}

/// Memory, paging and console are ready: the rest of the machine, then the binary.
fn start_machine(info: BootInfo) -> ! {
    debug_assert!(info.image.start.is_multiple_of(2 << 20) && IMAGE.is_multiple_of(2 << 20));
    info!("loaded by {} ({}), image at {:#x}-{:#x}", info.loader, if info.efi { "UEFI" } else { "BIOS" }, info.image.start, info.image.end);
    // SAFETY: once, on the boot CPU, on the final tables.
    unsafe { crate::cpu::start_boot_cpu(&info.options) };
    crate::entry::begin_on_main_stack(info, start_platform)
}

/// On the main stack.
fn start_platform(info: BootInfo) -> ! {
    crate::platform::start(&info);
    upcall::oxen_main(info)
}
