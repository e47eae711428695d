//! Transactions: a copy of the tree as it was at the start, what was looked at in it, and the changes made to it.

use crate::tree::{Change, Tree};
use foldhash::{HashMap, HashMapExt};
use std::rc::Rc;
use std::time::Instant;

/// What was looked at at a path, as a set of bits.
pub type Looked = u8;
/// Whether there is a node, its value and its permissions.
pub const NODE: Looked = 1;
/// The list of its children.
pub const LIST: Looked = 2;
/// Everything at and below it.
pub const SUBTREE: Looked = 4;

/// A transaction.
#[derive(Debug)]
pub struct Transaction {
    base: Tree,
    view: Tree,
    looked: HashMap<Box<str>, Looked>,
    changes: Vec<Change>,
    /// It will fail whatever happens.
    doomed: bool,
    started: Instant,
}

impl Transaction {
    /// Starts on the tree as it is.
    pub fn new(live: &Tree) -> Self {
        Self { base: live.clone(), view: live.clone(), looked: HashMap::new(), changes: Vec::new(), doomed: false, started: Instant::now() }
    }

    /// One that goes on after the daemon was restarted: it can be used, but will fail.
    pub fn lost(live: &Tree) -> Self {
        Self { doomed: true, ..Self::new(live) }
    }

    /// The tree as the transaction sees it.
    pub fn view(&self) -> &Tree {
        &self.view
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Nodes looked at and changes made.
    pub fn size(&self) -> usize {
        self.looked.len() + self.changes.len()
    }

    /// Notes that something was looked at.
    pub fn look(&mut self, path: &str, what: Looked) {
        self.note(path, what);
        let above = self.view.nearest(path).1;
        // The transaction itself may have removed or made what lies above an absent node. What a client is told follows from that node now.
        if above.len() != path.len() && above != self.base.nearest(path).1 {
            self.note(above, NODE);
        }
    }

    fn note(&mut self, path: &str, what: Looked) {
        match self.looked.get_mut(path) {
            Some(looked) => *looked |= what,
            None => {
                self.looked.insert(Box::from(path), what);
            }
        }
    }

    /// Makes a change in the transaction's tree.
    pub fn change(&mut self, change: Change) {
        self.view.apply(&change);
        self.changes.push(change);
    }

    /// Makes it fail at its end, and gives up the memory that only it holds.
    pub fn doom(&mut self, live: &Tree) {
        self.doomed = true;
        self.base = live.clone();
        self.view = live.clone();
        self.looked.clear();
        self.changes.clear();
    }

    /// Whether a node that it changed gives a domain rights.
    pub fn mentions(&self, domid: u16) -> bool {
        let mentions = |perms: &oxen_xenstore::Perms| perms.entries().any(|entry| entry.domid == domid);
        self.changes.iter().any(|change| match change {
            Change::Write { created, .. } => created.as_ref().is_some_and(|perms| mentions(perms)),
            Change::Perms { perms, .. } => mentions(perms),
            Change::Remove { .. } => false,
        })
    }

    /// The tree with the transaction's changes, and these changes; `None` if somebody changed what it looked at.
    pub fn commit(self, live: &Tree) -> Option<(Tree, Vec<Change>)> {
        if self.doomed {
            return None;
        }
        if live.is_same(&self.base) {
            return Some((self.view, self.changes));
        }
        if !self.looked.iter().all(|(path, what)| unchanged(&self.base, live, path, *what)) {
            return None;
        }
        let mut tree = live.clone();
        self.changes.iter().for_each(|change| tree.apply(change));
        Some((tree, self.changes))
    }
}

/// Whether what can be seen at a path is the same in two trees.
fn unchanged(base: &Tree, live: &Tree, path: &str, what: Looked) -> bool {
    match (base.get(path), live.get(path)) {
        // What a client is told of an absent node, and what a new node inherits, follow from the nearest one above.
        (None, None) => {
            let ((before, above_before), (now, above_now)) = (base.nearest(path), live.nearest(path));
            above_before == above_now && before.perms() == now.perms()
        }
        (Some(before), Some(now)) => {
            Rc::ptr_eq(before, now)
                || what & SUBTREE == 0
                    && (what & NODE == 0 || before.version() == now.version())
                    && (what & LIST == 0 || before.list_version() == now.list_version())
        }
        _ => false,
    }
}
