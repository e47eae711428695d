//! `hvm/params.h`: parameters of HVM guests.

abi_consts! {
    /// One more than the highest parameter.
    pub const HVM_NR_PARAMS: u32 = 39;
    /// [`HvmParam::CALLBACK_IRQ`]: the bits that hold the kind.
    pub const HVM_PARAM_CALLBACK_IRQ_TYPE_MASK: u64 = 0xff00_0000_0000_0000;
    /// [`HvmParam::CALLBACK_IRQ`]: a global system interrupt in the low byte; 0 for none.
    pub const HVM_PARAM_CALLBACK_TYPE_GSI: u64 = 0;
    /// [`HvmParam::CALLBACK_IRQ`]: a PCI interrupt wire.
    pub const HVM_PARAM_CALLBACK_TYPE_PCI_INTX: u64 = 1;
    /// [`HvmParam::CALLBACK_IRQ`]: a vector in the low byte, on any vCPU.
    pub const HVM_PARAM_CALLBACK_TYPE_VECTOR: u64 = 2;
    /// [`HvmParam::TIMER_MODE`]: ticks are delivered late, guest time lags meanwhile.
    pub const HVMPTM_DELAY_FOR_MISSED_TICKS: u64 = 0 => "HVMPTM_delay_for_missed_ticks";
    /// [`HvmParam::TIMER_MODE`]: ticks are delivered late, guest time is right.
    pub const HVMPTM_NO_DELAY_FOR_MISSED_TICKS: u64 = 1 => "HVMPTM_no_delay_for_missed_ticks";
    /// [`HvmParam::TIMER_MODE`]: missed ticks are lost.
    pub const HVMPTM_NO_MISSED_TICKS_PENDING: u64 = 2 => "HVMPTM_no_missed_ticks_pending";
    /// [`HvmParam::TIMER_MODE`]: missed ticks become one.
    pub const HVMPTM_ONE_MISSED_TICK_PENDING: u64 = 3 => "HVMPTM_one_missed_tick_pending";
}

abi_enums! {
    /// A parameter of an HVM guest.
    pub enum HvmParam: u32 {
        /// How the guest wants to be told about events.
        CALLBACK_IRQ = 0 => "HVM_PARAM_CALLBACK_IRQ",
        /// Frame of the xenstore ring.
        STORE_PFN = 1 => "HVM_PARAM_STORE_PFN",
        /// Event channel of the xenstore ring.
        STORE_EVTCHN = 2 => "HVM_PARAM_STORE_EVTCHN",
        /// Obsolete.
        PAE_ENABLED = 4 => "HVM_PARAM_PAE_ENABLED",
        /// Frame of the default request server.
        IOREQ_PFN = 5 => "HVM_PARAM_IOREQ_PFN",
        /// Frame of the default request server's buffered requests.
        BUFIOREQ_PFN = 6 => "HVM_PARAM_BUFIOREQ_PFN",
        /// Hyper-V interfaces, as bits.
        VIRIDIAN = 9 => "HVM_PARAM_VIRIDIAN",
        /// What happens to missed timer ticks, `HVMPTM_*`.
        TIMER_MODE = 10 => "HVM_PARAM_TIMER_MODE",
        /// Whether there is an HPET.
        HPET_ENABLED = 11 => "HVM_PARAM_HPET_ENABLED",
        /// Frame of an identity page table.
        IDENT_PT = 12 => "HVM_PARAM_IDENT_PT",
        /// Obsolete.
        DM_DOMAIN = 13 => "HVM_PARAM_DM_DOMAIN",
        /// Sleep state, 0 or 3.
        ACPI_S_STATE = 14 => "HVM_PARAM_ACPI_S_STATE",
        /// Address of a TSS for real mode.
        VM86_TSS = 15 => "HVM_PARAM_VM86_TSS",
        /// Whether periodic timers are aligned.
        VPT_ALIGN = 16 => "HVM_PARAM_VPT_ALIGN",
        /// Frame of the console ring.
        CONSOLE_PFN = 17 => "HVM_PARAM_CONSOLE_PFN",
        /// Event channel of the console ring.
        CONSOLE_EVTCHN = 18 => "HVM_PARAM_CONSOLE_EVTCHN",
        /// Which ACPI I/O ports are in use.
        ACPI_IOPORTS_LOCATION = 19 => "HVM_PARAM_ACPI_IOPORTS_LOCATION",
        /// Obsolete.
        MEMORY_EVENT_CR0 = 20 => "HVM_PARAM_MEMORY_EVENT_CR0",
        /// Obsolete.
        MEMORY_EVENT_CR3 = 21 => "HVM_PARAM_MEMORY_EVENT_CR3",
        /// Obsolete.
        MEMORY_EVENT_CR4 = 22 => "HVM_PARAM_MEMORY_EVENT_CR4",
        /// Obsolete.
        MEMORY_EVENT_INT3 = 23 => "HVM_PARAM_MEMORY_EVENT_INT3",
        /// Obsolete.
        NESTEDHVM = 24 => "HVM_PARAM_NESTEDHVM",
        /// Obsolete.
        MEMORY_EVENT_SINGLE_STEP = 25 => "HVM_PARAM_MEMORY_EVENT_SINGLE_STEP",
        /// Obsolete.
        BUFIOREQ_EVTCHN = 26 => "HVM_PARAM_BUFIOREQ_EVTCHN",
        /// Frame of the paging ring.
        PAGING_RING_PFN = 27 => "HVM_PARAM_PAGING_RING_PFN",
        /// Frame of the monitor ring.
        MONITOR_RING_PFN = 28 => "HVM_PARAM_MONITOR_RING_PFN",
        /// Frame of the sharing ring.
        SHARING_RING_PFN = 29 => "HVM_PARAM_SHARING_RING_PFN",
        /// Obsolete.
        MEMORY_EVENT_MSR = 30 => "HVM_PARAM_MEMORY_EVENT_MSR",
        /// Shutdown reason of a triple fault.
        TRIPLE_FAULT_REASON = 31 => "HVM_PARAM_TRIPLE_FAULT_REASON",
        /// First frame for request servers.
        IOREQ_SERVER_PFN = 32 => "HVM_PARAM_IOREQ_SERVER_PFN",
        /// Number of frames for request servers.
        NR_IOREQ_SERVER_PAGES = 33 => "HVM_PARAM_NR_IOREQ_SERVER_PAGES",
        /// Address of the generation id.
        VM_GENERATION_ID_ADDR = 34 => "HVM_PARAM_VM_GENERATION_ID_ADDR",
        /// Alternate views of memory.
        ALTP2M = 35 => "HVM_PARAM_ALTP2M",
        /// Width of the FPU's instruction pointer.
        X87_FIP_WIDTH = 36 => "HVM_PARAM_X87_FIP_WIDTH",
        /// Address and size of a TSS for real mode.
        VM86_TSS_SIZED = 37 => "HVM_PARAM_VM86_TSS_SIZED",
        /// Machine check capabilities.
        MCA_CAP = 38 => "HVM_PARAM_MCA_CAP",
    }
}
