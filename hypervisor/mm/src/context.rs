//! What a page-table operation works with.

use crate::entry;
use crate::record::Refs;
use oxen_types::{CpuSet, DomId, Mfn};

/// What a page-table lock protects. One per domain, in a `SpinLock` of level `PAGE_TABLES`; having `&mut` of it shows that the lock is held.
#[derive(Debug, Default)]
pub struct PageTables {
    /// A partial table whose undoing was interrupted. Each operation finishes it before its own work.
    pub(crate) pending: Option<Mfn>,
}

impl PageTables {
    /// The state of a new domain.
    #[must_use]
    pub const fn new() -> Self {
        Self { pending: None }
    }

    /// True while an interrupted undoing waits for the next operation, or for [`crate::Mm::finish_pending`].
    #[must_use]
    pub const fn has_pending(&self) -> bool {
        self.pending.is_some()
    }
}

/// What a domain may do with a frame of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmioAccess {
    /// Nothing.
    Refused,
    /// Map it read-only: a request for a writable mapping gives a read-only one.
    ReadOnly,
    /// Map it.
    ReadWrite,
}

/// Who may map which device memory.
pub trait MmioPolicy {
    /// What the context's domains (both, where there is a foreign one) may do with a frame number that is not RAM.
    fn mmio_access(&self, mfn: Mfn) -> MmioAccess;
}

/// Nobody may map device memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMmio;

impl MmioPolicy for NoMmio {
    fn mmio_access(&self, _: Mfn) -> MmioAccess {
        MmioAccess::Refused
    }
}

/// What the operations done with a context leave to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// A present entry above level 1 changed: processors may still walk the old table. They may do so without harm, since a table's frame
    /// gets another use only after they have flushed; guests that count on an implied flush need one.
    pub upper_changed: bool,
    /// A mapping of a frame in use as descriptor table is gone: it may be the one through which the LDT was found, so the domain's
    /// LDT pages must be dropped on all its vCPUs.
    pub ldt_stale: bool,
}

/// No frame.
pub(crate) const NO_TABLE: Mfn = Mfn(u64::MAX);

/// One operation's, or one batch's, view of a domain's page tables.
#[derive(Debug)]
pub struct MmuContext<'a, P> {
    pub(crate) tables: &'a mut PageTables,
    /// The domain whose page tables these are.
    pub owner: DomId,
    pub(crate) foreign: DomId,
    /// [`Refs::expect`] of the domain whose frames level-1 entries may refer to.
    pub(crate) leaf_identity: u64,
    pub(crate) l1_disallowed: u64,
    pub(crate) dirty_cpus: &'a CpuSet,
    pub(crate) mmio: &'a P,
    /// A frame found to be a validated level-1 table of `owner`; it stays one while this context exists, or [`NO_TABLE`] comes here.
    pub(crate) leaf_table: Mfn,
    /// Entries of tables that may still be looked at.
    pub budget: u32,
    /// What the caller has to do; collected over all operations of the context.
    pub effects: Effects,
}

impl<'a, P: MmioPolicy> MmuContext<'a, P> {
    /// A context for tables of `owner`, referring to its own frames. `dirty_cpus` are the CPUs whose TLBs may have translations of the domain;
    /// `device_access` allows memory types other than write-back; `budget` limits the work (in table entries) before [`crate::MmError::Preempted`].
    #[must_use]
    pub fn new(
        tables: &'a mut PageTables,
        owner: DomId,
        dirty_cpus: &'a CpuSet,
        mmio: &'a P,
        device_access: bool,
        budget: u32,
    ) -> Self {
        let l1_disallowed = if device_access { 0 } else { entry::CACHE_ATTRIBUTES };
        Self {
            tables,
            owner,
            foreign: owner,
            leaf_identity: Refs::expect(owner),
            l1_disallowed,
            dirty_cpus,
            mmio,
            leaf_table: NO_TABLE,
            budget,
            effects: Effects::default(),
        }
    }

    /// Level-1 entries refer to frames of `foreign` instead: another domain, [`DomId::XEN`] or [`DomId::IO`]. The caller has checked the privilege.
    #[must_use]
    pub fn with_foreign(mut self, foreign: DomId) -> Self {
        self.foreign = foreign;
        self.leaf_identity = Refs::expect(foreign);
        self
    }

    /// The domain whose frames level-1 entries may refer to.
    #[must_use]
    pub const fn foreign(&self) -> DomId {
        self.foreign
    }

    #[inline]
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign != self.owner
    }

    /// Takes `n` from the budget.
    #[inline]
    pub(crate) fn spend(&mut self, n: u32) {
        self.budget = self.budget.saturating_sub(n);
    }
}
