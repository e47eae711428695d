//! `arch-x86/xen.h` and `arch-x86/xen-x86_64.h`: register frames, selectors and the address-space split.

/// Number of vectors in a PV guest's trap table.
pub const NR_TRAP_VECTORS: usize = 256;

/// The bytes that, before `cpuid`, ask a PV guest's hypervisor for the filtered view: `ud2` and "xen" (`XEN_EMULATE_PREFIX`).
pub const EMULATE_PREFIX: [u8; 5] = [0x0f, 0x0b, 0x78, 0x65, 0x6e];

abi_consts! {
    /// GDT page from which the hypervisor's own entries start.
    pub const FIRST_RESERVED_GDT_PAGE: u32 = 14;
    /// Byte offset of the first reserved GDT entry.
    pub const FIRST_RESERVED_GDT_BYTE: u32 = 14 * 4096;
    /// Number of the first reserved GDT entry; guests have those below.
    pub const FIRST_RESERVED_GDT_ENTRY: u32 = 7168;

    /// Selector: ring 3, 32-bit code.
    pub const FLAT_RING3_CS32: u16 = 0xe023;
    /// Selector: ring 3, data and stack.
    pub const FLAT_RING3_DS32: u16 = 0xe02b;
    /// Selector: ring 3, 64-bit code.
    pub const FLAT_RING3_CS64: u16 = 0xe033;
    /// Selector: ring 3, 64-bit stack.
    pub const FLAT_RING3_SS64: u16 = 0xe02b;
    /// Selector: 64-bit data, the null selector.
    pub const FLAT_RING3_DS64: u16 = 0;
    /// Selector of a PV kernel's code.
    pub const FLAT_KERNEL_CS: u16 = 0xe033;
    /// Selector of a PV kernel's data.
    pub const FLAT_KERNEL_DS: u16 = 0;
    /// Selector of a PV kernel's stack.
    pub const FLAT_KERNEL_SS: u16 = 0xe02b;

    /// First address of the hypervisor's part of every PV address space.
    pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
    /// First address after it.
    pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;
    /// Address of the M2P.
    pub const MACH2PHYS_VIRT_START: u64 = 0xffff_8000_0000_0000;
    /// First address after the M2P.
    pub const MACH2PHYS_VIRT_END: u64 = 0xffff_8040_0000_0000;
    /// Number of M2P entries that fit.
    pub const MACH2PHYS_NR_ENTRIES: u64 = 1 << 35;

    /// `set_segment_base`: FS base.
    pub const SEGBASE_FS: u32 = 0;
    /// `set_segment_base`: user mode's GS base.
    pub const SEGBASE_GS_USER: u32 = 1;
    /// `set_segment_base`: kernel mode's GS base.
    pub const SEGBASE_GS_KERNEL: u32 = 2;
    /// `set_segment_base`: user mode's GS selector.
    pub const SEGBASE_GS_USER_SEL: u32 = 3;

    /// `vcpu_guest_context.flags`: the FPU context is valid.
    pub const VGCF_I387_VALID: u64 = 1 << 0;
    /// `vcpu_guest_context.flags`: in kernel mode.
    pub const VGCF_IN_KERNEL: u64 = 1 << 2;
    /// `vcpu_guest_context.flags`: the failsafe callback masks events.
    pub const VGCF_FAILSAFE_DISABLES_EVENTS: u64 = 1 << 3 => "VGCF_failsafe_disables_events";
    /// `vcpu_guest_context.flags`: the syscall callback masks events.
    pub const VGCF_SYSCALL_DISABLES_EVENTS: u64 = 1 << 4 => "VGCF_syscall_disables_events";
    /// `vcpu_guest_context.flags`: the vCPU is online.
    pub const VGCF_ONLINE: u64 = 1 << 5 => "VGCF_online";
    /// `iret_context.flags`: `rcx` and `r11` need not be restored.
    pub const VGCF_IN_SYSCALL: u64 = 1 << 8;

    /// `arch.emulation_flags`: local APIC.
    pub const XEN_X86_EMU_LAPIC: u32 = 1 << 0;
    /// `arch.emulation_flags`: HPET.
    pub const XEN_X86_EMU_HPET: u32 = 1 << 1;
    /// `arch.emulation_flags`: ACPI power management.
    pub const XEN_X86_EMU_PM: u32 = 1 << 2;
    /// `arch.emulation_flags`: real-time clock.
    pub const XEN_X86_EMU_RTC: u32 = 1 << 3;
    /// `arch.emulation_flags`: I/O APIC.
    pub const XEN_X86_EMU_IOAPIC: u32 = 1 << 4;
    /// `arch.emulation_flags`: interrupt controller pair.
    pub const XEN_X86_EMU_PIC: u32 = 1 << 5;
    /// `arch.emulation_flags`: VGA.
    pub const XEN_X86_EMU_VGA: u32 = 1 << 6;
    /// `arch.emulation_flags`: IOMMU.
    pub const XEN_X86_EMU_IOMMU: u32 = 1 << 7;
    /// `arch.emulation_flags`: interval timer.
    pub const XEN_X86_EMU_PIT: u32 = 1 << 8;
    /// `arch.emulation_flags`: interrupts routed over event channels.
    pub const XEN_X86_EMU_USE_PIRQ: u32 = 1 << 9;
    /// `arch.emulation_flags`: virtual PCI.
    pub const XEN_X86_EMU_VPCI: u32 = 1 << 10;
    /// `arch.misc_flags`: unknown MSRs read as zero.
    pub const XEN_X86_MSR_RELAXED: u32 = 1 << 0;

    /// [`CpuidLeaf::subleaf`] of a leaf without subleaves.
    pub const XEN_CPUID_NO_SUBLEAF: u32 = 0xffff_ffff;
    /// I/O port of the HVM guests' debug console.
    pub const XEN_HVM_DEBUGCONS_IOPORT: u16 = 0xe9;
}

abi_structs! {
    /// One entry of a PV guest's trap table; `address` 0 ends a list.
    pub struct TrapInfo = "struct trap_info"[16] {
        /// The exception vector.
        [0] vector: u8,
        /// Bits 0-1: DPL for software interrupts; bit 2: mask events on entry.
        [1] flags: u8,
        /// Code selector.
        [2] cs: u16,
        [4] _pad: u32,
        /// Code address.
        [8] address: u64,
    }

    /// The general registers of a vCPU.
    pub struct CpuUserRegs = "struct cpu_user_regs"[200] {
        [0] r15: u64,
        [8] r14: u64,
        [16] r13: u64,
        [24] r12: u64,
        [32] rbp: u64,
        [40] rbx: u64,
        [48] r11: u64,
        [56] r10: u64,
        [64] r9: u64,
        [72] r8: u64,
        [80] rax: u64,
        [88] rcx: u64,
        [96] rdx: u64,
        [104] rsi: u64,
        [112] rdi: u64,
        /// Private to the hypervisor.
        [120] error_code: u32,
        /// Private to the hypervisor.
        [124] entry_vector: u32,
        [128] rip: u64,
        [136] cs: u16,
        [138] _pad0: u16,
        /// The upcall mask when the frame was saved.
        [140] saved_upcall_mask: u8,
        [141] _pad1: [u8; 3],
        /// IF is the negated upcall mask.
        [144] rflags: u64,
        [152] rsp: u64,
        [160] ss: u16,
        [162] _pad2: [u16; 3],
        [168] es: u16,
        [170] _pad3: [u16; 3],
        [176] ds: u16,
        [178] _pad4: [u16; 3],
        [184] fs: u16,
        [186] _pad5: [u16; 3],
        [192] gs: u16,
        [194] _pad6: [u16; 3],
    }

    /// The frame that the iret hypercall finds on the guest's stack.
    pub struct IretContext = "struct iret_context"[72] {
        [0] rax: u64,
        [8] r11: u64,
        [16] rcx: u64,
        /// [`VGCF_IN_SYSCALL`] or 0.
        [24] flags: u64,
        [32] rip: u64,
        [40] cs: u64,
        [48] rflags: u64,
        [56] rsp: u64,
        [64] ss: u64,
    }

    /// The whole state of a vCPU, for bringing it up and for saving it.
    pub struct VcpuGuestContext = "struct vcpu_guest_context"[5168] {
        /// FXSAVE image.
        [0] fpu_ctxt: [u8; 512],
        /// `VGCF_*` bits.
        [512] flags: u64,
        /// General registers.
        [520] user_regs: CpuUserRegs,
        /// Trap table.
        [720] trap_ctxt: [TrapInfo; NR_TRAP_VECTORS],
        /// LDT: linear address.
        [4816] ldt_base: u64,
        /// LDT: number of entries.
        [4824] ldt_ents: u64,
        /// GDT: MFNs.
        [4832] gdt_frames: [u64; 16],
        /// GDT: number of entries.
        [4960] gdt_ents: u64,
        /// Stack selector for entry from user mode.
        [4968] kernel_ss: u64,
        /// Stack pointer for entry from user mode.
        [4976] kernel_sp: u64,
        /// CR0 to CR7; CR1 holds user mode's page-table root.
        [4984] ctrlreg: [u64; 8],
        /// DR0 to DR7.
        [5048] debugreg: [u64; 8],
        /// Event callback.
        [5112] event_callback_eip: u64,
        /// Failsafe callback.
        [5120] failsafe_callback_eip: u64,
        /// Syscall callback.
        [5128] syscall_callback_eip: u64,
        /// Bitmap of assists ([`crate::xen::VmAssistType`]).
        [5136] vm_assist: u64,
        /// FS base.
        [5144] fs_base: u64,
        /// GS base in kernel mode.
        [5152] gs_base_kernel: u64,
        /// GS base in user mode.
        [5160] gs_base_user: u64,
    }

    /// x86's part of the shared information page; written by the guest, read by the tools.
    pub struct ArchSharedInfo = "struct arch_shared_info"[48] {
        /// Number of valid p2m entries.
        [0] max_pfn: u64,
        /// MFN of the top of the 3-level p2m list; 0 not yet set, all ones not usable.
        [8] pfn_to_mfn_frame_list_list: u64,
        /// Reasons of NMIs.
        [16] nmi_reason: u64,
        /// Page-table root under which `p2m_vaddr` is valid, as in CR3; 0 when not used.
        [24] p2m_cr3: u64,
        /// Virtual address of the linear p2m.
        [32] p2m_vaddr: u64,
        /// Odd while the guest changes the p2m's mapping.
        [40] p2m_generation: u64,
    }

    /// x86's part of `vcpu_info`.
    pub struct ArchVcpuInfo = "struct arch_vcpu_info"[16] {
        /// Fault address of the last page fault.
        [0] cr2: u64,
        [8] pad: u64,
    }

    /// x86's part of a domain's configuration.
    pub struct ArchDomainConfig = "struct xen_arch_domainconfig"[8] {
        /// `XEN_X86_EMU_*` bits.
        [0] emulation_flags: u32,
        /// [`XEN_X86_MSR_RELAXED`].
        [4] misc_flags: u32,
    }

    /// One CPUID leaf of a CPU policy.
    pub struct CpuidLeaf = "xen_cpuid_leaf_t"[24] {
        [0] leaf: u32,
        /// The subleaf, or [`XEN_CPUID_NO_SUBLEAF`].
        [4] subleaf: u32,
        /// `eax`.
        [8] a: u32,
        /// `ebx`.
        [12] b: u32,
        /// `ecx`.
        [16] c: u32,
        /// `edx`.
        [20] d: u32,
    }

    /// One MSR of a CPU policy.
    pub struct MsrEntry = "xen_msr_entry_t"[16] {
        /// MSR number.
        [0] idx: u32,
        /// Zero.
        [4] flags: u32,
        [8] val: u64,
    }
}
