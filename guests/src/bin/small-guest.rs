//! A guest for tests of dom0's tools: small, quick to start, with the behaviour that a word on its command line names.
//!
//! | Word | What it does |
//! |---|---|
//! | (none) | nothing: it ignores requests to shut down and connects no device |
//! | `act=obey` | shuts down or reboots when asked to, through `control/shutdown` |
//! | `act=crash`, `act=poweroff`, `act=reboot` | ends at once |
//! | `act=flood` | writes to its console without end |
//! | `act=fill` | makes xenstore nodes until that is refused |
//! | `act=lie` | rewrites the nodes of its devices, then its rings, with what no driver would write |
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::fmt::Write;
use core::sync::atomic::Ordering;
use oxen_abi::io::xs_wire::XsType;
use oxen_abi::sched::ShutdownReason;
use oxen_guests::random::Random;
use oxen_guests::rings::{self, Console, Store};
use oxen_guests::sys::DOMID_SELF;
use oxen_guests::{cpu, event, mem};
use oxen_guests::start::{command_line_has, offsets, shared_word, start_info};

oxen_guests::test_kernel!("small-guest", run);

fn run() {
    publish_p2m();
    // Writing to the console cannot fail.
    let mut console = Console::open();
    let _ = writeln!(console, "small guest: running\r");
    for (word, reason) in [("act=crash", ShutdownReason::CRASH), ("act=poweroff", ShutdownReason::POWEROFF), ("act=reboot", ShutdownReason::REBOOT)] {
        if command_line_has(word) {
            rings::shut_down(reason.0);
        }
    }
    if command_line_has("act=flood") {
        loop {
            let _ = writeln!(console, "small guest: one of very many lines that nobody wants to read\r");
        }
    }
    if command_line_has("act=fill") {
        fill(&mut console);
    }
    if command_line_has("act=lie") {
        lie(&mut console);
    }
    if command_line_has("act=obey") {
        obey(&mut console);
    }
    rings::idle()
}

/// Tells the tools where this guest's pages are, for a core file: by the tree that old kernels have.
fn publish_p2m() {
    let (top, list) = (mem::alloc_page(), mem::alloc_page());
    top.write(0, list.mfn());
    let nr_pages = start_info().nr_pages;
    for index in 0..nr_pages.div_ceil(512) {
        list.write(index as usize, mem::va_to_mfn(start_info().mfn_list + index * mem::PAGE));
    }
    shared_word(offsets::ARCH + 8).store(top.mfn(), Ordering::Relaxed);
    shared_word(offsets::ARCH).store(nr_pages, Ordering::Release);
}

/// Makes nodes below `data` until xenstored refuses.
fn fill(console: &mut Console) {
    let mut store = Store::open();
    let mut answer = [0; 64];
    for made in 0_u32..100_000 {
        // `data/n` and the number in a fixed width, with the zero that ends a path.
        let mut path = *b"data/n00000\0";
        let mut rest = made;
        for digit in path[6..11].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let (kind, len) = store.request(XsType::WRITE, &[&path, b"x"], &mut answer);
        if kind == XsType::ERROR {
            let error = core::str::from_utf8(&answer[..len]).unwrap_or("?").trim_end_matches('\0');
            let _ = writeln!(console, "small guest: {made} nodes, then {error}\r");
            return;
        }
    }
}

/// Nodes of a device that a guest can write beside its state, each with the zero that ends a path.
const NODES: &[&[u8]] = &[
    b"/ring-ref\0",
    b"/event-channel\0",
    b"/protocol\0",
    b"/tx-ring-ref\0",
    b"/rx-ring-ref\0",
    b"/request-rx-copy\0",
    b"/multi-queue-num-queues\0",
    b"/queue-0/ring-ref\0",
    b"/feature-persistent\0",
    b"/backend\0",
    b"/backend-id\0",
    b"/mac\0",
    b"\0",
];
/// What it writes there: numbers that overflow, paths of others, nothing. 0 is the reference of its console.
const VALUES: &[&[u8]] = &[
    b"0", b"99", b"-1", b"4294967295", b"18446744073709551616", b"", b"x86_64-abi", b"\xff\x00\n%s%n", b"/local/domain/0/backend/vbd/0/51712", b"../../0",
    b"00:16:3e:00:00:00",
];
/// States, and what is none.
const STATES: &[&[u8]] = &[b"1", b"3", b"4", b"4", b"5", b"6", b"0", b"8", b"7", b"99", b""];
const DEVICES: &[&[u8]] = &[b"device/vbd/51712", b"device/vif/0"];
/// How a device asks to be served by the page through which the guest talks to xenstored, whose grant reference is 1.
const CONNECTED: &[[&[u8]; 2]] =
    &[[b"/ring-ref\0", b"1"], [b"/tx-ring-ref\0", b"1"], [b"/rx-ring-ref\0", b"1"], [b"/multi-queue-num-queues\0", b"1"], [b"/protocol\0", b"x86_64-abi"]];
const LIES: u32 = 400;
const SCRIBBLES: u32 = 20_000;

/// Lies to the tools and the drivers in domain 0 about its devices, has its rings served as disks and cards, and then fills the rings with noise.
fn lie(console: &mut Console) {
    let mut random = Random(cpu::rdtsc() | 1);
    let _ = writeln!(console, "small guest: lies from {:#x}\r", random.0);
    let mut store = Store::open();
    let mut answer = [0; 64];
    let mut digits = [0; 10];
    for _ in 0..LIES {
        let device = random.of(DEVICES);
        match random.next() % 40 {
            0 => _ = store.request(XsType::RM, &[device, random.of(NODES)], &mut answer),
            1..20 => _ = store.request(XsType::WRITE, &[device, b"/state\0", random.of(STATES)], &mut answer),
            20..26 => {
                // A port that a back end can bind to.
                let port = event::alloc_unbound(DOMID_SELF, 0).unwrap_or(0);
                store.request(XsType::WRITE, &[device, b"/event-channel\0", decimal(port, &mut digits)], &mut answer);
            }
            _ => _ = store.request(XsType::WRITE, &[device, random.of(NODES), random.of(VALUES)], &mut answer),
        }
    }
    let _ = writeln!(console, "small guest: has lied\r");
    // The last answer that comes whole: the drivers write to the page that it comes through.
    for device in DEVICES {
        let port = event::alloc_unbound(DOMID_SELF, 0).unwrap_or(0);
        store.request(XsType::WRITE, &[device, b"/event-channel\0", decimal(port, &mut digits)], &mut answer);
        for [node, value] in CONNECTED {
            store.request(XsType::WRITE, &[device, node, value], &mut answer);
        }
    }
    for device in DEVICES {
        store.post(XsType::WRITE, &[device, b"/state\0", b"4"]);
    }
    for _ in 0..SCRIBBLES {
        let (index, value) = (random.next() as usize % 512, random.next());
        if value & 1 == 0 { console.scribble(index, value) } else { store.scribble(index, value) }
    }
}

/// `value` in decimal digits.
fn decimal(value: u32, digits: &mut [u8; 10]) -> &[u8] {
    let (mut at, mut rest) = (digits.len(), value);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}

/// Does what `control/shutdown` says.
fn obey(console: &mut Console) {
    const NODE: &[u8] = b"control/shutdown\0";
    let mut store = Store::open();
    let mut answer = [0; 256];
    store.request(XsType::WATCH, &[NODE, b"token\0"], &mut answer);
    loop {
        store.wait_for_event(&mut answer);
        let (kind, len) = store.request(XsType::READ, &[NODE], &mut answer);
        let reason = match &answer[..len] {
            b"poweroff" | b"halt" if kind == XsType::READ => ShutdownReason::POWEROFF,
            b"reboot" if kind == XsType::READ => ShutdownReason::REBOOT,
            _ => continue,
        };
        store.request(XsType::WRITE, &[NODE], &mut answer);
        let _ = writeln!(console, "small guest: ends\r");
        rings::shut_down(reason.0);
    }
}
