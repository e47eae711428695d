//! Instructions that Rust has no expression for.

use core::arch::asm;

/// Time-stamp counter.
pub fn rdtsc() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a counter.
    unsafe { asm!("lfence", "rdtsc", out("rax") low, out("rdx") high, options(nomem, nostack)) };
    high << 32 | low & 0xffff_ffff
}

/// rflags.
pub fn flags() -> u64 {
    let flags: u64;
    // SAFETY: pushes and pops one word.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    flags
}

/// cs, ss, ds, es, fs, gs.
pub fn selectors() -> [u64; 6] {
    let (cs, ss, ds, es, fs, gs): (u64, u64, u64, u64, u64, u64);
    // SAFETY: reads selectors.
    unsafe {
        asm!(
            "mov {0:e}, cs", "mov {1:e}, ss", "mov {2:e}, ds", "mov {3:e}, es", "mov {4:e}, fs", "mov {5:e}, gs",
            out(reg) cs, out(reg) ss, out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs,
            options(nomem, nostack)
        );
    }
    [cs, ss, ds, es, fs, gs]
}

/// Result of cpuid: eax, ebx, ecx, edx.
pub type Cpuid = [u32; 4];

/// cpuid as the processor executes it.
pub fn cpuid(leaf: u32, subleaf: u32) -> Cpuid {
    let (a, b, c, d): (u32, u64, u32, u32);
    // SAFETY: cpuid has no side effects; rbx is restored because the compiler reserves it.
    unsafe {
        asm!(
            "xchg {b}, rbx", "cpuid", "xchg {b}, rbx",
            b = inout(reg) 0_u64 => b, inout("eax") leaf => a, inout("ecx") subleaf => c, out("edx") d,
            options(nomem, nostack)
        );
    }
    [a, b as u32, c, d]
}

/// cpuid with the forced-emulation prefix (arch-x86/xen.h, `XEN_CPUID`): always answered by the hypervisor.
pub fn cpuid_forced(leaf: u32, subleaf: u32) -> Cpuid {
    let (a, b, c, d): (u32, u64, u32, u32);
    // SAFETY: the hypervisor emulates the sequence as cpuid.
    unsafe {
        asm!(
            "xchg {b}, rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "xchg {b}, rbx",
            b = inout(reg) 0_u64 => b, inout("eax") leaf => a, inout("ecx") subleaf => c, out("edx") d,
            options(nomem, nostack)
        );
    }
    [a, b as u32, c, d]
}

/// Tells the processor that this is a waiting loop.
pub fn relax() {
    core::hint::spin_loop();
}

/// The word at gs:0.
pub fn gs_word() -> u64 {
    let word: u64;
    // SAFETY: the caller has pointed the segment base at memory of its own.
    unsafe { asm!("mov {}, gs:[0]", out(reg) word, options(readonly, nostack)) };
    word
}
