//! The literals section of a block. Section 3.1.1.3.1.

use super::MAX_BLOCK_LEN;
use super::huffman::Huffman;
use crate::bytes::{slice_at, u16_at};
use crate::unpack::{ENDS_EARLY, Fault};
use alloc::vec;
use alloc::vec::Vec;

const RAW: u8 = 0;
const RLE: u8 = 1;
const COMPRESSED: u8 = 2;

const BAD_LITERALS: Fault = Fault("invalid zstd literals");
/// Three 16-bit lengths in front of four streams.
const JUMP_TABLE_LEN: usize = 6;

/// Literals of the current block, and the tree that the next block may use again.
pub(super) struct Literals {
    huffman: Huffman,
    buffer: Vec<u8>,
    len: usize,
}

/// The section's header.
struct Header {
    kind: u8,
    /// Bytes of the header.
    len: usize,
    unpacked_len: usize,
    packed_len: usize,
    four_streams: bool,
}

impl Header {
    fn read(block: &[u8]) -> Result<Self, Fault> {
        let first = *block.first().ok_or(ENDS_EARLY)?;
        let (kind, size_format) = (first & 3, first >> 2 & 3);
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(block.iter().take(5)) {
            *to = *from;
        }
        let word = u64::from_le_bytes(bytes);
        let field = |shift: u32, width: u32| (word >> shift & ((1 << width) - 1)) as usize;
        let header = if kind == RAW || kind == RLE {
            let (len, unpacked_len) = match size_format {
                0 | 2 => (1, field(3, 5)),
                1 => (2, field(4, 12)),
                _ => (3, field(4, 20)),
            };
            Self {
                kind,
                len,
                unpacked_len,
                packed_len: if kind == RLE { 1 } else { unpacked_len },
                four_streams: false,
            }
        } else {
            let (len, width) = match size_format {
                0 | 1 => (3, 10),
                2 => (4, 14),
                _ => (5, 18),
            };
            let (unpacked_len, packed_len) = (field(4, width), field(4 + width, width));
            Self {
                kind,
                len,
                unpacked_len,
                packed_len,
                four_streams: size_format != 0,
            }
        };
        if block.len() < header.len {
            return Err(ENDS_EARLY);
        }
        if header.unpacked_len > MAX_BLOCK_LEN {
            return Err(BAD_LITERALS);
        }
        Ok(header)
    }
}

impl Literals {
    pub fn new() -> Self {
        Self {
            huffman: Huffman::new(),
            buffer: vec![0; MAX_BLOCK_LEN],
            len: 0,
        }
    }

    /// The literals that were read last.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Reads the section at the start of `block`; returns the bytes that it takes.
    pub fn read(&mut self, block: &[u8]) -> Result<usize, Fault> {
        let header = Header::read(block)?;
        let packed =
            slice_at(block, header.len as u64, header.packed_len as u64).ok_or(ENDS_EARLY)?;
        let out = self
            .buffer
            .get_mut(..header.unpacked_len)
            .ok_or(BAD_LITERALS)?;
        self.len = header.unpacked_len;
        match header.kind {
            RAW => out.copy_from_slice(packed),
            RLE => out.fill(*packed.first().ok_or(ENDS_EARLY)?),
            kind => {
                let tree_len = if kind == COMPRESSED {
                    self.huffman.read(packed)?
                } else {
                    0
                };
                if !self.huffman.is_ready() {
                    return Err(Fault("zstd block that repeats a tree before the first"));
                }
                let streams = packed.get(tree_len..).ok_or(ENDS_EARLY)?;
                if header.four_streams {
                    decode_four(&self.huffman, streams, out)?;
                } else {
                    self.huffman.decode(streams, out)?;
                }
            }
        }
        Ok(header.len + header.packed_len)
    }
}

/// Decodes four streams, each but the last giving a quarter of `out`, rounded up.
fn decode_four(huffman: &Huffman, bytes: &[u8], out: &mut [u8]) -> Result<(), Fault> {
    let mut rest = bytes.get(JUMP_TABLE_LEN..).ok_or(ENDS_EARLY)?;
    let quarter = out.len().div_ceil(4);
    let mut out = out;
    for n in 0..3 {
        let len = usize::from(u16_at(bytes, 2 * n).ok_or(ENDS_EARLY)?);
        let (stream, behind) = rest.split_at_checked(len).ok_or(ENDS_EARLY)?;
        let (part, more) = out.split_at_mut_checked(quarter).ok_or(BAD_LITERALS)?;
        huffman.decode(stream, part)?;
        (rest, out) = (behind, more);
    }
    huffman.decode(rest, out)
}
