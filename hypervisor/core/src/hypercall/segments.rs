//! Descriptor tables, segment bases, the kernel stack, FPU switching.

use super::{Answer, Args};
use crate::Hypervisor;
use crate::ctx::Ctx;
use alloc::vec::Vec;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::{FIRST_RESERVED_GDT_ENTRY, SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER, SEGBASE_GS_USER_SEL};
use oxen_hal::Machine;
use oxen_mm::HeldTable;
use oxen_types::{Gva, Maddr, Mfn};

/// Descriptors in a page.
const DESCRIPTORS_PER_PAGE: u32 = 512;
/// Most descriptors of an LDT.
const MAX_LDT_ENTRIES: u64 = 8192;

impl<M: Machine> Hypervisor<M> {
    /// Sets a segment base of the vCPU that runs here, in kernel mode; 0.
    ///
    /// # Errors
    /// `EINVAL` for a base that is not canonical or a register that does not exist.
    #[inline(always)]
    pub(crate) fn set_segment_base(&self, which: u32, base: u64) -> Result<i64, Errno> {
        if which == SEGBASE_GS_USER_SEL {
            self.machine.load_user_gs_selector(base as u16);
            return Ok(0);
        }
        if !Gva(base).is_canonical() {
            return Err(Errno::EINVAL);
        }
        match which {
            SEGBASE_FS => self.machine.set_fs_base(base),
            // In kernel mode, from which hypercalls come, the kernel's base is the active one.
            SEGBASE_GS_KERNEL => self.machine.set_gs_base(base),
            SEGBASE_GS_USER => self.machine.set_inactive_gs_base(base),
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }
}

impl<M: Machine> Ctx<'_, M> {
    /// `(ss, sp)`.
    #[inline]
    pub(super) fn stack_switch(&mut self, args: &Args) -> Answer {
        self.state.set_kernel_stack(args[0], args[1]);
        self.machine().set_fast_stack(Gva(args[1]));
        Ok(0)
    }

    /// `(which, base)`.
    #[inline]
    pub(super) fn set_segment_base(&mut self, args: &Args) -> Answer {
        self.hv.set_segment_base(super::low32(args[0]), args[1])
    }

    /// `(set)`.
    #[inline]
    pub(super) fn fpu_taskswitch(&mut self, args: &Args) -> Answer {
        let set = args[0] != 0;
        self.state.context.task_switched = set;
        self.machine().set_task_switched(set);
        Ok(0)
    }

    /// `(frames, entries)`.
    pub(super) fn set_gdt(&mut self, args: &Args) -> Answer {
        let entries = super::low32(args[1]);
        if entries > FIRST_RESERVED_GDT_ENTRY {
            return Err(Errno::EINVAL);
        }
        let mut frames = Vec::new();
        for index in 0..entries.div_ceil(DESCRIPTORS_PER_PAGE) {
            frames.push(Mfn(self.read_element::<u64>(Gva(args[0]), index.into())?));
        }
        let held = self.hv.take_descriptor_frames(self.domain, &frames)?;
        self.hv.replace_gdt(self.state, held, entries);
        self.machine().set_guest_gdt(&self.gdt_mfns());
        Ok(0)
    }

    /// `(machine address, descriptor)`.
    pub(super) fn update_descriptor(&mut self, args: &Args) -> Answer {
        let at = Maddr(args[0]);
        if !at.0.is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let index = at.page_offset() / 8;
        let result = self.hv.with_tables(self.domain, self.domain.id, |mm, ctx| mm.update_descriptor(ctx, at.mfn(), index, args[1]));
        result.map_err(oxen_mm::MmError::errno)?;
        Ok(0)
    }

    /// Sets the LDT: `MMUEXT_SET_LDT`.
    pub(super) fn set_ldt(&mut self, base: u64, entries: u64) -> Result<(), Errno> {
        if !base.is_multiple_of(4096) || entries > MAX_LDT_ENTRIES || !Gva(base).range_is_guest(entries as usize * 8) {
            return Err(Errno::EINVAL);
        }
        let new = crate::vcpu::Ldt { base: Gva(base), entries: entries as u32 };
        if new == self.state.ldt {
            return Ok(());
        }
        self.hv.drop_ldt(self.state);
        self.state.ldt = new;
        self.machine().set_guest_ldt(new.entries);
        Ok(())
    }

    /// Maps the page of the guest's LDT that holds byte `offset`, if it is one: the processor faulted on it in the window through which it
    /// sees the LDT.
    pub(crate) fn map_ldt_page(&mut self, offset: u64) -> bool {
        let ldt = self.state.ldt;
        if offset >= u64::from(ldt.entries) * 8 {
            return false;
        }
        let root = self.state.root.as_ref().map(HeldTable::mfn);
        let (Some(root), Some(va)) = (root, ldt.base.checked_add(offset & !0xfff)) else { return false };
        let index = (offset >> 12) as usize;
        if self.state.ldt_frames.get(index).is_none_or(Option::is_some) {
            return false;
        }
        let frame = self.hv.with_tables(self.domain, self.domain.id, |mm, ctx| {
            let mfn = mm.walk(root, va)?.frame()?;
            mm.get_descriptors(ctx, mfn).ok()
        });
        let Some(frame) = frame else { return false };
        self.machine().map_ldt_page(index, frame.mfn());
        if let Some(slot) = self.state.ldt_frames.get_mut(index) {
            *slot = Some(frame);
        }
        true
    }
}
