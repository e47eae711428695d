//! `xen.h`: hypercall numbers, the shared information page, and what every part of the interface uses.

use crate::arch_x86_64::{ArchSharedInfo, ArchVcpuInfo};
use crate::{GuestHandle, Payload};

/// A domain's UUID as the tools chose it (`xen_domain_handle_t`).
pub type DomainHandle = [u8; 16];

/// An event channel port (`evtchn_port_t`).
pub type EvtchnPort = u32;

/// The number of vCPUs whose `vcpu_info` lies in the shared information page (`XEN_LEGACY_MAX_VCPUS`).
pub const LEGACY_MAX_VCPUS: usize = 32;

abi_consts! {
    /// The first reserved domain id; ordinary domains are below it.
    pub const DOMID_FIRST_RESERVED: u16 = 0x7ff0;
    /// The calling domain.
    pub const DOMID_SELF: u16 = 0x7ff0;
    /// Owner of I/O memory: a foreign domain for mapping frames that no domain owns.
    pub const DOMID_IO: u16 = 0x7ff1;
    /// Owner of the hypervisor's own shareable frames.
    pub const DOMID_XEN: u16 = 0x7ff2;
    /// Owner of copy-on-write frames.
    pub const DOMID_COW: u16 = 0x7ff3;
    /// No domain.
    pub const DOMID_INVALID: u16 = 0x7ff4;
    /// The idle domain.
    pub const DOMID_IDLE: u16 = 0x7fff;
    /// The bits of a domain id.
    pub const DOMID_MASK: u16 = 0x7fff;

    /// One more than the highest virtual interrupt number.
    pub const NR_VIRQS: u32 = 24;

    /// `update_va_mapping`: no flush.
    pub const UVMF_NONE: u64 = 0;
    /// `update_va_mapping`: flush the whole TLB.
    pub const UVMF_TLB_FLUSH: u64 = 1;
    /// `update_va_mapping`: flush the one address.
    pub const UVMF_INVLPG: u64 = 2;
    /// `update_va_mapping`: the bits that say what to flush.
    pub const UVMF_FLUSHTYPE_MASK: u64 = 3;
    /// `update_va_mapping`: flush on the vCPUs of the bitmap at the address in the other bits.
    pub const UVMF_MULTI: u64 = 0;
    /// `update_va_mapping`: flush on the calling vCPU only (the other bits are 0).
    pub const UVMF_LOCAL: u64 = 0;
    /// `update_va_mapping`: flush on all vCPUs.
    pub const UVMF_ALL: u64 = 4;

    /// `start_info.flags`: the domain is privileged.
    pub const SIF_PRIVILEGED: u32 = 1;
    /// `start_info.flags`: the domain is the initial control domain.
    pub const SIF_INITDOMAIN: u32 = 1 << 1;
    /// `start_info.flags`: `mod_start` is a [`MultibootModList`].
    pub const SIF_MULTIBOOT_MOD: u32 = 1 << 2;
    /// `start_info.flags`: `mod_start` is a PFN, not an address.
    pub const SIF_MOD_START_PFN: u32 = 1 << 3;
    /// `start_info.flags`: the tools understand a virtually mapped p2m.
    pub const SIF_VIRT_P2M_4TOOLS: u32 = 1 << 4;
    /// `start_info.flags`: power management options.
    pub const SIF_PM_MASK: u32 = 0xff << 8;

    /// Bytes of `start_info.cmd_line`, the terminating zero included.
    pub const MAX_GUEST_CMDLINE: usize = 1024;

    /// `vcpu_time_info.flags`: the time record never goes backwards across vCPUs.
    pub const XEN_PVCLOCK_TSC_STABLE_BIT: u8 = 1 << 0;
    /// `vcpu_time_info.flags`: the guest was stopped by its controller.
    pub const XEN_PVCLOCK_GUEST_STOPPED: u8 = 1 << 1;
}

abi_enums! {
    /// The number of a hypercall, in `eax`.
    pub enum Hypercall: u32 {
        /// Registers exception handlers.
        SET_TRAP_TABLE = 0 => "__HYPERVISOR_set_trap_table",
        /// Checked page-table writes.
        MMU_UPDATE = 1 => "__HYPERVISOR_mmu_update",
        /// Installs the frames of the GDT.
        SET_GDT = 2 => "__HYPERVISOR_set_gdt",
        /// Sets the kernel stack for entry from user mode.
        STACK_SWITCH = 3 => "__HYPERVISOR_stack_switch",
        /// Registers the event, failsafe and syscall entry points at once.
        SET_CALLBACKS = 4 => "__HYPERVISOR_set_callbacks",
        /// Sets or clears the virtual CR0.TS.
        FPU_TASKSWITCH = 5 => "__HYPERVISOR_fpu_taskswitch",
        /// The scheduling call before [`Hypercall::SCHED_OP`].
        SCHED_OP_COMPAT = 6 => "__HYPERVISOR_sched_op_compat",
        /// Hardware control by the control domain.
        PLATFORM_OP = 7 => "__HYPERVISOR_platform_op",
        /// Writes a debug register.
        SET_DEBUGREG = 8 => "__HYPERVISOR_set_debugreg",
        /// Reads a debug register.
        GET_DEBUGREG = 9 => "__HYPERVISOR_get_debugreg",
        /// Writes one GDT or LDT entry.
        UPDATE_DESCRIPTOR = 10 => "__HYPERVISOR_update_descriptor",
        /// Memory reservations and maps.
        MEMORY_OP = 12 => "__HYPERVISOR_memory_op",
        /// Several hypercalls in one.
        MULTICALL = 13 => "__HYPERVISOR_multicall",
        /// Writes the page-table entry that maps an address.
        UPDATE_VA_MAPPING = 14 => "__HYPERVISOR_update_va_mapping",
        /// Sets the one-shot timer.
        SET_TIMER_OP = 15 => "__HYPERVISOR_set_timer_op",
        /// The event channel call before [`Hypercall::EVENT_CHANNEL_OP`].
        EVENT_CHANNEL_OP_COMPAT = 16 => "__HYPERVISOR_event_channel_op_compat",
        /// Version and features.
        XEN_VERSION = 17 => "__HYPERVISOR_xen_version",
        /// The hypervisor's console.
        CONSOLE_IO = 18 => "__HYPERVISOR_console_io",
        /// The physical device call before [`Hypercall::PHYSDEV_OP`].
        PHYSDEV_OP_COMPAT = 19 => "__HYPERVISOR_physdev_op_compat",
        /// Grant tables.
        GRANT_TABLE_OP = 20 => "__HYPERVISOR_grant_table_op",
        /// Turns assists on and off.
        VM_ASSIST = 21 => "__HYPERVISOR_vm_assist",
        /// As [`Hypercall::UPDATE_VA_MAPPING`], for another domain's frame.
        UPDATE_VA_MAPPING_OTHERDOMAIN = 22 => "__HYPERVISOR_update_va_mapping_otherdomain",
        /// Returns from an exception.
        IRET = 23 => "__HYPERVISOR_iret",
        /// vCPU control.
        VCPU_OP = 24 => "__HYPERVISOR_vcpu_op",
        /// Writes FS and GS bases.
        SET_SEGMENT_BASE = 25 => "__HYPERVISOR_set_segment_base",
        /// Page-table pinning and TLB flushes.
        MMUEXT_OP = 26 => "__HYPERVISOR_mmuext_op",
        /// The security module.
        XSM_OP = 27 => "__HYPERVISOR_xsm_op",
        /// NMI callbacks.
        NMI_OP = 28 => "__HYPERVISOR_nmi_op",
        /// Scheduling.
        SCHED_OP = 29 => "__HYPERVISOR_sched_op",
        /// Registers entry points.
        CALLBACK_OP = 30 => "__HYPERVISOR_callback_op",
        /// Profiling.
        XENOPROF_OP = 31 => "__HYPERVISOR_xenoprof_op",
        /// Event channels.
        EVENT_CHANNEL_OP = 32 => "__HYPERVISOR_event_channel_op",
        /// Interrupts and PCI devices.
        PHYSDEV_OP = 33 => "__HYPERVISOR_physdev_op",
        /// HVM parameters.
        HVM_OP = 34 => "__HYPERVISOR_hvm_op",
        /// Host control.
        SYSCTL = 35 => "__HYPERVISOR_sysctl",
        /// Domain control.
        DOMCTL = 36 => "__HYPERVISOR_domctl",
        /// Crash kernels.
        KEXEC_OP = 37 => "__HYPERVISOR_kexec_op",
        /// Transcendent memory, removed from Xen.
        TMEM_OP = 38 => "__HYPERVISOR_tmem_op",
        /// Argo messages.
        ARGO_OP = 39 => "__HYPERVISOR_argo_op",
        /// Virtual performance counters.
        XENPMU_OP = 40 => "__HYPERVISOR_xenpmu_op",
        /// Device models.
        DM_OP = 41 => "__HYPERVISOR_dm_op",
        /// The hypervisor's file system.
        HYPFS_OP = 42 => "__HYPERVISOR_hypfs_op",
        /// Machine checks on x86.
        MCA = 48 => "__HYPERVISOR_arch_0",
        /// Xen's private continuation of a paging domctl.
        PAGING_DOMCTL_CONT = 49 => "__HYPERVISOR_arch_1",
    }

    /// A virtual interrupt: an event that the hypervisor raises.
    pub enum Virq: u32 {
        /// Per vCPU: a timer has expired.
        TIMER = 0 => "VIRQ_TIMER",
        /// Per vCPU: please dump debugging information.
        DEBUG = 1 => "VIRQ_DEBUG",
        /// Global: bytes came in on the emergency console.
        CONSOLE = 2 => "VIRQ_CONSOLE",
        /// Global: a domain was shut down, destroyed or freed.
        DOM_EXC = 3 => "VIRQ_DOM_EXC",
        /// Global: the trace buffer has records.
        TBUF = 4 => "VIRQ_TBUF",
        /// Global: a domain paused for a debugger.
        DEBUGGER = 6 => "VIRQ_DEBUGGER",
        /// Per vCPU: a profiling sample.
        XENOPROF = 7 => "VIRQ_XENOPROF",
        /// Global: bytes went into the console ring.
        CON_RING = 8 => "VIRQ_CON_RING",
        /// Global: a pCPU went online or offline.
        PCPU_STATE = 9 => "VIRQ_PCPU_STATE",
        /// Global: a memory event.
        MEM_EVENT = 10 => "VIRQ_MEM_EVENT",
        /// Global: an Argo message.
        ARGO = 11 => "VIRQ_ARGO",
        /// Global: the heap is running low.
        ENOMEM = 12 => "VIRQ_ENOMEM",
        /// Per vCPU: a performance counter interrupt.
        XENPMU = 13 => "VIRQ_XENPMU",
        /// Global, x86: a machine check (`VIRQ_MCA`).
        MCA = 16 => "VIRQ_ARCH_0",
    }

    /// The low two bits of [`MmuUpdate::ptr`].
    pub enum MmuUpdateType: u32 {
        /// Checked `*ptr = val`; `ptr` is the machine address of an entry.
        NORMAL_PT_UPDATE = 0 => "MMU_NORMAL_PT_UPDATE",
        /// M2P: `ptr` is a machine address in the frame, `val` its new PFN.
        MACHPHYS_UPDATE = 1 => "MMU_MACHPHYS_UPDATE",
        /// As normal, but keeps the entry's accessed and dirty bits.
        PT_UPDATE_PRESERVE_AD = 2 => "MMU_PT_UPDATE_PRESERVE_AD",
        /// As normal; differs only for translated guests.
        PT_UPDATE_NO_TRANSLATE = 3 => "MMU_PT_UPDATE_NO_TRANSLATE",
    }

    /// The commands of `mmuext_op`.
    pub enum MmuextCmd: u32 {
        /// Pins an L1 table (`arg1` = MFN).
        PIN_L1_TABLE = 0 => "MMUEXT_PIN_L1_TABLE",
        /// Pins an L2 table (`arg1` = MFN).
        PIN_L2_TABLE = 1 => "MMUEXT_PIN_L2_TABLE",
        /// Pins an L3 table (`arg1` = MFN).
        PIN_L3_TABLE = 2 => "MMUEXT_PIN_L3_TABLE",
        /// Pins an L4 table (`arg1` = MFN).
        PIN_L4_TABLE = 3 => "MMUEXT_PIN_L4_TABLE",
        /// Unpins a table (`arg1` = MFN).
        UNPIN_TABLE = 4 => "MMUEXT_UNPIN_TABLE",
        /// Sets the kernel's page-table root (`arg1` = MFN).
        NEW_BASEPTR = 5 => "MMUEXT_NEW_BASEPTR",
        /// Flushes the calling vCPU's TLB.
        TLB_FLUSH_LOCAL = 6 => "MMUEXT_TLB_FLUSH_LOCAL",
        /// Flushes one address (`arg1`) on the calling vCPU.
        INVLPG_LOCAL = 7 => "MMUEXT_INVLPG_LOCAL",
        /// Flushes the TLBs of the vCPUs in the bitmap at `arg2`.
        TLB_FLUSH_MULTI = 8 => "MMUEXT_TLB_FLUSH_MULTI",
        /// Flushes one address (`arg1`) on the vCPUs in the bitmap at `arg2`.
        INVLPG_MULTI = 9 => "MMUEXT_INVLPG_MULTI",
        /// Flushes the TLBs of all vCPUs.
        TLB_FLUSH_ALL = 10 => "MMUEXT_TLB_FLUSH_ALL",
        /// Flushes one address (`arg1`) on all vCPUs.
        INVLPG_ALL = 11 => "MMUEXT_INVLPG_ALL",
        /// Writes back and invalidates the cache.
        FLUSH_CACHE = 12 => "MMUEXT_FLUSH_CACHE",
        /// Sets the LDT (`arg1` = address, `arg2` = number of entries).
        SET_LDT = 13 => "MMUEXT_SET_LDT",
        /// Sets user mode's page-table root (`arg1` = MFN, 0 for none).
        NEW_USER_BASEPTR = 15 => "MMUEXT_NEW_USER_BASEPTR",
        /// Clears a frame (`arg1` = MFN).
        CLEAR_PAGE = 16 => "MMUEXT_CLEAR_PAGE",
        /// Copies a frame (`arg1` = destination MFN, `arg2` = source MFN).
        COPY_PAGE = 17 => "MMUEXT_COPY_PAGE",
        /// Writes back and invalidates the caches of all pCPUs.
        FLUSH_CACHE_GLOBAL = 18 => "MMUEXT_FLUSH_CACHE_GLOBAL",
        /// Marks a superpage (`arg1` = MFN).
        MARK_SUPER = 19 => "MMUEXT_MARK_SUPER",
        /// Unmarks a superpage (`arg1` = MFN).
        UNMARK_SUPER = 20 => "MMUEXT_UNMARK_SUPER",
    }

    /// The commands of `console_io`.
    pub enum ConsoleIo: u32 {
        /// Writes to the hypervisor's console.
        WRITE = 0 => "CONSOLEIO_write",
        /// Reads from the hypervisor's console.
        READ = 1 => "CONSOLEIO_read",
    }

    /// The commands of `vm_assist`.
    pub enum VmAssistCmd: u32 {
        /// Turns an assist on.
        ENABLE = 0 => "VMASST_CMD_enable",
        /// Turns an assist off.
        DISABLE = 1 => "VMASST_CMD_disable",
    }

    /// The assists of `vm_assist`; also bit numbers in `vcpu_guest_context.vm_assist`.
    pub enum VmAssistType: u32 {
        /// 4 GiB segments (32-bit guests).
        FOUR_GB_SEGMENTS = 0 => "VMASST_TYPE_4gb_segments",
        /// Notification of their use.
        FOUR_GB_SEGMENTS_NOTIFY = 1 => "VMASST_TYPE_4gb_segments_notify",
        /// Emulates stores to page tables.
        WRITABLE_PAGETABLES = 2 => "VMASST_TYPE_writable_pagetables",
        /// CR3 above 4 GiB in PAE mode.
        PAE_EXTENDED_CR3 = 3 => "VMASST_TYPE_pae_extended_cr3",
        /// IOPL as the architecture has it.
        ARCHITECTURAL_IOPL = 4 => "VMASST_TYPE_architectural_iopl",
        /// Bit 63 of the runstate time marks an update in progress.
        RUNSTATE_UPDATE_FLAG = 5 => "VMASST_TYPE_runstate_update_flag",
        /// Hides the M2P from user mode.
        M2P_STRICT = 32 => "VMASST_TYPE_m2p_strict",
    }

    /// The text or frame buffer of domain 0's VGA console ([`Dom0VgaConsoleInfo::video_type`]).
    pub enum VgaType: u8 {
        /// Text mode.
        TEXT_MODE_3 = 0x03 => "XEN_VGATYPE_TEXT_MODE_3",
        /// A VESA linear frame buffer.
        VESA_LFB = 0x23 => "XEN_VGATYPE_VESA_LFB",
        /// An EFI linear frame buffer.
        EFI_LFB = 0x70 => "XEN_VGATYPE_EFI_LFB",
    }
}

abi_structs! {
    /// One page-table or M2P write.
    pub struct MmuUpdate = "struct mmu_update"[16] {
        /// Machine address of the entry; the low two bits are a [`MmuUpdateType`].
        [0] ptr: u64,
        /// The new contents.
        [8] val: u64,
    }

    /// One operation of `mmuext_op`.
    pub struct MmuextOp = "struct mmuext_op"[24] {
        /// What to do.
        [0] cmd: MmuextCmd,
        [4] _pad: u32,
        /// An MFN or a linear address, as `cmd` says.
        [8] arg1: u64,
        /// A number of entries (low 32 bits), a handle of a vCPU bitmap, or an MFN.
        [16] arg2: u64,
    }

    /// One call of a multicall.
    pub struct MulticallEntry = "struct multicall_entry"[64] {
        /// The hypercall number.
        [0] op: u64,
        /// The hypercall's return value.
        [8] result: u64,
        /// The arguments.
        [16] args: [u64; 6],
    }

    /// The time record of a vCPU. The version is odd while the record is being written.
    pub struct VcpuTimeInfo = "struct vcpu_time_info"[32] {
        /// Odd while the hypervisor writes the record.
        [0] version: u32,
        [4] _pad0: u32,
        /// TSC at the last update.
        [8] tsc_timestamp: u64,
        /// System time at the last update, in ns since boot.
        [16] system_time: u64,
        /// ns per TSC tick after the shift, as a 32-bit fraction.
        [24] tsc_to_system_mul: u32,
        /// Left shift of the TSC difference; negative shifts right.
        [28] tsc_shift: i8,
        /// `XEN_PVCLOCK_*` bits.
        [29] flags: u8,
        [30] _pad1: [u8; 2],
    }

    /// What a vCPU shares with the hypervisor.
    pub struct VcpuInfo = "struct vcpu_info"[64] {
        /// Nonzero: some unmasked event is pending.
        [0] evtchn_upcall_pending: u8,
        /// Nonzero: upcalls are masked.
        [1] evtchn_upcall_mask: u8,
        [2] _pad0: [u8; 6],
        /// 2-level events: one bit for each word of `evtchn_pending` to look at.
        [8] evtchn_pending_sel: u64,
        /// The architecture's part.
        [16] arch: ArchVcpuInfo,
        /// The time record.
        [32] time: VcpuTimeInfo,
    }

    /// The shared information page (the rest of the 4096 bytes is zero).
    pub struct SharedInfo = "struct shared_info"[3136] {
        /// The first 32 vCPUs, until they register a place of their own.
        [0] vcpu_info: [VcpuInfo; LEGACY_MAX_VCPUS],
        /// 2-level events: pending bits by port.
        [2048] evtchn_pending: [u64; 64],
        /// 2-level events: mask bits by port.
        [2560] evtchn_mask: [u64; 64],
        /// Odd while the wall clock is being written.
        [3072] wc_version: u32,
        /// Wall clock at system time 0: seconds since 1970, low half.
        [3076] wc_sec: u32,
        /// Wall clock at system time 0: nanoseconds.
        [3080] wc_nsec: u32,
        /// Wall clock at system time 0: seconds, high half.
        [3084] wc_sec_hi: u32,
        /// The architecture's part.
        [3088] arch: ArchSharedInfo,
    }

    /// What a PV guest's first vCPU finds at `rsi`.
    pub struct StartInfo = "struct start_info"[1168] {
        /// `xen-3.0-x86_64`, zero-terminated.
        [0] magic: [u8; 32],
        /// Number of pages of the domain.
        [32] nr_pages: u64,
        /// Machine address of the shared information page.
        [40] shared_info: u64,
        /// `SIF_*` bits.
        [48] flags: u32,
        [52] _pad0: u32,
        /// MFN of the xenstore ring.
        [56] store_mfn: u64,
        /// Event channel of the xenstore ring.
        [64] store_evtchn: EvtchnPort,
        [68] _pad1: u32,
        /// [`ConsoleDomU`] or [`ConsoleDom0`].
        [72] console: Payload<2>,
        /// Virtual address of the initial page-table root.
        [88] pt_base: u64,
        /// Number of initial page-table frames.
        [96] nr_pt_frames: u64,
        /// Virtual address of the p2m.
        [104] mfn_list: u64,
        /// Virtual address of the initial RAM disk, or its PFN ([`SIF_MOD_START_PFN`]).
        [112] mod_start: u64,
        /// Bytes of the initial RAM disk.
        [120] mod_len: u64,
        /// Command line, zero-terminated.
        [128] cmd_line: [u8; MAX_GUEST_CMDLINE],
        /// First PFN of the frames that hold the p2m.
        [1152] first_p2m_pfn: u64,
        /// Number of those frames.
        [1160] nr_p2m_frames: u64,
    }

    /// An initial RAM disk in a list of modules.
    pub struct MultibootModList = "struct xen_multiboot_mod_list"[16] {
        /// Address of the first byte.
        [0] mod_start: u32,
        /// Address of the last byte.
        [4] mod_end: u32,
        /// Address of the command line.
        [8] cmdline: u32,
        /// Zero.
        [12] pad: u32,
    }

    /// Domain 0's video mode, as the boot loader left it. Shorter versions of this structure exist; `info_size` says.
    pub struct Dom0VgaConsoleInfo = "struct dom0_vga_console_info"[40] {
        /// What `u` holds.
        [0] video_type: VgaType,
        [1] _pad: [u8; 3],
        /// [`VgaTextMode3`] or [`VgaVesaLfb`].
        [4] u: [u32; 9],
    }

    /// Bytes of the control-domain calls' bitmaps.
    pub struct XenctlBitmap = "struct xenctl_bitmap"[16] {
        /// The bytes, least significant bit first.
        [0] bitmap: GuestHandle<u8>,
        /// Number of bits.
        [8] nr_bits: u32,
        [12] _pad: u32,
    }

    /// [`StartInfo::console`] of a domU.
    pub struct ConsoleDomU = "struct start_info::console.domU"[16] {
        /// MFN of the console ring.
        [0] mfn: u64,
        /// Event channel of the console ring.
        [8] evtchn: EvtchnPort,
        [12] _pad: u32,
    }

    /// [`StartInfo::console`] of domain 0: where in the start information [`Dom0VgaConsoleInfo`] lies.
    pub struct ConsoleDom0 = "struct start_info::console.dom0"[8] {
        /// Offset from the start of [`StartInfo`], in bytes.
        [0] info_off: u32,
        /// Size in bytes.
        [4] info_size: u32,
    }

    /// [`Dom0VgaConsoleInfo::u`] in text mode.
    pub struct VgaTextMode3 = "struct dom0_vga_console_info::u.text_mode_3"[10] {
        /// Pixels.
        [0] font_height: u16,
        [2] cursor_x: u16,
        [4] cursor_y: u16,
        [6] rows: u16,
        [8] columns: u16,
    }

    /// [`Dom0VgaConsoleInfo::u`] with a linear frame buffer.
    pub struct VgaVesaLfb = "struct dom0_vga_console_info::u.vesa_lfb"[36] {
        /// Pixels.
        [0] width: u16,
        /// Pixels.
        [2] height: u16,
        [4] bytes_per_line: u16,
        [6] bits_per_pixel: u16,
        /// Address of the frame buffer, low half.
        [8] lfb_base: u32,
        /// In units of 64 KiB.
        [12] lfb_size: u32,
        /// Bits.
        [16] red_pos: u8,
        /// Bits.
        [17] red_size: u8,
        /// Bits.
        [18] green_pos: u8,
        /// Bits.
        [19] green_size: u8,
        /// Bits.
        [20] blue_pos: u8,
        /// Bits.
        [21] blue_size: u8,
        /// Bits.
        [22] rsvd_pos: u8,
        /// Bits.
        [23] rsvd_size: u8,
        /// VESA capabilities.
        [24] gbl_caps: u32,
        /// VESA mode attributes.
        [28] mode_attrs: u16,
        [30] pad: u16,
        /// Address of the frame buffer, high half.
        [32] ext_lfb_base: u32,
    }
}
