//! TLB flushes on this and other CPUs, and the clock that orders them.
//!
//! A CPU that wants others to flush leaves a request in each one's mailbox and sends an interrupt. A CPU in a guest or in the idle loop
//! takes the interrupt; one in the hypervisor, where interrupts are off, answers from the relax hook when it waits for something, or
//! on its way out. Two CPUs that wait for each other's flush therefore both go on.

use crate::apic::{local, vectors};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use oxen_hal::{FlushScope, Processors};
use oxen_types::{CpuId, CpuSet, Gva, MAX_CPUS};

/// No address in the mailbox.
const EMPTY: u64 = 1;
/// Everything is to be flushed.
const EVERYTHING: u64 = 2;

/// What other CPUs ask of one CPU. Page addresses are multiples of 4096, so that they differ from the two markers.
#[repr(align(64))]
struct Mailbox {
    /// Number of the last request.
    requested: AtomicU32,
    /// Number of the last request that has been answered.
    done: AtomicU32,
    /// The page to flush, or a marker. Two requests for different pages become one for everything.
    what: AtomicU64,
}

static MAILBOXES: [Mailbox; MAX_CPUS] =
    [const { Mailbox { requested: AtomicU32::new(0), done: AtomicU32::new(0), what: AtomicU64::new(EMPTY) } }; MAX_CPUS];

/// Counts full flushes. The low 32 bits are the clock that others see; the high ones say how often it has gone round.
static FLUSH_CLOCK: AtomicU64 = AtomicU64::new(1);

/// The clock's value at each CPU's last full flush.
#[repr(align(64))]
struct LastFlush(AtomicU64);
static LAST_FLUSH: [LastFlush; MAX_CPUS] = [const { LastFlush(AtomicU64::new(0)) }; MAX_CPUS];

impl Mailbox {
    /// Leaves a request and gives its number.
    fn post(&self, what: u64) -> u32 {
        let mut present = self.what.load(Ordering::Relaxed);
        loop {
            let merged = if present == EMPTY || present == what { what } else { EVERYTHING };
            match self.what.compare_exchange_weak(present, merged, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => present = other,
            }
        }
        self.requested.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// Takes what has been asked: the number up to which this answers, and the page or marker. `None` where nothing is asked.
    fn take(&self) -> Option<(u32, u64)> {
        let number = self.requested.load(Ordering::Acquire);
        if number == self.done.load(Ordering::Relaxed) {
            return None;
        }
        // Every request up to `number` had its page here before it was counted. A later one may be taken along; it then finds the mailbox
        // empty when it is answered itself, which is right: its translation is dropped below.
        Some((number, self.what.swap(EMPTY, Ordering::AcqRel)))
    }

    fn is_done(&self, number: u32) -> bool {
        self.done.load(Ordering::Acquire).wrapping_sub(number) as i32 >= 0
    }
}

/// Begins a full flush of this CPU's TLB and gives the value for [`end_full_flush`]. What is unmapped from now on is not covered.
#[inline]
#[must_use]
pub fn begin_full_flush() -> u64 {
    FLUSH_CLOCK.fetch_add(1, Ordering::SeqCst) + 1
}

/// Notes that the flush begun with `value` is done.
#[inline]
pub fn end_full_flush(cpu: CpuId, value: u64) {
    LAST_FLUSH[cpu.index() % MAX_CPUS].0.store(value, Ordering::Release);
}

/// See [`oxen_hal::AddressSpace::flush_clock`].
#[must_use]
pub fn flush_clock() -> u32 {
    // 0 would read as "never"; one more is on the safe side.
    (FLUSH_CLOCK.load(Ordering::SeqCst) as u32).max(1)
}

/// See [`oxen_hal::AddressSpace::last_flush`]. A flush of an earlier turn of the clock counts as none.
#[must_use]
pub fn last_flush(cpu: CpuId) -> u32 {
    let last = LAST_FLUSH[cpu.index() % MAX_CPUS].0.load(Ordering::Acquire);
    if last >> 32 == FLUSH_CLOCK.load(Ordering::SeqCst) >> 32 { last as u32 } else { 0 }
}

/// Drops this CPU's translation of one address.
#[inline]
pub fn flush_page(va: Gva) {
    // SAFETY: dropping a translation is always allowed; the page walk brings it back.
    unsafe { asm!("invlpg [{}]", in(reg) va.0, options(nostack, preserves_flags)) };
}

/// Drops all translations of this CPU, global ones included.
pub fn flush_everything() {
    let value = begin_full_flush();
    const PGE: u64 = 1 << 7;
    // SAFETY: changing CR4.PGE drops all translations and has no other effect (Intel SDM vol. 3, section "Operations that Invalidate
    // TLBs and Paging-Structure Caches"); it ends as it was.
    unsafe {
        let cr4: u64;
        asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags));
        asm!("mov cr4, {}", in(reg) cr4 ^ PGE, options(nostack, preserves_flags));
        asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
    }
    end_full_flush(crate::MACHINE.this_cpu(), value);
}

/// Drops this CPU's translations.
pub fn flush_local(scope: FlushScope) {
    match scope {
        FlushScope::Page(va) => flush_page(va),
        FlushScope::All => flush_everything(),
    }
}

/// Answers what other CPUs have asked of this one. Cheap where nothing is asked.
pub(crate) fn serve() {
    let mailbox = &MAILBOXES[crate::MACHINE.this_cpu().index() % MAX_CPUS];
    if let Some((number, what)) = mailbox.take() {
        match what {
            EMPTY => {}
            EVERYTHING => flush_everything(),
            page => flush_page(Gva(page)),
        }
        mailbox.done.store(number, Ordering::Release);
    }
}

/// Drops translations on all CPUs of `cpus` and returns when each one has done it. CPUs that do not run are passed over: they have none.
pub fn flush_remote(cpus: &CpuSet, scope: FlushScope) {
    let me = crate::MACHINE.this_cpu();
    if cpus.contains(me) {
        flush_local(scope);
    }
    if !crate::smp::is_alone() {
        flush_others(me, cpus, scope);
    }
}

fn flush_others(me: CpuId, cpus: &CpuSet, scope: FlushScope) {
    let what = match scope {
        FlushScope::Page(va) => va.0 & !0xfff,
        FlushScope::All => EVERYTHING,
    };
    let online = crate::MACHINE.online();
    let others = || cpus.iter().filter(|cpu| *cpu != me && online.contains(*cpu));
    // A number per CPU would need room for all of them. A request is answered when the mailbox's answer is as far as its request counter
    // was after posting; waiting for the counter's value at the time of the wait, which is no smaller, is enough.
    for cpu in others() {
        MAILBOXES[cpu.index() % MAX_CPUS].post(what);
        if let Some((apic_id, _)) = crate::MACHINE.cpu_identity(cpu) {
            local::send(apic_id, vectors::FLUSH);
        }
    }
    for cpu in others() {
        let mailbox = &MAILBOXES[cpu.index() % MAX_CPUS];
        let number = mailbox.requested.load(Ordering::Acquire);
        while !mailbox.is_done(number) {
            oxen_sync::relax();
        }
    }
}

/// Makes waiting loops answer flush requests. Called before the second CPU starts.
pub(crate) fn init() {
    oxen_sync::set_relax_hook(serve);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    fn mailbox() -> Mailbox {
        Mailbox { requested: AtomicU32::new(0), done: AtomicU32::new(0), what: AtomicU64::new(EMPTY) }
    }

    #[test]
    fn requests_merge() {
        let m = mailbox();
        assert_eq!(m.take(), None);
        assert_eq!(m.post(0x1000), 1);
        assert_eq!(m.post(0x1000), 2);
        assert_eq!(m.take(), Some((2, 0x1000)));
        m.done.store(2, Ordering::Release);
        assert!(m.is_done(1) && m.is_done(2) && !m.is_done(3));
        m.post(0x1000);
        m.post(0x2000);
        assert_eq!(m.take(), Some((4, EVERYTHING)));
    }

    #[test]
    fn numbers_wrap() {
        let m = mailbox();
        m.requested.store(u32::MAX, Ordering::Relaxed);
        m.done.store(u32::MAX, Ordering::Relaxed);
        let number = m.post(EVERYTHING);
        assert_eq!(number, 0);
        assert!(!m.is_done(number));
        m.done.store(m.take().unwrap().0, Ordering::Release);
        assert!(m.is_done(number));
    }

    /// Each requester bumps its own "unmapped" word before it asks; after the answer the server must have seen that value.
    #[test]
    fn no_request_is_lost() {
        let m = Arc::new(mailbox());
        let words: Arc<[AtomicU64; 3]> = Arc::new(Default::default());
        let seen: Arc<[AtomicU64; 3]> = Arc::new(Default::default());
        let stop = Arc::new(AtomicBool::new(false));
        let server = {
            let (m, words, seen, stop) = (m.clone(), words.clone(), seen.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Some((number, what)) = m.take() {
                        for i in 0..3 {
                            if what == EVERYTHING || what == (i as u64 + 1) << 12 {
                                seen[i].store(words[i].load(Ordering::SeqCst), Ordering::SeqCst);
                            }
                        }
                        m.done.store(number, Ordering::Release);
                    }
                }
            })
        };
        let clients: std::vec::Vec<_> = (0..3)
            .map(|i| {
                let (m, words, seen) = (m.clone(), words.clone(), seen.clone());
                thread::spawn(move || {
                    for n in 1..2000 {
                        words[i].store(n, Ordering::SeqCst);
                        let number = m.post((i as u64 + 1) << 12);
                        while !m.is_done(number) {
                            thread::yield_now();
                        }
                        assert!(seen[i].load(Ordering::SeqCst) >= n);
                    }
                })
            })
            .collect();
        for c in clients {
            c.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap();
    }
}
