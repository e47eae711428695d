//! Taking frames from the allocator, giving them to domains, getting them back.

use crate::record::{Kind, Refs};
use crate::{Account, FrameType, Hardware, Mm, MmError, buddy};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use oxen_hal::{FlushScope, FrameMeta};
use oxen_types::{CpuSet, DomId, Mfn};

/// A block of 2^`order` frames that belongs to whoever holds this value; no domain owns it. It goes to [`Mm::free`], to [`Mm::assign`] or to [`Mm::share`];
/// dropping it leaks the memory.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct FrameBlock {
    mfn: Mfn,
    order: u32,
    /// Processors that have not flushed since the flush clock stood here may have guests' translations to the frames. 0: none has.
    stamp: u32,
}

impl FrameBlock {
    /// The first frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// log2 of the number of frames.
    #[must_use]
    pub const fn order(&self) -> u32 {
        self.order
    }

    /// The frames one by one.
    pub fn split(self) -> impl Iterator<Item = FrameBlock> {
        let FrameBlock { mfn, order, stamp } = self;
        (0..1 << order).map(move |i| FrameBlock { mfn: mfn.offset(i), order: 0, stamp })
    }
}

/// The hypervisor's count on a frame that it shares with a domain. Goes back through [`Mm::unshare`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct SharedFrame {
    mfn: Mfn,
    writable: bool,
}

impl SharedFrame {
    /// The frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }
}

impl<M: Hardware> Mm<M> {
    /// Hands a range of RAM to the allocator: frames from `start`, `count` of them, which nobody uses and whose records are zero. Frame 0 and
    /// numbers without a record are left out.
    pub fn add_range(&self, start: Mfn, count: u64) {
        let mut buddy = self.buddy.lock();
        let end = start.0.saturating_add(count).min(self.machine.max_mfn()).min(Refs::NO_LINK);
        let mut at = start.0.max(1);
        while at < end {
            // Records exist in whole stretches, but a hole may begin anywhere: a block is only given when all of it is there.
            let fit = (63 - (end - at).leading_zeros()).min(at.trailing_zeros()).min(buddy::MAX_ORDER);
            let order = (0..=fit).rev().find(|&o| (0..1 << o).all(|i| self.machine.meta(Mfn(at + i)).is_some()));
            match order {
                Some(order) => {
                    buddy.give(self.machine, Mfn(at), order, 0);
                    at += 1 << order;
                }
                None => at += 1,
            }
        }
    }

    /// Free frames, those set aside for domains included.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.buddy.lock().free_frames()
    }

    /// Free frames below machine address 2^`address_bits`. Walks the lists: for reports only.
    #[must_use]
    pub fn free_frames_below(&self, address_bits: u32) -> u64 {
        self.buddy.lock().free_below(self.machine, address_bits)
    }

    /// Frames set aside for domains that have not been given to them yet.
    #[must_use]
    pub fn claimed_frames(&self) -> u64 {
        self.claimed.load(Relaxed)
    }

    /// The account of an ordinary domain, made when first asked for; `None` for other identifiers.
    #[must_use]
    pub fn account(&self, domain: DomId) -> Option<&Account> {
        self.accounts.open(domain)
    }

    /// Sets memory aside so that `domain` can grow to `pages` in all; 0 takes the claim back.
    ///
    /// # Errors
    /// [`MmError::NoMemory`] where not that much is free; [`MmError::OverLimit`] above the domain's limit; [`MmError::InUse`] where the domain has a claim
    /// already; [`MmError::Dying`].
    pub fn claim(&self, domain: DomId, pages: u64) -> Result<(), MmError> {
        let account = self.account(domain).ok_or(MmError::Dying(domain))?;
        let buddy = self.buddy.lock();
        let old = account.claim();
        if pages == 0 {
            account.set_claim(0);
            self.claimed.fetch_sub(old, Relaxed);
            return Ok(());
        }
        if account.is_dying() {
            return Err(MmError::Dying(domain));
        }
        if old != 0 {
            return Err(MmError::InUse(Mfn::INVALID));
        }
        if pages > account.limit() || pages <= account.pages() {
            return Err(MmError::OverLimit(domain));
        }
        let more = pages - account.pages();
        if more > buddy.free_frames().saturating_sub(self.claimed_frames()) {
            return Err(MmError::NoMemory);
        }
        account.set_claim(more);
        self.claimed.fetch_add(more, Relaxed);
        Ok(())
    }

    /// Takes 2^`order` frames below machine address 2^`address_bits` (0: anywhere) for the hypervisor. Their contents are whatever they were.
    ///
    /// # Errors
    /// [`MmError::NoMemory`].
    pub fn alloc(&self, order: u32, address_bits: u32) -> Result<FrameBlock, MmError> {
        self.take(None, order, address_bits)
    }

    /// As [`Mm::alloc`], filled with zero.
    ///
    /// # Errors
    /// [`MmError::NoMemory`].
    pub fn alloc_zeroed(&self, order: u32, address_bits: u32) -> Result<FrameBlock, MmError> {
        let block = self.alloc(order, address_bits)?;
        self.zero(&block);
        Ok(block)
    }

    /// Gives frames back.
    pub fn free(&self, block: FrameBlock) {
        self.buddy.lock().give(self.machine, block.mfn, block.order, block.stamp);
    }

    /// Takes 2^`order` frames below machine address 2^`address_bits` (0: anywhere), zeroed, and makes them `owner`'s memory.
    ///
    /// # Errors
    /// [`MmError::NoMemory`], [`MmError::OverLimit`], [`MmError::Dying`].
    pub fn alloc_for(&self, owner: DomId, order: u32, address_bits: u32) -> Result<Mfn, MmError> {
        if order > buddy::MAX_ORDER {
            return Err(MmError::NoMemory);
        }
        let account = self.account(owner).ok_or(MmError::Dying(owner))?;
        account.charge(owner, 1 << order, account.limit())?;
        let block = match self.take(Some(account), order, address_bits) {
            Ok(block) => block,
            Err(error) => {
                account.discharge(1 << order);
                account.arrived();
                return Err(error);
            }
        };
        self.zero(&block);
        self.publish(&block, owner, account);
        account.arrived();
        Ok(block.mfn)
    }

    /// Makes frames that the hypervisor holds (with contents that it prepared) `owner`'s memory.
    ///
    /// # Errors
    /// [`MmError::OverLimit`], [`MmError::Dying`]; the block comes back.
    pub fn assign(&self, block: FrameBlock, owner: DomId) -> Result<Mfn, (MmError, FrameBlock)> {
        let limit = self.account(owner).map_or(0, Account::limit);
        self.assign_within(block, owner, limit)
    }

    /// As [`Mm::assign`], whatever the owner's limit: for frames that take the place of others which were taken from it.
    ///
    /// # Errors
    /// [`MmError::Dying`]; the block comes back.
    pub fn reassign(&self, block: FrameBlock, owner: DomId) -> Result<Mfn, (MmError, FrameBlock)> {
        self.assign_within(block, owner, u64::MAX)
    }

    fn assign_within(&self, block: FrameBlock, owner: DomId, limit: u64) -> Result<Mfn, (MmError, FrameBlock)> {
        let Some(account) = self.account(owner) else { return Err((MmError::Dying(owner), block)) };
        if let Err(error) = account.charge(owner, 1 << block.order, limit) {
            return Err((error, block));
        }
        self.flush_stale(block.stamp, self.machine.online());
        self.publish(&block, owner, account);
        account.arrived();
        Ok(block.mfn)
    }

    /// Shares a frame of the hypervisor's with `owner` (or with [`DomId::XEN`], for every privileged domain). The hypervisor keeps its count until
    /// [`Mm::unshare`]; the frame is freed when the last mapping is gone too.
    pub fn share(&self, block: FrameBlock, owner: DomId, writable: bool) -> SharedFrame {
        let mfn = block.mfn;
        self.flush_stale(block.stamp, self.machine.online());
        for rest in block.split().skip(1) {
            self.free(rest);
        }
        self.share_frame(mfn, owner, writable);
        SharedFrame { mfn, writable }
    }

    /// Shares a frame for reading for ever: the machine-to-phys table's frames with [`DomId::XEN`]. Frames without a record are ignored.
    pub fn share_forever(&self, mfn: Mfn, owner: DomId) {
        self.share_frame(mfn, owner, false);
    }

    fn share_frame(&self, mfn: Mfn, owner: DomId, writable: bool) {
        let Some(meta) = self.machine.meta(mfn) else { return };
        if let Some(account) = self.account(owner) {
            account.count_shared();
        }
        let ty = if writable { FrameType::Writable } else { FrameType::ReadOnly };
        meta.kind.store(Kind::first_use(ty).0 | Kind::VALIDATED, Relaxed);
        // The one count is that of the type's uses.
        meta.refs.store(Refs::expect(owner) | Refs::SHARED | 1, Release);
    }

    /// Ends the hypervisor's part in a shared frame. The hypervisor no longer reads or writes it.
    pub fn unshare(&self, frame: SharedFrame) {
        if let Some(meta) = self.machine.meta(frame.mfn) {
            self.drop_use(frame.mfn, meta);
        }
    }

    /// Takes the allocation of a frame from its owner: it is freed when its last user drops it.
    ///
    /// # Errors
    /// [`MmError::Owner`] where it is not `owner`'s memory, or was taken before.
    pub fn release(&self, mfn: Mfn, owner: DomId) -> Result<(), MmError> {
        let meta = self.machine.meta(mfn).ok_or(MmError::NotRam(mfn))?;
        let mut refs = Refs(meta.refs.load(Acquire));
        loop {
            if refs.0 & (Refs::IDENTITY | Refs::ALLOCATED) != Refs::expect(owner) | Refs::ALLOCATED {
                return Err(self.owner_error(mfn, refs, owner));
            }
            match meta.refs.compare_exchange_weak(refs.0, refs.0 & !Refs::ALLOCATED, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => refs = Refs(now),
            }
        }
        self.put_page(mfn, meta);
        Ok(())
    }

    /// Takes a frame out of a domain's memory whole, contents and all; nobody else uses it. For exchanges of memory.
    ///
    /// # Errors
    /// [`MmError::Owner`] where it is not `owner`'s memory; [`MmError::InUse`] where it is mapped or otherwise in use.
    pub fn steal(&self, mfn: Mfn, owner: DomId) -> Result<FrameBlock, MmError> {
        let meta = self.machine.meta(mfn).ok_or(MmError::NotRam(mfn))?;
        let account = self.accounts.get(owner).ok_or(MmError::Dying(owner))?;
        let mut refs = Refs(meta.refs.load(Acquire));
        loop {
            if refs.0 & (Refs::IDENTITY | Refs::ALLOCATED) != Refs::expect(owner) | Refs::ALLOCATED {
                return Err(self.owner_error(mfn, refs, owner));
            }
            if refs.count() != 1 {
                return Err(MmError::InUse(mfn));
            }
            match meta.refs.compare_exchange_weak(refs.0, 0, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => refs = Refs(now),
            }
        }
        meta.kind.store(0, Relaxed);
        account.discharge(1);
        self.machine.set_m2p(mfn, u64::MAX);
        Ok(FrameBlock { mfn, order: 0, stamp: self.machine.flush_clock() })
    }

    fn zero(&self, block: &FrameBlock) {
        for i in 0..1 << block.order {
            self.machine.zero_frame(block.mfn.offset(i));
        }
    }

    fn publish(&self, block: &FrameBlock, owner: DomId, account: &Account) {
        account.regions.mark(self.machine.max_mfn(), block.mfn, block.order);
        for i in 0..1 << block.order {
            if let Some(meta) = self.machine.meta(block.mfn.offset(i)) {
                meta.kind.store(0, Relaxed);
                meta.refs.store(Refs::expect(owner) | Refs::ALLOCATED | 1, Release);
            }
        }
    }

    fn take(&self, account: Option<&Account>, order: u32, address_bits: u32) -> Result<FrameBlock, MmError> {
        let wanted = 1_u64.checked_shl(order).ok_or(MmError::NoMemory)?;
        let taken = {
            let mut buddy = self.buddy.lock();
            let own = account.map_or(0, Account::claim);
            let others = self.claimed_frames() - own;
            if wanted > buddy.free_frames().saturating_sub(others) {
                return Err(MmError::NoMemory);
            }
            let taken = buddy.take(self.machine, order, address_bits);
            if let Some(account) = account.filter(|_| taken.is_some() && own != 0) {
                let used = wanted.min(own);
                account.set_claim(own - used);
                self.claimed.fetch_sub(used, Relaxed);
            }
            taken
        };
        let (mfn, stamp) = taken.ok_or(MmError::NoMemory)?;
        self.flush_stale(stamp, self.machine.online());
        Ok(FrameBlock { mfn, order, stamp: 0 })
    }

    /// The last count of a frame is gone: `refs` is what the word was before.
    #[cold]
    #[inline(never)]
    pub(crate) fn freed(&self, mfn: Mfn, meta: &FrameMeta, refs: Refs) {
        meta.kind.store(0, Relaxed);
        self.machine.set_m2p(mfn, u64::MAX);
        let stamp = self.machine.flush_clock();
        self.buddy.lock().give(self.machine, mfn, 0, stamp);
        if let Some(account) = refs.owner().and_then(|owner| self.accounts.get(owner)) {
            if refs.has(Refs::SHARED) {
                account.discount_shared();
            } else {
                account.discharge(1);
            }
            self.tell_of_dying(account);
        }
    }

    /// Takes the allocation of a frame that nobody else uses from its owner, if it is such a frame. The caller collects such frames for
    /// [`Mm::give_run`].
    pub(crate) fn take_unused(&self, mfn: Mfn, meta: &FrameMeta, owner: DomId) -> bool {
        let unused = Refs::expect(owner) | Refs::ALLOCATED | 1;
        let is_table = Kind(meta.kind.load(Relaxed)).has(Kind::PINNED | Kind::PARTIAL);
        // That others had it mapped once does not matter any more: every processor flushes before the frame is given out again.
        let refs = meta.refs.load(Relaxed);
        let taken = !is_table && refs & !Refs::FOREIGN == unused && meta.refs.compare_exchange(refs, 0, AcqRel, Relaxed).is_ok();
        if taken {
            meta.kind.store(0, Relaxed);
            self.machine.set_m2p(mfn, u64::MAX);
        }
        taken
    }

    /// Frees the `count` frames from `first` on, which [`Mm::take_unused`] took from `owner`.
    pub(crate) fn give_run(&self, first: Mfn, count: u64, owner: DomId) {
        if count == 0 {
            return;
        }
        let stamp = self.machine.flush_clock();
        let (mut at, end) = (first.0, first.0 + count);
        let mut buddy = self.buddy.lock();
        while at < end {
            let order = (63 - (end - at).leading_zeros()).min(at.trailing_zeros()).min(buddy::MAX_ORDER);
            buddy.give(self.machine, Mfn(at), order, stamp);
            at += 1 << order;
        }
        drop(buddy);
        if let Some(account) = self.accounts.get(owner) {
            account.discharge(count);
            self.tell_of_dying(account);
        }
    }

    fn tell_of_dying(&self, account: &Account) {
        if account.is_dying() {
            // Perhaps the last one: the processor looks at what is left of dying domains when it next takes interrupts.
            self.freed_of_dying.store(true, SeqCst);
            self.machine.kick(self.machine.this_cpu());
        }
    }

    /// True where a frame of a dying domain was freed since the last call.
    pub fn take_freed_of_dying(&self) -> bool {
        self.freed_of_dying.load(Relaxed) && self.freed_of_dying.swap(false, SeqCst)
    }

    /// Has every processor of `cpus` flushed that has not done so since the flush clock stood at `stamp`; stamp 0 means that there is nothing to flush.
    pub(crate) fn flush_stale(&self, stamp: u32, cpus: &CpuSet) {
        if stamp == 0 {
            return;
        }
        let stale = CpuSet::new();
        let mut any = false;
        for cpu in cpus.iter() {
            if self.machine.last_flush(cpu) <= stamp {
                stale.insert(cpu);
                any = true;
            }
        }
        if any {
            self.machine.flush_remote(&stale, FlushScope::All);
        }
    }
}
