//! Paravirtual guests: exceptions, callbacks, `iret`, system calls, instruction emulation.

mod bounce;
mod emulate;
mod fast;
mod iret;
mod page_fault;
mod trap;

pub(crate) use bounce::{deliver_nmi, deliver_upcall, failsafe, legacy_syscall, syscall_from_user};
pub(crate) use iret::iret;
pub(crate) use page_fault::quick_table_write;
pub(crate) use trap::{exception, stepped_over_hypercall};

/// RFLAGS bits (Intel SDM vol. 1, "EFLAGS Register").
pub(crate) mod flags {
    pub const FIXED: u64 = 1 << 1;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
}

/// Number of the assist `VMASST_TYPE_architectural_iopl`.
const ASSIST_ARCHITECTURAL_IOPL: u32 = 4;
