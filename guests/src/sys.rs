//! Numbers and structures of the PV interface, from Xen's public headers.

/// Hypercall numbers (xen.h).
pub mod nr {
    #![allow(missing_docs)]
    pub const SET_TRAP_TABLE: u64 = 0;
    pub const MMU_UPDATE: u64 = 1;
    pub const SET_GDT: u64 = 2;
    pub const STACK_SWITCH: u64 = 3;
    pub const SET_CALLBACKS: u64 = 4;
    pub const FPU_TASKSWITCH: u64 = 5;
    pub const SCHED_OP_COMPAT: u64 = 6;
    pub const PLATFORM_OP: u64 = 7;
    pub const SET_DEBUGREG: u64 = 8;
    pub const GET_DEBUGREG: u64 = 9;
    pub const UPDATE_DESCRIPTOR: u64 = 10;
    pub const MEMORY_OP: u64 = 12;
    pub const MULTICALL: u64 = 13;
    pub const UPDATE_VA_MAPPING: u64 = 14;
    pub const SET_TIMER_OP: u64 = 15;
    pub const EVENT_CHANNEL_OP_COMPAT: u64 = 16;
    pub const XEN_VERSION: u64 = 17;
    pub const CONSOLE_IO: u64 = 18;
    pub const PHYSDEV_OP_COMPAT: u64 = 19;
    pub const GRANT_TABLE_OP: u64 = 20;
    pub const VM_ASSIST: u64 = 21;
    pub const UPDATE_VA_MAPPING_OTHERDOMAIN: u64 = 22;
    pub const IRET: u64 = 23;
    pub const VCPU_OP: u64 = 24;
    pub const SET_SEGMENT_BASE: u64 = 25;
    pub const MMUEXT_OP: u64 = 26;
    pub const NMI_OP: u64 = 28;
    pub const SCHED_OP: u64 = 29;
    pub const CALLBACK_OP: u64 = 30;
    pub const EVENT_CHANNEL_OP: u64 = 32;
    pub const PHYSDEV_OP: u64 = 33;
    pub const SYSCTL: u64 = 35;
    pub const DOMCTL: u64 = 36;
}

/// Error numbers and their names (errno.h).
pub const ERROR_NAMES: &[(i64, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (9, "EBADF"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (19, "ENODEV"),
    (22, "EINVAL"),
    (28, "ENOSPC"),
    (33, "EDOM"),
    (34, "ERANGE"),
    (38, "ENOSYS"),
    (61, "ENODATA"),
    (62, "ETIME"),
    (75, "EOVERFLOW"),
    (85, "ERESTART"),
    (95, "EOPNOTSUPP"),
    (105, "ENOBUFS"),
];

/// Calling domain.
pub const DOMID_SELF: u16 = 0x7ff0;
/// Owner of I/O memory.
pub const DOMID_IO: u16 = 0x7ff1;
/// The hypervisor's shared pages.
pub const DOMID_XEN: u16 = 0x7ff2;

/// Selector of the hypervisor's flat ring-3 64-bit code segment.
pub const FLAT_CS64: u64 = 0xe033;
/// Selector of the hypervisor's flat ring-3 32-bit code segment.
pub const FLAT_CS32: u64 = 0xe023;
/// Selector of the hypervisor's flat ring-3 data segment.
pub const FLAT_SS: u64 = 0xe02b;

/// Where a test kernel's pseudo-physical address 0 is mapped.
pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
/// First address of the hypervisor's part of every address space; the machine-to-phys table starts here.
pub const HOLE_START: u64 = 0xffff_8000_0000_0000;

/// sched_op shutdown.
pub const SCHEDOP_SHUTDOWN: u64 = 2;
/// Shutdown reason: power off.
pub const SHUTDOWN_POWEROFF: u32 = 0;
/// platform_op: enter an ACPI sleep state.
pub const PLATFORM_ENTER_ACPI_SLEEP: u32 = 51;

/// update_va_mapping: invalidate the local TLB entry.
pub const UVMF_INVLPG: u64 = 2;
/// update_va_mapping: flush the local TLB.
pub const UVMF_TLB_FLUSH: u64 = 1;
/// update_va_mapping: act on all vCPUs.
pub const UVMF_ALL: u64 = 4;

/// trap_info: one exception vector.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TrapInfo {
    /// Exception vector.
    pub vector: u8,
    /// Bits 0 and 1: privilege level from which `int n` may raise it; bit 2: mask events on entry.
    pub flags: u8,
    /// Code selector of the handler.
    pub cs: u16,
    /// Padding.
    pub pad: u32,
    /// Address of the handler; 0 ends the table.
    pub address: u64,
}

/// callback_register.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CallbackRegister {
    /// `CALLBACKTYPE_*`.
    pub kind: u16,
    /// `CALLBACKF_*`.
    pub flags: u16,
    /// Padding.
    pub pad: u32,
    /// Handler.
    pub address: u64,
}

/// mmu_update request.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MmuUpdate {
    /// Machine address of the entry; the low two bits select the kind of update.
    pub ptr: u64,
    /// New entry.
    pub val: u64,
}

/// mmuext_op request.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MmuextOp {
    /// `MMUEXT_*`.
    pub cmd: u32,
    /// Padding.
    pub pad: u32,
    /// Frame number or linear address.
    pub arg1: u64,
    /// Number of entries, handle of a vCPU mask, or source frame.
    pub arg2: u64,
}

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
pub const CALLBACKTYPE_EVENT: u16 = 0;
/// callback_op: failed selector load.
pub const CALLBACKTYPE_FAILSAFE: u16 = 1;
/// callback_op: `syscall` from 64-bit user mode.
pub const CALLBACKTYPE_SYSCALL: u16 = 2;
/// callback_op: non-maskable interrupt.
pub const CALLBACKTYPE_NMI: u16 = 4;
/// callback_op: `sysenter` from user mode.
pub const CALLBACKTYPE_SYSENTER: u16 = 5;
/// callback_op: `syscall` from 32-bit user mode.
pub const CALLBACKTYPE_SYSCALL32: u16 = 7;
/// callback_op flag: events are masked on entry.
pub const CALLBACKF_MASK_EVENTS: u16 = 1;

/// mmuext_op: pin as L1 table; L2 to L4 follow.
pub const MMUEXT_PIN_L1_TABLE: u32 = 0;
/// mmuext_op: unpin.
pub const MMUEXT_UNPIN_TABLE: u32 = 4;
/// mmuext_op: switch the kernel's L4.
pub const MMUEXT_NEW_BASEPTR: u32 = 5;
/// mmuext_op: flush this vCPU's TLB.
pub const MMUEXT_TLB_FLUSH_LOCAL: u32 = 6;
/// mmuext_op: invalidate one address on this vCPU.
pub const MMUEXT_INVLPG_LOCAL: u32 = 7;
/// mmuext_op: load an LDT.
pub const MMUEXT_SET_LDT: u32 = 13;
/// mmuext_op: switch the user L4.
pub const MMUEXT_NEW_USER_BASEPTR: u32 = 15;
