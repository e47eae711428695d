//! The number of event channels in the 2-level structures.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::event;
use oxen_guests::sys::DOMID_SELF;
use oxen_guests::{check, expect, expect_text};

oxen_guests::test_kernel!("events-limit", run);

fn run() {
    let mut last = 0;
    let error = loop {
        match event::alloc_unbound(DOMID_SELF, DOMID_SELF) {
            Ok(port) => last = port,
            Err(rc) => break rc,
        }
        if last > 4095 {
            break oxen_guests::hypercall::Rc(0);
        }
    };
    expect_text!("error", error, "-ENOSPC");
    expect!("last", last, 4095);
    // The highest port works like any other.
    check!("close", event::close(3000).is_ok());
    let peer = event::bind_interdomain(DOMID_SELF, 4095).unwrap_or(0);
    expect!("peer", peer, 3000);
    check!("send", event::send(peer).is_ok());
    expect!("pending", event::is_pending(4095), true);
}
