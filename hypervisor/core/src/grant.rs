//! Grant tables: how a domain lets others use its memory.
//!
//! The table's frames are the hypervisor's, shared with the domain for writing; version 1 of the format.

use alloc::vec::Vec;
use oxen_abi::Errno;
use oxen_hal::Machine;
use oxen_mm::{Mm, MmError, SharedFrame};
use oxen_types::{DomId, Mfn};

/// Frames that a table may have.
pub const MAX_FRAMES: u32 = 64;

/// A domain's grants.
#[derive(Debug)]
pub struct GrantTable {
    frames: Vec<SharedFrame>,
    /// Most frames that it may have.
    pub max_frames: u32,
}

impl Default for GrantTable {
    fn default() -> Self {
        Self { frames: Vec::new(), max_frames: MAX_FRAMES }
    }
}

impl GrantTable {
    /// Frames that it has.
    #[must_use]
    pub fn nr_frames(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// The frames in order.
    pub fn frames(&self) -> impl Iterator<Item = Mfn> + '_ {
        self.frames.iter().map(SharedFrame::mfn)
    }

    /// Makes it at least `wanted` frames long.
    pub fn grow<M: Machine>(&mut self, mm: &Mm<M>, owner: DomId, wanted: u32) -> Result<(), Errno> {
        if wanted > self.max_frames {
            return Err(Errno::EINVAL);
        }
        while self.nr_frames() < wanted {
            let block = mm.alloc_zeroed(0, 0).map_err(MmError::errno)?;
            self.frames.push(mm.share(block, owner, true));
        }
        Ok(())
    }

    /// Takes the frames out, for the domain's end.
    pub fn take_frames(&mut self) -> Vec<SharedFrame> {
        core::mem::take(&mut self.frames)
    }
}
