//! Restarting and switching off (ACPI specification 6.5, sections 4.8.3 and 7).

use crate::acpi::{self, fadt::Register};
use crate::port::{in8, in16, out8, out16};
use crate::{time, window};
use core::arch::asm;

/// Sleep type field of a PM1 control register.
const SLEEP_TYPE: u16 = 7 << 10;
/// "Enter the sleep state now".
const SLEEP_ENABLE: u16 = 1 << 13;
/// ACPI mode is on.
const SCI_ENABLE: u16 = 1;

/// Waits without needing the clock: before it runs, or in a fatal report, by port accesses of about 1 us each.
fn pause_ms(ms: u32) {
    for _ in 0..ms * 1000 {
        // SAFETY: port 0x80 takes diagnostic codes and does nothing.
        unsafe { out8(0x80, 0) };
    }
}

/// Restarts the machine: by the ACPI reset register, the keyboard controller, the chipset's reset port, and a triple fault, in turn.
pub fn reboot() -> ! {
    if let Some((register, value)) = acpi::tables().and_then(|t| t.fadt.reset) {
        write_reset_register(register, value);
        pause_ms(50);
    }
    for _ in 0..100 {
        // SAFETY: the keyboard controller's status and command port; 0xfe pulses the reset line.
        unsafe {
            if in8(0x64) & 2 == 0 {
                out8(0x64, 0xfe);
                break;
            }
        }
        pause_ms(1);
    }
    pause_ms(50);
    // SAFETY: the chipset's reset control: full reset of the processors and the system.
    unsafe {
        let other_bits = in8(0xcf9) & !6;
        out8(0xcf9, other_bits | 2);
        pause_ms(1);
        out8(0xcf9, other_bits | 6);
    }
    pause_ms(50);
    triple_fault()
}

fn write_reset_register(register: Register, value: u8) {
    match register {
        // SAFETY: the firmware says that this port resets the machine.
        Register::Port(port) => unsafe { out8(port, value) },
        Register::Memory(at) => window::write_u8_or_give_up(at, value),
    }
}

/// Makes the processor shut down, which resets the machine: an exception with an empty interrupt table.
fn triple_fault() -> ! {
    let empty = [0_u16; 5];
    loop {
        // SAFETY: nothing is to run any more.
        unsafe { asm!("lidt [{}]", "int3", in(reg) &empty) };
    }
}

/// The words for PM1a and PM1b control that put the machine into S5, as the firmware's tables give them.
pub(crate) fn s5_values() -> Option<(u16, u16)> {
    let (a, b) = acpi::tables()?.s5?;
    Some((u16::from(a) << 10, u16::from(b) << 10))
}

/// Enters the sleep state whose types are in the two words; returns where the machine does not.
pub(crate) fn enter_sleep(pm1a_value: u16, pm1b_value: u16) {
    let Some(tables) = acpi::tables() else { return };
    let Some(pm1a) = tables.fadt.pm1a_control else {
        crate::log!("The machine has no PM1 control register: it cannot be switched off by software");
        return;
    };
    // SAFETY: the firmware says that this is the control register.
    if unsafe { in16(pm1a) } & SCI_ENABLE == 0 {
        enable_acpi(pm1a, tables.fadt.enable);
    }
    let registers = [Some((pm1a, pm1a_value)), tables.fadt.pm1b_control.map(|port| (port, pm1b_value))];
    // The type is set in both registers before either is told to go.
    for enable in [0, SLEEP_ENABLE] {
        for (port, value) in registers.into_iter().flatten() {
            // SAFETY: as above; the processors stop here, which is what is wanted.
            unsafe {
                let kept = in16(port) & !(SLEEP_TYPE | SLEEP_ENABLE);
                out16(port, kept | value & SLEEP_TYPE | enable);
            }
        }
    }
    time::delay_ns(2_000_000_000);
    crate::log!("The machine did not enter the sleep state");
}

/// Switches ACPI mode on, without which the control register does nothing.
fn enable_acpi(pm1a: u16, command: Option<(u16, u8)>) {
    let Some((port, value)) = command else { return };
    // SAFETY: the firmware names port and value for this purpose.
    unsafe { out8(port, value) };
    for _ in 0..300 {
        // SAFETY: as in `enter_sleep`.
        if unsafe { in16(pm1a) } & SCI_ENABLE != 0 {
            return;
        }
        pause_ms(1);
    }
}
