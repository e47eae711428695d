use super::*;
use std::fs;

/// A kernel's files with one disk and one card of domain 3.
fn files() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let devices = "sys/bus/xen-backend/devices";
    for (file, value) in [("rd_sect", "8"), ("wr_sect", "16"), ("rd_req", "1"), ("wr_req", "2"), ("oo_req", "3")] {
        write(&format!("{devices}/vbd-3-51712/statistics/{file}"), value);
    }
    for (file, value) in [("rx_bytes", "100"), ("tx_bytes", "200"), ("rx_packets", "3"), ("tx_packets", "4"), ("rx_errors", "5"), ("tx_errors", "6"), ("rx_dropped", "7"), ("tx_dropped", "8")] {
        write(&format!("{devices}/vif-3-0/net/web0/statistics/{file}"), value);
    }
    write(&format!("{devices}/console-3-0/statistics/rd_sect"), "1");
    write("proc/stat", "cpu  1 2 3 4 5 6 7 150 0 0\ncpu0 1 2 3 4 5 6 7 100 0 0\ncpu2 1 2 3 4 5 6 7 50 0 0\nintr 5\n");
    root
}

#[test]
fn back_ends_are_found_and_seen_from_the_guest() {
    let root = files();
    let (disks, interfaces) = sysfs::back_ends(root.path());
    let disk = Disk { domid: 3, devid: 51712, read_bytes: 4096, written_bytes: 8192, reads: 1, writes: 2, out_of_requests: 3 };
    assert_eq!(disks, [disk]);
    let card = Interface {
        domid: 3,
        devid: 0,
        received_bytes: 200,
        sent_bytes: 100,
        received_packets: 4,
        sent_packets: 3,
        received_errors: 6,
        sent_errors: 5,
        received_dropped: 8,
        sent_dropped: 7,
    };
    assert_eq!(interfaces, [card]);
}

#[test]
fn stolen_time_is_by_processor() {
    let root = files();
    assert_eq!(sysfs::steal_ns(root.path()), [1_000_000_000, 0, 500_000_000]);
}

#[test]
fn the_text_is_what_prometheus_reads() {
    let snapshot = Snapshot {
        host: Some(Host { cpus: 2, memory: 1 << 30, ..Host::default() }),
        domains: vec![Domain {
            domid: 3,
            name: "a\"b".to_owned(),
            flags: DOMINF_PAUSED,
            cpu_time_ns: 1_500_000_000,
            vcpus: vec![Vcpu { vcpu: 1, cpu_time_ns: 7, online: true, steal_ns: None }],
            ports: Some(5),
            ..Domain::default()
        }],
        disks: vec![Disk { domid: 3, devid: 51712, read_bytes: 4096, ..Disk::default() }],
        ..Snapshot::default()
    };
    let text = snapshot.render();
    for line in [
        "# TYPE oxen_domain_cpu_seconds_total counter",
        "oxen_host_memory_bytes 1073741824",
        "oxen_domain_cpu_seconds_total{domid=\"3\",domain=\"a\\\"b\"} 1.500000000",
        "oxen_domain_state{domid=\"3\",domain=\"a\\\"b\",state=\"paused\"} 1",
        "oxen_domain_event_channels{domid=\"3\",domain=\"a\\\"b\"} 5",
        "oxen_vcpu_cpu_seconds_total{domid=\"3\",domain=\"a\\\"b\",vcpu=\"1\"} 0.000000007",
        "oxen_disk_read_bytes_total{domid=\"3\",domain=\"a\\\"b\",device=\"51712\"} 4096",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // What is not known is left out rather than told as zero.
    assert!(!text.contains("oxen_domain_grant_frames{"));
    assert!(!text.contains("oxen_vcpu_steal_seconds_total{"));
}

#[test]
fn a_machine_without_hypervisor_files_has_no_devices() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(sysfs::back_ends(root.path()), (Vec::new(), Vec::new()));
    assert!(sysfs::steal_ns(root.path()).is_empty());
}
