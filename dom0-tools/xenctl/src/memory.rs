//! `memory_op`.

mod reservation;

use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::memory::MemoryOp;
use oxen_abi::xen::MulticallEntry;
use oxen_abi::{Errno, Hypercall};

impl Xen {
    /// Pages that sharing freed and pages that are shared. A hypervisor without sharing has none.
    pub fn sharing(&self) -> Result<(u64, u64)> {
        let freed = self.memory_count(
            "memory_op get_sharing_freed_pages",
            MemoryOp::GET_SHARING_FREED_PAGES,
        )?;
        let shared = self.memory_count(
            "memory_op get_sharing_shared_pages",
            MemoryOp::GET_SHARING_SHARED_PAGES,
        )?;
        Ok((freed, shared))
    }

    /// A memory command without argument that returns a count. It goes through a multicall, because the ioctl would cut the count
    /// to 32 bits.
    fn memory_count(&self, call: &'static str, op: MemoryOp) -> Result<u64> {
        let entry = MulticallEntry {
            op: u64::from(Hypercall::MEMORY_OP.raw()),
            args: [u64::from(op.raw()), 0, 0, 0, 0, 0],
            ..MulticallEntry::default()
        };
        let buffer = self.buffer_holding(&entry)?;
        // SAFETY: `buffer` holds the one entry announced, whose only address is null.
        unsafe { self.hypercall(call, Hypercall::MULTICALL, &[buffer.address(), 1])? };
        let entry: MulticallEntry = buffer.value().ok_or(Error::BadAnswer { call })?;
        let result = entry.result.cast_signed();
        match (u64::try_from(result), Errno::from_ret(result)) {
            (Ok(count), _) => Ok(count),
            (Err(_), Some(Errno::ENOSYS | Errno::EOPNOTSUPP)) => Ok(0),
            (Err(_), Some(errno)) => Err(Error::Hypercall { call, errno }),
            (Err(_), None) => Err(Error::BadAnswer { call }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    /// A hypervisor whose memory commands all return `result`.
    fn hypervisor(result: i64) -> Xen {
        fake::xen(move |op, args| {
            assert_eq!((op, args[1]), (Hypercall::MULTICALL, 1));
            let mut entry: MulticallEntry = fake::read(args[0]);
            assert_eq!(entry.op, u64::from(Hypercall::MEMORY_OP.raw()));
            entry.result = result.cast_unsigned();
            fake::write(args[0], &entry);
            Ok(0)
        })
    }

    #[test]
    fn counts_are_64_bits_wide() {
        assert_eq!(hypervisor(1 << 40).sharing().unwrap(), (1 << 40, 1 << 40));
    }

    #[test]
    fn without_sharing_nothing_is_shared() {
        assert_eq!(
            hypervisor(Errno::ENOSYS.to_ret()).sharing().unwrap(),
            (0, 0)
        );
    }

    #[test]
    fn other_errors_are_errors() {
        let error = hypervisor(Errno::EINVAL.to_ret()).sharing().unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL));
        assert!(matches!(
            hypervisor(-4000).sharing(),
            Err(Error::BadAnswer { .. })
        ));
    }
}
