//! `platform.h`: hardware control by the control domain.

use crate::{GuestHandle, Payload};

abi_consts! {
    /// What [`PlatformOp::interface_version`] must be.
    pub const XENPF_INTERFACE_VERSION: u32 = 0x0300_0001;
    /// [`EnterAcpiSleep::flags`]: the values are for the sleep control registers.
    pub const XENPF_ACPI_SLEEP_EXTENDED: u32 = 1;
    /// [`PcpuInfo::flags`]: the pCPU is online.
    pub const XEN_PCPU_FLAGS_ONLINE: u32 = 1;
    /// [`PcpuInfo::flags`]: there is no such pCPU.
    pub const XEN_PCPU_FLAGS_INVALID: u32 = 2;
    /// [`SetProcessorPminfo::kind`]: C-states.
    pub const XEN_PM_CX: u32 = 0;
    /// [`SetProcessorPminfo::kind`]: P-states.
    pub const XEN_PM_PX: u32 = 1;
    /// [`SetProcessorPminfo::kind`]: T-states.
    pub const XEN_PM_TX: u32 = 2;
    /// [`SetProcessorPminfo::kind`]: `_PDC` negotiation.
    pub const XEN_PM_PDC: u32 = 3;
    /// [`FirmwareInfo::index`] of EFI: version.
    pub const XEN_FW_EFI_VERSION: u32 = 0;
    /// [`FirmwareInfo::index`] of EFI: configuration table.
    pub const XEN_FW_EFI_CONFIG_TABLE: u32 = 1;
    /// [`FirmwareInfo::index`] of EFI: vendor.
    pub const XEN_FW_EFI_VENDOR: u32 = 2;
    /// [`FirmwareInfo::index`] of EFI: memory descriptor.
    pub const XEN_FW_EFI_MEM_INFO: u32 = 3;
    /// [`FirmwareInfo::index`] of EFI: runtime services version.
    pub const XEN_FW_EFI_RT_VERSION: u32 = 4;
    /// [`FirmwareInfo::index`] of EFI: PCI option ROM.
    pub const XEN_FW_EFI_PCI_ROM: u32 = 5;
    /// [`FirmwareInfo::index`] of EFI: Apple properties.
    pub const XEN_FW_EFI_APPLE_PROPERTIES: u32 = 6;
    /// [`CoreParking::kind`]: set.
    pub const XEN_CORE_PARKING_SET: u32 = 1;
    /// [`CoreParking::kind`]: get.
    pub const XEN_CORE_PARKING_GET: u32 = 2;
}

abi_enums! {
    /// The commands of `platform_op`.
    pub enum PlatformCmd: u32 {
        /// [`Settime32`].
        SETTIME32 = 17 => "XENPF_settime32",
        /// [`AddMemtype`].
        ADD_MEMTYPE = 31 => "XENPF_add_memtype",
        /// [`DelMemtype`].
        DEL_MEMTYPE = 32 => "XENPF_del_memtype",
        /// [`ReadMemtype`].
        READ_MEMTYPE = 33 => "XENPF_read_memtype",
        /// [`MicrocodeUpdate`].
        MICROCODE_UPDATE = 35 => "XENPF_microcode_update",
        /// [`PlatformQuirk`].
        PLATFORM_QUIRK = 39 => "XENPF_platform_quirk",
        /// [`PcpuVersion`].
        GET_CPU_VERSION = 48 => "XENPF_get_cpu_version",
        /// [`EfiRuntimeCall`].
        EFI_RUNTIME_CALL = 49 => "XENPF_efi_runtime_call",
        /// [`FirmwareInfo`].
        FIRMWARE_INFO = 50 => "XENPF_firmware_info",
        /// [`EnterAcpiSleep`].
        ENTER_ACPI_SLEEP = 51 => "XENPF_enter_acpi_sleep",
        /// [`ChangeFreq`].
        CHANGE_FREQ = 52 => "XENPF_change_freq",
        /// [`Getidletime`].
        GETIDLETIME = 53 => "XENPF_getidletime",
        /// [`SetProcessorPminfo`].
        SET_PROCESSOR_PMINFO = 54 => "XENPF_set_processor_pminfo",
        /// [`PcpuInfo`].
        GET_CPUINFO = 55 => "XENPF_get_cpuinfo",
        /// A pCPU number.
        CPU_ONLINE = 56 => "XENPF_cpu_online",
        /// A pCPU number.
        CPU_OFFLINE = 57 => "XENPF_cpu_offline",
        /// Adds a pCPU.
        CPU_HOTADD = 58 => "XENPF_cpu_hotadd",
        /// Adds memory.
        MEM_HOTADD = 59 => "XENPF_mem_hotadd",
        /// [`CoreParking`].
        CORE_PARKING = 60 => "XENPF_core_parking",
        /// [`ResourceOp`].
        RESOURCE_OP = 61 => "XENPF_resource_op",
        /// [`Settime64`].
        SETTIME64 = 62 => "XENPF_settime64",
        /// [`Symdata`].
        GET_SYMBOL = 63 => "XENPF_get_symbol",
    }

    /// What [`FirmwareInfo`] asks for.
    pub enum FirmwareInfoType: u32 {
        /// A disk ([`FirmwareDiskInfo`]).
        DISK_INFO = 1 => "XEN_FW_DISK_INFO",
        /// A disk's boot sector signature ([`FirmwareMbrSignature`]).
        DISK_MBR_SIGNATURE = 2 => "XEN_FW_DISK_MBR_SIGNATURE",
        /// The monitor's description.
        VBEDDC_INFO = 3 => "XEN_FW_VBEDDC_INFO",
        /// EFI, `index` says what.
        EFI_INFO = 4 => "XEN_FW_EFI_INFO",
        /// Keyboard shift flags (first byte).
        KBD_SHIFT_FLAGS = 5 => "XEN_FW_KBD_SHIFT_FLAGS",
    }
}

abi_structs! {
    /// Argument of the call.
    pub struct PlatformOp = "struct xen_platform_op"[136] {
        [0] cmd: PlatformCmd,
        [4] interface_version: u32,
        /// As `cmd` says.
        [8] u: Payload<16>,
    }

    /// Sets the wall clock.
    pub struct Settime32 = "struct xenpf_settime32"[16] {
        [0] secs: u32,
        [4] nsecs: u32,
        /// System time in ns at which that was the time.
        [8] system_time: u64,
    }

    /// Sets the wall clock.
    pub struct Settime64 = "struct xenpf_settime64"[24] {
        [0] secs: u64,
        [8] nsecs: u32,
        /// Zero.
        [12] mbz: u32,
        /// System time in ns at which that was the time.
        [16] system_time: u64,
    }

    /// Adds a memory type range.
    pub struct AddMemtype = "struct xenpf_add_memtype"[32] {
        [0] mfn: u64,
        [8] nr_mfns: u64,
        [16] kind: u32 as "type",
        /// Result.
        [20] handle: u32,
        /// Result.
        [24] reg: u32,
        [28] _pad: u32,
    }

    /// Removes a memory type range.
    pub struct DelMemtype = "struct xenpf_del_memtype"[8] {
        [0] handle: u32,
        [4] reg: u32,
    }

    /// Reads a memory type range.
    pub struct ReadMemtype = "struct xenpf_read_memtype"[32] {
        [0] reg: u32,
        [4] _pad0: u32,
        [8] mfn: u64,
        [16] nr_mfns: u64,
        [24] kind: u32 as "type",
        [28] _pad1: u32,
    }

    /// Loads microcode.
    pub struct MicrocodeUpdate = "struct xenpf_microcode_update"[16] {
        [0] data: GuestHandle<u8>,
        [8] length: u32,
        [12] _pad: u32,
    }

    /// Works around a chipset.
    pub struct PlatformQuirk = "struct xenpf_platform_quirk"[4] {
        [0] quirk_id: u32,
    }

    /// Calls EFI runtime services.
    pub struct EfiRuntimeCall = "struct xenpf_efi_runtime_call"[56] {
        [0] function: u32,
        [4] misc: u32,
        /// Result.
        [8] status: u64,
        [16] u: Payload<5>,
    }

    /// Asks what firmware said at boot.
    pub struct FirmwareInfo = "struct xenpf_firmware_info"[40] {
        [0] kind: FirmwareInfoType as "type",
        [4] index: u32,
        [8] u: Payload<4>,
    }

    /// Puts the machine to sleep.
    pub struct EnterAcpiSleep = "struct xenpf_enter_acpi_sleep"[12] {
        /// PM1A control value, or sleep type A.
        [0] val_a: u16,
        /// PM1B control value, or sleep type B.
        [2] val_b: u16,
        /// n of Sn.
        [4] sleep_state: u32,
        /// [`XENPF_ACPI_SLEEP_EXTENDED`] or 0.
        [8] flags: u32,
    }

    /// Changes a pCPU's frequency.
    pub struct ChangeFreq = "struct xenpf_change_freq"[16] {
        [0] flags: u32,
        [4] cpu: u32,
        /// Hz.
        [8] freq: u64,
    }

    /// How long pCPUs were idle.
    pub struct Getidletime = "struct xenpf_getidletime"[32] {
        [0] cpumap_bitmap: GuestHandle<u8>,
        [8] cpumap_nr_cpus: u32,
        [12] _pad: u32,
        /// ns each.
        [16] idletime: GuestHandle<u64>,
        /// System time in ns.
        [24] now: u64,
    }

    /// ACPI's description of a processor's power states.
    pub struct SetProcessorPminfo = "struct xenpf_set_processor_pminfo"[112] {
        /// ACPI processor id.
        [0] id: u32,
        /// `XEN_PM_*`.
        [4] kind: u32 as "type",
        [8] u: Payload<13>,
    }

    /// A pCPU.
    pub struct PcpuInfo = "struct xenpf_pcpuinfo"[20] {
        [0] xen_cpuid: u32,
        /// Result: highest pCPU number present.
        [4] max_present: u32,
        /// Result: `XEN_PCPU_FLAGS_*`.
        [8] flags: u32,
        /// Result.
        [12] apic_id: u32,
        /// Result.
        [16] acpi_id: u32,
    }

    /// A pCPU's model.
    pub struct PcpuVersion = "struct xenpf_pcpu_version"[32] {
        [0] xen_cpuid: u32,
        /// Result: highest pCPU number present.
        [4] max_present: u32,
        /// Result.
        [8] vendor_id: [u8; 12],
        /// Result.
        [20] family: u32,
        /// Result.
        [24] model: u32,
        /// Result.
        [28] stepping: u32,
    }

    /// Parks idle pCPUs.
    pub struct CoreParking = "struct xenpf_core_parking"[8] {
        [0] kind: u32 as "type",
        [4] idle_nums: u32,
    }

    /// Accesses MSRs on one pCPU.
    pub struct ResourceOp = "struct xenpf_resource_op"[16] {
        [0] nr_entries: u32,
        [4] cpu: u32,
        [8] entries: GuestHandle<ResourceEntry>,
    }

    /// One access.
    pub struct ResourceEntry = "struct xenpf_resource_entry"[24] {
        /// 0 read, 1 write; then the result.
        [0] cmd: u32 as "u.cmd",
        [4] rsvd: u32,
        [8] idx: u64,
        [16] val: u64,
    }

    /// A symbol of the hypervisor.
    pub struct Symdata = "struct xenpf_symdata"[32] {
        /// Room for the name, then its length.
        [0] namelen: u32,
        /// Symbol wanted, then the next one.
        [4] symnum: u32,
        [8] name: GuestHandle<u8>,
        /// Result.
        [16] address: u64,
        /// Result.
        [24] kind: u8 as "type",
        [25] _pad: [u8; 7],
    }

    /// [`FirmwareInfo::u`] of a disk.
    pub struct FirmwareDiskInfo = "struct xenpf_firmware_info::u.disk_info"[16] {
        /// BIOS device number.
        [0] device: u8,
        [1] version: u8,
        [2] interface_support: u16,
        [4] legacy_max_cylinder: u16,
        [6] legacy_max_head: u8,
        [7] legacy_sectors_per_track: u8,
        /// BIOS parameter table, to be filled.
        [8] edd_params: GuestHandle<u8>,
    }

    /// [`FirmwareInfo::u`] of a boot sector.
    pub struct FirmwareMbrSignature = "struct xenpf_firmware_info::u.disk_mbr_signature"[8] {
        /// BIOS device number.
        [0] device: u8,
        [1] _pad: [u8; 3],
        [4] mbr_signature: u32,
    }
}
