//! Quotas of domains other than 0, and the log about them.

use crate::log::RateLimit;

/// How much a domain may have. The defaults are those of Xen 4.17's daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Nodes that it owns.
    pub nodes: u32,
    /// Bytes of a node: value, permissions and list of children.
    pub node_size: u32,
    /// Entries of a node's permissions.
    pub perms: u32,
    /// Watches.
    pub watches: u32,
    /// Transactions at a time.
    pub transactions: u32,
    /// Nodes that a transaction reads or changes.
    pub transaction_nodes: u32,
    /// Bytes of answers that it has not read; with more, its requests wait.
    pub unread: u32,
    /// Bytes of answers and events that it has not read; with more, events are lost.
    pub queue: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nodes: 1000, node_size: 2048, perms: 5, watches: 128, transactions: 10, transaction_nodes: 1024, unread: 16 << 10, queue: 256 << 10 }
    }
}

impl Limits {
    /// Every quota with its name.
    pub fn each(&self) -> [(&'static str, u32); 8] {
        [
            ("nodes", self.nodes),
            ("node-size", self.node_size),
            ("perms", self.perms),
            ("watches", self.watches),
            ("transactions", self.transactions),
            ("transaction-nodes", self.transaction_nodes),
            ("unread", self.unread),
            ("queue", self.queue),
        ]
    }

    /// Changes a quota; `false` if there is none of that name.
    pub fn set(&mut self, name: &str, value: u32) -> bool {
        let place = match name {
            "nodes" => &mut self.nodes,
            "node-size" => &mut self.node_size,
            "perms" => &mut self.perms,
            "watches" => &mut self.watches,
            "transactions" => &mut self.transactions,
            "transaction-nodes" => &mut self.transaction_nodes,
            "unread" => &mut self.unread,
            "queue" => &mut self.queue,
            _ => return false,
        };
        *place = value;
        true
    }
}

/// Tells of domains that reach their quotas.
#[derive(Debug, Default)]
pub struct QuotaLog {
    rate: RateLimit,
}

impl QuotaLog {
    /// Domain `domid` wanted `value` of what quota `name` limits to `limit`.
    pub fn hit(&mut self, domid: u16, name: &str, value: usize, limit: u32, about: &str) {
        self.rate.line(|| format!("domain {domid} reached quota {name}: {value} of {limit} ({about})"));
    }
}
