//! memory_op: operations for other kinds of guest and for building domains, as a PV dom0 about itself sees them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, memory_op};
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::{DOMID_SELF, nr};
use oxen_guests::{expect_text, value};

oxen_guests::test_kernel!("memory-op-rare", run);

fn run() {
    expect_text!("maximum_gpfn", memory_op(14, &mut { DOMID_SELF }), "0");
    expect_text!("maximum_gpfn.absent", memory_op(14, &mut { ABSENT_DOMAIN }), "-ESRCH");
    value!("add_to_physmap", memory_op(7, &mut [u64::from(DOMID_SELF) | 2 << 32, 0, 0]));
    value!("add_to_physmap.space", memory_op(7, &mut [u64::from(DOMID_SELF) | 99 << 32, 0, 0]));
    value!("add_to_physmap.absent", memory_op(7, &mut [u64::from(ABSENT_DOMAIN), 0, 0]));
    value!("remove_from_physmap", memory_op(15, &mut [u64::from(DOMID_SELF), 0]));
    value!("remove_from_physmap.absent", memory_op(15, &mut [u64::from(ABSENT_DOMAIN), 0]));
    value!("set_pod_target", memory_op(16, &mut [0, 0, 0, 0, u64::from(DOMID_SELF)]));
    value!("get_pod_target.absent", memory_op(17, &mut [0, 0, 0, 0, u64::from(ABSENT_DOMAIN)]));
    value!("get_vnumainfo", memory_op(26, &mut [u64::from(DOMID_SELF), 0, 0, 0, 0]));
    value!("reserved_device_memory", memory_op(27, &mut [0_u64, 0, 0]));
    let resource = |domid: u16, kind: u16, id: u32, count: u64, pad: u64| {
        memory_op(28, &mut [u64::from(domid) | u64::from(kind) << 16 | u64::from(id) << 32, count | pad << 32, 0, 0])
    };
    value!("acquire_resource.size", resource(DOMID_SELF, 1, 0, 0, 0));
    value!("acquire_resource.pad", resource(DOMID_SELF, 1, 0, 0, 1));
    value!("acquire_resource.absent", resource(ABSENT_DOMAIN, 1, 0, 0, 0));
    value!("acquire_resource.unknown", resource(DOMID_SELF, 77, 0, 0, 0));
    let claim = |domid: u16, pages: u64, order: u32| memory_op(24, &mut [0, pages, u64::from(order), u64::from(domid)]);
    value!("claim_pages.absent", claim(ABSENT_DOMAIN, 1, 0));
    value!("claim_pages.order", claim(0, 1, 1));
    value!("claim_pages.cancel", claim(0, 0, 0));
    for (name, cmd) in [
        ("pointer.add_to_physmap", 7),
        ("pointer.batch", 23),
        ("pointer.claim", 24),
        ("pointer.vnuma", 26),
        ("pointer.resource", 28),
    ] {
        for address in [0x1000, 0xffff_8300_0000_0000] {
            expect_text!(name, Rc(hypercall::raw(nr::MEMORY_OP, [cmd, address, 0, 0, 0])), "-EFAULT");
        }
    }
}
