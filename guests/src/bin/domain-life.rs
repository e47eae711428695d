//! The life of another domain: made, filled, run, seen to end, destroyed; at any stage.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::arch_x86_64::VcpuGuestContext;
use oxen_abi::domctl::{
    CDF_HAP, CDF_IOMMU, CreateDomain, DOMINF_BLOCKED, DOMINF_DYING, DOMINF_PAUSED, DOMINF_RUNNING, DOMINF_SHUTDOWN, DOMINF_SHUTDOWN_SHIFT,
    DomctlCmd, GetVcpuInfo, MaxVcpus,
};
use oxen_abi::xen::Virq;
use oxen_guests::domu::{CHILD_BASE, CHILD_PAGES, Child, DATA, SPARE, create, description, domctl, domctl_plain, exists, free_frames, info, map_foreign, take_event, wait_until};
use oxen_guests::hypercall::{self, Rc, memory_op};
use oxen_guests::mem::{PAGE, Page, RW_PAGE, alloc_page};
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::time::now_on;
use oxen_guests::{check, event, expect, expect_text, value};

oxen_guests::test_kernel!("domain-life", run);

// Sends an event to the port in the first word of its data, waits for the second word to become 1, shuts down with the reason in the third.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    ".pushsection .rodata, \"a\"",
    "child_program:",
    "movabs rbx, {data}",
    "mov eax, 32",
    "mov edi, 4",
    "mov rsi, rbx",
    "syscall",
    "mov [rbx + 24], rax",
    "2: pause",
    "cmp qword ptr [rbx + 8], 1",
    "jne 2b",
    "mov eax, 29",
    "mov edi, 2",
    "lea rsi, [rbx + 16]",
    "syscall",
    "mov [rbx + 32], rax",
    "ud2",
    "child_program_end:",
    ".popsection",
    data = const CHILD_BASE + DATA as u64 * PAGE,
);

#[cfg(target_os = "none")]
fn program() -> &'static [u8] {
    // SAFETY: the two symbols are those of the assembler above.
    unsafe extern "C" {
        static child_program: u8;
        static child_program_end: u8;
    }
    let (start, end) = (&raw const child_program, &raw const child_program_end);
    // SAFETY: the assembler above put the bytes between the two symbols.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

#[cfg(not(target_os = "none"))]
fn program() -> &'static [u8] {
    &[]
}

/// Lets what is still to come of domains that have ended come.
fn settle(dom_exc: u32) {
    let end = now_on(0) + SETTLE_NS;
    wait_until(20, || now_on(0) > end);
    event::clear_pending(dom_exc);
}

/// Nanoseconds within which the last event of a domain comes.
const SETTLE_NS: u64 = 100_000_000;

/// Flags of getdomaininfo by name, and the reason of its end.
struct Flags(u32);

impl core::fmt::Display for Flags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names = [(DOMINF_DYING, "dying"), (DOMINF_SHUTDOWN, "shutdown"), (DOMINF_PAUSED, "paused"), (DOMINF_BLOCKED, "blocked"), (DOMINF_RUNNING, "running")];
        for (_, name) in names.iter().filter(|(bit, _)| self.0 & bit != 0) {
            write!(f, "{name} ")?;
        }
        write!(f, "{:#x}", self.0 >> DOMINF_SHUTDOWN_SHIFT & 0xff)
    }
}

fn run() {
    let window = alloc_page();
    refusals();
    half_built(window);
    let dom_exc = event::bind_virq(Virq::DOM_EXC.raw(), 0).unwrap_or_else(|rc| panic!("DOM_EXC: {rc}"));
    settle(dom_exc);
    whole_life(window, dom_exc);
    killed_while_running(window, dom_exc);
    crashing(window, dom_exc);
    kept_by_a_mapping(window, dom_exc);
    nothing_is_lost(window);
}

fn refusals() {
    let refused = |name: &'static str, change: fn(&mut CreateDomain)| {
        let mut request = description(1);
        change(&mut request);
        match create(0, &request) {
            Ok(id) => {
                value!(name, "0");
                check!("refusals.undo", domctl_plain(DomctlCmd::DESTROYDOMAIN, id).is_ok());
            }
            Err(rc) => value!(name, rc),
        }
    };
    refused("create.no_vcpus", |r| r.max_vcpus = 0);
    refused("create.too_many_vcpus", |r| r.max_vcpus = 9000);
    refused("create.unknown_flag", |r| r.flags = 1 << 30);
    refused("create.hap_of_pv", |r| r.flags = CDF_HAP);
    refused("create.iommu", |r| r.flags = CDF_IOMMU);
    refused("create.iommu_options", |r| r.iommu_opts = 1);
    refused("create.grant_frames", |r| r.max_grant_frames = 100_000);
    refused("create.no_grant_frames", |r| r.max_grant_frames = 0);
    refused("create.grant_version", |r| r.grant_opts = 3);
    refused("create.grant_options", |r| r.grant_opts = 0x11);
    refused("create.maptrack_frames", |r| r.max_maptrack_frames = 100_000);
    refused("create.emulation", |r| r.arch.emulation_flags = 1);
    refused("create.pool", |r| r.cpupool_id = 77);
    refused("create.few_ports", |r| r.max_evtchn_port = 4);
    value!("create.existing", create(0, &description(1)).and_then(|id| {
        let again = create(id, &description(1));
        check!("existing.undo", domctl_plain(DomctlCmd::DESTROYDOMAIN, id).is_ok());
        again
    }).err().unwrap_or(Rc(0)));
    value!("create.chosen_number", match create(500, &description(1)) {
        Ok(id) => {
            let rc = domctl_plain(DomctlCmd::DESTROYDOMAIN, id);
            if id == 500 { rc } else { Rc(i64::from(id)) }
        }
        Err(rc) => rc,
    });
    value!("destroy.self", domctl_plain(DomctlCmd::DESTROYDOMAIN, 0));
    value!("destroy.absent", domctl_plain(DomctlCmd::DESTROYDOMAIN, ABSENT_DOMAIN));
}

fn half_built(window: Page) {
    // Without vCPUs.
    let id = create(0, &description(2)).unwrap_or_else(|rc| panic!("createdomain: {rc}"));
    let (_, at_first) = info(id);
    expect_text!("new.flags", Flags(at_first.flags), "paused 0xff");
    value!("new.vcpus", format_args!("{} {:#x}", at_first.nr_online_vcpus, at_first.max_vcpu_id));
    value!("new.pages", format_args!("{} of {}", at_first.tot_pages, at_first.max_pages));
    expect_text!("new.max_vcpus_other", domctl(DomctlCmd::MAX_VCPUS, id, MaxVcpus { max: 3 }).0, "-EINVAL");
    expect_text!("new.max_vcpus", domctl(DomctlCmd::MAX_VCPUS, id, MaxVcpus { max: 2 }).0, "0");
    value!("new.max_vcpus_again", domctl(DomctlCmd::MAX_VCPUS, id, MaxVcpus { max: 2 }).0);
    let (_, with_vcpus) = info(id);
    value!("new.vcpus_now", format_args!("{} {:#x}", with_vcpus.nr_online_vcpus, with_vcpus.max_vcpu_id));
    value!("new.vcpu_info", domctl(DomctlCmd::GETVCPUINFO, id, GetVcpuInfo { vcpu: 1, ..GetVcpuInfo::default() }).0);
    expect_text!("new.destroy", domctl_plain(DomctlCmd::DESTROYDOMAIN, id), "0");
    check!("new.gone", !exists(id));
    expect_text!("new.destroy_again", domctl_plain(DomctlCmd::DESTROYDOMAIN, id), "-ESRCH");

    // With memory and tables, in every state between.
    let child = Child::new(1);
    let mut context = VcpuGuestContext::default();
    value!("context.not_set", child.context(0, &mut context));
    value!("context.no_such_vcpu", child.context(1, &mut context));
    value!("context.set_no_such_vcpu", child.set_context(1, &mut context));
    expect_text!("fill", child.fill(window, program()).err().unwrap_or(Rc(0)), "0");
    context = child.start_context();
    context.user_regs.rip = 0x0000_8000_0000_0000;
    value!("context.bad_rip", child.set_context(0, &mut context));
    context = child.start_context();
    context.ctrlreg[3] = 0x12_3456_7000;
    value!("context.bad_root", child.set_context(0, &mut context));
    context = child.start_context();
    context.gdt_ents = 9000;
    value!("context.bad_gdt", child.set_context(0, &mut context));
    // The tables need not be pinned before.
    expect_text!("context.unpinned", child.set_context(0, &mut child.start_context()), "0");
    expect_text!("context.again", child.set_context(0, &mut child.start_context()), "0");
    context = child.start_context();
    context.ctrlreg[3] = child.frames[SPARE] * PAGE;
    value!("context.other_root", child.set_context(0, &mut context));
    expect_text!("context.pin_after", child.pin(), "0");
    expect_text!("context.pin_twice", child.pin(), "-EINVAL");
    expect_text!("context.get", child.context(0, &mut context), "0");
    expect!("context.rip", context.user_regs.rip, CHILD_BASE);
    value!("context.flags", format_args!("{:#x}", context.flags));
    value!("context.rflags", format_args!("{:#x}", context.user_regs.rflags | 2));
    value!("context.selectors", format_args!("{:#x} {:#x}", context.user_regs.cs, context.user_regs.ss));
    check!("context.root", context.ctrlreg[3] == child.root() * PAGE && context.ctrlreg[1] == 0);
    // The child's frames are its own: not this kernel's, and not writable where they are tables.
    value!("frames.as_own", hypercall::update_va_mapping(window.va(), (child.frames[DATA] * PAGE) | RW_PAGE, 0));
    value!("frames.table_writable", map_foreign(window, child.root(), child.id, RW_PAGE));
    value!("frames.absent_domain", map_foreign(window, child.frames[DATA], ABSENT_DOMAIN, RW_PAGE));
    expect!("pages", child.info().1.tot_pages, CHILD_PAGES as u64);
    value!("more_than_limit", populate(child.id, 100));
    expect_text!("half_built.destroy", child.destroy(), "0");
    check!("half_built.gone", !exists(child.id));
}

fn populate(domain: u16, pfn: u64) -> Rc {
    let mut list = [pfn];
    memory_op(6, &mut oxen_guests::mem::reservation(&mut list, 0, domain))
}

fn words(child: &Child, window: Page) -> [u64; 5] {
    child.with_page(window, DATA, |page| core::array::from_fn(|i| page.read(i)))
}

/// Connects a port of the child's with one of this kernel's.
fn connect(child: &Child) -> (u32, u32) {
    let theirs = event::alloc_unbound(child.id, 0).unwrap_or_else(|rc| panic!("alloc_unbound: {rc}"));
    let mine = event::bind_interdomain(child.id, theirs).unwrap_or_else(|rc| panic!("bind_interdomain: {rc}"));
    event::clear_pending(mine);
    (mine, theirs)
}

fn whole_life(window: Page, dom_exc: u32) {
    let child = Child::ready(window, program());
    let (mine, theirs) = connect(&child);
    expect!("port.first", theirs, 1);
    child.with_page(window, DATA, |page| {
        page.write(0, theirs.into());
        page.write(2, 1);
    });
    expect_text!("unpause", child.unpause(), "0");
    value!("unpause.again", child.unpause());
    check!("event", take_event(mine, 20));
    expect!("child.sent", words(&child, window)[3], 0);
    value!("running.flags", Flags(child.info().1.flags & !(DOMINF_RUNNING | DOMINF_BLOCKED)));
    expect!("running.vcpus", child.info().1.nr_online_vcpus, 1);
    expect_text!("pause", domctl_plain(DomctlCmd::PAUSEDOMAIN, child.id), "0");
    expect_text!("pause.flags", Flags(child.info().1.flags), "paused 0xff");
    let mut context = VcpuGuestContext::default();
    expect_text!("pause.context", child.context(0, &mut context), "0");
    check!("pause.rip", (CHILD_BASE..CHILD_BASE + PAGE).contains(&context.user_regs.rip) && context.user_regs.rbx == CHILD_BASE + DATA as u64 * PAGE);
    expect_text!("pause.undo", child.unpause(), "0");
    check!("no_end_yet", !event::is_pending(dom_exc));
    child.with_page(window, DATA, |page| page.write(1, 1));
    check!("shutdown.virq", take_event(dom_exc, 20));
    expect_text!("shutdown.flags", Flags(child.info().1.flags), "shutdown 0x1");
    value!("shutdown.send", event::send(mine));
    expect_text!("destroy", child.destroy(), "0");
    check!("destroy.virq", take_event(dom_exc, 20));
    check!("destroy.gone", !exists(child.id));
    let (rc, status) = event::status(mine);
    value!("destroy.port", format_args!("{rc} {}", status.status.raw()));
    check!("destroy.close", event::close(mine).is_ok());
}

fn killed_while_running(window: Page, dom_exc: u32) {
    let child = Child::ready(window, program());
    let (mine, theirs) = connect(&child);
    child.with_page(window, DATA, |page| page.write(0, theirs.into()));
    settle(dom_exc);
    check!("kill.unpause", child.unpause().is_ok());
    check!("kill.event", take_event(mine, 20));
    expect_text!("kill.destroy", child.destroy(), "0");
    check!("kill.virq", take_event(dom_exc, 20));
    check!("kill.gone", wait_until(20, || !exists(child.id)));
    check!("kill.close", event::close(mine).is_ok());
}

fn crashing(window: Page, dom_exc: u32) {
    settle(dom_exc);
    // An exception, and no handler for it.
    let child = Child::ready(window, &[0x0f, 0x0b]);
    check!("crash.unpause", child.unpause().is_ok());
    check!("crash.virq", take_event(dom_exc, 20));
    expect_text!("crash.flags", Flags(child.info().1.flags), "shutdown 0x3");
    let mut context = VcpuGuestContext::default();
    expect_text!("crash.context", child.context(0, &mut context), "0");
    expect!("crash.rip", context.user_regs.rip, CHILD_BASE);
    expect_text!("crash.destroy", child.destroy(), "0");
    check!("crash.gone", !exists(child.id));
}

fn kept_by_a_mapping(window: Page, dom_exc: u32) {
    let child = Child::ready(window, program());
    check!("kept.map", map_foreign(window, child.frames[SPARE], child.id, RW_PAGE).is_ok());
    window.write(0, 0x4b45_4550);
    expect_text!("kept.destroy", child.destroy(), "0");
    let (rc, info) = child.info();
    value!("kept.info", format_args!("{rc} {}", Flags(info.flags)));
    check!("kept.number", info.domain == child.id);
    expect!("kept.pages", info.tot_pages, 1);
    expect!("kept.contents", window.read(0), 0x4b45_4550);
    value!("kept.number_taken", create(child.id, &description(1)).err().unwrap_or(Rc(0)));
    value!("kept.populate", populate(child.id, 1));
    value!("kept.destroy_again", child.destroy());
    value!("kept.unpause", child.unpause());
    settle(dom_exc);
    check!("kept.unmap", window.make_writable().is_ok());
    check!("kept.virq", take_event(dom_exc, 20));
    check!("kept.gone", wait_until(20, || !exists(child.id)));
}

fn nothing_is_lost(window: Page) {
    let life = |run: bool| {
        let child = Child::ready(window, program());
        if run {
            let theirs = event::alloc_unbound(child.id, 0).unwrap_or(0);
            child.with_page(window, DATA, |page| page.write(0, theirs.into()));
            check!("lost.unpause", child.unpause().is_ok());
            check!("lost.ran", wait_until(20, || words(&child, window)[3] == 0 && child.info().1.cpu_time != 0));
        }
        check!("lost.destroy", child.destroy().is_ok());
        check!("lost.gone", wait_until(20, || !exists(child.id)));
    };
    // What the hypervisor keeps for later comes with the first ones.
    (0..3).for_each(|_| life(true));
    let before = free_frames();
    for round in 0..50 {
        life(round % 5 == 0);
    }
    expect_text!("lost", if wait_until(20, || free_frames() >= before) { "nothing" } else { "something" }, "nothing");
}
