//! Domains: known, forgotten, dead.

use super::{Answer, Engine, Host, Request, one_string, strings};
use crate::client::Client;
use crate::journal::record::Record;
use crate::log;
use crate::tree::{self, Change};
use oxen_abi::Errno;
use oxen_xenstore::Perms;
use oxen_xenstore::path::{self, INTRODUCE_DOMAIN, RELEASE_DOMAIN};
use std::rc::Rc;

/// `DOMID_SELF` of `xen.h`.
const DOMID_SELF: u16 = 0x7ff0;

/// A domain with a ring.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Its client's number.
    pub client: usize,
    /// The frame of its ring, as it was told.
    pub gfn: u64,
    /// Its end of the event channel.
    pub port: u32,
    /// Whether it is known to have shut down.
    pub shut_down: bool,
}

/// What the hypervisor says of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs, or is paused.
    Running,
    /// It has shut down but exists.
    ShutDown,
    /// It is gone, or on its way.
    Gone,
}

impl Engine {
    /// The domains that are known.
    pub fn domains(&self) -> impl Iterator<Item = (u16, &Domain)> {
        self.domains.iter().map(|(domid, domain)| (*domid, domain))
    }

    pub(super) fn introduce(&mut self, request: &Request<'_>, host: &mut dyn Host) -> Answer {
        let [domid, gfn, port] = numbers(request.payload)?;
        let (domid, port) = (domid_of(domid)?, u32::try_from(port).map_err(|_| Errno::EINVAL)?);
        if port == 0 {
            return Err(Errno::EINVAL);
        }
        if let Some(domain) = self.domains.get_mut(&domid) {
            host.rebind(domid, port)?;
            domain.port = port;
            self.journal.put(&Record::Introduce { domid, gfn, port });
            return self.ok(request);
        }
        self.introduce_domain(domid, gfn, port, host)?;
        self.ok(request)
    }

    /// Makes a domain known, connects it and tells the watchers.
    ///
    /// # Errors
    ///
    /// When it cannot be connected.
    pub fn introduce_domain(&mut self, domid: u16, gfn: u64, port: u32, host: &mut dyn Host) -> Answer {
        let client = self.clients.insert(Client::new(domid, true, true));
        let (consumed, producer) = match host.connect(domid, gfn, port, client) {
            Ok(indices) => indices,
            Err(errno) => {
                self.clients.try_remove(client);
                return Err(errno);
            }
        };
        if let Some(client) = self.clients.get_mut(client) {
            client.consumed = consumed;
            client.output.reset(producer);
        }
        self.domains.insert(domid, Domain { client, gfn, port, shut_down: false });
        self.journal.put(&Record::Introduce { domid, gfn, port });
        self.journal.put(&Record::Consumed { domid, index: consumed });
        self.journal.put(&Record::Output { domid, index: producer, bytes: &[] });
        self.fire_special(INTRODUCE_DOMAIN);
        Ok(())
    }

    pub(super) fn release(&mut self, request: &Request<'_>, host: &mut dyn Host) -> Answer {
        let domid = one_domid(request.payload)?;
        if domid == 0 || !self.domains.contains_key(&domid) {
            return Err(Errno::ENOENT);
        }
        self.forget_domain(domid, host);
        self.fire_special(RELEASE_DOMAIN);
        self.ok(request)
    }

    pub(super) fn resume(&mut self, request: &Request<'_>, _: &mut dyn Host) -> Answer {
        let domid = one_domid(request.payload)?;
        self.domains.get_mut(&domid).ok_or(Errno::ENOENT)?.shut_down = false;
        self.ok(request)
    }

    pub(super) fn is_introduced(&mut self, request: &Request<'_>, _: &mut dyn Host) -> Answer {
        let domid = one_domid(request.payload)?;
        let known = domid == DOMID_SELF || self.domains.contains_key(&domid);
        self.answer(request, &[if known { b"T\0" } else { b"F\0" }])
    }

    pub(super) fn set_target(&mut self, request: &Request<'_>, _: &mut dyn Host) -> Answer {
        let [domid, target] = numbers(request.payload)?;
        let (domid, target) = (domid_of(domid)?, domid_of(target)?);
        if !self.domains.contains_key(&target) {
            return Err(Errno::ENOENT);
        }
        let number = self.domains.get(&domid).ok_or(Errno::ENOENT)?.client;
        if let Some(client) = self.clients.get_mut(number) {
            client.target = Some(target);
        }
        self.journal.put(&Record::Target { domid, target });
        self.ok(request)
    }

    pub(super) fn get_domain_path(&mut self, request: &Request<'_>) -> Answer {
        let domid = one_domid(request.payload)?;
        self.answer(request, &[path::home(domid).as_bytes(), b"\0"])
    }

    /// Looks which domains have died or shut down; `life` asks the hypervisor. Tells the watchers if there are any.
    pub fn check_domains(&mut self, mut life: impl FnMut(u16) -> Life, host: &mut dyn Host) {
        let mut changed = false;
        let known: Vec<u16> = self.domains.keys().copied().filter(|domid| *domid != 0).collect();
        for domid in known {
            match life(domid) {
                Life::Running => {}
                Life::ShutDown => {
                    if let Some(domain) = self.domains.get_mut(&domid) {
                        changed |= !domain.shut_down;
                        domain.shut_down = true;
                    }
                }
                Life::Gone => {
                    log::line(&format!("domain {domid} is gone"));
                    self.forget_domain(domid, host);
                    changed = true;
                }
            }
        }
        // Nodes may belong to domains that died before they were introduced.
        let owners: Vec<u16> = self.live.owners().iter().map(|(domid, _)| *domid).filter(|domid| *domid != 0 && !self.domains.contains_key(domid)).collect();
        for domid in owners {
            if life(domid) == Life::Gone {
                self.forget_nodes(domid);
            }
        }
        if changed {
            self.fire_special(RELEASE_DOMAIN);
        }
        self.end_request();
    }

    /// Cuts a domain off that breaks the protocol. It stays known, so that its end is noticed.
    pub fn cut_off(&mut self, domid: u16, host: &mut dyn Host) {
        if let Some(number) = self.domains.get(&domid).map(|domain| domain.client) {
            self.drop_watches(number);
            self.journal.put(&Record::Reset { domid });
            self.end_request();
        }
        host.disconnect(domid);
    }

    /// Forgets a domain with its connection, what it owns and the rights that others gave it, so that a later domain of the same
    /// number inherits nothing.
    fn forget_domain(&mut self, domid: u16, host: &mut dyn Host) {
        let Some(domain) = self.domains.remove(&domid) else { return };
        host.disconnect(domid);
        self.remove_client(domain.client);
        for (_, client) in &mut self.clients {
            if client.target == Some(domid) {
                client.target = None;
            }
        }
        self.forget_nodes(domid);
        self.journal.put(&Record::Release { domid });
    }

    fn forget_nodes(&mut self, domid: u16) {
        for (_, client) in &mut self.clients {
            for transaction in client.transactions.values_mut().filter(|transaction| transaction.mentions(domid)) {
                transaction.doom(&self.live);
            }
        }
        let mut changes = Vec::new();
        let mut removed: Option<String> = None;
        tree::walk("/", self.live.root(), |path, node| {
            let below_removed = removed.as_ref().is_some_and(|top| path.strip_prefix(top.as_str()).is_some_and(|rest| rest.starts_with('/')));
            if below_removed {
                return;
            }
            let perms = node.perms();
            if perms.owner() == domid {
                removed = Some(path.to_owned());
                changes.push(Change::Remove { path: Rc::from(path), node: Rc::clone(node) });
            } else if perms.others().iter().any(|entry| entry.domid == domid) {
                changes.push(Change::Perms { path: Rc::from(path), perms: Rc::new(without(perms, domid)), before: Rc::clone(perms) });
            }
        });
        changes.into_iter().for_each(|change| self.commit_change(change));
    }

    pub(super) fn special_perms(&self, name: &str) -> &Rc<Perms> {
        if name == INTRODUCE_DOMAIN { &self.introduce_perms } else { &self.release_perms }
    }

    pub(super) fn set_special_perms(&mut self, name: &str, perms: Perms) {
        self.journal.put(&Record::Perms { path: name, perms: perms.clone() });
        *(if name == INTRODUCE_DOMAIN { &mut self.introduce_perms } else { &mut self.release_perms }) = Rc::new(perms);
    }
}

/// Permissions without what they give a domain.
fn without(perms: &Perms, domid: u16) -> Perms {
    let mut perms = perms.clone();
    perms.retain_others(|entry| entry.domid != domid);
    perms
}

fn domid_of(number: u64) -> Result<u16, Errno> {
    u16::try_from(number).map_err(|_| Errno::EINVAL)
}

fn one_domid(payload: &[u8]) -> Result<u16, Errno> {
    one_string(payload)?.parse().map_err(|_| Errno::EINVAL)
}

/// The numbers that a payload starts with.
fn numbers<const N: usize>(payload: &[u8]) -> Result<[u64; N], Errno> {
    let mut strings = strings(payload).ok_or(Errno::EINVAL)?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = strings.next().and_then(|text| text.parse().ok()).ok_or(Errno::EINVAL)?;
    }
    Ok(numbers)
}
