//! What the journal says, as bytes: little-endian numbers, strings with their length in front.

use crate::tree::Change;
use oxen_xenstore::{Access, Perm, Perms};
use std::rc::Rc;

/// One fact. A frame of them takes effect as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the description of each record names its fields")]
pub enum Record<'a> {
    /// A node gets a value; with permissions, it is made if it does not exist.
    Write { path: &'a str, value: &'a [u8], created: Option<Perms> },
    /// A node and what lies below it go.
    Remove { path: &'a str },
    /// A node, or a special name, gets permissions.
    Perms { path: &'a str, perms: Perms },
    /// A domain sets a watch; the path is as the domain gave it.
    Watch { domid: u16, path: &'a str, token: &'a [u8] },
    /// A domain removes a watch.
    Unwatch { domid: u16, path: &'a str, token: &'a [u8] },
    /// A domain removes its watches and transactions.
    Reset { domid: u16 },
    /// A domain becomes known.
    Introduce { domid: u16, gfn: u64, port: u32 },
    /// A domain is forgotten, with the nodes that it owns.
    Release { domid: u16 },
    /// A domain gets the rights of another.
    Target { domid: u16, target: u16 },
    /// A domain starts a transaction.
    TransactionStart { domid: u16, id: u32 },
    /// A domain's transaction ends.
    TransactionEnd { domid: u16, id: u32 },
    /// A domain's requests are answered up to this consumer index.
    Consumed { domid: u16, index: u32 },
    /// Bytes of an incomplete request that were taken out of a domain's ring.
    Partial { domid: u16, bytes: &'a [u8] },
    /// Bytes for a domain's ring, the first of which belongs at this producer index.
    Output { domid: u16, index: u32, bytes: &'a [u8] },
    /// Versions up to this one were given away.
    Clock { clock: u64 },
}

/// Builds frames.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Where the frame under way starts.
    frame: Option<usize>,
}

impl Writer {
    /// Complete frames.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the complete frames.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(16 << 10);
    }

    /// Ends the frame under way, if any.
    pub fn end_frame(&mut self) {
        let Some(start) = self.frame.take() else { return };
        let len = (self.bytes.len() - start - 4) as u32;
        if let Some(head) = self.bytes.get_mut(start..start + 4) {
            head.copy_from_slice(&len.to_le_bytes());
        }
    }

    /// Adds a record to the frame under way, or to a new one.
    pub fn put(&mut self, record: &Record<'_>) {
        match record {
            Record::Write { path, value, created: None } => self.tag(1).text(path).blob(value),
            Record::Write { path, value, created: Some(perms) } => self.tag(2).text(path).blob(value).perms(perms),
            Record::Remove { path } => self.tag(3).text(path),
            Record::Perms { path, perms } => self.tag(4).text(path).perms(perms),
            Record::Watch { domid, path, token } => self.tag(5).short(*domid).text(path).blob(token),
            Record::Unwatch { domid, path, token } => self.tag(6).short(*domid).text(path).blob(token),
            Record::Reset { domid } => self.tag(7).short(*domid),
            Record::Introduce { domid, gfn, port } => self.tag(8).short(*domid).long(*gfn).word(*port),
            Record::Release { domid } => self.tag(9).short(*domid),
            Record::Target { domid, target } => self.tag(10).short(*domid).short(*target),
            Record::TransactionStart { domid, id } => self.tag(11).short(*domid).word(*id),
            Record::TransactionEnd { domid, id } => self.tag(12).short(*domid).word(*id),
            Record::Consumed { domid, index } => self.tag(13).short(*domid).word(*index),
            Record::Partial { domid, bytes } => self.tag(14).short(*domid).blob(bytes),
            Record::Output { domid, index, bytes } => self.tag(15).short(*domid).word(*index).blob(bytes),
            Record::Clock { clock } => self.tag(16).long(*clock),
        };
    }

    /// Adds a change of the tree.
    pub fn put_change(&mut self, change: &Change) {
        match change {
            Change::Write { path, value, created } => {
                let value = value.as_deref().unwrap_or_default();
                match created {
                    None => self.tag(1).text(path).blob(value),
                    Some(perms) => self.tag(2).text(path).blob(value).perms(perms),
                };
            }
            Change::Remove { path, .. } => {
                self.tag(3).text(path);
            }
            Change::Perms { path, perms, .. } => {
                self.tag(4).text(path).perms(perms);
            }
        }
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        if self.frame.is_none() {
            self.frame = Some(self.bytes.len());
            self.bytes.extend_from_slice(&[0; 4]);
        }
        self.bytes.push(tag);
        self
    }

    fn short(&mut self, value: u16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn blob(&mut self, bytes: &[u8]) -> &mut Self {
        self.word(bytes.len() as u32);
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.blob(text.as_bytes())
    }

    fn perms(&mut self, perms: &Perms) -> &mut Self {
        self.word(1 + perms.others().len() as u32);
        for entry in perms.entries() {
            self.short(entry.domid);
            self.bytes.push(access_code(entry.access));
        }
        self
    }
}

const fn access_code(access: Access) -> u8 {
    match access {
        Access::None => 0,
        Access::Read => 1,
        Access::Write => 2,
        Access::Both => 3,
    }
}

/// Reads the frame at the start of `bytes`: its records and what follows it. `None` when it is incomplete or makes no sense: there the
/// journal ends.
pub fn read_frame(bytes: &[u8]) -> Option<(Vec<Record<'_>>, &[u8])> {
    let mut reader = Reader { bytes };
    let len = reader.word()? as usize;
    let (frame, rest) = reader.bytes.split_at_checked(len)?;
    let mut reader = Reader { bytes: frame };
    let mut records = Vec::new();
    while !reader.bytes.is_empty() {
        records.push(reader.record()?);
    }
    Some((records, rest))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn blob(&mut self) -> Option<&'a [u8]> {
        let len = self.word()? as usize;
        let (blob, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(blob)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.blob()?).ok()
    }

    fn perms(&mut self) -> Option<Perms> {
        let count = self.word()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let domid = self.short()?;
            let access = match self.byte()? {
                0 => Access::None,
                1 => Access::Read,
                2 => Access::Write,
                3 => Access::Both,
                _ => return None,
            };
            entries.push(Perm::new(domid, access));
        }
        Perms::from_entries(entries)
    }

    fn record(&mut self) -> Option<Record<'a>> {
        Some(match self.byte()? {
            1 => Record::Write { path: self.text()?, value: self.blob()?, created: None },
            2 => Record::Write { path: self.text()?, value: self.blob()?, created: Some(self.perms()?) },
            3 => Record::Remove { path: self.text()? },
            4 => Record::Perms { path: self.text()?, perms: self.perms()? },
            5 => Record::Watch { domid: self.short()?, path: self.text()?, token: self.blob()? },
            6 => Record::Unwatch { domid: self.short()?, path: self.text()?, token: self.blob()? },
            7 => Record::Reset { domid: self.short()? },
            8 => Record::Introduce { domid: self.short()?, gfn: self.long()?, port: self.word()? },
            9 => Record::Release { domid: self.short()? },
            10 => Record::Target { domid: self.short()?, target: self.short()? },
            11 => Record::TransactionStart { domid: self.short()?, id: self.word()? },
            12 => Record::TransactionEnd { domid: self.short()?, id: self.word()? },
            13 => Record::Consumed { domid: self.short()?, index: self.word()? },
            14 => Record::Partial { domid: self.short()?, bytes: self.blob()? },
            15 => Record::Output { domid: self.short()?, index: self.word()?, bytes: self.blob()? },
            16 => Record::Clock { clock: self.long()? },
            _ => return None,
        })
    }
}

impl Record<'_> {
    /// The change of the tree that a record about nodes stands for; `None` for other records. What the change takes away is not
    /// known: it is for applying only.
    pub fn change(&self, tree: &crate::tree::Tree) -> Option<Change> {
        let shared = |bytes: &[u8]| (!bytes.is_empty()).then(|| Rc::from(bytes));
        match self {
            Record::Write { path, value, created } => {
                Some(Change::Write { path: Rc::from(*path), value: shared(value), created: created.clone().map(Rc::new) })
            }
            Record::Remove { path } => Some(Change::Remove { path: Rc::from(*path), node: Rc::clone(tree.get(path)?) }),
            Record::Perms { path, perms } => {
                let before = Rc::clone(tree.get(path)?.perms());
                Some(Change::Perms { path: Rc::from(*path), perms: Rc::new(perms.clone()), before })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Record<'static>> {
        let perms = Perms::owned(3, Access::None).and(4, Access::Both).and(5, Access::Write);
        vec![
            Record::Write { path: "/a", value: b"x", created: None },
            Record::Write { path: "/a/b", value: b"", created: Some(perms.clone()) },
            Record::Remove { path: "/a" },
            Record::Perms { path: "@releaseDomain", perms },
            Record::Watch { domid: 3, path: "device", token: b"\xfftoken" },
            Record::Unwatch { domid: 3, path: "/a", token: b"" },
            Record::Reset { domid: 9 },
            Record::Introduce { domid: 1, gfn: u64::MAX, port: 7 },
            Record::Release { domid: 1 },
            Record::Target { domid: 1, target: 2 },
            Record::TransactionStart { domid: 1, id: 4 },
            Record::TransactionEnd { domid: 1, id: 4 },
            Record::Consumed { domid: 1, index: u32::MAX },
            Record::Partial { domid: 1, bytes: b"abc" },
            Record::Output { domid: 1, index: 12, bytes: b"def" },
            Record::Clock { clock: 1 << 40 },
        ]
    }

    #[test]
    fn every_record_comes_back() {
        let mut writer = Writer::default();
        all().iter().for_each(|record| writer.put(record));
        writer.end_frame();
        writer.put(&Record::Reset { domid: 1 });
        writer.end_frame();
        let (records, rest) = read_frame(writer.bytes()).unwrap();
        assert_eq!(records, all());
        assert_eq!(read_frame(rest).unwrap().0, [Record::Reset { domid: 1 }]);
    }

    #[test]
    fn cut_off_frames_do_not_count() {
        let mut writer = Writer::default();
        all().iter().for_each(|record| writer.put(record));
        writer.end_frame();
        for end in 0..writer.bytes().len() {
            assert_eq!(read_frame(&writer.bytes()[..end]), None);
        }
    }
}
