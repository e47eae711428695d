//! Entries from guests, traps, and the way back.
//!
//! The hypervisor runs with maskable interrupts off and never touches GS, so an entry needs no `swapgs` and can be interrupted at any
//! instruction only by an NMI, a machine check or a held-back debug exception, all of which have stacks of their own.

mod extable;
pub(crate) mod smap;
mod trap;

pub(crate) use extable::ex_table;
pub(crate) use trap::{Entries, SYSCALL32_STUB, write_idt};

use crate::descriptors::{USER_CS32, USER_CS64, USER_DS};
use crate::percpu::{self, Fast, MAIN_STACK_TOP, PerCpu};
use crate::upcall;
use core::mem::offset_of;
use oxen_hal::{GuestFrame, QUICK_NOT_DONE, VECTOR_DONE, VECTOR_HYPERCALL, VECTOR_SYSCALL32, VECTOR_SYSENTER};
use oxen_types::{CpuId, HYPERVISOR_VIRT_END};

/// Trap flag and resume flag.
const TF_RF: u32 = 0x1_0100;

/// Number of the hypercall `iret` (public header `xen.h`).
const HYPERCALL_IRET: u32 = 23;
/// Numbers of the hypercalls that `quick.s` knows.
const MMU_UPDATE: u32 = 1;
const STACK_SWITCH: u32 = 3;
const FPU_TASKSWITCH: u32 = 5;
const UPDATE_VA_MAPPING: u32 = 14;
const XEN_VERSION: u32 = 17;
const SET_SEGMENT_BASE: u32 = 25;
const MMUEXT_OP: u32 = 26;

/// Error code of a write in ring 3 to a page that is there (Intel SDM vol. 3, "Page-Fault Exception").
const WRITE_TO_PRESENT: u32 = 0b111;

/// `VGCF_in_syscall` (public header `arch-x86/xen-x86_64.h`): rcx and r11 are not in the frame of `iret`.
const IN_SYSCALL: u32 = 1 << 8;

const FLAG_TF: i32 = 1 << 8;
const FLAG_IF: i32 = 1 << 9;
const FLAG_DF: i32 = 1 << 10;
const FLAG_IOPL: i32 = 3 << 12;
const FLAG_NT: i32 = 1 << 14;
const FLAG_RF: i32 = 1 << 16;
const FLAG_VM: i32 = 1 << 17;
const FLAG_AC: i32 = 1 << 18;
const FLAG_VIF_VIP: i32 = 3 << 19;

/// Distance from the end of the main stack to a field of [`Fast`].
const fn fast_offset(field: usize) -> i64 {
    percpu::DATA as i64 + (offset_of!(PerCpu, fast) + field) as i64 - MAIN_STACK_TOP as i64
}

core::arch::global_asm!(
    concat!(include_str!("entry.s"), include_str!("fast.s"), include_str!("quick.s")),
    MAIN_STACK_TOP = const MAIN_STACK_TOP,
    STRIDE = const crate::layout::PER_CPU_STRIDE,
    SYSCALL_ENTRY = const percpu::DATA + offset_of!(PerCpu, syscall_entry) as u64,
    SYSCALL32_ENTRY = const percpu::DATA + offset_of!(PerCpu, syscall32_entry) as u64,
    USER_DS = const USER_DS,
    USER_CS64 = const USER_CS64,
    USER_CS32 = const USER_CS32,
    VECTOR_HYPERCALL = const VECTOR_HYPERCALL,
    VECTOR_SYSCALL32 = const VECTOR_SYSCALL32,
    VECTOR_SYSENTER = const VECTOR_SYSENTER,
    TF_RF = const TF_RF,
    TO_MODE = const fast_offset(offset_of!(Fast, mode)),
    TO_KERNEL_CR3 = const fast_offset(offset_of!(Fast, kernel_cr3)),
    TO_USER_CR3 = const fast_offset(offset_of!(Fast, user_cr3)),
    TO_SYSCALL_FRAME = const fast_offset(offset_of!(Fast, syscall_frame)),
    TO_FAULT_FRAME = const fast_offset(offset_of!(Fast, fault_frame)),
    TO_SYSCALL = const fast_offset(offset_of!(Fast, syscall)),
    TO_PAGE_FAULT = const fast_offset(offset_of!(Fast, page_fault)),
    TO_UPCALL_MASK = const fast_offset(offset_of!(Fast, upcall_mask)),
    KERNEL_KEEPS = const !(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC),
    SYSCALL_KEEPS = const !(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | FLAG_DF),
    IRET_REFUSES = const FLAG_IOPL | FLAG_NT | FLAG_VM | FLAG_VIF_VIP,
    IN_SYSCALL_BYTE_1 = const IN_SYSCALL >> 8,
    FLAG_IF = const FLAG_IF,
    HYPERCALL_IRET = const HYPERCALL_IRET,
    MINUS_HYPERVISOR_END = const HYPERVISOR_VIRT_END.wrapping_neg(),
    GUEST_SPAN = const crate::guest::GUEST_SPAN >> crate::guest::SPAN_SHIFT,
    GUEST_SPAN_SHIFT = const crate::guest::SPAN_SHIFT,
    VECTOR_DONE = const VECTOR_DONE,
    QUICK_NOT_DONE = const QUICK_NOT_DONE,
    MMU_UPDATE = const MMU_UPDATE,
    STACK_SWITCH = const STACK_SWITCH,
    FPU_TASKSWITCH = const FPU_TASKSWITCH,
    UPDATE_VA_MAPPING = const UPDATE_VA_MAPPING,
    XEN_VERSION = const XEN_VERSION,
    SET_SEGMENT_BASE = const SET_SEGMENT_BASE,
    MMUEXT_OP = const MMUEXT_OP,
    WRITE_TO_PRESENT = const WRITE_TO_PRESENT,
    PAGE_FAULT_USER = const 4,
    CR2_FROM_MASK = const 15,
    guest_entry = sym guest_entry,
    quick_mmu_update = sym upcall::oxen_quick_mmu_update,
    quick_stack_switch = sym upcall::oxen_quick_stack_switch,
    quick_fpu_taskswitch = sym upcall::oxen_quick_fpu_taskswitch,
    quick_update_va_mapping = sym upcall::oxen_quick_update_va_mapping,
    quick_xen_version = sym upcall::oxen_quick_xen_version,
    quick_set_segment_base = sym upcall::oxen_quick_set_segment_base,
    quick_mmuext_op = sym upcall::oxen_quick_mmuext_op,
    quick_write_fault = sym upcall::oxen_quick_write_fault,
    host_trap = sym trap::host_trap,
);

// The assembly names these offsets itself.
const _: () = assert!(
    offset_of!(GuestFrame, r15) == 0
        && offset_of!(GuestFrame, rbp) == 32
        && offset_of!(GuestFrame, r11) == 48
        && offset_of!(GuestFrame, rax) == 80
        && offset_of!(GuestFrame, rcx) == 88
        && offset_of!(GuestFrame, rdi) == 112
        && offset_of!(GuestFrame, error_code) == 120
        && offset_of!(GuestFrame, entry_vector) == 124
        && offset_of!(GuestFrame, rip) == 128
        && offset_of!(GuestFrame, rsp) == 152
        && offset_of!(GuestFrame, ss) == 160
);

extern "C" fn guest_entry(frame: &mut GuestFrame) {
    upcall::oxen_from_guest(frame);
}

/// Resumes the guest described by `frame`, on a main stack that is empty but for it. Used once on each CPU, to start its first guest; later ones are
/// started by exchanging the contents of the frame that the upcall gets.
pub fn enter_guest(frame: &GuestFrame) -> ! {
    let target = percpu::main_frame();
    // SAFETY: the top of the main stack is reserved for this frame and nothing else lies there (`percpu::MAIN_STACK_START`); the exit code expects
    // exactly this state.
    unsafe {
        core::ptr::copy(frame, target, 1);
        core::arch::asm!("mov rsp, {frame}", "sub rsp, 8", "jmp oxen_exit", frame = in(reg) target, options(noreturn));
    }
}

/// Takes the calling CPU to the beginning of its main stack, which holds nothing that is needed any more, and calls `f` there.
pub fn idle_on_main_stack(f: fn() -> !) -> ! {
    let stack = percpu::area() + percpu::MAIN_STACK_START;
    // SAFETY: the caller's frames are given up: this function does not return. The stack is mapped and aligned.
    unsafe {
        core::arch::asm!("mov rsp, {stack}", "xor ebp, ebp", "call {f}", "ud2", stack = in(reg) stack, f = in(reg) f, options(noreturn));
    }
}

/// Takes the boot CPU from the stack that it started on to the beginning of its main stack and calls `f` with `value` there.
///
/// # Panics
/// Where the CPU runs on a stack of its area already.
pub(crate) fn begin_on_main_stack<T>(value: T, f: fn(T) -> !) -> ! {
    #[allow(improper_ctypes_definitions)]
    extern "C" fn begin<T>(value: *mut T, f: fn(T) -> !) -> ! {
        // SAFETY: the caller below has put the value there and given it up.
        f(unsafe { value.read() })
    }
    assert!(!percpu::on_own_stack(), "the main stack is in use");
    let place = (percpu::main_stack(CpuId(0)) - size_of::<T>() as u64) & !(align_of::<T>().max(16) as u64 - 1);
    let place = place as *mut T;
    // SAFETY: the main stack is mapped and nobody uses it yet. The caller's frames are given up: this function does not return.
    unsafe {
        place.write(value);
        core::arch::asm!("mov rsp, {place}", "xor ebp, ebp", "call {begin}", "ud2", place = in(reg) place, begin = sym begin::<T>,
                         in("rdi") place, in("rsi") f, options(noreturn));
    }
}
