//! What a daemon does when it starts: it finds out what became of its guests meanwhile.

use crate::daemon::Daemon;
use crate::error::ToApi;
use crate::records::{Record, Stage};
use crate::view::nr_vcpus;
use oxen_abi::domctl::DOMINF_DYING;
use oxen_guest_config::OnDaemonStart;
use oxen_xend_api::Error;
use oxen_xenstore::Nodes;
use std::sync::Arc;

impl Daemon {
    /// Undoes creations and finishes destructions that broke off, forgets guests that are gone, and describes domain 0 in xenstore.
    ///
    /// # Errors
    ///
    /// When the hypervisor or xenstore does not answer. Guests that cannot be dealt with are logged and left for the next time.
    pub fn resume(self: &Arc<Self>) -> Result<(), Error> {
        self.describe_dom0()?;
        let domains = self.xen.domains().or_api("listing domains")?;
        for record in self.records.all() {
            let domain = domains.iter().find(|info| info.handle == *record.uuid.as_bytes() && info.flags & DOMINF_DYING == 0);
            if let Err(error) = self.resume_guest(&record, domain.map(|info| info.domain)) {
                tracing::error!("{}: {error}", record.config.name);
            }
        }
        self.look_after_guests();
        Ok(())
    }

    fn resume_guest(self: &Arc<Self>, record: &Record, domid: Option<u16>) -> Result<(), Error> {
        let name = &record.config.name;
        let is_whole = domid.is_some() && record.stage == Stage::Running;
        if !is_whole && self.carry_on_restart(record, domid)? {
            return Ok(());
        }
        match (record.stage, domid) {
            (Stage::Halted, None) => Ok(()),
            (Stage::Running | Stage::Preserved, Some(domid)) => {
                tracing::info!("{name} runs as domain {domid}");
                self.settle_plugging(record, domid)?;
                if self.stored_name(domid).as_ref() != Some(name) {
                    self.move_nodes(domid, record.uuid, record.uuid, name)?;
                }
                self.records.update(record.uuid, |record| record.domid = Some(domid)).or_api("remembering the guest").map(drop)
            }
            (Stage::Creating, _) => {
                tracing::warn!("the creation of {name} broke off; it is undone");
                if let Some(domid) = domid.or(record.domid) {
                    // Whoever carries this on would not find the number when the domain is gone already.
                    self.records.update(record.uuid, |record| record.domid = Some(domid)).or_api("remembering the guest")?;
                    self.remove_domain(domid, record.uuid)?;
                }
                self.undo(record, true)
            }
            (Stage::Destroying, _) | (_, None) => {
                tracing::warn!("{name} is gone; removing what is left of it");
                match domid.or(record.domid) {
                    Some(domid) => self.end(domid, record.uuid, Some(record)),
                    None => self.undo(record, true),
                }
            }
            (Stage::Halted, Some(domid)) => {
                tracing::warn!("{name} runs as domain {domid}, started by somebody else");
                let running = |record: &mut Record| {
                    record.stage = Stage::Running;
                    record.domid = Some(domid);
                };
                self.records.update(record.uuid, running).or_api("remembering the guest").map(drop)
            }
        }
    }

    /// What xenstore should say about domain 0; only what is missing is written.
    fn describe_dom0(&self) -> Result<(), Error> {
        let info = self.xen.domain(0).or_api("asking for domain 0")?;
        let memory_kib = (info.tot_pages * 4).to_string();
        let mut nodes = vec![("name".to_owned(), "Domain-0".to_owned()), ("domid".to_owned(), "0".to_owned()), ("memory/target".to_owned(), memory_kib)];
        for vcpu in 0..nr_vcpus(&info) {
            let online = self.xen.vcpu(0, vcpu).or_api("asking for domain 0's vCPUs")?.is_some_and(|vcpu| vcpu.online != 0);
            nodes.push((format!("cpu/{vcpu}/availability"), if online { "online" } else { "offline" }.to_owned()));
        }
        self.store
            .transaction(|t| {
                for (node, value) in &nodes {
                    let path = format!("/local/domain/0/{node}");
                    if t.try_read(&path)?.is_none() {
                        t.write(&path, value)?;
                    }
                }
                Ok(())
            })
            .or_api("describing domain 0 in xenstore")
    }

    /// Starts the managed guests that are to start with domain 0.
    pub fn start_marked(self: &Arc<Self>) {
        for record in self.records.all() {
            if record.managed && record.stage == Stage::Halted && record.config.on_xend_start == OnDaemonStart::Start {
                let operation = oxen_xend_api::Operation::Start { paused: false };
                if let Err(error) = self.operate(&record.uuid.to_string(), operation) {
                    tracing::error!("{}: {error}", record.config.name);
                }
            }
        }
    }
}
