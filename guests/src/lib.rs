//! Library of the PV test kernels in `src/bin`.
//!
//! Each kernel is loaded in the place of dom0, tries one area of the PV ABI and says what it saw: `VALUE name = value` lines for
//! observations that every conforming hypervisor must agree on, then one `VERDICT:` line. The crate also compiles for the host, where
//! the kernels have an empty `main`, so that the ordinary tools can check them.
//!
//! # Unsafe code here
//!
//! A test kernel exists to make wrong calls, and it is alone in its address space with one stack, no interrupts unless it asks for
//! them, and no data worth protecting. The wrappers in [`hypercall`] and [`mem`] are therefore safe functions, although a wrong
//! argument can make the kernel crash itself: that is an outcome the test observes, and the hypervisor, not this crate, is what
//! has to stay sound.
#![cfg_attr(target_os = "none", no_std)]

pub mod check;
pub mod console;
pub mod cpu;
pub mod domu;
pub mod entry;
pub mod event;
pub mod fifo;
pub mod hypercall;
pub mod mem;
pub mod probe;
pub mod rings;
pub mod start;
pub mod sys;
pub mod time;
pub mod trap;
pub mod user;
pub mod vcpu;

/// Makes `$run` the body of the kernel called `$name`.
///
/// `notes:` adds lines to the kernel's ELF notes, in assembler, after the ones that every kernel has.
#[macro_export]
macro_rules! test_kernel {
    ($name:literal, $run:path) => {
        $crate::test_kernel!($name, $run, notes: "");
    };
    ($name:literal, $run:path, notes: $notes:expr) => {
        #[cfg(target_os = "none")]
        core::arch::global_asm!(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/notes.s")), $notes, ".popsection");

        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn guest_main() -> ! {
            $crate::start::run($name, $run)
        }

        #[cfg(target_os = "none")]
        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::check::panicked(info)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: (&str, fn()) = ($name, $run);
        }
    };
}
