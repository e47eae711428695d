//! The daemon with a real xenstored, and guests of a fake host.

use oxen_abi::Errno;
use oxen_xenconsoled::client::{self, ESCAPE, Ended};
use oxen_xenconsoled::daemon::{Daemon, Options, Rotation};
use oxen_xenctl::fake::FakeHost;
use oxen_xenctl::{Ring, RingLayout, SharedMemory};
use oxen_xenstore::{Nodes as _, Store};
use oxen_xenstored::limits::Limits;
use oxen_xenstored::server::{NoRings, Options as StoreOptions, Server};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const TURN: Option<Duration> = Some(Duration::from_millis(20));
const PATIENCE: Duration = Duration::from_secs(20);

/// A host with its store.
struct World {
    host: FakeHost,
    dir: tempfile::TempDir,
}

/// A guest as it sees its console.
struct Guest {
    domid: u16,
    port: u32,
    page: SharedMemory,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        let options = StoreOptions { rundir: dir.path().to_owned(), limits: Limits::default(), journal: false, trace: false };
        std::thread::spawn(move || Server::new(&options, NoRings).unwrap().run());
        let world = Self { host: FakeHost::new(1000).unwrap(), dir };
        let start = Instant::now();
        while Store::open_path(world.socket()).is_err() {
            assert!(start.elapsed() < PATIENCE, "the store does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        world
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn store(&self) -> Store {
        Store::open_path(self.socket()).unwrap()
    }

    fn daemon(&self) -> Daemon {
        self.daemon_with(|_| ())
    }

    fn daemon_with(&self, change: impl FnOnce(&mut Options)) -> Daemon {
        let mut options = Options { log_dir: self.dir.path().join("log"), per_second: 1 << 30, ..Options::default() };
        change(&mut options);
        let events = self.host.event_channels().unwrap();
        Daemon::new(options, self.host.xen(), events, self.host.grants(), self.store()).unwrap()
    }

    /// A guest as the control stack makes it.
    fn guest(&self, domid: u16, name: &str) -> Guest {
        self.host.add_domain(domid);
        let frame = self.host.add_frame(domid);
        let port = self.host.guest_port(domid, 0);
        let store = self.store();
        let home = format!("/local/domain/{domid}");
        store.write(&format!("{home}/name"), name).unwrap();
        for (node, value) in [("ring-ref", frame.to_string()), ("port", port.to_string()), ("limit", "65536".into()), ("type", "xenconsoled".into())] {
            store.write(&format!("{home}/console/{node}"), value).unwrap();
        }
        Guest { domid, port, page: self.host.memory(&[frame]).unwrap() }
    }

    fn tty(&self, domid: u16) -> Option<String> {
        self.store().try_read(&format!("/local/domain/{domid}/console/tty")).unwrap()
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.dir.path().join(format!("log/guest-{name}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Guest {
    /// Writes what fits and notifies; returns how much that is.
    fn say(&self, world: &World, text: &[u8]) -> usize {
        let len = Ring::new(&self.page, RingLayout::CONSOLE_OUTPUT).produce(text).unwrap();
        world.host.guest_notify(self.domid, self.port);
        len
    }

    fn hears(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        let len = Ring::new(&self.page, RingLayout::CONSOLE_INPUT).consume(&mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    fn unread(&self) -> u32 {
        Ring::new(&self.page, RingLayout::CONSOLE_OUTPUT).used().unwrap()
    }
}

/// Lets the daemon work until `done`.
fn work(daemon: &mut Daemon, mut done: impl FnMut(&Daemon) -> bool) {
    let start = Instant::now();
    while !done(daemon) {
        assert!(start.elapsed() < PATIENCE, "nothing happens");
        daemon.turn(TURN).unwrap();
    }
}

fn open(tty: &str) -> File {
    File::options().read(true).write(true).open(tty).unwrap()
}

#[test]
fn output_reaches_log_and_terminal_and_typing_reaches_the_guest() {
    let world = World::new();
    let guest = world.guest(3, "web");
    let mut daemon = world.daemon();
    guest.say(&world, b"before the daemon knew\r\n");
    work(&mut daemon, |_| world.log("web").contains("knew"));
    let mut terminal = open(&world.tty(3).unwrap());
    let mut text = [0; 24];
    terminal.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"before the daemon knew\r\n");
    terminal.write_all(b"ls\r").unwrap();
    let mut heard = Vec::new();
    work(&mut daemon, |_| {
        heard.extend(guest.hears());
        heard == b"ls\r"
    });
    assert!(world.host.guest_events(3).contains(&guest.port));
}

#[test]
fn a_long_text_goes_through_whole() {
    let world = World::new();
    let guest = world.guest(1, "long");
    let mut daemon = world.daemon();
    let text: String = (0..3000).map(|n| format!("line {n}\n")).collect();
    let mut rest = text.as_bytes();
    work(&mut daemon, |_| {
        rest = &rest[guest.say(&world, rest)..];
        rest.is_empty() && guest.unread() == 0
    });
    assert!(world.log("long") == text);
}

#[test]
fn a_killed_daemon_loses_nothing() {
    let world = World::new();
    let guest = world.guest(1, "kept");
    let text: String = (0..3000).map(|n| format!("line {n}\n")).collect();
    let mut rest = text.as_bytes();
    // Each round is a daemon that goes without a farewell.
    for _ in 0..5 {
        let mut daemon = world.daemon();
        let before = rest.len();
        work(&mut daemon, |_| {
            rest = &rest[guest.say(&world, &rest[..rest.len().min(1500)])..];
            before - rest.len() > 3000
        });
    }
    let mut daemon = world.daemon();
    work(&mut daemon, |_| {
        rest = &rest[guest.say(&world, rest)..];
        rest.is_empty() && guest.unread() == 0
    });
    assert!(world.log("kept") == text);
}

#[test]
fn what_nobody_reads_is_kept_up_to_the_limit() {
    let world = World::new();
    let guest = world.guest(1, "quiet");
    let mut daemon = world.daemon();
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let mut rest = text.as_bytes();
    work(&mut daemon, |_| {
        rest = &rest[guest.say(&world, rest)..];
        rest.is_empty() && guest.unread() == 0
    });
    let mut terminal = open(&world.tty(1).unwrap());
    let mut read = String::new();
    let mut buffer = [0; 4096];
    work(&mut daemon, |_| {
        let len = terminal.read(&mut buffer).unwrap();
        read.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        read.ends_with("line 19999\n")
    });
    assert!((65_536..90_000).contains(&read.len()), "{} bytes", read.len());
}

#[test]
fn a_flood_is_slowed_down_and_others_are_served() {
    let world = World::new();
    let (flood, calm) = (world.guest(1, "flood"), world.guest(2, "calm"));
    let mut daemon = world.daemon_with(|options| {
        options.per_second = 100_000;
        options.burst = 0;
        options.rotation = Rotation { max_len: 20_000, keep: 1 };
    });
    work(&mut daemon, |daemon| daemon.domids() == [1, 2]);
    let start = Instant::now();
    let (mut written, mut turns) = (0, 0);
    while start.elapsed() < Duration::from_millis(1000) {
        written += flood.say(&world, &[b'x'; 2048]);
        daemon.turn(Some(Duration::from_millis(200))).unwrap();
        turns += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    assert!((written as f64) < 150_000.0 * (seconds + 0.2), "{written} bytes in {seconds} s");
    assert!(turns < 200, "the daemon turned {turns} times");
    calm.say(&world, b"still here\n");
    work(&mut daemon, |_| world.log("calm") == "still here\n");
    let used: u64 = fs::read_dir(world.dir.path().join("log")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(used < 50_000, "{used} bytes of logs");
}

#[test]
fn hostile_indices_harm_nobody() {
    let world = World::new();
    let (bad, good) = (world.guest(1, "bad"), world.guest(2, "good"));
    let mut daemon = world.daemon();
    work(&mut daemon, |daemon| daemon.domids() == [1, 2]);
    let (consumer, producer) = (3080, 3084);
    for (c, p) in [(0, u32::MAX), (5, 1), (u32::MAX - 5, 4000), (0x8000_0000, 0)] {
        bad.page.store_u32(consumer, c, Ordering::SeqCst).unwrap();
        bad.page.store_u32(producer, p, Ordering::SeqCst).unwrap();
        bad.page.store_u32(3072, p, Ordering::SeqCst).unwrap();
        bad.page.store_u32(3076, c, Ordering::SeqCst).unwrap();
        world.host.guest_notify(1, bad.port);
        good.say(&world, b"good\n");
        work(&mut daemon, |_| good.unread() == 0);
        // The terminal's reader cannot be served, and must not keep the daemon busy.
        open(&world.tty(1).unwrap()).write_all(b"x").unwrap();
        daemon.turn(TURN).unwrap();
    }
    assert_eq!(world.log("good"), "good\n".repeat(4));
    // Once it behaves, it is served again.
    work(&mut daemon, |_| Ring::new(&bad.page, RingLayout::CONSOLE_OUTPUT).used() == Ok(0));
    bad.say(&world, b"sorry\n");
    work(&mut daemon, |_| world.log("bad").ends_with("sorry\n"));
}

#[test]
fn a_guest_that_goes_leaves_nothing_but_its_last_words() {
    let world = World::new();
    let guest = world.guest(7, "gone");
    let mut daemon = world.daemon();
    work(&mut daemon, |daemon| daemon.domids() == [7]);
    // Words without an event, as of a guest that crashed.
    Ring::new(&guest.page, RingLayout::CONSOLE_OUTPUT).produce(b"last words").unwrap();
    world.host.remove_domain(7);
    world.store().rm("/local/domain/7").unwrap();
    daemon.scan().unwrap();
    assert!(daemon.domids().is_empty());
    assert_eq!(world.log("gone"), "last words");
    daemon.turn(TURN).unwrap();
    assert_eq!(world.tty(7), None);
    assert_eq!(world.store().directory("/local/domain").unwrap_or_default(), [""; 0]);
    assert_eq!(world.host.nr_ports(7), 0);
}

#[test]
fn a_guest_whose_ring_cannot_be_had_is_tried_again() {
    let world = World::new();
    world.host.fail("map_foreign", 0, Errno::ENOMEM);
    let guest = world.guest(1, "late");
    let mut daemon = world.daemon();
    work(&mut daemon, |_| world.host.calls().contains(&"map_foreign"));
    world.store().write("/local/domain/1/console/limit", "1000").unwrap();
    work(&mut daemon, |daemon| daemon.domids() == [1]);
    guest.say(&world, b"hello\n");
    work(&mut daemon, |_| world.log("late") == "hello\n");
}

#[test]
fn a_renamed_guest_gets_another_log() {
    let world = World::new();
    let guest = world.guest(1, "one");
    let mut daemon = world.daemon();
    guest.say(&world, b"first\n");
    work(&mut daemon, |_| world.log("one") == "first\n");
    world.store().write("/local/domain/1/name", "two").unwrap();
    daemon.turn(TURN).unwrap();
    daemon.turn(TURN).unwrap();
    guest.say(&world, b"second\n");
    work(&mut daemon, |_| world.log("two") == "second\n");
    assert_eq!(world.log("one"), "first\n");
}

#[test]
fn a_session_survives_the_daemon_and_ends_with_the_escape_character() {
    let world = World::new();
    let guest = world.guest(4, "talk");
    let mut daemon = world.daemon();
    work(&mut daemon, |daemon| daemon.domids() == [4]);
    let (mut keyboard, input) = UnixStream::pair().unwrap();
    let (mut screen, output) = UnixStream::pair().unwrap();
    let store = world.store();
    let session = std::thread::spawn(move || client::attach_to(&store, 4, PATIENCE, input.as_fd(), output.as_fd()));
    screen.set_nonblocking(true).unwrap();
    let mut seen = Vec::new();
    let mut shows = |daemon: &mut Daemon, what: &[u8]| {
        work(daemon, |_| {
            let mut buffer = [0; 100];
            if let Ok(len) = screen.read(&mut buffer) {
                seen.extend(&buffer[..len]);
            }
            seen.ends_with(what)
        });
    };
    guest.say(&world, b"login: ");
    shows(&mut daemon, b"login: ");
    drop(daemon);
    let mut daemon = world.daemon();
    guest.say(&world, b"again: ");
    shows(&mut daemon, b"again: ");
    keyboard.write_all(b"root\r").unwrap();
    let mut heard = Vec::new();
    work(&mut daemon, |_| {
        heard.extend(guest.hears());
        heard == b"root\r"
    });
    keyboard.write_all(&[b'x', ESCAPE, b'y']).unwrap();
    work(&mut daemon, |_| session.is_finished());
    assert_eq!(session.join().unwrap().unwrap(), Ended::Detached);
}

#[test]
fn a_session_ends_with_the_guest() {
    let world = World::new();
    let guest = world.guest(5, "short");
    let mut daemon = world.daemon();
    guest.say(&world, b"bye\n");
    work(&mut daemon, |_| world.log("short") == "bye\n");
    let (_keyboard, input) = UnixStream::pair().unwrap();
    let (mut screen, output) = UnixStream::pair().unwrap();
    let store = world.store();
    let session = std::thread::spawn(move || client::attach_to(&store, 5, PATIENCE, input.as_fd(), output.as_fd()));
    let mut text = [0; 4];
    screen.read_exact(&mut text).unwrap();
    world.store().rm("/local/domain/5").unwrap();
    drop(daemon);
    assert_eq!(session.join().unwrap().unwrap(), Ended::GuestGone);
    let (_keyboard, input) = UnixStream::pair().unwrap();
    let error = client::attach_to(&world.store(), 9, PATIENCE, input.as_fd(), input.as_fd()).unwrap_err();
    assert_eq!(error.to_string(), "there is no domain 9");
}
