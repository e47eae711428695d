//! `grant_table_op` about other domains.

use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::grant_table::{GrantStatus, GrantTableOp, QuerySize};
use oxen_abi::{Errno, Hypercall};

/// The size of a domain's grant table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrantTableSize {
    /// Its frames.
    pub frames: u32,
    /// The most that it may have.
    pub max_frames: u32,
}

impl Xen {
    /// The size of the grant table of domain `domid`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`]; [`Error::Hypercall`] with `EPERM` when the hypervisor does not tell.
    pub fn grant_table_size(&self, domid: u16) -> Result<GrantTableSize> {
        const CALL: &str = "grant_table_op query_size";
        let argument = QuerySize {
            dom: domid,
            ..QuerySize::default()
        };
        let buffer = self.buffer_holding(&argument)?;
        let op = u64::from(GrantTableOp::QUERY_SIZE.raw());
        // SAFETY: `buffer` holds the one element announced, which has no addresses.
        unsafe {
            self.hypercall(
                CALL,
                Hypercall::GRANT_TABLE_OP,
                &[op, buffer.address(), 1],
            )?
        };
        let answer: QuerySize = buffer.value().ok_or(Error::BadAnswer { call: CALL })?;
        match answer.status {
            GrantStatus::OKAY => Ok(GrantTableSize {
                frames: answer.nr_frames,
                max_frames: answer.max_nr_frames,
            }),
            GrantStatus::BAD_DOMAIN => Err(Error::NoSuchDomain { domid }),
            _ => Err(Error::Hypercall {
                call: CALL,
                errno: Errno::EPERM,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    fn hypervisor(status: GrantStatus) -> Xen {
        fake::xen(move |op, args| {
            assert_eq!((op, args[2]), (Hypercall::GRANT_TABLE_OP, 1));
            let mut query: QuerySize = fake::read(args[1]);
            assert_eq!(query.dom, 5);
            query.nr_frames = 4;
            query.max_nr_frames = 64;
            query.status = status;
            fake::write(args[1], &query);
            Ok(0)
        })
    }

    #[test]
    fn the_size_is_told() {
        let size = hypervisor(GrantStatus::OKAY).grant_table_size(5).unwrap();
        assert_eq!((size.frames, size.max_frames), (4, 64));
    }

    #[test]
    fn a_missing_domain_is_told_by_the_status() {
        let error = hypervisor(GrantStatus::BAD_DOMAIN).grant_table_size(5);
        assert!(matches!(error, Err(Error::NoSuchDomain { domid: 5 })));
    }
}
