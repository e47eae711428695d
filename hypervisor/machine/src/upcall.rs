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

// As above. The first four words are the hypercall's arguments. `frame` holds, of the guest, only what a hypercall's arguments are and rax, rcx and r11. Each gives the value
// for rax, or `QUICK_NOT_DONE`: then the call is made the ordinary way, with the arguments that are in `frame`. None of them gives the CPU other work, changes the
// running vCPU or needs the rest of its registers.
// SAFETY: as above.
unsafe extern "C" {
    /// `mmu_update`.
    pub safe fn oxen_quick_mmu_update(a: u64, b: u64, c: u64, d: u64, frame: &mut GuestFrame) -> i64;
    /// `stack_switch`.
    pub safe fn oxen_quick_stack_switch(a: u64, b: u64, c: u64, d: u64, frame: &mut GuestFrame) -> i64;
    /// `fpu_taskswitch`.
    pub safe fn oxen_quick_fpu_taskswitch(a: u64, b: u64, c: u64, d: u64, frame: &mut GuestFrame) -> i64;
    /// `update_va_mapping`.
    pub safe fn oxen_quick_update_va_mapping(a: u64, b: u64, c: u64, d: u64, frame: &mut GuestFrame) -> i64;
    /// `xen_version`.
    pub safe fn oxen_quick_xen_version(a: u64, b: u64, c: u64, d: u64, frame: &mut GuestFrame) -> i64;
    /// `set_segment_base`.
    pub safe fn oxen_quick_set_segment_base(a: u64, b: u64, c: u64, d: u64, frame: &mut GuestFrame) -> i64;
    /// `mmuext_op`.
    pub safe fn oxen_quick_mmuext_op(a: u64, b: u64, c: u64, d: u64, frame: &mut GuestFrame) -> i64;

    /// A guest's kernel wrote to a page that is there but read-only. True where that was a write to a page table, which is now done; `frame`, here complete, says
    /// where the guest goes on. False leaves everything as it was.
    pub safe fn oxen_quick_write_fault(frame: &mut GuestFrame) -> bool;
}
