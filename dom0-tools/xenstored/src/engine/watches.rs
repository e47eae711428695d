//! Setting and removing watches.

use super::{Answer, Engine, Request, strings};
use crate::journal::record::Record;
use crate::watch::Watch;
use oxen_abi::Errno;
use oxen_abi::io::xs_wire::XENSTORE_REL_PATH_MAX;
use oxen_xenstore::path;
use std::rc::Rc;

impl Engine {
    pub(super) fn watch(&mut self, request: &Request<'_>) -> Answer {
        let (given, token) = path_and_token(request.payload)?;
        let client = self.clients.get(request.client).ok_or(Errno::EINVAL)?;
        let (domid, ring, count) = (client.domid, client.ring, client.watches.len());
        if !client.is_privileged() && count >= self.limits.watches as usize {
            self.over(request, "watches", count + 1, self.limits.watches, given);
            return Err(Errno::E2BIG);
        }
        let watch = self.new_watch(request, given, token)?;
        if self.same_watch(&watch).is_some() {
            return Err(Errno::EEXIST);
        }
        if ring {
            self.journal.put(&Record::Watch { domid, path: given, token });
        }
        self.add_watch(&watch);
        self.ok(request)?;
        self.fire_first(&watch);
        Ok(())
    }

    pub(super) fn unwatch(&mut self, request: &Request<'_>) -> Answer {
        let (given, token) = path_and_token(request.payload)?;
        let like = self.new_watch(request, given, token)?;
        let watch = self.same_watch(&like).ok_or(Errno::ENOENT)?;
        let client = self.clients.get_mut(request.client).ok_or(Errno::EINVAL)?;
        client.watches.retain(|other| !Rc::ptr_eq(other, &watch));
        let (domid, ring) = (client.domid, client.ring);
        self.watches.remove(&watch);
        if ring {
            self.journal.put(&Record::Unwatch { domid, path: given, token });
        }
        self.ok(request)
    }

    pub(super) fn reset_watches(&mut self, request: &Request<'_>) -> Answer {
        let client = self.clients.get(request.client).ok_or(Errno::EINVAL)?;
        if client.ring {
            self.journal.put(&Record::Reset { domid: client.domid });
        }
        self.drop_watches(request.client);
        self.ok(request)
    }

    /// Removes a client's watches and transactions.
    pub(super) fn drop_watches(&mut self, client: usize) {
        let Some(client) = self.clients.get_mut(client) else { return };
        client.transactions.clear();
        for watch in client.watches.drain(..) {
            self.watches.remove(&watch);
        }
    }

    pub(super) fn add_watch(&mut self, watch: &Rc<Watch>) {
        if let Some(client) = self.clients.get_mut(watch.client) {
            client.watches.push(Rc::clone(watch));
            self.watches.add(watch);
        }
    }

    /// A watch as a client describes it.
    pub(super) fn new_watch(&self, request: &Request<'_>, given: &str, token: &[u8]) -> Result<Rc<Watch>, Errno> {
        if path::is_special(given) {
            return Ok(Rc::new(Watch { client: request.client, path: Rc::from(given), hidden: 0, token: Box::from(token) }));
        }
        let absolute = self.absolute(request, given)?;
        let hidden = absolute.len() - given.len();
        Ok(Rc::new(Watch { client: request.client, path: Rc::from(&*absolute), hidden, token: Box::from(token) }))
    }

    /// The client's watch that is the same to it.
    pub(super) fn same_watch(&self, like: &Watch) -> Option<Rc<Watch>> {
        let same = |watch: &&Rc<Watch>| watch.client == like.client && watch.hidden == like.hidden && watch.token == like.token;
        self.watches.at(&like.path).iter().find(same).cloned()
    }
}

/// What both requests consist of.
fn path_and_token(payload: &[u8]) -> Result<(&str, &[u8]), Errno> {
    let mut strings = strings(payload).ok_or(Errno::EINVAL)?;
    match (strings.next(), strings.next()) {
        (Some(path), Some(token)) if token.len() <= XENSTORE_REL_PATH_MAX => Ok((path, token.as_bytes())),
        _ => Err(Errno::EINVAL),
    }
}
