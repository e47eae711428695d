//! First instructions: note the registers that the hypervisor handed over, take a stack, enter Rust.

#[cfg(target_os = "none")]
use core::arch::global_asm;
use core::cell::UnsafeCell;

/// Bytes of the boot stack.
pub const BOOT_STACK_BYTES: usize = 64 * 1024;

/// The registers at the first instruction of the kernel.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct InitialRegisters {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15, in this order.
    pub gpr: [u64; 16],
    /// Flags.
    pub rflags: u64,
    /// cs, ss, ds, es, fs, gs, in this order.
    pub selectors: [u64; 6],
}

#[repr(C, align(4096))]
struct BootStack(UnsafeCell<[u8; BOOT_STACK_BYTES]>);
// SAFETY: only the assembler below refers to the stack, once, on the boot vCPU.
unsafe impl Sync for BootStack {}

#[repr(C)]
struct InitialCell(UnsafeCell<InitialRegisters>);
// SAFETY: written by the first instructions of the boot vCPU, before anything can read it.
unsafe impl Sync for InitialCell {}

static BOOT_STACK: BootStack = BootStack(UnsafeCell::new([0; BOOT_STACK_BYTES]));
static INITIAL: InitialCell =
    InitialCell(UnsafeCell::new(InitialRegisters { gpr: [0; 16], rflags: 0, selectors: [0; 6] }));

/// The registers as they were at the first instruction.
pub fn initial_registers() -> InitialRegisters {
    // SAFETY: the entry code finished writing before it called Rust, and nothing writes later.
    unsafe { *INITIAL.0.get() }
}

#[cfg(target_os = "none")]
global_asm!(
    ".pushsection .text.entry, \"ax\", @progbits",
    ".globl guest_entry",
    "guest_entry:",
    "mov [rip + {initial} + 0], rax",
    "mov [rip + {initial} + 8], rbx",
    "mov [rip + {initial} + 16], rcx",
    "mov [rip + {initial} + 24], rdx",
    "mov [rip + {initial} + 32], rsi",
    "mov [rip + {initial} + 40], rdi",
    "mov [rip + {initial} + 48], rbp",
    "mov [rip + {initial} + 56], rsp",
    "mov [rip + {initial} + 64], r8",
    "mov [rip + {initial} + 72], r9",
    "mov [rip + {initial} + 80], r10",
    "mov [rip + {initial} + 88], r11",
    "mov [rip + {initial} + 96], r12",
    "mov [rip + {initial} + 104], r13",
    "mov [rip + {initial} + 112], r14",
    "mov [rip + {initial} + 120], r15",
    "lea rsp, [rip + {stack} + {stack_bytes}]",
    "pushfq",
    "pop rax",
    "mov [rip + {initial} + 128], rax",
    "mov eax, cs",
    "mov [rip + {initial} + 136], rax",
    "mov eax, ss",
    "mov [rip + {initial} + 144], rax",
    "mov eax, ds",
    "mov [rip + {initial} + 152], rax",
    "mov eax, es",
    "mov [rip + {initial} + 160], rax",
    "mov eax, fs",
    "mov [rip + {initial} + 168], rax",
    "mov eax, gs",
    "mov [rip + {initial} + 176], rax",
    "cld",
    "xor ebp, ebp",
    "mov rdi, rsi",
    "call {begin}",
    "ud2",
    ".popsection",
    initial = sym INITIAL,
    stack = sym BOOT_STACK,
    stack_bytes = const BOOT_STACK_BYTES,
    begin = sym crate::start::begin,
);

// The host build has no entry: these references keep its dead-code lint quiet about what only the assembler uses.
#[cfg(not(target_os = "none"))]
const _: (&BootStack, usize) = (&BOOT_STACK, BOOT_STACK_BYTES);
