//! Bringing up other vCPUs.

use crate::hypercall::{self, Rc};
use crate::mem::{self, PAGE};
use crate::sys::{self, FLAT_CS64, FLAT_SS};
use crate::{event, trap};

/// cpu_user_regs (arch-x86/xen-x86_64.h).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct UserRegs {
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
    pub error_code: u32,
    pub entry_vector: u32,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub es: u64,
    pub ds: u64,
    pub fs: u64,
    pub gs: u64,
}

/// vcpu_guest_context (arch-x86/xen.h).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Context {
    pub fpu: [u64; 64],
    pub flags: u64,
    pub user_regs: UserRegs,
    pub trap_ctxt: [sys::TrapInfo; 256],
    pub ldt_base: u64,
    pub ldt_ents: u64,
    pub gdt_frames: [u64; 16],
    pub gdt_ents: u64,
    pub kernel_ss: u64,
    pub kernel_sp: u64,
    pub ctrlreg: [u64; 8],
    pub debugreg: [u64; 8],
    pub event_callback_eip: u64,
    pub failsafe_callback_eip: u64,
    pub syscall_callback_eip: u64,
    pub vm_assist: u64,
    pub fs_base: u64,
    pub gs_base_kernel: u64,
    pub gs_base_user: u64,
}

const _: () = assert!(size_of::<Context>() == 5168);

/// Context flag: start in kernel mode.
pub const IN_KERNEL: u64 = 4;
/// Context flag: the vCPU is online once initialised.
pub const ONLINE: u64 = 32;

/// Bytes of a secondary's stack, in pages.
const STACK_PAGES: usize = 4;

/// A context that calls `entry` with the number of the vCPU, on a new stack, in the current address space, with this kernel's trap
/// handlers; gs:0 holds the number too.
pub fn kernel_context(vcpu: usize, entry: u64) -> &'static mut Context {
    let page = mem::alloc_pages(2);
    let stack = mem::alloc_pages(STACK_PAGES);
    let stack_top = stack.va() + STACK_PAGES as u64 * PAGE;
    let per_cpu = mem::alloc_page();
    per_cpu.write(0, vcpu as u64);
    // SAFETY: two fresh zeroed pages are large enough for a context, for which all-zero is valid; nobody else has them.
    let context = unsafe { &mut *(page.va() as *mut Context) };
    context.flags = IN_KERNEL;
    context.user_regs.rip = entry;
    context.user_regs.cs = FLAT_CS64;
    context.user_regs.rflags = 0x200;
    // As if called: the stack is off by eight at a function's entry.
    context.user_regs.rsp = stack_top - 8;
    context.user_regs.ss = FLAT_SS;
    context.user_regs.rdi = vcpu as u64;
    // Default x87 control word and SSE control register.
    context.fpu[0] = 0x37f;
    context.fpu[3] = 0x1f80;
    context.kernel_ss = FLAT_SS;
    context.kernel_sp = stack_top;
    context.ctrlreg[3] = mem::l4_maddr();
    context.event_callback_eip = trap::callback_address(trap::EVENT);
    context.failsafe_callback_eip = trap::callback_address(trap::FAILSAFE);
    context.gs_base_kernel = per_cpu.va();
    trap::fill_table(&mut context.trap_ctxt);
    context
}

/// Makes gs:0 hold `vcpu` on the calling vCPU, so that upcalls know where they run.
pub fn install_number(vcpu: usize) -> Rc {
    let per_cpu = mem::alloc_page();
    per_cpu.write(0, vcpu as u64);
    // SEGBASE_GS_KERNEL.
    let rc = Rc(hypercall::raw(sys::nr::SET_SEGMENT_BASE, [2, per_cpu.va(), 0, 0, 0]));
    event::vcpu_number_is_in_gs();
    rc
}
