//! Changes that are sent together.

use super::Store;
use crate::error::{Error, Result};
use crate::perms::Perms;
use oxen_abi::io::xs_wire::XsType;

/// Changes of nodes that take effect together. They are sent in one go, so that many cost hardly more time than one; each on its own costs a round trip
/// to the daemon.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    requests: Vec<Request>,
}

/// A request whose answer says no more than that it was carried out.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub kind: XsType,
    pub payload: Vec<u8>,
    /// Whether it is no error when there is nothing to change.
    pub may_miss: bool,
}

impl Batch {
    /// As [`super::Nodes::write`].
    pub fn write(&mut self, path: &str, value: impl AsRef<[u8]>) {
        self.add(XsType::WRITE, path, value.as_ref(), false);
    }

    /// As [`super::Nodes::set_perms`].
    pub fn set_perms(&mut self, path: &str, perms: &Perms) {
        self.add(XsType::SET_PERMS, path, &perms.to_payload(), false);
    }

    /// As [`super::Nodes::rm_if_exists`].
    pub fn rm_if_exists(&mut self, path: &str) {
        self.add(XsType::RM, path, &[], true);
    }

    fn add(&mut self, kind: XsType, path: &str, argument: &[u8], may_miss: bool) {
        self.requests.push(Request { kind, payload: [path.as_bytes(), b"\0", argument].concat(), may_miss });
    }

    pub(super) fn requests(&self) -> &[Request] {
        &self.requests
    }
}

impl Store {
    /// Carries out all of a batch or nothing, in one transaction, again for as long as somebody else interferes.
    ///
    /// # Errors
    ///
    /// That of the first change that was refused; those of [`Store::transaction`].
    pub fn apply(&self, batch: &Batch) -> Result<()> {
        self.transaction(|transaction| transaction.send(batch))
    }
}

/// The error of the first request that was refused, unless that does not matter.
pub(super) fn first_refusal(results: impl Iterator<Item = Result<Vec<u8>>>, requests: &[Request]) -> Result<()> {
    let refused = |(result, request): (Result<Vec<u8>>, &Request)| result.err().filter(|error: &Error| !(request.may_miss && error.is_not_found()));
    results.zip(requests).find_map(refused).map_or(Ok(()), Err)
}
