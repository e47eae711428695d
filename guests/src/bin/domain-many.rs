//! Many domains at once, and one with many vCPUs.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::domctl::{DOMINF_SHUTDOWN, DomctlCmd};
#[cfg(target_os = "none")]
use oxen_guests::domu::CHILD_BASE;
use oxen_guests::domu::{Child, DATA, create, description, domctl_plain, exists, free_frames, wait_until};
use oxen_guests::hypercall::Rc;
#[cfg(target_os = "none")]
use oxen_guests::mem::PAGE;
use oxen_guests::mem::{Page, alloc_page};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("domain-many", run);

/// Domains at once.
const DOMAINS: usize = 100;
/// vCPUs of the wide domain: more than have a record in `shared_info`.
const VCPUS: u32 = 64;

/// Adds 1 to the first word of the data; the last of as many as the second word says shuts down (poweroff); the others go down.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    ".pushsection .rodata, \"a\"",
    "many_program:",
    "movabs rbx, {data}",
    "mov eax, 1",
    "lock xadd [rbx], rax",
    "inc rax",
    "cmp rax, [rbx + 8]",
    "je 3f",
    "mov rsi, rdi", // vcpu_op down
    "mov edi, 2",
    "xor edx, edx",
    "mov eax, 24",
    "syscall",
    "ud2",
    "3: mov eax, 29",
    "mov edi, 2",
    "lea rsi, [rbx + 16]",
    "syscall",
    "ud2",
    "many_program_end:",
    ".popsection",
    data = const CHILD_BASE + DATA as u64 * PAGE,
);

#[cfg(target_os = "none")]
fn program() -> &'static [u8] {
    // SAFETY: the two symbols are those of the assembler above.
    unsafe extern "C" {
        static many_program: u8;
        static many_program_end: u8;
    }
    let (start, end) = (&raw const many_program, &raw const many_program_end);
    // SAFETY: the assembler above put the bytes between the two symbols.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

#[cfg(not(target_os = "none"))]
fn program() -> &'static [u8] {
    &[]
}

fn run() {
    let window = alloc_page();
    let end = |id: u16| {
        check!("destroy", domctl_plain(DomctlCmd::DESTROYDOMAIN, id).is_ok());
        check!("gone", wait_until(20, || !exists(id)));
    };
    // What the hypervisor keeps for later comes with the first domains.
    let first: [u16; 3] = core::array::from_fn(|_| Child::ready(window, program()).id);
    first.into_iter().for_each(end);
    let before = free_frames();
    many(window, &end);
    wide(window, &end);
    // Records of so many domains may need another piece of the hypervisor's heap.
    expect_text!("lost", if wait_until(20, || free_frames() + 1024 >= before) { "nothing" } else { "something" }, "nothing");
}

fn has_shut_down(id: u16) -> bool {
    let (rc, info) = oxen_guests::domu::info(id);
    rc.is_ok() && info.domain == id && info.flags & DOMINF_SHUTDOWN != 0
}

fn many(window: Page, end: &dyn Fn(u16)) {
    let mut ids = [0; DOMAINS];
    for id in &mut ids {
        let child = Child::ready(window, program());
        child.with_page(window, DATA, |page| page.write(1, 1));
        *id = child.id;
    }
    for &id in &ids {
        check!("many.unpause", domctl_plain(DomctlCmd::UNPAUSEDOMAIN, id).is_ok());
    }
    check!("many.ran", wait_until(60, || ids.iter().all(|&id| has_shut_down(id))));
    value!("many", ids.iter().filter(|&&id| has_shut_down(id)).count());
    ids.into_iter().for_each(end);
}

fn wide(window: Page, end: &dyn Fn(u16)) {
    let id = create(0, &description(VCPUS)).unwrap_or_else(|rc| panic!("createdomain: {rc}"));
    let child = Child::furnish(id, VCPUS).unwrap_or_else(|rc| panic!("furnish: {rc}"));
    expect_text!("wide.fill", child.fill(window, program()).err().unwrap_or(Rc(0)), "0");
    child.with_page(window, DATA, |page| page.write(1, VCPUS.into()));
    let mut context = child.start_context();
    for vcpu in 0..VCPUS {
        context.user_regs.rdi = vcpu.into();
        check!("wide.context", child.set_context(vcpu, &mut context).is_ok());
    }
    expect!("wide.online", child.info().1.nr_online_vcpus, VCPUS);
    expect_text!("wide.unpause", child.unpause(), "0");
    check!("wide.ran", wait_until(60, || has_shut_down(id)));
    expect!("wide.counted", child.with_page(window, DATA, |page| page.read(0)), VCPUS.into());
    value!("wide.left_online", child.info().1.nr_online_vcpus);
    end(id);
}
