//! Disks.

use super::Host;
use crate::kernel::{Kernel, Mount, Number};
use crate::{Code, Devices, Settings};
use oxen_guest_config::Disk;
use oxen_xend_api::DeviceState;
use oxen_xenstore::{Nodes, Perms};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn disk(text: &str) -> Disk {
    text.parse().unwrap()
}

#[test]
fn a_disk_comes_and_goes() {
    let host = Host::new();
    host.kernel.device("/dev/vg/root", 0x1a);
    let guest = host.guest(7);
    let root = disk("phy:vg/root,xvda1,w");
    host.devices.check_disk(&host.store, &root).unwrap();
    let block = host
        .devices
        .attach_disk(&host.store, &guest, &root)
        .unwrap();
    assert_eq!(
        (
            block.name.as_str(),
            block.kind.as_str(),
            block.writable,
            block.device.id
        ),
        ("xvda1", "phy", true, 51713)
    );
    assert_eq!(block.device.backend_state, DeviceState::InitWait);
    let (front, back) = (
        "/local/domain/7/device/vbd/51713",
        "/local/domain/0/backend/vbd/7/51713",
    );
    assert_eq!(
        host.text(&format!("{back}/physical-device")).as_deref(),
        Some("8:1a")
    );
    assert_eq!(
        host.text(&format!("{front}/backend")).as_deref(),
        Some(back)
    );
    assert_eq!(
        host.text(&format!("{front}/virtual-device")).as_deref(),
        Some("51713")
    );
    let perms = |path: &str| host.store.get_perms(path).unwrap();
    assert_eq!(
        perms(&format!("{front}/state")),
        Perms::parse(b"n7\0r0\0").unwrap()
    );
    assert_eq!(
        perms(&format!("{back}/state")),
        Perms::parse(b"n0\0r7\0").unwrap()
    );
    assert_eq!(
        perms("/libxl/7/device/vbd/51713/params"),
        Perms::parse(b"n0\0").unwrap()
    );

    let again = host
        .devices
        .attach_disk(&host.store, &guest, &root)
        .unwrap_err();
    assert_eq!(
        (again.code, again.message.as_str()),
        (
            Code::BadDisk,
            "disk xvda1 of guest7: there is one with this name already"
        )
    );
    assert_eq!(host.devices.disks(&host.store, 7).unwrap(), [block]);

    host.devices
        .detach_disk(&host.store, &guest, "xvda1", false)
        .unwrap();
    assert_eq!(
        (
            host.text(front),
            host.text(back),
            host.text("/libxl/7/device/vbd")
        ),
        (None, None, None)
    );
    let gone = host
        .devices
        .detach_disk(&host.store, &guest, "xvda1", false)
        .unwrap_err();
    assert_eq!(gone.code, Code::NoSuchDevice);
}

#[test]
fn who_writes_is_alone() {
    let host = Host::new();
    host.kernel.device("/dev/a", 1);
    let (one, other) = (host.guest(1), host.guest(2));
    host.devices
        .attach_disk(&host.store, &one, &disk("phy:/dev/a,xvda,r"))
        .unwrap();
    host.devices
        .attach_disk(&host.store, &other, &disk("phy:/dev/a,xvda,r"))
        .unwrap();
    let error = host
        .devices
        .attach_disk(&host.store, &other, &disk("phy:/dev/a,xvdb,w"))
        .unwrap_err();
    assert_eq!(error.code, Code::DiskInUse);
    assert_eq!(
        error.message,
        "disk xvdb of guest2: /dev/a is in use by domain 1 (guest1) as xvda, read-only; mode `w!` would ignore that"
    );
    assert_eq!(host.text("/local/domain/0/backend/vbd/2/51728"), None);
    host.devices
        .attach_disk(&host.store, &other, &disk("phy:/dev/a,xvdb,w!"))
        .unwrap();
    assert_eq!(
        host.devices
            .check_disk(&host.store, &disk("phy:/dev/a,xvdc,r"))
            .unwrap_err()
            .code,
        Code::DiskInUse
    );
}

#[test]
fn what_domain_0_uses_is_refused() {
    let host = Host::new();
    host.kernel.device("/dev/a", 1);
    let refusal = |text: &str| {
        host.devices
            .check_disk(&host.store, &disk(text))
            .unwrap_err()
    };
    host.kernel.world().mounts.push(Mount {
        number: Number { major: 8, minor: 1 },
        place: "/srv".to_owned(),
        writable: true,
    });
    host.kernel.world().claimed.insert("/dev/a".into());
    assert_eq!(
        refusal("phy:/dev/a,xvda,w").message,
        "disk xvda: /dev/a is mounted in domain 0 at /srv; mode `w!` would ignore that"
    );
    assert_eq!(refusal("phy:/dev/a,xvda,r").code, Code::DiskInUse);
    host.devices
        .check_disk(&host.store, &disk("phy:/dev/a,xvda,w!"))
        .unwrap();
    host.kernel.world().mounts[0].writable = false;
    host.devices
        .check_disk(&host.store, &disk("phy:/dev/a,xvda,r"))
        .unwrap();
}

#[test]
fn files_are_behind_loop_devices() {
    let host = Host::new();
    host.kernel.file("/srv/a.img", 77);
    let (one, other) = (host.guest(1), host.guest(2));
    let block = host
        .devices
        .attach_disk(&host.store, &one, &disk("file:/srv/a.img,xvda,w"))
        .unwrap();
    assert_eq!(
        (block.kind.as_str(), block.target.as_str()),
        ("file", "/srv/a.img")
    );
    assert_eq!(
        host.text("/local/domain/0/backend/vbd/1/51712/physical-device")
            .as_deref(),
        Some("7:0")
    );
    let error = host
        .devices
        .attach_disk(&host.store, &other, &disk("/srv/a.img,raw,xvda,rw"))
        .unwrap_err();
    assert!(
        error
            .message
            .contains("in use by domain 1 (guest1) as xvda, writable"),
        "{error}"
    );
    // The guest ends, but something in domain 0 still has the loop device.
    let held = host.kernel.loops().unwrap();
    host.kernel.world().loops = held;
    host.devices.detach_all(&host.store, 1).unwrap();
    let error = host
        .devices
        .attach_disk(&host.store, &other, &disk("/srv/a.img,raw,xvda,rw"))
        .unwrap_err();
    assert!(
        error
            .message
            .contains("in use by domain 0, which has it as /dev/loop0"),
        "{error}"
    );
    host.kernel.world().loops.clear();
    host.devices
        .attach_disk(&host.store, &other, &disk("/srv/a.img,raw,xvda,rw"))
        .unwrap();
}

#[test]
fn what_is_no_disk_is_refused() {
    let host = Host::new();
    host.kernel.file("/srv/a.img", 77);
    for (text, code, part) in [
        (
            "phy:/dev/none,xvda,w",
            Code::BadDisk,
            "/dev/none does not exist",
        ),
        (
            "phy:/srv/a.img,xvda,w",
            Code::BadDisk,
            "is a file, not a block device",
        ),
        (
            "/srv/a.qcow2,qcow2,xvda,w",
            Code::BadDisk,
            "format qcow2 is not supported",
        ),
        (
            "phy:/dev/sdb,xvdc,w,storage",
            Code::Unsupported,
            "domain storage",
        ),
        (
            "script=block-none,vdev=xvda,target=x",
            Code::BadDisk,
            "block-none cannot be used",
        ),
    ] {
        let error = host
            .devices
            .check_disk(&host.store, &disk(text))
            .unwrap_err();
        assert!(
            error.code == code
                && error.message.contains(part)
                && error.message.starts_with("disk xvd"),
            "{text}: {error:?}"
        );
    }
}

#[test]
fn a_missing_driver_is_named_and_nothing_is_left() {
    let host = Host::without_drivers(Duration::from_millis(100));
    host.kernel.device("/dev/a", 1);
    let guest = host.guest(1);
    let error = host
        .devices
        .attach_disk(&host.store, &guest, &disk("phy:/dev/a,xvda,w"))
        .unwrap_err();
    assert_eq!(error.code, Code::Timeout);
    assert!(error.message.contains("xen-blkback"), "{error}");
    assert_eq!(host.text("/local/domain/0/backend/vbd/1"), None);
    assert_eq!(host.text("/libxl/1/device/vbd"), None);
}

#[test]
fn a_guest_that_holds_on_needs_force() {
    let host = Host::without_drivers(Duration::from_millis(300)).with_drivers();
    host.kernel.device("/dev/a", 1);
    let guest = host.guest(1);
    host.devices
        .attach_disk(&host.store, &guest, &disk("phy:/dev/a,xvda,w"))
        .unwrap();
    let (front, back) = (
        "/local/domain/1/device/vbd/51712",
        "/local/domain/0/backend/vbd/1/51712",
    );
    host.store.write(&format!("{front}/state"), "4").unwrap();
    let error = host
        .devices
        .detach_disk(&host.store, &guest, "xvda", false)
        .unwrap_err();
    assert_eq!(error.code, Code::Timeout);
    assert_eq!(host.text(&format!("{back}/online")).as_deref(), Some("0"));
    host.store
        .write(
            "/local/domain/1/error/device/vbd/51712/error",
            "16 Device in use;\n\x1b[31m refusing to close",
        )
        .unwrap();
    let error = host
        .devices
        .detach_disk(&host.store, &guest, "xvda", false)
        .unwrap_err();
    assert_eq!(error.code, Code::GuestRefuses);
    assert!(
        error
            .message
            .contains("16 Device in use; [31m refusing to close"),
        "{error}"
    );
    host.devices
        .detach_disk(&host.store, &guest, "xvda", true)
        .unwrap();
    assert_eq!((host.text(front), host.text(back)), (None, None));
}

#[test]
fn a_disk_that_is_pulled_out_serves_until_the_guest_has_let_go() {
    let host = Host::new();
    host.kernel.device("/dev/a", 1);
    let guest = host.guest(1);
    host.devices
        .attach_disk(&host.store, &guest, &disk("phy:/dev/a,xvda,w"))
        .unwrap();
    let front = "/local/domain/1/device/vbd/51712";
    let back = "/local/domain/0/backend/vbd/1/51712";
    host.store.write(&format!("{front}/state"), "4").unwrap();
    let of_guest = host.store.reopen().unwrap();
    let driver = std::thread::spawn(move || {
        while of_guest.get_perms(front).unwrap().access(1) != oxen_xenstore::Access::None {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It writes what it holds.
        std::thread::sleep(Duration::from_millis(300));
        let served = of_guest.try_read(&format!("{back}/state")).unwrap().unwrap_or_default();
        of_guest.write(&format!("{front}/state"), "6").unwrap();
        served
    });
    host.devices
        .detach_disk(&host.store, &guest, "xvda", true)
        .unwrap();
    let served = driver.join().unwrap();
    assert!(["2", "4"].contains(&served.as_str()), "{served}");
    assert_eq!((host.text(front), host.text(back)), (None, None));
}

#[test]
fn what_a_guest_rewrites_is_not_believed() {
    let host = Host::new();
    host.kernel.device("/dev/a", 1);
    let (one, other) = (host.guest(1), host.guest(2));
    host.devices
        .attach_disk(&host.store, &one, &disk("phy:/dev/a,xvda,w"))
        .unwrap();
    host.devices
        .attach_disk(&host.store, &other, &disk("phy:/dev/a,xvda,w!"))
        .unwrap();
    let front = "/local/domain/1/device/vbd/51712";
    host.store
        .write(
            &format!("{front}/backend"),
            "/local/domain/0/backend/vbd/2/51712",
        )
        .unwrap();
    host.store
        .write(&format!("{front}/backend-id"), "9")
        .unwrap();
    host.store
        .write(&format!("{front}/state"), b"\xff\xff")
        .unwrap();
    host.store
        .write(&format!("{front}/ring-ref"), "-1")
        .unwrap();
    let disks = host.devices.disks(&host.store, 1).unwrap();
    assert_eq!(
        disks[0].device.backend,
        "/local/domain/0/backend/vbd/1/51712"
    );
    assert_eq!(
        (
            disks[0].device.backend_domid,
            disks[0].device.frontend_state,
            disks[0].ring_ref
        ),
        (0, DeviceState::Unknown, None)
    );
    host.devices.detach_all(&host.store, 1).unwrap();
    assert!(
        host.text("/local/domain/0/backend/vbd/2/51712/state")
            .is_some()
    );
    assert_eq!(host.devices.disks(&host.store, 1).unwrap(), []);
}

#[test]
fn another_process_finishes_what_a_killed_one_left() {
    let host = Host::new();
    host.kernel.device("/dev/a", 1);
    let guest = host.guest(1);
    host.devices
        .attach_disk(&host.store, &guest, &disk("phy:/dev/a,xvda,w"))
        .unwrap();
    // Killed in between: the record is gone, the back end is not; and the other way round.
    host.store.rm("/libxl/1/device/vbd/51712").unwrap();
    host.store
        .write("/libxl/1/device/vbd/51728/frontend", "x")
        .unwrap();
    let successor = Devices::with_kernel(Settings::default(), Box::new(host.kernel.clone()));
    successor.detach_all(&host.store, 1).unwrap();
    successor.detach_all(&host.store, 1).unwrap();
    assert_eq!(
        (
            host.text("/local/domain/0/backend/vbd/1"),
            host.text("/libxl/1/device/vbd")
        ),
        (None, None)
    );
}

#[test]
fn a_script_makes_the_device() {
    let host = Host::new();
    let guest = host.guest(1);
    host.script("block-bad", "echo no such target >&2; exit 1");
    host.script("block-silent", "exit 0");
    let bad = host
        .devices
        .attach_disk(
            &host.store,
            &guest,
            &disk("script=block-bad,vdev=xvda,target=x"),
        )
        .unwrap_err();
    assert_eq!(bad.code, Code::ScriptFailed);
    assert!(
        bad.message.contains("block-bad add") && bad.message.ends_with("no such target"),
        "{bad}"
    );
    let silent = host
        .devices
        .attach_disk(
            &host.store,
            &guest,
            &disk("script=block-silent,vdev=xvda,target=x"),
        )
        .unwrap_err();
    assert!(silent.message.contains("physical-device"), "{silent}");
    assert_eq!(host.text("/local/domain/0/backend/vbd/1"), None);
}

#[test]
fn only_one_of_two_at_once_gets_a_disk() {
    let host = Host::new();
    host.kernel.device("/dev/a", 1);
    let guests = [host.guest(1), host.guest(2)];
    let won: usize = std::thread::scope(|scope| {
        let attempts = guests.each_ref().map(|guest| {
            let (devices, store) = (Arc::clone(&host.devices), host.store.clone());
            scope.spawn(move || {
                devices
                    .attach_disk(&store, guest, &disk("phy:/dev/a,xvda,w"))
                    .is_ok()
            })
        });
        attempts
            .into_iter()
            .map(|attempt| usize::from(attempt.join().unwrap()))
            .sum()
    });
    assert_eq!(won, 1);
}

#[test]
fn a_disk_goes_at_once_with_its_guest() {
    let host = Host::new();
    host.kernel.device("/dev/a", 1);
    let guest = host.guest(1);
    host.devices
        .attach_disk(&host.store, &guest, &disk("phy:/dev/a,xvda,w"))
        .unwrap();
    let start = Instant::now();
    host.devices.detach_all(&host.store, 1).unwrap();
    // Nobody waited for a driver that says nothing, which takes 20 seconds here.
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(host.kernel.in_use(), [""; 0]);
}

#[test]
fn a_driver_that_lets_go_without_a_word_is_noticed() {
    const BACKEND: &str = "/local/domain/0/backend/vbd/1/51712";
    let host = Host::without_drivers(Duration::from_secs(60));
    host.kernel.device("/dev/a", 1);
    let guest = host.guest(1);
    let (store, kernel) = (host.store.reopen().unwrap(), host.kernel.clone());
    let until = |happened: &dyn Fn() -> bool| {
        while !happened() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let driver = std::thread::spawn(move || {
        until(&|| store.exists(BACKEND).unwrap());
        store.write(&format!("{BACKEND}/state"), "2").unwrap();
        until(&|| !store.exists("/local/domain/1/device/vbd/51712").unwrap());
        // Longer than it takes to begin to wait.
        std::thread::sleep(Duration::from_millis(100));
        kernel.world().drivers_are_gone = true;
    });
    host.devices
        .attach_disk(&host.store, &guest, &disk("phy:/dev/a,xvda,w"))
        .unwrap();
    let start = std::time::Instant::now();
    host.devices.detach_all(&host.store, 1).unwrap();
    assert!(start.elapsed() < Duration::from_secs(30));
    driver.join().unwrap();
}
