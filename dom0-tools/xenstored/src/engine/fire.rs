//! Who learns of a change.

use super::{Dirty, Engine};
use crate::client::Client;
use crate::limits::{Limits, QuotaLog};
use crate::tree::{self, Change, Tree};
use crate::watch::Watch;
use oxen_abi::io::xs_wire::XsType;
use oxen_xenstore::{Perms, path};
use slab::Slab;
use std::rc::Rc;

/// A client of domain 0 that leaves this many bytes unread is cut off.
pub const SOCKET_QUEUE: usize = 64 << 20;

impl Engine {
    /// Sends the events of a change that the live tree has already.
    pub(super) fn fire(&mut self, change: &Change) {
        if self.watches.is_empty() {
            return;
        }
        let mut sender = Sender { live: &self.live, clients: &mut self.clients, dirty: &mut self.dirty, limits: &self.limits, quota_log: &mut self.quota_log };
        let path = change.path();
        let before = match change {
            Change::Write { .. } => None,
            Change::Remove { node, .. } => Some(node.perms()),
            Change::Perms { before, .. } => Some(before),
        };
        for watch in self.watches.above(path) {
            sender.event(watch, path, before);
        }
        let Change::Remove { node, .. } = change else { return };
        tree::walk(path, node, |below, gone| {
            if below != &**path {
                for watch in self.watches.at(below) {
                    sender.event(watch, below, Some(gone.perms()));
                }
            }
        });
    }

    /// Sends the events of a special name.
    pub(super) fn fire_special(&mut self, name: &str) {
        let perms = Rc::clone(self.special_perms(name));
        let mut sender = Sender { live: &self.live, clients: &mut self.clients, dirty: &mut self.dirty, limits: &self.limits, quota_log: &mut self.quota_log };
        for watch in self.watches.at(name) {
            if sender.clients.get(watch.client).is_some_and(|client| client.access(&perms).reads()) {
                sender.send(watch, name);
            }
        }
    }

    /// Sends the event that a new watch starts with.
    pub(super) fn fire_first(&mut self, watch: &Rc<Watch>) {
        let mut sender = Sender { live: &self.live, clients: &mut self.clients, dirty: &mut self.dirty, limits: &self.limits, quota_log: &mut self.quota_log };
        sender.send(watch, &watch.path);
    }
}

struct Sender<'a> {
    live: &'a Tree,
    clients: &'a mut Slab<Client>,
    dirty: &'a mut Dirty,
    limits: &'a Limits,
    quota_log: &'a mut QuotaLog,
}

impl Sender<'_> {
    /// Sends an event to a client that may read the node, as it is or was, or the one above it.
    fn event(&mut self, watch: &Watch, path: &str, before: Option<&Rc<Perms>>) {
        let Some(client) = self.clients.get(watch.client) else { return };
        if !client.is_privileged() {
            let reads = |perms: &Perms| client.access(perms).reads();
            let at = |path: &str| self.live.get(path).is_some_and(|node| reads(node.perms()));
            if !(before.is_some_and(|perms| reads(perms)) || at(path) || path::parent(path).is_some_and(at)) {
                return;
            }
        }
        self.send(watch, path);
    }

    fn send(&mut self, watch: &Watch, path: &str) {
        let Some(client) = self.clients.get_mut(watch.client) else { return };
        let shown = path.get(watch.hidden..).unwrap_or(path);
        let parts = [shown.as_bytes(), b"\0", &watch.token, b"\0"];
        if client.output.has_waiting(XsType::WATCH_EVENT, &parts) {
            return;
        }
        let waiting = client.output.waiting().len();
        if client.ring && !client.is_privileged() && waiting > self.limits.queue as usize {
            self.quota_log.hit(client.domid, "queue", waiting, self.limits.queue, path);
            return;
        }
        client.output.put(XsType::WATCH_EVENT, 0, 0, &parts);
        self.dirty.mark(client, watch.client);
    }
}
