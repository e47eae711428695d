//! Rate limits of network cards.

use crate::text::serde_as_text;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The interval when none is given, in microseconds, as Xen's tools have it.
const DEFAULT_INTERVAL_US: u32 = 50_000;

/// The most output of a network card: so many bytes per interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// The interval over which the limit holds, in microseconds.
    pub interval_us: u32,
}

impl Rate {
    /// Bytes per interval, at least one.
    pub fn bytes_per_interval(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * u128::from(self.interval_us) / 1_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }

    /// The value of the back end's `rate` node: bytes per interval and the interval in microseconds.
    pub fn xenstore_value(&self) -> String {
        format!("{},{}", self.bytes_per_interval(), self.interval_us)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B/s@{}us", self.bytes_per_second, self.interval_us)
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            Error::new(
                "rate",
                format!(
                    "`{text}` is no rate; expected one such as `10MB/s`, `800Kb/s` or `1GB/s@20ms`"
                ),
            )
        })
    }
}

serde_as_text!(Rate);

fn parse(text: &str) -> Option<Rate> {
    let (rate, interval) = match text.split_once('@') {
        Some((rate, interval)) => (rate, interval_us(interval)?),
        None => (text, DEFAULT_INTERVAL_US),
    };
    let (number, unit) = split_number(rate.trim().strip_suffix("/s")?)?;
    let (factor, unit) = match unit.as_bytes() {
        [b'G', rest @ ..] => (1_000_000_000, rest),
        [b'M', rest @ ..] => (1_000_000, rest),
        [b'K' | b'k', rest @ ..] => (1_000, rest),
        rest => (1, rest),
    };
    let per_byte = match unit {
        b"B" => 1,
        b"b" => 8,
        _ => return None,
    };
    let bytes_per_second = number.checked_mul(factor)? / per_byte;
    (bytes_per_second > 0).then_some(Rate {
        bytes_per_second,
        interval_us: interval,
    })
}

fn interval_us(text: &str) -> Option<u32> {
    let (number, unit) = split_number(text.trim())?;
    let factor = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    let interval = number.checked_mul(factor)?;
    u32::try_from(interval)
        .ok()
        .filter(|interval| *interval > 0)
}

/// The digits at the start, as a number, and the rest.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.xenstore_value());
        assert_eq!(rate("10MB/s").unwrap(), "500000,50000");
        assert_eq!(rate("8Kb/s@1s").unwrap(), "1000,1000000");
        assert_eq!(rate("1GB/s@20ms").unwrap(), "20000000,20000");
        assert_eq!(rate("1B/s@1us").unwrap(), "1,1");
        for text in [
            "",
            "10",
            "10MB",
            "MB/s",
            "1b/s",
            "10MB/s@",
            "10MB/s@0ms",
            "10XB/s",
            "99999999999999999GB/s",
            "1B/s@5000s",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let rate: Rate = "100Mb/s@5ms".parse().unwrap();
        assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
    }
}
