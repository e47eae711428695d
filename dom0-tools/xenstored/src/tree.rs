//! The tree of nodes: a persistent structure. Copying a [`Tree`] costs nothing; what is changed afterwards is copied along the path
//! from the root, and only where another copy still uses it.

use oxen_xenstore::path;
use oxen_xenstore::{Access, Perms};
use smol_str::SmolStr;
use std::cell::Cell;
use std::rc::Rc;

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    value: Option<Rc<[u8]>>,
    perms: Rc<Perms>,
    /// In the order of their names.
    children: Vec<Child>,
    /// Bytes that a list of the children takes.
    names_len: usize,
    /// Differs between any two states of the value and the permissions.
    version: u64,
    /// Differs between any two states of the list of children.
    list_version: u64,
}

#[derive(Debug, Clone)]
struct Child {
    name: SmolStr,
    node: Rc<Node>,
}

impl Node {
    fn new(value: Option<Rc<[u8]>>, perms: Rc<Perms>, version: u64) -> Self {
        Self { value, perms, children: Vec::new(), names_len: 0, version, list_version: version }
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        self.value.as_deref().unwrap_or_default()
    }

    /// The value, to keep.
    pub fn shared_value(&self) -> Option<Rc<[u8]>> {
        self.value.clone()
    }

    /// The permissions.
    pub fn perms(&self) -> &Rc<Perms> {
        &self.perms
    }

    /// Bytes that a list of the children takes, each name with a zero byte.
    pub fn names_len(&self) -> usize {
        self.names_len
    }

    /// The names of the children.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.children.iter().map(|child| child.name.as_str())
    }

    /// The children with their names.
    pub fn children(&self) -> impl DoubleEndedIterator<Item = (&str, &Rc<Node>)> {
        self.children.iter().map(|child| (child.name.as_str(), &child.node))
    }

    /// Differs between any two states of the value and the permissions.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Differs between any two states of the list of children.
    pub fn list_version(&self) -> u64 {
        self.list_version
    }

    /// What quotas count as the size of the node.
    pub fn size(&self) -> usize {
        size(self.value().len(), &self.perms, self.names_len)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.children.binary_search_by(|child| child.name.as_str().cmp(name))
    }

    fn child(&self, name: &str) -> Option<&Rc<Node>> {
        self.find(name).ok().and_then(|at| self.children.get(at)).map(|child| &child.node)
    }

    fn child_mut(&mut self, name: &str) -> Option<&mut Node> {
        let at = self.find(name).ok()?;
        self.children.get_mut(at).map(|child| Rc::make_mut(&mut child.node))
    }
}

/// The size of a node with a value of `value_len` bytes and a list of children of `names_len` bytes.
pub fn size(value_len: usize, perms: &Perms, names_len: usize) -> usize {
    value_len + names_len + 8 * (1 + perms.others().len())
}

impl Drop for Node {
    /// Takes trees apart without recursion, however deep.
    fn drop(&mut self) {
        if self.children.is_empty() {
            return;
        }
        let mut pending = std::mem::take(&mut self.children);
        while let Some(child) = pending.pop() {
            if let Some(mut node) = Rc::into_inner(child.node) {
                pending.append(&mut node.children);
            }
        }
    }
}

/// One change, complete: applying it needs no decision.
#[derive(Debug, Clone)]
pub enum Change {
    /// A node gets a value.
    Write {
        /// The node.
        path: Rc<str>,
        /// Its value; `None` if it is empty.
        value: Option<Rc<[u8]>>,
        /// The permissions of the node and of those above it that are made with it, if it does not exist.
        created: Option<Rc<Perms>>,
    },
    /// A node and what lies below it go.
    Remove {
        /// The node's path.
        path: Rc<str>,
        /// The node, as it was.
        node: Rc<Node>,
    },
    /// A node gets other permissions.
    Perms {
        /// The node.
        path: Rc<str>,
        /// The permissions.
        perms: Rc<Perms>,
        /// As they were.
        before: Rc<Perms>,
    },
}

impl Change {
    /// The path of the changed node.
    pub fn path(&self) -> &Rc<str> {
        match self {
            Self::Write { path, .. } | Self::Remove { path, .. } | Self::Perms { path, .. } => path,
        }
    }
}

/// The tree at one moment.
#[derive(Debug, Clone)]
pub struct Tree {
    root: Rc<Node>,
    /// How many nodes each domain owns, in the order of domains. Follows from the tree: only [`Tree::account`] changes it, at the
    /// one place where a node comes into the tree, and the two where it leaves or changes hands.
    owned: Rc<Vec<(u16, u32)>>,
    /// The last version given away; all copies share it.
    clock: Rc<Cell<u64>>,
}

impl Tree {
    /// A tree with a root that belongs to domain 0 and that all may read. Versions start after `clock`.
    pub fn new(clock: u64) -> Self {
        let clock = Rc::new(Cell::new(clock));
        let perms = Rc::new(Perms::owned(0, Access::None));
        let root = Rc::new(Node::new(None, perms, next(&clock)));
        Self { root, owned: Rc::new(vec![(0, 1)]), clock }
    }

    /// The root.
    pub fn root(&self) -> &Rc<Node> {
        &self.root
    }

    /// The last version given away.
    pub fn clock(&self) -> u64 {
        self.clock.get()
    }

    /// Makes further versions later than `clock`.
    pub fn advance_clock(&self, clock: u64) {
        self.clock.set(self.clock.get().max(clock));
    }

    /// Whether nothing was changed in either since one was copied from the other.
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.root, &other.root)
    }

    /// The node at a valid absolute path.
    pub fn get(&self, path: &str) -> Option<&Rc<Node>> {
        let mut node = &self.root;
        for name in path::names(path) {
            node = node.child(name)?;
        }
        Some(node)
    }

    /// The node at `path`, or else the nearest above it that exists, with its path.
    pub fn nearest<'path>(&self, path: &'path str) -> (&Rc<Node>, &'path str) {
        let mut node = &self.root;
        let mut end = 0;
        for name in path::names(path) {
            match node.child(name) {
                Some(child) => node = child,
                None => break,
            }
            end += 1 + name.len();
        }
        (node, if end == 0 { "/" } else { path.get(..end).unwrap_or("/") })
    }

    /// How many nodes a domain owns.
    pub fn owned_by(&self, domid: u16) -> u32 {
        self.owned.binary_search_by_key(&domid, |entry| entry.0).ok().and_then(|at| self.owned.get(at)).map_or(0, |entry| entry.1)
    }

    /// The domains that own nodes, and how many.
    pub fn owners(&self) -> &[(u16, u32)] {
        &self.owned
    }

    /// The number of nodes of each domain, found by walking.
    pub fn count_owners(&self) -> Vec<(u16, u32)> {
        let mut counts = std::collections::BTreeMap::new();
        let mut pending = vec![&self.root];
        while let Some(node) = pending.pop() {
            *counts.entry(node.perms.owner()).or_insert(0) += 1;
            pending.extend(node.children.iter().map(|child| &child.node));
        }
        counts.into_iter().collect()
    }

    /// Applies a change. A change that does not fit the tree does nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { path, value, created: None } => self.edit(path, |node, version| {
                node.value.clone_from(value);
                node.version = version;
            }),
            Change::Write { path, value, created: Some(perms) } => self.create(path, value, perms),
            Change::Remove { path, .. } => self.remove(path),
            Change::Perms { path, perms, .. } => self.chmod(path, perms),
        }
    }

    fn edit(&mut self, path: &str, change: impl FnOnce(&mut Node, u64)) {
        let version = next(&self.clock);
        let mut node = Rc::make_mut(&mut self.root);
        for name in path::names(path) {
            match node.child_mut(name) {
                Some(child) => node = child,
                None => return,
            }
        }
        change(node, version);
    }

    fn chmod(&mut self, path: &str, perms: &Rc<Perms>) {
        let Some(before) = self.get(path).map(|node| node.perms.owner()) else { return };
        self.edit(path, |node, version| {
            node.perms = Rc::clone(perms);
            node.version = version;
        });
        if before != perms.owner() {
            self.account(before, -1);
            self.account(perms.owner(), 1);
        }
    }

    fn create(&mut self, path: &str, value: &Option<Rc<[u8]>>, perms: &Rc<Perms>) {
        let mut made = 0;
        let mut node = Rc::make_mut(&mut self.root);
        for name in path::names(path) {
            let at = match node.find(name) {
                Ok(at) => at,
                Err(at) => {
                    node.list_version = next(&self.clock);
                    node.names_len += name.len() + 1;
                    let child = Rc::new(Node::new(None, Rc::clone(perms), next(&self.clock)));
                    node.children.insert(at, Child { name: SmolStr::new(name), node: child });
                    made += 1;
                    at
                }
            };
            let Some(child) = node.children.get_mut(at) else { return };
            node = Rc::make_mut(&mut child.node);
        }
        node.value.clone_from(value);
        node.version = next(&self.clock);
        if made > 0 {
            self.account(perms.owner(), made);
        }
    }

    fn remove(&mut self, path: &str) {
        let Some((above, name)) = path.rsplit_once('/').filter(|_| path != "/") else { return };
        let Some(gone) = self.get(path).map(Rc::clone) else { return };
        self.edit(above, |node, version| {
            if let Ok(at) = node.find(name) {
                node.children.remove(at);
                node.names_len -= name.len() + 1;
                node.list_version = version;
            }
        });
        let mut pending = vec![&gone];
        while let Some(node) = pending.pop() {
            self.account(node.perms.owner(), -1);
            pending.extend(node.children.iter().map(|child| &child.node));
        }
    }

    fn account(&mut self, domid: u16, difference: i32) {
        let owned = Rc::make_mut(&mut self.owned);
        let at = match owned.binary_search_by_key(&domid, |entry| entry.0) {
            Ok(at) => at,
            Err(at) => {
                owned.insert(at, (domid, 0));
                at
            }
        };
        let Some(entry) = owned.get_mut(at) else { return };
        entry.1 = entry.1.saturating_add_signed(difference);
        if entry.1 == 0 {
            owned.remove(at);
        }
    }
}

fn next(clock: &Cell<u64>) -> u64 {
    clock.set(clock.get() + 1);
    clock.get()
}

/// Walks a subtree from its top, parents before children, without recursion: calls `visit` with each node's path.
pub fn walk<'tree>(path: &str, node: &'tree Rc<Node>, mut visit: impl FnMut(&str, &'tree Rc<Node>)) {
    let mut pending = vec![(path.to_owned(), node)];
    while let Some((path, node)) = pending.pop() {
        visit(&path, node);
        for (name, child) in node.children().rev() {
            let above = if path == "/" { "" } else { path.as_str() };
            pending.push((format!("{above}/{name}"), child));
        }
    }
}
