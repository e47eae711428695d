//! Bit streams. Sections 4.1 and 4.1.1.

use crate::unpack::{ENDS_EARLY, Fault};

/// A stream that is read from its last bit backwards. The highest set bit of the last byte marks the end and is not part of it.
#[derive(Clone, Copy)]
pub(super) struct ReverseBits<'a> {
    bytes: &'a [u8],
    /// Bits not yet read.
    left: usize,
    /// More was read than there is; what came of it is meaningless.
    overran: bool,
}

/// Bits from the top of a stream, at least [`Window::BITS`] of them; zeroes follow the end of the stream.
#[derive(Clone, Copy)]
pub(super) struct Window {
    bits: u64,
    used: u32,
}

impl Window {
    /// Bits that a fresh window holds at least.
    pub const BITS: u32 = 57;

    /// The next `count` bits (at most 32), which stay.
    #[inline(always)]
    pub fn peek(&self, count: u32) -> usize {
        // Two steps, since a shift by 64 is none.
        (self.bits >> 1 >> (63 - count)) as usize
    }

    /// Drops `count` bits (at most 32).
    #[inline(always)]
    pub fn drop(&mut self, count: u32) {
        self.bits <<= count;
        self.used += count;
    }

    /// Reads `count` bits (at most 32).
    #[inline(always)]
    pub fn take(&mut self, count: u32) -> usize {
        let bits = self.peek(count);
        self.drop(count);
        bits
    }
}

impl<'a> ReverseBits<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        let last = *bytes.last().ok_or(ENDS_EARLY)?;
        if last == 0 {
            return Err(Fault("zstd bit stream without end mark"));
        }
        Ok(Self {
            bytes,
            left: bytes.len() * 8 - 1 - last.leading_zeros() as usize,
            overran: false,
        })
    }

    /// The next bits.
    #[inline(always)]
    pub fn window(&self) -> Window {
        let end = self.left.div_ceil(8);
        let surplus = (end * 8 - self.left) as u32;
        let word = match end
            .checked_sub(8)
            .and_then(|start| self.bytes.get(start..)?.first_chunk::<8>())
        {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => self.first_bytes(end),
        };
        Window {
            bits: word << surplus,
            used: 0,
        }
    }

    /// The first `end` bytes (fewer than eight), at the top of a word.
    #[cold]
    fn first_bytes(&self, end: usize) -> u64 {
        self.bytes
            .iter()
            .take(end)
            .fold(0, |word, byte| word >> 8 | u64::from(*byte) << 56)
    }

    /// Takes what was read from a window off the stream.
    #[inline(always)]
    pub fn advance(&mut self, window: Window) {
        match self.left.checked_sub(window.used as usize) {
            Some(left) => self.left = left,
            None => (self.left, self.overran) = (0, true),
        }
    }

    /// Reads `count` bits (at most 32).
    pub fn take(&mut self, count: u32) -> usize {
        let mut window = self.window();
        let bits = window.take(count);
        self.advance(window);
        bits
    }

    /// Whether more was read than there is.
    pub fn overran(&self) -> bool {
        self.overran
    }

    /// Whether exactly the whole stream has been read.
    pub fn is_finished(&self) -> bool {
        self.left == 0 && !self.overran
    }
}

/// A stream that is read from its first bit on, the least significant bit of each byte first.
pub(super) struct ForwardBits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ForwardBits<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads `count` bits (at most 16).
    pub fn take(&mut self, count: u32) -> Result<u32, Fault> {
        let end = self.at + count as usize;
        if end > self.bytes.len() * 8 {
            return Err(ENDS_EARLY);
        }
        let word = self
            .bytes
            .iter()
            .skip(self.at / 8)
            .take(3)
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        let bits = word >> (self.at % 8) & ((1 << count) - 1);
        self.at = end;
        Ok(bits)
    }

    /// Puts one bit back.
    pub fn back(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    /// Bytes of which at least one bit was read.
    pub fn bytes_read(&self) -> usize {
        self.at.div_ceil(8)
    }
}
