//! `hypfs_op`: the tree of what the hypervisor tells.

use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::hypfs::{HypfsDirentry, HypfsOp, HypfsType, XEN_HYPFS_ENC_PLAIN};
use oxen_abi::zerocopy::FromBytes;
use oxen_abi::{Errno, Hypercall};

/// Bytes of the longest number.
const NUMBER: usize = size_of::<u64>();
/// Bytes of an answer.
const ANSWER: usize = size_of::<HypfsDirentry>() + NUMBER;
/// Bytes of an answer and, behind it, the path that is asked for.
const ROOM: usize = 256;

impl Xen {
    /// The number at `path`; `None` where there is none: the entry has gone, or this hypervisor has no such entry or tree.
    ///
    /// # Errors
    ///
    /// [`Error::Hypercall`], and [`Error::BadAnswer`] for what is no number.
    ///
    /// # Panics
    ///
    /// If the path is longer than 235 bytes.
    pub fn hypfs_number(&self, path: &str) -> Result<Option<u64>> {
        let call = "hypfs_op read";
        let mut bytes = [0_u8; ROOM];
        let (_, room) = bytes.split_at_mut(ANSWER);
        assert!(path.len() < room.len(), "{path} is too long");
        if let Some(to) = room.get_mut(..path.len()) {
            to.copy_from_slice(path.as_bytes());
        }
        let buffer = self.argument_holding(&bytes)?;
        let at = buffer.address();
        let (of_path, length) = (at + ANSWER as u64, path.len() as u64 + 1);
        let args = [u64::from(HypfsOp::READ.raw()), of_path, length, at, ANSWER as u64];
        // SAFETY: path and answer lie in `buffer` one behind the other, with the sizes that are given.
        let result = unsafe { self.hypercall(call, Hypercall::HYPFS_OP, &args) };
        let answer: Option<[u8; ROOM]> = buffer.value();
        self.put_back(buffer);
        match result {
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENOSYS)) => return Ok(None),
            result => result?,
        };
        let bad = Error::BadAnswer { call };
        let answer = answer.ok_or(Error::BadAnswer { call })?;
        match HypfsDirentry::read_from_prefix(&answer) {
            Ok((head, rest)) if head.kind == HypfsType::UINT && head.encoding == XEN_HYPFS_ENC_PLAIN => {
                number(rest.get(..head.content_len as usize).ok_or(bad)?).map(Some).ok_or(Error::BadAnswer { call })
            }
            _ => Err(bad),
        }
    }
}

/// A number of 1, 2, 4 or 8 bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    if !matches!(bytes.len(), 1 | 2 | 4 | NUMBER) {
        return None;
    }
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_four_lengths() {
        assert_eq!(number(&[7]), Some(7));
        assert_eq!(number(&0x1234_5678_u32.to_le_bytes()), Some(0x1234_5678));
        assert_eq!(number(&u64::MAX.to_le_bytes()), Some(u64::MAX));
        assert_eq!(number(&[1, 2, 3]), None);
        assert_eq!(number(&[]), None);
    }
}
