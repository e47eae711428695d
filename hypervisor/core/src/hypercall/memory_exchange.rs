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
/// Frames exchanged before the guest may take interrupts.
const BUDGET: u64 = 1024;

/// The smallest part of an exchange in which both sides are whole extents.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Extents given.
    given: u64,
    /// Extents taken.
    taken: u64,
    /// Frames of either.
    frames: u64,
}

impl<M: Machine> Ctx<'_, M> {
    /// Part by part, each all or nothing. `nr_exchanged` counts the extents given, also where an error ends the exchange.
    pub(super) fn exchange(&mut self, argument: Gva) -> Answer {
        let request: MemoryExchange = self.read(argument)?;
        let part = check(&request, self.max_order())?;
        let target = self.target_domain(request.input.domid)?;
        let progress = argument.checked_add(NR_EXCHANGED).ok_or(Errno::EFAULT)?;
        let (mut done, mut spent) = (request.nr_exchanged, 0);
        let answer = loop {
            if done >= request.input.nr_extents {
                break Ok(0);
            }
            if spent >= BUDGET {
                break Err(Errno::ERESTART);
            }
            if let Err(error) = self.exchange_part(&target, &request, part, done) {
                break Err(error);
            }
            done += part.given;
            spent += part.frames;
        };
        if done != request.nr_exchanged {
            self.write(progress, &done)?;
        }
        answer
    }

    /// Exchanges one part; `first` is its first extent on the giving side.
    fn exchange_part(&self, target: &Domain, request: &MemoryExchange, part: Part, first: u64) -> Result<(), Errno> {
        let output = &request.output;
        let first_taken = first / part.given * part.taken;
        // New memory first: where there is none, which is usual while Linux looks for an address width that works, nothing has happened.
        let new = self.new_blocks(output, part.taken)?;
        let old = match self.steal_all(target, &request.input, first, part.given) {
            Ok(old) => old,
            Err(error) => {
                new.into_iter().for_each(|block| self.hv.memory.free(block));
                return Err(error);
            }
        };
        // As many frames as were taken, so the domain's limit has no say; it may be dying, though, and get nothing.
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
        let list = Gva(output.extent_start.address());
        for (index, mfn) in (first_taken..).zip(firsts) {
            let pfn: u64 = self.read_element(list, index)?;
            for i in 0..1 << output.extent_order {
                self.machine().set_m2p(mfn.offset(i), pfn.wrapping_add(i));
            }
            self.write_element(list, index, &mfn.0)?;
        }
        Ok(())
    }

    fn new_blocks(&self, output: &MemoryReservation, count: u64) -> Result<Vec<FrameBlock>, Errno> {
        let mut new = Vec::new();
        for _ in 0..count {
            match self.hv.memory.alloc_zeroed(output.extent_order, output.mem_flags & 0xff) {
                Ok(block) => new.push(block),
                Err(error) => {
                    new.into_iter().for_each(|block| self.hv.memory.free(block));
                    return Err(error.errno());
                }
            }
        }
        Ok(new)
    }

    /// Takes the frames that are given in exchange; all or none.
    fn steal_all(&self, target: &Domain, input: &MemoryReservation, first: u64, count: u64) -> Result<Vec<FrameBlock>, Errno> {
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
        let result = (first..first + count).try_for_each(&mut steal_extent);
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

fn check(request: &MemoryExchange, max_order: u32) -> Result<Part, Errno> {
    let (input, output) = (&request.input, &request.output);
    if input.extent_order > max_order || output.extent_order > max_order {
        return Err(Errno::EPERM);
    }
    let frames = |r: &MemoryReservation| r.nr_extents.checked_mul(1 << r.extent_order);
    if input.domid != output.domid || frames(input).is_none() || frames(input) != frames(output) {
        return Err(Errno::EINVAL);
    }
    let order = input.extent_order.max(output.extent_order);
    let part = Part { given: 1 << (order - input.extent_order), taken: 1 << (order - output.extent_order), frames: 1 << order };
    // Where it carries on is the guest's word, like all else.
    if request.nr_exchanged > input.nr_extents || !request.nr_exchanged.is_multiple_of(part.given) {
        return Err(Errno::EINVAL);
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::hypercall::testing::{BUFFER, D5, World};
    use oxen_abi::memory::MemoryOp;
    use oxen_hal::Frames;
    use oxen_abi::{GuestHandle, Hypercall};

    fn reservation(at: u64, nr_extents: u64, extent_order: u32) -> MemoryReservation {
        MemoryReservation { extent_start: GuestHandle::new(at), nr_extents, extent_order, domid: D5.0, ..MemoryReservation::default() }
    }

    fn exchange(w: &World, request: &mut MemoryExchange) -> Answer {
        w.call_with(D5, Hypercall::MEMORY_OP, |at| [MemoryOp::EXCHANGE.raw().into(), at, 0, 0, 0, 0], request)
    }

    /// Eight frames of domain 5 that are not adjacent, in the buffer, and the numbers 100 to 103 behind them.
    fn world() -> (World, [u64; 8]) {
        let w = World::new();
        let frames = core::array::from_fn(|_| {
            let mfn = w.hv.memory.alloc_for(D5, 0, 0).unwrap();
            // What lies between goes to the hypervisor.
            let _ = w.hv.memory.alloc(0, 0).unwrap();
            mfn.0
        });
        let bytes: std::vec::Vec<u8> = frames.iter().copied().chain(100..104).flat_map(u64::to_le_bytes).collect();
        w.poke(BUFFER, &bytes);
        (w, frames)
    }

    #[test]
    fn works_whatever_the_limit_and_part_by_part() {
        let (w, frames) = world();
        let account = w.hv.memory.account(D5).unwrap();
        account.set_limit(2);
        let mut request =
            MemoryExchange { input: reservation(BUFFER.0, 8, 0), output: reservation(BUFFER.0 + 64, 4, 1), ..MemoryExchange::default() };
        assert_eq!(exchange(&w, &mut request), Ok(0));
        assert_eq!((request.nr_exchanged, account.pages()), (8, 8));
        let got: [u64; 4] = w.peek(Gva(BUFFER.0 + 64));
        for (n, &mfn) in got.iter().enumerate() {
            assert_eq!(w.machine.m2p(Mfn(mfn)), 100 + n as u64);
            assert!((0..2).all(|i| w.hv.memory.owner(Mfn(mfn + i)) == Some(D5)));
        }
        assert!(frames.iter().all(|&mfn| w.hv.memory.owner(Mfn(mfn)).is_none() || got.contains(&mfn) || got.contains(&(mfn - 1))));
    }

    #[test]
    fn a_frame_in_use_ends_it_with_what_was_done() {
        let (w, frames) = world();
        let account = w.hv.memory.account(D5).unwrap();
        account.set_limit(2);
        let held = w.hv.memory.get_page(Mfn(frames[5]), D5).unwrap();
        w.machine.set_m2p(Mfn(frames[4]), 44);
        let mut request =
            MemoryExchange { input: reservation(BUFFER.0, 8, 0), output: reservation(BUFFER.0 + 64, 4, 1), ..MemoryExchange::default() };
        assert!(exchange(&w, &mut request).is_err());
        assert_eq!((request.nr_exchanged, account.pages()), (4, 8));
        assert_eq!((w.hv.memory.owner(Mfn(frames[4])), w.machine.m2p(Mfn(frames[4]))), (Some(D5), 44), "given back as it was");
        drop(held);
        // Carries on where it stopped.
        assert_eq!(exchange(&w, &mut request), Ok(0));
        assert_eq!((request.nr_exchanged, account.pages()), (8, 8));
        request.nr_exchanged = 9;
        assert_eq!(exchange(&w, &mut request), Err(Errno::EINVAL));
        request.nr_exchanged = 1;
        assert_eq!(exchange(&w, &mut request), Err(Errno::EINVAL));
    }
}
