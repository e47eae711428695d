use super::*;
use crate::fake;
use oxen_abi::Payload;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A hypervisor that answers sysctls: `answer` gets the command and changes its payload.
fn hypervisor(
    answer: impl Fn(SysctlCmd, &mut Payload<16>) -> std::result::Result<(), Errno>
    + Send
    + Sync
    + 'static,
) -> Xen {
    fake::xen(move |op, args| {
        assert_eq!(op, Hypercall::SYSCTL);
        let mut sysctl: Sysctl = fake::read(args[0]);
        assert_eq!(sysctl.interface_version, XEN_SYSCTL_INTERFACE_VERSION);
        answer(sysctl.cmd, &mut sysctl.u)?;
        fake::write(args[0], &sysctl);
        Ok(0)
    })
}

/// A hypervisor with the domains `ids`, ascending.
fn with_domains(ids: Vec<u16>) -> Xen {
    hypervisor(move |_, payload| {
        let mut list: GetDomainInfoList = payload.read();
        let found = ids
            .iter()
            .filter(|id| **id >= list.first_domain)
            .take(list.max_domains as usize);
        list.num_domains = 0;
        for id in found {
            let info = GetDomainInfo {
                domain: *id,
                ..GetDomainInfo::default()
            };
            fake::write(
                list.buffer
                    .element(u64::from(list.num_domains))
                    .unwrap()
                    .address(),
                &info,
            );
            list.num_domains += 1;
        }
        payload.write(&list);
        Ok(())
    })
}

fn ids(xen: &Xen) -> Vec<u16> {
    xen.domains()
        .unwrap()
        .iter()
        .map(|info| info.domain)
        .collect()
}

#[test]
fn all_domains_are_listed_over_several_calls() {
    let many: Vec<u16> = (0..1000).map(|n| n * 3).collect();
    assert_eq!(ids(&with_domains(many.clone())), many);
    assert_eq!(ids(&with_domains(vec![0, 0x7fef])), [0, 0x7fef]);
    assert_eq!(ids(&with_domains(Vec::new())), [] as [u16; 0]);
}

#[test]
fn a_list_that_goes_backwards_is_refused() {
    let xen = hypervisor(|_, payload| {
        let mut list: GetDomainInfoList = payload.read();
        for id in 0..2 {
            fake::write(list.buffer.element(id).unwrap().address(), &GetDomainInfo::default());
        }
        list.num_domains = 2;
        payload.write(&list);
        Ok(())
    });
    assert!(matches!(xen.domains(), Err(Error::BadAnswer { .. })));
}

#[test]
fn a_list_longer_than_the_buffer_is_refused() {
    let xen = hypervisor(|_, payload| {
        payload.write(&GetDomainInfoList {
            num_domains: u32::MAX,
            ..payload.read()
        });
        Ok(())
    });
    assert!(matches!(xen.domains(), Err(Error::BadAnswer { .. })));
}

#[test]
fn the_console_is_read_in_chunks() {
    let ring: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let (whole, cleared) = (ring.clone(), Arc::new(AtomicBool::new(false)));
    let seen = cleared.clone();
    let xen = hypervisor(move |_, payload| {
        let mut read: ReadConsole = payload.read();
        assert_eq!(read.incremental, 1);
        seen.store(read.clear == 1, Ordering::Relaxed);
        let rest = &ring[read.index as usize..];
        let chunk = &rest[..rest.len().min(read.count as usize)];
        fake::write_bytes(read.buffer.address(), chunk);
        read.count = chunk.len() as u32;
        read.index += read.count;
        payload.write(&read);
        Ok(())
    });
    assert_eq!(xen.read_console(false).unwrap(), whole);
    assert!(!cleared.load(Ordering::Relaxed));
    xen.read_console(true).unwrap();
    assert!(cleared.load(Ordering::Relaxed));
}

#[test]
fn pools_are_asked_for_until_there_is_none() {
    let xen = hypervisor(|_, payload| {
        let mut op: CpupoolOp = payload.read();
        op.cpupool_id = [0, 4]
            .into_iter()
            .find(|id| *id >= op.cpupool_id)
            .ok_or(Errno::ENOENT)?;
        op.sched_id = SchedulerId::CREDIT2;
        op.n_dom = 1;
        fake::write_bytes(op.cpumap.bitmap.address(), &[0b101]);
        payload.write(&op);
        Ok(())
    });
    let pools = xen.cpu_pools(3).unwrap();
    assert_eq!(pools.iter().map(|pool| pool.id).collect::<Vec<_>>(), [0, 4]);
    assert_eq!(pools[0].cpus.members(), [0, 2]);
}

#[test]
fn topology_is_sized_first() {
    let xen = hypervisor(|_, payload| {
        let mut info: CpuTopoInfo = payload.read();
        if !info.cputopo.is_null() {
            assert_eq!(info.num_cpus, 2);
            fake::write(
                info.cputopo.address(),
                &CpuTopo {
                    core: 0,
                    socket: 1,
                    node: 0,
                },
            );
            fake::write(
                info.cputopo.element(1).unwrap().address(),
                &CpuTopo {
                    core: 1,
                    socket: 1,
                    node: 0,
                },
            );
        }
        info.num_cpus = 2;
        payload.write(&info);
        Ok(())
    });
    let cpus = xen.cpu_topology().unwrap();
    assert_eq!(cpus.iter().map(|cpu| cpu.core).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn nodes_without_memory_are_left_out() {
    let xen = hypervisor(|_, payload| {
        let mut info: NumaInfo = payload.read();
        if !info.meminfo.is_null() {
            fake::write(
                info.meminfo.address(),
                &MemInfo {
                    memsize: 1024,
                    memfree: 512,
                },
            );
            fake::write(
                info.meminfo.element(1).unwrap().address(),
                &MemInfo {
                    memsize: INVALID_MEM_SZ,
                    memfree: 0,
                },
            );
            fake::write(info.distance.address(), &[10_u32, 20, 20, 10]);
        }
        info.num_nodes = 2;
        payload.write(&info);
        Ok(())
    });
    let expected = NumaNode {
        node: 0,
        size: 1024,
        free: 512,
        distances: vec![10, 20],
    };
    assert_eq!(xen.numa_nodes().unwrap(), [expected]);
}

#[test]
fn debug_keys_are_passed_on() {
    let xen = hypervisor(|cmd, payload| {
        assert_eq!(cmd, SysctlCmd::DEBUG_KEYS);
        let argument: DebugKeys = payload.read();
        assert_eq!(argument.nr_keys, 2);
        assert_eq!(fake::read::<[u8; 2]>(argument.keys.address()), *b"hq");
        Ok(())
    });
    xen.debug_keys("hq").unwrap();
}

#[test]
fn a_version_difference_is_recognised() {
    let xen = hypervisor(|_, _| Err(Errno::EACCES));
    assert!(matches!(
        xen.physinfo(),
        Err(Error::InterfaceVersion { ours: 0x15, .. })
    ));
    let xen = hypervisor(|_, _| Err(Errno::EPERM));
    assert!(matches!(
        xen.scheduler(),
        Err(Error::NotControlDomain { .. })
    ));
}
