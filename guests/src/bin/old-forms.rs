//! The forms of calls that only old kernels make.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::event;
use oxen_guests::hypercall::{self, Rc, handle};
use oxen_guests::sys::nr;
use oxen_guests::value;

oxen_guests::test_kernel!("old-forms", run);

fn run() {
    let raw = |number, args| Rc(hypercall::raw(number, args));
    let Ok(port) = event::bind_ipi(0) else { return oxen_guests::check::fail("bind_ipi") };
    event::enable_upcalls();
    value!("sched_op_compat.yield", raw(nr::SCHED_OP_COMPAT, [0; 5]));
    value!("sched_op_compat.unknown", raw(nr::SCHED_OP_COMPAT, [9, 0, 0, 0, 0]));
    // The old event call: a command and the union in one structure.
    let mut arg = [event::op::SEND as u32, port, 0, 0, 0, 0, 0, 0];
    value!("event_channel_op_compat.send", raw(nr::EVENT_CHANNEL_OP_COMPAT, [handle(&mut arg), 0, 0, 0, 0]));
    value!("event_channel_op_compat.count", event::count(port));
    let mut arg = [6_u32, 1, 0, 0];
    value!("physdev_op_compat.set_iopl", raw(nr::PHYSDEV_OP_COMPAT, [handle(&mut arg), 0, 0, 0, 0]));
}
