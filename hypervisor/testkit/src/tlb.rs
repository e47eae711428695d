//! The processors' TLBs.

use crate::cpu::CpuState;
use crate::{Event, FakeMachine};
use oxen_hal::{AddressSpace, FlushScope, Processors};
use oxen_types::{CpuId, CpuSet, Gva, Mfn, PAGE_SHIFT};
use std::sync::atomic::Ordering;

/// One translation that a processor remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The frame.
    pub mfn: Mfn,
    /// Writing is allowed.
    pub writable: bool,
    /// Survives a change of root.
    pub global: bool,
}

/// Where the window on the guest's LDT is said to lie.
const LDT_WINDOW: u64 = 0xffff_8200_0000_0000;

impl CpuState {
    /// Drops everything and notes when.
    fn flush_all(&mut self, clock: u32) {
        self.tlb.clear();
        self.last_flush = clock;
    }
}

impl FakeMachine {
    /// The translations that `cpu` remembers.
    #[must_use]
    pub fn tlb(&self, cpu: u32) -> Vec<(Gva, Cached)> {
        self.cpu(cpu).tlb.iter().map(|(&page, &c)| (Gva(page << PAGE_SHIFT), c)).collect()
    }

    /// True where a processor remembers a translation (a writable one, where asked) to the frame.
    #[must_use]
    pub fn is_cached(&self, mfn: Mfn, writable: bool) -> bool {
        (0..self.config.cpus).any(|cpu| self.cpu(cpu).tlb.values().any(|c| c.mfn == mfn && (c.writable || !writable)))
    }

    /// Panics where a processor remembers a translation to the frame.
    ///
    /// # Panics
    /// See above.
    pub fn assert_not_cached(&self, mfn: Mfn) {
        for cpu in 0..self.config.cpus {
            if let Some((page, c)) = self.cpu(cpu).tlb.iter().find(|(_, c)| c.mfn == mfn) {
                panic!("cpu{cpu} still translates {:#x} to {mfn} ({c:?}), which is to be reused", page << PAGE_SHIFT);
            }
        }
    }

    fn tick(&self) -> u32 {
        self.flush_clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn flush_one(&self, cpu: u32, scope: FlushScope) {
        match scope {
            FlushScope::Page(va) => {
                self.cpu(cpu).tlb.remove(&(va.0 >> PAGE_SHIFT));
            }
            FlushScope::All => {
                let clock = self.tick();
                self.cpu(cpu).flush_all(clock);
            }
        }
    }
}

impl AddressSpace for FakeMachine {
    fn load_root(&self, root: Mfn, flush_global: bool) {
        for slot in 0..16 {
            let entry = self.page(root).word((256 + slot) * 8).load(Ordering::Relaxed);
            assert_eq!(entry, self.hypervisor_slot(slot), "root {root} lacks the hypervisor's slot {slot}");
        }
        let cpu = self.this();
        let clock = flush_global.then(|| self.tick());
        let mut state = self.cpu(cpu);
        state.root = Some(root);
        match clock {
            Some(clock) => state.flush_all(clock),
            None => state.tlb.retain(|_, c| c.global),
        }
    }

    fn load_idle_root(&self) {
        self.cpu(self.this()).root = None;
        self.flush_one(self.this(), FlushScope::All);
    }

    fn hypervisor_slot(&self, index: usize) -> u64 {
        // A value that no guest could have put there: present, supervisor, and a frame beyond all RAM.
        0x000f_0000_0000_0003 | (index as u64) << PAGE_SHIFT
    }

    fn set_guest_gdt(&self, frames: &[Mfn]) {
        self.cpu(self.this()).gdt = frames.to_vec();
    }

    fn set_guest_ldt(&self, entries: u32) {
        let mut state = self.cpu(self.this());
        state.ldt_entries = entries;
        state.ldt_pages.clear();
    }

    fn map_ldt_page(&self, index: usize, frame: Mfn) {
        self.cpu(self.this()).ldt_pages.insert(index, frame);
    }

    fn ldt_offset(&self, fault: Gva) -> Option<u64> {
        let offset = fault.0.checked_sub(LDT_WINDOW)?;
        (offset < u64::from(self.cpu(self.this()).ldt_entries) * 8).then_some(offset)
    }

    fn flush_page_local(&self, va: Gva) {
        self.flush_one(self.this(), FlushScope::Page(va));
    }

    fn flush_local(&self, scope: FlushScope) {
        self.flush_one(self.this(), scope);
        self.event(Event::Flush(vec![CpuId(self.this())], scope));
    }

    fn flush_remote(&self, cpus: &CpuSet, scope: FlushScope) {
        let members: Vec<CpuId> = cpus.iter().filter(|cpu| self.online().contains(*cpu)).collect();
        for cpu in &members {
            self.flush_one(cpu.0, scope);
        }
        self.event(Event::Flush(members, scope));
    }

    fn flush_clock(&self) -> u32 {
        self.flush_clock.load(Ordering::SeqCst)
    }

    fn last_flush(&self, cpu: CpuId) -> u32 {
        self.cpu(cpu.0).last_flush
    }
}
