//! The memory that domains have.

use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::memory::{E820Entry, ForeignMemoryMap, MemoryMap, MemoryOp, MemoryReservation};
use oxen_abi::{Errno, Hypercall};

/// Extents in one call. Their list takes 32 KiB: `/dev/xen/hypercall` gives 256 KiB to a process.
const EXTENTS_PER_CALL: usize = 4096;

impl Xen {
    /// Gives domain `domid` memory: an extent of `2^order` frames at each PFN of `extents`, which is replaced by the extent's first MFN.
    /// Also sets the frames' M2P entries. Returns how many extents there were to be had; the others are left.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] when the hypervisor refuses at once.
    pub fn populate(&self, domid: u16, order: u32, extents: &mut [u64]) -> Result<usize> {
        self.reserve(
            "memory_op populate_physmap",
            MemoryOp::POPULATE_PHYSMAP,
            domid,
            order,
            extents,
        )
    }

    /// Takes the frames `mfns` (extents of `2^order`) from domain `domid`; returns how many it took.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn decrease_reservation(&self, domid: u16, order: u32, mfns: &mut [u64]) -> Result<usize> {
        self.reserve(
            "memory_op decrease_reservation",
            MemoryOp::DECREASE_RESERVATION,
            domid,
            order,
            mfns,
        )
    }

    /// Gives domain `domid` extents of `2^order` frames that are nowhere in its physical memory; `mfns` gets their first MFNs. Returns how
    /// many there were to be had.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn increase_reservation(&self, domid: u16, order: u32, mfns: &mut [u64]) -> Result<usize> {
        self.reserve(
            "memory_op increase_reservation",
            MemoryOp::INCREASE_RESERVATION,
            domid,
            order,
            mfns,
        )
    }

    /// Sets memory aside for domain `domid` until it has `pages` pages in all; 0 gives the claim up.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] with `ENOMEM` when there is not so much free memory, `EINVAL` when it has more already or may not have so much.
    pub fn claim_pages(&self, domid: u16, pages: u64) -> Result<()> {
        let argument = MemoryReservation {
            nr_extents: pages,
            domid,
            ..MemoryReservation::default()
        };
        let op = u64::from(MemoryOp::CLAIM_PAGES.raw());
        let call = "memory_op claim_pages";
        // SAFETY: the list of extents is null, as the command wants it.
        unsafe { self.hypercall_in_out(call, Hypercall::MEMORY_OP, Some(op), &argument) }
            .map(drop)
            .map_err(|error| error.about(domid))
    }

    /// Sets the memory map that domain `domid` is told.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn set_memory_map(&self, domid: u16, entries: &[E820Entry]) -> Result<()> {
        let buffer = self.buffer_holding(entries)?;
        let call = "memory_op set_memory_map";
        let argument = ForeignMemoryMap {
            domid,
            map: MemoryMap {
                nr_entries: u32::try_from(entries.len()).map_err(|_| Error::Domain {
                    call,
                    domid,
                    errno: Errno::EINVAL,
                })?,
                buffer: buffer.handle(),
                ..MemoryMap::default()
            },
            ..ForeignMemoryMap::default()
        };
        let op = u64::from(MemoryOp::SET_MEMORY_MAP.raw());
        // SAFETY: the handle's buffer holds `nr_entries` entries.
        unsafe { self.hypercall_in_out(call, Hypercall::MEMORY_OP, Some(op), &argument) }
            .map(drop)
            .map_err(|error| error.about(domid))
    }

    /// A command with a list of extents, in parts; stops at the first part that was not done wholly.
    fn reserve(
        &self,
        call: &'static str,
        op: MemoryOp,
        domid: u16,
        order: u32,
        extents: &mut [u64],
    ) -> Result<usize> {
        let mut done = 0;
        for chunk in extents.chunks_mut(EXTENTS_PER_CALL) {
            let buffer = self.buffer_holding(&*chunk)?;
            let argument = MemoryReservation {
                extent_start: buffer.handle(),
                nr_extents: chunk.len() as u64,
                extent_order: order,
                domid,
                ..MemoryReservation::default()
            };
            let argument = self.buffer_holding(&argument)?;
            let args = [u64::from(op.raw()), argument.address()];
            // SAFETY: the argument's buffer holds the structure, whose handle's buffer holds `nr_extents` numbers.
            let count = unsafe { self.hypercall(call, Hypercall::MEMORY_OP, &args) }
                .map_err(|error| error.about(domid))? as usize;
            let results: Vec<u64> = buffer.array(count).ok_or(Error::BadAnswer { call })?;
            let whole = count == chunk.len();
            for (to, from) in chunk.iter_mut().zip(results) {
                *to = from;
            }
            done += count;
            if !whole {
                break;
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    #[test]
    fn large_requests_go_in_parts_and_stop_where_memory_ends() {
        let host = FakeHost::new(10_000).unwrap();
        host.add_domain(1);
        let xen = host.xen();
        xen.set_max_memory(1, 80_000).unwrap();
        let mut extents: Vec<u64> = (0..9_000).collect();
        assert_eq!(xen.populate(1, 0, &mut extents).unwrap(), 9_000);
        let domain = host.domain(1).unwrap();
        assert_eq!(domain.frames.len(), 9_000);
        assert_eq!(domain.m2p[&extents[8_999]], 8_999);
        let mut more: Vec<u64> = (9_000..14_000).collect();
        assert_eq!(xen.populate(1, 0, &mut more).unwrap(), 1_000);
        assert_eq!(host.free_frames(), 0);
    }

    #[test]
    fn a_claim_that_cannot_be_met_is_refused() {
        let host = FakeHost::new(100).unwrap();
        host.add_domain(1);
        let xen = host.xen();
        xen.set_max_memory(1, 4096).unwrap();
        let error = xen.claim_pages(1, 101).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOMEM));
        assert!(error.to_string().contains("xm info"), "{error}");
        xen.claim_pages(1, 100).unwrap();
        xen.claim_pages(1, 0).unwrap();
    }
}
