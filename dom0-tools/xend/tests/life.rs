//! Guests' lives, on a machine in this process.

use oxen_dom0_testkit::{GUEST_MIB, World, wait_for};
use oxen_xenctl::NewDomain;
use oxen_xend_api::{Operation, Outcome, State};
use oxen_xenstore::Nodes;

#[test]
fn a_guest_lives_and_nothing_is_left() {
    let world = World::new();
    let xend = world.start();
    world.watch(&xend);
    let Outcome::Domain { domain } = xend.create(&world.guest_with_devices("web")).unwrap() else { panic!("no domain") };
    let domid = domain.domid.unwrap();
    assert_eq!((domain.name.as_str(), domain.state, domain.memory_kib), ("web", State::Running, GUEST_MIB << 10));
    assert_eq!(world.host.domain(domid).unwrap().paused, 0);
    let names: Vec<String> = xend.client.domains().unwrap().into_iter().map(|domain| domain.name).collect();
    assert_eq!(names, ["Domain-0", "web"]);
    assert_eq!(xend.client.blocks("web").unwrap().len(), 1);
    assert_eq!(xend.client.networks("web").unwrap().len(), 1);

    xend.client.run("web", &Operation::Pause).unwrap();
    assert_eq!(xend.client.domain("web").unwrap().state, State::Paused);
    xend.client.run("web", &Operation::Unpause).unwrap();
    let asked = xend.client.operate("web", &Operation::Shutdown { way: Default::default(), wait_s: Some(20) }).unwrap();
    assert_eq!(world.obey(domid), "poweroff");
    xend.client.wait(asked, |_| ()).unwrap();
    wait_for("the guest is gone", || xend.client.domains().unwrap().len() == 1);
    world.assert_nothing_left("a shutdown");

    xend.create(&world.guest_with_devices("web")).unwrap();
    xend.client.run("web", &Operation::Destroy).unwrap();
    assert_eq!(xend.client.domains().unwrap().len(), 1);
    world.assert_nothing_left("a destruction");
}

#[test]
fn a_domain_with_a_lost_guest_s_number_is_left_alone() {
    let world = World::new();
    let xend = world.start();
    let Outcome::Domain { domain } = xend.create(&world.guest_with_devices("web")).unwrap() else { panic!("no domain") };
    let domid = domain.domid.unwrap();
    xend.stop();
    // While no daemon runs the guest ends, and somebody else's gets its number.
    world.host.remove_domain(domid);
    let handle = [7; 16];
    world.host.xen().create_domain(&NewDomain { domid: Some(domid), handle, ..NewDomain::default() }).unwrap();
    let name = format!("/local/domain/{domid}/name");
    world.store.write(&name, "stranger").unwrap();

    let xend = world.start();
    assert_eq!(world.host.domain(domid).map(|domain| domain.config.handle), Some(handle));
    assert_eq!(world.store.try_read(&name).unwrap().as_deref(), Some("stranger"));
    let names: Vec<String> = xend.client.domains().unwrap().into_iter().map(|domain| domain.name).collect();
    assert_eq!(names, ["Domain-0", "stranger"]);
    assert!(!world.store.exists(&format!("/vm/{}", domain.uuid)).unwrap());
}
