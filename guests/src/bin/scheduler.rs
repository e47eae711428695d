//! The calls that set and tell how processors are divided, with the scheduler `credit`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::domctl::{DomctlCmd, SCHEDOP_GETINFO, SCHEDOP_GETVCPUINFO, SCHEDOP_PUTINFO, SchedCredit, SchedulerId, SchedulerOp};
use oxen_abi::sysctl::{CPUPOOL_PAR_ANY, CpupoolCmd, CpupoolOp, CreditSchedule, SchedId, Sysctl, SysctlCmd};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_guests::domu::domctl;
use oxen_guests::hypercall::{self, Rc, handle};
use oxen_guests::sys::nr;
use oxen_guests::{expect_text, value};

oxen_guests::test_kernel!("scheduler", run);

/// A cap that is not changed.
const KEEP_CAP: u16 = 0xffff;

fn run() {
    let scheduler = sched_id();
    calls(scheduler);
    pools();
}

/// A sysctl; gives what the call returned, and the payload as it came back.
fn sysctl<T: FromBytes + IntoBytes + Immutable>(cmd: SysctlCmd, request: T) -> (Rc, T) {
    let mut op = Sysctl::new(cmd, &request);
    let rc = Rc(hypercall::raw(nr::SYSCTL, [handle(&mut op), 0, 0, 0, 0]));
    (rc, op.u.read())
}

fn sched_id() -> SchedulerId {
    let (rc, answer) = sysctl(SysctlCmd::SCHED_ID, SchedId::default());
    expect_text!("sched_id", rc, "0");
    answer.sched_id
}

fn domain_op(scheduler: SchedulerId, cmd: u32, domain: u16, weight: u16, cap: u16) -> (Rc, SchedCredit) {
    let mut request = SchedulerOp { sched_id: scheduler, cmd, ..SchedulerOp::default() };
    request.u.write(&SchedCredit { weight, cap });
    let (rc, answer) = domctl(DomctlCmd::SCHEDULER_OP, domain, request);
    (rc, answer.u.read())
}

fn calls(scheduler: SchedulerId) {
    let get = || {
        let (rc, info) = domain_op(scheduler, SCHEDOP_GETINFO, 0, 0, 0);
        expect_text!("domain.get", rc, "0");
        info
    };
    value!("domain.at_first", format_args!("{} {}", get().weight, get().cap));
    expect_text!("domain.put", domain_op(scheduler, SCHEDOP_PUTINFO, 0, 512, KEEP_CAP).0, "0");
    expect_text!("domain.put_nothing", domain_op(scheduler, SCHEDOP_PUTINFO, 0, 0, KEEP_CAP).0, "0");
    value!("domain.then", format_args!("{} {}", get().weight, get().cap));
    value!("domain.per_vcpu", domain_op(scheduler, SCHEDOP_GETVCPUINFO, 0, 0, 0).0);
    value!("domain.unknown", domain_op(scheduler, 9, 0, 0, 0).0);
    value!("domain.other_scheduler", domain_op(SchedulerId::RTDS, SCHEDOP_GETINFO, 0, 0, 0).0);
    expect_text!("domain.undo", domain_op(scheduler, SCHEDOP_PUTINFO, 0, 256, KEEP_CAP).0, "0");

    let host_op = |cmd, cpupool_id, sched_id, params: CreditSchedule| {
        let mut request = oxen_abi::sysctl::SchedulerOp { cmd, cpupool_id, sched_id, ..Default::default() };
        request.u.write(&params);
        sysctl(SysctlCmd::SCHEDULER_OP, request)
    };
    let (rc, answer) = host_op(SCHEDOP_GETINFO, 0, scheduler, CreditSchedule::default());
    expect_text!("host.get", rc, "0");
    let now: CreditSchedule = answer.u.read();
    expect_text!("host.put", host_op(SCHEDOP_PUTINFO, 0, scheduler, now).0, "0");
    value!("host.values", format_args!("{} {} {}", now.tslice_ms, now.ratelimit_us, now.vcpu_migr_delay_us));
    value!("host.put_wrong", host_op(SCHEDOP_PUTINFO, 0, scheduler, CreditSchedule { tslice_ms: 0, ..now }).0);
    value!("host.put_wrong_ratelimit", host_op(SCHEDOP_PUTINFO, 0, scheduler, CreditSchedule { ratelimit_us: 50, ..now }).0);
    value!("host.put_wrong_delay", host_op(SCHEDOP_PUTINFO, 0, scheduler, CreditSchedule { vcpu_migr_delay_us: 100_001, ..now }).0);
    value!("host.no_such_pool", host_op(SCHEDOP_GETINFO, 77, scheduler, now).0);
    value!("host.other_scheduler", host_op(SCHEDOP_GETINFO, 0, SchedulerId::RTDS, now).0);
    value!("host.unknown", host_op(9, 0, scheduler, now).0);
}

fn pools() {
    let pool = |op, cpupool_id, cpu, domid| {
        let request = CpupoolOp { op, cpupool_id, cpu, domid, ..CpupoolOp::default() };
        let (rc, answer) = sysctl(SysctlCmd::CPUPOOL_OP, request);
        (rc, answer)
    };
    let (rc, answer) = pool(CpupoolCmd::INFO, 0, 0, 0);
    value!("pool.info", format_args!("{rc} {} {} {:?}", answer.cpupool_id, answer.n_dom, answer.sched_id));
    value!("pool.info_next", pool(CpupoolCmd::INFO, 1, 0, 0).0);
    value!("pool.create_existing", pool(CpupoolCmd::CREATE, 0, 0, 0).0);
    value!("pool.destroy", pool(CpupoolCmd::DESTROY, 0, 0, 0).0);
    value!("pool.destroy_absent", pool(CpupoolCmd::DESTROY, 7, 0, 0).0);
    value!("pool.add", pool(CpupoolCmd::ADDCPU, 0, 0, 0).0);
    value!("pool.add_any", pool(CpupoolCmd::ADDCPU, 0, CPUPOOL_PAR_ANY, 0).0);
    value!("pool.add_absent", pool(CpupoolCmd::ADDCPU, 0, 5000, 0).0);
    value!("pool.add_to_absent", pool(CpupoolCmd::ADDCPU, 7, 0, 0).0);
    value!("pool.remove", pool(CpupoolCmd::RMCPU, 0, 0, 0).0);
    value!("pool.remove_from_absent", pool(CpupoolCmd::RMCPU, 7, 0, 0).0);
    value!("pool.move_self", pool(CpupoolCmd::MOVEDOMAIN, 0, 0, 0).0);
    value!("pool.move_absent", pool(CpupoolCmd::MOVEDOMAIN, 0, 0, 77).0);
    value!("pool.unknown", pool(CpupoolCmd(99), 0, 0, 0).0);
}
