//! What the boot stage tells the binary, and the options that it needs from it.

use super::multiboot2::Screen;
use super::ranges::Span;
use crate::console::ConsoleSettings;
use crate::layout::direct;
use crate::time::ReferenceClock;
use oxen_types::{Maddr, Mfn};

/// Most modules that are kept; a dom0 needs two.
pub const MAX_MODULES: usize = 16;

/// The command-line options that the machine itself needs, as plain values. The binary fills them in the upcall `oxen_early_options`, before anything has been
/// printed.
#[derive(Clone, Copy, Debug)]
pub struct EarlyOptions {
    /// Console devices.
    pub console: ConsoleSettings,
    /// A fatal report ends in a halt instead of a reboot.
    pub no_reboot: bool,
    /// Most processors to start.
    pub max_cpus: u32,
    /// Use the x2APIC where there is one.
    pub x2apic: bool,
    /// Use supervisor-mode execution prevention where the processor has it.
    pub smep: bool,
    /// Use supervisor-mode access prevention where the processor has it.
    pub smap: bool,
    /// Lines that only inform are shown.
    pub informative: bool,
    /// The clock by which the time stamp counter is measured; `None` for the best there is.
    pub clock: Option<ReferenceClock>,
    /// Bytes of the region for the console ring that outlives a warm reset.
    pub console_ring_bytes: u64,
    /// Bytes of the heap's first part.
    pub heap_bytes: u64,
    /// RAM above this machine address is not used.
    pub memory_limit: u64,
}

impl Default for EarlyOptions {
    fn default() -> Self {
        Self {
            console: ConsoleSettings::default(),
            no_reboot: false,
            max_cpus: u32::MAX,
            x2apic: true,
            smep: true,
            smap: true,
            informative: true,
            clock: None,
            console_ring_bytes: 1 << 20,
            heap_bytes: 1 << 20,
            memory_limit: u64::MAX,
        }
    }
}

/// A file that the loader left in memory. Owning the value is owning its frames.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    pub(super) start: Maddr,
    pub(super) len: usize,
    pub(super) command_line: &'static str,
}

impl Module {
    /// Its words after the file name in the loader's configuration.
    #[must_use]
    pub const fn command_line(&self) -> &'static str {
        self.command_line
    }

    /// Machine address of its first byte, a multiple of the page size.
    #[must_use]
    pub const fn start(&self) -> Maddr {
        self.start
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        // SAFETY: the loader put the module into RAM, which the direct map shows; its frames belong to this value, so nobody writes them.
        unsafe { core::slice::from_raw_parts(direct(self.start) as *const u8, self.len) }
    }

    /// Its frames, for the allocator or for a guest: the first one and their number.
    #[must_use]
    pub const fn into_frames(self) -> (Mfn, u64) {
        (self.start.mfn(), (self.len as u64).div_ceil(4096))
    }
}

/// What the binary learns of the machine and the boot loader.
#[derive(Debug)]
pub struct BootInfo {
    /// The hypervisor's command line, without the file name.
    pub command_line: &'static str,
    /// The loader's name.
    pub loader: &'static str,
    /// The modules in the order of the loader's configuration: dom0's kernel first, its initrd second.
    pub modules: [Option<Module>; MAX_MODULES],
    /// The screen that the loader left.
    pub screen: Option<Screen>,
    /// The machine started through UEFI.
    pub efi: bool,
    /// Machine address of the EFI system table.
    pub efi_system_table: Option<u64>,
    /// The loader's copy of the ACPI root pointer.
    pub rsdp: Option<&'static [u8]>,
    /// Where the image lies in machine memory.
    pub image: Span,
    /// The heap's first part: address and bytes. Mapped, and used by nobody yet.
    pub heap: (*mut u8, usize),
    /// The options as the binary gave them.
    pub options: EarlyOptions,
}
