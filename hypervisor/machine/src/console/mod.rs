//! The console devices: two serial ports and the screen.
//!
//! [`log!`](crate::log) writes a line with the hypervisor's prefix. Until the binary has set a sink ([`set_sink`]) the text goes straight to
//! the devices and into a buffer ([`early_text`]) from which the console ring is filled once it exists.

mod screen;
mod uart;

use crate::boot::multiboot2::Screen as FoundScreen;
use oxen_hal::Console;
use screen::Screen;

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

pub use uart::{Parity, SerialSettings};
use uart::Uart;

/// What the console uses: plain values that the binary takes from the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsoleSettings {
    /// First serial port, where wanted.
    pub com1: Option<SerialSettings>,
    /// Second serial port, where wanted.
    pub com2: Option<SerialSettings>,
    /// Write to the screen.
    pub screen: bool,
}

/// The devices that are in use.
struct Devices {
    uarts: [Option<Uart>; 2],
    screen: Screen,
    /// Text goes to the screen.
    use_screen: bool,
}

/// The devices behind a lock that a fatal report may break: the CPU that holds it may be the one that died.
struct Shared {
    busy: AtomicBool,
    devices: UnsafeCell<Devices>,
}

// SAFETY: the devices are touched only between taking and giving back `busy`, or by the one CPU that writes a fatal report.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared { busy: AtomicBool::new(false), devices: UnsafeCell::new(Devices { uarts: [None, None], screen: Screen::new(), use_screen: false }) };

/// Turns of the waiting loop after which a fatal report stops waiting for the console: a few tenths of a second.
const FATAL_PATIENCE: u32 = 10_000_000;

impl Shared {
    fn with<R>(&self, action: impl FnOnce(&mut Devices) -> R) -> R {
        while self.busy.swap(true, Ordering::Acquire) {
            oxen_sync::relax();
        }
        // SAFETY: `busy` was free and is ours now.
        let result = action(unsafe { &mut *self.devices.get() });
        self.busy.store(false, Ordering::Release);
        result
    }

    /// As [`Shared::with`], but goes ahead after a while.
    fn with_force<R>(&self, action: impl FnOnce(&mut Devices) -> R) -> R {
        for _ in 0..FATAL_PATIENCE {
            if !self.busy.swap(true, Ordering::Acquire) {
                break;
            }
            core::hint::spin_loop();
        }
        // SAFETY: either the lock is ours, or its holder is stopped or is this CPU's own interrupted code, which never continues after a
        // fatal report.
        let result = action(unsafe { &mut *self.devices.get() });
        self.busy.store(false, Ordering::Release);
        result
    }
}

impl Devices {
    /// Takes the screen or leaves it to others. A screen that is taken starts empty, as nobody knows what is on it.
    fn use_screen(&mut self, wanted: bool) {
        if wanted && !self.use_screen {
            self.screen.clear();
        }
        self.use_screen = wanted;
    }

    fn write(&mut self, text: &[u8]) {
        for uart in self.uarts.iter_mut().flatten() {
            uart.write(text);
        }
        if self.use_screen {
            self.screen.write(text);
        }
    }
}

/// Starts the devices; `screen` is the one that the loader left.
pub(crate) fn start(settings: &ConsoleSettings, screen: Option<FoundScreen>) {
    SHARED.with(|devices| {
        devices.uarts = [settings.com1.and_then(Uart::start), settings.com2.and_then(Uart::start)];
        if let Some(screen) = screen {
            devices.screen.start(screen);
            devices.use_screen(settings.screen);
        }
    });
}

/// Maps the screen in the final page tables.
pub(crate) fn move_screen() {
    SHARED.with(|devices| {
        let fresh = !devices.screen.is_mapped();
        devices.screen.remap();
        if fresh && devices.use_screen {
            devices.screen.clear();
        }
    });
}

/// Leaves the screen to dom0, which is about to draw on it. A fatal report uses it again.
pub fn release_screen() {
    SHARED.with(|devices| devices.use_screen(false));
}

/// The serial port that input comes from: the first that works.
fn input(devices: &mut Devices) -> Option<&mut Uart> {
    devices.uarts.iter_mut().flatten().next()
}

/// Makes input of the serial port raise its ISA interrupt, whose number is returned. `None` where there is no port or it has no interrupt: then input must be polled.
pub fn enable_serial_interrupt() -> Option<u8> {
    SHARED.with(|devices| {
        let uart = input(devices)?;
        let irq = uart.settings().isa_irq?;
        uart.enable_receive_interrupt();
        Some(irq)
    })
}

/// Whether the serial port has input waiting.
#[must_use]
pub fn serial_input_pending() -> bool {
    SHARED.with(|devices| input(devices).is_some_and(|uart| uart.has_input()))
}

/// The next byte from the serial port.
#[must_use]
pub fn read_serial() -> Option<u8> {
    SHARED.with(|devices| input(devices)?.receive())
}

/// Whether an I/O port belongs to a serial port that the hypervisor uses.
#[must_use]
pub fn owns_port(port: u16) -> bool {
    SHARED.with(|devices| devices.uarts.iter().flatten().any(|uart| uart.owns(port)))
}

impl Console for crate::X86 {
    fn console_write(&self, text: &[u8]) {
        write_devices(text);
    }

    fn console_read(&self) -> Option<u8> {
        read_serial()
    }
}

/// Writes to the devices only.
pub fn write_devices(text: &[u8]) {
    SHARED.with(|devices| devices.write(text));
}

/// Writes to the devices from a fatal report: never waits for ever.
pub fn write_devices_fatal(text: &[u8]) {
    SHARED.with_force(|devices| {
        devices.use_screen(true);
        devices.write(text);
    });
}

/// Bytes of [`early_text`].
const EARLY_BYTES: usize = 8192;

struct Early {
    used: AtomicUsize,
    bytes: UnsafeCell<[u8; EARLY_BYTES]>,
}

// SAFETY: writers reserve disjoint parts through `used`; before the sink is set only the boot CPU runs.
unsafe impl Sync for Early {}

static EARLY: Early = Early { used: AtomicUsize::new(0), bytes: UnsafeCell::new([0; EARLY_BYTES]) };
static SINK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// From now on [`log!`](crate::log) hands its text to `sink`, which stores it and calls [`write_devices`].
pub fn set_sink(sink: fn(&[u8])) {
    SINK.store(sink as *mut (), Ordering::Release);
}

/// What was logged before the sink was set; at most 8 KiB.
#[must_use]
pub fn early_text() -> &'static [u8] {
    let used = EARLY.used.load(Ordering::Acquire).min(EARLY_BYTES);
    // SAFETY: bytes below `used` have been written and are not written again.
    unsafe { core::slice::from_raw_parts(EARLY.bytes.get().cast::<u8>(), used) }
}

fn log_bytes(text: &[u8]) {
    let sink = SINK.load(Ordering::Acquire);
    if !sink.is_null() {
        // SAFETY: the only non-null values ever stored come from `set_sink`, which takes a `fn(&[u8])`.
        let sink: fn(&[u8]) = unsafe { core::mem::transmute(sink) };
        sink(text);
        return;
    }
    let at = EARLY.used.load(Ordering::Relaxed);
    let fits = text.len().min(EARLY_BYTES.saturating_sub(at));
    // SAFETY: `at + fits` is within the buffer; only the boot CPU runs this early, so nobody else writes here.
    unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), EARLY.bytes.get().cast::<u8>().add(at), fits) };
    EARLY.used.store(at + fits, Ordering::Release);
    write_devices(text);
}

/// One line of text, collected so that lines of several CPUs do not mix.
struct Line {
    bytes: [u8; 512],
    used: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.used;
        let taken = text.len().min(room);
        self.bytes[self.used..self.used + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.used += taken;
        Ok(())
    }
}

/// Writes one log line; [`log!`](crate::log) is its usual form.
pub fn log_line(arguments: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 512], used: 0 };
    let _ = fmt::write(&mut line, format_args!("(OXEN) {arguments}\n"));
    if line.used == line.bytes.len() {
        line.bytes[line.used - 1] = b'\n';
    }
    log_bytes(&line.bytes[..line.used]);
}

/// Whether lines that only inform are shown.
static INFORMATIVE: AtomicBool = AtomicBool::new(true);

/// Says whether lines that only inform are shown.
pub fn set_informative(shown: bool) {
    INFORMATIVE.store(shown, Ordering::Relaxed);
}

/// Writes a line that only informs, where such lines are shown; [`info!`](crate::info) is its usual form.
pub fn info_line(arguments: fmt::Arguments<'_>) {
    if INFORMATIVE.load(Ordering::Relaxed) {
        log_line(arguments);
    }
}

/// As [`log!`](crate::log), for what is only good to know.
#[macro_export]
macro_rules! info {
    ($($part:tt)*) => { $crate::console::info_line(format_args!($($part)*)) };
}

/// Writes a line to the hypervisor's console: `log!("{} CPUs", n)`. Lines end after 511 bytes.
#[macro_export]
macro_rules! log {
    ($($part:tt)*) => { $crate::console::log_line(format_args!($($part)*)) };
}
