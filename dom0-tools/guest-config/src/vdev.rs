//! Names and numbers of a guest's disks.

use crate::text::serde_as_text;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The name of a disk in its guest, such as `xvda` or `sda1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vdev {
    name: String,
    number: u32,
}

impl Vdev {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that back and front end have in common (`xen-vbd-interface(7)`): the last part of the device's path in xenstore.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl fmt::Display for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Vdev {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = text.strip_prefix("/dev/").unwrap_or(text);
        let number = number(name).ok_or_else(|| {
            Error::new(
                "vdev",
                format!("`{text}` is no name of a guest's disk; expected one such as xvda, xvda1, sda or hda"),
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            number,
        })
    }
}

serde_as_text!(Vdev);

/// The number of the disk `name`: a Linux device name, `dNpM`, or the number itself.
fn number(name: &str) -> Option<u32> {
    if let Some(letters) = name.strip_prefix("xvd") {
        let (disk, partition) = letters_and_digits(letters)?;
        return xvd(disk, partition);
    }
    if let Some(letters) = name.strip_prefix("sd") {
        let (disk, partition) = letters_and_digits(letters)?;
        return (disk < 16 && partition < 16).then_some(8 << 8 | disk << 4 | partition);
    }
    if let Some(letters) = name.strip_prefix("hd") {
        let (disk, partition) = letters_and_digits(letters)?;
        let major = if disk < 2 { 3 } else { 22 };
        return (disk < 4 && partition < 64).then_some(major << 8 | (disk & 1) << 6 | partition);
    }
    if let Some(rest) = name.strip_prefix('d') {
        let (disk, partition) = match rest.split_once('p') {
            Some((disk, partition)) => (decimal(disk)?, decimal(partition)?),
            None => (decimal(rest)?, 0),
        };
        return xvd(disk, partition);
    }
    match name.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u32::from_str_radix(hex, 16).ok()
        }
        Some(_) => None,
        None => decimal(name),
    }
}

/// The number of partition `partition` of the paravirtual disk `disk`: the older form where it fits, else the extended one.
fn xvd(disk: u32, partition: u32) -> Option<u32> {
    if disk < 16 && partition < 16 {
        Some(202 << 8 | disk << 4 | partition)
    } else {
        (disk < 1 << 20 && partition < 256).then_some(1 << 28 | disk << 8 | partition)
    }
}

/// A disk's letters (a is 0, aa is 26) and its partition's digits (none is 0).
fn letters_and_digits(text: &str) -> Option<(u32, u32)> {
    let end = text
        .find(|c: char| !c.is_ascii_lowercase())
        .unwrap_or(text.len());
    let (letters, digits) = text.split_at_checked(end)?;
    let disk = letters.bytes().try_fold(0_u32, |sum, letter| {
        sum.checked_mul(26)?
            .checked_add(u32::from(letter - b'a') + 1)
    })?;
    let partition = if digits.is_empty() {
        0
    } else {
        decimal(digits).filter(|number| *number > 0)?
    };
    Some((disk.checked_sub(1)?, partition))
}

/// A decimal number without sign or leading zero.
fn decimal(text: &str) -> Option<u32> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_interface() {
        let number = |name: &str| name.parse::<Vdev>().map(|vdev| vdev.number());
        assert_eq!(number("xvda"), Ok(51712));
        assert_eq!(number("xvda1"), Ok(51713));
        assert_eq!(number("/dev/xvdb"), Ok(51728));
        assert_eq!(number("xvdq"), Ok(1 << 28 | 16 << 8));
        assert_eq!(number("xvda16"), Ok(1 << 28 | 16));
        assert_eq!(number("xvdaa"), Ok(1 << 28 | 26 << 8));
        assert_eq!(number("sda"), Ok(2048));
        assert_eq!(number("sda1"), Ok(2049));
        assert_eq!(number("hda"), Ok(768));
        assert_eq!(number("hdb2"), Ok(834));
        assert_eq!(number("hdc"), Ok(5632));
        assert_eq!(number("d0p1"), Ok(51713));
        assert_eq!(number("51712"), Ok(51712));
        assert_eq!(number("0xca00"), Ok(51712));
    }

    #[test]
    fn nonsense_is_refused() {
        for name in [
            "",
            "xvd",
            "xvd1",
            "xvdA",
            "xvda0",
            "xvda01",
            "sdq",
            "hde",
            "hda64",
            "vda",
            "xvdzzzzzzzzzz",
            "xvda9999",
            "d",
            "0x",
            "xvda:",
            "d0p",
            "-1",
        ] {
            assert!(name.parse::<Vdev>().is_err(), "{name}");
        }
    }
}
