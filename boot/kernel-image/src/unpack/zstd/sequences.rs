//! The sequences section of a block: literals and matches in turn. Sections 3.1.1.3.2 and 3.1.1.4.

use super::bits::ReverseBits;
use super::fse::Table;
use crate::bytes::u16_at;
use crate::unpack::copy::{BAD_DISTANCE, append, copy_match};
use crate::unpack::{ENDS_EARLY, Fault};

const BAD_SEQUENCES: Fault = Fault("invalid zstd sequences");

/// Base value and number of extra bits of each code.
type Codes = [(u32, u8); 64];

/// Table 15 of the RFC.
static LITERAL_LENGTH_CODES: Codes = codes(
    16,
    0,
    &[
        (16, 1),
        (18, 1),
        (20, 1),
        (22, 1),
        (24, 2),
        (28, 2),
        (32, 3),
        (40, 3),
        (48, 4),
        (64, 6),
        (128, 7),
        (256, 8),
        (512, 9),
        (1024, 10),
        (2048, 11),
        (4096, 12),
        (8192, 13),
        (16384, 14),
        (32768, 15),
        (65536, 16),
    ],
);
/// Table 16 of the RFC.
static MATCH_LENGTH_CODES: Codes = codes(
    32,
    3,
    &[
        (35, 1),
        (37, 1),
        (39, 1),
        (41, 1),
        (43, 2),
        (47, 2),
        (51, 3),
        (59, 3),
        (67, 4),
        (83, 4),
        (99, 5),
        (131, 7),
        (259, 8),
        (515, 9),
        (1027, 10),
        (2051, 11),
        (4099, 12),
        (8195, 13),
        (16387, 14),
        (32771, 15),
        (65539, 16),
    ],
);

/// Codes below `plain` stand for themselves plus `offset`; the others are listed.
const fn codes(plain: usize, offset: u32, listed: &[(u32, u8)]) -> Codes {
    let mut codes = [(0, 0); 64];
    let mut code = 0;
    while code < plain {
        codes[code] = (code as u32 + offset, 0);
        code += 1;
    }
    let mut n = 0;
    while n < listed.len() {
        codes[plain + n] = listed[n];
        n += 1;
    }
    codes
}

/// One of the three alphabets.
struct Alphabet {
    max_accuracy: u32,
    nr_codes: usize,
    default_accuracy: u32,
    /// Sections 3.1.1.3.2.2.1 to 3.
    default_counts: &'static [i16],
}

static LITERAL_LENGTHS: Alphabet = Alphabet {
    max_accuracy: 9,
    nr_codes: 36,
    default_accuracy: 6,
    default_counts: &[
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1,
        1, 1, -1, -1, -1, -1,
    ],
};
static MATCH_LENGTHS: Alphabet = Alphabet {
    max_accuracy: 9,
    nr_codes: 53,
    default_accuracy: 6,
    default_counts: &[
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
};
static OFFSETS: Alphabet = Alphabet {
    max_accuracy: 8,
    nr_codes: 32,
    default_accuracy: 5,
    default_counts: &[
        1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
    ],
};

/// A table with what the next block needs to know of it.
struct Coder {
    alphabet: &'static Alphabet,
    table: Table,
    is_ready: bool,
}

impl Coder {
    fn new(alphabet: &'static Alphabet) -> Self {
        Self {
            alphabet,
            table: Table::new(),
            is_ready: false,
        }
    }

    /// Prepares the table as `mode` says; returns the bytes that its description takes.
    fn prepare(&mut self, mode: u8, bytes: &[u8]) -> Result<usize, Fault> {
        let alphabet = self.alphabet;
        let len = match mode & 3 {
            0 => {
                self.table
                    .fill(alphabet.default_accuracy, alphabet.default_counts)?;
                0
            }
            1 => {
                let symbol = *bytes.first().ok_or(ENDS_EARLY)?;
                if usize::from(symbol) >= alphabet.nr_codes {
                    return Err(BAD_SEQUENCES);
                }
                self.table.fill_single(symbol);
                1
            }
            2 => self
                .table
                .read(bytes, alphabet.max_accuracy, alphabet.nr_codes)?,
            _ if self.is_ready => 0,
            _ => return Err(Fault("zstd block that repeats a table before the first")),
        };
        self.is_ready = true;
        Ok(len)
    }
}

/// What one block leaves to the next.
pub(super) struct Sequences {
    literal_lengths: Coder,
    offsets: Coder,
    match_lengths: Coder,
    recent: RecentOffsets,
}

/// The last three offsets, the latest first.
struct RecentOffsets([usize; 3]);

impl Sequences {
    pub fn new() -> Self {
        Self {
            literal_lengths: Coder::new(&LITERAL_LENGTHS),
            offsets: Coder::new(&OFFSETS),
            match_lengths: Coder::new(&MATCH_LENGTHS),
            recent: RecentOffsets([1, 4, 8]),
        }
    }

    /// Reads the section, which is `bytes`, and appends what it says to the first `pos` bytes of `out`; returns the new length.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        literals: &[u8],
        out: &mut [u8],
        pos: usize,
    ) -> Result<usize, Fault> {
        let (count, count_len) = read_count(bytes)?;
        if count == 0 {
            return append(literals, literals.len(), out, pos);
        }
        let modes = *bytes.get(count_len).ok_or(ENDS_EARLY)?;
        if modes & 3 != 0 {
            return Err(BAD_SEQUENCES);
        }
        let mut rest = bytes.get(count_len + 1..).ok_or(ENDS_EARLY)?;
        for (coder, mode) in [
            (&mut self.literal_lengths, modes >> 6),
            (&mut self.offsets, modes >> 4),
            (&mut self.match_lengths, modes >> 2),
        ] {
            let len = coder.prepare(mode, rest)?;
            rest = rest.get(len..).ok_or(ENDS_EARLY)?;
        }
        self.execute(count, ReverseBits::new(rest)?, literals, out, pos)
    }

    fn execute(
        &mut self,
        count: usize,
        mut bits: ReverseBits<'_>,
        mut literals: &[u8],
        out: &mut [u8],
        mut pos: usize,
    ) -> Result<usize, Fault> {
        let mut literal_lengths = self.literal_lengths.table.start(&mut bits)?;
        let mut offsets = self.offsets.table.start(&mut bits)?;
        let mut match_lengths = self.match_lengths.table.start(&mut bits)?;
        for n in 0..count {
            // At most 31 and 16 bits, then 16, 9, 9 and 8: two windows.
            let mut window = bits.window();
            let offset_code = offsets.symbol() as u32 & 31;
            let offset_value = (1 << offset_code) + window.take(offset_code);
            let (base, extra) = MATCH_LENGTH_CODES[match_lengths.symbol() & 63];
            let match_len = base as usize + window.take(extra.into());
            bits.advance(window);
            let mut window = bits.window();
            let (base, extra) = LITERAL_LENGTH_CODES[literal_lengths.symbol() & 63];
            let literal_len = base as usize + window.take(extra.into());
            if n + 1 < count {
                literal_lengths.step(&mut window);
                match_lengths.step(&mut window);
                offsets.step(&mut window);
            }
            bits.advance(window);
            if bits.overran() {
                return Err(ENDS_EARLY);
            }

            let later = literals.get(literal_len..).ok_or(BAD_SEQUENCES)?;
            pos = append(literals, literal_len, out, pos)?;
            literals = later;
            let offset = self.recent.resolve(offset_value, literal_len)?;
            copy_match(out, pos, offset, match_len)?;
            pos += match_len;
        }
        if !bits.is_finished() {
            return Err(Fault("zstd sequences of the wrong length"));
        }
        append(literals, literals.len(), out, pos)
    }
}

impl RecentOffsets {
    /// What an offset value stands for; the values 1 to 3 repeat earlier offsets. Section 3.1.1.5.
    #[inline(always)]
    fn resolve(&mut self, value: usize, literal_len: usize) -> Result<usize, Fault> {
        let [first, second, third] = self.0;
        // Without literals in between, repeating the latest offset would only prolong the last match: the values mean the next ones.
        let (offset, recent) = match value + usize::from(value <= 3 && literal_len == 0) {
            1 => (first, [first, second, third]),
            2 => (second, [second, first, third]),
            3 => (third, [third, first, second]),
            _ => {
                let offset = if value == 3 {
                    first.wrapping_sub(1)
                } else {
                    value - 3
                };
                (offset, [offset, first, second])
            }
        };
        if offset == 0 {
            return Err(BAD_DISTANCE);
        }
        self.0 = recent;
        Ok(offset)
    }
}

/// Reads the number of sequences, and the bytes that it takes.
fn read_count(bytes: &[u8]) -> Result<(usize, usize), Fault> {
    let first = usize::from(*bytes.first().ok_or(ENDS_EARLY)?);
    match first {
        0..128 => Ok((first, 1)),
        128..255 => Ok((
            ((first - 128) << 8) + usize::from(*bytes.get(1).ok_or(ENDS_EARLY)?),
            2,
        )),
        _ => Ok((usize::from(u16_at(bytes, 1).ok_or(ENDS_EARLY)?) + 0x7f00, 3)),
    }
}
