//! Transactions.

use super::batch::{Batch, first_refusal};
use super::{Nodes, Store};
use crate::error::{Cause, Error, Result};
use oxen_abi::Errno;
use oxen_abi::io::xs_wire::XsType;

/// A transaction under way: what [`Nodes`] does through it is seen by others when it is committed, all at once. Dropping it gives
/// it up.
#[derive(Debug)]
pub struct Transaction<'store> {
    store: &'store Store,
    id: u32,
    /// The connection that it belongs to.
    epoch: u64,
    ended: bool,
}

impl<'store> Transaction<'store> {
    pub(super) fn start(store: &'store Store) -> Result<Self> {
        let mut state = store.shared.lock();
        let answer = store.shared.request(&mut state, XsType::TRANSACTION_START, 0, &[b"\0"])?;
        let text = answer.strip_suffix(b"\0").unwrap_or(&answer);
        let id = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).filter(|id| *id != 0);
        let id = id.ok_or_else(|| Error::new("transaction_start", "", Cause::BadAnswer("no transaction number")))?;
        Ok(Self { store, id, epoch: state.epoch, ended: false })
    }

    /// Does what `batch` says as part of the transaction.
    ///
    /// # Errors
    ///
    /// That of the first change that was refused; the others may have been carried out, which the commit would make visible.
    pub fn send(&self, batch: &Batch) -> Result<()> {
        let mut state = self.store.shared.lock();
        self.check_epoch(state.epoch)?;
        let results = self.store.shared.requests(&mut state, self.id, batch.requests())?;
        first_refusal(results.into_iter(), batch.requests())
    }

    /// Makes the changes take effect.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if somebody else changed what the transaction read or wrote: nothing took effect.
    pub fn commit(mut self) -> Result<()> {
        self.end(b"T\0")
    }

    /// Gives the changes up.
    ///
    /// # Errors
    ///
    /// [`Cause::Io`] when the connection is lost for good.
    pub fn abort(mut self) -> Result<()> {
        self.end(b"F\0")
    }

    /// A transaction ends with its connection.
    fn check_epoch(&self, epoch: u64) -> Result<()> {
        if epoch == self.epoch { Ok(()) } else { Err(Error::new("transaction", "", Cause::Refused(Errno::EAGAIN))) }
    }

    fn end(&mut self, how: &[u8]) -> Result<()> {
        self.ended = true;
        self.call(XsType::TRANSACTION_END, &[how]).map(drop)
    }
}

impl Nodes for Transaction<'_> {
    fn call(&self, kind: XsType, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let mut state = self.store.shared.lock();
        self.check_epoch(state.epoch)?;
        self.store.shared.request(&mut state, kind, self.id, parts)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // Nobody is left to tell; the daemon drops what it has when the connection closes.
            let _ = self.end(b"F\0");
        }
    }
}
