//! Grant tables: sizes, set-up, versions, and the errors of every operation.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, handle};
use oxen_guests::mem::{PAGE, RW_PAGE, alloc_page};
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::{self, DOMID_SELF, nr};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("grants-setup", run);

const MAP: u64 = 0;
const UNMAP: u64 = 1;
const SETUP: u64 = 2;
const COPY: u64 = 5;
const QUERY: u64 = 6;
const SET_VERSION: u64 = 8;
const STATUS_FRAMES: u64 = 9;
const GET_VERSION: u64 = 10;

fn run() {
    sizes();
    set_up();
    versions();
    errors();
}

fn op<T: ?Sized>(cmd: u64, arg: &mut T, count: u64) -> Rc {
    Rc(hypercall::raw(nr::GRANT_TABLE_OP, [cmd, handle(arg), count, 0, 0]))
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct QuerySize {
    dom: u16,
    nr_frames: u32,
    max_frames: u32,
    status: i16,
}

fn query(dom: u16) -> (Rc, QuerySize) {
    let mut arg = QuerySize { dom, ..QuerySize::default() };
    (op(QUERY, &mut arg, 1), arg)
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct SetupTable {
    dom: u16,
    nr_frames: u32,
    status: i16,
    frame_list: u64,
}

fn setup(dom: u16, nr_frames: u32, list: u64) -> (Rc, i16) {
    let mut arg = SetupTable { dom, nr_frames, status: 99, frame_list: list };
    (op(SETUP, &mut arg, 1), arg.status)
}

fn sizes() {
    let (rc, size) = query(DOMID_SELF);
    expect_text!("query", rc, "0");
    expect!("query.status", size.status, 0);
    value!("query.frames", size.nr_frames);
    value!("query.max_frames", size.max_frames);
    expect!("query.absent", query(ABSENT_DOMAIN).1.status, -2);
    let mut arg = QuerySize { dom: DOMID_SELF, ..QuerySize::default() };
    expect_text!("query.count_2", op(QUERY, &mut arg, 2), "-EINVAL");
    value!("query.count_0", op(QUERY, &mut arg, 0));
}

fn set_up() {
    let mut frames = [0_u64; 64];
    let list = handle(&mut frames);
    let show = |name: &str, (rc, status): (Rc, i16)| value!(name, format_args!("{rc} status {status}"));
    show("setup.absent", setup(ABSENT_DOMAIN, 1, list));
    show("setup.too_many", setup(DOMID_SELF, 65, list));
    show("setup.huge", setup(DOMID_SELF, u32::MAX, list));
    show("setup.bad_list", setup(DOMID_SELF, 1, 0x1000));
    show("setup.none", setup(DOMID_SELF, 0, list));
    show("setup.two", setup(DOMID_SELF, 2, list));
    check!("setup.frames", frames[0] != 0 && frames[1] != 0 && frames[0] != frames[1]);
    value!("setup.grown", query(DOMID_SELF).1.nr_frames >= 2);
    let first = frames[0];
    show("setup.again", setup(DOMID_SELF, 1, list));
    expect!("setup.same_frame", frames[0] == first, true);
    let window = alloc_page();
    expect_text!("setup.map", hypercall::update_va_mapping(window.va(), (frames[0] * PAGE) | RW_PAGE, sys::UVMF_INVLPG), "0");
    expect!("setup.empty", (0..512).filter(|word| window.read(*word) != 0).count(), 0);
}

fn versions() {
    let get = |dom: u16| {
        let mut arg = [u32::from(dom), 77];
        (op(GET_VERSION, &mut arg, 1), arg[1])
    };
    let show = |name: &str, (rc, version): (Rc, u32)| value!(name, format_args!("{rc} {version}"));
    let set = |version: u32| {
        let mut arg = version;
        (op(SET_VERSION, &mut arg, 1), arg)
    };
    show("version.get", get(DOMID_SELF));
    value!("version.get_absent", get(ABSENT_DOMAIN).0);
    show("version.set_1", set(1));
    show("version.set_0", set(0));
    show("version.set_3", set(3));
    let mut arg = [u64::from(DOMID_SELF) << 32 | 1, 0];
    value!("version.status_frames_v1", format_args!("{} {}", op(STATUS_FRAMES, &mut arg, 1), arg[0] >> 48));
}

fn errors() {
    let raw = |cmd: u64, arg: u64, count: u64| Rc(hypercall::raw(nr::GRANT_TABLE_OP, [cmd, arg, count, 0, 0]));
    for (name, cmd) in [
        ("pointer.map", MAP),
        ("pointer.unmap", UNMAP),
        ("pointer.setup", SETUP),
        ("pointer.copy", COPY),
        ("pointer.query", QUERY),
        ("pointer.set_version", SET_VERSION),
        ("pointer.status_frames", STATUS_FRAMES),
        ("pointer.get_version", GET_VERSION),
        ("pointer.transfer", 4),
        ("pointer.replace", 7),
        ("pointer.swap", 11),
    ] {
        value!(name, format_args!("{} {}", raw(cmd, 0x1000, 1), raw(cmd, 0xffff_8300_0000_0000, 1)));
    }
    expect_text!("unknown", raw(13, 0, 1), "-ENOSYS");
    value!("count_0", raw(MAP, 0x1000, 0));
    value!("count_huge", raw(MAP, 0x1000, 0xffff_ffff));
}
