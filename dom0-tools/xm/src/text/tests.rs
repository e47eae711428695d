use super::*;
use crate::model::{Cpu, HostFacts, Kernel, Node};
use oxen_abi::domctl::{
    DOMINF_BLOCKED, DOMINF_DYING, DOMINF_HVM_GUEST, DOMINF_RUNNING, DOMINF_SHUTDOWN,
    DOMINF_SHUTDOWN_SHIFT, GetDomainInfo, GetVcpuInfo,
};
use oxen_abi::sched::ShutdownReason;
use oxen_abi::sysctl::{
    PHYSCAP_DIRECTIO, PHYSCAP_GNTTAB_V1, PHYSCAP_HAP, PHYSCAP_HVM, PHYSCAP_PV, PhysInfo,
};
use oxen_xenctl::{CompiledBy, CpuMap, VcpuAffinity, VersionInfo};

/// Domain 0 with 512 MiB and two vCPUs.
fn domain_0() -> GetDomainInfo {
    GetDomainInfo {
        flags: DOMINF_RUNNING,
        tot_pages: 131_072,
        max_pages: u64::from(u32::MAX),
        cpu_time: 12_340_000_000,
        nr_online_vcpus: 2,
        max_vcpu_id: 1,
        handle: [0; 16],
        ..GetDomainInfo::default()
    }
}

/// A crashed guest.
fn crashed() -> GetDomainInfo {
    GetDomainInfo {
        domain: 12,
        flags: DOMINF_SHUTDOWN
            | DOMINF_DYING
            | DOMINF_HVM_GUEST
            | ShutdownReason::CRASH.raw() << DOMINF_SHUTDOWN_SHIFT,
        tot_pages: 65_536,
        outstanding_pages: 256,
        max_pages: 65_792,
        cpu_time: 950_000_000,
        nr_online_vcpus: 1,
        max_vcpu_id: 0,
        handle: [
            0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc,
            0xde, 0xf0,
        ],
        ..GetDomainInfo::default()
    }
}

fn facts() -> HostFacts {
    HostFacts {
        kernel: Kernel {
            host: "castle".into(),
            release: "6.1.0-56-amd64".into(),
            version: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2".into(),
        },
        version: VersionInfo {
            major: 4,
            minor: 17,
            extra: ".Oxen-0.1.0".into(),
            compiled: CompiledBy {
                compiler: "rustc 1.95.0".into(),
                by: "builder".into(),
                domain: "example.org".into(),
                date: "today".into(),
            },
            capabilities: "xen-3.0-x86_64 hvm-3.0-x86_32 ".into(),
            changeset: "0123abcd".into(),
            virt_start: 0xffff_8000_0000_0000,
            page_size: 4096,
            command_line: "dom0_mem=512M".into(),
            build_id: Some(vec![0xde, 0xad, 0x0f]),
        },
        phys: PhysInfo {
            threads_per_core: 1,
            cores_per_socket: 2,
            nr_cpus: 2,
            max_cpu_id: 1,
            nr_nodes: 1,
            max_node_id: 63,
            cpu_khz: 2_394_046,
            capabilities: PHYSCAP_PV | PHYSCAP_HVM | PHYSCAP_HAP | PHYSCAP_GNTTAB_V1,
            total_pages: 262_144,
            free_pages: 126_976,
            outstanding_pages: 256,
            hw_cap: [0xbfeb_fbff, 1, 2, 3, 4, 5, 6, 7],
            ..PhysInfo::default()
        },
        scheduler: Some("credit2".into()),
        sharing: Some((0, 0)),
        free_cpus: Some(0),
        domain_pages: Some(131_072),
        topology: None,
    }
}

#[test]
fn info_has_the_lines_that_xen_s_users_know() {
    let expected = "\
host                   : castle
release                : 6.1.0-56-amd64
version                : #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2
machine                : x86_64
nr_cpus                : 2
max_cpu_id             : 1
nr_nodes               : 1
cores_per_socket       : 2
threads_per_core       : 1
cpu_mhz                : 2394.046
hw_caps                : bfebfbff:00000001:00000002:00000003:00000004:00000005:00000006:00000007
virt_caps              : pv hvm hap gnttab-v1
total_memory           : 1024
free_memory            : 495
sharing_freed_memory   : 0
sharing_used_memory    : 0
outstanding_claims     : 1
oxen_memory_kb         : 16384
free_cpus              : 0
xen_major              : 4
xen_minor              : 17
xen_extra              : .Oxen-0.1.0
xen_version            : 4.17.Oxen-0.1.0
xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32
xen_scheduler          : credit2
xen_pagesize           : 4096
platform_params        : virt_start=0xffff800000000000
xen_changeset          : 0123abcd
xen_commandline        : dom0_mem=512M
cc_compiler            : rustc 1.95.0
cc_compile_by          : builder
cc_compile_domain      : example.org
cc_compile_date        : today
build_id               : dead0f
xend_config_format     : 4
";
    assert_eq!(info(&facts().into()), expected);
}

#[test]
fn info_leaves_out_what_the_hypervisor_does_not_say() {
    let mut facts = facts();
    (
        facts.scheduler,
        facts.sharing,
        facts.free_cpus,
        facts.domain_pages,
    ) = (None, None, None, None);
    facts.version.build_id = None;
    let text = info(&facts.into());
    for key in [
        "xen_scheduler",
        "sharing_",
        "free_cpus",
        "oxen_memory_kb",
        "build_id",
    ] {
        assert!(!text.contains(key), "{key}");
    }
}

#[test]
fn another_hypervisor_s_memory_is_not_called_oxen_s() {
    let mut facts = facts();
    facts.version.extra = ".7".into();
    assert!(!info(&facts.into()).contains("oxen_memory_kb"));
}

#[test]
fn device_assignment_is_named_per_kind_of_guest() {
    let mut facts = facts();
    facts.phys.capabilities = PHYSCAP_PV | PHYSCAP_HVM | PHYSCAP_DIRECTIO;
    let text = info(&facts.into());
    assert!(
        text.contains("virt_caps              : pv hvm hvm_directio pv_directio\n"),
        "{text}"
    );
}

#[test]
fn info_as_json_has_numbers_and_keeps_the_order() {
    let json = serde_json::to_string(&Info::from(facts())).unwrap();
    assert!(json.starts_with(r#"{"host":"castle","#), "{json}");
    assert!(json.contains(r#""cpu_mhz":2394.046,"#), "{json}");
    assert!(
        json.contains(r#""virt_caps":["pv","hvm","hap","gnttab-v1"]"#),
        "{json}"
    );
    assert!(json.contains(r#""total_memory":1024"#), "{json}");
}

#[test]
fn topology_is_tabulated() {
    let mut facts = facts();
    facts.topology = Some(Topology {
        cpus: vec![
            Cpu {
                cpu: 0,
                core: 0,
                socket: 0,
                node: 0,
            },
            Cpu {
                cpu: 1,
                core: 1,
                socket: 0,
                node: 0,
            },
        ],
        nodes: vec![Node {
            node: 0,
            memory_mib: 1024,
            free_mib: 496,
            distances: vec![10],
        }],
    });
    let text = info(&facts.into());
    let expected = "\
cpu_topology           :
cpu:    core    socket     node
  0:       0        0        0
  1:       1        0        0
numa_info              :
node:    memsize    memfree    distances
   0:      1024        496      10
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn list_has_xen_s_columns() {
    let domains = [
        Domain::new(&domain_0(), Some("Domain-0".into()), 4096),
        Domain::new(&crashed(), None, 4096),
    ];
    let expected = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   512     2     r-----      12.3
(no name)                                   12   257     1     ---scd       0.9
web                                              512     2     ------
";
    let halted = [Halted { name: "web".into(), memory_mib: 512, vcpus: 2, ..Halted::default() }];
    assert_eq!(list(&domains, &halted), expected);
}

#[test]
fn list_as_json_has_all_fields() {
    let domain = Domain::new(&crashed(), None, 4096);
    let json = serde_json::to_value(&domain).unwrap();
    assert_eq!(json["name"], serde_json::Value::Null);
    assert_eq!(json["memory_mib"], 257);
    assert_eq!(json["max_memory_mib"], 257);
    assert_eq!(json["type"], "hvm");
    assert_eq!(json["uuid"], "12345678-9abc-def0-1234-56789abcdef0");
    assert_eq!(json["state"]["shutdown_reason"], "crash");
    let domain_0 =
        serde_json::to_value(Domain::new(&domain_0(), Some("Domain-0".into()), 4096)).unwrap();
    assert_eq!(domain_0["max_memory_mib"], serde_json::Value::Null);
    assert!(domain_0["state"].get("shutdown_reason").is_none());
}

#[test]
fn a_domain_without_vcpus_has_none() {
    let info = GetDomainInfo {
        max_vcpu_id: u32::MAX,
        ..GetDomainInfo::default()
    };
    assert_eq!(Domain::new(&info, None, 4096).max_vcpus, 0);
}

#[test]
fn vcpu_list_shows_place_state_and_affinity() {
    let domain = Domain::named(0, "Domain-0");
    let all = CpuMap::from_bytes(&[0b11], 2);
    let pinned = VcpuAffinity {
        hard: CpuMap::from_bytes(&[0b10], 2),
        soft: all.clone(),
    };
    let on = GetVcpuInfo {
        vcpu: 0,
        online: 1,
        running: 1,
        cpu: 1,
        cpu_time: 2_050_000_000,
        ..GetVcpuInfo::default()
    };
    let off = GetVcpuInfo {
        vcpu: 1,
        ..GetVcpuInfo::default()
    };
    let vcpus = [
        Vcpu::new(&domain, &on, Some(&pinned), &all),
        Vcpu::new(&domain, &off, None, &all),
    ];
    let expected = "\
Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)
Domain-0                             0     0     1   r--        2.0  1 / all
Domain-0                             0     1     -   --p        0.0  ? / ?
";
    assert_eq!(vcpu_list(&vcpus), expected);
}

#[test]
fn uptime_counts_days() {
    assert_eq!(duration(59), " 0:00:59");
    assert_eq!(duration(86_400 + 3_661), "1 day,  1:01:01");
    assert_eq!(duration(10 * 86_400), "10 days,  0:00:00");
    let uptimes = [
        Uptime {
            name: Some("Domain-0".into()),
            id: 0,
            uptime_s: Some(3_600),
        },
        Uptime {
            name: None,
            id: 4,
            uptime_s: None,
        },
    ];
    let expected = "\
Name                                ID Uptime
Domain-0                             0  1:00:00
(no name)                            4 unknown
";
    assert_eq!(uptime(&uptimes), expected);
}

#[test]
fn blocked_domains_are_marked() {
    let info = GetDomainInfo {
        flags: DOMINF_BLOCKED,
        ..GetDomainInfo::default()
    };
    assert_eq!(state(&Domain::new(&info, None, 4096).state), "-b----");
}
