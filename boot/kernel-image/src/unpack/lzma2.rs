//! LZMA2: chunks of LZMA or of plain bytes. The format is that of liblzma's and the LZMA SDK's decoders; "The .xz File Format", section
//! 5.3.1, points there.

use super::lzma_decoder::{Lzma, Properties, Stop};
use super::{ENDS_EARLY, Fault, TOO_LONG};

const END: u8 = 0;
const PLAIN_RESET_DICTIONARY: u8 = 1;
const PLAIN: u8 = 2;
/// Set in the control byte of a chunk of LZMA. Bits 5 and 6 say what starts over, the rest belongs to the unpacked length.
const LZMA: u8 = 0x80;

const BAD_CHUNK: Fault = Fault("invalid LZMA2 chunk");

/// What starts over with a chunk of LZMA, by bits 5 and 6 of its control byte.
mod reset {
    pub(super) const STATE: u8 = 1;
    pub(super) const STATE_AND_PROPERTIES: u8 = 2;
    pub(super) const EVERYTHING: u8 = 3;
}

/// Takes bytes off the front.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let taken = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..len))
            .ok_or(ENDS_EARLY)?;
        self.at += len;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.take(1)?.first().copied().ok_or(ENDS_EARLY)
    }

    /// A big-endian length, which the format stores less one.
    fn len(&mut self) -> Result<usize, Fault> {
        Ok((usize::from(self.byte()?) << 8 | usize::from(self.byte()?)) + 1)
    }
}

/// Unpacks up to and including the end mark; returns the bytes read and the bytes written.
pub(super) fn unpack(input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Fault> {
    let mut input = Input {
        bytes: input,
        at: 0,
    };
    let mut decoder: Option<Lzma> = None;
    let mut needs_state = true;
    // Distances and position contexts count from the last reset of the dictionary.
    let mut dictionary_at = None;
    let mut written = 0;
    loop {
        let control = input.byte()?;
        match control {
            END => return Ok((input.at, written)),
            PLAIN_RESET_DICTIONARY | PLAIN => {
                if control == PLAIN_RESET_DICTIONARY {
                    dictionary_at = Some(written);
                    needs_state = true;
                }
                dictionary_at.ok_or(BAD_CHUNK)?;
                let bytes = input.len()?;
                let bytes = input.take(bytes)?;
                let end = written + bytes.len();
                out.get_mut(written..end)
                    .ok_or(TOO_LONG)?
                    .copy_from_slice(bytes);
                written = end;
            }
            LZMA.. => {
                let unpacked_len = (usize::from(control & 0x1f) << 16) + input.len()?;
                let packed_len = input.len()?;
                let reset = control >> 5 & 3;
                if reset == reset::EVERYTHING {
                    dictionary_at = Some(written);
                }
                let start = dictionary_at.ok_or(BAD_CHUNK)?;
                let decoder = match (reset, &mut decoder) {
                    (reset::STATE_AND_PROPERTIES | reset::EVERYTHING, decoder) => {
                        restart(decoder, Properties::read(input.byte()?)?)
                    }
                    (reset::STATE, Some(decoder)) => {
                        decoder.reset(decoder.properties());
                        decoder
                    }
                    (_, Some(decoder)) if !needs_state => decoder,
                    _ => return Err(BAD_CHUNK),
                };
                needs_state = false;
                let packed = input.take(packed_len)?;
                let end = written + unpacked_len;
                let chunk = out.get_mut(start..end).ok_or(TOO_LONG)?;
                if decoder.decode(packed, chunk, written - start)? != (Stop::Full, true) {
                    return Err(BAD_CHUNK);
                }
                written = end;
            }
            _ => return Err(BAD_CHUNK),
        }
    }
}

fn restart(decoder: &mut Option<Lzma>, properties: Properties) -> &mut Lzma {
    match decoder {
        Some(decoder) => {
            decoder.reset(properties);
            decoder
        }
        None => decoder.insert(Lzma::new(properties)),
    }
}
