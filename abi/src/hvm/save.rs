//! `hvm/save.h` and `arch-x86/hvm/save.h`: an HVM guest's state as a stream of records.
//!
//! Each record is a [`SaveDescriptor`] and as many bytes as it says; the first is a header, the last has type [`SaveType::END`].

abi_consts! {
    /// [`SaveHeader::magic`].
    pub const HVM_FILE_MAGIC: u32 = 0x5438_1286;
    /// [`SaveHeader::version`].
    pub const HVM_FILE_VERSION: u32 = 1;
    /// The highest record type.
    pub const HVM_SAVE_CODE_MAX: u16 = 20;
    /// [`HwCpu::flags`]: the FPU registers are valid.
    pub const XEN_X86_FPU_INITIALISED: u32 = 1;
    /// Pins of [`HwVioapic`].
    pub const VIOAPIC_NUM_PINS: usize = 48;
    /// Timers of [`HwHpet`].
    pub const HPET_TIMER_NUM: usize = 3;
}

abi_enums! {
    /// The type of a record.
    pub enum SaveType: u16 {
        /// The end; no payload.
        END = 0 => "HVM_SAVE_CODE(END)",
        /// [`SaveHeader`].
        HEADER = 1 => "HVM_SAVE_CODE(HEADER)",
        /// [`HwCpu`].
        CPU = 2 => "HVM_SAVE_CODE(CPU)",
        /// [`HwVpic`].
        PIC = 3 => "HVM_SAVE_CODE(PIC)",
        /// [`HwVioapic`].
        IOAPIC = 4 => "HVM_SAVE_CODE(IOAPIC)",
        /// [`HwLapic`].
        LAPIC = 5 => "HVM_SAVE_CODE(LAPIC)",
        /// [`HwLapicRegs`].
        LAPIC_REGS = 6 => "HVM_SAVE_CODE(LAPIC_REGS)",
        /// [`HwPciIrqs`].
        PCI_IRQ = 7 => "HVM_SAVE_CODE(PCI_IRQ)",
        /// [`HwIsaIrqs`].
        ISA_IRQ = 8 => "HVM_SAVE_CODE(ISA_IRQ)",
        /// [`HwPciLink`].
        PCI_LINK = 9 => "HVM_SAVE_CODE(PCI_LINK)",
        /// [`HwPit`].
        PIT = 10 => "HVM_SAVE_CODE(PIT)",
        /// [`HwRtc`].
        RTC = 11 => "HVM_SAVE_CODE(RTC)",
        /// [`HwHpet`].
        HPET = 12 => "HVM_SAVE_CODE(HPET)",
        /// [`HwPmtimer`].
        PMTIMER = 13 => "HVM_SAVE_CODE(PMTIMER)",
        /// [`HwMtrr`].
        MTRR = 14 => "HVM_SAVE_CODE(MTRR)",
        /// Hyper-V interfaces of the domain.
        VIRIDIAN_DOMAIN = 15 => "HVM_SAVE_CODE(VIRIDIAN_DOMAIN)",
        /// Extended processor state, of variable size.
        CPU_XSAVE = 16 => "CPU_XSAVE_CODE",
        /// Hyper-V interfaces of a vCPU.
        VIRIDIAN_VCPU = 17 => "HVM_SAVE_CODE(VIRIDIAN_VCPU)",
        /// [`VmceVcpu`].
        VMCE_VCPU = 18 => "HVM_SAVE_CODE(VMCE_VCPU)",
        /// [`TscAdjust`].
        TSC_ADJUST = 19 => "HVM_SAVE_CODE(TSC_ADJUST)",
        /// MSRs, of variable number: a count, padding and [`OneMsr`]s.
        CPU_MSR = 20 => "CPU_MSR_CODE",
    }
}

abi_structs! {
    /// The head of a record.
    pub struct SaveDescriptor = "struct hvm_save_descriptor"[8] {
        [0] typecode: SaveType,
        /// A vCPU, or which of several devices.
        [2] instance: u16,
        /// Bytes that follow.
        [4] length: u32,
    }

    /// The first record.
    pub struct SaveHeader = "struct hvm_save_header"[24] {
        [0] magic: u32,
        [4] version: u32,
        /// Revision of the hypervisor.
        [8] changeset: u64,
        /// `eax` of CPUID leaf 1 where the state was saved.
        [16] cpuid: u32,
        [20] gtsc_khz: u32,
    }

    /// A vCPU.
    pub struct HwCpu = "struct hvm_hw_cpu"[1032] {
        /// FXSAVE image.
        [0] fpu_regs: [u8; 512],
        [512] rax: u64,
        [520] rbx: u64,
        [528] rcx: u64,
        [536] rdx: u64,
        [544] rbp: u64,
        [552] rsi: u64,
        [560] rdi: u64,
        [568] rsp: u64,
        [576] r8: u64,
        [584] r9: u64,
        [592] r10: u64,
        [600] r11: u64,
        [608] r12: u64,
        [616] r13: u64,
        [624] r14: u64,
        [632] r15: u64,
        [640] rip: u64,
        [648] rflags: u64,
        [656] cr0: u64,
        [664] cr2: u64,
        [672] cr3: u64,
        [680] cr4: u64,
        [688] dr0: u64,
        [696] dr1: u64,
        [704] dr2: u64,
        [712] dr3: u64,
        [720] dr6: u64,
        [728] dr7: u64,
        [736] cs_sel: u32,
        [740] ds_sel: u32,
        [744] es_sel: u32,
        [748] fs_sel: u32,
        [752] gs_sel: u32,
        [756] ss_sel: u32,
        [760] tr_sel: u32,
        [764] ldtr_sel: u32,
        [768] cs_limit: u32,
        [772] ds_limit: u32,
        [776] es_limit: u32,
        [780] fs_limit: u32,
        [784] gs_limit: u32,
        [788] ss_limit: u32,
        [792] tr_limit: u32,
        [796] ldtr_limit: u32,
        [800] idtr_limit: u32,
        [804] gdtr_limit: u32,
        [808] cs_base: u64,
        [816] ds_base: u64,
        [824] es_base: u64,
        [832] fs_base: u64,
        [840] gs_base: u64,
        [848] ss_base: u64,
        [856] tr_base: u64,
        [864] ldtr_base: u64,
        [872] idtr_base: u64,
        [880] gdtr_base: u64,
        [888] cs_arbytes: u32,
        [892] ds_arbytes: u32,
        [896] es_arbytes: u32,
        [900] fs_arbytes: u32,
        [904] gs_arbytes: u32,
        [908] ss_arbytes: u32,
        [912] tr_arbytes: u32,
        [916] ldtr_arbytes: u32,
        [920] sysenter_cs: u64,
        [928] sysenter_esp: u64,
        [936] sysenter_eip: u64,
        [944] shadow_gs: u64,
        [952] msr_flags: u64,
        [960] msr_lstar: u64,
        [968] msr_star: u64,
        [976] msr_cstar: u64,
        [984] msr_syscall_mask: u64,
        [992] msr_efer: u64,
        [1000] msr_tsc_aux: u64,
        [1008] tsc: u64,
        /// Bits 0-7 vector, 8-10 kind, 11 has an error code, 31 valid.
        [1016] pending_event: u32,
        /// The pending event's.
        [1020] error_code: u32,
        /// [`XEN_X86_FPU_INITIALISED`] or 0.
        [1024] flags: u32,
        [1028] pad0: u32,
    }

    /// An interrupt controller.
    pub struct HwVpic = "struct hvm_hw_vpic"[8] {
        [0] irr: u8,
        [1] imr: u8,
        [2] isr: u8,
        [3] irq_base: u8,
        /// Bits 0-3 progress of initialisation, 4-7 line of highest priority.
        [4] init_and_priority: u8 as "_bits",
        /// Bit 0 reads give ISR, 1 poll, 2 automatic end, 3 rotate, 4 special fully nested, 5 special mask, 6 master.
        [5] modes: u8 as "_bits",
        /// Level-triggered lines.
        [6] elcr: u8,
        [7] int_output: u8,
    }

    /// The I/O APIC.
    pub struct HwVioapic = "struct hvm_hw_vioapic"[400] {
        [0] base_address: u64,
        [8] ioregsel: u32,
        [12] id: u32,
        /// Redirection entries.
        [16] redirtbl: [u64; VIOAPIC_NUM_PINS],
    }

    /// A local APIC.
    pub struct HwLapic = "struct hvm_hw_lapic"[24] {
        [0] apic_base_msr: u64,
        /// Bit 0 disabled by software, 1 by the base MSR.
        [8] disabled: u32,
        [12] timer_divisor: u32,
        /// Deadline of the timer.
        [16] tdt_msr: u64,
    }

    /// A local APIC's registers.
    pub struct HwLapicRegs = "struct hvm_hw_lapic_regs"[1024] {
        [0] data: [u8; 1024],
    }

    /// The PCI interrupt wires, bit device * 4 + pin.
    pub struct HwPciIrqs = "struct hvm_hw_pci_irqs"[16] {
        [0] pad: [u64; 2],
    }

    /// The ISA interrupt wires.
    pub struct HwIsaIrqs = "struct hvm_hw_isa_irqs"[8] {
        [0] pad: [u64; 1],
    }

    /// The PCI interrupt links.
    pub struct HwPciLink = "struct hvm_hw_pci_link"[8] {
        [0] route: [u8; 4],
        [4] pad0: [u8; 4],
    }

    /// A channel of the interval timer.
    pub struct HwPitChannel = "struct hvm_hw_pit_channel"[16] {
        [0] count: u32,
        [4] latched_count: u16,
        [6] count_latched: u8,
        [7] status_latched: u8,
        [8] status: u8,
        [9] read_state: u8,
        [10] write_state: u8,
        [11] write_latch: u8,
        [12] rw_mode: u8,
        [13] mode: u8,
        [14] bcd: u8,
        [15] gate: u8,
    }

    /// The interval timer.
    pub struct HwPit = "struct hvm_hw_pit"[56] {
        [0] channels: [HwPitChannel; 3],
        [48] speaker_data_on: u32,
        [52] pad0: u32,
    }

    /// The real-time clock.
    pub struct HwRtc = "struct hvm_hw_rtc"[24] {
        [0] cmos_data: [u8; 14],
        [14] cmos_index: u8,
        [15] pad0: u8,
        /// Seconds.
        [16] rtc_offset: i64,
    }

    /// A timer of the HPET.
    pub struct HwHpetTimer = "struct hvm_hw_hpet::timers[0]"[32] {
        [0] config: u64,
        [8] cmp: u64,
        [16] fsb: u64,
        [24] res4: u64,
    }

    /// The HPET.
    pub struct HwHpet = "struct hvm_hw_hpet"[1048] {
        [0] capability: u64,
        [8] res0: u64,
        [16] config: u64,
        [24] res1: u64,
        [32] isr: u64,
        [40] res2: [u64; 25],
        /// Main counter.
        [240] mc64: u64,
        [248] res3: u64,
        [256] timers: [HwHpetTimer; HPET_TIMER_NUM],
        [352] res5: [u64; 84],
        /// Last values written to the comparators.
        [1024] period: [u64; HPET_TIMER_NUM],
    }

    /// The ACPI timer and event block.
    pub struct HwPmtimer = "struct hvm_hw_pmtimer"[8] {
        [0] tmr_val: u32,
        [4] pm1a_sts: u16,
        [6] pm1a_en: u16,
    }

    /// A vCPU's memory type registers.
    pub struct HwMtrr = "struct hvm_hw_mtrr"[240] {
        [0] msr_pat_cr: u64,
        [8] msr_mtrr_var: [u64; 16],
        [136] msr_mtrr_fixed: [u64; 11],
        [224] msr_mtrr_cap: u64,
        [232] msr_mtrr_def_type: u64,
    }

    /// A vCPU's machine check registers.
    pub struct VmceVcpu = "struct hvm_vmce_vcpu"[32] {
        [0] caps: u64,
        [8] mci_ctl2_bank0: u64,
        [16] mci_ctl2_bank1: u64,
        [24] mcg_ext_ctl: u64,
    }

    /// A vCPU's TSC_ADJUST register.
    pub struct TscAdjust = "struct hvm_tsc_adjust"[8] {
        [0] tsc_adjust: u64,
    }

    /// An MSR.
    pub struct OneMsr = "struct hvm_one_msr"[16] {
        [0] index: u32,
        [4] _rsvd: u32,
        [8] val: u64,
    }
}
