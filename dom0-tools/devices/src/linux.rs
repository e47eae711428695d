//! The running kernel.

use crate::kernel::{
    Access, FileId, Kernel, Link, LinkChange, LoopUse, Mount, NewLoop, Number, Target,
};
use crate::netlink;
use oxen_xenctl::loop_device;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

const NET: &str = "/sys/class/net";
const BLOCK: &str = "/sys/block";
const BACKENDS: &str = "/sys/bus/xen-backend/devices";

/// The kernel that this runs on.
#[derive(Debug)]
pub(crate) struct Linux;

impl Kernel for Linux {
    fn link(&self, name: &str) -> io::Result<Option<Link>> {
        link_in(&Path::new(NET).join(name))
    }

    fn bridges(&self) -> io::Result<Vec<String>> {
        let mut names = entries(Path::new(NET))?;
        names.retain(|name| Path::new(NET).join(name).join("bridge").is_dir());
        Ok(names)
    }

    fn set_link(&self, index: u32, change: &LinkChange) -> io::Result<()> {
        netlink::set_link(index, change)
    }

    fn add_host_route(&self, index: u32, ip: IpAddr) -> io::Result<()> {
        netlink::add_host_route(index, ip)
    }

    fn answer_for_others(&self, name: &str) -> io::Result<()> {
        switch_on(&format!("ipv4/conf/{name}/proxy_arp"))?;
        switch_on(&format!("ipv4/conf/{name}/forwarding"))
    }

    fn answer_for(&self, name: &str, ip: IpAddr) -> io::Result<()> {
        if ip.is_ipv4() {
            return self.answer_for_others(name);
        }
        switch_on(&format!("ipv6/conf/{name}/proxy_ndp"))?;
        switch_on(&format!("ipv6/conf/{name}/forwarding"))?;
        let link = self
            .link(name)?
            .ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        netlink::add_neighbour_proxy(link.index, ip)
    }

    fn target(&self, path: &Path) -> io::Result<Target> {
        let meta = fs::metadata(path)?;
        let kind = meta.file_type();
        Ok(if kind.is_block_device() {
            Target::Device(number(meta.rdev()))
        } else if kind.is_file() {
            Target::File(
                FileId {
                    device: meta.dev(),
                    inode: meta.ino(),
                },
                meta.len(),
            )
        } else if kind.is_dir() {
            Target::Other("a directory")
        } else if kind.is_char_device() {
            Target::Other("a character device")
        } else {
            Target::Other("neither a file nor a block device")
        })
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        // Without O_NONBLOCK a drive without a medium would be waited for.
        let flags = if access.exclusive {
            OFlags::EXCL | OFlags::NONBLOCK
        } else {
            OFlags::NONBLOCK
        };
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        OpenOptions::new()
            .read(true)
            .write(access.write)
            .custom_flags(flags)
            .open(path)
    }

    fn loops(&self) -> io::Result<Vec<LoopUse>> {
        let mut found = Vec::new();
        for name in entries(Path::new(BLOCK))? {
            let Some(index) = name
                .strip_prefix("loop")
                .and_then(|index| index.parse().ok())
            else {
                continue;
            };
            // The directory is there while the device is bound.
            if Path::new(BLOCK).join(&name).join("loop").is_dir() {
                found.extend(loop_use(index)?);
            }
        }
        Ok(found)
    }

    fn bind_loop(&self, file: &File, read_only: bool) -> io::Result<NewLoop> {
        let bound = loop_device::bind(file.as_fd(), read_only)?;
        let number = number(bound.device.metadata()?.rdev());
        Ok(NewLoop {
            device: bound.device,
            index: bound.number,
            number,
        })
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(text.lines().filter_map(mount).collect())
    }

    fn holders(&self, number: Number) -> io::Result<Vec<String>> {
        let Number { major, minor } = number;
        match entries(&PathBuf::from(format!(
            "/sys/dev/block/{major}:{minor}/holders"
        ))) {
            // A partition that has none may lack the directory.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            found => found,
        }
    }

    fn backend(&self, kind: &str, domid: u16, devid: u32) -> Option<PathBuf> {
        // The link goes before the driver has let go of the device, what it points to goes after.
        fs::canonicalize(format!("{BACKENDS}/{kind}-{domid}-{devid}")).ok()
    }
}

/// Sets a switch of the network stack (`ip-sysctl` of the kernel's documentation).
fn switch_on(name: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, "1").map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

fn loop_use(index: u32) -> io::Result<Option<LoopUse>> {
    let device = match File::open(format!("/dev/loop{index}")) {
        Ok(device) => device,
        // It is being unbound.
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound)
                || error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let number = number(device.metadata()?.rdev());
    Ok(loop_device::status(&device)?.map(|status| LoopUse {
        index,
        number,
        file: FileId {
            device: status.file_device,
            inode: status.file_inode,
        },
        read_only: status.read_only,
    }))
}

/// Reads a line of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
fn mount(line: &str) -> Option<Mount> {
    let (of_mount, of_file_system) = line.split_once(" - ")?;
    let mut words = of_mount.split(' ').skip(2);
    let (major, minor) = words.next()?.split_once(':')?;
    let place = words.nth(1)?.to_owned();
    let is_writable = |options: &str| options.split(',').any(|option| option == "rw");
    // The file system writes if any of its mounts does, and its own options say so.
    let writable = of_file_system.rsplit(' ').next().is_some_and(is_writable);
    Some(Mount {
        number: Number {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        },
        place,
        writable,
    })
}

fn number(device: u64) -> Number {
    Number {
        major: rustix::fs::major(device),
        minor: rustix::fs::minor(device),
    }
}

/// The names in a directory, sorted.
fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The network interface with this directory; `None` where it is not there, or not yet whole: the kernel makes the directory before the files in it.
fn link_in(dir: &Path) -> io::Result<Option<Link>> {
    let read = || -> io::Result<Link> {
        Ok(Link {
            index: read_number(&dir.join("ifindex"))?,
            mtu: read_number(&dir.join("mtu"))?,
            is_bridge: dir.join("bridge").is_dir(),
        })
    };
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn read_number<T: FromStr>(path: &Path) -> io::Result<T> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| {
        io::Error::other(format!(
            "{}: `{}` is no number",
            path.display(),
            text.trim()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_under_construction_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        assert!(link_in(&dir.path().join("vif1.0")).unwrap().is_none());
        assert!(link_in(dir.path()).unwrap().is_none());
        std::fs::write(dir.path().join("ifindex"), "7\n").unwrap();
        assert!(link_in(dir.path()).unwrap().is_none());
        std::fs::write(dir.path().join("mtu"), "1500\n").unwrap();
        let link = link_in(dir.path()).unwrap().unwrap();
        assert_eq!((link.index, link.mtu, link.is_bridge), (7, 1500, false));
    }

    #[test]
    fn mounts_are_read() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root ro,errors=continue";
        let expected = Mount {
            number: Number {
                major: 98,
                minor: 0,
            },
            place: "/mnt2".to_owned(),
            writable: false,
        };
        assert_eq!(mount(line), Some(expected));
        assert_eq!(mount("36 35"), None);
        assert!(
            Linux
                .mounts()
                .unwrap()
                .iter()
                .any(|mount| mount.place == "/")
        );
    }

    #[test]
    fn targets_are_told_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let meta = file.as_file().metadata().unwrap();
        let id = FileId {
            device: meta.dev(),
            inode: meta.ino(),
        };
        assert_eq!(Linux.target(file.path()).unwrap(), Target::File(id, 4096));
        assert_eq!(
            Linux.target(Path::new("/dev/null")).unwrap(),
            Target::Other("a character device")
        );
        assert_eq!(
            Linux.target(Path::new("/")).unwrap(),
            Target::Other("a directory")
        );
        assert_eq!(
            Linux.target(Path::new("/nonexistent")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn the_loopback_interface_is_no_bridge() {
        let link = Linux.link("lo").unwrap().unwrap();
        assert!(!link.is_bridge && link.index > 0 && link.mtu > 0);
        assert_eq!(Linux.link("nonexistent").unwrap(), None);
        assert!(!Linux.bridges().unwrap().contains(&"lo".to_owned()));
    }

    #[test]
    #[ignore = "needs root and free loop devices"]
    fn a_loop_device_lives_as_long_as_it_is_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let Target::File(id, _) = Linux.target(file.path()).unwrap() else {
            panic!("a file is not seen as one");
        };
        let users = || {
            let mut loops = Linux.loops().unwrap();
            loops.retain(|user| user.file == id);
            loops
        };
        let bound = Linux.bind_loop(file.as_file(), false).unwrap();
        let path = format!("/dev/loop{}", bound.index);
        assert_eq!(users().len(), 1);
        assert!(!users()[0].read_only && users()[0].number == bound.number);
        assert_eq!(
            Linux.target(Path::new(&path)).unwrap(),
            Target::Device(bound.number)
        );
        let claim = Access {
            write: true,
            exclusive: true,
        };
        let refused = Linux.open(Path::new(&path), claim).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
        drop(bound);
        assert_eq!(users(), []);
        let bound = Linux.bind_loop(file.as_file(), true).unwrap();
        assert!(users()[0].read_only);
        drop(bound);
    }

    /// In a network namespace of its own: `unshare -nm sh -c 'mount -t sysfs sysfs /sys; cargo test -p oxen-devices -- --ignored'`.
    #[test]
    #[ignore = "needs root, changes the network"]
    fn an_interface_joins_a_bridge() {
        let ip = |arguments: &str| {
            let mut command = std::process::Command::new("ip");
            let output = command.args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "ip {arguments}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        ip("link add br0 type bridge");
        ip("link add one type veth peer name other");
        assert_eq!(Linux.bridges().unwrap(), ["br0"]);
        let bridge = Linux.link("br0").unwrap().unwrap();
        let one = Linux.link("one").unwrap().unwrap();
        let change = LinkChange {
            name: Some("web".to_owned()),
            mtu: Some(1400),
            bridge: Some(bridge.index),
            up: true,
            arp: Some(false),
        };
        Linux.set_link(one.index, &change).unwrap();
        let shown = ip("link show dev web");
        for part in ["mtu 1400", "master br0", "NOARP", ",UP"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let other = Linux.link("other").unwrap().unwrap();
        let up = LinkChange {
            up: true,
            ..LinkChange::default()
        };
        Linux.set_link(other.index, &up).unwrap();
        for _ in 0..2 {
            Linux
                .add_host_route(other.index, "10.9.8.7".parse().unwrap())
                .unwrap();
        }
        assert_eq!(
            ip("route show dev other").trim_end(),
            "10.9.8.7 proto static scope link"
        );
        Linux.answer_for_others("other").unwrap();
        Linux
            .answer_for("other", "fd00::7".parse().unwrap())
            .unwrap();
        assert!(ip("-6 neigh show proxy").contains("fd00::7"));
    }
}
