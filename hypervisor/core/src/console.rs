//! The hypervisor's console: log lines, the ring that `xm dmesg` reads, and serial input.

use crate::Hypervisor;
use crate::sched::work;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use oxen_abi::xen::Virq;
use oxen_hal::Machine;
use oxen_sync::{SpinLock, level};

/// Bytes of console output that are kept.
pub const RING_BYTES: usize = 1 << 20;
/// Bytes of input that wait for dom0 at most; more are dropped.
const INPUT_BYTES: usize = 128;
/// The key that, typed three times, switches serial input between dom0 and the hypervisor: CTRL-a.
const SWITCH_KEY: u8 = 1;
/// Guest-triggered lines: this many at once ...
const LIMIT_BURST: u32 = 10;
/// ... and one more in each of these periods, in nanoseconds.
const LIMIT_PERIOD_NS: u64 = 500_000_000;

/// A byte ring that remembers how many bytes ever went in.
#[derive(Debug)]
pub struct Ring {
    bytes: Vec<u8>,
    /// Bytes ever written; the byte with index `i` is at `i % RING_BYTES`.
    produced: u64,
    /// Index of the first byte that a reader sees after a clear.
    start: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self { bytes: alloc::vec![0; RING_BYTES], produced: 0, start: 0 }
    }
}

impl Ring {
    fn push(&mut self, text: &[u8]) {
        for byte in text {
            let at = (self.produced % RING_BYTES as u64) as usize;
            if let Some(slot) = self.bytes.get_mut(at) {
                *slot = *byte;
            }
            self.produced += 1;
        }
    }

    /// Copies out what there is from byte index `from` on (older bytes are gone), at most `max` bytes; returns them and the index after them.
    #[must_use]
    pub fn read(&self, from: Option<u64>, max: usize) -> (Vec<u8>, u64) {
        let oldest = self.produced.saturating_sub(RING_BYTES as u64);
        let start = from.unwrap_or(self.start).max(oldest).min(self.produced);
        let count = (self.produced - start).min(max as u64);
        let bytes = (start..start + count).filter_map(|i| self.bytes.get((i % RING_BYTES as u64) as usize).copied()).collect();
        (bytes, start + count)
    }

    /// Forgets what is in the ring, for readers that start at its beginning.
    pub fn clear(&mut self) {
        self.start = self.produced;
    }
}

#[derive(Debug, Default)]
struct Input {
    waiting: VecDeque<u8>,
    switch_keys: u32,
    to_hypervisor: bool,
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

impl Default for ConsoleState {
    fn default() -> Self {
        Self {
            ring: SpinLock::new(Ring::default()),
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

    /// As [`Hypervisor::log`], for lines that a guest can cause: more than a burst are counted instead of shown.
    pub fn log_limited(&self, text: fmt::Arguments<'_>) {
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

    /// Reads the ring; see [`Ring::read`].
    #[must_use]
    pub fn console_read_ring(&self, from: Option<u64>, max: usize) -> (Vec<u8>, u64) {
        self.console.ring.lock().read(from, max)
    }

    /// Forgets the ring's contents.
    pub fn console_clear_ring(&self) {
        self.console.ring.lock().clear();
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

    #[test]
    fn ring_keeps_the_newest() {
        let mut ring = Ring::default();
        ring.push(b"hello ");
        ring.push(b"world");
        assert_eq!(ring.read(None, 100), (b"hello world".to_vec(), 11));
        assert_eq!(ring.read(Some(6), 3), (b"wor".to_vec(), 9));
        ring.clear();
        assert_eq!(ring.read(None, 100), (Vec::new(), 11));
        ring.push(&alloc::vec![b'x'; RING_BYTES]);
        let (all, next) = ring.read(Some(0), usize::MAX);
        assert_eq!((all.len(), next), (RING_BYTES, 11 + RING_BYTES as u64));
        assert!(all.iter().all(|b| *b == b'x'));
    }
}
