//! The binary range decoder of LZMA. LZMA specification (`lzma-specification.txt` of the LZMA SDK), "Range Decoder".

use super::{ENDS_EARLY, Fault};

/// A probability that the next bit is 0, in units of 1/2048.
pub(super) type Prob = u16;

/// Even odds, the start value of every probability.
pub(super) const EVEN: Prob = 1 << 10;

const PROB_BITS: u32 = 11;
/// How fast a probability follows the bits seen.
const MOVE_BITS: u32 = 5;
const TOP: u32 = 1 << 24;
const HEADER_LEN: usize = 5;

/// The decoder's state. Small, and every method inlined, so that it lives in registers during a decoding loop.
#[derive(Clone, Copy)]
pub(super) struct RangeDecoder<'a> {
    range: u32,
    code: u32,
    input: &'a [u8],
    /// Next byte to read; beyond the end once the input has been overrun.
    at: usize,
}

impl<'a> RangeDecoder<'a> {
    /// Starts on `input`, whose first byte is zero by the format.
    pub fn new(input: &'a [u8]) -> Result<Self, Fault> {
        match input.first_chunk() {
            None => Err(ENDS_EARLY),
            Some([0, a, b, c, d]) => Ok(Self {
                range: u32::MAX,
                code: u32::from_be_bytes([*a, *b, *c, *d]),
                input,
                at: HEADER_LEN,
            }),
            Some(_) => Err(Fault("bad start of a range-coded chunk")),
        }
    }

    /// Whether more input has been asked for than there is. What was decoded since is meaningless then; it is cheaper to ask this once
    /// a symbol than to check every byte.
    #[inline(always)]
    pub fn overran(&self) -> bool {
        self.at > self.input.len()
    }

    /// Whether the input is used up to its last byte and the coder in the state in which an encoder leaves it.
    pub fn is_finished(&mut self) -> bool {
        self.normalize();
        self.at == self.input.len() && self.code == 0
    }

    #[inline(always)]
    fn normalize(&mut self) {
        if self.range < TOP {
            self.range <<= 8;
            let byte = self.input.get(self.at).copied().unwrap_or(0);
            self.code = self.code << 8 | u32::from(byte);
            self.at += 1;
        }
    }

    /// One bit of the given probability.
    #[inline(always)]
    pub fn bit(&mut self, prob: &mut Prob) -> bool {
        self.normalize();
        let p = *prob;
        let bound = (self.range >> PROB_BITS) * u32::from(p);
        if self.code < bound {
            self.range = bound;
            *prob = p + (((1 << PROB_BITS) - p) >> MOVE_BITS);
            false
        } else {
            self.range -= bound;
            self.code -= bound;
            *prob = p - (p >> MOVE_BITS);
            true
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
            node = node << 1 | usize::from(self.bit(&mut probs[node & (N - 1)]));
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
            let bit = self.bit(&mut probs[(base + node) & (N - 1)]);
            node = node << 1 | usize::from(bit);
            value |= u32::from(bit) << place;
        }
        value
    }
}
