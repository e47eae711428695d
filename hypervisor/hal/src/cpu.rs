//! The processor that runs the calling code, its address space, and the other processors.

use crate::{GuestFrame, VcpuContext};
use oxen_types::{CpuId, CpuSet, Gva, Maddr, Mfn};

/// Registers and privileged instructions of the calling CPU, and the switch from one vCPU to another.
pub trait CpuOps {
    /// Bytes that a [`crate::FpuArea`] needs on this machine.
    fn fpu_bytes(&self) -> usize;

    /// Saves the live registers of the running vCPU and its general registers `frame` into `context`.
    fn save_context(&self, context: &mut VcpuContext, frame: &GuestFrame);

    /// Loads a vCPU's registers from `context`; the general registers are written to `frame`, from which the exit code restores them. A data
    /// selector that its descriptor table does not allow is loaded as null and reported by `false` (the caller delivers the
    /// guest's failsafe callback). The address space, GDT and LDT are already those of the vCPU.
    fn load_context(&self, context: &VcpuContext, frame: &mut GuestFrame) -> bool;

    /// Exchanges the active and the inactive GS base and takes note of the running guest's other mode: part of every change between guest user and guest
    /// kernel mode.
    fn swap_gs(&self);
    /// True while the running guest is in its kernel mode. The entry code may change the mode by itself ([`CpuOps::set_fast_paths`]).
    fn guest_in_kernel(&self) -> bool;
    /// Lets the entry code serve the most frequent entries of the running vCPU without calling logic, or none with `None`. To be told again
    /// whenever one of the values changes and whenever another vCPU is put on this CPU.
    fn set_fast_paths(&self, paths: Option<&FastPaths>);

    /// Changes one of the values told last, the stack; the others stay as they are.
    fn set_fast_stack(&self, kernel_sp: Gva);
    /// The same for the root of kernel mode.
    fn set_fast_kernel_root(&self, root: Mfn);
    /// The same for the root of user mode.
    fn set_fast_user_root(&self, root: Mfn);

    /// FS base of the running vCPU.
    fn fs_base(&self) -> u64;
    /// Sets the FS base; the value is canonical.
    fn set_fs_base(&self, base: u64);
    /// Active GS base.
    fn gs_base(&self) -> u64;
    /// Sets the active GS base; the value is canonical.
    fn set_gs_base(&self, base: u64);
    /// Inactive GS base.
    fn inactive_gs_base(&self) -> u64;
    /// Sets the inactive GS base; the value is canonical.
    fn set_inactive_gs_base(&self, base: u64);
    /// Loads the selector into GS as the guest's user mode would see it, leaving the active base alone; a selector that cannot be loaded becomes null.
    fn load_user_gs_selector(&self, selector: u16);
    /// The data selectors ds, es, fs, gs as they are now.
    fn data_selectors(&self) -> [u16; 4];
    /// Loads null into ds, es, fs and gs (before a failsafe callback).
    fn clear_data_selectors(&self);

    /// Sets or clears CR0.TS.
    fn set_task_switched(&self, set: bool);
    /// Switches supervisor-mode access prevention off on this CPU; says whether it was on. For a processor that applies it to user mode, as
    /// QEMU's emulation did before version 8: such a one faults on a guest's own `iretq`.
    fn give_up_smap(&self) -> bool;
    /// Makes the guest-chosen bits of CR4 (TSD, DE, FSGSBASE, OSXSAVE) those of `bits`.
    fn set_guest_cr4(&self, bits: u64);
    /// The address that the page fault just taken could not access (CR2).
    fn fault_address(&self) -> Gva;
    /// CR0 as the processor has it.
    fn cr0(&self) -> u64;
    /// CR4 as the processor has it.
    fn cr4(&self) -> u64;
    /// Loads a debug register (0 to 3, 6, 7); the value has been checked.
    fn set_debug_register(&self, number: usize, value: u64);
    /// Reads a debug register.
    fn debug_register(&self, number: usize) -> u64;
    /// Extended control register 0 that the running vCPU sees.
    fn xcr0(&self) -> u64;
    /// Sets it; the value has been checked against the machine's features.
    fn set_xcr0(&self, value: u64);

    /// The processor's answer to CPUID: eax, ebx, ecx, edx.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Reads a model-specific register; `None` where the processor refuses.
    fn rdmsr(&self, msr: u32) -> Option<u64>;
    /// Writes a model-specific register; `false` where the processor refuses.
    fn wrmsr(&self, msr: u32, value: u64) -> bool;
    /// Reads an I/O port; `bytes` is 1, 2 or 4.
    fn port_in(&self, port: u16, bytes: u8) -> u32;
    /// Writes an I/O port; `bytes` is 1, 2 or 4.
    fn port_out(&self, port: u16, bytes: u8, value: u32);
    /// Writes back and invalidates the caches of this CPU.
    fn wbinvd(&self);
}

/// What the entry code needs to serve these entries of the running vCPU by itself, as the PV interface describes them: `syscall` and page faults in user mode
/// (entered with upcalls masked, in a guest without virtual I/O privilege), and the hypercall `iret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPaths {
    /// Root of the page tables for kernel mode.
    pub kernel_root: Mfn,
    /// Root of the page tables for user mode.
    pub user_root: Mfn,
    /// Stack for entries from user mode.
    pub kernel_sp: Gva,
    /// The guest's callback for `syscall`.
    pub syscall: Gva,
    /// The guest's handler for page faults.
    pub page_fault: Gva,
    /// Machine address of the vCPU's `vcpu_info`, in a frame that stays the guest's.
    pub info: Maddr,
}

/// The address space and descriptor tables of the calling CPU.
pub trait AddressSpace {
    /// Loads a guest's root page table, which carries the hypervisor's slots. With `flush_global` also the translations marked global
    /// are dropped (needed when the new root belongs to another guest process); without, they stay (kernel and user root of one process).
    fn load_root(&self, root: Mfn, flush_global: bool);

    /// Loads the hypervisor's own root, for the idle loop.
    fn load_idle_root(&self);

    /// The hypervisor's entries (PML4 slots 256 to 271) that every guest root must carry: slot 256 + `index`, for `index` 0 to 15.
    fn hypervisor_slot(&self, index: usize) -> u64;

    /// Makes `frames` the guest part of this CPU's GDT: page `i` holds entries `512 * i` and up; missing pages read as absent descriptors.
    fn set_guest_gdt(&self, frames: &[Mfn]);

    /// Makes the LDT that of a guest with `entries` descriptors (at most 8192; 0 for none), with no page of it mapped yet.
    fn set_guest_ldt(&self, entries: u32);

    /// Maps page `index` (0 to 15) of the guest's LDT.
    fn map_ldt_page(&self, index: usize, frame: Mfn);

    /// Where a faulting address lies in the window through which the guest's LDT is seen, its byte offset in the LDT.
    fn ldt_offset(&self, fault: Gva) -> Option<u64>;

    /// Drops this CPU's translation of one address.
    fn flush_page_local(&self, va: Gva);

    /// Drops this CPU's translations.
    fn flush_local(&self, scope: FlushScope);

    /// Drops translations on all CPUs of `cpus` (the calling one included where it is a member) and returns when every one has done it.
    fn flush_remote(&self, cpus: &CpuSet, scope: FlushScope);

    /// Counts every full flush that any CPU does; starts at 1. A frame stamped with the value at its last unmapping is out of a CPU's TLB
    /// once [`AddressSpace::last_flush`] of that CPU is greater.
    fn flush_clock(&self) -> u32;

    /// The value of the flush clock at `cpu`'s last full flush.
    fn last_flush(&self, cpu: CpuId) -> u32;
}

/// How much a TLB flush drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushScope {
    /// The translation of one address, in every mode.
    Page(Gva),
    /// Everything that the guest's tables gave, global translations included.
    All,
}

/// The other processors.
pub trait Processors {
    /// The calling CPU's number.
    fn this_cpu(&self) -> CpuId;

    /// The CPUs that run.
    fn online(&self) -> &CpuSet;

    /// Makes `cpu` leave its guest or its idle loop and look at its pending work soon.
    fn kick(&self, cpu: CpuId);

    /// Waits for an interrupt with interrupts enabled, unless work is already pending; returns with interrupts disabled. Only the idle loop calls it.
    fn wait_for_interrupt(&self);

    /// Identity of `cpu`: (APIC id, ACPI processor id).
    fn cpu_identity(&self, cpu: CpuId) -> Option<(u32, u32)>;

    /// (core, socket, node) of `cpu` for the topology that tools show.
    fn topology(&self, cpu: CpuId) -> Option<(u32, u32, u32)>;
}
