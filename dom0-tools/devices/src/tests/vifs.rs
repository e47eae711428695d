//! Network cards.

use super::Host;
use crate::Code;
use oxen_guest_config::Vif;
use oxen_xenstore::Nodes;

fn vif(text: &str) -> Vif {
    text.parse().unwrap()
}

#[test]
fn a_card_joins_its_bridge() {
    let host = Host::new();
    host.kernel.interface("vif3.0", 9, false);
    host.kernel.interface("vif3.1", 10, false);
    let guest = host.guest(3);
    let card = host
        .devices
        .attach_vif(
            &host.store,
            &guest,
            None,
            &vif("mac=00:16:3e:00:00:01,rate=10MB/s,ip=10.0.0.2"),
        )
        .unwrap();
    assert_eq!(
        (
            card.device.id,
            card.mac.as_str(),
            card.bridge.as_deref(),
            card.interface.as_str()
        ),
        (0, "00:16:3e:00:00:01", Some("xenbr0"), "vif3.0")
    );
    assert_eq!(
        host.kernel.world().done,
        ["link 9: name None, mtu Some(1500), bridge Some(5), up true, arp Some(false)"]
    );
    let node = |name: &str| host.text(&format!("/local/domain/0/backend/vif/3/0/{name}"));
    assert_eq!(node("hotplug-status").as_deref(), Some("connected"));
    assert_eq!(node("rate").as_deref(), Some("500000,50000"));
    assert_eq!((node("mtu"), node("handle").as_deref()), (None, Some("0")));
    assert_eq!(
        host.text("/local/domain/3/device/vif/0/mac").as_deref(),
        Some("00:16:3e:00:00:01")
    );

    let second = host
        .devices
        .attach_vif(
            &host.store,
            &guest,
            None,
            &vif("bridge=xenbr0,vifname=web,mtu=1400"),
        )
        .unwrap();
    assert_eq!((second.device.id, second.interface.as_str()), (1, "web"));
    assert!(second.mac.starts_with("00:16:3e:"));
    assert_eq!(
        host.text("/local/domain/3/device/vif/1/mtu").as_deref(),
        Some("1400")
    );

    host.devices
        .detach_vif(&host.store, &guest, "00:16:3E:00:00:01", false)
        .unwrap();
    let left = host.devices.vifs(&host.store, 3).unwrap();
    assert_eq!(
        left.iter().map(|card| card.device.id).collect::<Vec<_>>(),
        [1]
    );
    host.devices.detach_all(&host.store, 3).unwrap();
    assert_eq!(
        (
            host.text("/local/domain/0/backend/vif/3"),
            host.text("/libxl/3/device/vif")
        ),
        (None, None)
    );
}

#[test]
fn what_cannot_be_set_up_is_refused() {
    let host = Host::new();
    host.kernel.interface("eth0", 2, false);
    for (text, part) in [
        ("bridge=none", "there is no bridge none; there are xenbr0"),
        ("bridge=eth0", "eth0 is a network interface, but no bridge"),
        ("vifname=eth0", "there is a network interface eth0 already"),
        ("script=vif-none", "vif-none cannot be used"),
        (
            "script=vif-route,gatewaydev=eth9",
            "there is no network interface eth9",
        ),
    ] {
        let error = host.devices.check_vif(&vif(text)).unwrap_err();
        assert!(
            error.code == Code::BadNetwork && error.message.contains(part),
            "{text}: {error:?}"
        );
    }
    host.kernel.world().links.remove("xenbr0");
    assert!(
        host.devices
            .check_vif(&vif(""))
            .unwrap_err()
            .message
            .contains("ip link add xenbr0 type bridge")
    );
}

#[test]
fn a_card_is_routed() {
    let host = Host::new();
    host.kernel.interface("eth0", 2, false);
    host.kernel.interface("vif3.0", 9, false);
    let guest = host.guest(3);
    host.devices
        .attach_vif(
            &host.store,
            &guest,
            Some(0),
            &vif("script=vif-route,ip=10.0.0.2,gatewaydev=eth0"),
        )
        .unwrap();
    assert_eq!(
        host.kernel.world().done,
        [
            "link 9: name None, mtu None, bridge None, up true, arp None",
            "vif3.0 answers for others",
            "route 10.0.0.2 to 9",
            "eth0 answers for 10.0.0.2"
        ]
    );
}

#[test]
fn a_card_s_script_sees_xen_s_environment() {
    let host = Host::new();
    host.kernel.interface("vif3.0", 9, false);
    let guest = host.guest(3);
    let said = host.dir.path().join("said");
    let out = said.display();
    host.script(
        "vif-mine",
        &format!("echo $1 $2 $XENBUS_PATH $XENBUS_TYPE $vif >>{out}"),
    );
    host.devices
        .attach_vif(&host.store, &guest, None, &vif("script=vif-mine"))
        .unwrap();
    host.devices
        .detach_vif(&host.store, &guest, "0", true)
        .unwrap();
    let expected = "online type_if=vif backend/vif/3/0 vif vif3.0\noffline type_if=vif backend/vif/3/0 vif vif3.0\n";
    assert_eq!(std::fs::read_to_string(&said).unwrap(), expected);
    host.script("vif-bad", "echo the bridge burns >&2; exit 7");
    let error = host
        .devices
        .attach_vif(&host.store, &guest, None, &vif("script=vif-bad"))
        .unwrap_err();
    assert_eq!(error.code, Code::ScriptFailed);
    assert!(
        error.message.contains("vif-bad online") && error.message.ends_with("the bridge burns"),
        "{error}"
    );
    assert!(!host.store.exists("/local/domain/0/backend/vif/3").unwrap());
}

#[test]
fn a_driver_s_error_is_told() {
    let host = Host::without_drivers(std::time::Duration::from_secs(3));
    let guest = host.guest(3);
    let store = host.store.reopen().unwrap();
    store
        .watch("/local/domain/0/backend/vif/3/0/state", "")
        .unwrap();
    let driver = std::thread::spawn(move || {
        while !store
            .exists("/local/domain/0/backend/vif/3/0/state")
            .unwrap()
        {
            store.next_event(None).unwrap();
        }
        store
            .write(
                "/local/domain/0/error/backend/vif/3/0/error",
                "22 creating interface",
            )
            .unwrap();
    });
    let error = host
        .devices
        .attach_vif(&host.store, &guest, Some(0), &vif(""))
        .unwrap_err();
    driver.join().unwrap();
    assert!(error.message.contains("22 creating interface"), "{error}");
}
