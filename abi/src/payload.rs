//! C unions.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// The bytes of a C union, `8 * WORDS` of them, aligned to 8.
///
/// Which structure they hold follows from a command or type field beside the union; [`Payload::read`] copies it out.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Payload<const WORDS: usize>(pub [u64; WORDS]);

impl<const WORDS: usize> Payload<WORDS> {
    /// A payload that holds `value`, the rest zero.
    pub fn new<T: IntoBytes + Immutable>(value: &T) -> Self {
        let mut payload = Self::default();
        payload.write(value);
        payload
    }

    /// The structure at the start of the payload. That it fits is checked at compile time.
    pub fn read<T: FromBytes>(&self) -> T {
        const {
            assert!(
                size_of::<T>() <= 8 * WORDS,
                "the structure is larger than the union"
            )
        };
        match T::read_from_prefix(self.0.as_bytes()) {
            Ok((value, _)) => value,
            // The assertion above leaves no way here.
            Err(_) => T::new_zeroed(),
        }
    }

    /// Puts `value` at the start of the payload and leaves the bytes after it. That it fits is checked at compile time.
    pub fn write<T: IntoBytes + Immutable>(&mut self, value: &T) {
        const {
            assert!(
                size_of::<T>() <= 8 * WORDS,
                "the structure is larger than the union"
            )
        };
        for (to, from) in self.0.as_mut_bytes().iter_mut().zip(value.as_bytes()) {
            *to = *from;
        }
    }
}

impl<const WORDS: usize> Default for Payload<WORDS> {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl<const WORDS: usize> core::fmt::Debug for Payload<WORDS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Trailing zeros are the rule: most members of a union are much shorter than the longest one.
        let used = self
            .0
            .iter()
            .rposition(|word| *word != 0)
            .map_or(0, |last| last + 1);
        f.debug_list()
            .entries(self.0.iter().take(used).map(|word| format_args_hex(*word)))
            .finish()
    }
}

/// `word` in hexadecimal, for `debug_list`.
fn format_args_hex(word: u64) -> impl core::fmt::Debug {
    struct Hex(u64);
    impl core::fmt::Debug for Hex {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            write!(f, "{:#x}", self.0)
        }
    }
    Hex(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn reads_back_what_was_written() {
        let mut payload = Payload::<2>([u64::MAX; 2]);
        payload.write(&0x1234_u16);
        assert_eq!(payload.read::<u16>(), 0x1234);
        assert_eq!(payload.0, [0xffff_ffff_ffff_1234, u64::MAX]);
        assert_eq!(payload.read::<[u32; 4]>()[3], u32::MAX);
    }

    #[test]
    fn debug_leaves_out_the_unused_tail() {
        assert_eq!(
            format!("{:?}", Payload::<4>([1, 0, 0x20, 0])),
            "[0x1, 0x0, 0x20]"
        );
    }
}
