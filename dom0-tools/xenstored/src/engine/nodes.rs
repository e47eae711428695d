//! Requests about nodes.

use super::{Answer, Engine, Request, one_string, string_and_rest};
use crate::transaction::{LIST, Looked, NODE, SUBTREE};
use crate::tree::{self, Change, Node};
use oxen_abi::Errno;
use oxen_abi::io::xs_wire::XENSTORE_PAYLOAD_MAX;
use oxen_xenstore::wire::Head;
use oxen_xenstore::{Perms, path};
use std::rc::Rc;

/// What a request needs of a node's permissions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Read,
    Write,
    /// The owner may, and domain 0.
    Own,
}

impl Engine {
    pub(super) fn read(&mut self, request: &Request<'_>) -> Answer {
        let given = one_string(request.payload)?;
        let path = self.absolute(request, given)?;
        let value = self.node(request, &path, Need::Read, NODE)?.shared_value();
        self.answer(request, &[value.as_deref().unwrap_or_default()])
    }

    pub(super) fn directory(&mut self, request: &Request<'_>) -> Answer {
        let given = one_string(request.payload)?;
        let path = self.absolute(request, given)?;
        let node = self.node(request, &path, Need::Read, NODE | LIST)?;
        if node.names_len() > XENSTORE_PAYLOAD_MAX {
            return Err(Errno::E2BIG);
        }
        let Head { kind, req_id, tx_id, .. } = request.head;
        if let Some(client) = self.clients.get_mut(request.client) {
            client.output.put_strings(kind, req_id, tx_id, node.names_len(), node.names());
            self.dirty.mark(client, request.client);
        }
        Ok(())
    }

    /// A part of a list that does not fit one answer: the list's version, then as many names as fit from an offset on, and an empty
    /// name after the last.
    pub(super) fn directory_part(&mut self, request: &Request<'_>) -> Answer {
        let (given, rest) = string_and_rest(request.payload)?;
        let offset: usize = one_string(rest)?.parse().map_err(|_| Errno::EINVAL)?;
        let path = self.absolute(request, given)?;
        let node = self.node(request, &path, Need::Read, NODE | LIST)?;
        let version = format!("{}\0", node.list_version());
        let list = names(&node);
        let rest = list.get(offset..).unwrap_or_default();
        let room = XENSTORE_PAYLOAD_MAX - version.len() - 1;
        if rest.len() <= room {
            return self.answer(request, &[version.as_bytes(), rest, b"\0"]);
        }
        let part = rest.get(..room).unwrap_or_default();
        let end = part.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
        self.answer(request, &[version.as_bytes(), part.get(..end).unwrap_or_default()])
    }

    pub(super) fn get_perms(&mut self, request: &Request<'_>) -> Answer {
        let given = one_string(request.payload)?;
        let perms = if path::is_special(given) {
            if !self.clients.get(request.client).is_some_and(|client| client.is_privileged()) {
                return Err(Errno::EACCES);
            }
            Rc::clone(self.special_perms(given))
        } else {
            let path = self.absolute(request, given)?;
            Rc::clone(self.node(request, &path, Need::Read, NODE)?.perms())
        };
        let text: String = perms.entries().map(|entry| format!("{entry}\0")).collect();
        self.answer(request, &[text.as_bytes()])
    }

    pub(super) fn write(&mut self, request: &Request<'_>) -> Answer {
        let (given, value) = string_and_rest(request.payload)?;
        let path = self.absolute(request, given)?;
        match self.node(request, &path, Need::Write, NODE) {
            Ok(node) => {
                self.check_size(request, &path, tree::size(value.len(), node.perms(), node.names_len()))?;
                drop(node);
                self.change(request, Change::Write { path: Rc::from(&*path), value: shared(value), created: None })?;
            }
            Err(Errno::ENOENT) => self.create(request, &path, value)?,
            Err(errno) => return Err(errno),
        }
        self.ok(request)
    }

    pub(super) fn mkdir(&mut self, request: &Request<'_>) -> Answer {
        let given = one_string(request.payload)?;
        let path = self.absolute(request, given)?;
        match self.node(request, &path, Need::Write, NODE) {
            Ok(_) => {}
            Err(Errno::ENOENT) => self.create(request, &path, &[])?,
            Err(errno) => return Err(errno),
        }
        self.ok(request)
    }

    pub(super) fn rm(&mut self, request: &Request<'_>) -> Answer {
        let given = one_string(request.payload)?;
        let path = self.absolute(request, given)?;
        let above = path::parent(&path).ok_or(Errno::EINVAL)?;
        match self.node(request, &path, Need::Write, SUBTREE) {
            Ok(node) => self.change(request, Change::Remove { path: Rc::from(&*path), node })?,
            Err(Errno::ENOENT) => {
                self.look(request, above, NODE)?;
                self.view(request)?.get(above).ok_or(Errno::ENOENT)?;
            }
            Err(errno) => return Err(errno),
        }
        self.ok(request)
    }

    pub(super) fn set_perms(&mut self, request: &Request<'_>) -> Answer {
        let (given, rest) = string_and_rest(request.payload)?;
        let perms = Perms::parse(rest).ok_or(Errno::EINVAL)?;
        let privileged = self.clients.get(request.client).is_some_and(|client| client.is_privileged());
        if path::is_special(given) {
            if !privileged {
                return Err(Errno::EACCES);
            }
            self.set_special_perms(given, perms);
            return self.ok(request);
        }
        let path = self.absolute(request, given)?;
        let node = self.node(request, &path, Need::Own, NODE)?;
        let before = Rc::clone(node.perms());
        if !privileged {
            if perms.owner() != before.owner() {
                return Err(Errno::EPERM);
            }
            let entries = 1 + perms.others().len();
            if entries > self.limits.perms as usize {
                self.over(request, "perms", entries, self.limits.perms, &path);
                return Err(Errno::ENOSPC);
            }
            self.check_size(request, &path, tree::size(node.value().len(), &perms, node.names_len()))?;
        }
        drop(node);
        self.change(request, Change::Perms { path: Rc::from(&*path), perms: Rc::new(perms), before })?;
        self.ok(request)
    }

    /// Makes a node and what is missing above it. The nearest node that exists must be writable; its permissions are inherited, but
    /// what a domain makes belongs to it.
    fn create(&mut self, request: &Request<'_>, path: &str, value: &[u8]) -> Answer {
        let (domid, privileged) = self.clients.get(request.client).map(|client| (client.domid, client.is_privileged())).ok_or(Errno::EINVAL)?;
        let view = self.view(request)?;
        let (nearest, nearest_path) = view.nearest(path);
        let mut perms = Rc::clone(nearest.perms());
        let nearest_size = nearest.size();
        let owned = view.owned_by(domid) as usize;
        if !privileged {
            if perms.owner() != domid {
                Rc::make_mut(&mut perms).set_owner(domid);
            }
            let missing = path.get(nearest_path.len()..).unwrap_or_default();
            let count = path::names(missing).count();
            let first = path::names(missing).next().unwrap_or_default();
            if owned + count > self.limits.nodes as usize {
                self.over(request, "nodes", owned + count, self.limits.nodes, path);
                return Err(Errno::ENOSPC);
            }
            self.check_size(request, nearest_path, nearest_size + first.len() + 1)?;
            self.check_size(request, path, tree::size(value.len(), &perms, 0))?;
        }
        self.change(request, Change::Write { path: Rc::from(path), value: shared(value), created: Some(perms) })
    }

    fn check_size(&mut self, request: &Request<'_>, path: &str, size: usize) -> Answer {
        let privileged = self.clients.get(request.client).is_some_and(|client| client.is_privileged());
        if privileged || size <= self.limits.node_size as usize {
            return Ok(());
        }
        self.over(request, "node-size", size, self.limits.node_size, path);
        Err(Errno::ENOSPC)
    }

    /// The node at a path, if the client may do with it what it needs to.
    ///
    /// Whether a node exists is told only to those who may do the same with the nearest one above.
    fn node(&mut self, request: &Request<'_>, path: &str, need: Need, what: Looked) -> Result<Rc<Node>, Errno> {
        self.look(request, path, what)?;
        let client = self.clients.get(request.client).ok_or(Errno::EINVAL)?;
        let may = |perms: &Perms| match need {
            Need::Read => client.access(perms).reads(),
            Need::Write => client.access(perms).writes(),
            Need::Own => client.is_privileged() || perms.owner() == client.domid || client.target == Some(perms.owner()),
        };
        let (nearest, nearest_path) = self.view(request)?.nearest(path);
        if !may(nearest.perms()) {
            return Err(Errno::EACCES);
        }
        if nearest_path.len() == path.len() { Ok(Rc::clone(nearest)) } else { Err(Errno::ENOENT) }
    }

    /// Notes in the request's transaction, if it is in one, that something was looked at.
    fn look(&mut self, request: &Request<'_>, path: &str, what: Looked) -> Answer {
        if request.head.tx_id == 0 {
            return Ok(());
        }
        let client = self.clients.get_mut(request.client).ok_or(Errno::EINVAL)?;
        let transaction = client.transactions.get_mut(&request.head.tx_id).ok_or(Errno::ENOENT)?;
        let size = transaction.size();
        if client.domid != 0 && size >= self.limits.transaction_nodes as usize {
            self.over(request, "transaction-nodes", size, self.limits.transaction_nodes, path);
            return Err(Errno::ENOSPC);
        }
        transaction.look(path, what);
        Ok(())
    }
}

/// A list of children as it goes over the wire.
fn names(node: &Node) -> Vec<u8> {
    let mut list = Vec::with_capacity(node.names_len());
    for name in node.names() {
        list.extend_from_slice(name.as_bytes());
        list.push(0);
    }
    list
}

fn shared(value: &[u8]) -> Option<Rc<[u8]>> {
    (!value.is_empty()).then(|| Rc::from(value))
}
