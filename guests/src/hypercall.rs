//! Hypercalls: the instruction, and a wrapper for each call that more than one kernel makes.
//!
//! Every wrapper returns what the hypervisor left in rax: zero or a count, or a negated error number.

use crate::sys::{self, nr};
use core::arch::asm;
use core::fmt;
use core::ffi::c_void;
use oxen_abi::Errno;
use oxen_abi::callback::{CallbackRegister, CallbackType};
use oxen_abi::xen::{MmuextCmd, MmuextOp};

/// Issues hypercall `number` with up to five arguments by a direct `syscall`.
#[inline(always)]
pub fn raw(number: u64, args: [u64; 5]) -> i64 {
    let result: i64;
    // SAFETY: see the crate's notes on unsafe code; the clobbers are those of the calling convention (argument registers, rcx, r11).
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as i64 => result,
            inlateout("rdi") args[0] => _,
            inlateout("rsi") args[1] => _,
            inlateout("rdx") args[2] => _,
            inlateout("r10") args[3] => _,
            inlateout("r8") args[4] => _,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// Address of a value, as a guest handle.
pub fn handle<T: ?Sized>(value: &mut T) -> u64 {
    core::ptr::from_mut(value).cast::<c_void>() as u64
}

/// Result of a hypercall, printed by name when it is an error (`-EINVAL`) and as a number otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rc(pub i64);

impl fmt::Display for Rc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.checked_neg().and_then(Errno::from_raw) {
            Some(error) => write!(f, "-{}", error.name()),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Rc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Rc {
    /// Whether the call returned zero.
    pub fn is_ok(self) -> bool {
        self.0 == 0
    }
}

/// set_trap_table: registers `traps`, which must end in an all-zero entry.
pub fn set_trap_table(traps: &mut [sys::TrapInfo]) -> Rc {
    Rc(raw(nr::SET_TRAP_TABLE, [handle(traps), 0, 0, 0, 0]))
}

/// stack_switch: the stack on which the guest kernel is entered from its user mode.
pub fn stack_switch(ss: u64, rsp: u64) -> Rc {
    Rc(raw(nr::STACK_SWITCH, [ss, rsp, 0, 0, 0]))
}

/// callback_op register.
pub fn register_callback(kind: u16, flags: u16, address: u64) -> Rc {
    let mut arg = CallbackRegister { kind: CallbackType(kind), flags, address, ..CallbackRegister::default() };
    Rc(raw(nr::CALLBACK_OP, [0, handle(&mut arg), 0, 0, 0]))
}

/// mmu_update on the caller's own tables; returns the result and how many requests were done.
pub fn mmu_update(requests: &mut [sys::MmuUpdate]) -> (Rc, u32) {
    mmu_update_foreign(requests, sys::DOMID_SELF as u64)
}

/// mmu_update with an explicit word of domain identifiers.
pub fn mmu_update_foreign(requests: &mut [sys::MmuUpdate], domains: u64) -> (Rc, u32) {
    let mut done = 0_u32;
    let count = requests.len() as u64;
    let result = raw(nr::MMU_UPDATE, [handle(requests), count, handle(&mut done), domains, 0]);
    (Rc(result), done)
}

/// One mmu_update request: writes `value` to the entry at machine address `entry`.
pub fn write_pte(entry: u64, value: u64) -> Rc {
    mmu_update(&mut [sys::MmuUpdate { ptr: entry, val: value }]).0
}

/// update_va_mapping with `flags` of the `UVMF_*` set.
pub fn update_va_mapping(va: u64, pte: u64, flags: u64) -> Rc {
    Rc(raw(nr::UPDATE_VA_MAPPING, [va, pte, flags, 0, 0]))
}

/// A single mmuext_op.
pub fn mmuext(cmd: u32, arg1: u64, arg2: u64) -> Rc {
    mmuext_foreign(cmd, arg1, arg2, sys::DOMID_SELF as u64)
}

/// A single mmuext_op about the tables of domain `domid`.
pub fn mmuext_foreign(cmd: u32, arg1: u64, arg2: u64, domid: u64) -> Rc {
    let mut op = MmuextOp { cmd: MmuextCmd(cmd), arg1, arg2, ..MmuextOp::default() };
    Rc(raw(nr::MMUEXT_OP, [handle(&mut op), 1, 0, domid, 0]))
}

/// event_channel_op.
pub fn event_channel_op<T>(cmd: u64, arg: &mut T) -> Rc {
    Rc(raw(nr::EVENT_CHANNEL_OP, [cmd, handle(arg), 0, 0, 0]))
}

/// sched_op.
pub fn sched_op<T>(cmd: u64, arg: &mut T) -> Rc {
    Rc(raw(nr::SCHED_OP, [cmd, handle(arg), 0, 0, 0]))
}

/// vcpu_op with an argument structure.
pub fn vcpu_op<T>(cmd: u64, vcpu: u64, arg: &mut T) -> Rc {
    Rc(raw(nr::VCPU_OP, [cmd, vcpu, handle(arg), 0, 0]))
}

/// vcpu_op without argument.
pub fn vcpu_op_null(cmd: u64, vcpu: u64) -> Rc {
    Rc(raw(nr::VCPU_OP, [cmd, vcpu, 0, 0, 0]))
}

/// memory_op.
pub fn memory_op<T>(cmd: u64, arg: &mut T) -> Rc {
    Rc(raw(nr::MEMORY_OP, [cmd, handle(arg), 0, 0, 0]))
}

/// xen_version.
pub fn xen_version<T>(cmd: u64, arg: &mut T) -> Rc {
    Rc(raw(nr::XEN_VERSION, [cmd, handle(arg), 0, 0, 0]))
}

/// physdev_op.
pub fn physdev_op<T>(cmd: u64, arg: &mut T) -> Rc {
    Rc(raw(nr::PHYSDEV_OP, [cmd, handle(arg), 0, 0, 0]))
}

/// vm_assist.
pub fn vm_assist(cmd: u64, kind: u64) -> Rc {
    Rc(raw(nr::VM_ASSIST, [cmd, kind, 0, 0, 0]))
}

/// set_timer_op: one-shot VIRQ_TIMER at `deadline_ns` of system time; 0 cancels.
pub fn set_timer_op(deadline_ns: u64) -> Rc {
    Rc(raw(nr::SET_TIMER_OP, [deadline_ns, 0, 0, 0, 0]))
}
