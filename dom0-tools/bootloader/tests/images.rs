//! Disks made by `mke2fs`, whole and damaged.

use oxen_bootloader::disk::partitions;
use oxen_bootloader::find::{Found, find};
use oxen_bootloader::{Booted, Error, Request, extract};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where partitions start, in bytes.
const FIRST: u64 = 1 << 20;
/// The size of file systems, in bytes.
const SIZE: u64 = 8 << 20;

const MENU: &str = "set default=\"1>v2\"
menuentry 'One' --id v1 {
  linux /boot/vmlinuz-1 root=/dev/xvda1 ro
  initrd /boot/initrd-1
}
submenu 'More' {
  menuentry 'Two' --id v2 { linux /boot/vmlinuz-2 root=/dev/xvda1 quiet; initrd /boot/initrd-2
  }
}
";

/// A directory and what is in it.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file system with these files.
    fn file_system(&self, kind: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
        let root = self.path("root");
        let _ = fs::remove_dir_all(&root);
        for (name, bytes) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let image = self.path("fs.img");
        File::create(&image).unwrap().set_len(SIZE).unwrap();
        let made = Command::new("mke2fs")
            .args(["-q", "-F", "-t", kind, "-d"])
            .arg(&root)
            .arg(&image)
            .status();
        assert!(made.expect("mke2fs runs (package e2fsprogs)").success());
        fs::read(&image).unwrap()
    }

    /// A disk of these bytes.
    fn disk(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("disk.img");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn extract(&self, disk: &Path, entry: Option<&str>) -> Result<Booted, Error> {
        let directory = self.path("out");
        fs::create_dir_all(&directory).unwrap();
        let request = Request {
            disk,
            entry,
            directory: &directory,
            name: "web",
        };
        extract(&request, Path::new(env!("CARGO_BIN_EXE_oxen-bootloader")))
    }
}

fn standard() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("boot/grub/grub.cfg", MENU.as_bytes()),
        ("boot/vmlinuz-1", b"kernel one"),
        ("boot/initrd-1", b"initrd one"),
        ("boot/vmlinuz-2", b"kernel two"),
        ("boot/initrd-2", b"initrd two"),
    ]
}

fn search(path: &Path, wanted: Option<&str>) -> Result<Found, String> {
    let disk = File::open(path).unwrap();
    let len = disk.metadata().unwrap().len();
    find(&partitions(disk, len), wanted)
}

/// A disk with a master boot record, a swap partition and `system` as partition 2.
fn with_boot_record(system: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; (FIRST + SIZE) as usize];
    disk[FIRST as usize..].copy_from_slice(system);
    for (at, kind, first, sectors) in [(446, 0x82, 64, 1024), (462, 0x83, FIRST / 512, SIZE / 512)]
    {
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&(first as u32).to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&(sectors as u32).to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// A disk with a GUID partition table and `system` as partition 1.
fn with_guid_table(system: &[u8]) -> Vec<u8> {
    let mut disk = with_boot_record(system);
    disk[446 + 4] = 0xee;
    disk[462 + 4] = 0;
    let header = &mut disk[512..1024];
    header[..8].copy_from_slice(b"EFI PART");
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    let entry = &mut disk[1024..1152];
    entry[..16].fill(7);
    entry[32..40].copy_from_slice(&(FIRST / 512).to_le_bytes());
    entry[40..48].copy_from_slice(&((FIRST + SIZE) / 512 - 1).to_le_bytes());
    disk
}

#[test]
fn every_file_system_and_table_boots_its_default() {
    let lab = Lab::new();
    for kind in ["ext2", "ext3", "ext4"] {
        let system = lab.file_system(kind, &standard());
        for disk in [
            system.clone(),
            with_boot_record(&system),
            with_guid_table(&system),
        ] {
            let booted = lab
                .extract(&lab.disk(&disk), None)
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(booted.title, "Two");
            assert_eq!(booted.arguments, "root=/dev/xvda1 quiet");
            assert_eq!(fs::read(booted.kernel).unwrap(), b"kernel two");
            assert_eq!(fs::read(booted.ramdisk.unwrap()).unwrap(), b"initrd two");
        }
    }
}

#[test]
fn entries_and_files_can_be_chosen() {
    let lab = Lab::new();
    let disk = lab.disk(&lab.file_system("ext4", &standard()));
    for entry in [
        "0",
        "One",
        "v1",
        "/boot/vmlinuz-1,/boot/initrd-1",
        "xvda1:/boot/vmlinuz-1,/boot/initrd-1",
    ] {
        let booted = lab
            .extract(&disk, Some(entry))
            .unwrap_or_else(|error| panic!("{entry}: {error}"));
        assert_eq!(fs::read(booted.kernel).unwrap(), b"kernel one", "{entry}");
    }
    let refused = lab.extract(&disk, Some("Three")).unwrap_err().to_string();
    assert!(
        refused.contains("no entry `Three`") && refused.contains("`One`"),
        "{refused}"
    );
}

#[test]
fn a_boot_partition_of_its_own() {
    let lab = Lab::new();
    let menu = "menuentry 'One' { linux /vmlinuz root=/dev/xvda2\n initrd /initrd\n}\n";
    let system = lab.file_system(
        "ext2",
        &[
            ("grub/grub.cfg", menu.as_bytes()),
            ("vmlinuz", b"k"),
            ("initrd", b"i"),
        ],
    );
    assert_eq!(
        lab.extract(&lab.disk(&with_boot_record(&system)), None)
            .unwrap()
            .title,
        "One"
    );
}

#[test]
fn what_is_missing_is_named() {
    let lab = Lab::new();
    let message = |bytes: &[u8]| lab.extract(&lab.disk(bytes), None).unwrap_err().to_string();
    let text = message(&[0; 4096]);
    assert!(text.contains("no ext2, ext3 or ext4 file system"), "{text}");
    let text = message(&lab.file_system("ext4", &[("etc/fstab", b"x")]));
    assert!(text.contains("no boot menu"), "{text}");
    let text = message(&lab.file_system("ext4", &[("boot/grub/grub.cfg", MENU.as_bytes())]));
    assert!(
        text.contains("`Two` cannot be booted") && text.contains("/boot/vmlinuz-2"),
        "{text}"
    );
    assert!(
        fs::read_dir(lab.path("out")).unwrap().next().is_none(),
        "files are left"
    );
    let text = lab
        .extract(&lab.path("nothing"), None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("cannot open the disk"), "{text}");
}

#[test]
fn without_a_menu_the_links_of_debian_count() {
    let lab = Lab::new();
    let system = lab.file_system("ext4", &[("vmlinuz", b"k"), ("initrd.img", b"i")]);
    let booted = lab.extract(&lab.disk(&system), None).unwrap();
    assert_eq!(fs::read(booted.ramdisk.unwrap()).unwrap(), b"i");
}

/// Pseudo-random numbers (Knuth's MMIX constants): the same damage in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[test]
fn damaged_disks_neither_panic_nor_hang() {
    let lab = Lab::new();
    let mut numbers = Numbers(1);
    for kind in ["ext2", "ext4"] {
        let whole = with_guid_table(&lab.file_system(kind, &standard()));
        // Only where something is: zeros have nothing to damage.
        let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
        let path = lab.disk(&whole);
        let file = File::options().write(true).open(&path).unwrap();
        for _ in 0..200 {
            let damaged: Vec<usize> = (0..numbers.below(8) + 1)
                .map(|_| used[numbers.below(used.len() as u64) as usize])
                .collect();
            for at in &damaged {
                let byte = numbers.below(256) as u8;
                file.write_all_at(&[byte], *at as u64).unwrap();
            }
            if let Ok(mut found) = search(&path, None) {
                let mut bytes = vec![0; 4096];
                let _ = found.kernel.file.read_bytes(&mut bytes);
            }
            for at in damaged {
                file.write_all_at(&[whole[at]], at as u64).unwrap();
            }
        }
        assert!(search(&path, None).is_ok(), "the damage is undone");
    }
}

#[test]
fn tables_that_lie_are_survived() {
    let lab = Lab::new();
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    // An extended partition whose only record names itself as the next.
    disk[446 + 4] = 5;
    disk[446 + 8] = 1;
    disk[512 + 462 + 4] = 5;
    disk[512 + 510..1024].copy_from_slice(&[0x55, 0xaa]);
    assert!(search(&lab.disk(&disk), None).is_err());
    // Partitions beyond the disk's end and of all sectors there can be.
    disk[446 + 4] = 0x83;
    disk[446 + 8..446 + 16].fill(0xff);
    assert!(search(&lab.disk(&disk), None).is_err());
    for len in [0, 1, 511, 512, 1024] {
        assert!(search(&lab.disk(&disk[..len]), None).is_err());
    }
}
