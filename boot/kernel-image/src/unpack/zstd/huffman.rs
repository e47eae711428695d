//! Huffman coding of literals. Section 4.2.

use super::bits::{ReverseBits, Window};
use super::fse;
use crate::unpack::{ENDS_EARLY, Fault};
use alloc::vec;
use alloc::vec::Vec;

/// Longest code in bits.
const MAX_BITS: u32 = 11;
const MAX_ENTRIES: usize = 1 << MAX_BITS;
const MAX_SYMBOLS: usize = 256;
/// Largest accuracy of the table that codes the weights.
const WEIGHTS_ACCURACY: u32 = 6;
/// A header byte below this is the length of weights coded by FSE; the others count weights of four bits each.
const FIRST_DIRECT: u8 = 128;
/// Codes that a window holds at least.
const PER_WINDOW: usize = (Window::BITS / MAX_BITS) as usize;

const BAD_TREE: Fault = Fault("invalid zstd Huffman tree");

#[derive(Clone, Copy, Default)]
struct Entry {
    symbol: u8,
    bits: u8,
}

/// A decoding table: indexed by the next `max_bits` bits.
pub(super) struct Huffman {
    max_bits: u32,
    entries: Vec<Entry>,
    weights_table: fse::Table,
}

impl Huffman {
    /// A table that must be read before use.
    pub fn new() -> Self {
        Self {
            max_bits: 0,
            entries: vec![Entry::default(); MAX_ENTRIES],
            weights_table: fse::Table::new(),
        }
    }

    /// Whether a tree has been read.
    pub fn is_ready(&self) -> bool {
        self.max_bits != 0
    }

    /// Reads a tree description; returns the bytes that it takes.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let (&header, rest) = bytes.split_first().ok_or(ENDS_EARLY)?;
        let mut weights = [0; MAX_SYMBOLS];
        let (nr_weights, len) = if header < FIRST_DIRECT {
            let coded = rest.get(..usize::from(header)).ok_or(ENDS_EARLY)?;
            (self.read_coded_weights(coded, &mut weights)?, coded.len())
        } else {
            let nr_weights = usize::from(header - FIRST_DIRECT) + 1;
            let packed = rest.get(..nr_weights.div_ceil(2)).ok_or(ENDS_EARLY)?;
            let nibbles = packed.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            for (weight, nibble) in weights.iter_mut().zip(nibbles.take(nr_weights)) {
                *weight = nibble;
            }
            (nr_weights, packed.len())
        };
        self.fill(&mut weights, nr_weights)?;
        Ok(1 + len)
    }

    /// Reads weights coded by FSE, two states taking turns; returns how many there are. Section 4.2.1.2.
    fn read_coded_weights(
        &mut self,
        bytes: &[u8],
        weights: &mut [u8; MAX_SYMBOLS],
    ) -> Result<usize, Fault> {
        let table_len = self
            .weights_table
            .read(bytes, WEIGHTS_ACCURACY, fse::MAX_SYMBOLS)?;
        let mut bits = ReverseBits::new(bytes.get(table_len..).ok_or(ENDS_EARLY)?)?;
        let mut turn = self.weights_table.start(&mut bits)?;
        let mut other = self.weights_table.start(&mut bits)?;
        if bits.overran() {
            return Err(ENDS_EARLY);
        }
        let mut count = 0;
        loop {
            // The last weight, which follows from the others, needs a place too.
            *weights
                .get_mut(count)
                .filter(|_| count < MAX_SYMBOLS - 2)
                .ok_or(BAD_TREE)? = turn.symbol() as u8;
            count += 1;
            let mut window = bits.window();
            turn.step(&mut window);
            bits.advance(window);
            if bits.overran() {
                *weights.get_mut(count).ok_or(BAD_TREE)? = other.symbol() as u8;
                return Ok(count + 1);
            }
            (turn, other) = (other, turn);
        }
    }

    /// Fills the table from the weights of the first symbols; the next symbol's weight is what completes the tree. Section 4.2.1.
    fn fill(&mut self, weights: &mut [u8; MAX_SYMBOLS], nr_weights: usize) -> Result<(), Fault> {
        let mut total = 0_u32;
        for weight in weights.iter().take(nr_weights) {
            if u32::from(*weight) > MAX_BITS {
                return Err(BAD_TREE);
            }
            total += 1 << weight >> 1;
        }
        if total == 0 {
            return Err(BAD_TREE);
        }
        let max_bits = total.ilog2() + 1;
        let missing = (1 << max_bits) - total;
        if max_bits > MAX_BITS || !missing.is_power_of_two() {
            return Err(BAD_TREE);
        }
        *weights.get_mut(nr_weights).ok_or(BAD_TREE)? = missing.ilog2() as u8 + 1;

        let mut at = 0;
        for weight in 1..=max_bits {
            let share = 1 << (weight - 1);
            for (symbol, _) in (0..=u8::MAX)
                .zip(weights.iter())
                .filter(|(_, w)| u32::from(**w) == weight)
            {
                let entries = self.entries.get_mut(at..at + share).ok_or(BAD_TREE)?;
                entries.fill(Entry {
                    symbol,
                    bits: (max_bits + 1 - weight) as u8,
                });
                at += share;
            }
        }
        self.max_bits = max_bits;
        Ok(())
    }

    /// Decodes a stream that fills `out` exactly.
    pub fn decode(&self, stream: &[u8], out: &mut [u8]) -> Result<(), Fault> {
        let entries: &[Entry; MAX_ENTRIES] = self.entries.first_chunk().ok_or(BAD_TREE)?;
        let mut bits = ReverseBits::new(stream)?;
        for part in out.chunks_mut(PER_WINDOW) {
            let mut window = bits.window();
            for byte in part {
                let entry = entries[window.peek(self.max_bits) % MAX_ENTRIES];
                *byte = entry.symbol;
                window.drop(entry.bits.into());
            }
            bits.advance(window);
        }
        if bits.is_finished() {
            Ok(())
        } else {
            Err(Fault("zstd literals of the wrong length"))
        }
    }
}
