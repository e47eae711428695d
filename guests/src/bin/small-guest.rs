//! A guest for tests of dom0's tools: small, quick to start, with the behaviour that a word on its command line names.
//!
//! | Word | What it does |
//! |---|---|
//! | (none) | nothing: it ignores requests to shut down and connects no device |
//! | `act=obey` | shuts down or reboots when asked to, through `control/shutdown` |
//! | `act=crash`, `act=poweroff`, `act=reboot` | ends at once |
//! | `act=flood` | writes to its console without end |
//! | `act=fill` | makes xenstore nodes until that is refused |
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::fmt::Write;
use core::sync::atomic::Ordering;
use oxen_abi::io::xs_wire::XsType;
use oxen_abi::sched::ShutdownReason;
use oxen_guests::rings::{self, Console, Store};
use oxen_guests::mem;
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
