//! The functions that the binary defines and the machine calls.

use crate::boot::{BootInfo, EarlyOptions};
use oxen_hal::GuestFrame;
use oxen_types::CpuId;

// The binary defines each of these with `#[unsafe(no_mangle)]` and the same signature.
// SAFETY: the link fails unless the binary defines them; the signatures are the contract stated in the line above.
unsafe extern "Rust" {
    /// Takes what the machine itself needs from the hypervisor's command line. Called first of all: no heap, nothing printed yet, and a panic would not be seen.
    pub safe fn oxen_early_options(command_line: &str) -> EarlyOptions;

    /// The boot CPU arrives here when the machine's own set-up is done; the other CPUs do not run yet.
    pub safe fn oxen_main(info: BootInfo) -> !;

    /// Every other CPU arrives here when it is ready.
    pub safe fn oxen_cpu_main(cpu: CpuId) -> !;

    /// Every entry from ring 3. `frame` lies on the CPU's main stack; the guest that it describes on return is resumed. Where the frame
    /// on return has `rcx == rip`, `r11 == rflags`, the selectors 0xe033 and 0xe02b, a canonical `rip` and neither TF nor RF, that is done by `sysret`.
    pub safe fn oxen_from_guest(frame: &mut GuestFrame);

    /// A maskable interrupt that arrived while the CPU waited for one.
    pub safe fn oxen_host_interrupt(vector: u8);

    /// Writes which guest ran, for fatal reports. Called at most once.
    pub safe fn oxen_fatal_note(out: &mut dyn core::fmt::Write);
}
