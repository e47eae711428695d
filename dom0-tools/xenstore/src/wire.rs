//! Messages (`io/xs_wire.h`): a head of 16 bytes, then at most [`XENSTORE_PAYLOAD_MAX`] bytes.

use oxen_abi::Errno;
use oxen_abi::io::xs_wire::{XENSTORE_PAYLOAD_MAX, XsType};

/// Bytes of a message's head.
pub const HEAD_LEN: usize = 16;
/// Most bytes of a message.
pub const MESSAGE_MAX: usize = HEAD_LEN + XENSTORE_PAYLOAD_MAX;

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What it asks or answers.
    pub kind: XsType,
    /// Chosen by the client, repeated in the answer.
    pub req_id: u32,
    /// The transaction; 0 for none.
    pub tx_id: u32,
    /// Bytes that follow.
    pub len: u32,
}

impl Head {
    /// Reads a head. The length is as the sender says.
    pub fn parse(bytes: &[u8; HEAD_LEN]) -> Self {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *bytes;
        Self {
            kind: XsType(u32::from_le_bytes([a0, a1, a2, a3])),
            req_id: u32::from_le_bytes([b0, b1, b2, b3]),
            tx_id: u32::from_le_bytes([c0, c1, c2, c3]),
            len: u32::from_le_bytes([d0, d1, d2, d3]),
        }
    }

    /// The head as it goes over the wire.
    pub fn bytes(&self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        for (place, word) in out.chunks_exact_mut(4).zip([self.kind.raw(), self.req_id, self.tx_id, self.len]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

/// The first message in `bytes`: its head, its payload and its length; `None` while it is incomplete.
///
/// # Errors
///
/// A head that announces more than [`XENSTORE_PAYLOAD_MAX`] bytes is given back.
pub fn first_message(bytes: &[u8]) -> Result<Option<(Head, &[u8])>, Head> {
    let Some((head, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let head = Head::parse(head);
    let len = head.len as usize;
    if len > XENSTORE_PAYLOAD_MAX {
        return Err(head);
    }
    Ok(rest.get(..len).map(|payload| (head, payload)))
}

/// Appends a message to `out`. The parts must fit a payload.
pub fn put_message(out: &mut Vec<u8>, kind: XsType, req_id: u32, tx_id: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    put_head(out, kind, req_id, tx_id, len);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends the head of a message to `out`, with room for the payload of `len` bytes that must follow.
pub fn put_head(out: &mut Vec<u8>, kind: XsType, req_id: u32, tx_id: u32, len: usize) {
    debug_assert!(len <= XENSTORE_PAYLOAD_MAX);
    out.reserve(HEAD_LEN + len);
    out.extend_from_slice(&Head { kind, req_id, tx_id, len: len as u32 }.bytes());
}

/// The names of errors that the protocol knows (`xsd_errors` of `io/xs_wire.h`).
const ERRORS: &[Errno] = &[
    Errno::EINVAL,
    Errno::EACCES,
    Errno::EEXIST,
    Errno::EISDIR,
    Errno::ENOENT,
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::EIO,
    Errno::ENOTEMPTY,
    Errno::ENOSYS,
    Errno::EROFS,
    Errno::EBUSY,
    Errno::EAGAIN,
    Errno::EISCONN,
    Errno::E2BIG,
    Errno::EPERM,
];

/// The name of an error as it goes over the wire, without the zero byte. What the protocol has no name for becomes `EINVAL`.
pub fn error_name(errno: Errno) -> &'static str {
    if ERRORS.contains(&errno) { errno.name() } else { Errno::EINVAL.name() }
}

/// The error that the payload of an error message names.
pub fn parse_error(payload: &[u8]) -> Option<Errno> {
    let name = payload.strip_suffix(b"\0").unwrap_or(payload);
    ERRORS.iter().copied().find(|errno| errno.name().as_bytes() == name)
}

/// The request's name in lower case, as users know it; `None` for numbers that the protocol does not have.
pub const fn name(kind: XsType) -> Option<&'static str> {
    Some(match kind {
        XsType::CONTROL => "control",
        XsType::DIRECTORY => "directory",
        XsType::READ => "read",
        XsType::GET_PERMS => "get_perms",
        XsType::WATCH => "watch",
        XsType::UNWATCH => "unwatch",
        XsType::TRANSACTION_START => "transaction_start",
        XsType::TRANSACTION_END => "transaction_end",
        XsType::INTRODUCE => "introduce",
        XsType::RELEASE => "release",
        XsType::GET_DOMAIN_PATH => "get_domain_path",
        XsType::WRITE => "write",
        XsType::MKDIR => "mkdir",
        XsType::RM => "rm",
        XsType::SET_PERMS => "set_perms",
        XsType::WATCH_EVENT => "watch_event",
        XsType::ERROR => "error",
        XsType::IS_DOMAIN_INTRODUCED => "is_domain_introduced",
        XsType::RESUME => "resume",
        XsType::SET_TARGET => "set_target",
        XsType::RESET_WATCHES => "reset_watches",
        XsType::DIRECTORY_PART => "directory_part",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let mut out = Vec::new();
        put_message(&mut out, XsType::WRITE, 7, 9, &[b"/a\0", b"value"]);
        put_message(&mut out, XsType::READ, 8, 0, &[]);
        let (head, payload) = first_message(&out).unwrap().unwrap();
        assert_eq!((head.kind, head.req_id, head.tx_id, payload), (XsType::WRITE, 7, 9, &b"/a\0value"[..]));
        let rest = &out[HEAD_LEN + payload.len()..];
        assert_eq!(first_message(rest).unwrap().unwrap().1, b"");
        for end in 0..HEAD_LEN {
            assert_eq!(first_message(&rest[..end]).unwrap(), None);
        }
    }

    #[test]
    fn too_long_messages_are_refused() {
        let head = Head { kind: XsType::READ, req_id: 0, tx_id: 0, len: 4097 };
        assert_eq!(first_message(&head.bytes()), Err(head));
    }

    #[test]
    fn errors_have_names() {
        assert_eq!(error_name(Errno::EAGAIN), "EAGAIN");
        assert_eq!(error_name(Errno::EDOM), "EINVAL");
        assert_eq!(parse_error(b"E2BIG\0"), Some(Errno::E2BIG));
        assert_eq!(parse_error(b"EWHAT\0"), None);
    }
}
