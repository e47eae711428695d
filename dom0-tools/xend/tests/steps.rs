//! Every operation is broken off at every step: each call of the hypervisor and each request to xenstored fails once, and the daemon is
//! killed there. Then a guest is whole, or nothing is left of it.

use oxen_abi::sched::ShutdownReason;
use oxen_dom0_testkit::{Plan, World, Xend};
use oxen_guest_config::{Action, GuestConfig};
use oxen_xend::Daemon;
use oxen_xend_api::{Create, DeviceState, Error, Operation, State, Task};
use oxen_xenstore::Nodes;
use std::sync::Arc;

/// Ways to break something off. What is killed after a step differs from what is killed before the next by what was written to the database in between.
const PLANS: &[fn(usize) -> Plan] = &[Plan::Fail, Plan::KillBefore];
const ALL_PLANS: &[fn(usize) -> Plan] = &[Plan::Fail, Plan::KillBefore, Plan::KillAfter];

fn create(daemon: &Arc<Daemon>, config: GuestConfig) -> Result<Task, Error> {
    daemon.create(Create { config: Box::new(config), paused: false, managed: false, start: true })
}

/// Does something at every step of which it is broken off. `prepare` brings about what must be there before, `check` looks at what there is afterwards
/// through a daemon that lives.
fn at_every_step(plans: &[fn(usize) -> Plan], prepare: impl Fn(&World, &Xend), start: impl Fn(&Arc<Daemon>, GuestConfig) -> Result<Task, Error> + Clone + Send + 'static, check: impl Fn(&World, &Xend, &str)) {
    let world = World::new();
    for plan in plans {
        for step in 0.. {
            let config = world.guest_with_devices("web");
            let xend = world.start();
            prepare(&world, &xend);
            xend.gate.arm(plan(step));
            let start = start.clone();
            let ended = xend.attempt(move |daemon| start(daemon, config));
            let Some(hit) = xend.gate.hit() else {
                xend.gate.arm(Plan::Pass);
                assert!(matches!(ended, Some(Ok(_))), "undisturbed: {ended:?}");
                xend.settle();
                remove(&world, &xend, "undisturbed");
                xend.stop();
                assert!(step > 2, "there are {step} steps only");
                break;
            };
            let what = format!("{:?}, {hit}, {ended:?}", plan(step));
            let xend = match ended {
                None => {
                    world.bury(xend);
                    world.start()
                }
                Some(_) => {
                    xend.gate.arm(Plan::Pass);
                    xend
                }
            };
            xend.settle();
            check(&world, &xend, &what);
            remove(&world, &xend, &what);
            xend.stop();
        }
    }
}

/// Destroys all guests.
fn remove(world: &World, xend: &Xend, after: &str) {
    for domain in xend.daemon.domains().unwrap().into_iter().filter(|domain| domain.domid != Some(0)) {
        let ended = xend.attempt(move |daemon| daemon.operate(&domain.uuid, Operation::Destroy));
        assert!(matches!(ended, Some(Ok(_))), "{} cannot be destroyed: {ended:?}", domain.name);
    }
    world.assert_nothing_left(after);
}

/// The guest is known and whole, or it is unknown and nothing is left of it.
fn whole_or_nothing(world: &World, xend: &Xend, what: &str) {
    let Ok(domain) = xend.daemon.domain("web") else {
        world.assert_nothing_left(what);
        assert_eq!(xend.daemon.domains().unwrap().len(), 1, "{what}");
        return;
    };
    assert_eq!(domain.state, State::Running, "{what}");
    whole(world, xend, what, domain.domid.unwrap());
}

/// All of the guest is there.
fn whole(world: &World, xend: &Xend, what: &str, domid: u16) {
    assert!(world.host.domids().contains(&domid), "{what}");
    let config = xend.daemon.domain("web").unwrap().config.unwrap();
    let (blocks, networks) = (xend.daemon.blocks("web").unwrap(), xend.daemon.networks("web").unwrap());
    assert_eq!((blocks.len(), networks.len()), (config.disks.len(), config.vifs.len()), "{what}");
    for device in blocks.iter().map(|block| &block.device).chain(networks.iter().map(|card| &card.device)) {
        assert_eq!(device.backend_state, DeviceState::InitWait, "{what}: {device:?}");
    }
    let node = |path: String| world.store.try_read(&path).unwrap();
    assert_eq!(node(format!("/local/domain/{domid}/name")).as_deref(), Some("web"), "{what}");
    for (block, disk) in blocks.iter().zip(&config.disks) {
        assert_eq!(block.target, disk.target, "{what}");
    }
    let in_use = world.kernel.in_use();
    assert_eq!(in_use.iter().filter(|what| what.starts_with("/dev/loop")).count(), blocks.len(), "{what}: {in_use:?}");
    assert_eq!(in_use.iter().filter(|what| what.starts_with("vif")).count(), networks.len(), "{what}: {in_use:?}");
}

fn created(world: &World, xend: &Xend) {
    xend.create(&world.guest_with_devices("web")).unwrap();
}

/// An operation on the guest.
fn operate(operation: Operation) -> impl Fn(&Arc<Daemon>, GuestConfig) -> Result<Task, Error> + Clone + Send + 'static {
    move |daemon, _| daemon.operate("web", operation.clone())
}

/// The guest runs, and what there is of its devices is in its record.
fn still_whole(world: &World, xend: &Xend, what: &str) {
    let domain = xend.daemon.domain("web").unwrap();
    assert_eq!(domain.state, State::Running, "{what}");
    whole(world, xend, what, domain.domid.unwrap());
}

#[test]
fn creations_break_off() {
    at_every_step(ALL_PLANS, |_, _| (), create, whole_or_nothing);
}

#[test]
fn the_undoing_of_creations_breaks_off() {
    let world = World::new();
    let xend = world.start();
    xend.gate.arm(Plan::Pass);
    created(&world, &xend);
    let steps = xend.gate.steps();
    xend.settle();
    remove(&world, &xend, "undisturbed");
    xend.stop();
    for fail in [steps * 2 / 3, steps * 4 / 5] {
        for kill in fail + 1.. {
            let xend = world.start();
            let config = world.guest_with_devices("web");
            xend.gate.arm(Plan::FailThenKill(fail, kill));
            let ended = xend.attempt(move |daemon| create(daemon, config));
            let what = format!("step {fail} of {steps} fails, killed before step {kill}, {ended:?}");
            let lives = ended.is_some();
            let xend = if lives {
                xend.gate.arm(Plan::Pass);
                xend
            } else {
                world.bury(xend);
                world.start()
            };
            xend.settle();
            whole_or_nothing(&world, &xend, &what);
            remove(&world, &xend, &what);
            xend.stop();
            if lives {
                assert!(kill > fail + 5, "{what}: nothing was undone");
                break;
            }
        }
    }
}

#[test]
fn destructions_break_off() {
    at_every_step(PLANS, created, operate(Operation::Destroy), |world, xend, what| {
        // A destruction that failed leaves a guest that can be destroyed again.
        if xend.daemon.domain("web").is_err() {
            world.assert_nothing_left(what);
        }
    });
}

#[test]
fn attachments_break_off() {
    let disk = |world: &World, xend: &Xend| {
        created(world, xend);
        world.kernel.file("/disks/more.img", 2);
    };
    let attach = Operation::BlockAttach { disk: Box::new("file:/disks/more.img,xvdb,w".parse().unwrap()) };
    at_every_step(ALL_PLANS, disk, operate(attach), still_whole);
    let attach = Operation::NetworkAttach { vif: Box::new("bridge=xenbr0".parse().unwrap()) };
    at_every_step(PLANS, created, operate(attach), still_whole);
}

#[test]
fn detachments_break_off() {
    // A back end that has lost its guest's end closes: such a device is neither whole nor gone, and goes when it is detached again.
    let check = |world: &World, xend: &Xend, what: &str| {
        for (device, is_there, operation) in [
            ("xvda", !xend.daemon.blocks("web").unwrap().is_empty(), Operation::BlockDetach { device: "xvda".to_owned(), force: false }),
            ("0", !xend.daemon.networks("web").unwrap().is_empty(), Operation::NetworkDetach { device: "0".to_owned(), force: false }),
        ] {
            if is_there {
                let ended = xend.attempt(move |daemon| daemon.operate("web", operation));
                assert!(matches!(ended, Some(Ok(_))), "{what}: {device} cannot be detached again: {ended:?}");
            }
        }
        still_whole(world, xend, what);
        assert!(world.kernel.in_use().is_empty(), "{what}");
    };
    at_every_step(PLANS, created, operate(Operation::BlockDetach { device: "xvda".to_owned(), force: false }), check);
    at_every_step(PLANS, created, operate(Operation::NetworkDetach { device: "0".to_owned(), force: false }), check);
}

#[test]
fn requests_to_shut_down_break_off() {
    // Nobody waits for the guest to take note, which it does afterwards or not.
    let ask = operate(Operation::Shutdown { way: Default::default(), wait_s: None });
    let obedient = |world: &World, xend: &Xend| {
        created(world, xend);
        let domid = xend.daemon.domain("web").unwrap().domid.unwrap();
        world.store.write(&format!("/local/domain/{domid}/control/shutdown"), "").unwrap();
        world.obey_when_asked(domid);
    };
    at_every_step(PLANS, obedient, ask, |world, xend, what| {
        xend.daemon.look_after_guests();
        xend.settle();
        let Ok(domain) = xend.daemon.domain("web") else { return };
        assert!(world.host.domids().contains(&domain.domid.unwrap_or(0)), "{what}");
    });
}

#[test]
fn restarts_break_off() {
    for reason in [ShutdownReason::REBOOT, ShutdownReason::CRASH] {
        let ended = move |world: &World, xend: &Xend| {
            let config = GuestConfig { on_crash: Action::RenameRestart, ..world.guest_with_devices("web") };
            xend.create(&GuestConfig { disks: Vec::new(), ..config }).unwrap();
            let domid = xend.daemon.domain("web").unwrap().domid.unwrap();
            world.host.shut_down(domid, reason);
        };
        let look = |daemon: &Arc<Daemon>, _| {
            daemon.look_after_guests();
            let task = daemon.tasks.all().pop();
            task.ok_or_else(|| Error::new(oxen_xend_api::Code::Internal, "the end of the guest was not seen"))
        };
        at_every_step(PLANS, ended, look, |world, xend, what| {
            // Whatever became of it: what there is, is known.
            let known: Vec<Option<u16>> = xend.daemon.domains().unwrap().iter().filter(|domain| domain.config.is_some()).map(|domain| domain.domid).collect();
            for domid in world.host.domids().into_iter().filter(|domid| *domid != 0) {
                assert!(known.contains(&Some(domid)), "{what}: nobody knows domain {domid}");
            }
            // What breaks off with the daemon is carried on by the next one.
            if what.starts_with("KillBefore") {
                let domain = xend.daemon.domain("web").unwrap_or_else(|error| panic!("{what}: the guest has not come back: {error}"));
                assert_eq!(domain.state, State::Running, "{what}");
                whole(world, xend, what, domain.domid.unwrap());
            }
        });
    }
}
