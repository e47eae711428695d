//! Finds what a disk boots.

use crate::disk::Partition;
use crate::menu::{self, Boot, Menu};
use ext4_view::{Ext4, Ext4Read, File};
use std::error::Error as StdError;

/// Where boot menus of GRUB are; `/boot` may be a file system of its own.
const GRUB: &[&str] = &[
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/grub/grub.cfg",
    "/grub2/grub.cfg",
];
/// Where older menus are.
const LEGACY: &[&str] = &[
    "/boot/grub/menu.lst",
    "/grub/menu.lst",
    "/boot/grub/grub.conf",
    "/grub/grub.conf",
];
/// Where kernel and initial RAM disk are on a file system without menu.
const PLAIN: &[(&str, &str)] = &[
    ("/vmlinuz", "/initrd.img"),
    ("/boot/vmlinuz", "/boot/initrd.img"),
];

/// The largest menu, in bytes.
const MAX_MENU: u64 = 1 << 20;
/// The largest kernel, in bytes.
pub const MAX_KERNEL: u64 = 256 << 20;
/// The largest initial RAM disk, in bytes.
pub const MAX_RAMDISK: u64 = 1 << 30;

/// A file and its length in bytes.
pub struct Opened {
    /// The file, at its start.
    pub file: File,
    /// Its length.
    pub len: u64,
}

/// What a disk boots.
pub struct Found {
    /// The entry.
    pub boot: Boot,
    /// Its kernel.
    pub kernel: Opened,
    /// Its initial RAM disk.
    pub ramdisk: Option<Opened>,
}

/// A partition as the file system's reader wants it.
struct Reader(Partition);

impl Ext4Read for Reader {
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Box<dyn StdError + Send + Sync>> {
        Ok(self.0.read_at(at, to)?)
    }
}

/// Finds what `wanted`, else the boot menu's default names. `wanted` is an entry of the menu (a number from 0, a title, an identifier,
/// with `>` before entries of submenus) or files: `/vmlinuz,/initrd`, with a device and a colon before them or not.
///
/// # Errors
///
/// What was looked at and not found, in one line.
pub fn find(partitions: &[Partition], wanted: Option<&str>) -> Result<Found, String> {
    let mut notes = Vec::new();
    let mut systems = Vec::new();
    for partition in partitions {
        match Ext4::load(Box::new(Reader(partition.clone()))) {
            Ok(system) => systems.push((partition.number, system)),
            Err(error) => notes.push(format!("{}: {error}", place(partition.number))),
        }
    }
    if systems.is_empty() {
        return Err(format!(
            "there is no ext2, ext3 or ext4 file system ({})",
            notes.join("; ")
        ));
    }
    if let Some(boot) = wanted.and_then(files) {
        return open_on(&systems, 0, boot);
    }
    for (index, (number, system)) in systems.iter().enumerate() {
        if let Some((path, menu)) = menu_on(system) {
            let boot = menu
                .choose(wanted)
                .map_err(|error| format!("{}: {path}: {error}", place(*number)))?;
            return open_on(&systems, index, boot.clone());
        }
    }
    if wanted.is_none()
        && let Some(found) = plain(&systems)
    {
        return Ok(found);
    }
    let looked: Vec<String> = systems.iter().map(|(number, _)| place(*number)).collect();
    Err(format!(
        "there is no boot menu (grub.cfg or menu.lst) on {}",
        looked.join(", ")
    ))
}

/// A partition as messages name it.
fn place(number: u32) -> String {
    if number == 0 {
        "the whole disk".to_owned()
    } else {
        format!("partition {number}")
    }
}

/// The files that `wanted` spells.
fn files(wanted: &str) -> Option<Boot> {
    let paths = match wanted.split_once(":/") {
        Some((device, _)) if !device.contains(['/', ' ', '>']) => wanted.get(device.len() + 1..)?,
        _ => wanted,
    };
    let (kernel, ramdisk) = match paths.split_once(',') {
        Some((kernel, ramdisk)) => (kernel, Some(ramdisk.trim().to_owned())),
        None => (paths, None),
    };
    kernel.starts_with('/').then(|| Boot {
        title: wanted.to_owned(),
        kernel: kernel.trim().to_owned(),
        ramdisk: ramdisk.filter(|ramdisk| !ramdisk.is_empty()),
        arguments: String::new(),
    })
}

/// The boot menu of a file system, and where it is.
fn menu_on(system: &Ext4) -> Option<(&'static str, Menu)> {
    for path in GRUB {
        if let Some(text) = text(system, path) {
            let block = path.replace("grub.cfg", "grubenv");
            let environment = self::text(system, &block).map(|text| menu::parse_environment(&text));
            return Some((
                path,
                menu::parse_grub(&text, &environment.unwrap_or_default()),
            ));
        }
    }
    LEGACY
        .iter()
        .find_map(|path| Some((*path, menu::parse_legacy(&text(system, path)?))))
}

/// A text file that is not too large.
fn text(system: &Ext4, path: &str) -> Option<String> {
    let opened = open(system, path, MAX_MENU).ok()?;
    let mut bytes = vec![0; usize::try_from(opened.len).ok()?];
    let mut file = opened.file;
    let mut filled = 0;
    while let Some(to) = bytes.get_mut(filled..).filter(|to| !to.is_empty()) {
        match file.read_bytes(to) {
            Ok(0) | Err(_) => break,
            Ok(len) => filled += len,
        }
    }
    bytes.truncate(filled);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a regular file of at most `most` bytes.
fn open(system: &Ext4, path: &str, most: u64) -> Result<Opened, String> {
    let file = system
        .open(path)
        .map_err(|error| format!("{path}: {error}"))?;
    let metadata = file.metadata();
    let len = metadata.len();
    if !metadata.file_type().is_regular_file() || len == 0 || len > most {
        return Err(format!("{path}: it is no file of 1 to {most} bytes"));
    }
    Ok(Opened { file, len })
}

/// Opens what `boot` names, on the file system `first` or, where that lacks it, on another: `/boot` may be a partition of its own,
/// and a menu may name its files either way.
fn open_on(systems: &[(u32, Ext4)], first: usize, boot: Boot) -> Result<Found, String> {
    let order = systems.iter().skip(first).chain(systems.iter().take(first));
    let mut problem = format!("{}: there is no such file", boot.kernel);
    for (_, system) in order {
        let kernel = match open_either(system, &boot.kernel, MAX_KERNEL) {
            Ok(kernel) => kernel,
            Err(error) => {
                problem = error;
                continue;
            }
        };
        let ramdisk = match &boot.ramdisk {
            Some(path) => Some(open_either(system, path, MAX_RAMDISK)?),
            None => None,
        };
        return Ok(Found {
            boot,
            kernel,
            ramdisk,
        });
    }
    Err(format!(
        "the entry `{}` cannot be booted: {problem}",
        boot.title
    ))
}

/// Opens a file by its path, or by its path without `/boot`.
fn open_either(system: &Ext4, path: &str, most: u64) -> Result<Opened, String> {
    let path = clean(path);
    open(system, &path, most).or_else(|error| match path.strip_prefix("/boot/") {
        Some(rest) => open(system, &format!("/{rest}"), most).map_err(|_| error),
        None => Err(error),
    })
}

/// A path without GRUB's device, such as `(hd0,1)`.
fn clean(path: &str) -> String {
    let path = match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, path)) => path,
        None => path,
    };
    format!("/{}", path.trim_start_matches('/'))
}

/// Kernel and initial RAM disk of a file system without menu.
fn plain(systems: &[(u32, Ext4)]) -> Option<Found> {
    for (_, system) in systems {
        for (kernel, ramdisk) in PLAIN {
            if let Ok(opened) = open(system, kernel, MAX_KERNEL) {
                return Some(Found {
                    boot: Boot {
                        title: (*kernel).to_owned(),
                        kernel: (*kernel).to_owned(),
                        ramdisk: Some((*ramdisk).to_owned()),
                        arguments: String::new(),
                    },
                    kernel: opened,
                    ramdisk: open(system, ramdisk, MAX_RAMDISK).ok(),
                });
            }
        }
    }
    None
}
