use super::*;

/// A configuration with nothing wrong.
fn sound() -> GuestConfig {
    GuestConfig {
        name: "web".to_owned(),
        kernel: Some("/boot/vmlinuz".to_owned()),
        memory_mib: 256,
        vifs: vec!["bridge=xenbr0".parse().unwrap()],
        disks: vec!["phy:vg/web,xvda,w".parse().unwrap()],
        ..GuestConfig::default()
    }
}

/// The options that are wrong after a change.
fn wrong(change: impl FnOnce(&mut GuestConfig)) -> Vec<String> {
    let mut config = sound();
    change(&mut config);
    config
        .check()
        .into_iter()
        .map(|error| error.option)
        .collect()
}

#[test]
fn json_holds_everything() {
    let mut config = sound();
    config.uuid = Some(Uuid::new_v4());
    config.cpus = Some(Affinity::Each(vec![
        "0".parse().unwrap(),
        "1-2".parse().unwrap(),
    ]));
    config.cpus_soft = Some(Affinity::Together("node:0,^1".parse().unwrap()));
    config.on_crash = Action::CoredumpRestart;
    config.vifs = vec!["mac=00:16:3e:00:00:01,rate=1MB/s".parse().unwrap()];
    config.arguments.extra = Some("quiet".to_owned());
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<GuestConfig>(&json).unwrap(), config);
}

#[test]
fn json_fields_have_defaults_and_unknown_ones_are_refused() {
    let config: GuestConfig = serde_json::from_str(r#"{"name":"a","memory_mib":64}"#).unwrap();
    assert_eq!(
        (config.name.as_str(), config.memory_mib, config.vcpus),
        ("a", 64, 1)
    );
    let error = serde_json::from_str::<GuestConfig>(r#"{"nane":"a"}"#).unwrap_err();
    assert!(error.to_string().contains("nane"));
}

#[test]
fn a_sound_configuration_passes() {
    assert_eq!(wrong(|_| {}), [] as [&str; 0]);
}

#[test]
fn each_fault_is_found() {
    assert_eq!(wrong(|config| config.kind = GuestKind::Hvm), ["type"]);
    for name in ["", "a b", "7", "a/b", "Domain-0", "-x", "ä"] {
        assert_eq!(
            wrong(|config| config.name = name.to_owned()),
            ["name"],
            "{name}"
        );
    }
    assert_eq!(wrong(|config| config.uuid = Some(Uuid::nil())), ["uuid"]);
    assert_eq!(wrong(|config| config.kernel = None), ["kernel"]);
    assert_eq!(
        wrong(|config| config.kernel = Some(String::new())),
        ["kernel"]
    );
    assert_eq!(wrong(|config| config.memory_mib = 0), ["memory"]);
    assert_eq!(wrong(|config| config.max_memory_mib = Some(1)), ["maxmem"]);
    assert_eq!(wrong(|config| config.vcpus = 0), ["vcpus"]);
    assert_eq!(wrong(|config| config.max_vcpus = Some(513)), ["maxvcpus"]);
    assert_eq!(wrong(|config| config.cpu_weight = Some(0)), ["cpu_weight"]);
    assert_eq!(wrong(|config| config.cpu_cap = Some(101)), ["cpu_cap"]);
    assert_eq!(
        wrong(|config| config.on_crash = Action::SoftReset),
        ["on_crash"]
    );
    assert_eq!(
        wrong(|config| config.on_xend_stop = OnDaemonStop::Suspend),
        ["on_xend_stop"]
    );
}

#[test]
fn faults_of_devices_name_the_device() {
    let with_disk = |text: &str| {
        let disk = text.parse().unwrap();
        wrong(|config| config.disks.push(disk))
    };
    assert_eq!(with_disk("phy:vg/data,xvda,w"), ["disk[1]"]);
    assert_eq!(with_disk("tap:qcow2:/srv/a,xvdb,w"), ["disk[1]"]);
    assert_eq!(with_disk("file:a.img,xvdb,w"), ["disk[1]"]);
    assert_eq!(with_disk("file:/a.iso,xvdb:cdrom,w"), ["disk[1]"]);
    assert_eq!(with_disk("file:/a.img,xvdb,w"), [] as [&str; 0]);
    assert_eq!(
        wrong(|config| config.vifs = vec!["mac=00:16:3e:00:00:01".parse().unwrap(); 2]),
        ["vif[1]"]
    );
}

#[test]
fn booting_from_the_disk_needs_a_disk() {
    let loader = |config: &mut GuestConfig| {
        config.kernel = None;
        config.bootloader = Some(Bootloader {
            program: "/usr/bin/pygrub".to_owned(),
            args: Vec::new(),
        });
    };
    assert_eq!(wrong(loader), [] as [&str; 0]);
    assert_eq!(
        wrong(|config| {
            loader(config);
            config.disks.clear();
        }),
        ["bootloader"]
    );
}
