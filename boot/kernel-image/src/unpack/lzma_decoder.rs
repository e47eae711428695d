//! The LZMA decoder. LZMA specification (`lzma-specification.txt` of the LZMA SDK).
//!
//! The output slice is the dictionary: nothing is copied twice, and the only other memory is the 28 KiB of probabilities.

use super::copy::{BAD_DISTANCE, copy_match};
use super::range::{EVEN, Prob, RangeDecoder};
use super::{ENDS_EARLY, Fault};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

/// Position-dependent contexts: at most 2^4.
const POS_STATES: usize = 16;
/// States of the machine that remembers the kinds of the last symbols: twelve, rounded up so that a mask bounds the index.
const STATES: usize = 16;
/// Literal contexts for `lc + lp <= 4`, which both formats' writers keep to.
const LITERAL_CONTEXTS: usize = 16;
const LITERAL_PROBS: usize = 0x300;
/// States below this follow a literal.
const FIRST_MATCH_STATE: usize = 7;
/// The state after a literal, by the state before it.
const AFTER_LITERAL: [u8; STATES] = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5, 0, 0, 0, 0];
/// Shortest match in bytes.
const MIN_MATCH: usize = 2;
/// Distance slots below this are distances.
const FIRST_CODED_SLOT: u32 = 4;
/// From this slot on, the middle bits have even odds.
const FIRST_DIRECT_SLOT: u32 = 14;
const ALIGN_BITS: u32 = 4;

/// The three numbers that tune the model to the data.
#[derive(Clone, Copy)]
pub(super) struct Properties {
    literal_context_bits: u32,
    literal_pos_mask: usize,
    pos_mask: usize,
}

impl Properties {
    /// Reads the byte `(pb * 5 + lp) * 9 + lc`.
    pub fn read(byte: u8) -> Result<Self, Fault> {
        let (lc, rest) = (u32::from(byte % 9), byte / 9);
        let (lp, pb) = (u32::from(rest % 5), u32::from(rest / 5));
        if pb > 4 || lc + lp > 4 {
            return Err(Fault("unsupported LZMA properties"));
        }
        Ok(Self {
            literal_context_bits: lc,
            literal_pos_mask: (1 << lp) - 1,
            pos_mask: (1 << pb) - 1,
        })
    }
}

/// Probabilities for the length of a match.
struct LengthCoder {
    above_low: Prob,
    above_mid: Prob,
    low: [[Prob; 8]; POS_STATES],
    mid: [[Prob; 8]; POS_STATES],
    high: [Prob; 256],
}

impl LengthCoder {
    const NEW: Self = Self {
        above_low: EVEN,
        above_mid: EVEN,
        low: [[EVEN; 8]; POS_STATES],
        mid: [[EVEN; 8]; POS_STATES],
        high: [EVEN; 256],
    };

    #[inline(always)]
    fn decode(&mut self, range: &mut RangeDecoder<'_>, pos_state: usize) -> usize {
        let pos_state = pos_state % POS_STATES;
        let len = if !range.bit(&mut self.above_low) {
            range.tree(&mut self.low[pos_state])
        } else if !range.bit(&mut self.above_mid) {
            8 + range.tree(&mut self.mid[pos_state])
        } else {
            16 + range.tree(&mut self.high)
        };
        MIN_MATCH + len as usize
    }
}

/// All probabilities.
struct Model {
    is_match: [[Prob; POS_STATES]; STATES],
    is_rep: [Prob; STATES],
    is_not_rep0: [Prob; STATES],
    is_long_rep0: [[Prob; POS_STATES]; STATES],
    is_not_rep1: [Prob; STATES],
    is_not_rep2: [Prob; STATES],
    match_len: LengthCoder,
    rep_len: LengthCoder,
    slot: [[Prob; 64]; 4],
    /// Low bits of the distances of slots 4 to 13, one tree after the other.
    special: [Prob; 128],
    align: [Prob; 1 << ALIGN_BITS],
}

impl Model {
    const NEW: Self = Self {
        is_match: [[EVEN; POS_STATES]; STATES],
        is_rep: [EVEN; STATES],
        is_not_rep0: [EVEN; STATES],
        is_long_rep0: [[EVEN; POS_STATES]; STATES],
        is_not_rep1: [EVEN; STATES],
        is_not_rep2: [EVEN; STATES],
        match_len: LengthCoder::NEW,
        rep_len: LengthCoder::NEW,
        slot: [[EVEN; 64]; 4],
        special: [EVEN; 128],
        align: [EVEN; 1 << ALIGN_BITS],
    };

    /// A distance minus one.
    #[inline(always)]
    fn distance(&mut self, range: &mut RangeDecoder<'_>, len: usize) -> u32 {
        let slot = range.tree(&mut self.slot[(len - MIN_MATCH).min(3)]);
        if slot < FIRST_CODED_SLOT {
            return slot;
        }
        let low_bits = (slot >> 1) - 1;
        let high = (2 | slot & 1) << low_bits;
        if slot < FIRST_DIRECT_SLOT {
            high + range.reverse_tree(&mut self.special, (high - slot) as usize, low_bits)
        } else {
            let middle = range.direct_bits(low_bits - ALIGN_BITS) << ALIGN_BITS;
            high.wrapping_add(middle).wrapping_add(range.reverse_tree(
                &mut self.align,
                0,
                ALIGN_BITS,
            ))
        }
    }
}

/// The probabilities of literals in one context.
type LiteralProbs = [Prob; LITERAL_PROBS];

/// A literal after a literal: eight bits in a tree.
#[inline(always)]
fn literal(range: &mut RangeDecoder<'_>, probs: &mut LiteralProbs) -> u8 {
    let mut symbol = 1;
    for _ in 0..8 {
        symbol = range.choose(&mut probs[symbol & 0xff], symbol << 1, symbol << 1 | 1);
    }
    symbol as u8
}

/// A literal after a match: as long as its bits equal those of the byte that the match would have continued with, they have
/// probabilities of their own.
#[inline(always)]
fn matched_literal(range: &mut RangeDecoder<'_>, probs: &mut LiteralProbs, expected: u8) -> u8 {
    let mut symbol = 1;
    let mut expected = usize::from(expected);
    let mut matching = 0x100;
    for _ in 0..8 {
        expected <<= 1;
        let expected_bit = expected & matching;
        // At most 0x100 + 0x100 + 0xff.
        let Some(prob) = probs.get_mut(matching + expected_bit + symbol) else {
            break;
        };
        let zero = (symbol << 1, matching & !expected_bit);
        let one = (symbol << 1 | 1, matching & expected_bit);
        (symbol, matching) = range.choose(prob, zero, one);
    }
    symbol as u8
}

/// Why [`Lzma::decode`] stopped without an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The output is full.
    Full,
    /// The stream's end marker came, with this many bytes in the output.
    Marker(usize),
}

/// A decoder between two chunks.
pub(super) struct Lzma {
    model: Box<Model>,
    /// By context. On the heap by itself, so that no stack ever holds these 24 KiB.
    literal: Vec<LiteralProbs>,
    properties: Properties,
    state: usize,
    /// The last four distances minus one, the latest first.
    reps: [u32; 4],
}

impl Lzma {
    /// A decoder in its start state.
    pub fn new(properties: Properties) -> Self {
        Self {
            model: Box::new(Model::NEW),
            literal: vec![[EVEN; LITERAL_PROBS]; LITERAL_CONTEXTS],
            properties,
            state: 0,
            reps: [0; 4],
        }
    }

    /// Back to the start state.
    pub fn reset(&mut self, properties: Properties) {
        *self.model = Model::NEW;
        self.literal.as_flattened_mut().fill(EVEN);
        self.properties = properties;
        self.state = 0;
        self.reps = [0; 4];
    }

    /// The properties in use.
    pub fn properties(&self) -> Properties {
        self.properties
    }

    /// Decodes `input` until `out` is full; the first `start` bytes of it are the dictionary. Tells too whether the input was used up
    /// exactly.
    pub fn decode(
        &mut self,
        input: &[u8],
        out: &mut [u8],
        start: usize,
    ) -> Result<(Stop, bool), Fault> {
        let overran = Cell::new(false);
        let decoded = self.decode_symbols(input, &overran, out, start);
        if overran.get() {
            Err(ENDS_EARLY)
        } else {
            decoded
        }
    }

    #[inline(never)]
    fn decode_symbols(
        &mut self,
        input: &[u8],
        overran: &Cell<bool>,
        out: &mut [u8],
        start: usize,
    ) -> Result<(Stop, bool), Fault> {
        // Made here, so that it lives in registers.
        let mut coder = RangeDecoder::new(input, overran)?;
        let Properties {
            literal_context_bits,
            literal_pos_mask,
            pos_mask,
        } = self.properties;
        let model = &mut *self.model;
        let literals: &mut [LiteralProbs; LITERAL_CONTEXTS] = self
            .literal
            .first_chunk_mut()
            .ok_or(Fault("no literal contexts"))?;
        let mut state = self.state;
        let [mut rep0, mut rep1, mut rep2, mut rep3] = self.reps;
        let mut pos = start;
        let stop = loop {
            if pos >= out.len() {
                break Stop::Full;
            }
            state %= STATES;
            let pos_state = pos & pos_mask & (POS_STATES - 1);
            if !coder.bit(&mut model.is_match[state][pos_state]) {
                let previous = if pos == 0 {
                    0
                } else {
                    usize::from(out[pos - 1])
                };
                let context = ((pos & literal_pos_mask) << literal_context_bits)
                    + (previous >> (8 - literal_context_bits));
                let probs = &mut literals[context % LITERAL_CONTEXTS];
                out[pos] = if state < FIRST_MATCH_STATE {
                    literal(&mut coder, probs)
                } else {
                    let source = pos.checked_sub(rep0 as usize + 1);
                    let expected = *source.and_then(|at| out.get(at)).ok_or(BAD_DISTANCE)?;
                    matched_literal(&mut coder, probs, expected)
                };
                pos += 1;
                state = usize::from(AFTER_LITERAL[state]);
                continue;
            }

            let after_literal = state < FIRST_MATCH_STATE;
            let len = if !coder.bit(&mut model.is_rep[state]) {
                (rep3, rep2, rep1) = (rep2, rep1, rep0);
                let len = model.match_len.decode(&mut coder, pos_state);
                rep0 = model.distance(&mut coder, len);
                state = if after_literal { 7 } else { 10 };
                if rep0 == u32::MAX {
                    break Stop::Marker(pos);
                }
                len
            } else {
                let short = if !coder.bit(&mut model.is_not_rep0[state]) {
                    !coder.bit(&mut model.is_long_rep0[state][pos_state])
                } else if !coder.bit(&mut model.is_not_rep1[state]) {
                    (rep1, rep0) = (rep0, rep1);
                    false
                } else if !coder.bit(&mut model.is_not_rep2[state]) {
                    (rep2, rep1, rep0) = (rep1, rep0, rep2);
                    false
                } else {
                    (rep3, rep2, rep1, rep0) = (rep2, rep1, rep0, rep3);
                    false
                };
                if short {
                    state = if after_literal { 9 } else { 11 };
                    1
                } else {
                    state = if after_literal { 8 } else { 11 };
                    model.rep_len.decode(&mut coder, pos_state)
                }
            };
            copy_match(out, pos, rep0 as usize + 1, len)?;
            pos += len;
        };
        self.state = state;
        self.reps = [rep0, rep1, rep2, rep3];
        Ok((stop, coder.ends_here()))
    }
}
