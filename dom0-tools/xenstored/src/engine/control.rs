//! Commands to the daemon itself (`xenstore-control`).

use super::{Answer, Engine, Host, Request, strings};
use crate::log;
use oxen_abi::Errno;
use std::fmt::Write as _;

const HELP: &str = "\
help                   this list
check                  compare the accounting with the tree
log on|off             log every request
memreport              what is kept
print TEXT             write TEXT to the log
quota                  the limits of domains
quota DOMID            what a domain has
quota NAME VALUE       change a limit";

impl Engine {
    pub(super) fn control(&mut self, request: &Request<'_>, _: &mut dyn Host) -> Answer {
        let words: Vec<&str> = strings(request.payload).ok_or(Errno::EINVAL)?.collect();
        let text = match words.as_slice() {
            ["help"] => HELP.to_owned(),
            ["print", text] => {
                log::line(&format!("control: {text}"));
                "OK".to_owned()
            }
            ["log", "on"] => {
                self.trace = true;
                "OK".to_owned()
            }
            ["log", "off"] => {
                self.trace = false;
                "OK".to_owned()
            }
            ["check"] => self.check_accounting(),
            ["memreport"] => self.report(),
            ["quota"] => self.limits.each().iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n"),
            ["quota", domid] => self.usage(domid.parse().map_err(|_| Errno::EINVAL)?),
            ["quota", name, value] => {
                let value = value.parse().map_err(|_| Errno::EINVAL)?;
                if !self.limits.set(name, value) {
                    return Err(Errno::EINVAL);
                }
                "OK".to_owned()
            }
            _ => return Err(Errno::EINVAL),
        };
        self.answer(request, &[text.as_bytes(), b"\0"])
    }

    fn check_accounting(&self) -> String {
        let (kept, counted) = (self.live.owners().to_vec(), self.live.count_owners());
        if kept == counted { "OK".to_owned() } else { format!("kept {kept:?}, counted {counted:?}") }
    }

    fn usage(&self, domid: u16) -> String {
        let client = self.domains.get(&domid).and_then(|domain| self.clients.get(domain.client));
        let (watches, transactions, unread) =
            client.map_or((0, 0, 0), |client| (client.watches.len(), client.transactions.len(), client.output.waiting().len()));
        format!("nodes: {}\nwatches: {watches}\ntransactions: {transactions}\nunread: {unread}", self.live.owned_by(domid))
    }

    fn report(&self) -> String {
        let mut text = String::new();
        let nodes: u32 = self.live.owners().iter().map(|(_, count)| count).sum();
        let watches: usize = self.clients.iter().map(|(_, client)| client.watches.len()).sum();
        let transactions: usize = self.clients.iter().map(|(_, client)| client.transactions.len()).sum();
        let unread: usize = self.clients.iter().map(|(_, client)| client.output.waiting().len()).sum();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "nodes: {nodes}\ndomains: {}\nconnections: {}\nwatches: {watches}\ntransactions: {transactions}\nunread bytes: {unread}",
            self.domains.len(),
            self.clients.len()
        );
        text
    }
}
