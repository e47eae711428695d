//! Copying of literals, and of matches within the output, which serves as the dictionary. Most are a few bytes long, too short for a call
//! of the platform's copy routine to pay.

use super::{Fault, TOO_LONG};

pub(super) const BAD_DISTANCE: Fault = Fault("a match reaches before the start of the data");

/// Bytes that are moved at a time.
const STEP: usize = 8;
/// From this length on, a call to the platform's copy routine pays.
const LONG: usize = 64;

/// Appends to the first `pos` bytes of `out` the `len` bytes that start `distance` before `pos`; where `distance` is less than `len`, they
/// repeat.
#[inline(always)]
pub(super) fn copy_match(
    out: &mut [u8],
    pos: usize,
    distance: usize,
    len: usize,
) -> Result<(), Fault> {
    let from = pos.checked_sub(distance).ok_or(BAD_DISTANCE)?;
    if distance >= STEP && len < LONG && pos + len + STEP <= out.len() {
        // Whole steps; what the last one writes too much is overwritten by what follows.
        let mut done = 0;
        while done < len {
            let Some(step) = out
                .get(from + done..)
                .and_then(|rest| rest.first_chunk::<STEP>())
                .copied()
            else {
                break;
            };
            let Some(to) = out
                .get_mut(pos + done..)
                .and_then(|rest| rest.first_chunk_mut::<STEP>())
            else {
                break;
            };
            *to = step;
            done += STEP;
        }
        return Ok(());
    }
    copy_any(out, from, pos, len)
}

/// As [`copy_match`], for the matches that are rare.
#[inline(never)]
fn copy_any(out: &mut [u8], from: usize, pos: usize, len: usize) -> Result<(), Fault> {
    let end = pos.checked_add(len).ok_or(TOO_LONG)?;
    let distance = pos - from;
    let bytes = out.get_mut(from..end).ok_or(TOO_LONG)?;
    if len < LONG {
        for at in distance..bytes.len() {
            bytes[at] = bytes[at - distance];
        }
        return Ok(());
    }
    // Each round doubles what there is to copy from.
    let mut done = 0;
    while done < len {
        let part = (len - done).min(distance + done);
        bytes.copy_within(..part, distance + done);
        done += part;
    }
    Ok(())
}

/// Appends to the first `pos` bytes of `out` the first `len` bytes of `from`; returns the new length.
#[inline(always)]
pub(super) fn append(from: &[u8], len: usize, out: &mut [u8], pos: usize) -> Result<usize, Fault> {
    let end = pos + len;
    if len < LONG && len + STEP <= from.len() && end + STEP <= out.len() {
        let mut done = 0;
        while done < len {
            let Some(step) = from.get(done..).and_then(|rest| rest.first_chunk::<STEP>()) else {
                break;
            };
            let Some(to) = out
                .get_mut(pos + done..)
                .and_then(|rest| rest.first_chunk_mut::<STEP>())
            else {
                break;
            };
            *to = *step;
            done += STEP;
        }
        return Ok(end);
    }
    let from = from.get(..len).ok_or(TOO_LONG)?;
    out.get_mut(pos..end).ok_or(TOO_LONG)?.copy_from_slice(from);
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn equals_the_byte_by_byte_copy() {
        for distance in 1..80 {
            for len in 1..200 {
                for room in [0, 1, 7, 8, 100] {
                    let pos = 80;
                    let mut out: Vec<u8> = (0..80).chain(vec![0xee; len + room]).collect();
                    let mut expected = out.clone();
                    for at in pos..pos + len {
                        expected[at] = expected[at - distance];
                    }
                    assert!(copy_match(&mut out, pos, distance, len).is_ok());
                    assert_eq!(
                        out[..pos + len],
                        expected[..pos + len],
                        "{distance} {len} {room}"
                    );
                }
            }
        }
        let mut out = vec![0; 10];
        assert!(copy_match(&mut out, 4, 5, 1).is_err());
        assert!(copy_match(&mut out, 4, 1, 7).is_err());
        assert!(copy_match(&mut out, 4, 1, 6).is_ok());
    }
    #[test]
    fn literals_are_appended() {
        let from: Vec<u8> = (0..200).collect();
        for len in 0..=200 {
            for room in [0, 1, 7, 8, 100] {
                let mut out = vec![0xee; 5 + len + room];
                assert!(matches!(append(&from, len, &mut out, 5), Ok(end) if end == 5 + len));
                assert_eq!(out[..5], [0xee; 5]);
                assert_eq!(out[5..5 + len], from[..len]);
            }
        }
        assert!(append(&from, 201, &mut vec![0; 300], 0).is_err());
        assert!(append(&from, 10, &mut [0; 19], 10).is_err());
    }
}
