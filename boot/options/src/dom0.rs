//! Domain 0's share of the machine.

use crate::value;

const KIB_PER_PAGE: u64 = 4;
const MIB_IN_PAGES: u64 = 1024 / KIB_PER_PAGE;
const PAGE_LEN: u64 = 4096;

/// An amount of memory as `dom0_mem` states it: a number of bytes, a share of the machine's memory, or both added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Percent of the machine's memory.
    pub percent: u32,
    /// The amount is what to leave over, not what to take.
    pub all_but: bool,
}

impl Amount {
    /// Reads `[-]<size>`, `[-]<percent>%` or `[-]<size>+<percent>%`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (all_but, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (size, percent) = match text.strip_suffix('%') {
            None => (text, "0"),
            Some(text) => text.split_once('+').unwrap_or(("0", text)),
        };
        let percent = u32::try_from(value::number(percent)?)
            .ok()
            .filter(|percent| *percent <= 100)?;
        Some(Self {
            bytes: value::size(size)?,
            percent,
            all_but,
        })
    }

    /// The amount in pages, of a machine with `total` pages of which `free` can be given away.
    fn pages(self, total: u64, free: u64) -> u64 {
        let share = u128::from(total) * u128::from(self.percent) / 100;
        let pages =
            (self.bytes / PAGE_LEN).saturating_add(u64::try_from(share).unwrap_or(u64::MAX));
        if self.all_but {
            free.saturating_sub(pages)
        } else {
            pages
        }
    }
}

/// `dom0_mem=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dom0Mem {
    /// What domain 0 starts with.
    pub size: Option<Amount>,
    /// At least this much.
    pub min: Option<Amount>,
    /// At most this much, now and later.
    pub max: Option<Amount>,
}

/// Domain 0's memory in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dom0Pages {
    /// What it starts with.
    pub initial: u64,
    /// What it may grow to (`max_pages`).
    pub max: u64,
    /// What to tell the administrator.
    pub note: Option<MemNote>,
}

/// Why domain 0 gets less memory than `dom0_mem` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemNote {
    /// Pages that were asked for.
    pub asked: u64,
    /// Pages that can be given.
    pub available: u64,
}

impl core::fmt::Display for MemNote {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mib = |pages: u64| pages / MIB_IN_PAGES;
        write!(
            f,
            "dom0_mem asks for {} MiB, only {} MiB are available: domain 0 gets those",
            mib(self.asked),
            mib(self.available)
        )
    }
}

impl Dom0Mem {
    /// Domain 0's memory on a machine with `total` pages of memory, of which `free` can be given away.
    ///
    /// Without a size it is a quarter of the machine's memory, but at least 1 GiB and at most 4 GiB, and it leaves a sixteenth of the
    /// free memory (at most 128 MiB) alone. `min` and `max` then bound it, and what is free bounds everything.
    #[must_use]
    pub fn pages(&self, total: u64, free: u64) -> Dom0Pages {
        let reserve = (free / 16).min(128 * MIB_IN_PAGES);
        let default = (total / 4)
            .clamp(1024 * MIB_IN_PAGES, 4096 * MIB_IN_PAGES)
            .min(free - reserve);
        let limit = |amount: Option<Amount>| amount.map(|amount| amount.pages(total, free));
        let max = limit(self.max);
        let asked = limit(self.size)
            .unwrap_or(default)
            .max(limit(self.min).unwrap_or(0))
            .min(max.unwrap_or(u64::MAX));
        let initial = asked.min(free);
        Dom0Pages {
            initial,
            max: max.unwrap_or(u64::MAX).max(initial),
            note: (asked > free).then_some(MemNote {
                asked,
                available: free,
            }),
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut mem = Self::default();
        for item in text.split(',') {
            let (place, amount) = match item.split_once(':') {
                None => (&mut mem.size, item),
                Some(("min", amount)) => (&mut mem.min, amount),
                Some(("max", amount)) => (&mut mem.max, amount),
                Some(_) => return None,
            };
            *place = Some(Amount::read(amount)?);
        }
        Some(mem)
    }
}

/// `dom0_max_vcpus=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dom0Vcpus {
    /// At least this many.
    pub min: u32,
    /// At most this many.
    pub max: u32,
}

impl Default for Dom0Vcpus {
    /// As many as there are processors.
    fn default() -> Self {
        Self {
            min: 1,
            max: u32::MAX,
        }
    }
}

impl Dom0Vcpus {
    /// The number of vCPUs on a machine with `nr_cpus` processors, where a domain can have at most `limit`.
    #[must_use]
    pub fn count(&self, nr_cpus: u32, limit: u32) -> u32 {
        nr_cpus.max(self.min).min(self.max).min(limit).max(1)
    }

    /// Reads `<n>`, `<min>-<max>`, `<min>-` or `-<max>`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let number = |text: &str| u32::try_from(value::number(text)?).ok().filter(|n| *n != 0);
        let all = Self::default();
        let vcpus = match text.split_once('-') {
            None => number(text).map(|n| Self { min: n, max: n })?,
            Some(("", "")) => return None,
            Some((min, "")) => Self {
                min: number(min)?,
                ..all
            },
            Some(("", max)) => Self {
                max: number(max)?,
                ..all
            },
            Some((min, max)) => Self {
                min: number(min)?,
                max: number(max)?,
            },
        };
        (vcpus.min <= vcpus.max).then_some(vcpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * MIB_IN_PAGES;

    fn pages(text: &str, total: u64, free: u64) -> Dom0Pages {
        Dom0Mem::read(text)
            .expect("a valid value")
            .pages(total, free)
    }

    #[test]
    fn the_default_leaves_room_for_guests() {
        let default = Dom0Mem::default();
        assert_eq!(default.pages(64 * GIB, 63 * GIB).initial, 4 * GIB);
        assert_eq!(default.pages(8 * GIB, 7 * GIB).initial, 2 * GIB);
        assert_eq!(default.pages(2 * GIB, 2 * GIB).initial, GIB);
        assert_eq!(
            default.pages(GIB, GIB - GIB / 8).initial,
            GIB - GIB / 8 - (GIB - GIB / 8) / 16
        );
        assert_eq!(
            default.pages(0, 0),
            Dom0Pages {
                initial: 0,
                max: u64::MAX,
                note: None
            }
        );
        assert_eq!(default.pages(8 * GIB, 7 * GIB).max, u64::MAX);
    }

    #[test]
    fn amounts() {
        assert_eq!(pages("512M", 8 * GIB, 7 * GIB).initial, GIB / 2);
        assert_eq!(pages("1048576", 8 * GIB, 7 * GIB).initial, GIB);
        assert_eq!(pages("4194304b", 8 * GIB, 7 * GIB).initial, 1024);
        assert_eq!(pages("-1G", 8 * GIB, 7 * GIB).initial, 6 * GIB);
        assert_eq!(pages("25%", 8 * GIB, 7 * GIB).initial, 2 * GIB);
        assert_eq!(pages("1G+25%", 8 * GIB, 7 * GIB).initial, 3 * GIB);
        assert_eq!(pages("-9G", 8 * GIB, 7 * GIB).initial, 0);
    }

    #[test]
    fn bounds() {
        assert_eq!(pages("min:3G", 8 * GIB, 7 * GIB).initial, 3 * GIB);
        assert_eq!(
            pages("max:1G", 8 * GIB, 7 * GIB),
            Dom0Pages {
                initial: GIB,
                max: GIB,
                note: None
            }
        );
        assert_eq!(
            pages("1G,max:2G", 8 * GIB, 7 * GIB),
            Dom0Pages {
                initial: GIB,
                max: 2 * GIB,
                note: None
            }
        );
        assert_eq!(pages("1G,min:2G,max:3G", 8 * GIB, 7 * GIB).initial, 2 * GIB);
    }

    #[test]
    fn more_than_there_is() {
        let got = pages("16G", 8 * GIB, 7 * GIB);
        assert_eq!(got.initial, 7 * GIB);
        let note = got.note.expect("the administrator is told");
        assert_eq!(
            std::string::ToString::to_string(&note),
            "dom0_mem asks for 16384 MiB, only 7168 MiB are available: domain 0 gets those"
        );
    }

    #[test]
    fn vcpus() {
        let count = |text: &str, cpus| {
            Dom0Vcpus::read(text)
                .expect("a valid value")
                .count(cpus, 128)
        };
        assert_eq!(Dom0Vcpus::default().count(8, 128), 8);
        assert_eq!(Dom0Vcpus::default().count(256, 128), 128);
        assert_eq!(count("4", 8), 4);
        assert_eq!(count("4", 2), 4);
        assert_eq!(count("2-4", 1), 2);
        assert_eq!(count("2-4", 8), 4);
        assert_eq!(count("-4", 8), 4);
        assert_eq!(count("3-", 2), 3);
        assert_eq!(Dom0Vcpus::default().count(0, 128), 1);
    }
}
