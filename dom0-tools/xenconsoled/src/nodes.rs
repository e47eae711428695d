//! What xenstore says of consoles.

use oxen_xenstore::{Nodes as _, Result, Store, path};

/// Output kept while nobody reads, where xenstore names no limit.
const DEFAULT_LIMIT: usize = 1 << 20;
/// No limit is larger.
const MAX_LIMIT: usize = 16 << 20;

/// A console that this daemon serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleNodes {
    /// The ring's frame.
    pub ring_ref: u64,
    /// The guest's event channel.
    pub port: u32,
    /// Bytes kept while nobody reads.
    pub limit: usize,
    /// The guest's name.
    pub name: String,
}

/// The directory of the console of domain `domid`.
pub fn console_path(domid: u16) -> String {
    format!("{}/console", path::home(domid))
}

/// The node with the name of domain `domid`.
pub fn name_path(domid: u16) -> String {
    format!("{}/name", path::home(domid))
}

/// The node that names the pseudo-terminal of domain `domid`.
pub fn tty_path(domid: u16) -> String {
    format!("{}/tty", console_path(domid))
}

/// The console of domain `domid`; `None` while it has none, or none that this daemon serves.
pub fn read(store: &Store, domid: u16) -> Result<Option<ConsoleNodes>> {
    let console = console_path(domid);
    let node = |name: &str| store.try_read(&format!("{console}/{name}"));
    if node("type")?.is_some_and(|kind| kind != "xenconsoled") {
        return Ok(None);
    }
    let (ring_ref, port) = (node("ring-ref")?, node("port")?);
    let (Some(ring_ref), Some(port)) = (ring_ref.and_then(|text| text.parse().ok()), port.and_then(|text| text.parse().ok())) else {
        return Ok(None);
    };
    let limit = node("limit")?.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT);
    let name = store.try_read(&name_path(domid))?;
    Ok(Some(ConsoleNodes { ring_ref, port, limit: limit.min(MAX_LIMIT), name: name.unwrap_or_else(|| domid.to_string()) }))
}

/// Tells where the pseudo-terminal of domain `domid` is, unless the console's nodes are gone.
pub fn publish_tty(store: &Store, domid: u16, tty: &str) -> Result<()> {
    let ring = format!("{}/ring-ref", console_path(domid));
    store.transaction(|t| {
        // Writing would bring back the nodes of a guest that has just gone.
        if t.exists(&ring)? { t.write(&tty_path(domid), tty) } else { Ok(()) }
    })
}
