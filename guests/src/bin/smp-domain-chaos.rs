//! Domains made and ended on one processor while another does all it can to them at the same time. Nothing may break or be lost.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use oxen_abi::domctl::DomctlCmd;
use oxen_guests::domu::{Child, DATA, SPARE, create, description, domctl_plain, exists, free_frames, info, map_foreign, wait_until};
use oxen_guests::hypercall::{self, Rc, memory_op};
use oxen_guests::mem::{self, Page, RW_PAGE, alloc_page};
use oxen_guests::{check, cpu, event, expect_text, sys, value, vcpu};

oxen_guests::test_kernel!("smp-domain-chaos", run);

/// Lives of a domain.
const ROUNDS: u32 = 80;

/// The children's program.
const JUMP_TO_ITSELF: &[u8] = &[0xeb, 0xfe];

/// The domain to work on.
static TARGET: AtomicU32 = AtomicU32::new(0);
/// One of its frames.
static FRAME: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicBool = AtomicBool::new(false);
static DONE: AtomicU32 = AtomicU32::new(0);
static WINDOW: AtomicU32 = AtomicU32::new(0);

/// Whatever comes of it.
fn ignore<T>(_: T) {}

/// The other processor.
extern "C" fn disturb(_: u64) -> ! {
    let window = Page::at_pfn(u64::from(WINDOW.load(Ordering::Acquire)));
    let mut n = 0_u32;
    while !STOP.load(Ordering::Acquire) {
        let id = TARGET.load(Ordering::Acquire) as u16;
        let frame = u64::from(FRAME.load(Ordering::Acquire));
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match n >> 28 {
            0 | 1 => ignore(info(id)),
            2 | 3 => {
                if domctl_plain(DomctlCmd::PAUSEDOMAIN, id).is_ok() {
                    domctl_plain(DomctlCmd::UNPAUSEDOMAIN, id);
                }
            }
            4..=6 => {
                if map_foreign(window, frame, id, RW_PAGE).is_ok() {
                    window.write(0, n.into());
                    window.unmap();
                }
            }
            7 | 8 => {
                let mut list = [u64::from(n & 7)];
                memory_op(6, &mut mem::reservation(&mut list, 0, id));
            }
            9 => ignore(memory_op(1, &mut mem::reservation(&mut [frame], 0, id))),
            10 | 11 => {
                if let Ok(port) = event::alloc_unbound(id, 0)
                    && let Ok(mine) = event::bind_interdomain(id, port)
                {
                    event::send(mine);
                    event::close(mine);
                }
            }
            12 => ignore(hypercall::mmuext_foreign(sys::MMUEXT_PIN_L1_TABLE + 3, frame, 0, id.into())),
            13 => ignore(domctl_plain(DomctlCmd::DESTROYDOMAIN, id)),
            _ => ignore(create(id, &description(1)).map(|id| domctl_plain(DomctlCmd::DESTROYDOMAIN, id))),
        }
        DONE.fetch_add(1, Ordering::Relaxed);
    }
    STOPPED.store(true, Ordering::Release);
    loop {
        cpu::relax();
    }
}

fn run() {
    let window = alloc_page();
    let theirs = alloc_page();
    WINDOW.store(theirs.pfn() as u32, Ordering::Release);
    // What the hypervisor keeps for later comes with the first domains.
    for _ in 0..3 {
        check!("first", Child::ready(window, JUMP_TO_ITSELF).destroy().is_ok());
    }
    let before = free_frames();
    vcpu::start(1, disturb);
    check!("started", wait_until(20, || DONE.load(Ordering::Relaxed) != 0));
    for round in 0..ROUNDS {
        one_life(window, round);
    }
    check!("disturbed", DONE.load(Ordering::Relaxed) > ROUNDS);
    STOP.store(true, Ordering::Release);
    check!("stopped", wait_until(20, || STOPPED.load(Ordering::Acquire)));
    expect_text!("lost", if wait_until(20, || free_frames() + 512 >= before) { "nothing" } else { "something" }, "nothing");
    value!("rounds", ROUNDS);
}

/// Makes a domain and ends it; any step may fail by what the other processor does.
fn one_life(window: Page, round: u32) {
    let Ok(id) = create(0, &description(1)) else { return check!("create", false) };
    if let Ok(child) = Child::furnish(id, 1) {
        // Not before it has vCPUs: Xen 4.17 does not survive an event for a domain without.
        TARGET.store(id.into(), Ordering::Release);
        let page = [SPARE, SPARE + 1, DATA, child.frames.len() - 1][round as usize % 4];
        FRAME.store(child.frames[page] as u32, Ordering::Release);
        if child.prepare(window, JUMP_TO_ITSELF).is_ok() && !round.is_multiple_of(3) {
            child.unpause();
        }
    }
    let seen = DONE.load(Ordering::Relaxed);
    wait_until(1, || DONE.load(Ordering::Relaxed) > seen + round % 5);
    domctl_plain(DomctlCmd::DESTROYDOMAIN, id);
    // The other may have made a domain of the same number since.
    check!("gone", wait_until(20, || domctl_plain(DomctlCmd::DESTROYDOMAIN, id) == Rc(-3) || !exists(id)));
}
