//! Emulated machines: what they are made of, and running one while reading its serial port.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regex_lite::Regex;

use crate::process::{query, wait_until};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// How long a machine keeps running after the text that ends a test, so that what follows is in the log too.
const LINGER: Duration = Duration::from_millis(300);

/// The main board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// PCI Express with AHCI and an I/O APIC for everything.
    Q35,
    /// The older chip set with IDE.
    Pc,
}

/// What starts the boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// SATA on an AHCI controller: `sda`, `sdb`, ... in Linux.
    Ahci,
    /// virtio-blk on PCI: `vda`, `vdb`, ... in Linux.
    VirtioBlk,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The main board.
    pub board: Board,
    /// The firmware.
    pub firmware: Firmware,
    /// Number of processors.
    pub cpus: u32,
    /// Memory size.
    pub memory_mib: u32,
    /// The processor model and its features.
    pub cpu: String,
    /// Disks in order.
    pub disks: Vec<(Bus, PathBuf)>,
    /// Network cards by QEMU device name, each on its own user-mode network 10.0.(2 + n).0/24.
    pub nics: Vec<&'static str>,
    /// Whether a reset ends the emulator.
    pub ends_at_reset: bool,
    /// Whether the time stamp counter counts executed instructions: deterministic, one processor, slow.
    pub counts_instructions: bool,
    /// Whether Linux sets devices up in it while several processors run, which [`takes_turns`] makes safe.
    pub starts_linux: bool,
    /// Further QEMU arguments.
    pub extra: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            board: Board::Q35,
            firmware: Firmware::Bios,
            cpus: 1,
            memory_mib: 1024,
            cpu: "max".to_owned(),
            disks: Vec::new(),
            nics: Vec::new(),
            ends_at_reset: true,
            counts_instructions: false,
            starts_linux: false,
            extra: Vec::new(),
        }
    }
}

impl Machine {
    /// QEMU's arguments for this machine, without the media it boots from. `scratch` holds its firmware variables.
    pub fn arguments(&self, scratch: &Path) -> Result<Vec<String>> {
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
        let board = match self.board {
            Board::Q35 => "q35",
            Board::Pc => "pc",
        };
        add(&["-machine", board, "-cpu", &self.cpu, "-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()]);
        add(&["-nodefaults", "-vga", "std"]);
        if self.counts_instructions {
            add(&["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
        } else if has_kvm() {
            add(&["-accel", "kvm"]);
        } else if self.starts_linux && takes_turns() {
            add(&["-accel", "tcg,thread=single"]);
        }
        if self.firmware == Firmware::Uefi {
            let variables = scratch.join("OVMF_VARS.fd");
            fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).context("OVMF is missing (Debian package ovmf)")?;
            add(&["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
            add(&["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
        }
        let needs_ahci = self.board == Board::Pc && self.disks.iter().any(|(bus, _)| *bus == Bus::Ahci);
        if needs_ahci {
            add(&["-device", "ahci,id=ahci"]);
        }
        let mut sata = 0;
        for (n, (bus, path)) in self.disks.iter().enumerate() {
            add(&["-drive", &format!("if=none,id=disk{n},format=raw,file={}", path.display())]);
            let device = match bus {
                Bus::Ahci => {
                    let controller = if needs_ahci { "ahci" } else { "ide" };
                    sata += 1;
                    format!("ide-hd,drive=disk{n},bus={controller}.{}", sata - 1)
                }
                Bus::VirtioBlk => format!("virtio-blk-pci,drive=disk{n}"),
            };
            add(&["-device", &device]);
        }
        for (n, nic) in self.nics.iter().enumerate() {
            let net = format!("10.0.{}", n + 2);
            // A service that sends a known text to whoever connects.
            let service = format!("guestfwd=tcp:{net}.100:80-cmd:seq 1 200000");
            add(&["-netdev", &format!("user,id=net{n},net={net}.0/24,{service}"), "-device", &format!("{nic},netdev=net{n}")]);
        }
        if self.ends_at_reset {
            add(&["-no-reboot"]);
        }
        args.extend(self.extra.iter().cloned());
        Ok(args)
    }

    /// The arguments that boot an ISO image: on SATA or IDE, last in line so that disks keep their names.
    pub fn boot_iso(&self, iso: &Path) -> Vec<String> {
        let bus = match self.board {
            Board::Q35 => "ide.5",
            Board::Pc => "ide.1",
        };
        vec![
            "-drive".to_owned(),
            format!("if=none,id=cd,media=cdrom,readonly=on,format=raw,file={}", iso.display()),
            "-device".to_owned(),
            format!("ide-cd,drive=cd,bus={bus},bootindex=0"),
        ]
    }
}

/// How a machine's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The machine powered off, or was reset with `ends_at_reset`; the emulator ended by itself without error.
    PoweredOff,
    /// The text that was waited for came.
    Text,
    /// Nothing of that within the time limit.
    TimedOut,
    /// The emulator itself failed.
    EmulatorFailed,
}

/// What a machine said, and how it ended.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// Everything on the serial port.
    pub text: String,
    /// How it ended.
    pub end: End,
    /// Wall-clock time.
    pub took: Duration,
    /// How much raw output had come at which time.
    arrivals: Vec<(usize, Duration)>,
    raw: Vec<u8>,
}

impl Transcript {
    /// Wall-clock time from the first appearance of one text to the first appearance of another.
    pub fn between(&self, from: &str, to: &str) -> Option<Duration> {
        self.first_seen(to)?.checked_sub(self.first_seen(from)?)
    }

    fn first_seen(&self, text: &str) -> Option<Duration> {
        let at = self.raw.windows(text.len()).position(|window| window == text.as_bytes())?;
        self.arrivals.iter().find(|(length, _)| *length > at).map(|(_, time)| *time)
    }
}

/// Boots a machine and reads its serial port until it ends, `stop` matches, or the time is up.
/// The text is also written to `log` as it comes.
pub fn run(args: &[String], log: &Path, stop: Option<&Regex>, limit: Duration) -> Result<Transcript> {
    let started = Instant::now();
    let errors = log.with_extension("qemu.log");
    let mut child = Guard(
        Command::new(QEMU)
            .args(args)
            .args(["-display", "none", "-serial", "stdio", "-monitor", "none"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&errors)?)
            .spawn()
            .with_context(|| format!("cannot run {QEMU}"))?,
    );
    let mut serial = child.0.stdout.take().context("the emulator has no output")?;
    let (sender, receiver) = channel();
    let reader = std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = serial.read(&mut chunk) {
            if sender.send(chunk[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut bytes = Vec::new();
    let mut arrivals = Vec::new();
    let mut deadline = started + limit;
    let mut end = End::TimedOut;
    let mut searched = 0;
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => {
                file.write_all(&chunk)?;
                bytes.extend_from_slice(&chunk);
                arrivals.push((bytes.len(), started.elapsed()));
                let tail = String::from_utf8_lossy(&bytes[searched..]).into_owned();
                if end == End::TimedOut && stop.is_some_and(|stop| stop.is_match(&tail)) {
                    end = End::Text;
                    deadline = deadline.min(Instant::now() + LINGER);
                }
                // Whole lines were searched; the last one may go on.
                searched = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            }
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => {
                let status = wait_until(&mut child.0, Instant::now() + Duration::from_secs(10))?;
                if end == End::TimedOut {
                    end = if status.is_some_and(|status| status.success()) { End::PoweredOff } else { End::EmulatorFailed };
                }
                break;
            }
        }
    }
    drop(child);
    let _ = reader.join();
    let mut text = clean(&String::from_utf8_lossy(&bytes));
    if end == End::EmulatorFailed {
        text.push_str(&fs::read_to_string(&errors).unwrap_or_default());
    }
    Ok(Transcript { text, end, took: started.elapsed(), arrivals, raw: bytes })
}

/// An emulator that does not outlive its user.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Console text without carriage returns and the escape sequences of GRUB's and the firmware's screens.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {}
            '\x1b' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                }
                chars.next();
            }
            c => out.push(c),
        }
    }
    out
}

/// Whether hardware virtualisation really works here: the device may exist and still be unusable, so a small program is
/// booted under it. Asked once per run; `OXEN_ACCEL=tcg` says no.
pub fn has_kvm() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let wanted = std::env::var("OXEN_ACCEL").map_or(true, |accel| accel != "tcg");
        let capable = fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| {
            info.lines().filter(|line| line.starts_with("flags")).any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
        });
        wanted && capable && Path::new("/dev/kvm").exists() && probe_kvm().unwrap_or(false)
    })
}

/// The first version of QEMU in which emulated processors see a changed memory map at the same time as the flush that goes with it ("softmmu: Use async_run_on_cpu
/// in tcg_commit").
const SAFE_THREADS: (u32, u32) = (8, 2);

/// Whether the processors of a machine that starts Linux have to take turns in one thread. Emulators before [`SAFE_THREADS`] can crash when one processor moves a
/// PCI device while another one accesses a device, as that access goes astray. Machines also stand still, about once in 40 starts, presumably for the same reason.
pub fn takes_turns() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let version = query(QEMU, &["--version"]).and_then(|text| version(&text));
        !has_kvm() && version.is_none_or(|version| version < SAFE_THREADS)
    })
}

/// Major and minor version in what QEMU says of itself.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once("version ")?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Boots a boot sector that ends the emulator with a known status.
fn probe_kvm() -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("boot");
    let mut sector = vec![0; 512];
    // mov al, 0x21; out 0xf4, al; hlt
    sector[..5].copy_from_slice(&[0xb0, 0x21, 0xe6, 0xf4, 0xf4]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&disk, sector)?;
    let drive = format!("if=floppy,format=raw,file={}", disk.display());
    let child = Command::new(QEMU)
        .args(["-accel", "kvm", "-machine", "pc", "-m", "32", "-nodefaults", "-display", "none", "-boot", "a", "-drive", &drive])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut child = Guard(child);
    let status = wait_until(&mut child.0, Instant::now() + Duration::from_secs(8))?;
    // The device ends the emulator with twice the written value plus one.
    Ok(status.and_then(|status| status.code()) == Some((0x21 << 1) | 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright"), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert!(version("QEMU emulator version 7.2.22") < Some(SAFE_THREADS) && version("QEMU emulator version 8.2.0") >= Some(SAFE_THREADS));
        assert_eq!(version("no number"), None);
    }

    #[test]
    fn console_text_loses_its_escapes() {
        assert_eq!(clean("\x1b[2J\x1b[01;01Hhello\r\nworld"), "hello\nworld");
    }

    #[test]
    fn machines_name_every_device() {
        let machine = Machine { board: Board::Pc, disks: vec![(Bus::Ahci, "/a".into()), (Bus::VirtioBlk, "/b".into())], nics: vec!["e1000e", "virtio-net-pci"], ..Machine::default() };
        let line = machine.arguments(Path::new("/nowhere")).unwrap().join(" ");
        for part in ["-machine pc", "ahci,id=ahci", "bus=ahci.0", "virtio-blk-pci,drive=disk1", "e1000e,netdev=net0", "10.0.3.0/24", "-no-reboot"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
