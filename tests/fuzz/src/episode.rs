//! Episodes: a fresh world, some thousand calls, the end of all domains. What a call is made of depends on the episode's number and the call's, and on
//! the state that the calls before it left; so calls can be left out to find those that matter.

use crate::calls::Prepared;
use crate::check;
use crate::traps;
use crate::values::Values;
use crate::world::{BASE, CODE, CPUS, FRAMES, KICK_VECTOR, World, stack};
use anyhow::{Context, Result, bail};
use oxen_abi::Hypercall;
use oxen_hal::{Frames, GuestFrame, VECTOR_HYPERCALL};
use oxen_testkit::Rng;
use oxen_types::DomId;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Calls of an episode.
pub const CALLS: u64 = 2500;
/// Calls between two recounts.
const CHECK_EVERY: u64 = 8;
/// What the `iret` call reads from the stack.
const IRET_FRAME_BYTES: u64 = 9 * 8;
/// Turns in which nobody runs, after which an episode ends: all have shut down.
const MOST_IDLE: u32 = 200;
/// Calls made so far by this program: for whoever watches it.
pub static PROGRESS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Something that should not be.
#[derive(Clone, Debug)]
pub struct Finding {
    pub what: String,
    /// The call after which it was seen.
    pub call: u64,
}

/// Keeps what a panic says for the report.
pub fn catch_messages() {
    std::panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
}

/// What an episode is to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub episode: u64,
    /// Calls to make; all where there is none.
    pub only: Option<BTreeSet<u64>>,
    /// Check after every call.
    pub every: bool,
    /// Print the calls.
    pub verbose: bool,
}

/// Plays an episode; says how many calls were made.
pub fn play(plan: &Plan) -> std::result::Result<u64, Finding> {
    let mut call = 0;
    let result = catch_unwind(AssertUnwindSafe(|| run(plan, &mut call)));
    match result {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(Finding { what: format!("{error:#}"), call }),
        Err(_) => Err(Finding { what: PANIC.with_borrow(Clone::clone), call }),
    }
}

fn run(plan: &Plan, call: &mut u64) -> Result<u64> {
    let world = World::new();
    let in_use = (0..FRAMES).filter(|&n| world.hv.memory.inspect(oxen_types::Mfn(n)).is_some()).count() as u64;
    let total = world.hv.memory.free_frames() + in_use;
    check::check(&world, total).context("before the first call")?;
    let mut idle = 0;
    let mut made = 0;
    for n in 0..CALLS {
        *call = n;
        if plan.only.as_ref().is_some_and(|only| !only.contains(&n)) {
            continue;
        }
        PROGRESS.fetch_add(1, Ordering::Relaxed);
        world.begin_step();
        let mut rng = Rng::new(plan.episode.wrapping_mul(0x1_0001).wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        world.machine.advance_ns(rng.below(300_000));
        let cpu = rng.below(CPUS.into()) as u32;
        world.timer(cpu);
        if step(&world, cpu, rng, plan.verbose.then_some(n)) {
            idle = 0;
            made += 1;
        } else {
            idle += 1;
            world.wake_somebody(n);
            if idle > MOST_IDLE {
                break;
            }
        }
        if plan.every || n % CHECK_EVERY == 0 {
            check::check(&world, total)?;
            if plan.verbose {
                println!("{}", check::summary(&world));
            }
            world.replenish();
            world.machine.take_events();
            world.machine.take_console();
        }
    }
    *call = CALLS;
    check::check(&world, total)?;
    check::finish(&world, total).context("at the end")?;
    Ok(made)
}

/// Lets the vCPU on a processor make a call; false where none runs there.
fn step(world: &World, cpu: u32, mut rng: Rng, show: Option<u64>) -> bool {
    let Some((domain, vcpu)) = world.running(cpu) else {
        // Whether it finds something to run or not, its next turn comes.
        return world.enter(cpu, KICK_VECTOR);
    };
    if rng.one_in(3) {
        grant_something(world, domain.id, &mut rng);
    }
    let caller = domain.id;
    drop(domain);
    if !world.machine.with_live(cpu, |live| live.in_kernel) {
        traps::system_call(world, cpu, vcpu);
        world.enter(cpu, VECTOR_HYPERCALL);
        return true;
    }
    let mut values = Values { world, rng, caller, cpu };
    if values.rng.one_in(8) {
        let vector = values.trap(vcpu);
        if let Some(n) = show {
            println!("{n}: CPU {cpu}, {caller}v{vcpu}: vector {vector:#x}, {:x?}", world.cpus[cpu as usize].borrow().frame);
        }
        world.enter(cpu, vector);
        return true;
    }
    let Prepared { number, args } = values.call();
    let is_iret = number == Hypercall::IRET.0;
    if is_iret {
        values.iret_frame(vcpu);
    }
    if let Some(n) = show {
        println!("{n}: CPU {cpu}, {caller}v{vcpu}: call {number} {args:x?}");
    }
    world.cpus[cpu as usize].borrow_mut().frame = GuestFrame {
        rax: number.into(),
        rdi: args[0],
        rsi: args[1],
        rdx: args[2],
        r10: args[3],
        r8: args[4],
        r9: args[5],
        rsp: stack(vcpu) - if is_iret { IRET_FRAME_BYTES } else { 0 },
        ..traps::base_frame(vcpu)
    };
    let came_back = world.enter(cpu, VECTOR_HYPERCALL);
    if show.is_some() {
        let same = world.running(cpu).is_some_and(|(domain, v)| domain.id == caller && v == vcpu);
        match world.cpus[cpu as usize].borrow().frame.rax as i64 {
            rax if came_back && same => println!("    = {rax}"),
            _ => println!("    stopped"),
        }
    }
    // A call that is to be continued sets the instruction pointer back to itself.
    for _ in 0..20 {
        let again = world.running(cpu).is_some_and(|(domain, v)| domain.id == caller && v == vcpu) && world.cpus[cpu as usize].borrow().frame.rip == CODE;
        if !again {
            break;
        }
        world.cpus[cpu as usize].borrow_mut().frame.rip = CODE + 2;
        world.enter(cpu, VECTOR_HYPERCALL);
    }
    true
}

/// A domain writes an entry of its grant table, which it may map.
fn grant_something(world: &World, id: DomId, rng: &mut Rng) {
    let Some(domain) = world.hv.domains.get(id) else { return };
    let (mfn, version) = {
        let grants = domain.grants.lock();
        let Some(mfn) = grants.frames().next() else { return };
        (mfn, grants.version())
    };
    let reference = rng.below(16) as usize;
    let flags = *rng.pick(&[0_u64, 1, 1, 1, 5, 2, 3, 7]);
    let page = BASE + rng.below(30) * 4096;
    let root = (0..CPUS).find(|&cpu| world.running(cpu).is_some_and(|(d, _)| d.id == id)).and_then(|cpu| world.machine.loaded_root(cpu));
    let frame = root.and_then(|root| world.hv.memory.walk(root, oxen_types::Gva(page))).map_or(rng.below(600), |found| oxen_mm::entry::frame(found.entry).0);
    let grantee = rng.below(3);
    let word = |index: usize| world.machine.shared_u64(mfn, index * 8);
    let head = flags | grantee << 16;
    if version == 1 {
        word(reference).store(head | frame << 32, Ordering::SeqCst);
        return;
    }
    // Of version 2: a page, part of a page, or another domain's grant.
    let (middle, second) = match flags & 3 {
        3 => (rng.below(4), rng.below(16)),
        _ => (rng.below(5000) | rng.below(5000) << 16, frame),
    };
    let part = if rng.one_in(3) { u64::from(oxen_abi::grant_table::GTF_SUB_PAGE) } else { 0 };
    word(2 * reference + 1).store(second, Ordering::SeqCst);
    word(2 * reference).store(head | part | middle << 32, Ordering::SeqCst);
}

/// Leaves out as many calls as it can while the same thing is found.
pub fn shorten(finding: &Finding, episode: u64) -> BTreeSet<u64> {
    let mut calls: BTreeSet<u64> = (0..=finding.call.min(CALLS - 1)).collect();
    let kind = |what: &str| what.chars().filter(|c| !c.is_ascii_digit()).take(60).collect::<String>();
    let wanted = kind(&finding.what);
    let mut piece = calls.len() / 2;
    while piece > 0 {
        let list: Vec<u64> = calls.iter().copied().collect();
        for chunk in list.chunks(piece) {
            let fewer: BTreeSet<u64> = calls.iter().copied().filter(|n| !chunk.contains(n)).collect();
            let plan = Plan { episode, only: Some(fewer.clone()), every: true, verbose: false };
            if play(&plan).is_err_and(|found| kind(&found.what) == wanted) {
                calls = fewer;
            }
        }
        piece /= 2;
    }
    calls
}

/// Plays `count` episodes from the first one.
pub fn play_many(first: u64, count: u64) -> Result<u64> {
    let mut made = 0;
    for episode in first..first + count {
        match play(&Plan { episode, ..Plan::default() }) {
            Ok(calls) => made += calls,
            Err(finding) => bail!("episode {episode}, call {}: {}", finding.call, finding.what),
        }
    }
    Ok(made)
}
