//! `XENMEM_exchange`: memory for memory of another shape or place, by which dom0 gets contiguous buffers that devices can reach.

use super::Answer;
use crate::ctx::Ctx;
use crate::domain::Domain;
use alloc::vec::Vec;
use oxen_abi::Errno;
use oxen_abi::memory::{MemoryExchange, MemoryReservation};
use oxen_hal::Machine;
use oxen_mm::{FrameBlock, MmError};
use oxen_types::{Gva, Mfn};

/// Offset of `nr_exchanged` in `struct xen_memory_exchange`.
const NR_EXCHANGED: u64 = 64;
/// Most frames of one call: what Linux and the tools ask for is far below.
const MAX_FRAMES: u64 = 1 << 18;

impl<M: Machine> Ctx<'_, M> {
    /// All or nothing: the caller finds `nr_exchanged` as it was, 0, with an error.
    pub(super) fn exchange(&mut self, argument: Gva) -> Answer {
        let request: MemoryExchange = self.read(argument)?;
        check(&request, self.max_order())?;
        let target = self.target_domain(request.input.domid)?;
        let output = &request.output;
        let wanted = 1_u64 << output.extent_order;
        // New memory first: where there is none, which is usual while Linux looks for an address width that works, nothing has happened.
        let mut new = Vec::new();
        for _ in 0..output.nr_extents {
            match self.hv.memory.alloc_zeroed(output.extent_order, output.mem_flags & 0xff) {
                Ok(block) => new.push(block),
                Err(error) => {
                    new.into_iter().for_each(|block| self.hv.memory.free(block));
                    return Err(error.errno());
                }
            }
        }
        let old = match self.steal_all(&target, &request.input) {
            Ok(old) => old,
            Err(error) => {
                new.into_iter().for_each(|block| self.hv.memory.free(block));
                return Err(error);
            }
        };
        let mut firsts = Vec::new();
        let mut failed = None;
        for block in new {
            match self.hv.memory.reassign(block, target.id) {
                Ok(mfn) => firsts.push(mfn),
                Err((error, block)) => {
                    self.hv.memory.free(block);
                    failed = Some(error);
                }
            }
        }
        old.into_iter().for_each(|block| self.hv.memory.free(block));
        if let Some(error) = failed {
            return Err(error.errno());
        }
        for (index, first) in firsts.iter().enumerate() {
            let pfn: u64 = self.read_element(Gva(output.extent_start.address()), index as u64)?;
            for i in 0..wanted {
                self.machine().set_m2p(first.offset(i), pfn.wrapping_add(i));
            }
            self.write_element(Gva(output.extent_start.address()), index as u64, &first.0)?;
        }
        let done = argument.checked_add(NR_EXCHANGED).ok_or(Errno::EFAULT)?;
        self.write(done, &request.input.nr_extents)?;
        Ok(0)
    }

    /// Takes the frames that are given in exchange; all or none.
    fn steal_all(&self, target: &Domain, input: &MemoryReservation) -> Result<Vec<FrameBlock>, Errno> {
        let mut taken: Vec<(FrameBlock, u64)> = Vec::new();
        let mut steal_extent = |index: u64| {
            let first: u64 = self.read_element(Gva(input.extent_start.address()), index)?;
            for i in 0..1 << input.extent_order {
                let mfn = Mfn(first.checked_add(i).ok_or(Errno::EINVAL)?);
                let pfn = if self.machine().meta(mfn).is_some() { self.machine().m2p(mfn) } else { u64::MAX };
                let block = self.hv.memory.steal(mfn, target.id).map_err(MmError::errno)?;
                taken.push((block, pfn));
            }
            Ok(())
        };
        let result = (0..input.nr_extents).try_for_each(&mut steal_extent);
        match result {
            Ok(()) => Ok(taken.into_iter().map(|(block, _)| block).collect()),
            Err(error) => {
                for (block, pfn) in taken {
                    match self.hv.memory.reassign(block, target.id) {
                        Ok(mfn) => self.machine().set_m2p(mfn, pfn),
                        Err((_, block)) => self.hv.memory.free(block),
                    }
                }
                Err(error)
            }
        }
    }
}

fn check(request: &MemoryExchange, max_order: u32) -> Result<(), Errno> {
    let (input, output) = (&request.input, &request.output);
    if input.extent_order > max_order || output.extent_order > max_order {
        return Err(Errno::EPERM);
    }
    let frames = |r: &MemoryReservation| r.nr_extents.checked_mul(1 << r.extent_order).filter(|&n| n <= MAX_FRAMES);
    if request.nr_exchanged != 0 || input.domid != output.domid || frames(input).is_none() || frames(input) != frames(output) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}
