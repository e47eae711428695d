//! How processors are divided among domains: weights and caps, affinity, the times that are counted.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::GuestHandle;
use oxen_abi::domctl::{DomctlCmd, GetVcpuInfo, SCHEDOP_PUTINFO, SchedCredit, SchedulerId, SchedulerOp, VCPUAFFINITY_HARD, VcpuAffinity};
use oxen_abi::sched::Poll;
use oxen_abi::xen::XenctlBitmap;
use oxen_guests::domu::{Child, domctl, domctl_plain};
use oxen_guests::hypercall::{self, handle};
use oxen_guests::mem::{Page, alloc_page};
use oxen_guests::time::{MS, now};
use oxen_guests::{check, expect_text, say};

oxen_guests::test_kernel!("smp-shares", run);

/// A program that computes for ever.
const SPIN: &[u8] = &[0xeb, 0xfe];
/// Time over which shares are measured, after a warm-up of a tenth of it.
const MEASURED: u64 = 10_000 * MS;
/// Thousandths by which a share may be off.
const TOLERANCE: u64 = 20;
/// A cap that is not changed.
const KEEP_CAP: u16 = 0xffff;

fn run() {
    let window = alloc_page();
    weights(window);
    caps(window);
    affinity(window);
}

fn set_share(child: &Child, weight: u16, cap: u16) -> bool {
    let mut request = SchedulerOp { sched_id: SchedulerId::CREDIT, cmd: SCHEDOP_PUTINFO, ..SchedulerOp::default() };
    request.u.write(&SchedCredit { weight, cap });
    domctl(DomctlCmd::SCHEDULER_OP, child.id, request).0.is_ok()
}

/// Waits without using a processor.
fn sleep(ns: u64) {
    let mut poll = Poll { timeout: now() + ns, ..Poll::default() };
    check!("sleep", hypercall::sched_op(3, &mut poll).is_ok());
}

fn cpu_time(child: &Child) -> u64 {
    child.info().1.cpu_time
}

/// What each child ran within the measured time, and how long that was.
fn measure<const N: usize>(children: &[Child; N]) -> ([u64; N], u64) {
    sleep(MEASURED / 10);
    let start = now();
    let before = children.each_ref().map(cpu_time);
    sleep(MEASURED);
    let after = children.each_ref().map(cpu_time);
    (core::array::from_fn(|i| after[i] - before[i]), now() - start)
}

fn is_close(measured: u64, expected: u64) -> bool {
    measured.abs_diff(expected) * 1000 <= expected * TOLERANCE
}

fn start(children: &[Child]) {
    check!("unpause", children.iter().all(|child| child.unpause().is_ok()));
}

fn destroy(children: &[Child]) {
    check!("destroy", children.iter().all(|child| child.destroy().is_ok()));
}

fn weights(window: Page) {
    let weights = [256_u64, 256, 256, 256, 512, 512, 1024, 256];
    let children = weights.map(|_| Child::ready(window, SPIN));
    for (child, weight) in children.iter().zip(weights) {
        check!("weights.put", set_share(child, weight as u16, KEEP_CAP));
    }
    start(&children);
    let (ran, _) = measure(&children);
    let all: u64 = ran.iter().sum();
    let total: u64 = weights.iter().sum();
    for (weight, ran) in weights.iter().zip(ran) {
        say!("NOTE weight {weight}: {} ms of {} ms, expected {} ms", ran / MS, all / MS, all * weight / total / MS);
        check!("weights.share", is_close(ran, all * weight / total));
    }
    destroy(&children);
}

fn caps(window: Page) {
    let caps = [10_u16, 40];
    let children = caps.map(|_| Child::ready(window, SPIN));
    for (child, cap) in children.iter().zip(caps) {
        check!("caps.put", set_share(child, 0, cap));
    }
    start(&children);
    let (ran, elapsed) = measure(&children);
    for (cap, ran) in caps.iter().zip(ran) {
        let expected = elapsed * u64::from(*cap) / 100;
        say!("NOTE cap {cap}: {} ms, expected {} ms", ran / MS, expected / MS);
        check!("caps.share", is_close(ran, expected));
    }
    destroy(&children);
}

/// Two that are tied to one processor get half of it each, whatever the other does.
fn affinity(window: Page) {
    let children = [0, 1].map(|_| Child::ready(window, SPIN));
    for child in &children {
        let mut bits = 0b10_u64;
        let map = XenctlBitmap { bitmap: GuestHandle::new(handle(&mut bits)), nr_bits: 64, ..XenctlBitmap::default() };
        let request = VcpuAffinity { vcpu: 0, flags: VCPUAFFINITY_HARD, cpumap_hard: map, ..VcpuAffinity::default() };
        check!("affinity.set", domctl(DomctlCmd::SETVCPUAFFINITY, child.id, request).0.is_ok());
    }
    start(&children);
    let before = children.each_ref().map(cpu_time);
    sleep(MEASURED / 5);
    let ran = [0, 1].map(|i| cpu_time(&children[i]) - before[i]);
    say!("NOTE affinity: {} ms and {} ms", ran[0] / MS, ran[1] / MS);
    check!("affinity.halves", ran.iter().all(|ran| ran.abs_diff(MEASURED / 10) < MEASURED / 100));
    let (rc, info) = domctl(DomctlCmd::GETVCPUINFO, children[0].id, GetVcpuInfo::default());
    expect_text!("affinity.vcpu_info", rc, "0");
    check!("affinity.cpu", info.cpu == 1 && info.online == 1 && info.blocked == 0);
    expect_text!("affinity.pause", domctl_plain(DomctlCmd::PAUSEDOMAIN, children[0].id), "0");
    let before = cpu_time(&children[0]);
    sleep(50 * MS);
    check!("affinity.stands_still", cpu_time(&children[0]) == before);
    destroy(&children);
}
