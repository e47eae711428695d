//! The machine tests, as data: what is booted, on which machine, and which console text decides.

use crate::dom0::Flavour;
use crate::hypervisor::Kind;
use crate::qemu::{Board, Bus, Firmware, Machine};

/// Console text that fails every test on either hypervisor, unless the test is about it.
pub const ALWAYS_FORBIDDEN: &[&str] = &[
    "Panic on CPU",
    "FATAL TRAP",
    r"\(OXEN\).*(hypervisor bug|panicked)",
    "Kernel panic - not syncing",
    "VERDICT: FAIL",
    r"Domain 0 (crashed|shutdown)",
];

/// Both hypervisors.
const BOTH: &[Kind] = &[Kind::Oxen, Kind::Xen];

/// What a dom0 test boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Boots {
    /// A boot file as the package has it, and the usual initramfs.
    Distributed(Flavour),
    /// The ELF kernel that the stock boot file holds compressed.
    Elf,
    /// The stock kernel with Debian's own Xen tools and a guest to create in the initramfs.
    DebianTools,
    /// The stock kernel with a guest to create in the initramfs.
    Guest,
    /// The same with Debian's GRUB for guests.
    PvGrub,
    /// Like `DebianTools`, with the small guest of `guests/` too.
    SmallGuest,
}

/// A boot of stock Linux as dom0. Disks and cards are created for it; the disks' file systems are checked afterwards.
#[derive(Debug, Clone)]
pub struct Dom0Case {
    /// Its name after `dom0/`.
    pub name: &'static str,
    /// The kernel and the initramfs.
    pub boots: Boots,
    /// Which of `boot/dom0/tests/` run, in order; each must say that it passed.
    pub tests: &'static [&'static str],
    /// The main board.
    pub board: Board,
    /// The firmware.
    pub firmware: Firmware,
    /// Number of processors.
    pub cpus: u32,
    /// How many of them dom0 gets, if an option says so.
    pub dom0_cpus: Option<u32>,
    /// More hypervisor options.
    pub options: &'static str,
    /// More words for the kernel.
    pub cmdline: &'static str,
    /// Where it runs.
    pub on: &'static [Kind],
    /// Time limit.
    pub seconds: u64,
}

const DOM0: Dom0Case = Dom0Case {
    name: "",
    boots: Boots::Distributed(Flavour::Stock),
    tests: &["boot", "time", "process"],
    board: Board::Q35,
    firmware: Firmware::Bios,
    cpus: 1,
    dom0_cpus: None,
    options: "",
    cmdline: "oxen.irq=msi",
    on: BOTH,
    seconds: 400,
};

/// Disk and network together with what every boot checks.
const EVERYTHING: &[&str] = &["disk", "boot", "time", "process", "net", "irq", "xm"];
/// The same on several processors.
const EVERYTHING_SMP: &[&str] = &["disk", "boot", "time", "smp", "process", "net", "irq", "xm"];
/// The control stack with small guests.
const CONTROL: &[&str] = &["policies", "faults", "herd"];
/// Only devices.
const DEVICES: &[&str] = &["disk", "boot", "net", "irq"];

/// Every dom0 test.
pub fn dom0() -> Vec<Dom0Case> {
    use Board::Pc;
    use Firmware::Uefi;
    vec![
        Dom0Case { name: "q35-bios-1cpu", tests: EVERYTHING, ..DOM0 },
        Dom0Case { name: "q35-bios-2cpu", tests: EVERYTHING_SMP, cpus: 2, seconds: 500, ..DOM0 },
        Dom0Case { name: "q35-bios-4cpu", tests: &["boot", "time", "smp", "process"], cpus: 4, seconds: 600, ..DOM0 },
        Dom0Case { name: "q35-bios-8cpu", tests: &["boot"], cpus: 8, seconds: 600, ..DOM0 },
        Dom0Case { name: "q35-bios-16cpu", tests: &["boot"], cpus: 16, seconds: 900, ..DOM0 },
        Dom0Case { name: "64-vcpus-on-2-cpus", tests: &["boot", "time"], options: "dom0_max_vcpus=64", cpus: 2, dom0_cpus: Some(64), seconds: 900, ..DOM0 },
        Dom0Case { name: "q35-uefi-2cpu", tests: &["boot", "time", "net", "irq"], firmware: Uefi, cpus: 2, seconds: 500, ..DOM0 },
        Dom0Case { name: "q35-uefi-1cpu", tests: &["disk", "boot"], firmware: Uefi, seconds: 500, ..DOM0 },
        Dom0Case { name: "pc-bios-1cpu", tests: DEVICES, board: Pc, ..DOM0 },
        Dom0Case { name: "pc-bios-2cpu", tests: &["boot", "smp", "time"], board: Pc, cpus: 2, seconds: 500, ..DOM0 },
        Dom0Case { name: "pc-uefi-1cpu", tests: &["boot", "net"], board: Pc, firmware: Uefi, seconds: 500, ..DOM0 },
        Dom0Case { name: "q35-nomsi-1cpu", tests: DEVICES, cmdline: "pci=nomsi oxen.irq=line", ..DOM0 },
        Dom0Case { name: "pc-nomsi-2cpu", tests: DEVICES, board: Pc, cpus: 2, cmdline: "pci=nomsi oxen.irq=line", seconds: 500, ..DOM0 },
        Dom0Case { name: "kernel-6.12", boots: Boots::Distributed(Flavour::Newer), tests: &["boot", "time", "process", "net"], cpus: 2, seconds: 600, ..DOM0 },
        Dom0Case { name: "kernel-elf", boots: Boots::Elf, tests: &["boot"], ..DOM0 },
        Dom0Case { name: "small-memory", options: "dom0_mem=256M", tests: &["boot", "process"], ..DOM0 },
        Dom0Case { name: "memory-range", options: "dom0_mem=256M,max:512M", tests: &["boot"], ..DOM0 },
        Dom0Case { name: "one-of-two-cpus", options: "dom0_max_vcpus=1 dom0_vcpus_pin", cpus: 2, dom0_cpus: Some(1), tests: &["boot", "time"], ..DOM0 },
        Dom0Case { name: "xl", boots: Boots::DebianTools, tests: &["boot", "xl"], cpus: 2, seconds: 500, ..DOM0 },
        Dom0Case { name: "build", boots: Boots::Guest, tests: &["build"], options: "dom0_mem=512M", cpus: 2, ..DOM0 },
        Dom0Case { name: "console", boots: Boots::DebianTools, tests: &["console"], options: "dom0_mem=512M", cpus: 2, seconds: 900, ..DOM0 },
        Dom0Case { name: "guests", boots: Boots::Guest, tests: &["guests"], options: "dom0_mem=560M", cpus: 2, seconds: 600, ..DOM0 },
        Dom0Case { name: "guests-1cpu", boots: Boots::Guest, tests: &["guests"], options: "dom0_mem=560M", seconds: 900, ..DOM0 },
        Dom0Case { name: "guests-4cpu", boots: Boots::Guest, tests: &["guests"], options: "dom0_mem=560M", cpus: 4, seconds: 900, ..DOM0 },
        Dom0Case { name: "bootloader", boots: Boots::PvGrub, tests: &["bootloader"], options: "dom0_mem=560M", cpus: 2, seconds: 900, ..DOM0 },
        Dom0Case { name: "devices", boots: Boots::SmallGuest, tests: &["devices"], options: "dom0_mem=560M", cpus: 2, seconds: 1200, ..DOM0 },
        Dom0Case { name: "control", boots: Boots::SmallGuest, tests: CONTROL, options: "dom0_mem=480M", cpus: 2, seconds: 1800, ..DOM0 },
        Dom0Case { name: "many-vcpus", boots: Boots::SmallGuest, tests: &["vcpus"], options: "dom0_mem=480M", cpus: 2, seconds: 900, ..DOM0 },
        Dom0Case { name: "chaos", boots: Boots::SmallGuest, tests: &["chaos"], options: "dom0_mem=480M", cmdline: "oxen.seed=1", cpus: 2, seconds: 1200, ..DOM0 },
        Dom0Case { name: "xl-create", boots: Boots::DebianTools, tests: &["xl-create"], options: "dom0_mem=512M", cpus: 2, ..DOM0 },
        Dom0Case { name: "store", boots: Boots::DebianTools, tests: &["boot", "store"], options: "dom0_mem=512M", cpus: 2, seconds: 900, ..DOM0 },
        Dom0Case { name: "xl-guests", boots: Boots::DebianTools, tests: &["xl-guests"], options: "dom0_mem=640M", cpus: 2, seconds: 900, ..DOM0 },
    ]
}

/// Something wrong with what GRUB is told to boot, that must be answered by one clear line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// No module at all.
    NoModule,
    /// A module that is no kernel.
    NotAKernel,
    /// The stock kernel cut in half.
    TruncatedKernel,
    /// The stock kernel with its compressed payload damaged.
    CorruptKernel,
    /// The stock kernel with an unknown payload signature.
    UnknownCompression,
    /// An ELF program without Xen's notes.
    NoNotes,
    /// A 32-bit ELF program.
    OtherWordSize,
    /// A good kernel; the machine or the options are at fault.
    Nothing,
}

/// A boot that must fail with a clear line.
#[derive(Debug, Clone)]
pub struct BadCase {
    /// Its name after `bad/`.
    pub name: &'static str,
    /// What is wrong.
    pub wrong: Wrong,
    /// Hypervisor options.
    pub options: &'static str,
    /// Memory of the machine.
    pub memory_mib: u32,
    /// The main board.
    pub board: Board,
    /// More QEMU arguments.
    pub extra: &'static [&'static str],
    /// The line that must come.
    pub expect: &'static str,
    /// Time limit.
    pub seconds: u64,
}

const BAD: BadCase = BadCase { name: "", wrong: Wrong::Nothing, options: "", memory_mib: 512, board: Board::Q35, extra: &[], expect: "", seconds: 60 };

/// Every bad-input test; they run on Oxen only, since the text is ours.
pub fn bad() -> Vec<BadCase> {
    vec![
        BadCase { name: "no-module", wrong: Wrong::NoModule, expect: r"\(OXEN\).*(no|No) .*module", ..BAD },
        BadCase { name: "not-a-kernel", wrong: Wrong::NotAKernel, expect: r"\(OXEN\).*(not a|neither|no kernel|unknown)", ..BAD },
        BadCase { name: "truncated-kernel", wrong: Wrong::TruncatedKernel, expect: r"\(OXEN\).*(truncated|short|beyond|past the end|outside)", ..BAD },
        BadCase { name: "corrupt-kernel", wrong: Wrong::CorruptKernel, expect: r"\(OXEN\).*(corrupt|damaged|decompress|unpack)", ..BAD },
        BadCase { name: "unknown-compression", wrong: Wrong::UnknownCompression, expect: r"\(OXEN\).*compress", ..BAD },
        BadCase { name: "no-xen-notes", wrong: Wrong::NoNotes, expect: r"\(OXEN\).*[Nn]ote", ..BAD },
        BadCase { name: "other-word-size", wrong: Wrong::OtherWordSize, expect: r"\(OXEN\).*(32-bit|64-bit|word size|class|ELF32)", ..BAD },
        BadCase { name: "dom0-mem-too-large", options: "dom0_mem=64G", expect: r"\(OXEN\).*(dom0_mem|memory)", ..BAD },
        BadCase { name: "too-little-memory", memory_mib: 24, expect: r"\(OXEN\).*memory|out of memory", ..BAD },
        BadCase { name: "no-acpi", board: Board::Pc, extra: &["-machine", "isapc"], expect: r"\(OXEN\).*(ACPI|RSDP)", ..BAD },
        BadCase { name: "unknown-option", options: "frobnicate=7", expect: r"\(OXEN\).*frobnicate", ..BAD },
        BadCase { name: "malformed-option", options: "dom0_max_vcpus=many", expect: r"\(OXEN\).*dom0_max_vcpus.*many", ..BAD },
    ]
}

/// How a test guest is booted, as `guests/README.md` promises it to the guests.
#[derive(Debug, Clone)]
pub struct GuestCase {
    /// The guest's program; a trailing `*` stands for every guest whose name begins so.
    pub program: &'static str,
    /// Number of processors.
    pub cpus: u32,
    /// Hypervisor options.
    pub options: &'static str,
    /// Where it runs.
    pub on: &'static [Kind],
    /// The hypervisor's line about the guest's death, for guests that provoke it after their verdict.
    pub dies: Option<&'static str>,
    /// Time limit.
    pub seconds: u64,
}

const GUEST: GuestCase = GuestCase { program: "", cpus: 1, options: "dom0_mem=128M dom0_max_vcpus=4", on: BOTH, dies: None, seconds: 120 };

/// Memory of the machine that guests run on.
pub const GUEST_MACHINE_MIB: u32 = 512;

/// Exceptions to the rule; every program of `guests/` is run, listed here or not.
fn guest_exceptions() -> Vec<GuestCase> {
    vec![
        // What Xen makes of weights in ten seconds is further off than the test allows.
        GuestCase { program: "smp-shares", cpus: 2, on: &[Kind::Oxen], ..GUEST },
        GuestCase { program: "smp*", cpus: 2, ..GUEST },
        GuestCase { program: "scheduler", options: "dom0_mem=128M dom0_max_vcpus=4 sched=credit", ..GUEST },
        // It is for dom0's tools; in the place of dom0 it has nothing to say.
        GuestCase { program: "small-guest", on: &[], ..GUEST },
        GuestCase { program: "crash-*", dies: Some(r"[Dd]omain 0.*crash|[Dd]om0.*crash"), ..GUEST },
    ]
}

/// How to boot a test guest.
pub fn guest(program: &str) -> GuestCase {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => program.starts_with(prefix),
        None => program == pattern,
    };
    guest_exceptions().into_iter().find(|case| matches(case.program)).unwrap_or(GUEST)
}

impl Dom0Case {
    /// Size of its disks in MiB; `None` if it has none. A guest's memory has to fit on them where a test writes it there.
    pub fn disks_mib(&self) -> Option<u64> {
        match () {
            () if self.dumps_core() => Some(320),
            () if self.tests.contains(&"disk") => Some(96),
            () => None,
        }
    }

    /// Whether it leaves a guest's core file on the first disk.
    pub fn dumps_core(&self) -> bool {
        self.tests.contains(&"devices")
    }

    /// The machine, with `disks` in the order AHCI, virtio-blk.
    pub fn machine(&self, cpu: &str, disks: &[std::path::PathBuf]) -> Machine {
        let has = |test: &str| self.tests.contains(&test);
        Machine {
            board: self.board,
            firmware: self.firmware,
            cpus: self.cpus,
            memory_mib: 1024,
            cpu: cpu.to_owned(),
            disks: [Bus::Ahci, Bus::VirtioBlk].into_iter().zip(disks.iter().cloned()).collect(),
            nics: if has("net") { vec!["e1000e", "virtio-net-pci"] } else { Vec::new() },
            // The disk test reboots between writing and reading.
            ends_at_reset: !has("disk"),
            starts_linux: true,
            ..Machine::default()
        }
    }

    /// The kernel's command line.
    pub fn kernel_cmdline(&self) -> String {
        let mut words = vec![
            "console=hvc0 earlyprintk=xen loglevel=6 panic=5".to_owned(),
            format!("oxen.test={}", self.tests.join(",")),
            format!("oxen.cpus={}", self.dom0_cpus.unwrap_or(self.cpus)),
        ];
        if self.tests.contains(&"disk") {
            words.push("oxen.disks=sda,vda".to_owned());
        }
        if self.tests.contains(&"net") {
            words.push("oxen.nics=e1000e,virtio_net".to_owned());
        }
        words.push(self.cmdline.to_owned());
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_patterns_compile() {
        let mut names: Vec<String> = dom0().iter().map(|case| case.name.to_owned()).collect();
        names.extend(bad().iter().map(|case| case.name.to_owned()));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        for pattern in bad().iter().map(|case| case.expect).chain(ALWAYS_FORBIDDEN.iter().copied()) {
            regex_lite::Regex::new(pattern).unwrap();
        }
    }

    #[test]
    fn guests_find_their_exceptions() {
        assert_eq!(guest("smp").cpus, 2);
        assert!(guest("crash-triple-fault").dies.is_some());
        assert_eq!(guest("hello").cpus, 1);
    }
}
