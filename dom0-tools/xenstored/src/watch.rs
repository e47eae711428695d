//! Watches.

use foldhash::{HashMap, HashMapExt};
use std::rc::Rc;

/// A watch of a client.
#[derive(Debug)]
pub struct Watch {
    /// The client's number.
    pub client: usize,
    /// The absolute path, or a special name.
    pub path: Rc<str>,
    /// Bytes of `path` that events leave out: those up to the home of a domain that watches a relative path.
    pub hidden: usize,
    /// What the client recognises it by.
    pub token: Box<[u8]>,
}

/// All watches, by path.
#[derive(Debug)]
pub struct Watches {
    by_path: HashMap<Rc<str>, Vec<Rc<Watch>>>,
}

impl Default for Watches {
    fn default() -> Self {
        Self { by_path: HashMap::new() }
    }
}

impl Watches {
    /// The watches on exactly this path.
    pub fn at(&self, path: &str) -> &[Rc<Watch>] {
        self.by_path.get(path).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Adds a watch.
    pub fn add(&mut self, watch: &Rc<Watch>) {
        self.by_path.entry(Rc::clone(&watch.path)).or_default().push(Rc::clone(watch));
    }

    /// Removes a watch.
    pub fn remove(&mut self, watch: &Rc<Watch>) {
        if let Some(list) = self.by_path.get_mut(&watch.path) {
            list.retain(|other| !Rc::ptr_eq(other, watch));
            if list.is_empty() {
                self.by_path.remove(&watch.path);
            }
        }
    }

    /// The watches that a change at `path` fires: those on the path and on every path above it.
    pub fn above<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Rc<Watch>> {
        let ends = path.bytes().enumerate().skip(1).filter_map(|(at, byte)| (byte == b'/').then_some(at));
        let inner = ends.chain((path != "/").then_some(path.len())).filter_map(|end| path.get(..end));
        let root = path.starts_with('/').then_some("/");
        root.into_iter().chain(inner).flat_map(|prefix| self.at(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_fire_what_lies_above() {
        let mut watches = Watches::default();
        for path in ["/", "/a", "/a/b", "/a/b/c", "/ab", "@releaseDomain"] {
            watches.add(&Rc::new(Watch { client: 0, path: Rc::from(path), hidden: 0, token: Box::default() }));
        }
        let fired = |path: &str| watches.above(path).map(|watch| watch.path.to_string()).collect::<Vec<_>>();
        assert_eq!(fired("/a/b"), ["/", "/a", "/a/b"]);
        assert_eq!(fired("/a/bc"), ["/", "/a"]);
        assert_eq!(fired("/"), ["/"]);
        assert_eq!(fired("@releaseDomain"), ["@releaseDomain"]);
    }
}
