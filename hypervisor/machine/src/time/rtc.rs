//! The CMOS clock (Motorola MC146818A data sheet), read once at start-up.

use crate::apic::HARDWARE_LEVEL;
use crate::port::{in8, out8};
use oxen_sync::SpinLock;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const UPDATE_IN_PROGRESS: u8 = 0x80;
const STATUS_B_BINARY: u8 = 4;
const STATUS_B_24_HOURS: u8 = 2;
/// Polls for the end of an update, which takes 2 ms at most.
const UPDATE_PATIENCE: u32 = 100_000;

/// Index and data port belong together.
static PORTS: SpinLock<(), HARDWARE_LEVEL> = SpinLock::new(());

/// The clock's registers as they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawTime {
    /// Seconds, minutes, hours, day of the month, month, year of the century.
    pub fields: [u8; 6],
    /// Century, where the machine has that register.
    pub century: Option<u8>,
    /// Status register B: the format of the others.
    pub status_b: u8,
}

fn from_bcd(value: u8) -> u8 {
    (value >> 4).wrapping_mul(10).wrapping_add(value & 15)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; months and days count from 1.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Years counted from March: the leap day is the last of its year.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    // 719 468 days lie between 0000-03-01 and 1970-01-01.
    days - 719_468
}

/// Seconds since 1970-01-01 00:00 UTC of a clock that runs in UTC. `None` where the registers are no date.
#[must_use]
pub fn to_unix(raw: RawTime) -> Option<u64> {
    let number = |v: u8| u64::from(if raw.status_b & STATUS_B_BINARY != 0 { v } else { from_bcd(v) });
    let [second, minute, hour, day, month, year] = raw.fields;
    let mut hours = number(hour & 0x7f);
    if raw.status_b & STATUS_B_24_HOURS == 0 {
        hours = hours % 12 + if hour & 0x80 != 0 { 12 } else { 0 };
    }
    let (second, minute, day, month, year) = (number(second), number(minute), number(day), number(month), number(year));
    if second > 59 || minute > 59 || hours > 23 || !(1..=31).contains(&day) || !(1..=12).contains(&month) || year > 99 {
        return None;
    }
    let century = raw.century.map(number).filter(|c| (19..=30).contains(c)).unwrap_or(if year < 70 { 20 } else { 19 });
    let year = century * 100 + year;
    (year >= 1970).then(|| days_since_1970(year, month, day) * 86_400 + hours * 3600 + minute * 60 + second)
}

fn register(index: u8) -> u8 {
    // SAFETY: the clock's index and data port; they do not touch memory. The high bit of the index keeps NMIs enabled by being 0.
    unsafe {
        out8(INDEX, index & 0x7f);
        in8(DATA)
    }
}

fn read_once(century: Option<u8>) -> RawTime {
    for _ in 0..UPDATE_PATIENCE {
        if register(10) & UPDATE_IN_PROGRESS == 0 {
            break;
        }
        core::hint::spin_loop();
    }
    RawTime { fields: [0, 2, 4, 7, 8, 9].map(register), century: century.map(register), status_b: register(11) }
}

/// Reads the clock: seconds since 1970. `century` is the FADT's number of the century register. `None` where there is no sensible time.
pub(crate) fn read(century: Option<u8>) -> Option<u64> {
    let _ports = PORTS.lock();
    // An update between two registers shows as a difference between two readings.
    let mut before = read_once(century);
    for _ in 0..10 {
        let now = read_once(century);
        if now == before {
            return to_unix(now);
        }
        before = now;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(fields: [u8; 6], century: Option<u8>, status_b: u8) -> RawTime {
        RawTime { fields, century, status_b }
    }

    #[test]
    fn known_times() {
        // 2026-11-21 02:07:33
        assert_eq!(to_unix(raw([0x33, 0x07, 0x02, 0x21, 0x11, 0x26], Some(0x20), 2)), Some(1_795_226_853));
        assert_eq!(to_unix(raw([33, 7, 2, 21, 11, 26], None, 6)), Some(1_795_226_853));
        assert_eq!(to_unix(raw([0, 0, 0, 1, 1, 70], None, 6)), Some(0));
        // 2000-02-29 and 2000-03-01
        assert_eq!(to_unix(raw([0, 0, 0, 29, 2, 0], Some(20), 6)), Some(951_782_400));
        assert_eq!(to_unix(raw([0, 0, 0, 1, 3, 0], Some(20), 6)), Some(951_868_800));
    }

    #[test]
    fn twelve_hours() {
        let noon = to_unix(raw([0, 0, 0x80 | 0x12, 0x01, 0x01, 0x00], Some(0x20), 0)).unwrap();
        let midnight = to_unix(raw([0, 0, 0x12, 0x01, 0x01, 0x00], Some(0x20), 0)).unwrap();
        let evening = to_unix(raw([0, 0, 0x80 | 0x11, 0x01, 0x01, 0x00], Some(0x20), 0)).unwrap();
        assert_eq!((noon - midnight, evening - midnight), (12 * 3600, 23 * 3600));
    }

    #[test]
    fn no_clock() {
        assert_eq!(to_unix(raw([0xff; 6], Some(0xff), 0xff)), None);
        assert_eq!(to_unix(raw([0; 6], None, 0)), None);
    }
}
