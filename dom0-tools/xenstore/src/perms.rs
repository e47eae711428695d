//! Permissions of nodes.

use std::fmt;

/// What a domain may do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing (`n`).
    None,
    /// Read (`r`).
    Read,
    /// Write (`w`).
    Write,
    /// Both (`b`).
    Both,
}

impl Access {
    /// Whether reading is allowed.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether writing is allowed.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }

    const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Read => 'r',
            Self::Write => 'w',
            Self::Both => 'b',
        }
    }
}

/// One entry of a node's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Perm {
    /// The domain.
    pub domid: u16,
    /// What it may do.
    pub access: Access,
}

impl Perm {
    /// An entry.
    pub const fn new(domid: u16, access: Access) -> Self {
        Self { domid, access }
    }

    /// Reads `r7`.
    pub fn parse(text: &str) -> Option<Self> {
        let (letter, number) = text.split_at_checked(1)?;
        let access = match letter {
            "n" => Access::None,
            "r" => Access::Read,
            "w" => Access::Write,
            "b" => Access::Both,
            _ => return None,
        };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self { domid: number.parse().ok()?, access })
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.access.letter(), self.domid)
    }
}

/// The permissions of a node. The first entry names the owner, who may do everything, and what domains that are not listed may do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Perms {
    owner: Perm,
    others: Vec<Perm>,
}

impl Perms {
    /// Owned by `domid`; domains that are not listed get `default`.
    pub const fn owned(domid: u16, default: Access) -> Self {
        Self { owner: Perm::new(domid, default), others: Vec::new() }
    }

    /// Adds an entry.
    #[must_use]
    pub fn and(mut self, domid: u16, access: Access) -> Self {
        self.others.push(Perm::new(domid, access));
        self
    }

    /// From entries in the protocol's order; `None` without any.
    pub fn from_entries(entries: impl IntoIterator<Item = Perm>) -> Option<Self> {
        let mut entries = entries.into_iter();
        Some(Self { owner: entries.next()?, others: entries.collect() })
    }

    /// Reads entries that each end in a zero byte.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.strip_suffix(b"\0")?).ok()?;
        let entries: Option<Vec<Perm>> = text.split('\0').map(Perm::parse).collect();
        Self::from_entries(entries?)
    }

    /// The owner.
    pub const fn owner(&self) -> u16 {
        self.owner.domid
    }

    /// Gives the node to another domain.
    pub const fn set_owner(&mut self, domid: u16) {
        self.owner.domid = domid;
    }

    /// What domains that are not listed may do.
    pub const fn default_access(&self) -> Access {
        self.owner.access
    }

    /// The listed domains other than the owner.
    pub fn others(&self) -> &[Perm] {
        &self.others
    }

    /// Drops entries of other domains that `keep` refuses.
    pub fn retain_others(&mut self, keep: impl FnMut(&Perm) -> bool) {
        self.others.retain(keep);
    }

    /// All entries in the protocol's order.
    pub fn entries(&self) -> impl Iterator<Item = Perm> + '_ {
        std::iter::once(self.owner).chain(self.others.iter().copied())
    }

    /// The entries as the protocol sends them, each with a zero byte.
    pub(crate) fn to_payload(&self) -> Vec<u8> {
        self.entries().flat_map(|entry| entry.to_string().into_bytes().into_iter().chain([0])).collect()
    }

    /// What `domid` may do, given that domain 0 and the owner may do everything.
    pub fn access(&self, domid: u16) -> Access {
        if domid == 0 || domid == self.owner.domid {
            return Access::Both;
        }
        self.others.iter().find(|perm| perm.domid == domid).map_or(self.owner.access, |perm| perm.access)
    }
}

impl fmt::Display for Perms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.owner)?;
        self.others.iter().try_for_each(|perm| write!(f, " {perm}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let perms = Perms::parse(b"n0\0r7\0b32752\0").unwrap();
        assert_eq!(perms.to_string(), "n0 r7 b32752");
        assert_eq!(perms, Perms::owned(0, Access::None).and(7, Access::Read).and(32752, Access::Both));
        for bad in [&b""[..], b"r1", b"x1\0", b"r\0", b"r-1\0", b"r+1\0", b"r65536\0", b"r1\0\0", b"\xff1\0"] {
            assert_eq!(Perms::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn owner_and_domain_0_may_everything() {
        let perms = Perms::owned(3, Access::None).and(4, Access::Read).and(4, Access::Write);
        assert_eq!([0, 3, 4, 5].map(|domid| perms.access(domid)), [Access::Both, Access::Both, Access::Read, Access::None]);
    }
}
