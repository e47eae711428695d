//! Network cards.

use crate::bus::{Address, Kind, Nodesets, publish};
use crate::error::{about, store as in_store};
use crate::kernel::{Link, LinkChange};
use crate::script::Step;
use crate::{Code, Devices, Guest, Result};
use oxen_guest_config::{Mac, Vif};
use oxen_xend_api::NetworkDevice;
use oxen_xenstore::{Nodes, Store};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The bridge that Xen's tools expect.
const USUAL_BRIDGE: &str = "xenbr0";
/// What a guest takes the longest packet to be unless told, in bytes: Ethernet's.
const USUAL_MTU: u32 = 1500;

/// How often an interface that is to come is looked for.
const POLL: Duration = Duration::from_millis(5);

/// What is done with a card's interface in domain 0.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Setup {
    /// It joins a bridge.
    Bridge { name: String, link: Link },
    /// Packets to the guest's addresses are routed to it.
    Route,
    /// What a script does.
    Script(PathBuf),
}

impl Devices {
    /// Checks that a network card can be set up: that its bridge or its script is there.
    ///
    /// # Errors
    ///
    /// `bad-network`, `unsupported`, `system`.
    pub fn check_vif(&self, vif: &Vif) -> Result<()> {
        let device = match (vif.devid, vif.mac) {
            (Some(devid), _) => format!("network card {devid}"),
            (None, Some(mac)) => format!("network card {mac}"),
            (None, None) => "network card".to_owned(),
        };
        self.setup(&device, vif).map(drop)
    }

    /// Gives a guest, which runs or is about to, a network card. `devid` is its number; without it `vif.devid` is, else the first one
    /// that is free. The guest's driver connects when it likes.
    ///
    /// # Errors
    ///
    /// Like [`Devices::check_vif`], and `script-failed`, `timeout`, `xenstore`. Nothing is left behind.
    pub fn attach_vif(
        &self,
        store: &Store,
        guest: &Guest,
        devid: Option<u32>,
        vif: &Vif,
    ) -> Result<NetworkDevice> {
        let choosing = self.choosing();
        let devid = match devid.or(vif.devid) {
            Some(devid) => devid,
            None => self.free_devid(store, guest)?,
        };
        let device = label(guest, &devid.to_string());
        let at = Address {
            kind: Kind::Vif,
            domid: guest.domid,
            devid,
        };
        self.check_new(store, at, &device)?;
        let setup = self.setup(&device, vif)?;
        let mac = match vif.mac {
            Some(mac) => mac,
            None => Mac::random().map_err(|error| about(Code::System, &device, error))?,
        };
        publish(store, at, &self.nodes(at, vif, mac, &setup)).map_err(in_store(&device))?;
        drop(choosing);
        let attached = self.connect(store, at, &device, vif, &setup);
        match attached.and_then(|()| self.network(store, at)) {
            Ok(network) => Ok(network),
            Err(error) => {
                // The first failure is the one to tell.
                let _ = self.withdraw(store, at, &device);
                Err(error)
            }
        }
    }

    /// Takes a network card away from a running guest. `device` is its number or its address. With `force` it goes even if the guest does not let go of it within two seconds.
    ///
    /// # Errors
    ///
    /// `no-such-device`; `guest-refuses` and `timeout` when the guest does not let go of it.
    pub fn detach_vif(
        &self,
        store: &Store,
        guest: &Guest,
        device: &str,
        force: bool,
    ) -> Result<()> {
        let name = label(guest, device);
        let devid = match device.parse::<Mac>() {
            Ok(mac) => self
                .vifs(store, guest.domid)?
                .into_iter()
                .find(|card| card.mac.parse() == Ok(mac))
                .map(|card| card.device.id),
            Err(_) => device.parse().ok(),
        };
        let Some(devid) = devid else {
            return Err(about(
                Code::NoSuchDevice,
                &name,
                "the guest has none with this number or address",
            ));
        };
        self.remove(
            store,
            Address {
                kind: Kind::Vif,
                domid: guest.domid,
                devid,
            },
            &name,
            force,
        )
    }

    /// Where a script is, given that it can be run.
    pub(crate) fn check_script(&self, code: Code, device: &str, name: &str) -> Result<PathBuf> {
        let path = self.script_path(name);
        let bad = |why: String| {
            about(
                code,
                device,
                format_args!("script {} {why}", path.display()),
            )
        };
        let meta =
            std::fs::metadata(&path).map_err(|error| bad(format!("cannot be used: {error}")))?;
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            return Err(bad("is no executable file".to_owned()));
        }
        Ok(path)
    }

    /// What to do for a card.
    fn setup(&self, device: &str, vif: &Vif) -> Result<Setup> {
        if let Some(domain) = vif
            .backend
            .as_deref()
            .filter(|domain| !matches!(*domain, "0" | "Domain-0"))
        {
            return Err(about(
                Code::Unsupported,
                device,
                format_args!(
                    "its back end would be in domain {domain}; cards are served by domain 0 only"
                ),
            ));
        }
        if let Some(name) = &vif.vifname
            && self.link(device, name)?.is_some()
        {
            return Err(about(
                Code::BadNetwork,
                device,
                format_args!("there is a network interface {name} already"),
            ));
        }
        match vif
            .script
            .as_deref()
            .or(self.settings.vif_script.as_deref())
            .unwrap_or("vif-bridge")
        {
            "vif-bridge" => self.bridge(device, vif),
            "vif-route" => match &vif.gatewaydev {
                Some(gateway) if self.link(device, gateway)?.is_none() => Err(about(
                    Code::BadNetwork,
                    device,
                    format_args!("there is no network interface {gateway} to route through"),
                )),
                _ => Ok(Setup::Route),
            },
            script => self
                .check_script(Code::BadNetwork, device, script)
                .map(Setup::Script),
        }
    }

    /// The bridge that a card joins.
    fn bridge(&self, device: &str, vif: &Vif) -> Result<Setup> {
        let bridges = self.kernel.bridges().map_err(|error| {
            about(
                Code::System,
                device,
                format_args!("bridges cannot be listed: {error}"),
            )
        })?;
        let name = match (
            vif.bridge
                .as_ref()
                .or(self.settings.default_bridge.as_ref()),
            bridges.as_slice(),
        ) {
            (Some(name), _) => name.clone(),
            (None, [only]) => only.clone(),
            (None, _) => USUAL_BRIDGE.to_owned(),
        };
        let bad = |why: String| about(Code::BadNetwork, device, why);
        match self.link(device, &name)? {
            Some(link) if link.is_bridge => Ok(Setup::Bridge { name, link }),
            Some(_) => Err(bad(format!("{name} is a network interface, but no bridge"))),
            None if bridges.is_empty() => Err(bad(format!(
                "there is no bridge {name}; `ip link add {name} type bridge` makes one"
            ))),
            None => Err(bad(format!(
                "there is no bridge {name}; there are {}",
                bridges.join(", ")
            ))),
        }
    }

    fn link(&self, device: &str, name: &str) -> Result<Option<Link>> {
        self.kernel.link(name).map_err(|error| {
            about(
                Code::System,
                device,
                format_args!("network interface {name}: {error}"),
            )
        })
    }

    /// Waits for the card's interface and sets it up.
    fn connect(
        &self,
        store: &Store,
        at: Address,
        device: &str,
        vif: &Vif,
        setup: &Setup,
    ) -> Result<()> {
        self.wait_for_backend(store, at, device, self.settings.vif_timeout)?;
        let interface = interface(at);
        let link = self.wait_for_link(device, &interface)?;
        let name = vif.vifname.as_deref().unwrap_or(&interface);
        let change = LinkChange {
            name: vif.vifname.clone(),
            mtu: mtu(vif, setup),
            ..LinkChange::default()
        };
        let set = |change: &LinkChange| {
            self.kernel.set_link(link.index, change).map_err(|error| {
                about(
                    Code::BadNetwork,
                    device,
                    format_args!("{interface} cannot be set up: {error}"),
                )
            })
        };
        match setup {
            Setup::Bridge { link: bridge, name } => {
                // The guest's address is for the guest's end only, so that this end must not answer.
                set(&LinkChange {
                    bridge: Some(bridge.index),
                    up: true,
                    arp: Some(false),
                    ..change
                })
                .map_err(|error| error.while_doing(&format!("joining bridge {name}")))?;
            }
            Setup::Route => {
                set(&LinkChange { up: true, ..change })?;
                self.route(device, vif, link.index, name)?;
            }
            Setup::Script(script) => {
                if change != LinkChange::default() {
                    set(&change)?;
                }
                self.run_script(store, script, Step::Add, at, device, Some(name))?;
            }
        }
        for directory in [at.backend(), at.record()] {
            store
                .write(&format!("{directory}/hotplug-status"), "connected")
                .map_err(in_store(device))?;
        }
        Ok(())
    }

    /// Waits for a card's interface: Linux' back end makes it just after it has said that it is ready.
    fn wait_for_link(&self, device: &str, interface: &str) -> Result<Link> {
        let deadline = Instant::now() + self.settings.vif_timeout;
        loop {
            if let Some(link) = self.link(device, interface)? {
                return Ok(link);
            }
            if Instant::now() > deadline {
                return Err(about(
                    Code::System,
                    device,
                    format_args!("its driver in domain 0 made no network interface {interface}"),
                ));
            }
            sleep(POLL);
        }
    }

    /// Routes the guest's addresses to its interface.
    fn route(&self, device: &str, vif: &Vif, index: u32, name: &str) -> Result<()> {
        let failed = |error: std::io::Error| {
            about(
                Code::BadNetwork,
                device,
                format_args!("routing to {name}: {error}"),
            )
        };
        self.kernel.answer_for_others(name).map_err(failed)?;
        for ip in &vif.ip {
            self.kernel.add_host_route(index, *ip).map_err(failed)?;
            if let Some(gateway) = &vif.gatewaydev {
                self.kernel.answer_for(gateway, *ip).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn nodes(&self, at: Address, vif: &Vif, mac: Mac, setup: &Setup) -> Nodesets {
        let (how, script) = match setup {
            Setup::Bridge { .. } => ("bridge", self.script_path("vif-bridge")),
            Setup::Route => ("route", self.script_path("vif-route")),
            Setup::Script(path) => ("script", path.clone()),
        };
        let bridge = match setup {
            Setup::Bridge { name, .. } => Some(name.clone()),
            Setup::Route => None,
            Setup::Script(_) => vif
                .bridge
                .clone()
                .or_else(|| self.settings.default_bridge.clone()),
        };
        let ips: Vec<String> = vif.ip.iter().map(ToString::to_string).collect();
        let mtu = mtu(vif, setup)
            .filter(|mtu| vif.mtu.is_some() || *mtu != USUAL_MTU)
            .map(|mtu| mtu.to_string());
        let mut backend = vec![
            ("script", script.display().to_string()),
            ("mac", mac.to_string()),
            ("handle", at.devid.to_string()),
            ("type", "vif".to_owned()),
            // The back end waits for this to become `connected`.
            ("hotplug-status", String::new()),
        ];
        backend.extend(bridge.map(|name| ("bridge", name)));
        backend.extend(
            Some(ips.join(" "))
                .filter(|ips| !ips.is_empty())
                .map(|ips| ("ip", ips)),
        );
        backend.extend(vif.rate.map(|rate| ("rate", rate.xenstore_value())));
        backend.extend(vif.vifname.clone().map(|name| ("vifname", name)));
        backend.extend(vif.gatewaydev.clone().map(|name| ("gatewaydev", name)));
        backend.extend(mtu.clone().map(|mtu| ("mtu", mtu)));
        let mut frontend = vec![("handle", at.devid.to_string()), ("mac", mac.to_string())];
        frontend.extend(mtu.map(|mtu| ("mtu", mtu)));
        let name = vif.vifname.clone().unwrap_or_else(|| interface(at));
        Nodesets {
            frontend,
            backend,
            record: vec![("setup", how.to_owned()), ("interface", name)],
        }
    }

    fn free_devid(&self, store: &Store, guest: &Guest) -> Result<u32> {
        let name = format!("network card of {}", guest.name);
        let taken = self
            .addresses(store, guest.domid)
            .map_err(in_store(&name))?;
        let is_free = |devid: &u32| {
            !taken.contains(&Address {
                kind: Kind::Vif,
                domid: guest.domid,
                devid: *devid,
            })
        };
        (0..1 << 16)
            .find(is_free)
            .ok_or_else(|| about(Code::Limit, &name, "it has as many as can be"))
    }
}

/// The name that the kernel gives a card's interface.
pub(crate) fn interface(at: Address) -> String {
    format!("vif{}.{}", at.domid, at.devid)
}

/// How errors name a card.
fn label(guest: &Guest, name: &str) -> String {
    format!("network card {name} of {}", guest.name)
}

/// The longest packet: what the configuration says, else as long as the bridge takes.
fn mtu(vif: &Vif, setup: &Setup) -> Option<u32> {
    vif.mtu.map(u32::from).or(match setup {
        Setup::Bridge { link, .. } => Some(link.mtu),
        _ => None,
    })
}
