//! `hypfs_op`: what the hypervisor tells, as a tree that is read by path.
//!
//! `/buildinfo` and `/cpupool` have what Xen 4.17 has there, but for its build configuration. `/domain/ID/vcpu/N/` is Oxen's own: how long
//! the vCPU has been in each run state, in nanoseconds (`runnable` is what others call stolen time). Nothing can be written.

use super::{Answer, Args, VERSION, VersionInfo, low32};
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::vcpu::Vcpu;
use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::str::FromStr;
use oxen_abi::Errno;
use oxen_abi::hypfs::{HypfsDirentry, HypfsDirlistentry, HypfsOp, HypfsType, XEN_HYPFS_MAX_PATHLEN, XEN_HYPFS_VERSION};
use oxen_abi::vcpu::Runstate;
use oxen_abi::zerocopy::IntoBytes;
use oxen_hal::Machine;
use oxen_types::{DomId, Gva, VcpuId};

/// Names in a directory are padded to multiples of this many bytes.
const ALIGNMENT: usize = 4;

/// A directory.
enum Directory {
    Root,
    BuildInfo,
    CompileInfo,
    Version,
    Pools,
    Pool,
    Domains,
    Domain(Arc<Domain>),
    Vcpus(Arc<Domain>),
    Vcpu(Arc<Vcpu>),
}

/// What holds a value.
enum Leaf {
    Text(String),
    Word(u32),
    /// Of a vCPU.
    Nanoseconds(Arc<Vcpu>, Runstate),
}

/// What a path leads to.
enum Entry {
    Directory(Directory),
    Leaf(Leaf),
}

/// An entry's name in its directory.
type Named = (String, Entry);

fn directory(name: &str, directory: Directory) -> Named {
    (name.to_owned(), Entry::Directory(directory))
}

fn text(name: &str, value: &str) -> Named {
    (name.to_owned(), Entry::Leaf(Leaf::Text(value.to_owned())))
}

/// A number written as numbers are in this tree, so that each entry has one name.
fn number<T: FromStr + ToString>(name: &str) -> Option<T> {
    name.parse::<T>().ok().filter(|value| value.to_string() == name)
}

impl<M: Machine> Ctx<'_, M> {
    /// `(command, path or null, its length, buffer, its size)`.
    pub(super) fn hypfs_op(&self, args: &Args) -> Answer {
        self.require_control()?;
        let [_, path, length, buffer, size, _] = *args;
        match HypfsOp(low32(args[0])) {
            HypfsOp::GET_VERSION if [path, length, buffer, size] == [0; 4] => Ok(XEN_HYPFS_VERSION.into()),
            HypfsOp::GET_VERSION => Err(Errno::EINVAL),
            HypfsOp::READ => {
                let told = self.find(Gva(path), length).and_then(|entry| self.tell(&entry, Gva(buffer), size));
                // A domain that ended meanwhile may have waited for this.
                self.hv.bury_dead();
                told.map(|()| 0)
            }
            op => {
                self.find(Gva(path), length)?;
                Err(if op == HypfsOp::WRITE_CONTENTS { Errno::EACCES } else { Errno::EOPNOTSUPP })
            }
        }
    }

    /// The entry whose path, with a zero at the end, is in the guest's memory.
    fn find(&self, path: Gva, length: u64) -> Result<Entry, Errno> {
        if length > XEN_HYPFS_MAX_PATHLEN {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; XEN_HYPFS_MAX_PATHLEN as usize];
        let bytes = bytes.get_mut(..length as usize).ok_or(Errno::EINVAL)?;
        self.machine().copy_from_guest(bytes, path).map_err(|_| Errno::EFAULT)?;
        let Some((0, name)) = bytes.split_last() else { return Err(Errno::EINVAL) };
        if name.contains(&0) {
            return Err(Errno::EINVAL);
        }
        let Some((b'/', rest)) = name.split_first() else { return Err(Errno::EINVAL) };
        let rest = core::str::from_utf8(rest).map_err(|_| Errno::ENOENT)?;
        // A directory may be named with a slash behind it.
        let (rest, is_directory) = match rest.strip_suffix('/') {
            Some(shorter) => (shorter, true),
            None => (rest, false),
        };
        let mut entry = Entry::Directory(Directory::Root);
        if rest.is_empty() && !is_directory {
            return Ok(entry);
        }
        for name in rest.split('/') {
            let Entry::Directory(within) = &entry else { return Err(Errno::ENOENT) };
            entry = self.entry(within, name).ok_or(Errno::ENOENT)?;
        }
        if is_directory && !matches!(entry, Entry::Directory(_)) {
            return Err(Errno::ENOENT);
        }
        Ok(entry)
    }

    /// The entry of a directory with this name.
    fn entry(&self, within: &Directory, name: &str) -> Option<Entry> {
        match within {
            Directory::Domains => self.hv.domains.get(DomId(number(name)?)).map(|domain| Entry::Directory(Directory::Domain(domain))),
            Directory::Vcpus(domain) => domain.vcpu(VcpuId(number(name)?)).map(|vcpu| Entry::Directory(Directory::Vcpu(vcpu.clone()))),
            other => self.entries(other).into_iter().find(|(other, _)| other == name).map(|(_, entry)| entry),
        }
    }

    /// All entries of a directory, in the order in which they are told.
    fn entries(&self, within: &Directory) -> Vec<Named> {
        let unknown = VersionInfo::default();
        let info = self.hv.version.get().unwrap_or(&unknown);
        match within {
            Directory::Root => [
                directory("buildinfo", Directory::BuildInfo),
                directory("cpupool", Directory::Pools),
                directory("domain", Directory::Domains),
            ]
            .into(),
            Directory::BuildInfo => {
                [text("changeset", &info.changeset), directory("compileinfo", Directory::CompileInfo), directory("version", Directory::Version)].into()
            }
            Directory::CompileInfo => [
                text("compile_by", &info.compile_by),
                text("compile_date", &info.compile_date),
                text("compile_domain", &info.compile_domain),
                text("compiler", &info.compiler),
            ]
            .into(),
            Directory::Version => [
                text("extra", &info.extra),
                ("major".to_owned(), Entry::Leaf(Leaf::Word((VERSION >> 16) as u32))),
                ("minor".to_owned(), Entry::Leaf(Leaf::Word(VERSION as u32 & 0xffff))),
            ]
            .into(),
            Directory::Pools => [directory("0", Directory::Pool)].into(),
            Directory::Pool => [text("sched-gran", "cpu")].into(),
            Directory::Domains => {
                let domains = self.hv.domains.snapshot().into_iter();
                domains.map(|domain| directory(&domain.id.0.to_string(), Directory::Domain(domain))).collect()
            }
            Directory::Domain(domain) => [directory("vcpu", Directory::Vcpus(domain.clone()))].into(),
            Directory::Vcpus(domain) => domain.vcpus().map(|vcpu| directory(&vcpu.id.0.to_string(), Directory::Vcpu(vcpu.clone()))).collect(),
            Directory::Vcpu(vcpu) => {
                let states = [("blocked", Runstate::BLOCKED), ("offline", Runstate::OFFLINE), ("runnable", Runstate::RUNNABLE), ("running", Runstate::RUNNING)];
                states.map(|(name, state)| (name.to_owned(), Entry::Leaf(Leaf::Nanoseconds(vcpu.clone(), state)))).into()
            }
        }
    }

    /// Writes what an entry is and what it holds; only what it is, and an error, when the buffer is too small for both.
    fn tell(&self, entry: &Entry, buffer: Gva, size: u64) -> Result<(), Errno> {
        let (kind, content) = match entry {
            Entry::Directory(within) => (HypfsType::DIR, self.listing(within)),
            Entry::Leaf(leaf) => self.value(leaf),
        };
        let head = HypfsDirentry { kind, content_len: content.len() as u32, ..HypfsDirentry::default() };
        let head_size = size_of::<HypfsDirentry>() as u64;
        if size < head_size {
            return Err(Errno::EINVAL);
        }
        self.write(buffer, &head)?;
        if size - head_size < content.len() as u64 {
            return Err(Errno::ENOBUFS);
        }
        self.write(buffer.checked_add(head_size).ok_or(Errno::EFAULT)?, content.as_slice())
    }

    /// A value and of what type it is.
    fn value(&self, leaf: &Leaf) -> (HypfsType, Vec<u8>) {
        match leaf {
            Leaf::Text(text) => (HypfsType::STRING, text.bytes().chain([0]).collect()),
            Leaf::Word(value) => (HypfsType::UINT, value.to_le_bytes().into()),
            Leaf::Nanoseconds(vcpu, state) => {
                let times = vcpu.runstate.lock().info_at(self.machine().now_ns()).time;
                let time: u64 = times.get(state.raw() as usize).copied().unwrap_or_default();
                (HypfsType::UINT, time.to_le_bytes().into())
            }
        }
    }

    fn listing(&self, within: &Directory) -> Vec<u8> {
        let entries = self.entries(within);
        let mut listing = Vec::new();
        for (index, (name, entry)) in entries.iter().enumerate() {
            let size = size_in_directory(name);
            let next = if index + 1 < entries.len() { size as u16 } else { 0 };
            let end = listing.len() + size;
            let (kind, length) = match entry {
                Entry::Directory(within) => (HypfsType::DIR, self.entries(within).iter().map(|(name, _)| size_in_directory(name)).sum()),
                Entry::Leaf(leaf) => {
                    let (kind, value) = self.value(leaf);
                    (kind, value.len())
                }
            };
            let head = HypfsDirentry { kind, content_len: length as u32, ..HypfsDirentry::default() };
            listing.extend_from_slice(head.as_bytes());
            listing.extend_from_slice(&next.to_le_bytes());
            listing.extend_from_slice(name.as_bytes());
            listing.resize(end, 0);
        }
        listing
    }
}

/// Bytes that an entry takes in its directory's listing.
fn size_in_directory(name: &str) -> usize {
    HypfsDirlistentry::NAME + (name.len() + 1).next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::testing::{BUFFER, D5, NOWHERE, World};
    use oxen_abi::Hypercall;
    use oxen_hal::Clock;

    const READ: u64 = HypfsOp::READ.0 as u64;
    /// Room for an answer.
    const ROOM: u64 = 4096;

    /// Makes a call about `path`, which gets its zero here.
    fn call(w: &World, caller: DomId, op: HypfsOp, path: &str, room: u64) -> Answer {
        let mut bytes = [0_u8; 64];
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        let length = path.len() as u64 + 1;
        w.call_with(caller, Hypercall::HYPFS_OP, |at| [op.0.into(), at, length, BUFFER.0, room, 0], &mut bytes)
    }

    fn read(w: &World, path: &str) -> Result<(HypfsDirentry, Vec<u8>), Errno> {
        call(w, DomId::DOM0, HypfsOp::READ, path, ROOM)?;
        let head: HypfsDirentry = w.peek(BUFFER);
        let bytes: [u8; 1024] = w.peek(BUFFER.checked_add(size_of::<HypfsDirentry>() as u64).unwrap());
        Ok((head, bytes[..head.content_len as usize].to_vec()))
    }

    /// The names in a directory.
    fn names(w: &World, path: &str) -> Vec<String> {
        let (head, content) = read(w, path).unwrap();
        assert_eq!(head.kind, HypfsType::DIR);
        let mut names = Vec::new();
        let mut rest = content.as_slice();
        loop {
            let name = rest[HypfsDirlistentry::NAME..].split(|byte| *byte == 0).next().unwrap();
            names.push(String::from_utf8(name.to_vec()).unwrap());
            match u16::from_le_bytes([rest[12], rest[13]]) {
                0 => {
                    assert!(rest.len() < HypfsDirlistentry::NAME + name.len() + 1 + ALIGNMENT);
                    return names;
                }
                next => rest = &rest[next.into()..],
            }
        }
    }

    #[test]
    fn directories_list_what_is_there() {
        let w = World::new();
        assert_eq!(names(&w, "/"), ["buildinfo", "cpupool", "domain"]);
        assert_eq!(names(&w, "/domain"), ["0", "5"]);
        assert_eq!(names(&w, "/domain/5/vcpu/"), ["0", "1"]);
        assert_eq!(names(&w, "/domain/5/vcpu/1"), ["blocked", "offline", "runnable", "running"]);
        assert_eq!(names(&w, "/buildinfo/compileinfo"), ["compile_by", "compile_date", "compile_domain", "compiler"]);
    }

    #[test]
    fn values_have_types() {
        let w = World::new();
        let (head, content) = read(&w, "/buildinfo/version/minor").unwrap();
        assert_eq!((head.kind, content), (HypfsType::UINT, 17_u32.to_le_bytes().to_vec()));
        let (head, content) = read(&w, "/cpupool/0/sched-gran").unwrap();
        assert_eq!((head.kind, content.as_slice()), (HypfsType::STRING, b"cpu\0".as_slice()));
    }

    #[test]
    fn times_are_those_of_the_vcpu() {
        let w = World::new();
        let vcpu = w.domain(D5).vcpu(VcpuId(1)).unwrap().clone();
        let now = w.machine.now_ns();
        vcpu.runstate.lock().enter(Runstate::RUNNABLE, now);
        vcpu.runstate.lock().enter(Runstate::RUNNING, now + 700);
        let (head, content) = read(&w, "/domain/5/vcpu/1/runnable").unwrap();
        assert_eq!((head.kind, head.max_write_len, content), (HypfsType::UINT, 0, 700_u64.to_le_bytes().to_vec()));
    }

    #[test]
    fn refusals() {
        let w = World::new();
        assert_eq!(call(&w, D5, HypfsOp::READ, "/", ROOM), Err(Errno::EPERM));
        for path in ["/nothing", "//", "/domain/7", "/domain/05", "/domain/5/vcpu/2", "/buildinfo/changeset/", "/buildinfo/changeset/x", "/domain/-1"] {
            assert_eq!(read(&w, path).err(), Some(Errno::ENOENT), "{path}");
        }
        for path in ["", "buildinfo"] {
            assert_eq!(read(&w, path).err(), Some(Errno::EINVAL), "{path}");
        }
        assert_eq!(call(&w, DomId::DOM0, HypfsOp::WRITE_CONTENTS, "/cpupool/0/sched-gran", 4), Err(Errno::EACCES));
        let raw = |args: Args| w.dispatch(DomId::DOM0, Hypercall::HYPFS_OP, &mut args.clone());
        assert_eq!(raw([0; 6]), Ok(1));
        assert_eq!(raw([0, 1, 0, 0, 0, 0]), Err(Errno::EINVAL));
        assert_eq!(raw([9, 0, 0, 0, 0, 0]), Err(Errno::EINVAL));
        assert_eq!(call(&w, DomId::DOM0, HypfsOp(9), "/", ROOM), Err(Errno::EOPNOTSUPP));
        assert_eq!(raw([READ, BUFFER.0, 0, BUFFER.0, ROOM, 0]), Err(Errno::EINVAL));
        assert_eq!(raw([READ, BUFFER.0, XEN_HYPFS_MAX_PATHLEN + 1, BUFFER.0, ROOM, 0]), Err(Errno::EINVAL));
        assert_eq!(raw([READ, NOWHERE.0, 2, BUFFER.0, ROOM, 0]), Err(Errno::EFAULT));
        w.poke(BUFFER, b"/a\0/\0");
        assert_eq!(raw([READ, BUFFER.0, 5, BUFFER.0, ROOM, 0]), Err(Errno::EINVAL));
        w.poke(BUFFER, b"/\0");
        assert_eq!(raw([READ, BUFFER.0, 1, BUFFER.0, ROOM, 0]), Err(Errno::EINVAL));
        assert_eq!(raw([READ, BUFFER.0, 2, NOWHERE.0, ROOM, 0]), Err(Errno::EFAULT));
    }

    #[test]
    fn a_small_buffer_gets_to_know_the_size() {
        let w = World::new();
        assert_eq!(call(&w, DomId::DOM0, HypfsOp::READ, "/", 11), Err(Errno::EINVAL));
        let (whole, _) = read(&w, "/").unwrap();
        w.poke(BUFFER, &[0; 12]);
        let needed = 12 + u64::from(whole.content_len);
        assert_eq!(call(&w, DomId::DOM0, HypfsOp::READ, "/", needed - 1), Err(Errno::ENOBUFS));
        assert_eq!(w.peek::<HypfsDirentry>(BUFFER), whole);
        assert_eq!(call(&w, DomId::DOM0, HypfsOp::READ, "/", needed), Ok(0));
    }
}
