//! Paths of nodes: what a valid one is (`docs/misc/xenstore.txt` of Xen).

use oxen_abi::io::xs_wire::{XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX};

/// Fires when a domain becomes known to the daemon.
pub const INTRODUCE_DOMAIN: &str = "@introduceDomain";
/// Fires when a domain shuts down, crashes or is destroyed.
pub const RELEASE_DOMAIN: &str = "@releaseDomain";

/// Where every domain's home lies, with a `/` at its end.
const HOMES: &str = "/local/domain/";

/// Whether `path` is a valid absolute path of a node.
///
/// The limit of a path below a domain's home counts from that home, so that what a domain can write does not depend on its number.
pub fn is_valid(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let home = home_len(path);
    path.starts_with('/')
        && path.len() <= XENSTORE_ABS_PATH_MAX
        && path.len() - home <= XENSTORE_REL_PATH_MAX
        && !path.ends_with('/')
        && has_valid_names(path.as_bytes())
}

/// Whether there are only bytes that names have, and no empty name.
fn has_valid_names(path: &[u8]) -> bool {
    let mut valid = true;
    let mut before = 0;
    for &byte in path {
        // Without branches: every request comes by here.
        valid &= VALID[byte as usize] & (byte != b'/' || before != b'/');
        before = byte;
    }
    valid
}

/// The bytes of valid paths.
const VALID: [bool; 256] = {
    let mut valid = [false; 256];
    let mut byte = 0;
    while byte < valid.len() {
        valid[byte] = is_valid_byte(byte as u8);
        byte += 1;
    }
    valid
};

/// Whether `path` is one of the special names that watches and permissions know.
pub fn is_special(path: &str) -> bool {
    path == INTRODUCE_DOMAIN || path == RELEASE_DOMAIN
}

/// A letter, digit, `-`, `/`, `_` or `@`.
const fn is_valid_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@')
}

/// Bytes of `/local/domain/N/` at the start of `path`; 0 if it does not begin so.
fn home_len(path: &str) -> usize {
    let Some(rest) = path.strip_prefix(HOMES) else { return 0 };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if (1..=5).contains(&digits) && rest.as_bytes().get(digits) == Some(&b'/') { HOMES.len() + digits + 1 } else { 0 }
}

/// The home of domain `domid`.
pub fn home(domid: u16) -> String {
    format!("{HOMES}{domid}")
}

/// The parent of a valid absolute path; `None` for the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) => Some("/"),
        Some(at) => path.get(..at),
        None => None,
    }
}

/// The names on a valid absolute path, from the root down.
pub fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_paths() {
        for path in ["/", "/a", "/local/domain/0", "/a-b_c@D/9", "/local/domain/123456/x"] {
            assert!(is_valid(path), "{path}");
        }
        for path in ["", "a", "a/b", "/a/", "//", "/a//b", "/a b", "/ä", "/a\0", "/a:b", "@releaseDomain"] {
            assert!(!is_valid(path), "{path}");
        }
    }

    #[test]
    fn lengths_count_from_the_home() {
        assert!(is_valid(&format!("/{}", "a".repeat(XENSTORE_REL_PATH_MAX - 1))));
        assert!(!is_valid(&format!("/{}", "a".repeat(XENSTORE_REL_PATH_MAX))));
        assert!(is_valid(&format!("/local/domain/32751/{}", "a".repeat(XENSTORE_REL_PATH_MAX))));
        assert!(!is_valid(&format!("/local/domain/32751/{}", "a".repeat(XENSTORE_REL_PATH_MAX + 1))));
    }

    #[test]
    fn parents() {
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/"), None);
        assert_eq!(names("/a/b").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(names("/").count(), 0);
    }
}
