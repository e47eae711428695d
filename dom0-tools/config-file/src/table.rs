//! The options that are not read, and why.

/// Options that matter for other kinds of guests, for graphics or for emulated devices only. A PV guest does without them.
const WITHOUT_MEANING: &[&str] = &[
    "acpi",
    "acpi_firmware",
    "acpi_laptop_slate",
    "acpi_s3",
    "acpi_s4",
    "altp2m",
    "apic",
    "args",
    "bios",
    "boot",
    "cpuid",
    "cpuid_check",
    "device_model",
    "device_model_args",
    "device_model_args_hvm",
    "device_model_args_pv",
    "device_model_override",
    "device_model_stubdomain_override",
    "device_model_user",
    "device_model_version",
    "display",
    "e820_host",
    "features",
    "firmware",
    "firmware_override",
    "full-screen",
    "gfx_passthru",
    "guest_base",
    "hap",
    "hpet",
    "isa",
    "keymap",
    "loader",
    "localtime",
    "memory_sharing",
    "mmio_hole",
    "monitor",
    "ms_vm_genid",
    "nestedhvm",
    "nographic",
    "nomigrate",
    "nx",
    "opengl",
    "pae",
    "parallel",
    "passthrough",
    "rdm",
    "rtc_timeoffset",
    "sdl",
    "serial",
    "shadow_memory",
    "smbios_firmware",
    "snapshot",
    "soundhw",
    "spice",
    "stdvga",
    "suppress_spurious_page_faults",
    "system_firmware",
    "timer_mode",
    "tsc_mode",
    "usb",
    "usbdevice",
    "usbversion",
    "vga",
    "vhpt",
    "videoram",
    "viridian",
    "vkb_device",
    "vm_notify",
    "vnc",
    "vncconsole",
    "vncdisplay",
    "vnclisten",
    "vncpasswd",
    "vncunused",
    "vncviewer",
    "vpt_align",
    "xauthority",
    "xen_platform_pci",
    "xenpaging_extra",
    "xenpaging_file",
    "actmem",
    "extid",
    "gpa_bits",
    "oos",
    "trust",
    "vcpu_hotplug",
];

/// Options that ask for something that this version does not do for any guest.
const NOT_SUPPORTED: &[&str] = &[
    "blkif",
    "channel",
    "device_tree",
    "driver_domain",
    "dtdev",
    "init_seclabel",
    "iomem",
    "ioports",
    "irq",
    "irqs",
    "netif",
    "numa_placement",
    "p9",
    "pci",
    "pci_msitranslate",
    "pci_permissive",
    "pci_power_mgmt",
    "pci_seize",
    "pvcalls",
    "restrict",
    "seclabel",
    "tpmif",
    "usbctrl",
    "usbdev",
    "vdispl",
    "vfb",
    "virtio",
    "vkb",
    "vnuma",
    "vscsi",
    "vsnd",
    "vtpm",
    "vusb",
    "xend_tcp",
];

/// Options that are read.
pub const READ: &[&str] = &[
    "name",
    "uuid",
    "type",
    "builder",
    "kernel",
    "ramdisk",
    "cmdline",
    "root",
    "extra",
    "ip",
    "netmask",
    "gateway",
    "hostname",
    "interface",
    "dhcp",
    "nfs_server",
    "nfs_root",
    "bootloader",
    "bootloader_args",
    "bootargs",
    "bootentry",
    "memory",
    "maxmem",
    "vcpus",
    "maxvcpus",
    "vcpu_avail",
    "cpu",
    "cpus",
    "cpus_soft",
    "cpu_weight",
    "cpu_cap",
    "pool",
    "vif",
    "disk",
    "on_poweroff",
    "on_shutdown",
    "on_reboot",
    "on_crash",
    "on_watchdog",
    "on_soft_reset",
    "restart",
    "on_xend_start",
    "on_xend_stop",
    "console_log",
    "console_limit",
    "max_grant_frames",
    "max_maptrack_frames",
    "max_grant_version",
    "max_event_channels",
    "event_channels",
];

/// What is known of a variable that is not read as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// An option that a PV guest does without.
    WithoutMeaning,
    /// An option for something that is not supported.
    NotSupported,
    /// No option; perhaps this one was meant.
    Unknown(Option<&'static str>),
}

/// What is known of the variable `name`.
pub fn unread(name: &str) -> Unread {
    if WITHOUT_MEANING.contains(&name) {
        Unread::WithoutMeaning
    } else if NOT_SUPPORTED.contains(&name) {
        Unread::NotSupported
    } else {
        Unread::Unknown(nearest(name))
    }
}

/// The option whose name is nearest to `name`, if one is near.
fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let most = if name.len() <= 3 { 1 } else { 2 };
    READ.iter()
        .map(|option| (strsim::damerau_levenshtein(&lower, option), *option))
        .min()
        .filter(|(distance, _)| *distance <= most)
        .map(|(_, option)| option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_recognised() {
        assert_eq!(unread("memmory"), Unread::Unknown(Some("memory")));
        assert_eq!(unread("vcpsu"), Unread::Unknown(Some("vcpus")));
        assert_eq!(unread("Kernel"), Unread::Unknown(Some("kernel")));
        assert_eq!(unread("whatever"), Unread::Unknown(None));
        assert_eq!(unread("vnc"), Unread::WithoutMeaning);
        assert_eq!(unread("pci"), Unread::NotSupported);
    }

    #[test]
    fn each_option_is_in_one_list() {
        let mut all: Vec<&str> = [WITHOUT_MEANING, NOT_SUPPORTED, READ].concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
