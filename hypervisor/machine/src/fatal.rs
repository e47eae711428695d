//! Fatal reports: what happened, the registers, a backtrace with names and the guest that was running, on every console device; then a reboot after
//! five seconds, or a halt where the administrator asked for that.
//!
//! A report must come out whatever state the machine is in: it takes no lock that it cannot break, allocates nothing, and looks at the page tables
//! before it follows a pointer.

use crate::console;
use crate::paging;
use crate::port::{in8, out8};
use crate::symbols::Symbolised;
use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use oxen_hal::GuestFrame;
use oxen_types::{HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START};

/// Seconds between a fatal report and the reboot.
pub const REBOOT_DELAY_S: u64 = 5;
/// Most lines of a backtrace.
const MAX_DEPTH: usize = 32;
/// Most stack frames that are looked at for them.
const MAX_FRAMES: usize = 4096;

static NO_REBOOT: AtomicBool = AtomicBool::new(false);
/// APIC id + 1 of the CPU that reports; 0 for none.
static REPORTER: AtomicU64 = AtomicU64::new(0);
static STOP_OTHERS: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static REBOOT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static SINK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Makes a fatal report end in a halt (`noreboot`).
pub fn set_no_reboot(no_reboot: bool) {
    NO_REBOOT.store(no_reboot, Ordering::Relaxed);
}

/// Sets the function that stops the other CPUs at once, whatever they do.
pub fn set_stop_others(hook: fn()) {
    STOP_OTHERS.store(hook as *mut (), Ordering::Release);
}

/// Sets the function that reboots by the platform's own means; the traditional ways are tried after it.
pub fn set_reboot(hook: fn()) {
    REBOOT.store(hook as *mut (), Ordering::Release);
}

/// Sets the function that stores the report's text in the console ring. It must not wait for a lock.
pub fn set_sink(sink: fn(&[u8])) {
    SINK.store(sink as *mut (), Ordering::Release);
}

fn run_hook(hook: &AtomicPtr<()>) {
    let hook = hook.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: the only non-null values stored in these hooks come from functions that take a `fn()`.
        let hook: fn() = unsafe { core::mem::transmute(hook) };
        hook();
    }
}

/// Writes the report's text, each line with the hypervisor's prefix.
struct Report {
    line_open: bool,
}

impl Report {
    fn bytes(text: &[u8]) {
        console::write_devices_fatal(text);
        let sink = SINK.load(Ordering::Acquire);
        if !sink.is_null() {
            // SAFETY: the only non-null values stored here come from `set_sink`, which takes a `fn(&[u8])`.
            let sink: fn(&[u8]) = unsafe { core::mem::transmute(sink) };
            sink(text);
        }
    }
}

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            if !self.line_open {
                Self::bytes(b"(OXEN) ");
            }
            Self::bytes(piece.as_bytes());
            self.line_open = !piece.ends_with('\n');
        }
        Ok(())
    }
}

/// Identity of this CPU from CPUID: works before and without any set-up.
fn apic_id() -> u64 {
    if __cpuid(0).eax >= 0xb {
        let leaf = core::arch::x86_64::__cpuid_count(0xb, 0);
        if leaf.ebx != 0 {
            return u64::from(leaf.edx);
        }
    }
    u64::from(__cpuid(1).ebx >> 24)
}

fn stop_this_cpu() -> ! {
    loop {
        // SAFETY: stops this CPU for good; nothing of it is used any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Makes this CPU the one that reports. A second CPU with trouble of its own stops; trouble in the report itself reboots at once.
fn begin() -> Report {
    // SAFETY: this CPU does not return to what it did.
    unsafe { asm!("cli", options(nomem, nostack)) };
    let me = apic_id() + 1;
    match REPORTER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(other) if other == me => {
            console::write_devices_fatal(b"\n(OXEN) The fatal report itself failed.\n");
            finish();
        }
        Err(_) => stop_this_cpu(),
    }
    run_hook(&STOP_OTHERS);
    let mut report = Report { line_open: false };
    let _ = write!(report, "\n****************************************\n");
    report
}

/// Ends a report: waits and reboots, or halts.
fn finish() -> ! {
    if NO_REBOOT.load(Ordering::Relaxed) {
        Report::bytes(b"(OXEN) Halted (noreboot): reset the machine by hand.\n");
        stop_this_cpu();
    }
    Report::bytes(b"(OXEN) Rebooting in 5 seconds.\n");
    wait_ms(REBOOT_DELAY_S * 1000);
    reboot();
}

/// Names of the processor's exceptions (Intel SDM vol. 3, "Exception and Interrupt Reference").
#[must_use]
pub fn exception_name(vector: u32) -> &'static str {
    const NAMES: [&str; 22] = [
        "divide error", "debug exception", "NMI", "breakpoint", "overflow", "bound range exceeded", "invalid opcode",
        "device not available", "double fault", "coprocessor segment overrun", "invalid TSS", "segment not present", "stack fault",
        "general protection fault", "page fault", "reserved exception", "x87 error", "alignment check", "machine check", "SIMD error",
        "virtualisation exception", "control protection exception",
    ];
    NAMES.get(vector as usize).copied().unwrap_or("interrupt")
}

fn control_registers() -> [u64; 4] {
    let (cr0, cr2, cr3, cr4);
    // SAFETY: reads of control registers have no side effect.
    unsafe {
        asm!("mov {0}, cr0", "mov {1}, cr2", "mov {2}, cr3", "mov {3}, cr4",
             out(reg) cr0, out(reg) cr2, out(reg) cr3, out(reg) cr4, options(nomem, nostack, preserves_flags));
    }
    [cr0, cr2, cr3, cr4]
}

/// Reports an exception that the hypervisor's own code raised, or one that no code can go on after (NMI for us, double fault, machine
/// check), and stops. `frame` holds the registers at that place, `cpu` the CPU's number where it is known.
pub fn trap(frame: &GuestFrame, cpu: Option<u32>, why: &str) -> ! {
    let mut report = begin();
    let [cr0, cr2, cr3, cr4] = control_registers();
    let name = exception_name(frame.entry_vector);
    let _ = write!(report, "FATAL: {name} (vector {}, error code {:#x}) on ", frame.entry_vector, frame.error_code);
    let _ = match cpu {
        Some(cpu) => write!(report, "CPU {cpu}"),
        None => write!(report, "the processor with APIC id {}", apic_id()),
    };
    let _ = writeln!(report, "{}{why}", if why.is_empty() { "" } else { ": " });
    if frame.entry_vector == 14 {
        let _ = writeln!(report, "Address {cr2:#018x}: {}", PageFault { address: cr2, error: frame.error_code });
    }
    if frame.entry_vector == 8 && is_guard(cr2) {
        let _ = writeln!(report, "Last fault at {cr2:#018x}, just below a mapped page: perhaps a stack overflow");
    }
    let f = frame;
    let _ = writeln!(report, "rip {:04x}:{}", f.cs, Symbolised(f.rip));
    let _ = writeln!(report, "rsp {:04x}:{:016x}  rflags {:016x}", f.ss, f.rsp, f.rflags);
    for row in [
        [("rax", f.rax), ("rbx", f.rbx), ("rcx", f.rcx)],
        [("rdx", f.rdx), ("rsi", f.rsi), ("rdi", f.rdi)],
        [("rbp", f.rbp), ("r8 ", f.r8), ("r9 ", f.r9)],
        [("r10", f.r10), ("r11", f.r11), ("r12", f.r12)],
        [("r13", f.r13), ("r14", f.r14), ("r15", f.r15)],
        [("cr0", cr0), ("cr2", cr2), ("cr3", cr3)],
    ] {
        let [a, b, c] = row;
        let _ = writeln!(report, "{} {:016x}  {} {:016x}  {} {:016x}", a.0, a.1, b.0, b.1, c.0, c.1);
    }
    let _ = writeln!(report, "cr4 {cr4:016x}");
    stack_words(&mut report, f.rsp);
    backtrace(&mut report, Some(f.rip), f.rbp);
    guest_note(&mut report);
    finish();
}

/// Reports a panic and stops: the panic handler's body.
pub fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let frame_pointer: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack, preserves_flags)) };
    let mut report = begin();
    let _ = writeln!(report, "FATAL: hypervisor bug: {}", info.message());
    if let Some(place) = info.location() {
        let _ = writeln!(report, "at {place}");
    }
    backtrace(&mut report, None, frame_pointer);
    guest_note(&mut report);
    finish();
}

/// Reports in one line that the machine cannot be started or used, and stops. For conditions that are nobody's bug: no module, too
/// little memory.
pub fn cannot_go_on(reason: fmt::Arguments<'_>) -> ! {
    let mut report = begin();
    let _ = writeln!(report, "{reason}");
    finish();
}

/// Explains a page fault's error code and what the tables say of the address.
struct PageFault {
    address: u64,
    error: u32,
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = |n: u32| self.error >> n & 1 != 0;
        let what = if bit(4) {
            "instruction fetch"
        } else if bit(1) {
            "write"
        } else {
            "read"
        };
        write!(f, "{what}, page {}", if bit(0) { "present" } else { "absent" })?;
        if bit(3) {
            f.write_str(", reserved bit set")?;
        }
        if is_guard(self.address) {
            f.write_str(", below a mapped page: perhaps a stack overflow")?;
        }
        Ok(())
    }
}

/// An unmapped page of the hypervisor's with a mapped one above it, as under every stack.
fn is_guard(address: u64) -> bool {
    in_hypervisor(address) && paging::lookup(address).is_none() && paging::lookup(address.wrapping_add(4096)).is_some()
}

fn in_hypervisor(address: u64) -> bool {
    (HYPERVISOR_VIRT_START..HYPERVISOR_VIRT_END).contains(&address)
}

/// A word of the hypervisor's memory, where it can be read.
fn read_word(address: u64) -> Option<u64> {
    if !address.is_multiple_of(8) || !in_hypervisor(address) {
        return None;
    }
    let (entry, _) = paging::lookup(address)?;
    // Guest-readable pages are off limits under SMAP; device registers may not be read for curiosity.
    if entry & (paging::bits::USER | paging::bits::CACHE_DISABLE) != 0 {
        return None;
    }
    // SAFETY: the hypervisor's tables map the address, to memory.
    Some(unsafe { (address as *const u64).read_volatile() })
}

fn stack_words(report: &mut Report, rsp: u64) {
    let _ = writeln!(report, "Stack:");
    for row in 0..4 {
        let mut any = false;
        for column in 0..4 {
            let address = rsp.wrapping_add((row * 4 + column) * 8) & !7;
            let Some(word) = read_word(address) else { break };
            let _ = write!(report, "  {word:016x}");
            any = true;
        }
        if !any {
            break;
        }
        let _ = writeln!(report);
    }
}

/// The return addresses on the stack whose frames hang together from `frame_pointer`, each moved into the call instruction itself: behind the call the next function may begin.
fn callers(mut frame_pointer: u64) -> impl Iterator<Item = u64> {
    let mut end = false;
    core::iter::from_fn(move || {
        if end {
            return None;
        }
        let (back, next) = (read_word(frame_pointer.wrapping_add(8))?, read_word(frame_pointer)?);
        if !in_hypervisor(back) {
            return None;
        }
        end = next <= frame_pointer;
        frame_pointer = next;
        Some(back.wrapping_sub(1))
    })
}

fn backtrace(report: &mut Report, rip: Option<u64>, frame_pointer: u64) {
    let _ = writeln!(report, "Backtrace:");
    let mut last = 0;
    let mut repeats = 0_u32;
    let mut lines = 0;
    for address in rip.into_iter().chain(callers(frame_pointer)).take(MAX_FRAMES) {
        if address == last {
            repeats += 1;
            continue;
        }
        if repeats != 0 {
            let _ = writeln!(report, "  ... the same {repeats} times more");
        }
        (last, repeats) = (address, 0);
        lines += 1;
        if lines > MAX_DEPTH {
            break;
        }
        let _ = writeln!(report, "  {}", Symbolised(address));
    }
    if repeats != 0 {
        let _ = writeln!(report, "  ... the same {repeats} times more");
    }
}

fn guest_note(report: &mut Report) {
    crate::upcall::oxen_fatal_note(report);
    if report.line_open {
        let _ = writeln!(report);
    }
}

/// Writes the calling CPU's backtrace to the log, for debug keys.
pub fn log_backtrace() {
    let frame_pointer: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack, preserves_flags)) };
    for address in callers(frame_pointer).take(MAX_DEPTH) {
        crate::log!("  {}", Symbolised(address));
    }
}

/// Waits by the PIT's channel 2 (Intel 8254), which every PC has and which needs no calibration. On a machine without one a count of TSC ticks
/// ends each step, so that the wait ends in any case.
pub fn wait_ms(ms: u64) {
    const STEP_MS: u64 = 10;
    const TICKS: u16 = (1_193_182 * STEP_MS / 1000) as u16;
    const TSC_LIMIT: u64 = 50_000_000;
    for _ in 0..ms.div_ceil(STEP_MS) {
        // SAFETY: ports of the PIT and of the speaker gate, which touch no memory.
        unsafe {
            out8(0x61, in8(0x61) & !3);
            out8(0x43, 0xb0);
            out8(0x42, TICKS as u8);
            out8(0x42, (TICKS >> 8) as u8);
            out8(0x61, in8(0x61) & !2 | 1);
            let start = _rdtsc();
            while in8(0x61) & 0x20 == 0 && _rdtsc().wrapping_sub(start) < TSC_LIMIT {
                core::hint::spin_loop();
            }
        }
    }
}

/// Restarts the machine: the platform's way where it is set, then the reset register of the chipset, the keyboard controller, a triple fault.
pub fn reboot() -> ! {
    run_hook(&REBOOT);
    // SAFETY: the machine restarts; nothing of it is used any more.
    unsafe {
        out8(0xcf9, 0x02);
        out8(0xcf9, 0x06);
        wait_ms(50);
        out8(0x64, 0xfe);
        wait_ms(50);
        let no_idt = [0_u8; 10];
        asm!("lidt [{}]", "int3", in(reg) &no_idt, options(nostack));
    }
    stop_this_cpu();
}
