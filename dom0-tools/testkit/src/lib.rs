//! A whole domain 0 in one process, for tests of the control stack: a hypervisor, xenstored with its rings, a kernel with back-end
//! drivers, and `xend` on its socket.
//!
//! [`World`] is the machine, which outlives daemons; [`World::start`] starts one. A [`Gate`] lets any call of the daemon fail or kills it there, after
//! which the next one starts from what is really left: the files, the nodes, the domains.
#![forbid(unsafe_code)]

mod gate;
mod relay;
#[path = "../../../boot/kernel-image/tests/synth/mod.rs"]
mod synth;

pub use gate::{Gate, Plan};
pub use oxen_devices::fake::FakeKernel;
pub use oxen_xenctl::fake::FakeHost;

use oxen_abi::sched::ShutdownReason;
use oxen_devices::Devices;
use oxen_devices::fake::FakeDrivers;
use oxen_guest_config::GuestConfig;
use oxen_xend::settings::Settings;
use oxen_xend::{Daemon, Places, device_settings, http, watcher};
use oxen_xend_api::{Client, Create, Error, Failure, Outcome, Status, Task};
use oxen_xenstore::{Nodes, Store};
use oxen_xenstored::limits::Limits;
use oxen_xenstored::server::{Options, Server, Xen};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that is awaited.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The free frames of a host: 256 MiB.
pub const FREE_FRAMES: u64 = 65_536;
/// Memory of a guest in MiB: little, so that many are built in a short time.
pub const GUEST_MIB: u64 = 8;
/// The shortest wait of a daemon for a device or a guest that does not react.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Directories for all guests, which stay when the first one has gone.
const SHARED: &[&str] = &["/libxl", "/vm", "/local/domain/0/backend/console", "/local/domain/0/backend/vbd", "/local/domain/0/backend/vif"];

/// What there is on the machine.
struct Left {
    domids: Vec<u16>,
    free_frames: u64,
    ports: usize,
    nodes: BTreeSet<String>,
}

/// A machine.
pub struct World {
    /// Its hypervisor.
    pub host: FakeHost,
    /// Domain 0's kernel.
    pub kernel: FakeKernel,
    /// A connection to xenstored.
    pub store: Store,
    drivers: Option<FakeDrivers>,
    xenstored: Option<(UnixStream, JoinHandle<()>)>,
    /// What there is without guests.
    bare: Option<Left>,
    /// Where the next daemon's database is.
    state: Mutex<PathBuf>,
    /// Numbers daemons and directories.
    count: Mutex<u32>,
    dir: TempDir,
}

/// A running daemon.
pub struct Xend {
    /// The daemon itself.
    pub daemon: Arc<Daemon>,
    /// A client of its socket.
    pub client: Client,
    /// Where it is stopped.
    pub gate: Arc<Gate>,
    /// Its socket.
    pub socket: PathBuf,
    kernel: FakeKernel,
    server: Option<(tokio::sync::oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A machine with a bridge `xenbr0`, and in which a daemon has been once.
    ///
    /// # Panics
    ///
    /// When this machine has no room for that one.
    pub fn new() -> Self {
        // Databases wait for their disk, which tests need not.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let host = FakeHost::new(FREE_FRAMES).expect("memory");
        host.add_vcpus(0, 2);
        let kernel = FakeKernel::default();
        kernel.interface("xenbr0", 5, true);
        let xenstored = start_xenstored(&host, dir.path());
        let store = Store::open_path(dir.path().join("socket")).expect("xenstored answers");
        let drivers = kernel.drivers(store.reopen().expect("xenstored answers")).expect("drivers start");
        fs::write(dir.path().join("kernel"), small_kernel()).expect("room for a kernel");
        let state = dir.path().join("state");
        fs::create_dir(&state).expect("a directory");
        let mut world = Self { host, kernel, store, drivers: Some(drivers), xenstored: Some(xenstored), bare: None, state: Mutex::new(state), count: Mutex::default(), dir };
        world.start().stop();
        for directory in SHARED {
            world.store.mkdir(directory).expect("xenstored answers");
        }
        world.bare = Some(world.left());
        world
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The socket of xenstored.
    pub fn store_socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The configuration of a guest that the machine can run.
    pub fn guest(&self, name: &str) -> GuestConfig {
        let kernel = self.dir.path().join("kernel").display().to_string();
        GuestConfig { name: name.to_owned(), kernel: Some(kernel), memory_mib: GUEST_MIB, ..GuestConfig::default() }
    }

    /// As [`World::guest`], with a disk in a file and a network card.
    ///
    /// # Panics
    ///
    /// Never: both are spelled well.
    pub fn guest_with_devices(&self, name: &str) -> GuestConfig {
        self.kernel.file(&format!("/disks/{name}.img"), fnv(name));
        let disk = format!("file:/disks/{name}.img,xvda,w").parse().expect("a disk");
        GuestConfig { disks: vec![disk], vifs: vec!["bridge=xenbr0".parse().expect("a card")], ..self.guest(name) }
    }

    /// Settings of a daemon that does not wait for long.
    pub fn settings() -> Settings {
        Settings { device_timeout: TIMEOUT, shutdown_timeout: TIMEOUT, ..Settings::default() }
    }

    /// Starts a daemon on what the last one left.
    pub fn start(&self) -> Xend {
        self.start_with(Self::settings())
    }

    /// As [`World::start`], with these settings.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_with(&self, settings: Settings) -> Xend {
        self.try_start(settings).expect("the daemon starts")
    }

    /// As [`World::start_with`].
    ///
    /// # Errors
    ///
    /// What the daemon says in giving up.
    ///
    /// # Panics
    ///
    /// When this machine has no room for sockets.
    pub fn try_start(&self, settings: Settings) -> Result<Xend, Error> {
        let run = self.fresh("run");
        fs::create_dir(&run).expect("a directory");
        let gate = Arc::new(Gate::default());
        let kernel = self.kernel.process();
        let store_socket = run.join("store");
        relay::open(&store_socket, &self.store_socket(), &gate).expect("a socket");
        let open = || Store::open_path(&store_socket).expect("the relay answers");
        let places = Places {
            state: lock(&self.state).clone(),
            log: run.join("log"),
            dumps: self.dir.path().join("dumps"),
            kernels: self.dir.path().join("kernels"),
            boot: run.join("boot"),
            ..Places::default()
        };
        // Nobody serves consoles here.
        let settings = Settings { console_timeout: Duration::ZERO, ..settings };
        let devices = Devices::with_fake(device_settings(&settings), kernel.clone());
        let daemon = Arc::new(Daemon::with_devices(settings, places, self.host.xen_with(gate::hook(&gate)), open(), devices)?);
        daemon.resume()?;
        let socket = run.join("xend.sock");
        let server = serve(&daemon, &socket);
        Ok(Xend { daemon, client: Client::new(&socket), gate, socket, kernel, server: Some(server) })
    }

    /// Lets `xend`'s watcher see that guests have ended. It runs until the daemon is gone.
    ///
    /// # Panics
    ///
    /// When xenstored does not answer.
    pub fn watch(&self, xend: &Xend) {
        let events = self.store.reopen().expect("xenstored answers");
        let daemon = Arc::downgrade(&xend.daemon);
        spawn(move || watcher::run(&daemon, &events));
    }

    /// After a daemon was killed: what it had written is what the next one finds.
    ///
    /// # Panics
    ///
    /// When the files cannot be copied.
    pub fn bury(&self, xend: Xend) {
        xend.gate.kill();
        xend.kernel.kill();
        let copy = self.fresh("state");
        let mut state = lock(&self.state);
        fs::create_dir(&copy).expect("a directory");
        for entry in fs::read_dir(&*state).expect("the state directory") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), copy.join(entry.file_name())).expect("a copy");
        }
        *state = copy;
        // Its threads stand where they were killed and hold on to it.
        drop(xend);
    }

    /// The guest in domain `domid` does what `control/shutdown` asks for, which is returned.
    ///
    /// # Panics
    ///
    /// When nobody asks.
    pub fn obey(&self, domid: u16) -> String {
        let node = format!("/local/domain/{domid}/control/shutdown");
        let mut asked = String::new();
        wait_for("somebody asks the guest to shut down", || {
            asked = self.store.try_read(&node).ok().flatten().unwrap_or_default();
            !asked.is_empty()
        });
        self.store.write(&node, "").expect("xenstored answers");
        self.host.shut_down(domid, if asked == "reboot" { ShutdownReason::REBOOT } else { ShutdownReason::POWEROFF });
        asked
    }

    /// As [`World::obey`], as soon as somebody asks; nobody need.
    ///
    /// # Panics
    ///
    /// When xenstored does not answer.
    pub fn obey_when_asked(&self, domid: u16) {
        let (host, store) = (self.host.clone(), self.store.reopen().expect("xenstored answers"));
        let node = format!("/local/domain/{domid}/control/shutdown");
        store.watch(&node, "").expect("xenstored answers");
        spawn(move || {
            // The nodes go with the domain, the store with the test.
            while let (Ok(Some(_)), true) = (store.next_event(Some(PATIENCE)), host.domain(domid).is_some()) {
                if store.try_read(&node).ok().flatten().is_some_and(|asked| !asked.is_empty()) {
                    let _ = store.write(&node, "");
                    host.shut_down(domid, ShutdownReason::POWEROFF);
                    return;
                }
            }
        });
    }

    /// What there is now.
    fn left(&self) -> Left {
        let mut nodes = BTreeSet::new();
        collect(&self.store, "/", &mut nodes);
        Left { domids: self.host.domids(), free_frames: self.host.free_frames(), ports: self.host.nr_ports(0), nodes }
    }

    /// What there is more than without guests, in words. Nothing of a guest counts as left that has `xend` remember it.
    ///
    /// # Panics
    ///
    /// While the world is being made.
    pub fn leftovers(&self) -> Vec<String> {
        let (bare, now) = (self.bare.as_ref().expect("the world is made"), self.left());
        let mut left: Vec<String> = now.domids.iter().filter(|domid| !bare.domids.contains(domid)).map(|domid| format!("domain {domid}")).collect();
        if now.free_frames != bare.free_frames {
            left.push(format!("{} of {} frames", bare.free_frames.saturating_sub(now.free_frames), bare.free_frames));
        }
        if now.ports != bare.ports {
            left.push(format!("{} ports of domain 0 instead of {}", now.ports, bare.ports));
        }
        left.extend(now.nodes.difference(&bare.nodes).map(|node| format!("node {node}")));
        left.extend(bare.nodes.difference(&now.nodes).map(|node| format!("no node {node}")));
        left.extend(self.kernel.in_use());
        left
    }

    /// Waits until nothing is left of any guest.
    ///
    /// # Panics
    ///
    /// When something is left, which is listed; `after` says of what.
    pub fn assert_nothing_left(&self, after: &str) {
        let start = Instant::now();
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{after}: left are {left:#?}");
            sleep(Duration::from_millis(2));
        }
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let mut count = lock(&self.count);
        *count += 1;
        self.dir.path().join(format!("{name}{count}"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.drivers = None;
        if let Some((stop, thread)) = self.xenstored.take() {
            drop(stop);
            // What it panicked with is on the screen already.
            let _ = thread.join();
        }
    }
}

impl Xend {
    /// Creates a guest and waits for it.
    ///
    /// # Errors
    ///
    /// What the daemon says.
    pub fn create(&self, config: &GuestConfig) -> Result<Outcome, Failure> {
        self.create_as(config, false)
    }

    /// As [`Xend::create`]; the guest is kept when it does not run if it is `managed`.
    ///
    /// # Errors
    ///
    /// What the daemon says.
    pub fn create_as(&self, config: &GuestConfig, managed: bool) -> Result<Outcome, Failure> {
        let request = Create { config: Box::new(config.clone()), paused: false, managed, start: true };
        self.client.wait(self.client.create(&request)?, |_| ())
    }

    /// Does something without the socket and waits for its end; `None` when the daemon was killed meanwhile.
    ///
    /// # Panics
    ///
    /// When it takes too long.
    pub fn attempt(&self, start: impl FnOnce(&Arc<Daemon>) -> Result<Task, Error> + Send + 'static) -> Option<Result<Outcome, Error>> {
        let daemon = Arc::clone(&self.daemon);
        let (send, receive) = std::sync::mpsc::channel();
        spawn(move || {
            // Nobody waits for the thread of a killed daemon.
            let _ = send.send(start(&daemon));
        });
        let mut result = None;
        let mut task = None;
        self.gate.wait(|| {
            match receive.try_recv() {
                Ok(Ok(started)) => task = Some(started.id),
                Ok(Err(error)) => result = Some(Err(error)),
                Err(_) => {}
            }
            if let Some(task) = task.and_then(|id| self.daemon.tasks.get(id)) {
                match task.status {
                    Status::Running { .. } => {}
                    Status::Done { outcome } => result = Some(Ok(*outcome)),
                    Status::Failed { error } => result = Some(Err(error)),
                }
            }
            result.is_some()
        });
        if self.gate.is_dead() { None } else { result }
    }

    /// Waits until nothing is under way.
    ///
    /// # Panics
    ///
    /// When something does not end.
    pub fn settle(&self) {
        wait_for("all tasks end", || self.daemon.tasks.all().iter().all(Task::ended));
    }

    /// Ends the daemon as `SIGTERM` does and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When somebody holds on to it.
    pub fn stop(mut self) {
        self.close();
        let mut daemon = Some(Arc::clone(&self.daemon));
        drop(self);
        // Who drops the last one closes the database: this thread, so that the next daemon can open it.
        wait_for("everybody lets go of the daemon", || {
            daemon = daemon.take().and_then(|daemon| Arc::try_unwrap(daemon).err());
            daemon.is_none()
        });
    }

    fn close(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            let _ = stop.send(());
            if !self.gate.is_dead() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Xend {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits for a condition that somebody else brings about.
///
/// # Panics
///
/// When it does not come.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_xenstored(host: &FakeHost, rundir: &Path) -> (UnixStream, JoinHandle<()>) {
    let (stop, stopped) = UnixStream::pair().expect("a socket");
    let options = Options { rundir: rundir.to_owned(), limits: Limits::default(), journal: false, trace: false };
    let connector = Xen::over(host.xen(), host.event_channels().expect("a device"), host.grants(), false).expect("the virtual interrupt");
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = spawn(move || {
        let mut server = Server::new(&options, connector).expect("xenstored starts");
        server.stop_on(stopped.as_fd()).expect("a descriptor");
        ready.send(()).expect("somebody waits");
        server.run().expect("xenstored runs");
    });
    is_ready.recv().expect("xenstored starts");
    (stop, thread)
}

fn serve(daemon: &Arc<Daemon>, socket: &Path) -> (tokio::sync::oneshot::Sender<()>, JoinHandle<()>) {
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
    listener.set_nonblocking(true).expect("a socket");
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let daemon = Arc::clone(daemon);
    let thread = spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).expect("a socket");
            let stop = async {
                // A test that forgets the daemon ends it, too.
                let _ = stopped.await;
            };
            http::serve(daemon, listener, stop).await.expect("the socket works");
        });
    });
    (stop, thread)
}

/// All nodes below `path`.
fn collect(store: &Store, path: &str, nodes: &mut BTreeSet<String>) {
    // What goes away meanwhile is not there.
    for name in store.directory(path).unwrap_or_default() {
        let child = format!("{}/{name}", path.trim_end_matches('/'));
        collect(store, &child, nodes);
        nodes.insert(child);
    }
}

/// A kernel that is not where Linux is, but in less memory.
fn small_kernel() -> Vec<u8> {
    const START: u64 = 0x10_0000;
    const ENTRY: u64 = 0xffff_ffff_8000_0000 + START;
    let mut notes = synth::linux_notes();
    let entry = notes.iter().position(|note| note.get(8) == Some(&1)).expect("Linux has an entry");
    notes[entry] = synth::note(1, &ENTRY.to_le_bytes());
    synth::elf(&[synth::Part { paddr: START, data: vec![0x90; 4096], mem_len: 8192 }], &notes)
}

/// A number for a name.
fn fnv(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
