//! The initramfs format: cpio "newc", as the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`
//! describes it.

use std::collections::BTreeSet;

/// Directory, regular file, symbolic link and character device in a mode word.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHAR_DEVICE: u32 = 0o020_000;

/// An archive being written. Parent directories are added by themselves; everything belongs to root and has no time
/// stamp, so equal content gives equal bytes.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a file; `mode` holds permission bits.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.parents(path);
        self.entry(path, FILE | mode, content, (0, 0));
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, path: &str) {
        self.parents(path);
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY | 0o755, &[], (0, 0));
        }
    }

    /// Adds a symbolic link to `to`.
    pub fn link(&mut self, path: &str, to: &str) {
        self.parents(path);
        self.entry(path, LINK | 0o777, to.as_bytes(), (0, 0));
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) {
        self.parents(path);
        self.entry(path, CHAR_DEVICE | 0o600, &[], (major, minor));
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if !parent.is_empty() && self.directories.insert(parent.to_owned()) {
                self.entry(parent, DIRECTORY | 0o755, &[], (0, 0));
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let fields = [self.entries, mode, 0, 0, 1, 0, length(content.len()), 0, 0, device.0, device.1, length(path.len() + 1), 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_parents_come_once_and_first() {
        let mut archive = Archive::default();
        archive.file("a/b/c", 0o644, b"hello");
        archive.file("a/b/d", 0o644, b"");
        archive.link("a/e", "b/c");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let names: Vec<usize> = bytes.windows(6).enumerate().filter(|(_, window)| window == b"070701").map(|(at, _)| at).collect();
        assert_eq!(names.len(), 6, "a, a/b, a/b/c, a/b/d, a/e and the trailer");
        assert!(names.iter().all(|at| at % 4 == 0));
        assert_eq!(&bytes[110..112], b"a\0");
    }
}
