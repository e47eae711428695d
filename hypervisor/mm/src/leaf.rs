//! Level-1 entries: the references that they hold, and the path that every mapping a guest makes takes.

use crate::entry::{self, PRESENT, RW};
use crate::record::{Kind, Refs};
use crate::update::Store;
use crate::{FrameType, Hardware, Level, Mm, MmError, MmioAccess, MmioPolicy, MmuContext, Purpose};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use oxen_hal::FrameMeta;
use oxen_types::{Mfn, PT_ENTRIES};

/// Entries that are looked at together; divides the number of entries of a table.
pub(crate) const GROUP: usize = 8;

impl<M: Hardware> Mm<M> {
    /// Replaces entry `index` of `table`, a validated level-1 table of the context's owner, which holds `old`.
    #[inline(always)]
    pub(crate) fn mod_l1<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        table: Mfn,
        index: usize,
        old: u64,
        new: u64,
        store: Store,
    ) -> Result<(), MmError> {
        let mut new = new;
        if new & PRESENT != 0 {
            if new & ctx.l1_disallowed != 0 {
                return Err(MmError::Flags { level: Level::L1, entry: new });
            }
            if (old ^ new) & !entry::HARMLESS == 0 {
                return self.store_entry(table, index, old, entry::adjust_l1(new), store);
            }
            new = self.get_leaf(ctx, new)?;
        }
        if let Err(error) = self.store_entry(table, index, old, new, store) {
            if new & PRESENT != 0 {
                self.put_leaf(ctx, new);
            }
            return Err(error);
        }
        if old & PRESENT != 0 {
            self.put_leaf(ctx, old);
        }
        Ok(())
    }

    /// Takes the reference that a present level-1 entry holds. The entry's flags have been checked. Gives the form to store.
    #[inline(always)]
    pub(crate) fn get_leaf<P: MmioPolicy>(&self, ctx: &MmuContext<'_, P>, new: u64) -> Result<u64, MmError> {
        let mfn = entry::frame(new);
        let Some(meta) = self.machine.meta(mfn) else {
            return get_mmio(ctx, new);
        };
        if !self.take_leaf(ctx.leaf_identity, mfn, meta, new) {
            self.get_leaf_slowly(ctx, mfn, meta, new)?;
        }
        if ctx.is_foreign() && meta.refs.load(Relaxed) & Refs::FOREIGN == 0 {
            meta.refs.fetch_or(Refs::FOREIGN, AcqRel);
        }
        Ok(entry::adjust_l1(new))
    }

    #[cold]
    #[inline(never)]
    fn get_leaf_slowly<P: MmioPolicy>(
        &self,
        ctx: &MmuContext<'_, P>,
        mfn: Mfn,
        meta: &FrameMeta,
        new: u64,
    ) -> Result<(), MmError> {
        let result = if new & RW != 0 {
            let dirty_cpus = (!ctx.is_foreign()).then_some(ctx.dirty_cpus);
            self.get_use(mfn, meta, ctx.foreign, FrameType::Writable, dirty_cpus)
        } else {
            self.count_page(mfn, meta, ctx.foreign)
        };
        result.map_err(for_mapping)
    }

    /// Drops the reference that a present level-1 entry held.
    #[inline(always)]
    pub(crate) fn put_leaf<P>(&self, ctx: &mut MmuContext<'_, P>, old: u64) {
        let mfn = entry::frame(old);
        let Some(meta) = self.machine.meta(mfn) else { return };
        if old & RW != 0 {
            self.drop_use(mfn, meta);
        } else {
            if meta.kind.load(Relaxed) & Kind::TYPE == Kind::bits(FrameType::SegDesc) {
                ctx.effects.ldt_stale = true;
            }
            self.put_page(mfn, meta);
        }
    }

    /// Checks all entries of a level-1 table and takes their references; on failure none is held.
    pub(crate) fn validate_l1<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, table: Mfn) -> Result<(), MmError> {
        let (groups, _) = self.machine.table(table).as_chunks::<GROUP>();
        for (n, group) in groups.iter().enumerate() {
            if !any_present(group) {
                continue;
            }
            for (i, entry) in group.iter().enumerate() {
                let old = entry.load(Acquire);
                if old & PRESENT == 0 {
                    continue;
                }
                let checked = if old & ctx.l1_disallowed != 0 {
                    Err(MmError::Flags { level: Level::L1, entry: old })
                } else {
                    self.get_leaf(ctx, old)
                };
                match checked {
                    Ok(new) if new == old => {}
                    Ok(new) => entry.store(new, Release),
                    Err(error) => {
                        self.put_leaves(ctx, table, n * GROUP + i);
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Drops the references that the entries below `end` of a level-1 table hold.
    pub(crate) fn put_leaves<P>(&self, ctx: &mut MmuContext<'_, P>, table: Mfn, end: usize) {
        let (groups, _) = self.machine.table(table).as_chunks::<GROUP>();
        for (n, group) in groups.iter().enumerate() {
            let left = end.saturating_sub(n * GROUP);
            if left == 0 {
                break;
            }
            if !any_present(group) {
                continue;
            }
            for entry in group.iter().take(left) {
                let old = entry.load(Acquire);
                if old & PRESENT != 0 {
                    self.put_leaf(ctx, old);
                }
            }
        }
    }
}

/// True where an entry of the group is present. Most tables are mostly empty, and this is the quickest way past the gaps.
#[inline(always)]
fn any_present(group: &[AtomicU64; GROUP]) -> bool {
    group.iter().fold(0, |bits, entry| bits | entry.load(Relaxed)) & PRESENT != 0
}

/// True where an entry of the group that begins at `index`, a multiple of [`GROUP`] below 512, is present.
#[inline(always)]
pub(crate) fn group_has_present(entries: &[AtomicU64; PT_ENTRIES], index: usize) -> bool {
    entries.as_chunks::<GROUP>().0.get(index / GROUP).is_some_and(any_present)
}

/// An entry for a frame number that is not RAM: no reference, but a permission.
#[cold]
#[inline(never)]
fn get_mmio<P: MmioPolicy>(ctx: &MmuContext<'_, P>, new: u64) -> Result<u64, MmError> {
    let mfn = entry::frame(new);
    match ctx.mmio.mmio_access(mfn) {
        MmioAccess::ReadWrite => Ok(entry::adjust_l1(new)),
        MmioAccess::ReadOnly => Ok(entry::adjust_l1(new & !RW)),
        // The frame number with all bits set is how guests write an invalid one.
        MmioAccess::Refused if mfn == entry::frame(u64::MAX) => Err(MmError::NotRam(mfn)),
        MmioAccess::Refused => Err(MmError::Mmio(mfn)),
    }
}

/// The error as level-1 entries report it.
fn for_mapping(error: MmError) -> MmError {
    match error {
        MmError::Owner { mfn, expected, actual, .. } => MmError::Owner { mfn, expected, actual, purpose: Purpose::Mapping },
        MmError::Type { mfn, expected, actual, .. } => MmError::Type { mfn, expected, actual, purpose: Purpose::Mapping },
        MmError::Full(mfn) => MmError::InUse(mfn),
        other => other,
    }
}
