//! What is needed of the kernel.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Number {
    /// Reads a back end's `physical-device`: `fd:1a`, in hexadecimal.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        let hex = |digits| u32::from_str_radix(digits, 16).ok();
        Some(Self {
            major: hex(major)?,
            minor: hex(minor)?,
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.major, self.minor)
    }
}

/// The identity of a file, whatever paths lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    /// `st_dev`.
    pub(crate) device: u64,
    /// `st_ino`.
    pub(crate) inode: u64,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A block device.
    Device(Number),
    /// A regular file and its length in bytes.
    File(FileId, u64),
    /// Something that cannot be a disk: what it is.
    Other(&'static str),
}

/// How to open a disk's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) write: bool,
    /// Only if nobody else in domain 0 has claimed the block device, and keeping others from it.
    pub(crate) exclusive: bool,
}

/// A loop device in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoopUse {
    /// It is `/dev/loopINDEX`.
    pub(crate) index: u32,
    pub(crate) number: Number,
    pub(crate) file: FileId,
    pub(crate) read_only: bool,
}

/// A loop device that was made for a disk.
#[derive(Debug)]
pub(crate) struct NewLoop {
    pub(crate) device: File,
    pub(crate) index: u32,
    pub(crate) number: Number,
}

/// A mounted block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) number: Number,
    pub(crate) place: String,
    pub(crate) writable: bool,
}

/// A network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    /// The longest packet, in bytes.
    pub(crate) mtu: u32,
    pub(crate) is_bridge: bool,
}

/// What to change of a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LinkChange {
    pub(crate) name: Option<String>,
    pub(crate) mtu: Option<u32>,
    /// The bridge to join, by its index.
    pub(crate) bridge: Option<u32>,
    pub(crate) up: bool,
    /// Whether the interface itself answers ARP requests; `None` leaves that.
    pub(crate) arp: Option<bool>,
}

/// The kernel of domain 0.
pub(crate) trait Kernel: Send + Sync {
    /// The network interface `name`, if there is one.
    fn link(&self, name: &str) -> io::Result<Option<Link>>;

    /// The names of all bridges, sorted.
    fn bridges(&self) -> io::Result<Vec<String>>;

    /// Changes the network interface with this index.
    fn set_link(&self, index: u32, change: &LinkChange) -> io::Result<()>;

    /// Routes packets to `ip` through the interface with this index.
    fn add_host_route(&self, index: u32, ip: IpAddr) -> io::Result<()>;

    /// Makes the interface `name` answer ARP requests for addresses that domain 0 has routes to, and forward packets.
    fn answer_for_others(&self, name: &str) -> io::Result<()>;

    /// Makes the interface `name` answer for `ip`, which is behind another one.
    fn answer_for(&self, name: &str, ip: IpAddr) -> io::Result<()>;

    /// What a path leads to.
    fn target(&self, path: &Path) -> io::Result<Target>;

    /// Opens a disk's data.
    fn open(&self, path: &Path, access: Access) -> io::Result<File>;

    /// All loop devices in use.
    fn loops(&self) -> io::Result<Vec<LoopUse>>;

    /// Makes a loop device of a file; it ends when the last one closes it.
    fn bind_loop(&self, file: &File, read_only: bool) -> io::Result<NewLoop>;

    /// All mounted block devices.
    fn mounts(&self) -> io::Result<Vec<Mount>>;

    /// Names of block devices that are made of this one, such as logical volumes.
    fn holders(&self, number: Number) -> io::Result<Vec<String>>;

    /// The directory in which the kernel shows the back end of a device, while a driver serves it.
    fn backend(&self, kind: &str, domid: u16, devid: u32) -> Option<PathBuf>;
}
