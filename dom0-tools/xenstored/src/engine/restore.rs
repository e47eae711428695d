//! The state as journal records, and back.

use super::{Domain, Engine, Request};
use crate::client::Client;
use crate::journal::record::{Record, Writer, read_frame};
use crate::limits::Limits;
use crate::transaction::Transaction;
use crate::tree::{self, Tree};
use oxen_xenstore::XsType;
use oxen_xenstore::path::{self, INTRODUCE_DOMAIN, RELEASE_DOMAIN};
use oxen_xenstore::wire::Head;
use std::rc::Rc;

/// How far versions jump over a restart: those given away since the last record of the clock must not come again.
const CLOCK_JUMP: u64 = 1 << 40;

/// Bytes of a snapshot that are kept in memory.
const PIECE: usize = 32 << 10;

impl Engine {
    /// Gives the whole state that outlives a restart to `sink`, in pieces of whole frames.
    ///
    /// # Errors
    ///
    /// The first error of `sink`.
    pub fn snapshot<E>(&self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut out = Writer::default();
        let mut result = Ok(());
        out.put(&Record::Clock { clock: self.live.clock() });
        out.put(&Record::Perms { path: INTRODUCE_DOMAIN, perms: (*self.introduce_perms).clone() });
        out.put(&Record::Perms { path: RELEASE_DOMAIN, perms: (*self.release_perms).clone() });
        tree::walk("/", self.live.root(), |path, node| {
            out.put(&Record::Write { path, value: node.value(), created: Some((**node.perms()).clone()) });
            if path == "/" {
                out.put(&Record::Perms { path, perms: (**node.perms()).clone() });
            }
            out.end_frame();
            if out.bytes().len() > PIECE && result.is_ok() {
                result = sink(out.bytes());
                out.clear();
            }
        });
        for (domid, domain) in self.domains() {
            let Some(client) = self.clients.get(domain.client) else { continue };
            snapshot_domain(&mut out, domid, domain, client);
            out.end_frame();
        }
        // Targets last: they name other domains.
        for (domid, target) in self.domains().filter_map(|(domid, domain)| Some((domid, self.clients.get(domain.client)?.target?))) {
            out.put(&Record::Target { domid, target });
        }
        out.end_frame();
        result.and_then(|()| sink(out.bytes()))
    }

    /// The state that a journal tells. Its domains are not connected yet; returns also how many bytes made sense.
    pub fn restore(limits: Limits, journal: &[u8]) -> (Self, usize) {
        let mut engine = Self::empty(limits);
        let mut rest = journal;
        let mut clock = 0;
        while let Some((records, after)) = read_frame(rest) {
            for record in &records {
                if let Record::Clock { clock: told } = record {
                    clock = *told;
                }
                engine.replay(record);
            }
            rest = after;
        }
        let told = engine.live.clock().max(clock);
        engine.live.advance_clock(told.saturating_add(CLOCK_JUMP));
        engine.journal = Writer::default();
        engine.dirty.clear();
        engine.clients.iter_mut().for_each(|(_, client)| client.dirty = false);
        (engine, journal.len() - rest.len())
    }

    /// Makes a fact of the journal true. What does not fit is left out: it can only be a part of what a later fact ends.
    fn replay(&mut self, record: &Record<'_>) {
        match record {
            Record::Perms { path, perms } if path::is_special(path) => self.set_special_perms(path, perms.clone()),
            Record::Write { .. } | Record::Remove { .. } | Record::Perms { .. } => {
                if let Some(change) = record.change(&self.live) {
                    self.live.apply(&change);
                }
            }
            Record::Introduce { domid, gfn, port } => self.replay_introduce(*domid, *gfn, *port),
            Record::Release { domid } => {
                if let Some(domain) = self.domains.remove(domid) {
                    self.remove_client(domain.client);
                }
            }
            Record::Clock { .. } => {}
            Record::Watch { domid, .. }
            | Record::Unwatch { domid, .. }
            | Record::Reset { domid }
            | Record::Target { domid, .. }
            | Record::TransactionStart { domid, .. }
            | Record::TransactionEnd { domid, .. }
            | Record::Consumed { domid, .. }
            | Record::Partial { domid, .. }
            | Record::Output { domid, .. } => {
                if let Some(number) = self.domains.get(domid).map(|domain| domain.client) {
                    self.replay_client(number, record);
                }
            }
        }
    }

    fn replay_introduce(&mut self, domid: u16, gfn: u64, port: u32) {
        if let Some(domain) = self.domains.get_mut(&domid) {
            domain.port = port;
            return;
        }
        let client = self.clients.insert(Client::new(domid, true, true));
        self.domains.insert(domid, Domain { client, gfn, port, shut_down: false });
    }

    fn replay_client(&mut self, number: usize, record: &Record<'_>) {
        if let Record::Watch { path, token, .. } | Record::Unwatch { path, token, .. } = record {
            let head = Head { kind: XsType::WATCH, req_id: 0, tx_id: 0, len: 0 };
            let Ok(watch) = self.new_watch(&Request { client: number, head, payload: &[] }, path, token) else { return };
            match (record, self.same_watch(&watch)) {
                (Record::Watch { .. }, None) => self.add_watch(&watch),
                (Record::Unwatch { .. }, Some(known)) => {
                    self.watches.remove(&known);
                    if let Some(client) = self.clients.get_mut(number) {
                        client.watches.retain(|other| !Rc::ptr_eq(other, &known));
                    }
                }
                _ => {}
            }
            return;
        }
        if matches!(record, Record::Reset { .. }) {
            self.drop_watches(number);
        }
        let live: &Tree = &self.live;
        let Some(client) = self.clients.get_mut(number) else { return };
        match record {
            Record::Target { target, .. } => client.target = Some(*target),
            Record::TransactionStart { id, .. } => {
                client.last_transaction = *id;
                client.transactions.insert(*id, Transaction::lost(live));
            }
            Record::TransactionEnd { id, .. } => {
                client.transactions.remove(id);
            }
            Record::Consumed { index, .. } => {
                client.consumed = *index;
                client.partial = Vec::new();
            }
            Record::Partial { bytes, .. } => {
                client.partial.extend_from_slice(bytes);
                client.consumed = client.consumed.wrapping_add(bytes.len() as u32);
            }
            Record::Output { index, bytes, .. } => client.output.restore(*index, bytes),
            _ => {}
        }
    }
}

fn snapshot_domain(out: &mut Writer, domid: u16, domain: &Domain, client: &Client) {
    out.put(&Record::Introduce { domid, gfn: domain.gfn, port: domain.port });
    for watch in &client.watches {
        out.put(&Record::Watch { domid, path: watch.path.get(watch.hidden..).unwrap_or_default(), token: &watch.token });
    }
    for id in client.transactions.keys() {
        out.put(&Record::TransactionStart { domid, id: *id });
    }
    let before = client.consumed.wrapping_sub(client.partial.len() as u32);
    out.put(&Record::Consumed { domid, index: before });
    if !client.partial.is_empty() {
        out.put(&Record::Partial { domid, bytes: &client.partial });
    }
    let (index, bytes) = client.output.unfinished();
    out.put(&Record::Output { domid, index, bytes });
}
