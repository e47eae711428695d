//! How much memory each domain has.

use crate::MmError;
use crate::regions::Regions;
use alloc::boxed::Box;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU64};
use oxen_sync::OnceCell;
use oxen_types::DomId;

const CHUNK: usize = 256;
const CHUNKS: usize = DomId::FIRST_RESERVED.0 as usize / CHUNK + 1;

/// What one domain has and may have, in frames.
#[derive(Debug, Default)]
pub struct Account {
    pages: AtomicU64,
    limit: AtomicU64,
    /// Frames set aside for the domain that it has not been given yet. Changed under the allocator's lock only.
    claim: AtomicU64,
    /// Frames that the hypervisor shares with the domain and that are not free yet.
    shared: AtomicU64,
    /// Gifts of memory that have been counted and whose frames may not be marked as the domain's yet.
    arriving: AtomicU64,
    dying: AtomicBool,
    /// Where the domain's frames are.
    pub(crate) regions: Regions,
}

impl Account {
    /// Frames that belong to the domain, including those that it gave up while somebody still uses them.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages.load(Acquire)
    }

    /// The most that the domain may have.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Sets the most that the domain may have; it keeps what it has.
    pub fn set_limit(&self, pages: u64) {
        self.limit.store(pages, Relaxed);
    }

    /// Frames that are set aside for the domain.
    #[must_use]
    pub fn claim(&self) -> u64 {
        self.claim.load(Relaxed)
    }

    /// Frames that the hypervisor shares with the domain, and those that it shared with it while somebody still maps them.
    #[must_use]
    pub fn shared(&self) -> u64 {
        self.shared.load(Acquire)
    }

    pub(crate) fn count_shared(&self) {
        self.shared.fetch_add(1, AcqRel);
    }

    pub(crate) fn discount_shared(&self) {
        self.shared.fetch_sub(1, AcqRel);
    }

    pub(crate) fn set_claim(&self, pages: u64) {
        self.claim.store(pages, Relaxed);
    }

    /// True once the domain's memory is being taken away.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        self.dying.load(SeqCst)
    }

    /// From now on nothing is given to the domain.
    pub fn set_dying(&self) {
        self.dying.store(true, SeqCst);
    }

    /// Makes the account that of a new domain of the same number. The old one has no frame left: [`Account::pages`] is 0.
    pub fn reset(&self) {
        self.limit.store(0, Relaxed);
        self.regions.clear();
        self.dying.store(false, SeqCst);
    }

    /// Counts `n` frames as the domain's, if it may have them and `limit` allows. Until [`Account::arrived`] the domain's memory is not taken away.
    pub(crate) fn charge(&self, owner: DomId, n: u64, limit: u64) -> Result<(), MmError> {
        // In this order: who sets the flag and then finds nothing arriving knows that all that came before is marked.
        self.arriving.fetch_add(1, SeqCst);
        let charged = if self.is_dying() {
            Err(MmError::Dying(owner))
        } else {
            self.pages
                .fetch_update(AcqRel, Relaxed, |pages| pages.checked_add(n).filter(|&sum| sum <= limit))
                .map(|_| ())
                .map_err(|_| MmError::OverLimit(owner))
        };
        if charged.is_err() {
            self.arrived();
        }
        charged
    }

    /// The frames of one [`Account::charge`] are marked as the domain's, or will not be.
    pub(crate) fn arrived(&self) {
        self.arriving.fetch_sub(1, SeqCst);
    }

    /// True while frames are being given to the domain.
    pub(crate) fn is_arriving(&self) -> bool {
        self.arriving.load(SeqCst) != 0
    }

    /// Counts `n` frames as no longer the domain's.
    pub(crate) fn discharge(&self, n: u64) {
        self.pages.fetch_sub(n, AcqRel);
    }
}

/// The accounts of all domains; memory for them is taken in chunks, when the first domain of a chunk appears.
#[derive(Debug)]
pub(crate) struct Accounts {
    chunks: [OnceCell<Box<[Account]>>; CHUNKS],
}

impl Accounts {
    pub const fn new() -> Self {
        Self { chunks: [const { OnceCell::new() }; CHUNKS] }
    }

    /// The account of a domain that has been opened.
    #[inline]
    pub fn get(&self, domain: DomId) -> Option<&Account> {
        let n = domain.0 as usize;
        self.chunks.get(n / CHUNK)?.get()?.get(n % CHUNK)
    }

    /// The account of an ordinary domain.
    pub fn open(&self, domain: DomId) -> Option<&Account> {
        if !domain.is_ordinary() {
            return None;
        }
        let cell = self.chunks.get(domain.0 as usize / CHUNK)?;
        if cell.get().is_none() {
            let chunk: Box<[Account]> = (0..CHUNK).map(|_| Account::default()).collect();
            // Somebody else may have been first; its chunk is as good.
            let _ = cell.set(chunk);
        }
        self.get(domain)
    }
}
