//! From GRUB to the first Rust code.

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("entry.s"), rust_entry = sym rust_entry, options(att_syntax));

/// First Rust code: boot CPU, paging on with the boot tables, boot stack, interrupts off. `info` is the machine address of the multiboot2
/// information, `image` that of the image.
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
extern "C" fn rust_entry(info: u64, image: u64) -> ! {
    use crate::console::{self, ConsoleSettings, SerialSettings};
    console::start(&ConsoleSettings { com1: Some(SerialSettings::COM1), com2: None, screen: true });
    crate::log!("Oxen boot information at {info:#x}, image at {image:#x}");
    loop {
        core::hint::spin_loop();
    }
}
