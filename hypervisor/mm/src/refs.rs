//! References to frames.

use crate::record::{Kind, Refs};
use crate::{FrameType, Hardware, Mm, MmError, Purpose};
use core::mem::ManuallyDrop;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use core::sync::atomic::fence;
use oxen_hal::FrameMeta;
use oxen_types::{CpuSet, DomId, Mfn, PT_ENTRIES};

/// A reference that keeps a frame from being freed; dropped with the value.
#[must_use]
#[derive(Debug)]
pub struct PageRef<'a, M: Hardware> {
    mm: &'a Mm<M>,
    mfn: Mfn,
}

impl<M: Hardware> PageRef<'_, M> {
    /// The frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// The reference as a value to store; it goes back through [`Mm::put`].
    pub fn hold(self) -> HeldPage {
        HeldPage(ManuallyDrop::new(self).mfn)
    }
}

impl<M: Hardware> Drop for PageRef<'_, M> {
    fn drop(&mut self) {
        self.mm.put(HeldPage(self.mfn));
    }
}

/// A reference in storage: what a mapping, a grant or a structure owns. Dropping it without [`Mm::put`] leaks the frame.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct HeldPage(pub(crate) Mfn);

impl HeldPage {
    /// The frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.0
    }
}

/// The use of a frame as [`FrameType::Writable`] or [`FrameType::SegDesc`]; it also keeps the frame from being freed. Dropped with the value.
#[must_use]
#[derive(Debug)]
pub struct TypedRef<'a, M: Hardware> {
    mm: &'a Mm<M>,
    mfn: Mfn,
}

impl<M: Hardware> TypedRef<'_, M> {
    /// The frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// The use as a value to store; it goes back through [`Mm::put_typed`].
    pub fn hold(self) -> HeldTyped {
        HeldTyped(ManuallyDrop::new(self).mfn)
    }
}

impl<M: Hardware> Drop for TypedRef<'_, M> {
    fn drop(&mut self) {
        self.mm.put_typed(HeldTyped(self.mfn));
    }
}

/// A typed use in storage. Dropping it without [`Mm::put_typed`] leaks the frame.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct HeldTyped(pub(crate) Mfn);

impl HeldTyped {
    /// The frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.0
    }
}

impl<M: Hardware> Mm<M> {
    /// Refers to a frame of `owner`.
    ///
    /// # Errors
    /// [`MmError::NotRam`], [`MmError::Owner`], [`MmError::Full`].
    #[inline]
    pub fn get_page(&self, mfn: Mfn, owner: DomId) -> Result<PageRef<'_, M>, MmError> {
        let meta = self.machine.meta(mfn).ok_or(MmError::NotRam(mfn))?;
        self.count_page(mfn, meta, owner)?;
        Ok(PageRef { mm: self, mfn })
    }

    /// Refers to a frame of whichever domain owns it, which is also returned.
    ///
    /// # Errors
    /// As [`Mm::get_page`]; the expected owner in the error is [`DomId::INVALID`].
    pub fn get_page_of_any(&self, mfn: Mfn) -> Result<(PageRef<'_, M>, DomId), MmError> {
        let owner = self.owner(mfn).ok_or(MmError::Owner {
            mfn,
            expected: DomId::INVALID,
            actual: None,
            purpose: Purpose::Use,
        })?;
        Ok((self.get_page(mfn, owner)?, owner))
    }

    /// Gives a stored reference back.
    #[inline]
    pub fn put(&self, held: HeldPage) {
        if let Some(meta) = self.machine.meta(held.0) {
            self.put_page(held.0, meta);
        }
    }

    /// Uses a frame of `owner` for writing: no page table or descriptor table can be on it meanwhile. `dirty_cpus` are the CPUs whose TLBs may have
    /// translations of the owner.
    ///
    /// # Errors
    /// As [`Mm::get_page`], and [`MmError::Type`].
    pub fn get_writable(&self, mfn: Mfn, owner: DomId, dirty_cpus: &CpuSet) -> Result<TypedRef<'_, M>, MmError> {
        let meta = self.machine.meta(mfn).ok_or(MmError::NotRam(mfn))?;
        self.get_use(mfn, meta, owner, FrameType::Writable, Some(dirty_cpus))?;
        Ok(TypedRef { mm: self, mfn })
    }

    /// Gives a stored use back.
    #[inline]
    pub fn put_typed(&self, held: HeldTyped) {
        if let Some(meta) = self.machine.meta(held.0) {
            self.drop_use(held.0, meta);
        }
    }

    /// Makes a stored use a token again.
    pub fn adopt_typed(&self, held: HeldTyped) -> TypedRef<'_, M> {
        TypedRef { mm: self, mfn: held.0 }
    }

    /// Makes a stored reference a token again.
    pub fn adopt(&self, held: HeldPage) -> PageRef<'_, M> {
        PageRef { mm: self, mfn: held.0 }
    }

    /// The owner of a frame, at this moment.
    #[must_use]
    pub fn owner(&self, mfn: Mfn) -> Option<DomId> {
        Refs(self.machine.meta(mfn)?.refs.load(Acquire)).owner()
    }

    /// What a frame is, at this moment.
    #[must_use]
    pub fn inspect(&self, mfn: Mfn) -> Option<FrameInfo> {
        let meta = self.machine.meta(mfn)?;
        let refs = Refs(meta.refs.load(Acquire));
        let kind = Kind(meta.kind.load(Relaxed));
        let owner = refs.owner()?;
        Some(FrameInfo {
            owner,
            references: refs.count(),
            allocated: refs.has(Refs::ALLOCATED),
            shared: refs.has(Refs::SHARED),
            ty: kind.ty(),
            uses: kind.count(),
            validated: kind.has(Kind::VALIDATED) && kind.count() != 0,
            partial: kind.has(Kind::PARTIAL),
            pinned: kind.has(Kind::PINNED),
            checked_entries: match (kind.ty().level(), kind.count()) {
                (None, _) | (_, 0) => 0,
                _ if kind.has(Kind::PARTIAL) => kind.done(),
                _ => PT_ENTRIES,
            },
        })
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn owner_error(&self, mfn: Mfn, refs: Refs, expected: DomId) -> MmError {
        if refs.owner() == Some(expected) && refs.count() == Refs::COUNT {
            return MmError::Full(mfn);
        }
        MmError::Owner { mfn, expected, actual: refs.owner(), purpose: Purpose::Use }
    }

    /// Adds one to the total count of a frame of `owner`.
    #[inline]
    pub(crate) fn count_page(&self, mfn: Mfn, meta: &FrameMeta, owner: DomId) -> Result<(), MmError> {
        let mut refs = meta.refs.load(Relaxed);
        loop {
            if refs & Refs::IDENTITY != Refs::expect(owner) || refs & Refs::COUNT == Refs::COUNT {
                return Err(self.owner_error(mfn, Refs(refs), owner));
            }
            match meta.refs.compare_exchange_weak(refs, refs + 1, Acquire, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => refs = now,
            }
        }
    }

    /// Takes one from the total count; frees the frame with the last one.
    #[inline]
    pub(crate) fn put_page(&self, mfn: Mfn, meta: &FrameMeta) {
        let refs = meta.refs.load(Relaxed);
        let shared = refs & Refs::COUNT > 1;
        if !shared || meta.refs.compare_exchange(refs, refs - 1, AcqRel, Relaxed).is_err() {
            self.put_page_slowly(mfn, meta);
        }
    }

    #[cold]
    #[inline(never)]
    fn put_page_slowly(&self, mfn: Mfn, meta: &FrameMeta) {
        let mut refs = meta.refs.load(Relaxed);
        loop {
            debug_assert!(Refs(refs).has(Refs::IN_USE) && Refs(refs).count() != 0, "{mfn} put too often");
            let left = if refs & Refs::COUNT == 1 { 0 } else { refs - 1 };
            match meta.refs.compare_exchange_weak(refs, left, AcqRel, Relaxed) {
                Ok(_) if left != 0 => return,
                Ok(_) => return self.freed(mfn, meta, Refs(refs)),
                Err(now) => refs = now,
            }
        }
    }

    /// Counts one more use of a frame of `owner` as `ty`, which needs no validation. `dirty_cpus` are the owner's; `None` where they are not known.
    #[inline]
    pub(crate) fn get_use(
        &self,
        mfn: Mfn,
        meta: &FrameMeta,
        owner: DomId,
        ty: FrameType,
        dirty_cpus: Option<&CpuSet>,
    ) -> Result<(), MmError> {
        let refs = Refs(meta.refs.load(Acquire));
        if refs.0 & Refs::IDENTITY != Refs::expect(owner) {
            return Err(self.owner_error(mfn, refs, owner));
        }
        let kind = Kind(meta.kind.load(Relaxed));
        if kind.can_share(ty)
            && meta.kind.compare_exchange(kind.0, kind.0 + Kind::COUNT_UNIT, AcqRel, Relaxed).is_ok()
        {
            // The frame had a use, so it had an owner; the new use keeps it there. It may be another one than a moment ago.
            if meta.refs.load(Acquire) & Refs::IDENTITY == Refs::expect(owner) {
                return Ok(());
            }
            self.drop_use(mfn, meta);
            return Err(self.owner_error(mfn, Refs(0), owner));
        }
        self.get_use_slowly(mfn, meta, owner, ty, dirty_cpus)
    }

    #[cold]
    #[inline(never)]
    fn get_use_slowly(
        &self,
        mfn: Mfn,
        meta: &FrameMeta,
        owner: DomId,
        ty: FrameType,
        dirty_cpus: Option<&CpuSet>,
    ) -> Result<(), MmError> {
        self.count_page(mfn, meta, owner)?;
        match self.take_type(mfn, meta, ty, dirty_cpus) {
            // The count just taken is now that of the type's uses.
            Ok(Taken::First) => Ok(()),
            Ok(Taken::Another) => {
                self.put_page(mfn, meta);
                Ok(())
            }
            Err(error) => {
                self.put_page(mfn, meta);
                Err(error)
            }
        }
    }

    /// Counts one more use as `ty` of a frame on which the caller has a total count, changing the type where it has no use.
    pub(crate) fn take_type(
        &self,
        mfn: Mfn,
        meta: &FrameMeta,
        ty: FrameType,
        dirty_cpus: Option<&CpuSet>,
    ) -> Result<Taken, MmError> {
        let mut kind = Kind(meta.kind.load(Relaxed));
        loop {
            let (next, taken) = if kind.count() == 0 {
                (Kind::first_use(ty).0, Taken::First)
            } else if kind.can_share(ty) {
                (kind.0 + Kind::COUNT_UNIT, Taken::Another)
            } else if kind.ty() == ty {
                return Err(MmError::Full(mfn));
            } else {
                return Err(MmError::Type { mfn, expected: ty, actual: kind.ty(), purpose: Purpose::Use });
            };
            match meta.kind.compare_exchange_weak(kind.0, next, AcqRel, Relaxed) {
                Ok(_) => {
                    if taken == Taken::First && kind.ty() != ty {
                        self.flush_for_type_change(meta, kind, dirty_cpus);
                    }
                    return Ok(taken);
                }
                Err(now) => kind = Kind(now),
            }
        }
    }

    fn flush_for_type_change(&self, meta: &FrameMeta, old: Kind, dirty_cpus: Option<&CpuSet>) {
        let foreign = Refs(meta.refs.load(Relaxed)).has(Refs::FOREIGN);
        let cpus = dirty_cpus.filter(|_| !foreign).unwrap_or(self.machine.online());
        self.flush_stale(old.stamp(), cpus);
    }

    /// Takes one use from the type count of a frame whose type needs no undoing.
    #[inline]
    pub(crate) fn drop_use(&self, mfn: Mfn, meta: &FrameMeta) {
        let kind = meta.kind.load(Relaxed);
        let shared = kind & Kind::COUNT > Kind::COUNT_UNIT;
        if !shared || meta.kind.compare_exchange(kind, kind - Kind::COUNT_UNIT, AcqRel, Relaxed).is_err() {
            self.drop_use_slowly(mfn, meta);
        }
    }

    #[inline(never)]
    fn drop_use_slowly(&self, mfn: Mfn, meta: &FrameMeta) {
        let mut kind = meta.kind.load(Relaxed);
        loop {
            debug_assert!(Kind(kind).count() != 0, "{mfn} has no use to drop");
            let last = kind & Kind::COUNT == Kind::COUNT_UNIT;
            let left = if last { self.unused_now(Kind(kind)) } else { kind - Kind::COUNT_UNIT };
            match meta.kind.compare_exchange_weak(kind, left, AcqRel, Relaxed) {
                Ok(_) if !last => return,
                Ok(_) => return self.put_page(mfn, meta),
                Err(now) => kind = now,
            }
        }
    }

    /// The word of a frame whose last use ends now.
    pub(crate) fn unused_now(&self, kind: Kind) -> u64 {
        // The removal of the mapping must be visible before the clock is read: a processor that flushes later then no longer finds the mapping.
        fence(SeqCst);
        Kind::unused(kind.ty(), self.machine.flush_clock()).0
    }
}

/// Which use [`Mm::take_type`] counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    First,
    Another,
}

/// What a frame is: for reports, and for tools that ask for the types of a domain's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Whose it is.
    pub owner: DomId,
    /// Total count.
    pub references: u64,
    /// Part of the owner's memory.
    pub allocated: bool,
    /// Shared with the owner by the hypervisor.
    pub shared: bool,
    /// Present or last type.
    pub ty: FrameType,
    /// Uses in that type.
    pub uses: u64,
    /// A page table all of whose entries have been checked.
    pub validated: bool,
    /// A page table some of whose entries have been checked.
    pub partial: bool,
    /// A page table that the guest pinned.
    pub pinned: bool,
    /// Entries of a page table that have been checked and hold their references: all of them, but for a partial table.
    pub checked_entries: usize,
}
