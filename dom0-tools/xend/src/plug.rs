//! Devices of running guests come and go. What has begun is in the guest's record, so that a daemon that starts in between can finish it or take it back.

use crate::daemon::{Daemon, Target};
use crate::error::ToApi;
use crate::records::{Plugging, Record};
use oxen_devices::Guest;
use oxen_guest_config::{Disk, Mac, Vif};
use oxen_xend_api::{Code, Device, DeviceState, Error, Outcome};
use oxen_xenstore::Nodes;

impl Daemon {
    fn guest(&self, target: &Target) -> Result<Guest, Error> {
        Ok(Guest { domid: target.running_guest()?, name: target.name.clone(), uuid: target.uuid })
    }

    pub(crate) fn attach_disk(&self, target: &Target, disk: Disk) -> Result<Outcome, Error> {
        let guest = self.guest(target)?;
        self.devices.check_disk(&self.store, &disk).or_api("checking the disk")?;
        let begun = Plugging::AttachDisk(disk.vdev.number());
        let device = self.plug(target, begun, || self.devices.attach_disk(&self.store, &guest, &disk).or_api("attaching the disk"), Result::is_ok, |record| record.config.disks.push(disk.clone()))?;
        Ok(Outcome::Block { device })
    }

    pub(crate) fn attach_vif(&self, target: &Target, mut vif: Vif) -> Result<Outcome, Error> {
        let guest = self.guest(target)?;
        self.devices.check_vif(&vif).or_api("checking the network card")?;
        // Chosen here, so that the card keeps it when the guest is started again.
        let mac = match vif.mac {
            Some(mac) => mac,
            None => Mac::random().map_err(|error| Error::new(Code::System, error.to_string()))?,
        };
        vif.mac = Some(mac);
        let device = self.plug(target, Plugging::AttachVif(mac), || self.devices.attach_vif(&self.store, &guest, None, &vif).or_api("attaching the network card"), Result::is_ok, |record| record.config.vifs.push(vif.clone()))?;
        Ok(Outcome::Network { device })
    }

    pub(crate) fn detach_disk(&self, target: &Target, device: &str, force: bool) -> Result<(), Error> {
        let guest = self.guest(target)?;
        let disks = self.devices.disks(&self.store, guest.domid).or_api("listing the disks")?;
        let number = disks.iter().find(|disk| disk.name == device || disk.device.id.to_string() == device).map(|disk| disk.device.id);
        let detach = || self.devices.detach_disk(&self.store, &guest, device, force).or_api("detaching the disk");
        match number {
            Some(number) => self.plug(target, Plugging::DetachDisk(number), detach, |result| result.is_ok() || self.devices.disks(&self.store, guest.domid).is_ok_and(|disks| disks.iter().all(|disk| disk.device.id != number)), |record| forget_disk(record, number)),
            None => detach(),
        }
    }

    pub(crate) fn detach_vif(&self, target: &Target, device: &str, force: bool) -> Result<(), Error> {
        let guest = self.guest(target)?;
        let cards = self.devices.vifs(&self.store, guest.domid).or_api("listing the network cards")?;
        let wanted: Option<Mac> = device.parse().ok();
        let macs = cards.iter().map(|card| (card.device.id.to_string(), card.mac.parse::<Mac>().ok()));
        let mac = macs.filter(|(id, mac)| id == device || (wanted.is_some() && *mac == wanted)).find_map(|(_, mac)| mac);
        let detach = || self.devices.detach_vif(&self.store, &guest, device, force).or_api("detaching the network card");
        match mac {
            Some(mac) => self.plug(target, Plugging::DetachVif(mac), detach, |result| result.is_ok() || self.devices.vifs(&self.store, guest.domid).is_ok_and(|cards| cards.iter().all(|card| card.mac.parse() != Ok(mac))), |record| forget_vif(record, mac)),
            None => detach(),
        }
    }

    /// Does `work`, having noted that it has begun; if `worked` says that it had its effect, which something that failed can have as well, `done` changes
    /// the record.
    fn plug<T>(
        &self,
        target: &Target,
        begun: Plugging,
        work: impl FnOnce() -> Result<T, Error>,
        worked: impl FnOnce(&Result<T, Error>) -> bool,
        done: impl FnOnce(&mut Record),
    ) -> Result<T, Error> {
        self.remember(target, |record| record.plugging = Some(begun))?;
        let result = work();
        let worked = worked(&result);
        let settled = self.remember(target, |record| {
            record.plugging = None;
            if worked {
                done(record);
            }
        });
        // The device is as `result` says, whatever the database does.
        if let Err(error) = settled {
            tracing::error!("{}: {error}", target.name);
        }
        result
    }

    /// Finishes or takes back a change of devices that broke off with the last daemon. The guest runs as `domid`.
    pub(crate) fn settle_plugging(&self, record: &Record, domid: u16) -> Result<(), Error> {
        let Some(begun) = record.plugging else { return Ok(()) };
        let guest = Guest { domid, name: record.config.name.clone(), uuid: record.uuid };
        let detach_disk = |number: u32| self.devices.detach_disk(&self.store, &guest, &number.to_string(), true).or_api("detaching the disk");
        let detach_vif = |mac: Mac| self.devices.detach_vif(&self.store, &guest, &mac.to_string(), true).or_api("detaching the network card");
        let gone = match begun {
            Plugging::AttachDisk(number) => {
                tracing::warn!("{}: the attachment of disk {number} broke off; it is undone", record.config.name);
                unless_missing(detach_disk(number))?;
                true
            }
            Plugging::AttachVif(mac) => {
                tracing::warn!("{}: the attachment of network card {mac} broke off; it is undone", record.config.name);
                unless_missing(detach_vif(mac))?;
                true
            }
            Plugging::DetachDisk(number) => {
                let disks = self.devices.disks(&self.store, domid).or_api("listing the disks")?;
                self.finish_detaching(disks.iter().map(|disk| &disk.device).find(|device| device.id == number), || detach_disk(number))?
            }
            Plugging::DetachVif(mac) => {
                let cards = self.devices.vifs(&self.store, domid).or_api("listing the network cards")?;
                self.finish_detaching(cards.iter().find(|card| card.mac.parse() == Ok(mac)).map(|card| &card.device), || detach_vif(mac))?
            }
        };
        let settle = |record: &mut Record| {
            record.plugging = None;
            match begun {
                Plugging::AttachDisk(number) | Plugging::DetachDisk(number) if gone => forget_disk(record, number),
                Plugging::AttachVif(mac) | Plugging::DetachVif(mac) if gone => forget_vif(record, mac),
                _ => {}
            }
        };
        self.records.update(record.uuid, settle).or_api("remembering the guest").map(drop)
    }

    /// Takes a device away whose guest has let go of it; says whether it is gone. One that nobody had begun to take away, or that the guest still
    /// uses, stays.
    fn finish_detaching(&self, device: Option<&Device>, detach: impl FnOnce() -> Result<(), Error>) -> Result<bool, Error> {
        let Some(device) = device else { return Ok(true) };
        let online = self.store.try_read(&format!("{}/online", device.backend)).or_api("looking at the device")?;
        let is_served = !matches!(device.frontend_state, DeviceState::Unknown | DeviceState::Initialising | DeviceState::Closed);
        if online.as_deref() == Some("1") || is_served {
            return Ok(false);
        }
        unless_missing(detach())?;
        Ok(true)
    }
}

fn forget_disk(record: &mut Record, number: u32) {
    record.config.disks.retain(|disk| disk.vdev.number() != number);
}

fn forget_vif(record: &mut Record, mac: Mac) {
    record.config.vifs.retain(|vif| vif.mac != Some(mac));
}

/// A device that is not there need not be taken away.
fn unless_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.code == Code::NoSuchDevice => Ok(()),
        result => result,
    }
}
