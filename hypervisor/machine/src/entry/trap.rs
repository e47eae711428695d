//! Traps taken in the hypervisor itself, and the table that leads to all entries.

use super::extable;
use crate::descriptors::{Gate, gate_attributes};
use crate::percpu;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};
use oxen_hal::GuestFrame;

// SAFETY: the entry code defines the symbols; only their addresses are used.
unsafe extern "C" {
    static oxen_vectors: [u8; 0];
    static oxen_syscall_stub: [u8; 0];
    static oxen_syscall_entry: [u8; 0];
    static oxen_syscall32_entry: [u8; 0];
    static oxen_sysenter_entry: [u8; 0];
    static oxen_guest_iret: [u8; 0];
    static oxen_guest_iret_user: [u8; 0];
    static oxen_guest_iret_kernel: [u8; 0];
}

/// Addresses of the entry code.
#[derive(Clone, Copy, Debug)]
pub struct Entries {
    /// The page with the stub that each CPU's area shows.
    pub stub_page: u64,
    /// Where the stub goes on after `syscall`.
    pub syscall: u64,
    /// Where the stub goes on after `syscall` from 32-bit code.
    pub syscall32: u64,
    /// Entry of `sysenter`.
    pub sysenter: u64,
}

/// Offset in the stub page of the part for `syscall` from 32-bit code.
pub const SYSCALL32_STUB: u64 = 64;

impl Entries {
    /// The addresses in this image.
    #[must_use]
    pub fn get() -> Self {
        Self {
            stub_page: (&raw const oxen_syscall_stub).addr() as u64,
            syscall: (&raw const oxen_syscall_entry).addr() as u64,
            syscall32: (&raw const oxen_syscall32_entry).addr() as u64,
            sysenter: (&raw const oxen_sysenter_entry).addr() as u64,
        }
    }
}

/// Distance between the entries of two vectors.
const VECTOR_STRIDE: u64 = 16;

/// Fills in the interrupt descriptor table, which all CPUs share.
pub fn write_idt(table: &mut [Gate; 256]) {
    let first = (&raw const oxen_vectors).addr() as u64;
    for (vector, gate) in table.iter_mut().enumerate() {
        let (ist, dpl) = gate_attributes(vector);
        *gate = Gate::new(first + VECTOR_STRIDE * vector as u64, ist, dpl);
    }
}

const DEBUG: u32 = 1;
const NMI: u32 = 2;
const DOUBLE_FAULT: u32 = 8;
const MACHINE_CHECK: u32 = 18;
const FIRST_INTERRUPT: u32 = 32;
/// Trap flag.
const RFLAGS_TF: u64 = 0x100;

/// Everything that arrives in ring 0, and what stays on a stack of its own wherever it arrives.
pub(super) extern "C" fn host_trap(at: *mut GuestFrame) {
    // SAFETY: the entry code has built the frame on the stack and passes it to nobody else.
    let (rip, vector) = unsafe { ((*at).rip, (*at).entry_vector) };
    if is_guest_iret(rip) && !on_own_stack(vector) {
        return_fault(at);
    }
    // SAFETY: as above.
    let frame = unsafe { &mut *at };
    match frame.entry_vector {
        vector @ FIRST_INTERRUPT..=255 => crate::upcall::oxen_host_interrupt(vector as u8),
        DEBUG => ignore_debug(frame),
        NMI => nmi(),
        DOUBLE_FAULT | MACHINE_CHECK => fatal(frame),
        _ => fix_up(frame),
    }
}

/// A debug exception in ring 0 is always a guest's doing: its watchpoint on memory that the hypervisor reads for it, a trap that `mov ss` held back until the
/// system call entry, or TF that `sysenter` leaves set. The hypervisor must not single-step, and has nothing to tell the guest.
fn ignore_debug(frame: &mut GuestFrame) {
    frame.rflags &= !RFLAGS_TF;
    // SAFETY: DR6 only reports; this clears what the guest would otherwise see as its own.
    unsafe { asm!("mov dr6, {}", in(reg) crate::cpu::DR6_CLEAR, options(nomem, nostack, preserves_flags)) };
}

/// NMIs that were nobody's request.
static STRAY_NMIS: AtomicU32 = AtomicU32::new(0);
/// How many of them are reported.
const REPORTED_NMIS: u32 = 8;

/// A non-maskable interrupt: either another CPU writes a fatal report and wants this one to stop, or the platform has something to say that nobody here
/// understands.
fn nmi() {
    crate::smp::stop_if_asked();
    let count = STRAY_NMIS.fetch_add(1, Ordering::Relaxed);
    if count < REPORTED_NMIS {
        crate::log!("{}: non-maskable interrupt without a known reason", percpu::this_cpu());
    }
}

fn fatal(frame: &GuestFrame) -> ! {
    crate::fatal::trap(frame, Some(percpu::this_cpu().0), "")
}

fn fix_up(frame: &mut GuestFrame) {
    match extable::find(frame.rip) {
        Some(fixup) => frame.rip = fixup,
        None => fatal(frame),
    }
}

/// True for the three instructions that return to guests.
fn is_guest_iret(rip: u64) -> bool {
    [&raw const oxen_guest_iret, &raw const oxen_guest_iret_user, &raw const oxen_guest_iret_kernel].iter().any(|at| at.addr() as u64 == rip)
}

/// True for what can arrive at any instruction, whether it faults or not.
const fn on_own_stack(vector: u32) -> bool {
    matches!(vector, DEBUG | NMI | DOUBLE_FAULT | MACHINE_CHECK)
}

/// The `iretq` to a guest faulted: its frame is as the guest's kernel made it. The guest gets the fault as if its own first instruction had raised it, as a
/// general protection fault; a page fault (on its LDT) stays what it is.
///
/// The five words that `iretq` could not use are still at the end of the guest's frame; the registers, which the guest's frame held before, are in the frame
/// of the trap. The two frames overlap: no reference to either may exist.
fn return_fault(trap: *const GuestFrame) -> ! {
    const GENERAL_PROTECTION: u32 = 13;
    const PAGE_FAULT: u32 = 14;
    /// Registers and the word with the error code and the vector.
    const WORDS: usize = core::mem::offset_of!(GuestFrame, rip) / 8;
    let target = percpu::main_frame();
    // SAFETY: both frames are on the main stack, above everything that is still in use: this function does not return.
    unsafe {
        core::ptr::copy(trap.cast::<u64>(), target.cast::<u64>(), WORDS);
        if (*target).entry_vector != PAGE_FAULT {
            (*target).entry_vector = GENERAL_PROTECTION;
        }
        asm!("mov rsp, {frame}", "sub rsp, 8", "jmp oxen_from_guest_again", frame = in(reg) target, options(noreturn));
    }
}
