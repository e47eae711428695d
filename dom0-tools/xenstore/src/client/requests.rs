//! The requests.

use super::Store;
use crate::error::{Cause, Error, Result};
use crate::perms::Perms;
use oxen_abi::Errno;
use oxen_abi::io::xs_wire::XsType;

/// Requests about nodes, alone ([`Store`]) or in a transaction ([`super::Transaction`]).
///
/// All can fail with `EINVAL` (not a path), `EACCES` (not allowed), and with [`Cause::Io`].
pub trait Nodes {
    /// Sends a request about nodes and returns the answer's payload.
    ///
    /// # Errors
    ///
    /// As the daemon answers.
    fn call(&self, kind: XsType, parts: &[&[u8]]) -> Result<Vec<u8>>;

    /// The value of a node.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such node.
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.call(XsType::READ, &[path.as_bytes(), b"\0"])
    }

    /// The value of a node that is text.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such node; [`Cause::BadAnswer`] if the value is not text.
    fn read_text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path)?).map_err(|_| Error::new("read", path, Cause::BadAnswer("the value is not text")))
    }

    /// The text of a node; `None` if there is no such node.
    ///
    /// # Errors
    ///
    /// As for [`Nodes::read_text`], but not `ENOENT`.
    fn try_read(&self, path: &str) -> Result<Option<String>> {
        present(self.read_text(path))
    }

    /// Sets the value of a node. The node and those above it are made if they do not exist, with the permissions of the nearest
    /// that does.
    ///
    /// # Errors
    ///
    /// `ENOSPC` or `E2BIG` when a quota is used up.
    fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<()> {
        self.call(XsType::WRITE, &[path.as_bytes(), b"\0", value.as_ref()]).map(drop)
    }

    /// Makes a node with an empty value, and those above it; does nothing if it exists.
    ///
    /// # Errors
    ///
    /// `ENOSPC` when a quota is used up.
    fn mkdir(&self, path: &str) -> Result<()> {
        self.call(XsType::MKDIR, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Removes a node and everything below it; does nothing if it does not exist, but the node above does.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the node above does not exist either.
    fn rm(&self, path: &str) -> Result<()> {
        self.call(XsType::RM, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Like [`Nodes::rm`], but nothing is missed if nodes above do not exist either.
    ///
    /// # Errors
    ///
    /// As for [`Nodes::rm`], but not `ENOENT`.
    fn rm_if_exists(&self, path: &str) -> Result<()> {
        present(self.rm(path)).map(drop)
    }

    /// The names of a node's children.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such node.
    fn directory(&self, path: &str) -> Result<Vec<String>> {
        match self.call(XsType::DIRECTORY, &[path.as_bytes(), b"\0"]) {
            Ok(answer) => names("directory", path, &answer),
            Err(error) if error.errno() == Some(Errno::E2BIG) => directory_in_parts(self, path),
            Err(error) => Err(error),
        }
    }

    /// Whether a node exists.
    ///
    /// # Errors
    ///
    /// As for [`Nodes::read`], but not `ENOENT`.
    fn exists(&self, path: &str) -> Result<bool> {
        present(self.read(path)).map(|found| found.is_some())
    }

    /// The permissions of a node.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such node.
    fn get_perms(&self, path: &str) -> Result<Perms> {
        let answer = self.call(XsType::GET_PERMS, &[path.as_bytes(), b"\0"])?;
        Perms::parse(&answer).ok_or_else(|| Error::new("get_perms", path, Cause::BadAnswer("not a list of permissions")))
    }

    /// Sets the permissions of a node.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such node; `EPERM` when a domain other than 0 would give its node away.
    fn set_perms(&self, path: &str, perms: &Perms) -> Result<()> {
        self.call(XsType::SET_PERMS, &[path.as_bytes(), b"\0", &perms.to_payload()]).map(drop)
    }
}

impl Nodes for Store {
    fn call(&self, kind: XsType, parts: &[&[u8]]) -> Result<Vec<u8>> {
        Store::call(self, kind, 0, parts)
    }
}

/// Requests about domains. Only domain 0 and domains that it trusts may make them.
impl Store {
    /// The home of a domain: `/local/domain/N`.
    ///
    /// # Errors
    ///
    /// [`Cause::Io`].
    pub fn get_domain_path(&self, domid: u16) -> Result<String> {
        let answer = self.about(XsType::GET_DOMAIN_PATH, domid, &[])?;
        text("get_domain_path", answer)
    }

    /// Tells the daemon of a domain whose ring page is in frame `gfn` and whose end of the event channel is `port`. Of a known
    /// domain, only the event channel is bound anew.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the ring cannot be mapped or the port not bound.
    pub fn introduce(&self, domid: u16, gfn: u64, port: u32) -> Result<()> {
        self.about(XsType::INTRODUCE, domid, &[&gfn.to_string(), &port.to_string()]).map(drop)
    }

    /// Makes the daemon forget a domain.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it does not know the domain.
    pub fn release(&self, domid: u16) -> Result<()> {
        self.about(XsType::RELEASE, domid, &[]).map(drop)
    }

    /// Tells the daemon that a domain goes on after a suspend.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it does not know the domain.
    pub fn resume(&self, domid: u16) -> Result<()> {
        self.about(XsType::RESUME, domid, &[]).map(drop)
    }

    /// Gives a domain the rights of domain `target`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the daemon does not know one of them.
    pub fn set_target(&self, domid: u16, target: u16) -> Result<()> {
        self.about(XsType::SET_TARGET, domid, &[&target.to_string()]).map(drop)
    }

    /// Whether the daemon knows a domain.
    ///
    /// # Errors
    ///
    /// [`Cause::Io`].
    pub fn is_introduced(&self, domid: u16) -> Result<bool> {
        match self.about(XsType::IS_DOMAIN_INTRODUCED, domid, &[])?.first() {
            Some(b'T') => Ok(true),
            Some(b'F') => Ok(false),
            _ => Err(Error::new("is_domain_introduced", domid.to_string(), Cause::BadAnswer("neither T nor F"))),
        }
    }

    /// Sends a command to the daemon itself; `help` lists them.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the daemon does not know the command or its arguments.
    pub fn control(&self, words: &[&str]) -> Result<String> {
        let mut payload = Vec::new();
        for word in words {
            payload.extend_from_slice(word.as_bytes());
            payload.push(0);
        }
        let answer = self.call(XsType::CONTROL, 0, &[&payload])?;
        text("control", answer)
    }

    /// Removes all watches and transactions of this connection.
    ///
    /// # Errors
    ///
    /// [`Cause::Io`].
    pub fn reset_watches(&self) -> Result<()> {
        let mut state = self.shared.lock();
        state.watches.clear();
        self.shared.request(&mut state, XsType::RESET_WATCHES, 0, &[b"\0"]).map(drop)
    }

    fn about(&self, kind: XsType, domid: u16, more: &[&str]) -> Result<Vec<u8>> {
        let mut payload = format!("{domid}\0").into_bytes();
        for word in more {
            payload.extend_from_slice(word.as_bytes());
            payload.push(0);
        }
        self.call(kind, 0, &[&payload])
    }
}

/// `None` instead of an error for what does not exist.
fn present<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn text(operation: &'static str, mut answer: Vec<u8>) -> Result<String> {
    if answer.last() == Some(&0) {
        answer.pop();
    }
    String::from_utf8(answer).map_err(|_| Error::new(operation, "", Cause::BadAnswer("not text")))
}

/// Names that each end in a zero byte.
fn names(operation: &'static str, path: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::new(operation, path, Cause::BadAnswer("a name is not text")))?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// Lists children that do not fit one message. Each part starts with the node's generation; when it changes, the list starts anew.
/// The last part ends in an empty name.
fn directory_in_parts<N: Nodes + ?Sized>(nodes: &N, path: &str) -> Result<Vec<String>> {
    const OPERATION: &str = "directory_part";
    let bad = |what| Error::new(OPERATION, path, Cause::BadAnswer(what));
    let mut generation: Option<Vec<u8>> = None;
    let mut list: Vec<u8> = Vec::new();
    loop {
        let answer = nodes.call(XsType::DIRECTORY_PART, &[path.as_bytes(), b"\0", list.len().to_string().as_bytes(), b"\0"])?;
        let end = answer.iter().position(|byte| *byte == 0).ok_or_else(|| bad("a part without a generation"))?;
        let (of, part) = answer.split_at(end);
        let part = part.get(1..).unwrap_or_default();
        if generation.as_deref().is_some_and(|known| known != of) {
            generation = None;
            list.clear();
            continue;
        }
        generation = Some(of.to_vec());
        match part {
            [] => return Err(bad("an empty part")),
            [0] => return names(OPERATION, path, &list),
            [rest @ .., 0, 0] => {
                list.extend_from_slice(rest);
                return names(OPERATION, path, &list);
            }
            part => list.extend_from_slice(part),
        }
    }
}
