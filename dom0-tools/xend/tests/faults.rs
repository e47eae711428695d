//! What can be wrong with a request: one line names the cause, its code is right, and nothing is left behind.

use oxen_dom0_testkit::{World, Xend};
use oxen_guest_config::{GuestConfig, Uuid};
use oxen_xend_api::{Client, Code, Create, Error, Failure, Operation, Task};
use oxen_xenctl::NewDomain;
use std::sync::Arc;
use std::thread::spawn;
use std::time::{Duration, Instant};

fn refused(result: Result<impl Sized, Failure>) -> Error {
    match result {
        Err(Failure::Refused(error)) => error,
        Err(other) => panic!("no refusal: {other}"),
        Ok(_) => panic!("it worked"),
    }
}

/// A guest like this is refused for this reason, and nothing is left of it.
fn fails(world: &World, xend: &Xend, config: &GuestConfig, code: Code, part: &str) {
    let before = world.leftovers();
    let error = refused(xend.create(config));
    assert!(error.code == code && error.message.contains(part) && !error.message.contains('\n'), "expected {part}: {error:?}");
    assert_eq!(world.leftovers(), before, "{part}");
    assert!(xend.client.domain(&config.name).is_err() || before.iter().any(|it| it.starts_with("domain")), "{part}");
}

#[test]
fn kernels_that_are_none() {
    let world = World::new();
    let xend = world.start();
    let file = |name: &str, bytes: &[u8]| {
        let path = world.dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let with = |kernel: String| GuestConfig { kernel: Some(kernel), ..world.guest_with_devices("web") };
    fails(&world, &xend, &with("/nonexistent/vmlinuz".to_owned()), Code::BadKernel, "kernel /nonexistent/vmlinuz: No such file");
    fails(&world, &xend, &with(file("text", b"not a kernel at all")), Code::BadKernel, "/text");
    fails(&world, &xend, &with("/dev".to_owned()), Code::BadKernel, "kernel /dev: ");
    fails(&world, &xend, &with(format!("{}/x", file("file", b""))), Code::BadKernel, "Not a directory");
    let cut = std::fs::read(world.dir().join("kernel")).unwrap();
    fails(&world, &xend, &with(file("cut", &cut[..cut.len() / 2])), Code::BadKernel, "/cut");
    let ramdisk = GuestConfig { ramdisk: Some("/nonexistent/initrd".to_owned()), ..world.guest("web") };
    fails(&world, &xend, &ramdisk, Code::BadKernel, "ramdisk /nonexistent/initrd: No such file");
    world.assert_nothing_left("all of them");
}

#[test]
fn disks_and_bridges_that_cannot_be_had() {
    let world = World::new();
    let xend = world.start();
    let with = |disk: &str| GuestConfig { disks: vec![disk.parse().unwrap()], ..world.guest("web") };
    fails(&world, &xend, &with("phy:/dev/none,xvda,w"), Code::BadDisk, "disk xvda: /dev/none does not exist");
    world.kernel.file("/disks/ro.img", 9);
    world.kernel.make_read_only("/disks/ro.img");
    fails(&world, &xend, &with("file:/disks/ro.img,xvda,w"), Code::BadDisk, "/disks/ro.img cannot be written");
    let bridge = GuestConfig { vifs: vec!["bridge=none".parse().unwrap()], ..world.guest("web") };
    fails(&world, &xend, &bridge, Code::BadNetwork, "there is no bridge none");
    world.assert_nothing_left("what cannot be had");
    xend.create(&world.guest_with_devices("first")).unwrap();
    let shared = GuestConfig { disks: world.guest_with_devices("first").disks, ..world.guest("web") };
    fails(&world, &xend, &shared, Code::DiskInUse, "in use by domain 1 (first) as xvda, writable");
}

#[test]
fn what_is_in_use_or_too_much() {
    let world = World::new();
    let xend = world.start();
    let uuid = Uuid::new_v4();
    xend.create(&GuestConfig { uuid: Some(uuid), ..world.guest("first") }).unwrap();
    fails(&world, &xend, &world.guest("first"), Code::NameInUse, "the name first is in use");
    fails(&world, &xend, &GuestConfig { uuid: Some(uuid), ..world.guest("web") }, Code::UuidInUse, &uuid.to_string());
    let stranger = world.host.xen().create_domain(&NewDomain { handle: [9; 16], ..NewDomain::default() }).unwrap();
    oxen_xenstore::Nodes::write(&world.store, &format!("/local/domain/{stranger}/name"), "stranger").unwrap();
    fails(&world, &xend, &world.guest("stranger"), Code::NameInUse, &format!("domain {stranger}"));
    fails(&world, &xend, &GuestConfig { uuid: Some(Uuid::from_bytes([9; 16])), ..world.guest("web") }, Code::UuidInUse, &format!("domain {stranger}"));
    fails(&world, &xend, &GuestConfig { memory_mib: 4096, ..world.guest("web") }, Code::NotEnoughMemory, "not enough free memory");
    fails(&world, &xend, &GuestConfig { vcpus: 513, ..world.guest("web") }, Code::BadConfig, "vcpus");
}

#[test]
fn two_at_once() {
    let world = World::new();
    let xend = world.start();
    // Of two guests with one name the first is created.
    let create = |client: Client, config: GuestConfig| {
        let request = Create { config: Box::new(config), paused: false, managed: false, start: true };
        spawn(move || client.create(&request).and_then(|task| client.wait(task, |_| ())))
    };
    let both = [(); 2].map(|()| create(xend.client.clone(), world.guest("web")));
    let errors: Vec<Error> = both.into_iter().filter_map(|thread| thread.join().unwrap().err()).map(|failure| failure.refusal().unwrap().clone()).collect();
    assert_eq!(errors.iter().map(|error| error.code).collect::<Vec<_>>(), [Code::NameInUse]);
    assert_eq!(world.host.domids().len(), 2);

    // While something is done with a guest, something else is refused, with the reason.
    let waiting = xend.client.operate("web", &Operation::Shutdown { way: Default::default(), wait_s: None }).unwrap();
    let error = refused(xend.client.operate("web", &Operation::Pause));
    assert_eq!(error.code, Code::Busy);
    assert!(error.message.starts_with("web is busy: shutdown has been under way for "), "{error}");
    world.obey(1);
    xend.client.wait(waiting, |_| ()).unwrap();
    xend.client.run("web", &Operation::Destroy).unwrap();
    world.assert_nothing_left("two at once");
}

#[test]
fn a_guest_that_ends_during_an_operation_is_looked_after_at_its_end() {
    let world = World::new();
    let xend = world.start();
    xend.create(&world.guest("web")).unwrap();
    // Under way until the guest takes note, or ends.
    let asked = xend.client.operate("web", &Operation::Shutdown { way: Default::default(), wait_s: None }).unwrap();
    world.host.shut_down(1, oxen_abi::sched::ShutdownReason::POWEROFF);
    xend.daemon.look_after_guests();
    xend.client.wait(asked, |_| ()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while xend.client.domain("web").is_ok() {
        assert!(Instant::now() < deadline, "nobody looks after the guest");
        std::thread::sleep(Duration::from_millis(10));
    }
    xend.settle();
    world.assert_nothing_left("the end during an operation");
}

#[test]
fn a_destruction_meets_the_guest_as_it_is_then() {
    let world = World::new();
    let xend = Arc::new(world.start());
    xend.create(&world.guest("web")).unwrap();
    // The guest starts again between the moment at which somebody looks for it and the one at which it is destroyed.
    world.host.shut_down(1, oxen_abi::sched::ShutdownReason::REBOOT);
    xend.daemon.look_after_guests();
    let destroyed = loop {
        match xend.client.operate("web", &Operation::Destroy) {
            Ok(task) => break task,
            Err(failure) => assert!(matches!(failure.refusal().map(|error| error.code), Some(Code::Busy | Code::WrongState)), "{failure}"),
        }
    };
    let ended = |task: &Task| xend.client.wait(task.clone(), |_| ());
    ended(&destroyed).unwrap();
    assert!(xend.client.domain("web").is_err());
    world.assert_nothing_left("a destruction after a restart");
}
