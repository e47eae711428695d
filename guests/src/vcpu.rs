//! Bringing up other vCPUs.

use crate::hypercall::{self, Rc};
use crate::mem::{self, PAGE};
use crate::sys::{self, FLAT_CS64, FLAT_SS};
use oxen_abi::arch_x86_64::{VGCF_IN_KERNEL, VGCF_ONLINE};
use crate::{event, trap};
use oxen_abi::vcpu::VcpuOp;

pub use oxen_abi::arch_x86_64::VcpuGuestContext as Context;

/// Context flag: start in kernel mode.
pub const IN_KERNEL: u64 = VGCF_IN_KERNEL;
/// Context flag: the vCPU is online once initialised.
pub const ONLINE: u64 = VGCF_ONLINE;

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
    context.user_regs.cs = FLAT_CS64 as u16;
    context.user_regs.rflags = 0x200;
    // As if called: the stack is off by eight at a function's entry.
    context.user_regs.rsp = stack_top - 8;
    context.user_regs.ss = FLAT_SS as u16;
    context.user_regs.rdi = vcpu as u64;
    // Default x87 control word and SSE control register.
    context.fpu_ctxt[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
    context.fpu_ctxt[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    context.kernel_ss = FLAT_SS;
    context.kernel_sp = stack_top;
    context.ctrlreg[3] = mem::l4_maddr();
    context.event_callback_eip = trap::callback_address(trap::EVENT);
    context.failsafe_callback_eip = trap::callback_address(trap::FAILSAFE);
    context.gs_base_kernel = per_cpu.va();
    trap::fill_table(&mut context.trap_ctxt);
    context
}

/// Starts vCPU `vcpu` in `entry`, with its number as argument.
///
/// # Panics
/// Where the hypervisor refuses.
pub fn start(vcpu: usize, entry: extern "C" fn(u64) -> !) {
    let context = kernel_context(vcpu, entry as *const () as u64);
    let rc = hypercall::vcpu_op(u64::from(VcpuOp::INITIALISE.raw()), vcpu as u64, context);
    assert!(rc.is_ok(), "initialise: {rc}");
    let rc = hypercall::vcpu_op_null(u64::from(VcpuOp::UP.raw()), vcpu as u64);
    assert!(rc.is_ok(), "up: {rc}");
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
