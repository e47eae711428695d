//! Numbers of the PV interface in the width that the hypercall registers have, out of the ABI crate.

use oxen_abi::arch_x86_64 as arch;
use oxen_abi::callback::CallbackType;
use oxen_abi::platform::PlatformCmd;
use oxen_abi::sched::{SchedOp, ShutdownReason};
use oxen_abi::xen::MmuextCmd;

pub use oxen_abi::arch_x86_64::TrapInfo;
pub use oxen_abi::callback::CALLBACKF_MASK_EVENTS;
pub use oxen_abi::xen::{DOMID_IO, DOMID_SELF, DOMID_XEN, MmuUpdate, UVMF_ALL, UVMF_INVLPG, UVMF_TLB_FLUSH};

/// Hypercall numbers, as the register takes them.
pub mod nr {
    #![allow(missing_docs)]
    use oxen_abi::Hypercall as H;

    pub const SET_TRAP_TABLE: u64 = H::SET_TRAP_TABLE.0 as u64;
    pub const MMU_UPDATE: u64 = H::MMU_UPDATE.0 as u64;
    pub const SET_GDT: u64 = H::SET_GDT.0 as u64;
    pub const STACK_SWITCH: u64 = H::STACK_SWITCH.0 as u64;
    pub const SET_CALLBACKS: u64 = H::SET_CALLBACKS.0 as u64;
    pub const FPU_TASKSWITCH: u64 = H::FPU_TASKSWITCH.0 as u64;
    pub const SCHED_OP_COMPAT: u64 = H::SCHED_OP_COMPAT.0 as u64;
    pub const PLATFORM_OP: u64 = H::PLATFORM_OP.0 as u64;
    pub const SET_DEBUGREG: u64 = H::SET_DEBUGREG.0 as u64;
    pub const GET_DEBUGREG: u64 = H::GET_DEBUGREG.0 as u64;
    pub const UPDATE_DESCRIPTOR: u64 = H::UPDATE_DESCRIPTOR.0 as u64;
    pub const MEMORY_OP: u64 = H::MEMORY_OP.0 as u64;
    pub const MULTICALL: u64 = H::MULTICALL.0 as u64;
    pub const UPDATE_VA_MAPPING: u64 = H::UPDATE_VA_MAPPING.0 as u64;
    pub const SET_TIMER_OP: u64 = H::SET_TIMER_OP.0 as u64;
    pub const EVENT_CHANNEL_OP_COMPAT: u64 = H::EVENT_CHANNEL_OP_COMPAT.0 as u64;
    pub const XEN_VERSION: u64 = H::XEN_VERSION.0 as u64;
    pub const CONSOLE_IO: u64 = H::CONSOLE_IO.0 as u64;
    pub const PHYSDEV_OP_COMPAT: u64 = H::PHYSDEV_OP_COMPAT.0 as u64;
    pub const GRANT_TABLE_OP: u64 = H::GRANT_TABLE_OP.0 as u64;
    pub const VM_ASSIST: u64 = H::VM_ASSIST.0 as u64;
    pub const UPDATE_VA_MAPPING_OTHERDOMAIN: u64 = H::UPDATE_VA_MAPPING_OTHERDOMAIN.0 as u64;
    pub const IRET: u64 = H::IRET.0 as u64;
    pub const VCPU_OP: u64 = H::VCPU_OP.0 as u64;
    pub const SET_SEGMENT_BASE: u64 = H::SET_SEGMENT_BASE.0 as u64;
    pub const MMUEXT_OP: u64 = H::MMUEXT_OP.0 as u64;
    pub const NMI_OP: u64 = H::NMI_OP.0 as u64;
    pub const SCHED_OP: u64 = H::SCHED_OP.0 as u64;
    pub const CALLBACK_OP: u64 = H::CALLBACK_OP.0 as u64;
    pub const EVENT_CHANNEL_OP: u64 = H::EVENT_CHANNEL_OP.0 as u64;
    pub const PHYSDEV_OP: u64 = H::PHYSDEV_OP.0 as u64;
    pub const SYSCTL: u64 = H::SYSCTL.0 as u64;
    pub const DOMCTL: u64 = H::DOMCTL.0 as u64;
}

/// Selector of the hypervisor's flat ring-3 64-bit code segment.
pub const FLAT_CS64: u64 = arch::FLAT_RING3_CS64 as u64;
/// Selector of the hypervisor's flat ring-3 32-bit code segment.
pub const FLAT_CS32: u64 = arch::FLAT_RING3_CS32 as u64;
/// Selector of the hypervisor's flat ring-3 data segment.
pub const FLAT_SS: u64 = arch::FLAT_RING3_SS64 as u64;

/// Where a test kernel's pseudo-physical address 0 is mapped.
pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
/// First address of the hypervisor's part of every address space; the machine-to-phys table starts here.
pub const HOLE_START: u64 = arch::HYPERVISOR_VIRT_START;

/// sched_op shutdown.
pub const SCHEDOP_SHUTDOWN: u64 = SchedOp::SHUTDOWN.0 as u64;
/// Shutdown reason: power off.
pub const SHUTDOWN_POWEROFF: u32 = ShutdownReason::POWEROFF.0;
/// platform_op: enter an ACPI sleep state.
pub const PLATFORM_ENTER_ACPI_SLEEP: u32 = PlatformCmd::ENTER_ACPI_SLEEP.0;

/// xen_platform_op: header and the union as words.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PlatformOp {
    /// `XENPF_*`.
    pub cmd: u32,
    /// Interface version.
    pub interface_version: u32,
    /// The union, 128 bytes.
    pub body: [u64; 16],
}

impl PlatformOp {
    /// A request with an all-zero body and the right interface version.
    pub fn new(cmd: u32) -> Self {
        Self { cmd, interface_version: 0x0300_0001, body: [0; 16] }
    }
}

/// callback_op: event upcall.
pub const CALLBACKTYPE_EVENT: u16 = CallbackType::EVENT.0;
/// callback_op: failed selector load.
pub const CALLBACKTYPE_FAILSAFE: u16 = CallbackType::FAILSAFE.0;
/// callback_op: `syscall` from 64-bit user mode.
pub const CALLBACKTYPE_SYSCALL: u16 = CallbackType::SYSCALL.0;
/// callback_op: non-maskable interrupt.
pub const CALLBACKTYPE_NMI: u16 = CallbackType::NMI.0;
/// callback_op: `sysenter` from user mode.
pub const CALLBACKTYPE_SYSENTER: u16 = CallbackType::SYSENTER.0;
/// callback_op: `syscall` from 32-bit user mode.
pub const CALLBACKTYPE_SYSCALL32: u16 = CallbackType::SYSCALL32.0;

/// mmuext_op: pin as L1 table; L2 to L4 follow.
pub const MMUEXT_PIN_L1_TABLE: u32 = MmuextCmd::PIN_L1_TABLE.0;
/// mmuext_op: unpin.
pub const MMUEXT_UNPIN_TABLE: u32 = MmuextCmd::UNPIN_TABLE.0;
/// mmuext_op: switch the kernel's L4.
pub const MMUEXT_NEW_BASEPTR: u32 = MmuextCmd::NEW_BASEPTR.0;
/// mmuext_op: flush this vCPU's TLB.
pub const MMUEXT_TLB_FLUSH_LOCAL: u32 = MmuextCmd::TLB_FLUSH_LOCAL.0;
/// mmuext_op: invalidate one address on this vCPU.
pub const MMUEXT_INVLPG_LOCAL: u32 = MmuextCmd::INVLPG_LOCAL.0;
/// mmuext_op: load an LDT.
pub const MMUEXT_SET_LDT: u32 = MmuextCmd::SET_LDT.0;
/// mmuext_op: switch the user L4.
pub const MMUEXT_NEW_USER_BASEPTR: u32 = MmuextCmd::NEW_USER_BASEPTR.0;
