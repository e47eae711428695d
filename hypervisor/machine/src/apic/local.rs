//! The local APIC of the calling CPU, as xAPIC (memory-mapped) or x2APIC (registers of the processor). Intel SDM vol. 3, chapter
//! "Advanced Programmable Interrupt Controller".

use super::{msr, vectors};
use core::arch::{asm, x86_64::__cpuid};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use oxen_types::Maddr;

const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;

/// Offsets of the registers in the memory-mapped form; divided by 16 they are the x2APIC's numbers.
mod register {
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const EOI: u32 = 0xb0;
    pub const LOGICAL_DESTINATION: u32 = 0xd0;
    pub const DESTINATION_FORMAT: u32 = 0xe0;
    pub const SPURIOUS: u32 = 0xf0;
    pub const IN_SERVICE: u32 = 0x100;
    pub const ERROR_STATUS: u32 = 0x280;
    pub const COMMAND: u32 = 0x300;
    pub const COMMAND_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_THERMAL: u32 = 0x330;
    pub const LVT_PERFORMANCE: u32 = 0x340;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const LVT_ERROR: u32 = 0x370;
    pub const TIMER_INITIAL: u32 = 0x380;
    pub const TIMER_CURRENT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
}

const LVT_MASKED: u32 = 1 << 16;
const LVT_NMI: u32 = 0x400;
const TIMER_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0xb;

const COMMAND_INIT: u32 = 0x500;
const COMMAND_STARTUP: u32 = 0x600;
const COMMAND_NMI: u32 = 0x400;
const COMMAND_ASSERT: u32 = 1 << 14;
const COMMAND_LEVEL: u32 = 1 << 15;
const COMMAND_BUSY: u32 = 1 << 12;
const COMMAND_ALL_OTHERS: u32 = 3 << 18;

const MODE_NONE: u8 = 0;
const MODE_XAPIC: u8 = 1;
const MODE_X2APIC: u8 = 2;

static MODE: AtomicU8 = AtomicU8::new(MODE_NONE);
/// Where the memory-mapped registers are; valid in xAPIC mode.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// True where the APICs are in x2APIC mode.
#[must_use]
pub fn is_x2apic() -> bool {
    MODE.load(Ordering::Relaxed) == MODE_X2APIC
}

#[inline]
fn read(offset: u32) -> u32 {
    if is_x2apic() {
        // SAFETY: in x2APIC mode these registers exist.
        return unsafe { msr::read(msr::X2APIC_FIRST + (offset >> 4)) } as u32;
    }
    let at = REGISTERS.load(Ordering::Relaxed) + u64::from(offset);
    // SAFETY: in xAPIC mode the page of registers is mapped there, for ever; `MODE` is only set once it is.
    unsafe { (at as *const u32).read_volatile() }
}

#[inline]
fn write(offset: u32, value: u32) {
    if is_x2apic() {
        // SAFETY: as in `read`; the local APIC does not write memory.
        unsafe { msr::write(msr::X2APIC_FIRST + (offset >> 4), u64::from(value)) };
        return;
    }
    let at = REGISTERS.load(Ordering::Relaxed) + u64::from(offset);
    // SAFETY: as in `read`.
    unsafe { (at as *mut u32).write_volatile(value) };
}

fn cpu_has_x2apic() -> bool {
    __cpuid(1).ecx & 1 << 21 != 0
}

/// Chooses the mode for all CPUs, maps the registers and starts the boot CPU's APIC. `allow_x2apic` false keeps the memory-mapped form unless the firmware has
/// already left it.
pub(crate) fn init_boot_cpu(table_address: Maddr, allow_x2apic: bool) {
    // SAFETY: every processor in long mode has this register.
    let base = unsafe { msr::read(msr::APIC_BASE) };
    let already = base & BASE_X2APIC != 0;
    if cpu_has_x2apic() && (allow_x2apic || already) {
        MODE.store(MODE_X2APIC, Ordering::Relaxed);
    } else {
        let mapped = crate::paging::map_mmio(table_address, 4096);
        REGISTERS.store(mapped as u64, Ordering::Relaxed);
        MODE.store(MODE_XAPIC, Ordering::Relaxed);
    }
    init_this_cpu();
}

/// Starts the calling CPU's APIC in the mode that the boot CPU chose: nothing pending, timer masked, NMI on its second pin.
pub(crate) fn init_this_cpu() {
    // SAFETY: the register exists in every processor in long mode; the modes are entered in the order that the manual asks for.
    unsafe {
        let base = msr::read(msr::APIC_BASE) | BASE_ENABLE;
        msr::write(msr::APIC_BASE, base);
        if is_x2apic() {
            msr::write(msr::APIC_BASE, base | BASE_X2APIC);
        }
    }
    if !is_x2apic() {
        // Flat logical mode, unused, but some firmware leaves values that make the APIC accept logical interrupts.
        write(register::DESTINATION_FORMAT, u32::MAX);
        write(register::LOGICAL_DESTINATION, 0);
    }
    write(register::SPURIOUS, 0x100 | u32::from(vectors::SPURIOUS));
    write(register::TASK_PRIORITY, 0);
    let last_lvt = read(register::VERSION) >> 16 & 0xff;
    write(register::LVT_TIMER, LVT_MASKED | u32::from(vectors::TIMER));
    write(register::LVT_LINT0, LVT_MASKED);
    write(register::LVT_LINT1, LVT_NMI);
    if last_lvt >= 4 {
        write(register::LVT_PERFORMANCE, LVT_MASKED);
    }
    if last_lvt >= 5 {
        write(register::LVT_THERMAL, LVT_MASKED);
    }
    write(register::ERROR_STATUS, 0);
    write(register::LVT_ERROR, u32::from(vectors::ERROR));
    acknowledge_left_over();
}

/// Finishes interrupts that the firmware left in service, which would block those of lower priority.
fn acknowledge_left_over() {
    for _ in 0..256 {
        if (0..8).all(|i| read(register::IN_SERVICE + 16 * i) == 0) {
            return;
        }
        end_of_interrupt();
    }
}

/// The calling CPU's APIC id.
#[must_use]
pub fn id() -> u32 {
    match MODE.load(Ordering::Relaxed) {
        MODE_X2APIC => read(register::ID),
        MODE_XAPIC => read(register::ID) >> 24,
        _ => __cpuid(1).ebx >> 24,
    }
}

/// Tells the APIC that the interrupt in service has been taken.
#[inline]
pub(crate) fn end_of_interrupt() {
    write(register::EOI, 0);
}

/// Reads and clears the errors that the APIC has met.
pub(crate) fn take_errors() -> u32 {
    write(register::ERROR_STATUS, 0);
    read(register::ERROR_STATUS)
}

fn command(apic_id: u32, low: u32) {
    if is_x2apic() {
        // A register write does not wait for earlier stores as a memory-mapped one does; what the target is to find must be there.
        // SAFETY: fences have no other effect.
        unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
        // SAFETY: in x2APIC mode the register exists; the targets are CPUs that run the hypervisor or that it starts.
        unsafe { msr::write(msr::X2APIC_FIRST + (register::COMMAND >> 4), u64::from(apic_id) << 32 | u64::from(low)) };
        return;
    }
    wait_until_sent();
    write(register::COMMAND_HIGH, apic_id << 24);
    write(register::COMMAND, low);
    wait_until_sent();
}

/// Waits for the previous interprocessor interrupt to leave. Bounded: an APIC that never finishes must not stop a fatal report.
fn wait_until_sent() {
    for _ in 0..1_000_000 {
        if read(register::COMMAND) & COMMAND_BUSY == 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Sends an interrupt to one CPU.
pub(crate) fn send(apic_id: u32, vector: u8) {
    command(apic_id, COMMAND_ASSERT | u32::from(vector));
}

/// Sends INIT: the target stops and waits for a start-up message.
pub(crate) fn send_init(apic_id: u32) {
    command(apic_id, COMMAND_INIT | COMMAND_ASSERT | COMMAND_LEVEL);
    if !is_x2apic() {
        command(apic_id, COMMAND_INIT | COMMAND_LEVEL);
    }
}

/// Sends a start-up message: the target begins in real mode at `page` times 4096.
pub(crate) fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, COMMAND_STARTUP | COMMAND_ASSERT | u32::from(page));
}

/// Sends an NMI to all other CPUs.
pub(crate) fn send_nmi_to_others() {
    if MODE.load(Ordering::Relaxed) != MODE_NONE {
        command(0, COMMAND_NMI | COMMAND_ASSERT | COMMAND_ALL_OTHERS);
    }
}

/// Makes the timer wait for a TSC value.
pub(crate) fn timer_use_tsc_deadline() {
    write(register::LVT_TIMER, TIMER_TSC_DEADLINE | u32::from(vectors::TIMER));
    // The manual wants the mode change ordered before the first deadline where the APIC is memory-mapped.
    // SAFETY: a fence has no other effect.
    unsafe { asm!("mfence", options(nostack, preserves_flags)) };
}

/// Makes the timer count down once from a value, at the undivided rate.
pub(crate) fn timer_use_one_shot() {
    write(register::TIMER_DIVIDE, DIVIDE_BY_1);
    write(register::LVT_TIMER, u32::from(vectors::TIMER));
}

/// Starts the timer's count for measuring, without an interrupt.
pub(crate) fn timer_start_silent(count: u32) {
    write(register::TIMER_DIVIDE, DIVIDE_BY_1);
    write(register::LVT_TIMER, LVT_MASKED | u32::from(vectors::TIMER));
    write(register::TIMER_INITIAL, count);
}

/// Sets the count from which the timer counts down; 0 stops it.
#[inline]
pub(crate) fn timer_set_count(count: u32) {
    write(register::TIMER_INITIAL, count);
}

/// The timer's present count.
pub(crate) fn timer_count() -> u32 {
    read(register::TIMER_CURRENT)
}
