//! A kernel of domain 0 for tests: disks, loop devices, network interfaces and back-end drivers that exist in this process only.

use crate::kernel::{Access, FileId, Kernel, Link, LinkChange, LoopUse, Mount, NewLoop, Number, Target};
use crate::{Devices, Settings};
use oxen_xenstore::{Nodes, Store};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// The major number of loop devices.
const LOOP_MAJOR: u32 = 7;
/// Indexes of interfaces that the played driver makes.
const FIRST_INDEX: u32 = 1000;

/// What the kernel has, and what was done with it.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) targets: BTreeMap<PathBuf, Target>,
    /// Targets that somebody in domain 0 has claimed.
    pub(crate) claimed: BTreeSet<PathBuf>,
    /// Targets that cannot be written.
    read_only: BTreeSet<PathBuf>,
    /// Loop devices that nobody lets go of.
    pub(crate) loops: Vec<LoopUse>,
    /// Loop devices that were made here.
    bound: Vec<(LoopUse, Opened)>,
    /// Block devices that are open for somebody alone.
    exclusive: Vec<(PathBuf, Opened)>,
    /// Which file an open one is, by its inode.
    files: BTreeMap<u64, FileId>,
    /// What back ends have open.
    served: BTreeMap<(u16, u32), String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) links: BTreeMap<String, Link>,
    /// Interfaces of back ends by domain and device: their indexes.
    cards: BTreeMap<(u16, u32), u32>,
    pub(crate) done: Vec<String>,
    /// The drivers have let go of every device.
    pub(crate) drivers_are_gone: bool,
}

/// The other end of an open file: tells when it is closed, or its process killed.
struct Opened {
    stream: UnixStream,
    process: Arc<AtomicBool>,
}

impl Opened {
    /// A file, and what knows whether it is open.
    fn new(process: &Arc<AtomicBool>) -> io::Result<(File, Self)> {
        let (theirs, stream) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        Ok((File::from(OwnedFd::from(theirs)), Self { stream, process: Arc::clone(process) }))
    }

    fn is_open(&self) -> bool {
        self.process.load(Ordering::Relaxed) && !matches!((&self.stream).read(&mut [0]), Ok(0))
    }
}

impl World {
    /// Forgets what is closed.
    fn sweep(&mut self) {
        let served = &self.served;
        self.bound.retain(|(it, opened)| opened.is_open() || served.values().any(|number| *number == it.number.to_string()));
        self.exclusive.retain(|(_, opened)| opened.is_open());
    }
}

/// The kernel, as one process sees it. Clones are the same process.
#[derive(Clone)]
pub struct FakeKernel {
    world: Arc<Mutex<World>>,
    process: Arc<AtomicBool>,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self { world: Arc::default(), process: Arc::new(AtomicBool::new(true)) }
    }
}

impl FakeKernel {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same kernel for another process.
    pub fn process(&self) -> Self {
        Self { world: Arc::clone(&self.world), process: Arc::new(AtomicBool::new(true)) }
    }

    /// Ends the process: all its files are closed.
    pub fn kill(&self) {
        self.process.store(false, Ordering::Relaxed);
    }

    /// There is a block device.
    pub fn device(&self, path: &str, minor: u32) {
        self.world().targets.insert(path.into(), Target::Device(Number { major: 8, minor }));
    }

    /// There is a file that can hold a disk.
    pub fn file(&self, path: &str, inode: u64) {
        self.world().targets.insert(path.into(), Target::File(FileId { device: 1, inode }, 4096));
    }

    /// What is at `path` cannot be written.
    pub fn make_read_only(&self, path: &str) {
        self.world().read_only.insert(path.into());
    }

    /// There is a network interface.
    pub fn interface(&self, name: &str, index: u32, is_bridge: bool) {
        self.world().links.insert(name.into(), Link { index, mtu: 1500, is_bridge });
    }

    /// What of guests there is in the kernel, in words: loop devices, claims, open back ends and their interfaces.
    pub fn in_use(&self) -> Vec<String> {
        let mut world = self.world();
        world.sweep();
        let loops = world.bound.iter().map(|(it, _)| format!("/dev/loop{}", it.index));
        let claims = world.exclusive.iter().map(|(path, _)| format!("claim of {}", path.display()));
        let served = world.served.iter().map(|((domid, devid), number)| format!("vbd {domid}/{devid} has {number} open"));
        let cards = world.cards.keys().map(|(domid, devid)| format!("vif{domid}.{devid}"));
        loops.chain(claims).chain(served).chain(cards).collect()
    }

    /// Plays the back-end drivers: new back ends wait for their guest, those whose guest's end is gone or closed close. `store` becomes theirs.
    ///
    /// # Errors
    ///
    /// When xenstored cannot be watched.
    pub fn drivers(&self, store: Store) -> io::Result<FakeDrivers> {
        let (stop, stopped) = UnixStream::pair()?;
        store.watch("/local/domain", "").map_err(io::Error::other)?;
        let kernel = self.clone();
        let thread = spawn(move || {
            let mut polled = [PollFd::from_borrowed_fd(store.event_fd(), PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
            while poll(&mut polled, None).is_ok() && polled.last().is_some_and(|stopped| stopped.revents().is_empty()) {
                while let Ok(Some(_)) = store.next_event(Some(Duration::ZERO)) {}
                // A store that went away ends the test in any case.
                if kernel.drive(&store).is_err() {
                    return;
                }
            }
        });
        Ok(FakeDrivers { stop: Some(stop), thread: Some(thread) })
    }

    /// One look of the drivers at all back ends.
    fn drive(&self, store: &Store) -> oxen_xenstore::Result<()> {
        for kind in ["vbd", "vif"] {
            let root = format!("/local/domain/0/backend/{kind}");
            let mut seen = BTreeSet::new();
            for domid in children(store, &root)? {
                for devid in children(store, &format!("{root}/{domid}"))? {
                    let (Ok(number), Ok(device)) = (domid.parse(), devid.parse()) else { continue };
                    seen.insert((number, device));
                    self.drive_one(store, kind, number, device)?;
                }
            }
            self.close_others(kind, &seen);
        }
        Ok(())
    }

    fn drive_one(&self, store: &Store, kind: &str, domid: u16, devid: u32) -> oxen_xenstore::Result<()> {
        let backend = format!("/local/domain/0/backend/{kind}/{domid}/{devid}");
        // Guests write what they like there.
        let front = store.read(&format!("/local/domain/{domid}/device/{kind}/{devid}/state")).ok();
        let front = front.map(|state| String::from_utf8_lossy(&state).into_owned());
        let state = store.try_read(&format!("{backend}/state"))?;
        let next = match (front.as_deref(), state.as_deref()) {
            // The driver for disks lets go without a word, unless it was told to close.
            (None, Some("1" | "2" | "4")) if kind == "vbd" => {
                self.close_backend(kind, domid, devid);
                return Ok(());
            }
            (None | Some("6"), Some("1" | "2" | "4" | "5")) => "6",
            (Some(_), Some("1")) => "2",
            (Some("4"), Some("2")) => "4",
            _ => return Ok(()),
        };
        match next {
            "2" => self.open_backend(kind, domid, devid, store.try_read(&format!("{backend}/physical-device"))?),
            "6" => self.close_backend(kind, domid, devid),
            _ => {}
        }
        store.transaction(|t| if t.exists(&backend)? { t.write(&format!("{backend}/state"), next) } else { Ok(()) })
    }

    fn open_backend(&self, kind: &str, domid: u16, devid: u32, device: Option<String>) {
        let mut world = self.world();
        if let ("vbd", Some(device)) = (kind, device) {
            world.served.insert((domid, devid), device);
        } else if kind == "vif" {
            let index = FIRST_INDEX + u32::from(domid) * 16 + devid;
            let link = *world.links.entry(format!("vif{domid}.{devid}")).or_insert(Link { index, mtu: 1500, is_bridge: false });
            world.cards.insert((domid, devid), link.index);
        }
    }

    fn close_backend(&self, kind: &str, domid: u16, devid: u32) {
        let mut world = self.world();
        if kind == "vbd" {
            world.served.remove(&(domid, devid));
        } else if let Some(index) = world.cards.remove(&(domid, devid)) {
            world.links.retain(|_, link| link.index != index);
        }
    }

    /// Ends back ends whose nodes are gone.
    fn close_others(&self, kind: &str, seen: &BTreeSet<(u16, u32)>) {
        let world = self.world();
        let open: Vec<(u16, u32)> = if kind == "vbd" { world.served.keys().copied().collect() } else { world.cards.keys().copied().collect() };
        drop(world);
        for (domid, devid) in open.into_iter().filter(|at| !seen.contains(at)) {
            self.close_backend(kind, domid, devid);
        }
    }
}

fn children(store: &Store, path: &str) -> oxen_xenstore::Result<Vec<String>> {
    match store.directory(path) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        names => names,
    }
}

/// Back-end drivers. They end when this is dropped.
pub struct FakeDrivers {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for FakeDrivers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What it panicked with is on the screen already.
            let _ = thread.join();
        }
    }
}

impl Devices {
    /// Over a kernel for tests.
    pub fn with_fake(settings: Settings, kernel: FakeKernel) -> Self {
        Self::with_kernel(settings, Box::new(kernel))
    }
}

impl Kernel for FakeKernel {
    fn link(&self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.world().links.get(name).copied())
    }

    fn bridges(&self) -> io::Result<Vec<String>> {
        Ok(self.world().links.iter().filter(|(_, link)| link.is_bridge).map(|(name, _)| name.clone()).collect())
    }

    fn set_link(&self, index: u32, change: &LinkChange) -> io::Result<()> {
        let LinkChange { name, mtu, bridge, up, arp } = change;
        let mut world = self.world();
        world.done.push(format!("link {index}: name {name:?}, mtu {mtu:?}, bridge {bridge:?}, up {up}, arp {arp:?}"));
        let old = world.links.iter().find(|(_, link)| link.index == index).map(|(name, _)| name.clone());
        let old = old.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        if let Some(mut link) = world.links.remove(&old) {
            link.mtu = mtu.unwrap_or(link.mtu);
            world.links.insert(name.clone().unwrap_or(old), link);
        }
        Ok(())
    }

    fn add_host_route(&self, index: u32, ip: IpAddr) -> io::Result<()> {
        self.world().done.push(format!("route {ip} to {index}"));
        Ok(())
    }

    fn answer_for_others(&self, name: &str) -> io::Result<()> {
        self.world().done.push(format!("{name} answers for others"));
        Ok(())
    }

    fn answer_for(&self, name: &str, ip: IpAddr) -> io::Result<()> {
        self.world().done.push(format!("{name} answers for {ip}"));
        Ok(())
    }

    fn target(&self, path: &Path) -> io::Result<Target> {
        self.world().targets.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        let target = self.target(path)?;
        let mut world = self.world();
        world.sweep();
        let taken = world.claimed.contains(path) || world.exclusive.iter().any(|(other, _)| other == path);
        if access.exclusive && taken {
            return Err(ErrorKind::ResourceBusy.into());
        }
        if access.write && world.read_only.contains(path) {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Target::File(id, _) = target {
            let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC)?);
            world.files.insert(file.metadata()?.ino(), id);
            return Ok(file);
        }
        let (file, opened) = Opened::new(&self.process)?;
        if access.exclusive {
            world.exclusive.push((path.to_owned(), opened));
        }
        Ok(file)
    }

    fn loops(&self) -> io::Result<Vec<LoopUse>> {
        let mut world = self.world();
        world.sweep();
        Ok(world.loops.iter().chain(world.bound.iter().map(|(it, _)| it)).copied().collect())
    }

    fn bind_loop(&self, file: &File, read_only: bool) -> io::Result<NewLoop> {
        let mut world = self.world();
        world.sweep();
        let id = *world.files.get(&file.metadata()?.ino()).ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        let is_used = |index: &u32| world.loops.iter().chain(world.bound.iter().map(|(it, _)| it)).any(|it| it.index == *index);
        let index = (0..).find(|index| !is_used(index)).unwrap_or_default();
        let number = Number { major: LOOP_MAJOR, minor: index };
        let (device, opened) = Opened::new(&self.process)?;
        world.bound.push((LoopUse { index, number, file: id, read_only }, opened));
        Ok(NewLoop { device, index, number })
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(self.world().mounts.clone())
    }

    fn holders(&self, _: Number) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn backend(&self, _: &str, _: u16, _: u32) -> Option<PathBuf> {
        // One that is gone as soon as its nodes are, or before.
        (!self.world().drivers_are_gone).then(|| "/nonexistent".into())
    }
}
