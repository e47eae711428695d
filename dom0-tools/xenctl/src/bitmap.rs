//! Sets of pCPUs.

use std::fmt;

/// A set of pCPUs (or NUMA nodes), as the interface's bitmaps carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuMap {
    members: Vec<u32>,
}

impl CpuMap {
    /// The set bits among the first `nr_bits` of `bytes`, least significant first.
    pub fn from_bytes(bytes: &[u8], nr_bits: u32) -> Self {
        let bits = bytes
            .iter()
            .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        Self {
            members: (0..nr_bits)
                .zip(bits)
                .filter(|(_, set)| *set)
                .map(|(cpu, _)| cpu)
                .collect(),
        }
    }

    /// The set of these members.
    pub fn new(members: impl IntoIterator<Item = u32>) -> Self {
        let members: std::collections::BTreeSet<u32> = members.into_iter().collect();
        Self {
            members: members.into_iter().collect(),
        }
    }

    /// As bytes, least significant bit first, long enough for every member.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let len = self.members.last().map_or(0, |last| *last as usize / 8 + 1);
        let mut bytes = vec![0; len];
        for member in &self.members {
            if let Some(byte) = bytes.get_mut(*member as usize / 8) {
                *byte |= 1 << (member % 8);
            }
        }
        bytes
    }

    /// The members in ascending order.
    pub fn members(&self) -> &[u32] {
        &self.members
    }
}

impl fmt::Display for CpuMap {
    /// As Xen's tools write sets: `0-3,6`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.members.is_empty() {
            return f.write_str("none");
        }
        let runs = self.members.chunk_by(|a, b| a + 1 == *b);
        for (i, run) in runs.enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match run {
                [first, .., last] => write!(f, "{first}-{last}")?,
                [only] => write!(f, "{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined() {
        assert_eq!(
            CpuMap::from_bytes(&[0b0100_1111, 0b1], 16).to_string(),
            "0-3,6,8"
        );
        assert_eq!(CpuMap::from_bytes(&[0b0000_0011], 8).to_string(), "0-1");
        assert_eq!(CpuMap::from_bytes(&[0], 8).to_string(), "none");
    }

    #[test]
    fn bits_past_the_end_do_not_count() {
        assert_eq!(CpuMap::from_bytes(&[0xff], 3).members(), [0, 1, 2]);
        assert_eq!(CpuMap::from_bytes(&[], 3).members(), [] as [u32; 0]);
    }
}
