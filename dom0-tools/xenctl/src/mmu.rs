//! `mmuext_op` and `mmu_update` on other domains' page tables.

use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::Hypercall;
use oxen_abi::xen::{MmuUpdate, MmuUpdateType, MmuextCmd, MmuextOp};

/// log2 of the bytes of a frame.
const FRAME_SHIFT: u32 = 12;
/// M2P entries written in one call.
const UPDATES_PER_CALL: usize = 512;

impl Xen {
    /// Pins the root page table in frame `mfn` of domain `domid`: it and the tables below become page tables and stay so.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] with `EINVAL` when an entry is not allowed, for instance because the frame is mapped writable somewhere.
    pub fn pin_root(&self, domid: u16, mfn: u64) -> Result<()> {
        self.mmuext(
            "mmuext_op pin_l4_table",
            MmuextCmd::PIN_L4_TABLE,
            domid,
            mfn,
        )
    }

    /// Undoes [`Xen::pin_root`].
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] with `EINVAL` when it is not pinned.
    pub fn unpin(&self, domid: u16, mfn: u64) -> Result<()> {
        self.mmuext("mmuext_op unpin_table", MmuextCmd::UNPIN_TABLE, domid, mfn)
    }

    /// Sets M2P entries of frames of domain `domid`: pairs of MFN and PFN.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn set_m2p(&self, domid: u16, entries: &[(u64, u64)]) -> Result<()> {
        let call = "mmu_update machphys";
        for chunk in entries.chunks(UPDATES_PER_CALL) {
            let updates: Vec<MmuUpdate> = chunk
                .iter()
                .map(|(mfn, pfn)| MmuUpdate {
                    ptr: mfn << FRAME_SHIFT | u64::from(MmuUpdateType::MACHPHYS_UPDATE.raw()),
                    val: *pfn,
                })
                .collect();
            let buffer = self.buffer_holding(updates.as_slice())?;
            let args = [buffer.address(), updates.len() as u64, 0, u64::from(domid)];
            // SAFETY: the buffer holds as many updates as announced; the count that the call could write is null.
            unsafe { self.hypercall(call, Hypercall::MMU_UPDATE, &args) }
                .map_err(|error| error.about(domid))?;
        }
        Ok(())
    }

    fn mmuext(&self, call: &'static str, cmd: MmuextCmd, domid: u16, mfn: u64) -> Result<()> {
        let operation = MmuextOp {
            cmd,
            arg1: mfn,
            ..MmuextOp::default()
        };
        let buffer = self.buffer_holding(&operation)?;
        let args = [buffer.address(), 1, 0, u64::from(domid)];
        // SAFETY: the buffer holds the one operation, whose argument is a frame number; the count that the call could write is null.
        unsafe { self.hypercall(call, Hypercall::MMUEXT_OP, &args) }
            .map(drop)
            .map_err(|error: Error| error.about(domid))
    }
}
