//! The binary range decoder of LZMA. LZMA specification (`lzma-specification.txt` of the LZMA SDK), "Range Decoder".

use super::{ENDS_EARLY, Fault};
use core::cell::Cell;

/// A probability that the next bit is 0, in units of 1/2048.
pub(super) type Prob = u16;

/// Even odds, the start value of every probability.
pub(super) const EVEN: Prob = 1 << 10;

const PROB_BITS: u32 = 11;
/// How fast a probability follows the bits seen.
const MOVE_BITS: u32 = 5;
const TOP: u64 = 1 << 24;
const HEADER_LEN: usize = 5;

/// The decoder's state. Small, and every method inlined, so that it lives in registers during a decoding loop.
pub(super) struct RangeDecoder<'a> {
    // Both are less than 2^32. As 64-bit numbers each gets a register; two halves of a word end up in one, which costs more than the
    // decoding.
    range: u64,
    code: u64,
    input: core::slice::Iter<'a, u8>,
    /// Set once more input has been asked for than there is. Behind a reference, so that it takes no register of a decoding loop.
    overran: &'a Cell<bool>,
}

impl<'a> RangeDecoder<'a> {
    /// Starts on `input`, whose first byte is zero by the format. Behind the input's end come zeroes, and `overran` is set: what is
    /// decoded from then on is meaningless. It is enough to look at the end, since the output is bounded.
    #[inline(always)]
    pub fn new(input: &'a [u8], overran: &'a Cell<bool>) -> Result<Self, Fault> {
        match input.first_chunk() {
            None => Err(ENDS_EARLY),
            Some([0, a, b, c, d]) => Ok(Self {
                range: u32::MAX.into(),
                code: u32::from_be_bytes([*a, *b, *c, *d]).into(),
                input: input.get(HEADER_LEN..).unwrap_or_default().iter(),
                overran,
            }),
            Some(_) => Err(Fault("bad start of a range-coded chunk")),
        }
    }

    /// Whether the input is used up to its last byte and the coder in the state in which an encoder leaves it.
    #[inline(always)]
    pub fn ends_here(mut self) -> bool {
        self.normalize();
        self.input.as_slice().is_empty() && self.code == 0
    }

    #[inline(always)]
    fn normalize(&mut self) {
        if self.range < TOP {
            self.range <<= 8;
            let byte = match self.input.next() {
                Some(byte) => *byte,
                None => {
                    self.overran.set(true);
                    0
                }
            };
            self.code = self.code << 8 | u64::from(byte);
        }
    }

    /// One bit of the given probability.
    #[inline(always)]
    pub fn bit(&mut self, prob: &mut Prob) -> bool {
        self.choose(prob, false, true)
    }

    /// `zero` or `one`, by a bit of the given probability. Where the bit only selects a value, this makes it in the branch that there is
    /// anyway.
    #[inline(always)]
    pub fn choose<T>(&mut self, prob: &mut Prob, zero: T, one: T) -> T {
        self.normalize();
        let p = u64::from(*prob);
        let bound = (self.range >> PROB_BITS) * p;
        if self.code < bound {
            self.range = bound;
            *prob = (p + (((1 << PROB_BITS) - p) >> MOVE_BITS)) as Prob;
            zero
        } else {
            self.range -= bound;
            self.code -= bound;
            *prob = (p - (p >> MOVE_BITS)) as Prob;
            one
        }
    }

    /// `count` bits of even odds, most significant first.
    #[inline(always)]
    pub fn direct_bits(&mut self, count: u32) -> u32 {
        let mut value = 0;
        for _ in 0..count {
            self.normalize();
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            value = value << 1 | u32::from(bit);
        }
        value
    }

    /// A number of log2(`N`) bits, most significant first, each with the probability of its place in the tree.
    #[inline(always)]
    pub fn tree<const N: usize>(&mut self, probs: &mut [Prob; N]) -> u32 {
        const { assert!(N.is_power_of_two()) };
        let mut node = 1;
        for _ in 0..N.ilog2() {
            // The mask changes nothing; it shows the compiler that the index is in range.
            node = self.choose(&mut probs[node & (N - 1)], node << 1, node << 1 | 1);
        }
        (node - N) as u32
    }

    /// A number of `count` bits, least significant first. Tree nodes count from `base` + 1.
    #[inline(always)]
    pub fn reverse_tree<const N: usize>(
        &mut self,
        probs: &mut [Prob; N],
        base: usize,
        count: u32,
    ) -> u32 {
        const { assert!(N.is_power_of_two()) };
        let (mut node, mut value) = (1, 0);
        for place in 0..count {
            let zero = (node << 1, value);
            let one = (node << 1 | 1, value | 1 << place);
            (node, value) = self.choose(&mut probs[(base + node) & (N - 1)], zero, one);
        }
        value
    }
}
