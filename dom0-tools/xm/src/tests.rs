//! The commands that ask the hypervisor themselves, on a hypervisor in this process: columns as users of `xl` know them, JSON, exit codes, messages.

use crate::cli::Cli;
use crate::exit::Failure;
use crate::machine::Machine;
use oxen_abi::Errno;
use oxen_abi::sched::ShutdownReason;
use oxen_dom0_testkit::{FakeHost, World, Xend};
use oxen_xenctl::fake::Activity;
use oxen_xenctl::{CpuMap, Error, NewDomain};
use oxen_xenstore::Nodes;
use oxen_xend_api::{Client, Create};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Frames of a MiB.
const MIB: u64 = 256;
/// A second in ns.
const S: u64 = 1_000_000_000;

/// A machine with domain 0 (1 MiB, two vCPUs) and domain 3, `web` (8 MiB of at most 12, one vCPU), a disk and a card.
struct Bench {
    world: World,
    machine: Machine,
}

impl Bench {
    fn new() -> Self {
        let world = World::new();
        let host = &world.host;
        add_memory(host, 0, MIB);
        host.set_activity(0, 0, Activity { cpu: 1, running: true, blocked: false, cpu_time_ns: 12_340_000_000 });
        host.set_activity(0, 1, Activity { cpu: 0, running: false, blocked: true, cpu_time_ns: S });
        host.add_domain(3);
        add_memory(host, 3, 8 * MIB);
        host.add_vcpus(3, 1);
        host.set_activity(3, 0, Activity { cpu: 0, running: false, blocked: true, cpu_time_ns: 5 * S });
        host.xen().set_max_memory(3, 12 << 10).unwrap();
        host.xen().set_handle(3, [0x11; 16]).unwrap();
        world.store.write("/local/domain/3/name", "web").unwrap();
        let root = world.dir().join("root");
        let file = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("proc/uptime", "90061.99 100.00\n");
        file("proc/sys/kernel/hostname", "castle\n");
        file("proc/sys/kernel/osrelease", "6.1.0-56-amd64\n");
        file("proc/sys/kernel/version", "#1 SMP\n");
        for (name, value) in [("rd_sect", 4096), ("wr_sect", 2048), ("rd_req", 7), ("wr_req", 5), ("oo_req", 2)] {
            file(&format!("sys/bus/xen-backend/devices/vbd-3-51712/statistics/{name}"), &format!("{value}\n"));
        }
        for (name, value) in [("rx_bytes", 3 << 10), ("tx_bytes", 9 << 10), ("rx_packets", 3), ("tx_packets", 9)] {
            file(&format!("sys/bus/xen-backend/devices/vif-3-0/net/vif3.0/statistics/{name}"), &format!("{value}\n"));
        }
        let xen = host.clone();
        let machine = Machine { hypervisor: Box::new(move || Ok(xen.xen())), store_socket: world.store_socket(), xend: Client::new("/nonexistent/xend.sock"), root };
        Self { world, machine }
    }

    /// Starts xend.
    fn with_xend(mut self) -> (Self, Xend) {
        let xend = self.world.start();
        self.machine.xend = xend.client.clone();
        (self, xend)
    }

    fn host(&self) -> &FakeHost {
        &self.world.host
    }

    fn xm(&self, line: &str) -> (u8, String) {
        run(&self.machine, line)
    }

    /// What a command prints that works.
    fn prints(&self, line: &str) -> String {
        let (code, text) = self.xm(line);
        assert_eq!(code, 0, "{line}: {text}");
        text
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.prints(line)).unwrap()
    }
}

/// Carries a command line out: the exit code, and what is printed or, when it fails, the message.
fn run(machine: &Machine, line: &str) -> (u8, String) {
    let cli = Cli::read(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    let mut out = Vec::new();
    match crate::carry_out(&cli, machine, &mut out) {
        Ok(()) => (0, String::from_utf8(out).unwrap()),
        Err(failure) => {
            assert!(out.is_empty(), "{line} prints and fails: {}", String::from_utf8_lossy(&out));
            (failure.code(), failure.to_string())
        }
    }
}

fn add_memory(host: &FakeHost, domid: u16, pages: u64) {
    for _ in 0..pages {
        let _ = host.add_frame(domid);
    }
}

/// The keys of an object.
fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn list_has_xl_s_columns() {
    let bench = Bench::new();
    bench.host().xen().create_domain(&NewDomain { domid: Some(4), ..NewDomain::default() }).unwrap();
    bench.host().add_domain(5);
    bench.host().shut_down(5, ShutdownReason::CRASH);
    let expected = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0     1     2     r-----      13.3
web                                          3     8     1     -b----       5.0
(no name)                                    4     0     0     --p---       0.0
(no name)                                    5     0     0     ---sc-       0.0
";
    assert_eq!(bench.prints("xm list"), expected);
    let lines: Vec<&str> = expected.lines().collect();
    assert_eq!(bench.prints("xm list 3 Domain-0"), [lines[0], lines[2], lines[1], ""].join("\n"));
    assert_eq!(bench.xm("xm list web shop"), (5, "there is no domain shop; `xm list` shows those that exist".to_owned()));
}

#[test]
fn list_as_json_is_the_model() {
    let bench = Bench::new();
    let list = bench.json("xm list --json");
    let ids: Vec<&Value> = list.as_array().unwrap().iter().map(|domain| &domain["id"]).collect();
    assert_eq!(ids, [0, 3]);
    let expected = json!({
        "name": "web", "id": 3, "memory_mib": 8, "max_memory_mib": 12, "vcpus": 1, "max_vcpus": 1,
        "state": { "running": false, "blocked": true, "paused": false, "shutdown": false, "crashed": false, "dying": false },
        "cpu_time_s": 5.0, "type": "pv", "uuid": "11111111-1111-1111-1111-111111111111", "cpupool": 0,
    });
    assert_eq!(list[1], expected);
    bench.host().shut_down(3, ShutdownReason::REBOOT);
    let state = &bench.json("xm list --json web")[0]["state"];
    assert_eq!((&state["shutdown"], &state["crashed"], &state["shutdown_reason"]), (&json!(true), &json!(false), &json!("reboot")));
}

#[test]
fn list_adds_the_guests_that_do_not_run() {
    let (bench, xend) = Bench::new().with_xend();
    let create = Create { config: Box::new(bench.world.guest("spare")), paused: false, managed: true, start: false };
    xend.client.wait(xend.client.create(&create).unwrap(), |_| ()).unwrap();
    let text = bench.prints("xm list");
    assert_eq!(text.lines().last(), Some("spare                                              8     1     ------"), "{text}");
    let list = bench.json("xm list --json");
    assert_eq!(list[2]["name"], "spare");
    assert_eq!((&list[2]["id"], &list[2]["memory_mib"], &list[2]["vcpus"]), (&Value::Null, &json!(8), &json!(1)));
    assert_eq!(bench.json("xm list --json spare").as_array().unwrap().len(), 1);
    // What xend knows of it, and of those that run.
    let long = bench.json("xm list -l spare");
    assert_eq!((&long[0]["name"], &long[0]["state"], &long[0]["config"]["name"]), (&json!("spare"), &json!("halted"), &json!("spare")));
    assert_eq!(bench.json("xm list -l"), bench.json("xm list -l --json"));
    assert_eq!(bench.xm("xm list -l shop").0, 5);
}

#[test]
fn a_long_list_needs_xend_and_a_short_one_does_not() {
    let bench = Bench::new();
    let (code, message) = bench.xm("xm list -l");
    assert_eq!(code, 7);
    assert!(message.starts_with("cannot connect to xend at /nonexistent/xend.sock"), "{message}");
    assert!(bench.prints("xm list").contains("web "));
}

#[test]
fn without_xenstored_domains_have_no_names() {
    let mut bench = Bench::new();
    bench.machine.store_socket = "/nonexistent/socket".into();
    let text = bench.prints("xm list");
    assert!(text.contains("\n(no name)                                    3     8 ") && text.contains("\nDomain-0 "), "{text}");
    assert_eq!(bench.json("xm list --json")[1]["name"], Value::Null);
    assert!(bench.prints("xm top -b -i 1").contains("domain-3 "));
}

#[test]
fn vcpu_list_has_xl_s_columns() {
    let bench = Bench::new();
    let xen = bench.host().xen();
    xen.create_domain(&NewDomain { domid: Some(4), nr_vcpus: 2, ..NewDomain::default() }).unwrap();
    xen.set_max_vcpus(4, 2).unwrap();
    xen.set_vcpu_affinity(3, 0, Some(&CpuMap::new([1])), None, 2).unwrap();
    let expected = "\
Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)
Domain-0                             0     0     1   r--       12.3  all / all
Domain-0                             0     1     0   -b-        1.0  all / all
web                                  3     0     0   -b-        5.0  1 / all
(no name)                            4     0     -   --p        0.0  all / all
(no name)                            4     1     -   --p        0.0  all / all
";
    assert_eq!(bench.prints("xm vcpu-list"), expected);
    let of_web = bench.json("xm vcpu-list --json web");
    let vcpu = json!({
        "name": "web", "id": 3, "vcpu": 0, "cpu": 0, "running": false, "blocked": true, "cpu_time_s": 5.0,
        "hard_affinity": "1", "soft_affinity": "all",
    });
    assert_eq!(of_web, json!([vcpu]));
    assert_eq!(bench.json("xm vcpu-list --json 4")[1]["cpu"], Value::Null);
    assert_eq!(bench.xm("xm vcpu-list 9").0, 5);
}

/// A domain that goes away between two questions is left out, and the others are shown.
#[test]
fn vcpus_of_a_domain_that_ends_are_left_out() {
    let bench = Bench::new();
    let hook = bench.host().clone();
    let host = bench.host().clone();
    let machine = Machine {
        hypervisor: Box::new(move || {
            let host = host.clone();
            Ok(hook.xen_with(Box::new(move |_| {
                if host.calls().last() == Some(&"domctl getvcpuaffinity") {
                    host.remove_domain(3);
                }
                Ok(())
            })))
        }),
        ..bench.machine
    };
    let (code, text) = run(&machine, "xm vcpu-list");
    assert_eq!((code, text.lines().count()), (0, 3), "{text}");
    assert!(!text.contains("web"), "{text}");
}

#[test]
fn info_has_xl_s_lines() {
    let bench = Bench::new();
    let text = bench.prints("xm info");
    let of = |key: &str| {
        let line = text.lines().find(|line| line.split(" : ").next().is_some_and(|found| found.trim_end() == key));
        line.and_then(|line| line.split_once(" : ")).map_or_else(|| panic!("no {key}:\n{text}"), |(_, value)| value)
    };
    // In the order of `xl info`.
    let expected = [
        ("host", "castle"),
        ("release", "6.1.0-56-amd64"),
        ("version", "#1 SMP"),
        ("machine", "x86_64"),
        ("nr_cpus", "2"),
        ("max_cpu_id", "1"),
        ("nr_nodes", "1"),
        ("cores_per_socket", "2"),
        ("threads_per_core", "1"),
        ("cpu_mhz", "2400.000"),
        ("hw_caps", "00000000:00000000:00000000:00000000:00000000:00000000:00000000:00000000"),
        ("virt_caps", "pv"),
        ("total_memory", "256"),
        ("free_memory", "247"),
        ("sharing_freed_memory", "0"),
        ("sharing_used_memory", "0"),
        ("outstanding_claims", "0"),
        ("free_cpus", "0"),
        ("xen_major", "4"),
        ("xen_minor", "17"),
        ("xen_extra", ".fake"),
        ("xen_version", "4.17.fake"),
        ("xen_caps", "xen-3.0-x86_64"),
        ("xen_scheduler", "credit"),
        ("xen_pagesize", "4096"),
    ];
    for (key, value) in expected {
        assert_eq!(of(key), value, "{key}");
    }
    let shown: Vec<&str> = text.lines().filter_map(|line| line.split_once(" : ")).map(|(key, _)| key.trim_end()).collect();
    let order: Vec<&str> = expected.iter().map(|(key, _)| *key).collect();
    assert_eq!(shown.get(..order.len()), Some(&*order), "{text}");
    assert!(!text.contains("cpu_topology"), "{text}");
    let with_topology = bench.prints("xm info -n");
    let nodes = "cpu:    core    socket     node\n  0:       0        0        0\n  1:       1        0        0\nnuma_info              :\nnode:    memsize    memfree    distances\n   0:       256        247      10\n";
    assert!(with_topology.ends_with(nodes), "{with_topology}");
}

#[test]
fn info_as_json_has_the_same_values() {
    let bench = Bench::new();
    let info = bench.json("xm info --json -n");
    assert_eq!((&info["host"], &info["nr_cpus"], &info["cpu_mhz"]), (&json!("castle"), &json!(2), &json!(2400.0)));
    assert_eq!((&info["free_memory"], &info["virt_caps"]), (&json!(247), &json!(["pv"])));
    assert_eq!(info["topology"]["cpus"][1], json!({ "cpu": 1, "core": 1, "socket": 0, "node": 0 }));
    assert_eq!(info["topology"]["nodes"], json!([{ "node": 0, "memory_mib": 256, "free_mib": 247, "distances": [10] }]));
    // A line of the text for each value.
    let text = bench.prints("xm info");
    let mut in_text: Vec<&str> = text.lines().filter_map(|line| line.split_once(" : ")).map(|(key, _)| key.trim_end()).collect();
    in_text.push("topology");
    in_text.sort_unstable();
    assert_eq!(keys(&info), in_text);
}

/// What a hypervisor lacks is left out; what it refuses is a failure.
#[test]
fn info_leaves_out_what_the_hypervisor_lacks() {
    let bench = Bench::new();
    bench.host().fail("sysctl cpupool_op", 0, Errno::EOPNOTSUPP);
    bench.host().fail("sysctl sched_id", 0, Errno::ENOSYS);
    let text = bench.prints("xm info");
    assert!(!text.contains("free_cpus") && !text.contains("xen_scheduler") && text.contains("xen_version"), "{text}");
    bench.host().fail("sysctl sched_id", 0, Errno::EINVAL);
    let (code, message) = bench.xm("xm info");
    assert_eq!(code, 1);
    assert!(message.starts_with("the hypervisor refused sysctl sched_id: EINVAL"), "{message}");
}

#[test]
fn uptime_is_told_by_the_kernel_and_by_xenstore() {
    let bench = Bench::new();
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 3_600;
    bench.world.store.write("/local/domain/3/vm", "/vm/web").unwrap();
    bench.world.store.write("/vm/web/start_time", format!("{start}.25")).unwrap();
    bench.host().add_domain(4);
    let text = bench.prints("xm uptime");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["Name                                ID Uptime", "Domain-0                             0 1 day,  1:01:01"]);
    // The clock goes on while the test runs.
    assert!(lines[2].starts_with("web                                  3  1:00:0"), "{text}");
    assert_eq!(lines[3], "(no name)                            4 unknown");
    let json = bench.json("xm uptime --json");
    assert_eq!((&json[0], &json[2]["uptime_s"]), (&json!({ "name": "Domain-0", "id": 0, "uptime_s": 90_061 }), &Value::Null));
    assert!((3_600..3_660).contains(&json[1]["uptime_s"].as_u64().unwrap()), "{json}");
    assert_eq!(bench.json("xm uptime --json web").as_array().unwrap().len(), 1);
}

#[test]
fn dmesg_prints_the_ring_and_can_clear_it() {
    let bench = Bench::new();
    // More than one call takes.
    let long: String = (0..3_000).map(|n| format!("(XEN) line {n}\n")).collect();
    bench.host().print(&long);
    assert_eq!(bench.prints("xm dmesg"), long);
    let lines = bench.json("xm dmesg --json");
    assert_eq!((lines.as_array().unwrap().len(), &lines[2_999]), (3_000, &json!("(XEN) line 2999")));
    assert_eq!(bench.prints("xm dmesg -c"), long);
    assert_eq!(bench.prints("xm dmesg"), "");
    assert_eq!(bench.json("xm dmesg --json"), json!([]));
    bench.host().print("(XEN) more\n");
    assert_eq!(bench.prints("xm dmesg"), "(XEN) more\n");
}

#[test]
fn debug_keys_are_pressed() {
    let bench = Bench::new();
    assert_eq!(bench.prints("xm debug-keys hq"), "");
    assert_eq!(bench.prints("xm dmesg"), "(XEN) 'h' pressed\n(XEN) 'q' pressed\n");
    assert_eq!(bench.json("xm debug-keys --json r"), json!({ "keys": "r" }));
}

#[test]
fn batches_of_top_have_xentop_s_columns() {
    let bench = Bench::new();
    let text = bench.prints("xm top -b -i 1");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let cell = |row: usize, name: &str| {
        let column = rows[0].iter().position(|head| *head == name).unwrap_or_else(|| panic!("no {name}:\n{text}"));
        rows[row][column]
    };
    assert_eq!(rows.len(), 3, "{text}");
    assert_eq!((rows[1][0], rows[2][0]), ("Domain-0", "web"));
    for (name, value) in [
        ("CPU(sec)", "5"),
        ("CPU(%)", "0.0"),
        ("MEM(k)", "8192"),
        ("MEM(%)", "3.1"),
        ("MAXMEM(k)", "12288"),
        ("MAXMEM(%)", "4.7"),
        ("VCPUS", "1"),
        ("NETS", "1"),
        ("NETTX(k)", "3"),
        ("NETRX(k)", "9"),
        ("VBDS", "1"),
        ("VBD_OO", "2"),
        ("VBD_RD", "7"),
        ("VBD_WR", "5"),
        ("VBD_RSECT", "4096"),
        ("VBD_WSECT", "2048"),
        ("SSID", "0"),
    ] {
        assert_eq!(cell(2, name), value, "{name}:\n{text}");
    }
    assert_eq!(cell(1, "VCPUS"), "2");
    let with_parts = bench.prints("xm top -b -i 1 -n -x -v");
    let parts: Vec<&str> = with_parts.lines().skip(3).collect();
    let expected = [
        "       web -b----          5    0.0       8192    3.1      12288       4.7     1    1        3        9    1        2        7        5       4096       2048    0",
        "VCPUs(sec):     0:         5s",
        "Net0 RX:     9216bytes        9pkts        0err        0drop  TX:     3072bytes        3pkts        0err        0drop",
        "VBD BlkBack  51712  OO:        2   RD:        7   WR:        5  RSECT:       4096  WSECT:       2048",
    ];
    assert_eq!(parts, expected, "{with_parts}");
    let heads = |line: &str| bench.prints(line).lines().filter(|line| line.contains("CPU(sec)")).count();
    assert_eq!((heads("xm top -b -i 1"), heads("xm top -b -i 1 -r")), (1, 2));
}

#[test]
fn top_as_json_has_sums_of_all_devices() {
    let bench = Bench::new();
    let looks = bench.json("xm top --json -i 1");
    let expected = json!({
        "name": "web", "id": 3, "state": "-b----", "cpu_time_s": 5.0, "cpu_percent": null, "memory_kib": 8192, "memory_percent": 3.125, "max_memory_kib": 12288,
        "max_memory_percent": 4.6875, "vcpus": 1, "networks": 1, "sent_kib": 3, "received_kib": 9, "disks": 1, "out_of_requests": 2, "reads": 7, "writes": 5,
        "read_kib": 2048, "written_kib": 1024, "read_sectors": 4096, "written_sectors": 2048, "ssid": 0,
    });
    assert_eq!(looks[1], expected);
}

#[test]
fn top_counts_processor_time_between_looks() {
    let bench = Bench::new();
    let host = bench.host().clone();
    let busy = std::thread::spawn(move || {
        oxen_dom0_testkit::wait_for("the first look ends", || host.calls().iter().filter(|call| **call == "domctl getvcpuinfo").count() >= 3);
        std::thread::sleep(Duration::from_millis(100));
        host.set_activity(3, 0, Activity { cpu: 0, running: true, blocked: false, cpu_time_ns: 5 * S + S / 2 });
    });
    let text = bench.prints("xm top --json -i 2 -d 1 -o cpu");
    busy.join().unwrap();
    let looks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(looks.len(), 2);
    assert_eq!(looks[0][0]["cpu_percent"], Value::Null);
    // Half a second of at least one second; the busiest comes first.
    assert_eq!(looks[1][0]["name"], "web");
    let share = looks[1][0]["cpu_percent"].as_f64().unwrap();
    assert!(share > 0.5 && share <= 50.0, "{text}");
    assert_eq!(looks[1][1]["cpu_percent"], 0.0);
}

/// The commands that ask the hypervisor.
const QUESTIONS: [&str; 7] = ["xm list", "xm list --json", "xm vcpu-list", "xm info", "xm uptime", "xm dmesg", "xm top -b -i 1"];

#[test]
fn without_the_hypervisor_messages_say_what_to_do() {
    type Case = (fn() -> Error, u8, &'static str);
    let cases: [Case; 4] = [
        (|| Error::NotUnderXen, 3, "this system does not run under Oxen or Xen; boot the hypervisor"),
        (|| Error::NoPrivcmd, 3, "this kernel offers no /dev/xen/privcmd; load the module with `modprobe xen-privcmd`"),
        (|| Error::NotRoot { path: "/dev/xen/privcmd" }, 4, "permission to open /dev/xen/privcmd denied; run this as root"),
        (|| Error::NoDevice { path: "/dev/xen/evtchn", module: "xen-evtchn" }, 1, "this kernel offers no /dev/xen/evtchn; load the module with `modprobe xen-evtchn`"),
    ];
    for (error, code, start) in cases {
        let machine = Machine { hypervisor: Box::new(move || Err(error())), store_socket: "/nonexistent".into(), xend: Client::new("/nonexistent"), root: "/nonexistent".into() };
        for line in QUESTIONS {
            let (exit, message) = run(&machine, line);
            assert_eq!(exit, code, "{line}: {message}");
            assert!(message.starts_with(start) && message.lines().count() == 1, "{line}: {message}");
        }
    }
}

#[test]
fn refusals_of_the_hypervisor_have_codes() {
    let bench = Bench::new();
    let calls = [
        ("xm list", "sysctl getdomaininfolist"),
        ("xm vcpu-list", "sysctl physinfo"),
        ("xm vcpu-list", "domctl getvcpuinfo"),
        ("xm info", "sysctl physinfo"),
        ("xm info -n", "sysctl numainfo"),
        ("xm uptime", "sysctl getdomaininfolist"),
        ("xm dmesg", "sysctl readconsole"),
        ("xm debug-keys h", "sysctl debug_keys"),
        ("xm top -b -i 1", "sysctl getdomaininfolist"),
    ];
    for (line, call) in calls {
        for (errno, code, part) in [
            (Errno::EPERM, 4, "this is not the control domain; run this in domain 0"),
            (Errno::EACCES, 6, "it speaks another version of the control interface than 0x15; install the tools that belong to the running hypervisor"),
            (Errno::EFAULT, 1, "EFAULT"),
        ] {
            bench.host().fail(call, 0, errno);
            let (exit, message) = bench.xm(line);
            assert_eq!(exit, code, "{line}: {message}");
            assert!(message.starts_with(&format!("the hypervisor refused {call}")) && message.contains(part), "{line}: {message}");
        }
    }
}

/// A place to print to that takes nothing.
struct Closed(io::ErrorKind);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
    let bench = Bench::new();
    for line in ["xm list", "xm top -b", "xm top --json"] {
        let cli = Cli::read(line.split(' ')).unwrap();
        assert!(crate::carry_out(&cli, &bench.machine, &mut Closed(io::ErrorKind::BrokenPipe)).is_ok(), "{line}");
        let failure = crate::carry_out(&cli, &bench.machine, &mut Closed(io::ErrorKind::StorageFull)).unwrap_err();
        assert!(matches!(failure, Failure::Output(_)) && failure.code() == 1, "{line}: {failure}");
        assert!(failure.to_string().starts_with("cannot write the output: "), "{failure}");
    }
}
