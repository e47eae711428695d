//! Addresses of network cards.

use crate::text::serde_as_text;
use crate::{Error, Result};
use rand::TryRng;
use rand::rngs::SysRng;
use std::fmt;
use std::str::FromStr;

/// The prefix of addresses for virtual machines under Xen (IEEE's registry: XenSource).
const XEN_PREFIX: [u8; 3] = [0x00, 0x16, 0x3e];

/// The address of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A random address with Xen's prefix, 00:16:3e.
    ///
    /// # Errors
    ///
    /// When the kernel gives no random numbers.
    pub fn random() -> Result<Self> {
        let mut tail = [0; 3];
        SysRng.try_fill_bytes(&mut tail).map_err(|error| {
            Error::new("mac", format!("the kernel gives no random number: {error}"))
        })?;
        // The upper half of the prefix's range is left to addresses that are given out otherwise.
        Ok(Self::xen([tail[0] & 0x7f, tail[1], tail[2]]))
    }

    /// The address with Xen's prefix and this tail.
    pub fn xen(tail: [u8; 3]) -> Self {
        let ([a, b, c], [d, e, f]) = (XEN_PREFIX, tail);
        Self([a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| Error::new("mac", format!("`{text}` {why}"));
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|word| {
                let hex =
                    matches!(word.len(), 1 | 2) && word.bytes().all(|b| b.is_ascii_hexdigit());
                u8::from_str_radix(word, 16).ok().filter(|_| hex)
            })
            .collect();
        let bytes: [u8; 6] = bytes
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| {
                refuse("is no MAC address; expected six bytes in hexadecimal such as 00:16:3e:12:34:56")
            })?;
        if bytes[0] & 1 != 0 {
            return Err(refuse("is a multicast address, which no card can have"));
        }
        if bytes == [0; 6] {
            return Err(refuse("is no address of a card"));
        }
        Ok(Self(bytes))
    }
}

serde_as_text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_addresses_have_the_prefix() {
        let (one, other) = (Mac::random().unwrap(), Mac::random().unwrap());
        assert!(one.to_string().starts_with("00:16:3e:"));
        assert!(one.0[3] < 0x80);
        assert_ne!(one.0[..], [0; 6]);
        assert_eq!(one.to_string().parse::<Mac>().unwrap(), one);
        assert_eq!(other.0[..3], one.0[..3]);
    }

    #[test]
    fn spelling() {
        assert_eq!("0:16:3E:0:0:1".parse::<Mac>().unwrap(), Mac::xen([0, 0, 1]));
        for text in [
            "",
            "00:16:3e:00:00",
            "00:16:3e:00:00:01:02",
            "g0:16:3e:00:00:01",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+0:16:3e:00:00:01",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
