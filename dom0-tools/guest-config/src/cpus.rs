//! Sets of pCPUs.

use crate::text::serde_as_text;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The highest pCPU or node number that a set may name; far above any machine, low enough to be enumerated.
const MAX_NUMBER: u32 = 4095;

/// A set of pCPUs as users write it: `all`, `0-3,^2`, `node:1`.
///
/// Terms apply in order: each adds pCPUs, or with `^` removes them. A set that starts with a removal starts from all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CpuSet {
    terms: Vec<CpuTerm>,
}

/// A term of a [`CpuSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuTerm {
    /// It removes instead of adding.
    pub removes: bool,
    /// What it adds or removes.
    pub cpus: Cpus,
}

/// pCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cpus {
    /// All of them.
    All,
    /// Those from the first to the second number.
    Range(u32, u32),
    /// Those of the NUMA nodes from the first to the second number.
    Nodes(u32, u32),
}

impl CpuSet {
    /// All pCPUs.
    pub fn all() -> Self {
        Self {
            terms: vec![CpuTerm {
                removes: false,
                cpus: Cpus::All,
            }],
        }
    }

    /// The terms.
    pub fn terms(&self) -> &[CpuTerm] {
        &self.terms
    }

    /// The members, given the host's pCPUs as pairs of number and NUMA node. Numbers that the host lacks are left out.
    pub fn resolve(&self, host: &[(u32, u32)]) -> BTreeSet<u32> {
        let mut members = BTreeSet::new();
        if self.terms.first().is_some_and(|term| term.removes) {
            members.extend(host.iter().map(|(cpu, _)| *cpu));
        }
        for term in &self.terms {
            let covered = host
                .iter()
                .filter(|(cpu, node)| match term.cpus {
                    Cpus::All => true,
                    Cpus::Range(first, last) => (first..=last).contains(cpu),
                    Cpus::Nodes(first, last) => (first..=last).contains(node),
                })
                .map(|(cpu, _)| *cpu);
            if term.removes {
                covered.for_each(|cpu| {
                    members.remove(&cpu);
                });
            } else {
                members.extend(covered);
            }
        }
        members
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            if term.removes {
                f.write_str("^")?;
            }
            match term.cpus {
                Cpus::All => f.write_str("all")?,
                Cpus::Range(first, last) if first == last => write!(f, "{first}")?,
                Cpus::Range(first, last) => write!(f, "{first}-{last}")?,
                Cpus::Nodes(first, last) if first == last => write!(f, "node:{first}")?,
                Cpus::Nodes(first, last) => write!(f, "nodes:{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let terms = text.split(',').map(|word| {
            term(word.trim()).ok_or_else(|| {
                Error::new(
                    "cpus",
                    format!(
                        "`{word}` in `{text}` is no set of processors; expected `all`, numbers and ranges such as `0-3,^2`, \
                         or `node:0`, with numbers up to {MAX_NUMBER}"
                    ),
                )
            })
        });
        Ok(Self {
            terms: terms.collect::<Result<_>>()?,
        })
    }
}

serde_as_text!(CpuSet);

/// A term.
fn term(word: &str) -> Option<CpuTerm> {
    let (removes, word) = match word.strip_prefix('^') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, word),
    };
    let nodes = word
        .strip_prefix("nodes:")
        .or_else(|| word.strip_prefix("node:"));
    let cpus = match nodes {
        Some(nodes) => {
            let (first, last) = range(nodes)?;
            Cpus::Nodes(first, last)
        }
        None if word == "all" => Cpus::All,
        None => {
            let (first, last) = range(word)?;
            Cpus::Range(first, last)
        }
    };
    Some(CpuTerm { removes, cpus })
}

/// A number, or two with a dash between.
fn range(word: &str) -> Option<(u32, u32)> {
    let number = |word: &str| -> Option<u32> {
        let word = word.trim();
        let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse().ok().filter(|n| digits && *n <= MAX_NUMBER)
    };
    let (first, last) = match word.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(word)?, number(word)?),
    };
    (first <= last).then_some((first, last))
}

/// Where the vCPUs of a guest may or had better run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Affinity {
    /// All vCPUs on the same set.
    Together(CpuSet),
    /// Each vCPU on a set of its own; those beyond the list on all pCPUs.
    Each(Vec<CpuSet>),
}

impl Affinity {
    /// The set of vCPU `vcpu`; `None` for all pCPUs.
    pub fn of(&self, vcpu: u32) -> Option<&CpuSet> {
        match self {
            Self::Together(set) => Some(set),
            Self::Each(sets) => sets.get(usize::try_from(vcpu).ok()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: [(u32, u32); 6] = [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)];

    fn resolve(text: &str) -> Vec<u32> {
        let set: CpuSet = text.parse().unwrap();
        assert_eq!(set.to_string().parse::<CpuSet>().unwrap(), set);
        set.resolve(&HOST).into_iter().collect()
    }

    #[test]
    fn sets_are_resolved_term_by_term() {
        assert_eq!(resolve("all"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(resolve("0-3, ^2"), [0, 1, 3]);
        assert_eq!(resolve("^0,^5"), [1, 2, 3, 4]);
        assert_eq!(resolve("node:1,^4,0"), [0, 3, 5]);
        assert_eq!(resolve("nodes:0-1"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(resolve("4-900"), [4, 5]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "3-1",
            "a",
            "0,,1",
            "-1",
            "+1",
            "5000",
            "node:",
            "^",
            "99999999999",
        ] {
            assert!(text.parse::<CpuSet>().is_err(), "{text}");
        }
    }
}
