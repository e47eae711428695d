//! The traits that hardware implements.
//!
//! Logic (`mm`, `emul`, `core`) is generic over one parameter, [`Machine`], the bundle of all traits here. The crate `machine` implements
//! them on the real processor, `testkit` on the host for tests. All methods take `&self`: the implementation keeps its own per-CPU state
//! and acts on the CPU that calls, unless the name says otherwise. Maskable interrupts are off whenever logic runs.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod context;
mod cpu;
mod frame;
mod guest;
mod interrupt;
mod memory;
mod platform;

pub use context::{FpuArea, GuestFrame, QUICK_NOT_DONE, VECTOR_DONE, VECTOR_HYPERCALL, VECTOR_SYSCALL32, VECTOR_SYSENTER, VcpuContext};
pub use cpu::{AddressSpace, CpuOps, FastPaths, FlushScope, Processors};
pub use frame::FrameMeta;
pub use guest::GuestMemory;
pub use interrupt::{Arrived, Interrupts, IrqLine, LinePolarity, LineTrigger, MsiMessage, PhysIrq};
pub use memory::{Frames, MemoryKind, MemoryRange};
pub use platform::{Clock, Console, PciAddress, Platform, PowerAction, WallClock};

/// Everything that logic may ask of the machine.
pub trait Machine:
    Frames + GuestMemory + CpuOps + AddressSpace + Processors + Clock + Interrupts + Console + Platform + Send + Sync + 'static
{
}

impl<T> Machine for T where
    T: Frames + GuestMemory + CpuOps + AddressSpace + Processors + Clock + Interrupts + Console + Platform + Send + Sync + 'static
{
}
