//! Descriptor tables of guests.

use crate::record::{Kind, Refs};
use crate::refs::Taken;
use crate::{FrameType, Hardware, HeldTyped, Mm, MmError, MmioPolicy, MmuContext};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use oxen_types::{Mfn, PT_ENTRIES};

/// Bits of the upper half of a descriptor (Intel SDM volume 3, "Segment Descriptors").
const RESERVED_IN_GATE: u64 = 0xff << 32;
const TYPE_SHIFT: u32 = 40;
const CODE_OR_DATA: u64 = 1 << 44;
const DPL_SHIFT: u32 = 45;
const DPL: u64 = 3 << DPL_SHIFT;
const DESCRIPTOR_PRESENT: u64 = 1 << 47;
const SELECTOR_SHIFT: u32 = 16;

/// System descriptor types: the empty one is also the second half of a 16-byte descriptor.
const TYPE_EMPTY: u64 = 0;
const TYPE_CALL_GATE: u64 = 12;

/// First GDT entry that belongs to the hypervisor. Public header `arch-x86/xen.h`: `FIRST_RESERVED_GDT_ENTRY`.
const FIRST_RESERVED_GDT_ENTRY: u64 = 14 * 512;
/// The hypervisor's code selectors that guests may use: 64-bit and 32-bit user code. Public header `arch-x86/xen-x86_64.h`.
const FLAT_RING3_CS32: u64 = 0xe023;
const FLAT_RING3_CS64: u64 = 0xe033;

/// The form in which a guest's descriptor may stand in a table: code and data segments get privilege level 3; a call gate gets level 0, so that using
/// it faults, and keeps its own level in its selector. `None` for those that a guest may not have.
#[must_use]
pub fn checked_descriptor(descriptor: u64) -> Option<u64> {
    if descriptor & DESCRIPTOR_PRESENT == 0 {
        return Some(descriptor);
    }
    let raised = descriptor | DPL;
    if descriptor & CODE_OR_DATA != 0 {
        return Some(raised);
    }
    match descriptor >> TYPE_SHIFT & 0xf {
        TYPE_EMPTY => Some(raised),
        TYPE_CALL_GATE => {
            let selector = descriptor >> SELECTOR_SHIFT & 0xffff;
            if !is_gate_target(selector) || descriptor & RESERVED_IN_GATE != 0 {
                return None;
            }
            Some(descriptor & !DPL | 3 << SELECTOR_SHIFT)
        }
        _ => None,
    }
}

const fn is_gate_target(selector: u64) -> bool {
    let in_ldt = selector & 4 != 0;
    in_ldt || selector >> 3 < FIRST_RESERVED_GDT_ENTRY || selector == FLAT_RING3_CS32 || selector == FLAT_RING3_CS64
}

impl<M: Hardware> Mm<M> {
    /// Uses a frame of the context's owner as part of a descriptor table. With the first use all 512 descriptors are checked, and adjusted.
    ///
    /// # Errors
    /// [`MmError::NotRam`], [`MmError::Owner`], [`MmError::Type`] where the frame is a page table or mapped writable, [`MmError::Descriptor`], [`MmError::Preempted`].
    pub fn get_descriptors<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn) -> Result<HeldTyped, MmError> {
        self.finish_pending(ctx)?;
        let meta = self.machine.meta(mfn).ok_or(MmError::NotRam(mfn))?;
        self.count_page(mfn, meta, ctx.owner)?;
        match self.take_type(mfn, meta, FrameType::SegDesc, Some(ctx.dirty_cpus)) {
            Ok(Taken::First) => {}
            Ok(Taken::Another) => {
                self.put_page(mfn, meta);
                return Ok(HeldTyped(mfn));
            }
            Err(error) => {
                self.put_page(mfn, meta);
                return Err(error);
            }
        }
        match self.check_descriptors(mfn) {
            Ok(()) => {
                meta.kind.fetch_or(Kind::VALIDATED, Release);
                Ok(HeldTyped(mfn))
            }
            Err(error) => {
                self.drop_use(mfn, meta);
                Err(error)
            }
        }
    }

    fn check_descriptors(&self, mfn: Mfn) -> Result<(), MmError> {
        for index in 0..PT_ENTRIES {
            let old = self.machine.read_entry(mfn, index);
            let new = checked_descriptor(old).ok_or(MmError::Descriptor(old))?;
            if new != old {
                self.machine.write_entry(mfn, index, new);
            }
        }
        Ok(())
    }

    /// Writes one descriptor to entry `index` (below 512) of a frame of the context's owner, which is part of a descriptor table or not in use as
    /// anything that forbids writing.
    ///
    /// # Errors
    /// [`MmError::Descriptor`], [`MmError::NotRam`], [`MmError::Owner`], [`MmError::Type`], [`MmError::Preempted`].
    pub fn update_descriptor<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        mfn: Mfn,
        index: usize,
        descriptor: u64,
    ) -> Result<(), MmError> {
        self.finish_pending(ctx)?;
        let checked = checked_descriptor(descriptor).ok_or(MmError::Descriptor(descriptor))?;
        let meta = self.machine.meta(mfn).ok_or(MmError::NotRam(mfn))?;
        let kind = Kind(meta.kind.load(Relaxed));
        let ty = if kind.can_share(FrameType::SegDesc) { FrameType::SegDesc } else { FrameType::Writable };
        debug_assert!(!Refs(meta.refs.load(Acquire)).has(Refs::SHARED) || ty == FrameType::Writable);
        self.get_use(mfn, meta, ctx.owner, ty, Some(ctx.dirty_cpus))?;
        self.machine.write_entry(mfn, index % PT_ENTRIES, checked);
        self.drop_use(mfn, meta);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE64: u64 = 0x00af_9b00_0000_ffff;

    #[test]
    fn code_and_data_get_level_3() {
        assert_eq!(checked_descriptor(CODE64), Some(0x00af_fb00_0000_ffff));
        assert_eq!(checked_descriptor(0x00cf_9300_0000_ffff), Some(0x00cf_f300_0000_ffff));
        assert_eq!(checked_descriptor(0), Some(0));
        assert_eq!(checked_descriptor(CODE64 & !DESCRIPTOR_PRESENT), Some(CODE64 & !DESCRIPTOR_PRESENT));
    }

    #[test]
    fn system_descriptors_are_refused() {
        for ty in (1..16).filter(|&t| t != TYPE_CALL_GATE) {
            assert_eq!(checked_descriptor(DESCRIPTOR_PRESENT | ty << TYPE_SHIFT), None, "type {ty}");
        }
        assert_eq!(checked_descriptor(DESCRIPTOR_PRESENT), Some(DESCRIPTOR_PRESENT | DPL));
    }

    #[test]
    fn call_gates_lose_their_level() {
        let gate = DESCRIPTOR_PRESENT | TYPE_CALL_GATE << TYPE_SHIFT | DPL;
        assert_eq!(checked_descriptor(gate | 0x10 << 16), Some((gate & !DPL) | 0x13 << 16));
        assert_eq!(checked_descriptor(gate | 0xe008 << 16), None);
        assert_eq!(checked_descriptor(gate | 0xe033 << 16), Some((gate & !DPL) | 0xe033 << 16));
        assert_eq!(checked_descriptor(gate | 0x10 << 16 | 1 << 32), None);
    }
}
