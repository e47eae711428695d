//! Tables of finite-state entropy coding. Section 4.1.

use super::bits::{ForwardBits, ReverseBits, Window};
use crate::unpack::Fault;
use alloc::vec;
use alloc::vec::Vec;

/// log2 of the largest table.
const MAX_ACCURACY: u32 = 9;
const MAX_ENTRIES: usize = 1 << MAX_ACCURACY;
/// Number of the largest symbol of any alphabet coded so, plus one.
pub(super) const MAX_SYMBOLS: usize = 256;
/// The stored probability that stands for "less than one".
const LESS_THAN_ONE: i16 = -1;

const BAD_TABLE: Fault = Fault("invalid zstd probability table");

#[derive(Clone, Copy, Default)]
struct Entry {
    /// The next state, less the bits to be read.
    base: u16,
    /// Bits to be read for the next state.
    bits: u8,
    symbol: u8,
}

/// A decoding table.
pub(super) struct Table {
    accuracy: u32,
    entries: Vec<Entry>,
}

/// A table with a state in it.
#[derive(Clone, Copy)]
pub(super) struct State<'a> {
    entries: &'a [Entry; MAX_ENTRIES],
    state: usize,
}

impl<'a> State<'a> {
    /// The symbol of the current state.
    #[inline(always)]
    pub fn symbol(&self) -> usize {
        self.entries[self.state % MAX_ENTRIES].symbol.into()
    }

    /// Reads the bits that lead to the next state, at most nine.
    #[inline(always)]
    pub fn step(&mut self, window: &mut Window) {
        let entry = self.entries[self.state % MAX_ENTRIES];
        self.state = usize::from(entry.base) + window.take(entry.bits.into());
    }
}

impl Table {
    /// A table that must be filled before use.
    pub fn new() -> Self {
        Self {
            accuracy: 0,
            entries: vec![Entry::default(); MAX_ENTRIES],
        }
    }

    /// Begins decoding: reads the first state.
    pub fn start<'a>(&'a self, bits: &mut ReverseBits<'_>) -> Result<State<'a>, Fault> {
        let entries = self.entries.first_chunk().ok_or(BAD_TABLE)?;
        Ok(State {
            entries,
            state: bits.take(self.accuracy),
        })
    }

    /// Fills the table so that it always gives one symbol.
    pub fn fill_single(&mut self, symbol: u8) {
        self.accuracy = 0;
        if let Some(first) = self.entries.first_mut() {
            *first = Entry {
                base: 0,
                bits: 0,
                symbol,
            };
        }
    }

    /// Fills the table from a description; returns the bytes that it takes.
    pub fn read(
        &mut self,
        bytes: &[u8],
        max_accuracy: u32,
        nr_symbols: usize,
    ) -> Result<usize, Fault> {
        let mut bits = ForwardBits::new(bytes);
        let accuracy = bits.take(4)? + 5;
        if accuracy > max_accuracy.min(MAX_ACCURACY) {
            return Err(BAD_TABLE);
        }
        let mut counts = [0_i16; MAX_SYMBOLS];
        let mut left = 1_i32 << accuracy;
        let mut symbol = 0;
        while left > 0 {
            let count = counts
                .get_mut(symbol)
                .filter(|_| symbol < nr_symbols)
                .ok_or(BAD_TABLE)?;
            *count = read_count(&mut bits, left)?;
            left -= i32::from(count.unsigned_abs());
            symbol += 1;
            if *count == 0 {
                // Two-bit numbers of further symbols that do not occur, until one is not 3.
                loop {
                    let more = bits.take(2)?;
                    symbol += more as usize;
                    if more != 3 {
                        break;
                    }
                }
            }
        }
        if left != 0 {
            return Err(BAD_TABLE);
        }
        self.fill(accuracy, &counts)?;
        Ok(bits.bytes_read())
    }

    /// Fills the table from the symbols' shares of `1 << accuracy`. Section 4.1.1.
    pub fn fill(&mut self, accuracy: u32, counts: &[i16]) -> Result<(), Fault> {
        let len = 1_usize << accuracy;
        let entries = self.entries.get_mut(..len).ok_or(BAD_TABLE)?;
        let mut next = [0_u16; MAX_SYMBOLS];
        // Symbols of less than one share get one state each, from the end.
        let mut rare_from = len;
        for (symbol, (count, next)) in (0..=u8::MAX).zip(counts.iter().zip(&mut next)) {
            if *count == LESS_THAN_ONE {
                rare_from = rare_from.checked_sub(1).ok_or(BAD_TABLE)?;
                entries.get_mut(rare_from).ok_or(BAD_TABLE)?.symbol = symbol;
            }
            *next = count.unsigned_abs();
        }
        // The others are spread over the rest by a stride that visits every place once.
        let stride = (len >> 1) + (len >> 3) + 3;
        let mut at = 0;
        for (symbol, count) in (0..=u8::MAX).zip(counts) {
            for _ in 0..(*count).max(0) {
                entries.get_mut(at).ok_or(BAD_TABLE)?.symbol = symbol;
                loop {
                    at = (at + stride) % len;
                    if at < rare_from || rare_from == 0 {
                        break;
                    }
                }
            }
        }
        if at != 0 {
            return Err(BAD_TABLE);
        }
        for entry in entries {
            let next = next
                .get_mut(usize::from(entry.symbol))
                .filter(|next| **next != 0)
                .ok_or(BAD_TABLE)?;
            let bits = accuracy - next.ilog2();
            entry.bits = bits as u8;
            entry.base = ((u32::from(*next) << bits) - (1 << accuracy)) as u16;
            *next += 1;
        }
        self.accuracy = accuracy;
        Ok(())
    }
}

/// Reads one symbol's share, where `left` shares are still to be given: a number of 0 to `left` + 1, in as few bits as that allows, less one.
fn read_count(bits: &mut ForwardBits<'_>, left: i32) -> Result<i16, Fault> {
    let max = left as u32 + 1;
    let width = max.ilog2() + 1;
    let value = bits.take(width)?;
    let low_mask = (1 << (width - 1)) - 1;
    // So many values are left over in `width` bits; the smallest numbers use one bit less instead.
    let spare = (1 << width) - 1 - max;
    let number = if value & low_mask < spare {
        bits.back();
        value & low_mask
    } else if value > low_mask {
        value - spare
    } else {
        value
    };
    Ok(number as i16 - 1)
}
