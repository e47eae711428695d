//! What a processor holds of a vCPU.

use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The number in [`GuestFrame::entry_vector`] for the `syscall` instruction; below 256 it is the vector of a trap or interrupt.
pub const VECTOR_HYPERCALL: u32 = 0x100;
/// The number for the `syscall` instruction in 32-bit code (AMD processors only). As with [`VECTOR_HYPERCALL`], `rcx` is the return address and `r11` the flags.
pub const VECTOR_SYSCALL32: u32 = 0x101;
/// The number for the `sysenter` instruction (Intel processors only). The instruction keeps neither return address nor stack pointer: `rip` and `rsp`
/// of the frame are 0, `cs` is 3.
pub const VECTOR_SYSENTER: u32 = 0x102;

/// The number for an entry that has been dealt with: only the way back remains.
pub const VECTOR_DONE: u32 = 0x103;

/// The answer of a quick hypercall (see `oxen_machine::upcall`) that was not made; no call gives this value.
pub const QUICK_NOT_DONE: i64 = -0x8000_0000;

/// The general registers of the interrupted guest, saved on the hypervisor's stack by the entry code and restored from there on the way
/// back. The layout is the first 168 bytes of the public `struct cpu_user_regs` (header `arch-x86/xen-x86_64.h`); the five words from
/// `rip` are the processor's own interrupt frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct GuestFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// Error code that the processor pushed, 0 where the vector has none.
    pub error_code: u32,
    /// Vector, or [`VECTOR_HYPERCALL`], [`VECTOR_SYSCALL32`], [`VECTOR_SYSENTER`], [`VECTOR_DONE`].
    pub entry_vector: u32,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<GuestFrame>() == 168);

/// One cache line of an extended state area.
#[derive(Clone, Copy, Debug, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// The extended state of a vCPU in the format of the XSAVE instruction (or FXSAVE, which is its first 512 bytes). Allocated once, of the size that
/// the machine's features need, on a 64-byte boundary.
#[derive(Clone, Debug)]
pub struct FpuArea {
    lines: Vec<Line>,
}

impl FpuArea {
    /// A clean area of at least `size_bytes`: FCW 0x37f, MXCSR 0x1f80, everything else zero (processor manual, "FXSAVE area", initial values).
    #[must_use]
    pub fn new(size_bytes: usize) -> Self {
        let mut lines = alloc::vec![Line([0; 64]); size_bytes.max(576).div_ceil(64)];
        if let Some(Line(first)) = lines.first_mut() {
            first[0..2].copy_from_slice(&0x37f_u16.to_le_bytes());
            first[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        }
        Self { lines }
    }

    /// The area's bytes; the first one is on a 64-byte boundary.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.lines.as_slice().as_bytes()
    }

    /// The area's bytes for writing.
    #[must_use]
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.lines.as_mut_slice().as_mut_bytes()
    }
}

/// Everything of a vCPU that lives in processor registers beyond [`GuestFrame`]. While the vCPU runs, the processor's registers are the
/// truth for the fields marked *live*; [`crate::CpuOps::save_context`] brings them here.
#[derive(Clone, Debug)]
pub struct VcpuContext {
    /// General registers while the vCPU is not running.
    pub frame: GuestFrame,
    /// Data segment selectors (live).
    pub ds: u16,
    /// See [`VcpuContext::ds`].
    pub es: u16,
    /// See [`VcpuContext::ds`].
    pub fs: u16,
    /// See [`VcpuContext::ds`].
    pub gs: u16,
    /// FS base (live).
    pub fs_base: u64,
    /// GS base that is active while the guest runs in kernel mode (live).
    pub gs_base_kernel: u64,
    /// GS base that is active while the guest runs in user mode (live).
    pub gs_base_user: u64,
    /// Whether the guest is in its kernel mode: decides which of the two GS bases is in the GS register.
    pub in_kernel: bool,
    /// The guest's CR0.TS: FPU instructions raise #NM while set.
    pub task_switched: bool,
    /// Guest-chosen bits of CR4 (TSD, DE, FSGSBASE, OSXSAVE).
    pub cr4: u64,
    /// Extended control register 0: the state components that the guest has enabled.
    pub xcr0: u64,
    /// Debug registers 0 to 3, 6 and 7.
    pub debug: [u64; 8],
    /// TSC_AUX (RDTSCP's ecx).
    pub tsc_aux: u32,
    /// Extended state.
    pub fpu: FpuArea,
}

impl VcpuContext {
    /// A vCPU as it is before its first instruction, with an extended state area of `fpu_bytes`.
    #[must_use]
    pub fn new(fpu_bytes: usize) -> Self {
        let mut debug = [0; 8];
        debug[6] = 0xffff_0ff0;
        debug[7] = 0x400;
        Self {
            frame: GuestFrame::default(),
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
            fs_base: 0,
            gs_base_kernel: 0,
            gs_base_user: 0,
            in_kernel: true,
            task_switched: false,
            cr4: 0,
            xcr0: 3,
            debug,
            tsc_aux: 0,
            fpu: FpuArea::new(fpu_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fpu_area_is_aligned_and_clean() {
        let mut area = FpuArea::new(832);
        assert!(area.as_bytes().as_ptr().addr().is_multiple_of(64) && area.as_bytes().len() >= 832);
        assert_eq!(&area.as_mut_bytes()[..2], &[0x7f, 0x03]);
        assert_eq!(&area.as_bytes()[24..28], &[0x80, 0x1f, 0, 0]);
    }
}
