//! Output that nobody has read from the pseudo-terminal yet.

use std::collections::VecDeque;

/// The newest bytes, up to a limit.
#[derive(Debug)]
pub struct Backlog {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Backlog {
    /// An empty one that keeps `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit }
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.trim();
    }

    /// Adds bytes; the oldest ones go where there is no room.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.trim();
    }

    /// Some of the oldest bytes; none when it is empty.
    pub fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Removes the `len` oldest bytes.
    pub fn advance(&mut self, len: usize) {
        self.bytes.drain(..len.min(self.bytes.len()));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn trim(&mut self) {
        self.advance(self.bytes.len().saturating_sub(self.limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let mut backlog = Backlog::new(4);
        backlog.push(b"abc");
        backlog.push(b"def");
        let mut kept = Vec::new();
        while !backlog.is_empty() {
            let front = backlog.front().to_vec();
            backlog.advance(front.len());
            kept.extend(front);
        }
        assert_eq!(kept, b"cdef");
        backlog.push(b"ghijklm");
        backlog.set_limit(0);
        assert!(backlog.is_empty());
    }
}
