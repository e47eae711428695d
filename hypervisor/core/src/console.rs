//! The hypervisor's console: log lines, the ring that `xm dmesg` reads, and serial input.

use crate::Hypervisor;
use crate::sched::work;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;
use oxen_abi::xen::Virq;
use oxen_hal::Machine;
use oxen_sync::{SpinLock, level};

/// Bytes of an earlier boot's text that are shown.
const PREVIOUS_BYTES: usize = 16 << 10;
/// Bytes of input that wait for dom0 at most; more are dropped.
const INPUT_BYTES: usize = 128;
/// The key that, typed three times, switches serial input between dom0 and the hypervisor: CTRL-a.
const SWITCH_KEY: u8 = 1;
/// Guest-triggered lines: this many at once ...
const LIMIT_BURST: u32 = 10;
/// ... and one more in each of these periods, in nanoseconds.
const LIMIT_PERIOD_NS: u64 = 500_000_000;

/// A byte ring that remembers how many bytes ever went in. It lies in a region that keeps its contents over a warm restart: a header and the bytes.
#[derive(Debug)]
pub struct Ring {
    header: &'static [AtomicU8],
    bytes: &'static [AtomicU8],
    /// Bytes ever written; the byte with index `i` is at `i % bytes.len()`.
    produced: u64,
    /// Index of the first byte that a reader sees after a clear.
    start: u64,
}

/// Bytes of a region before the ring proper: magic, bytes ever written, and [`ENDED_WELL`] or 0, each 8 bytes.
pub const RING_HEADER_BYTES: usize = 64;
const MAGIC: u64 = u64::from_le_bytes(*b"OxenRing");
const ENDED_WELL: u64 = 1;

impl Ring {
    /// An empty ring in `region`, and what an earlier boot left there, unless that one ended in an orderly way. A region too small for anything
    /// makes a ring that keeps nothing.
    #[must_use]
    pub fn in_region(region: &'static [AtomicU8]) -> (Self, Option<Vec<u8>>) {
        let (header, bytes) = region.split_at(RING_HEADER_BYTES.min(region.len()));
        let mut ring = Self { header, bytes, produced: 0, start: 0 };
        let left = (ring.header_word(0) == MAGIC && ring.header_word(2) != ENDED_WELL).then(|| {
            ring.produced = ring.header_word(1);
            // Only the end is shown, and there is little memory this early.
            ring.last(PREVIOUS_BYTES)
        });
        ring.produced = 0;
        ring.set_header_word(2, 0);
        ring.set_header_word(1, 0);
        ring.set_header_word(0, MAGIC);
        (ring, left.filter(|text| !text.is_empty()))
    }

    fn header_word(&self, index: usize) -> u64 {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(self.header.iter().skip(8 * index)) {
            *to = from.load(Relaxed);
        }
        u64::from_le_bytes(word)
    }

    fn set_header_word(&self, index: usize, value: u64) {
        for (to, from) in self.header.iter().skip(8 * index).zip(value.to_le_bytes()) {
            to.store(from, Relaxed);
        }
    }

    fn slot(&self, index: u64) -> Option<&AtomicU8> {
        self.bytes.get(index.checked_rem(self.bytes.len() as u64)? as usize)
    }

    fn push(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(slot) = self.slot(self.produced) {
                slot.store(*byte, Relaxed);
            }
            self.produced += 1;
        }
        self.set_header_word(1, self.produced);
    }

    /// The last `max` bytes of the ring, or what there is.
    fn last(&self, max: usize) -> Vec<u8> {
        let mut text = alloc::vec![0; max];
        let (copied, _) = self.copy(self.produced.saturating_sub(max as u64), &mut text);
        text.truncate(copied);
        text
    }

    /// Fills `to` from byte index `from` on, as far as there is text; older bytes than the oldest kept are skipped. Returns how many bytes were
    /// copied and the index after them.
    fn copy(&self, from: u64, to: &mut [u8]) -> (usize, u64) {
        let oldest = self.produced.saturating_sub(self.bytes.len() as u64);
        let start = from.max(oldest).min(self.produced);
        let mut copied = 0;
        for (place, index) in to.iter_mut().zip(start..self.produced) {
            *place = self.slot(index).map_or(0, |b| b.load(Relaxed));
            copied += 1;
        }
        (copied, start + copied as u64)
    }

    /// The full index whose low half is `index`, the nearest one at or before the end.
    fn widen(&self, index: u32) -> u64 {
        self.produced.saturating_sub(u64::from((self.produced as u32).wrapping_sub(index)))
    }

    /// Forgets everything before `index`, for readers that start at the ring's beginning.
    fn clear_to(&mut self, index: u64) {
        self.start = self.start.max(index.min(self.produced));
    }
}

#[derive(Debug, Default)]
struct Input {
    waiting: VecDeque<u8>,
    switch_keys: u32,
    to_hypervisor: bool,
}

/// What becomes of lines that guests can cause at will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestLines {
    /// They are shown, each of them.
    All,
    /// More than a burst are counted instead of shown.
    #[default]
    Limited,
    /// They are not shown.
    None,
}

#[derive(Debug)]
struct Limit {
    left: u32,
    last_refill_ns: u64,
    dropped: u64,
}

/// The console's state.
#[derive(Debug)]
pub struct ConsoleState {
    ring: SpinLock<Ring, { level::CONSOLE }>,
    input: SpinLock<Input, { level::CONSOLE - 1 }>,
    limit: SpinLock<Limit, { level::CONSOLE - 1 }>,
}

impl ConsoleState {
    /// A console that keeps its text in `ring`.
    #[must_use]
    pub fn new(ring: Ring) -> Self {
        Self {
            ring: SpinLock::new(ring),
            input: SpinLock::new(Input::default()),
            limit: SpinLock::new(Limit { left: LIMIT_BURST, last_refill_ns: 0, dropped: 0 }),
        }
    }
}

/// Text gathered for one write to ring and devices.
#[derive(Default)]
struct Line(Vec<u8>);

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Writes one line of the hypervisor's own, with its prefix, to ring and devices.
    pub fn log(&self, text: fmt::Arguments<'_>) {
        let mut line = Line::default();
        // Writing to memory fails only if a value's own formatting does.
        let _ = writeln!(line, "(OXEN) {text}");
        self.console_output(&line.0);
    }

    /// As [`Hypervisor::log`], for lines that a guest can cause; the configuration says what becomes of them.
    pub fn log_limited(&self, text: fmt::Arguments<'_>) {
        match self.config.guest_lines {
            GuestLines::All => return self.log(text),
            GuestLines::Limited => {}
            GuestLines::None => return,
        }
        let dropped = {
            let mut limit = self.console.limit.lock();
            let now = self.machine.now_ns();
            let periods = now.saturating_sub(limit.last_refill_ns) / LIMIT_PERIOD_NS;
            if periods > 0 {
                limit.left = limit.left.saturating_add(u32::try_from(periods).unwrap_or(u32::MAX)).min(LIMIT_BURST);
                limit.last_refill_ns = now;
            }
            if limit.left == 0 {
                limit.dropped += 1;
                return;
            }
            limit.left -= 1;
            core::mem::take(&mut limit.dropped)
        };
        if dropped != 0 {
            self.log(format_args!("({dropped} more lines that guests caused were not shown)"));
        }
        self.log(text);
    }

    /// Writes bytes to ring and devices.
    pub fn console_output(&self, text: &[u8]) {
        let mut ring = self.console.ring.lock();
        ring.push(text);
        self.machine.console_write(text);
    }

    /// Puts text into the ring that the devices have shown already (lines from before the ring existed).
    pub fn console_seed(&self, text: &[u8]) {
        self.console.ring.lock().push(text);
    }

    /// Puts the end of what an earlier boot left into the ring, marked as such.
    pub fn console_seed_previous(&self, text: &[u8]) {
        let from = text.len().saturating_sub(PREVIOUS_BYTES);
        let mut ring = self.console.ring.lock();
        ring.push(b"(OXEN) --- previous boot, which did not end in an orderly way ---\n");
        ring.push(text.get(from..).unwrap_or(&[]));
        ring.push(b"\n(OXEN) --- this boot ---\n");
    }

    /// Text of a fatal report: into the ring, if nobody holds its lock, which nobody may ever give back.
    pub fn console_fatal(&self, text: &[u8]) {
        if let Some(mut ring) = self.console.ring.try_lock() {
            ring.push(text);
        }
    }

    /// Records in the ring's region that this boot ends in an orderly way.
    pub(crate) fn console_end_well(&self) {
        self.console.ring.lock().set_header_word(2, ENDED_WELL);
    }

    /// Where a reader of the ring begins: at its beginning, or at an index that an earlier read returned, whichever is later. Such an index is
    /// the low half of the count of bytes ever written.
    #[must_use]
    pub fn console_ring_start(&self, earlier: Option<u32>) -> u64 {
        let ring = self.console.ring.lock();
        let after_clear = ring.start;
        earlier.map_or(after_clear, |index| ring.widen(index).max(after_clear))
    }

    /// Fills `to` from the ring, from byte index `from` on; returns how many bytes there were and the index after them.
    #[must_use]
    pub fn console_copy_ring(&self, from: u64, to: &mut [u8]) -> (usize, u64) {
        self.console.ring.lock().copy(from, to)
    }

    /// Forgets what is before byte index `index`.
    pub fn console_clear_ring_to(&self, index: u64) {
        self.console.ring.lock().clear_to(index);
    }

    /// Takes what the serial port received: keys for the hypervisor, or input for dom0.
    pub(crate) fn console_input(&self) {
        while let Some(byte) = self.machine.console_read() {
            self.console_key(byte);
        }
    }

    fn console_key(&self, byte: u8) {
        let mut input = self.console.input.lock();
        if byte == SWITCH_KEY {
            input.switch_keys += 1;
            if input.switch_keys == 3 {
                input.switch_keys = 0;
                input.to_hypervisor = !input.to_hypervisor;
                let to = if input.to_hypervisor { "Oxen (h lists its keys)" } else { "DOM0" };
                drop(input);
                self.log(format_args!("*** Serial input to {to} (type CTRL-a three times to switch input)"));
            }
            return;
        }
        input.switch_keys = 0;
        if input.to_hypervisor {
            drop(input);
            self.debug_key(byte);
            return;
        }
        if input.waiting.len() < INPUT_BYTES {
            input.waiting.push_back(byte);
        }
        drop(input);
        self.raise_global_virq(Virq::CONSOLE);
    }

    /// Takes input that waits for dom0.
    #[must_use]
    pub fn take_console_input(&self, max: usize) -> Vec<u8> {
        let mut input = self.console.input.lock();
        let count = input.waiting.len().min(max);
        input.waiting.drain(..count).collect()
    }

    /// Asks the calling CPU to choose again what runs.
    pub fn request_reschedule(&self) {
        self.sched.add_work(self.machine.this_cpu(), work::RESCHEDULE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;

    const BYTES: usize = 1000;

    fn region() -> &'static [AtomicU8] {
        Box::leak((0..RING_HEADER_BYTES + BYTES).map(|_| AtomicU8::new(0xa5)).collect())
    }

    #[test]
    fn keeps_the_newest() {
        let (mut ring, previous) = Ring::in_region(region());
        assert_eq!(previous, None);
        ring.push(b"hello ");
        ring.push(b"world");
        assert_eq!(ring.last(4096), b"hello world");
        let mut part = [0; 3];
        assert_eq!((ring.copy(6, &mut part), &part), ((3, 9), b"wor"));
        assert_eq!(ring.copy(11, &mut part), (0, 11));
        ring.push(&[b'x'; BYTES]);
        let mut all = [0; 2 * BYTES];
        assert_eq!(ring.copy(0, &mut all), (BYTES, 11 + BYTES as u64));
        assert!(all[..BYTES].iter().all(|b| *b == b'x'));
    }

    #[test]
    fn lines_of_guests_as_configured() {
        for (guest_lines, expected) in [(GuestLines::All, 40), (GuestLines::Limited, LIMIT_BURST as usize), (GuestLines::None, 0)] {
            let mut w = crate::hypercall::testing::World::new();
            w.hv.config.guest_lines = guest_lines;
            (0..40).for_each(|n| w.hv.log_limited(format_args!("#{n}")));
            let shown = w.hv.console.ring.lock().last(4096).iter().filter(|&&byte| byte == b'#').count();
            assert_eq!(shown, expected, "{guest_lines:?}");
        }
    }

    #[test]
    fn forgets_what_was_read() {
        let (mut ring, _) = Ring::in_region(region());
        ring.push(b"read and new");
        ring.clear_to(9);
        assert_eq!(ring.start, 9);
        ring.clear_to(4);
        assert_eq!(ring.start, 9);
        ring.clear_to(100);
        assert_eq!(ring.start, 12);
    }

    #[test]
    fn widens_indexes_beyond_32_bits() {
        let (mut ring, _) = Ring::in_region(region());
        ring.produced = 3;
        assert_eq!((ring.widen(1), ring.widen(3), ring.widen(4)), (1, 3, 0));
        ring.produced = (7 << 32) + 5;
        assert_eq!(ring.widen(2), (7 << 32) + 2);
        assert_eq!(ring.widen(u32::MAX), (7 << 32) - 1);
    }

    #[test]
    fn outlives_a_restart_unless_it_ended_well() {
        let region = region();
        Ring::in_region(region).0.push(b"last words");
        let (ring, previous) = Ring::in_region(region);
        assert_eq!(previous.as_deref(), Some(&b"last words"[..]));
        ring.set_header_word(2, ENDED_WELL);
        assert_eq!(Ring::in_region(region).1, None);
    }

    #[test]
    fn a_region_too_small_is_harmless() {
        let (mut ring, _) = Ring::in_region(&[]);
        ring.push(b"lost");
        assert_eq!(ring.last(4096), b"");
    }
}
