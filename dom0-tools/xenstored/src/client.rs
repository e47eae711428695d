//! What the daemon knows of one connection.

use crate::transaction::Transaction;
use crate::watch::Watch;
use oxen_abi::io::xs_wire::XsType;
use oxen_xenstore::{Access, Perms, wire};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Events that wait are searched for an equal one from this many bytes on.
const SEARCH_FROM: usize = 512;

/// Bytes of memory that an empty output keeps.
const KEEP: usize = 512;

/// A connection: a program of domain 0 over the socket, or a domain over its ring.
#[derive(Debug)]
pub struct Client {
    /// The domain at the other end.
    pub domid: u16,
    /// The domain whose rights it has too.
    pub target: Option<u16>,
    /// Whether it may change anything.
    pub writable: bool,
    /// Whether it is a ring: then what it is sent goes into the journal.
    pub ring: bool,
    /// Its watches.
    pub watches: Vec<Rc<Watch>>,
    /// Its transactions.
    pub transactions: BTreeMap<u32, Transaction>,
    /// The last transaction's number.
    pub last_transaction: u32,
    /// What it is to be sent.
    pub output: Output,
    /// Whether it is on the list of clients with new output.
    pub dirty: bool,
    /// The start of a request that is not complete yet.
    pub partial: Vec<u8>,
    /// Of a ring: the consumer index after `partial`.
    pub consumed: u32,
}

/// Bytes on their way to a client.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Bytes that are sent.
    sent: usize,
    /// Bytes that the journal has.
    journaled: usize,
    /// The place of `bytes[0]` in everything that was ever sent: the ring's producer index.
    index: u32,
}

impl Client {
    /// A new connection.
    pub fn new(domid: u16, writable: bool, ring: bool) -> Self {
        Self {
            domid,
            target: None,
            writable,
            ring,
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            last_transaction: 0,
            output: Output::default(),
            dirty: false,
            partial: Vec::new(),
            consumed: 0,
        }
    }

    /// Whether quotas and permissions do not apply.
    pub fn is_privileged(&self) -> bool {
        self.domid == 0
    }

    /// What it may do with a node of these permissions.
    pub fn access(&self, perms: &Perms) -> Access {
        let own = perms.access(self.domid);
        match (own, self.target.map(|target| perms.access(target))) {
            (own, None | Some(Access::None)) => own,
            (Access::None, Some(other)) => other,
            (own, Some(other)) if own == other => own,
            _ => Access::Both,
        }
    }
}

impl Output {
    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Adds a message.
    pub fn put(&mut self, kind: XsType, req_id: u32, tx_id: u32, parts: &[&[u8]]) {
        wire::put_message(&mut self.bytes, kind, req_id, tx_id, parts);
    }

    /// Adds a message whose payload of `len` bytes is a list of strings, each with a zero byte.
    pub fn put_strings<'a>(&mut self, kind: XsType, req_id: u32, tx_id: u32, len: usize, strings: impl Iterator<Item = &'a str>) {
        wire::put_head(&mut self.bytes, kind, req_id, tx_id, len);
        for string in strings {
            self.bytes.extend_from_slice(string.as_bytes());
            self.bytes.push(0);
        }
    }

    /// Whether an equal message waits already, of which nothing is sent yet. A short queue is not searched.
    pub fn has_waiting(&self, kind: XsType, parts: &[&[u8]]) -> bool {
        if self.bytes.len() - self.sent < SEARCH_FROM {
            return false;
        }
        let mut rest = self.bytes.as_slice();
        while let Ok(Some((head, payload))) = wire::first_message(rest) {
            let len = wire::HEAD_LEN + payload.len();
            let unsent = self.bytes.len() - rest.len() >= self.sent;
            if unsent && head.kind == kind && is_joined(payload, parts) {
                return true;
            }
            rest = rest.get(len..).unwrap_or_default();
        }
        false
    }

    /// Notes that `count` waiting bytes are sent.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.index = self.index.wrapping_add(self.bytes.len() as u32);
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.sent = 0;
            self.journaled = 0;
            return;
        }
        // Whole messages that are sent go; what is left starts at a message.
        let mut done = 0;
        while let Some(Ok(Some((_, payload)))) = self.bytes.get(done..).map(wire::first_message) {
            let next = done + wire::HEAD_LEN + payload.len();
            if next > self.sent {
                break;
            }
            done = next;
        }
        if done >= 16 << 10 || done > self.bytes.len() / 2 {
            self.bytes.drain(..done);
            self.sent -= done;
            self.journaled = self.journaled.saturating_sub(done);
            self.index = self.index.wrapping_add(done as u32);
        }
    }

    /// What the journal does not have yet, and its place; from now on it counts as journaled.
    pub fn take_unjournaled(&mut self) -> Option<(u32, &[u8])> {
        let from = self.journaled;
        self.journaled = self.bytes.len();
        let new = self.bytes.get(from..).filter(|new| !new.is_empty())?;
        Some((self.index.wrapping_add(from as u32), new))
    }

    /// Everything from the start of the first message that is not sent as a whole, and its place.
    pub fn unfinished(&self) -> (u32, &[u8]) {
        (self.index, &self.bytes)
    }

    /// Starts anew at a producer index.
    pub fn reset(&mut self, index: u32) {
        *self = Self { index, ..Self::default() };
    }

    /// Adds bytes out of the journal that belong at `index`. Bytes that do not continue what there is start it anew.
    pub fn restore(&mut self, index: u32, bytes: &[u8]) {
        if index != self.index.wrapping_add(self.bytes.len() as u32) {
            self.reset(index);
        }
        self.bytes.extend_from_slice(bytes);
        self.journaled = self.bytes.len();
    }

    /// After a restart: the ring's producer index says how much of it was sent. `false` if that cannot be.
    pub fn resume(&mut self, producer: u32) -> bool {
        let sent = producer.wrapping_sub(self.index) as usize;
        if sent > self.bytes.len() {
            return false;
        }
        self.advance(sent);
        true
    }
}

/// Whether `whole` consists of `parts`.
fn is_joined(mut whole: &[u8], parts: &[&[u8]]) -> bool {
    for part in parts {
        match whole.strip_prefix(*part) {
            Some(rest) => whole = rest,
            None => return false,
        }
    }
    whole.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_keeps_its_place() {
        let mut output = Output::default();
        output.put(XsType::READ, 1, 0, &[&[7; 100]]);
        output.put(XsType::READ, 2, 0, &[&[8; 50]]);
        assert_eq!(output.take_unjournaled().unwrap().0, 0);
        output.advance(120);
        assert_eq!(output.unfinished().0, 116);
        output.put(XsType::READ, 3, 0, &[b"x"]);
        assert_eq!(output.take_unjournaled().map(|(index, new)| (index, new.len())), Some((182, 17)));
        let mut again = Output::default();
        let (index, bytes) = output.unfinished();
        again.restore(index, bytes);
        assert!(again.resume(120));
        assert_eq!(again.waiting(), output.waiting());
        assert!(!again.clone_for_test().resume(5000));
        output.advance(79);
        assert_eq!(output.unfinished(), (199, &[][..]));
    }

    impl Output {
        fn clone_for_test(&self) -> Self {
            Self { bytes: self.bytes.clone(), ..*self }
        }
    }

    #[test]
    fn equal_events_are_found() {
        let mut output = Output::default();
        let event: [&[u8]; 2] = [b"/a\0", b"token\0"];
        output.put(XsType::WATCH_EVENT, 0, 0, &event);
        assert!(!output.has_waiting(XsType::WATCH_EVENT, &event), "short queues are not searched");
        output.put(XsType::READ, 0, 0, &[&[0; 600]]);
        assert!(output.has_waiting(XsType::WATCH_EVENT, &event));
        assert!(!output.has_waiting(XsType::WATCH_EVENT, &[b"/b\0", b"token\0"]));
        output.advance(1);
        assert!(!output.has_waiting(XsType::WATCH_EVENT, &event), "a message that is half sent is no longer waiting");
    }

    #[test]
    fn a_target_adds_its_rights() {
        let mut client = Client::new(3, true, true);
        let perms = Perms::owned(4, Access::None).and(3, Access::Read);
        assert_eq!(client.access(&perms), Access::Read);
        client.target = Some(4);
        assert_eq!(client.access(&perms), Access::Both);
    }
}
