//! The xenstore nodes of a guest, as Xen's tools write them (`libxl`; public document `xenstore-paths`).

use crate::daemon::Daemon;
use crate::error::ToApi;
use oxen_domain_build::Built;
use oxen_guest_config::{GuestConfig, Uuid};
use oxen_xend_api::Error;
use oxen_xenstore::{Access, Batch, Nodes, Perms};

/// What a guest may write below its home.
const WRITABLE: &[&str] = &["data", "drivers", "feature", "attr", "error", "device/suspend/event-channel"];
/// What a guest may write below `control`.
const WRITABLE_CONTROL: &[&str] = &["shutdown", "feature-poweroff", "feature-reboot", "feature-suspend", "sysrq"];

/// Owned by domain 0, readable by the guest.
fn read_only(domid: u16) -> Perms {
    Perms::owned(0, Access::None).and(domid, Access::Read)
}

/// Owned by the guest.
fn own(domid: u16) -> Perms {
    Perms::owned(domid, Access::None)
}

/// The guest's home.
pub(crate) fn home(domid: u16) -> String {
    format!("/local/domain/{domid}")
}

/// What only tools see of the guest.
fn private(domid: u16) -> String {
    format!("/libxl/{domid}")
}

impl Daemon {
    /// Writes everything about a new guest, so that all of it or nothing is there.
    pub(crate) fn write_nodes(&self, config: &GuestConfig, uuid: Uuid, built: &Built, now: u64) -> Result<(), Error> {
        let domid = built.domid;
        let home = home(domid);
        let vm = format!("/vm/{uuid}");
        let mut batch = Batch::default();
        // Another domain may have had this number before.
        for path in [&home, &private(domid), &vm] {
            batch.rm_if_exists(path);
        }
        // What is written below has the same permissions.
        batch.write(&vm, "");
        batch.set_perms(&vm, &read_only(domid));
        for (node, value) in [("uuid", uuid.to_string()), ("name", config.name.clone()), ("start_time", now.to_string())] {
            batch.write(&format!("{vm}/{node}"), value);
        }
        batch.write(&home, "");
        batch.set_perms(&home, &read_only(domid));
        let mut put = |node: &str, value: &str| batch.write(&format!("{home}/{node}"), value);
        put("vm", &vm);
        put("name", &config.name);
        put("domid", &domid.to_string());
        for vcpu in 0..config.max_vcpus() {
            put(&format!("cpu/{vcpu}/availability"), if vcpu < config.vcpus { "online" } else { "offline" });
        }
        put("memory/static-max", &(config.max_memory_mib() * 1024).to_string());
        put("memory/target", &(config.memory_mib * 1024).to_string());
        put("memory/videoram", "0");
        put("device", "");
        put("control/platform-feature-multiprocessor-suspend", "1");
        put("control/platform-feature-xs_reset_watches", "1");
        put("store/port", &built.store_port.to_string());
        put("store/ring-ref", &built.store_mfn.to_string());
        for node in WRITABLE.iter().map(|node| format!("{home}/{node}")).chain(WRITABLE_CONTROL.iter().map(|node| format!("{home}/control/{node}"))) {
            batch.write(&node, "");
            batch.set_perms(&node, &own(domid));
        }
        batch.write(&format!("{}/type", private(domid)), "pv");
        self.console_nodes(&mut batch, config, built);
        self.store.apply(&batch).or_api("writing the guest's xenstore nodes")
    }

    /// The console's two ends, which xenconsoled acts on.
    fn console_nodes(&self, batch: &mut Batch, config: &GuestConfig, built: &Built) {
        let domid = built.domid;
        let frontend = format!("{}/console", home(domid));
        let backend = format!("/local/domain/0/backend/console/{domid}/0");
        let limit = config.console.limit_bytes.unwrap_or(self.settings.console_limit_kib * 1024);
        let log = match config.console.log {
            Some(false) => "off",
            _ => "on",
        };
        let nodes = [
            ("backend", backend.clone()),
            ("backend-id", "0".to_owned()),
            ("limit", limit.to_string()),
            ("log", log.to_owned()),
            ("type", "xenconsoled".to_owned()),
            ("output", "pty".to_owned()),
            ("tty", String::new()),
            ("port", built.console_port.to_string()),
            ("ring-ref", built.console_mfn.to_string()),
        ];
        for (node, value) in nodes {
            batch.write(&format!("{frontend}/{node}"), value);
        }
        batch.write(&backend, "");
        batch.set_perms(&backend, &read_only(domid));
        let nodes = [("frontend", frontend), ("frontend-id", domid.to_string()), ("online", "1".to_owned()), ("state", "1".to_owned()), ("protocol", "vt100".to_owned())];
        for (node, value) in nodes {
            batch.write(&format!("{backend}/{node}"), value);
        }
    }

    /// Gives a domain another name and UUID.
    pub(crate) fn move_nodes(&self, domid: u16, from: Uuid, to: Uuid, name: &str) -> Result<(), Error> {
        let (old, vm, home) = (format!("/vm/{from}"), format!("/vm/{to}"), home(domid));
        self.store
            .transaction(|t| {
                let start_time = t.try_read(&format!("{old}/start_time"))?;
                t.rm_if_exists(&old)?;
                t.write(&vm, "")?;
                t.set_perms(&vm, &read_only(domid))?;
                for (node, value) in [("uuid", Some(to.to_string())), ("name", Some(name.to_owned())), ("start_time", start_time)] {
                    if let Some(value) = value {
                        t.write(&format!("{vm}/{node}"), value)?;
                    }
                }
                t.write(&format!("{home}/vm"), &vm)?;
                t.write(&format!("{home}/name"), name)
            })
            .or_api("renaming the guest")
    }

    /// Removes everything about a domain that is gone or has not begun to run.
    pub(crate) fn remove_nodes(&self, domid: u16, uuid: Uuid) -> Result<(), Error> {
        let mut batch = Batch::default();
        for path in [home(domid), private(domid), format!("/vm/{uuid}"), format!("/local/domain/0/backend/console/{domid}")] {
            batch.rm_if_exists(&path);
        }
        self.store.apply(&batch).or_api("removing the guest's xenstore nodes")
    }

    /// Writes a node of a running guest that only tools write.
    pub(crate) fn write_node(&self, domid: u16, node: &str, value: &str) -> Result<(), Error> {
        self.store.write(&format!("{}/{node}", home(domid)), value).or_api("writing a xenstore node")
    }

    /// Reads a number from a node of a guest.
    pub(crate) fn number_node(&self, domid: u16, node: &str) -> Option<u64> {
        self.store.try_read(&format!("{}/{node}", home(domid))).ok()??.parse().ok()
    }
}
