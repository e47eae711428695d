//! The whole daemon with domains on their rings, over a hypervisor played by the test: requests of every size, restarts at every step,
//! guests that break the protocol.

use oxen_abi::grant_table::GNTTAB_RESERVED_XENSTORE;
use oxen_abi::io::xs_wire::{XENSTORE_RING_SIZE, XenstoreDomainInterface};
use oxen_xenctl::fake::FakeHost;
use oxen_xenctl::{Ring, RingLayout, SharedMemory};
use oxen_xenstore::wire::{self, Head};
use oxen_xenstore::{Errno, XsType};
use oxen_xenstored::limits::Limits;
use oxen_xenstored::server::{CrashPoint, Options, Server, Xen};
use std::mem::offset_of;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A machine with a daemon that can be killed.
struct Machine {
    host: FakeHost,
    dir: tempfile::TempDir,
    server: Option<Server<Xen>>,
}

fn start(host: &FakeHost, dir: &Path) -> Server<Xen> {
    let options = Options { rundir: dir.to_owned(), limits: Limits::default(), journal: true, trace: false };
    let xen = Xen::over(host.xen(), host.event_channels().unwrap(), host.grants(), false).unwrap();
    Server::new(&options, xen).unwrap()
}

impl Machine {
    fn new() -> Self {
        let host = FakeHost::new(1 << 16).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let server = Some(start(&host, dir.path()));
        Self { host, dir, server }
    }

    fn round(&mut self) {
        let alive = self.server.as_mut().unwrap().round(&mut Vec::with_capacity(64), Duration::ZERO).is_ok();
        if !alive {
            self.restart();
        }
    }

    /// What `kill -9` and a new start come to: nothing of the old process is left, its event channels are closed.
    fn restart(&mut self) {
        self.server = None;
        self.server = Some(start(&self.host, self.dir.path()));
    }

    fn crash_at(&mut self, point: CrashPoint) {
        self.server.as_mut().unwrap().crash_at(point);
    }

    /// A new domain with a ring, introduced to the daemon.
    fn guest(&mut self, domid: u16) -> Guest {
        self.host.add_domain(domid);
        let frame = self.host.add_frame(domid);
        self.host.grant(domid, GNTTAB_RESERVED_XENSTORE, frame);
        let port = self.host.guest_port(domid, 0);
        let memory = self.host.memory(&[frame]).unwrap();
        let server = self.server.as_mut().unwrap();
        server.introduce(domid, frame, port).unwrap();
        Guest { domid, port, memory, input: Vec::new(), next: 0 }
    }
}

/// A domain as the daemon sees it from the other end of the ring.
struct Guest {
    domid: u16,
    port: u32,
    memory: SharedMemory,
    input: Vec<u8>,
    next: u32,
}

impl Guest {
    fn notify(&self, machine: &Machine) {
        machine.host.guest_notify(self.domid, self.port);
    }

    /// Writes as much as fits; returns how much.
    fn put(&self, bytes: &[u8]) -> usize {
        Ring::new(&self.memory, RingLayout::XENSTORE_REQUESTS).produce(bytes).unwrap()
    }

    /// Writes as much as fits, and notifies as Linux does: not while what it wrote before is not taken.
    fn put_as_linux(&self, machine: &Machine, bytes: &[u8]) -> usize {
        let ring = Ring::new(&self.memory, RingLayout::XENSTORE_REQUESTS);
        let all_taken = ring.used().unwrap() == 0;
        let put = ring.produce(bytes).unwrap();
        if put > 0 && all_taken {
            self.notify(machine);
        }
        put
    }

    /// Takes what has arrived, at most `most` bytes.
    fn take(&mut self, most: usize) -> usize {
        let mut chunk = vec![0; most];
        let got = Ring::new(&self.memory, RingLayout::XENSTORE_REPLIES).consume(&mut chunk).unwrap();
        self.input.extend_from_slice(&chunk[..got]);
        got
    }

    fn message(&mut self) -> Option<(Head, Vec<u8>)> {
        let (head, payload) = wire::first_message(&self.input).unwrap()?;
        let payload = payload.to_vec();
        self.input.drain(..wire::HEAD_LEN + payload.len());
        Some((head, payload))
    }

    /// Sends a request, as slowly as the ring and `step` demand, and waits for its answer; events go to `events`.
    fn ask(&mut self, machine: &mut Machine, kind: XsType, tx_id: u32, payload: &[u8], step: usize, events: &mut Vec<String>) -> Result<Vec<u8>, Errno> {
        self.next += 1;
        let req_id = self.next;
        let mut bytes = Vec::new();
        wire::put_message(&mut bytes, kind, req_id, tx_id, &[payload]);
        let mut sent = 0;
        for _ in 0..100_000 {
            let end = bytes.len().min(sent + step);
            sent += self.put_as_linux(machine, &bytes[sent..end]);
            machine.round();
            let full = Ring::new(&self.memory, RingLayout::XENSTORE_REPLIES).room().unwrap() == 0;
            if self.take(step) > 0 && full {
                self.notify(machine);
            }
            while let Some((head, payload)) = self.message() {
                match head.kind {
                    XsType::WATCH_EVENT => events.push(String::from_utf8(payload).unwrap()),
                    answered => {
                        assert_eq!((head.req_id, head.tx_id), (req_id, tx_id), "domain {}: an answer to another request", self.domid);
                        if answered == XsType::ERROR {
                            return Err(wire::parse_error(&payload).unwrap());
                        }
                        assert_eq!(answered, kind);
                        return Ok(payload);
                    }
                }
            }
        }
        panic!("domain {}: no answer to {kind:?}", self.domid);
    }

    fn read(&mut self, machine: &mut Machine, path: &str) -> Result<Vec<u8>, Errno> {
        self.ask(machine, XsType::READ, 0, format!("{path}\0").as_bytes(), 4096, &mut Vec::new())
    }

    fn write(&mut self, machine: &mut Machine, path: &str, value: &[u8]) -> Result<Vec<u8>, Errno> {
        self.ask(machine, XsType::WRITE, 0, &[format!("{path}\0").as_bytes(), value].concat(), 4096, &mut Vec::new())
    }
}

/// A small generator of numbers for reproducible sequences (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }
}

/// Gives a domain a home that it owns, as a toolstack does.
fn home(machine: &mut Machine, domid: u16) {
    let server = machine.server.as_mut().unwrap();
    let home = format!("/local/domain/{domid}");
    server.ask_as_dom0(XsType::MKDIR, format!("{home}\0").as_bytes());
    server.ask_as_dom0(XsType::SET_PERMS, format!("{home}\0n{domid}\0").as_bytes());
}

#[test]
fn guests_use_relative_paths_of_any_length() {
    let mut machine = Machine::new();
    let mut guest = machine.guest(3);
    assert_eq!(guest.write(&mut machine, "a", b"x"), Err(Errno::EACCES), "nothing is its own yet");
    home(&mut machine, 3);
    for step in [1, 7, 100, 1024, 4096] {
        let mut events = Vec::new();
        let value = vec![b'v'; 2000];
        let payload = [b"data/large\0", value.as_slice()].concat();
        assert_eq!(guest.ask(&mut machine, XsType::WRITE, 0, &payload, step, &mut events), Ok(b"OK\0".to_vec()));
        assert_eq!(guest.ask(&mut machine, XsType::READ, 0, b"/local/domain/3/data/large\0", step, &mut events), Ok(value));
        assert_eq!(events, Vec::<String>::new());
    }
    assert_eq!(guest.ask(&mut machine, XsType::INTRODUCE, 0, b"4\x001\x001\0", 4096, &mut Vec::new()), Err(Errno::EACCES));
    assert_eq!(guest.ask(&mut machine, XsType(99), 0, b"", 4096, &mut Vec::new()), Err(Errno::ENOSYS));
}

#[test]
fn only_the_guest_that_breaks_the_protocol_suffers() {
    let mut machine = Machine::new();
    let (mut good, bad_length, bad_index) = (machine.guest(1), machine.guest(2), machine.guest(3));
    home(&mut machine, 1);
    let head = Head { kind: XsType::READ, req_id: 0, tx_id: 0, len: 4097 };
    assert_eq!(bad_length.put(&head.bytes()), wire::HEAD_LEN);
    bad_index.memory.store_u32(offset_of!(XenstoreDomainInterface, req_prod), XENSTORE_RING_SIZE as u32 + 1, Ordering::Release).unwrap();
    bad_length.notify(&machine);
    bad_index.notify(&machine);
    machine.round();
    assert_eq!(good.write(&mut machine, "a", b"1"), Ok(b"OK\0".to_vec()));
    for bad in [&bad_length, &bad_index] {
        let error = bad.memory.load_u32(offset_of!(XenstoreDomainInterface, error), Ordering::Acquire).unwrap();
        assert_eq!(error, oxen_abi::io::xs_wire::XENSTORE_ERROR_PROTO, "domain {} is told", bad.domid);
    }
    machine.restart();
    assert_eq!(good.read(&mut machine, "a"), Ok(b"1".to_vec()));
}

/// Guests write whatever they like into their pages, for ever; another guest goes on undisturbed.
#[test]
fn random_pages_hurt_nobody_else() {
    let mut machine = Machine::new();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut good = machine.guest(1);
    home(&mut machine, 1);
    for round in 0..300u16 {
        let domid = 2 + round;
        let bad = machine.guest(domid);
        for _ in 0..20 {
            match random.below(4) {
                0 => {
                    let offset = 4 * random.below(7) as usize + offset_of!(XenstoreDomainInterface, req_cons);
                    bad.memory.store_u32(offset, random.below(1 << 33) as u32, Ordering::Release).unwrap();
                }
                1 => {
                    let bytes: Vec<u8> = (0..random.below(1024)).map(|_| random.below(256) as u8).collect();
                    bad.memory.write(random.below(1024) as usize, &bytes).unwrap();
                }
                _ => {
                    // Heads that make sense, payloads that do not.
                    let payload: Vec<u8> = (0..random.below(64)).map(|_| b"/a\0n1-T@\xff"[random.below(9) as usize]).collect();
                    let mut bytes = Vec::new();
                    wire::put_message(&mut bytes, XsType(random.below(24) as u32), 1, random.below(3) as u32, &[&payload]);
                    let _ = Ring::new(&bad.memory, RingLayout::XENSTORE_REQUESTS).produce(&bytes);
                }
            }
            bad.notify(&machine);
            machine.round();
        }
        assert_eq!(good.write(&mut machine, "round", round.to_string().as_bytes()), Ok(b"OK\0".to_vec()));
        assert_eq!(good.read(&mut machine, "round"), Ok(round.to_string().into_bytes()));
        machine.host.remove_domain(domid);
        machine.host.raise_virq(oxen_abi::xen::Virq::DOM_EXC);
        machine.round();
    }
    let owners = machine.server.as_mut().unwrap().engine().tree().count_owners();
    assert_eq!(owners.iter().map(|(domid, _)| *domid).collect::<Vec<_>>(), [0, 1], "what dead domains owned is gone");
}

/// Two guests work, each on its own nodes and watching the other's; the daemon dies at random moments. No answer and no event is lost or
/// comes twice, and the tree is what the guests were told.
#[test]
fn nothing_acknowledged_is_lost() {
    let mut machine = Machine::new();
    let mut random = Random(0xfeed_beef_0bad_cafe);
    let mut guests = [machine.guest(1), machine.guest(2)];
    for domid in [1, 2] {
        home(&mut machine, domid);
    }
    let mut events = Vec::new();
    for guest in &mut guests {
        let other = 3 - guest.domid;
        let watch = format!("/local/domain/{other}/count\0of-{other}\0");
        guest.ask(&mut machine, XsType::WATCH, 0, watch.as_bytes(), 4096, &mut events).unwrap();
        let server = machine.server.as_mut().unwrap();
        server.ask_as_dom0(XsType::SET_PERMS, format!("/local/domain/{other}\0r{other}\0").as_bytes());
    }
    let mut seen = [0usize; 2];
    for count in 0..400usize {
        for at in 0..2 {
            if random.below(3) == 0 {
                machine
                    .crash_at([CrashPoint::BeforeJournal, CrashPoint::AfterJournal, CrashPoint::AfterSend, CrashPoint::AfterJournal][random.below(4) as usize]);
            }
            let step = [3, 50, 1024][random.below(3) as usize];
            let mut events = Vec::new();
            let value = vec![b'0' + (count % 10) as u8; 1 + random.below(1800) as usize];
            let guest = &mut guests[at];
            let path = if random.below(2) == 0 { "count".to_owned() } else { format!("count/{}", random.below(20)) };
            let payload = [path.as_bytes(), b"\0", &value].concat();
            assert_eq!(guest.ask(&mut machine, XsType::WRITE, 0, &payload, step, &mut events), Ok(b"OK\0".to_vec()));
            assert_eq!(guest.ask(&mut machine, XsType::READ, 0, format!("{path}\0").as_bytes(), step, &mut events), Ok(value));
            if random.below(4) == 0 {
                machine.restart();
            }
            seen[at] += events.len();
        }
    }
    for (at, guest) in guests.iter_mut().enumerate() {
        let mut events = Vec::new();
        guest.ask(&mut machine, XsType::READ, 0, b"count\0", 4096, &mut events).unwrap_or_default();
        let more = seen[at] + events.len();
        // One for the watch itself, one for each write of the other; those that waited may have been joined.
        assert!((300..=401).contains(&more), "domain {} saw {more} events", guest.domid);
    }
    let engine = machine.server.as_mut().unwrap().engine();
    assert_eq!(engine.tree().owners(), engine.tree().count_owners());
}

/// A transaction that was under way when the daemon died goes on, fails, and can be repeated.
#[test]
fn transactions_fail_softly_over_a_restart() {
    let mut machine = Machine::new();
    let mut guest = machine.guest(5);
    home(&mut machine, 5);
    let mut events = Vec::new();
    let mut restarts = 0;
    for round in 0.. {
        let id = guest.ask(&mut machine, XsType::TRANSACTION_START, 0, b"\0", 4096, &mut events).unwrap();
        let id: u32 = std::str::from_utf8(&id).unwrap().trim_end_matches('\0').parse().unwrap();
        assert_eq!(guest.ask(&mut machine, XsType::WRITE, id, b"t\x001", 4096, &mut events), Ok(b"OK\0".to_vec()));
        if round < 2 {
            machine.restart();
            restarts += 1;
        }
        assert_eq!(guest.ask(&mut machine, XsType::WRITE, id, b"u\x001", 4096, &mut events), Ok(b"OK\0".to_vec()));
        match guest.ask(&mut machine, XsType::TRANSACTION_END, id, b"T\0", 4096, &mut events) {
            Ok(_) => break,
            Err(errno) => assert_eq!((errno, round < 2), (Errno::EAGAIN, true)),
        }
    }
    assert_eq!((restarts, guest.read(&mut machine, "t")), (2, Ok(b"1".to_vec())));
}

/// A domain dies while the daemon is dead.
#[test]
fn deaths_behind_the_daemons_back_are_noticed() {
    let mut machine = Machine::new();
    let mut guests = [machine.guest(7), machine.guest(8)];
    for domid in [7, 8] {
        home(&mut machine, domid);
    }
    guests[0].write(&mut machine, "x", b"1").unwrap();
    machine.host.remove_domain(7);
    machine.restart();
    let server = machine.server.as_mut().unwrap();
    assert_eq!(server.engine().domains().map(|(domid, _)| domid).collect::<Vec<_>>(), [8]);
    assert!(server.engine().tree().get("/local/domain/7").is_none());
    assert_eq!(guests[1].write(&mut machine, "x", b"1"), Ok(b"OK\0".to_vec()));
}
