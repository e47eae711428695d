//! Event channels of a fake host.

use super::host::Shared;
use crate::evtchn::EventDevice;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Unbound { remote: u16 },
    Connected { remote: u16, remote_port: u32 },
    Virq(u32),
}

/// All ports of the host, and what is pending on them.
#[derive(Debug, Default)]
pub(super) struct Ports {
    ports: BTreeMap<(u16, u32), Port>,
    /// Events that guests have not taken.
    guests: BTreeSet<(u16, u32)>,
    /// The open devices of domain 0 by number, with the ports that are theirs.
    devices: BTreeMap<u64, Device>,
    next_device: u64,
}

/// One open device.
#[derive(Debug)]
struct Device {
    /// Bound ports, and whether they are masked.
    bound: BTreeMap<u32, bool>,
    pending: BTreeSet<u32>,
    /// Makes the device's descriptor readable.
    signal: UnixStream,
}

const DOM0: u16 = 0;

fn error(raw: i32) -> io::Error {
    io::Error::from_raw_os_error(raw)
}

impl Ports {
    pub(super) fn get(&self, domid: u16, port: u32) -> Option<Port> {
        self.ports.get(&(domid, port)).copied()
    }

    /// The lowest free port of a domain becomes `kind`.
    pub(super) fn allocate(&mut self, domid: u16, kind: Port) -> u32 {
        let port = (1..)
            .find(|port| !self.ports.contains_key(&(domid, *port)))
            .unwrap_or(u32::MAX);
        self.ports.insert((domid, port), kind);
        port
    }

    /// Connects a new port of `domid` to `remote_port`, which must wait for it.
    pub(super) fn connect(&mut self, domid: u16, remote: u16, remote_port: u32) -> io::Result<u32> {
        if self.get(remote, remote_port) != Some(Port::Unbound { remote: domid }) {
            return Err(error(libc::EINVAL));
        }
        let port = self.allocate(
            domid,
            Port::Connected {
                remote,
                remote_port,
            },
        );
        let back = Port::Connected {
            remote: domid,
            remote_port: port,
        };
        self.ports.insert((remote, remote_port), back);
        // As the hypervisor does, so that nothing sent before is lost.
        self.deliver(domid, port);
        Ok(port)
    }

    pub(super) fn close(&mut self, domid: u16, port: u32) {
        if let Some(Port::Connected {
            remote,
            remote_port,
        }) = self.ports.remove(&(domid, port))
        {
            self.ports
                .insert((remote, remote_port), Port::Unbound { remote: domid });
        }
    }

    pub(super) fn close_all(&mut self, domid: u16) {
        let all: Vec<u32> = self
            .ports
            .keys()
            .filter(|(owner, _)| *owner == domid)
            .map(|(_, port)| *port)
            .collect();
        for port in all {
            self.close(domid, port);
        }
        self.guests.retain(|(owner, _)| *owner != domid);
    }

    /// An event for `port` of `domid`.
    fn deliver(&mut self, domid: u16, port: u32) {
        if domid != DOM0 {
            self.guests.insert((domid, port));
            return;
        }
        for device in self.devices.values_mut() {
            if device.bound.contains_key(&port) {
                device.pending.insert(port);
                device.refresh();
            }
        }
    }

    /// `domid` notifies its `port`.
    pub(super) fn send(&mut self, domid: u16, port: u32) -> io::Result<()> {
        match self.get(domid, port) {
            Some(Port::Connected {
                remote,
                remote_port,
            }) => {
                self.deliver(remote, remote_port);
                Ok(())
            }
            Some(Port::Unbound { .. }) => Ok(()),
            _ => Err(error(libc::ENXIO)),
        }
    }

    pub(super) fn raise_virq(&mut self, virq: u32) {
        let bound = self
            .ports
            .iter()
            .find(|(_, kind)| **kind == Port::Virq(virq))
            .map(|(key, _)| *key);
        if let Some((domid, port)) = bound {
            self.deliver(domid, port);
        }
    }

    pub(super) fn take_guest_events(&mut self, domid: u16) -> Vec<u32> {
        let taken: Vec<u32> = self
            .guests
            .iter()
            .filter(|(owner, _)| *owner == domid)
            .map(|(_, port)| *port)
            .collect();
        self.guests.retain(|(owner, _)| *owner != domid);
        taken
    }

    pub(super) fn count(&self, domid: u16) -> usize {
        self.ports
            .keys()
            .filter(|(owner, _)| *owner == domid)
            .count()
    }
}

impl Device {
    /// Ports to report: pending and not masked.
    fn ready(&self) -> Vec<u32> {
        self.pending
            .iter()
            .copied()
            .filter(|port| self.bound.get(port) == Some(&false))
            .collect()
    }

    fn refresh(&mut self) {
        if !self.ready().is_empty() {
            // A full pipe is readable already.
            let _ = self.signal.write(&[0]);
        }
    }
}

/// A device of domain 0.
#[derive(Debug)]
pub(super) struct FakeEvents {
    shared: Arc<Shared>,
    number: u64,
    readable: UnixStream,
}

impl FakeEvents {
    pub(super) fn open(shared: Arc<Shared>) -> io::Result<Self> {
        let (readable, signal) = UnixStream::pair()?;
        readable.set_nonblocking(true)?;
        signal.set_nonblocking(true)?;
        let number = shared.with(|state| {
            let number = state.ports.next_device;
            state.ports.next_device += 1;
            let device = Device {
                bound: BTreeMap::new(),
                pending: BTreeSet::new(),
                signal,
            };
            state.ports.devices.insert(number, device);
            number
        });
        Ok(Self {
            shared,
            number,
            readable,
        })
    }

    fn with_device<T>(&self, port: u32, f: impl FnOnce(&mut Ports) -> T) -> io::Result<T> {
        self.shared.with(|state| {
            let bound = state
                .ports
                .devices
                .get(&self.number)
                .is_some_and(|device| device.bound.contains_key(&port));
            if bound {
                Ok(f(&mut state.ports))
            } else {
                Err(error(libc::ENOTCONN))
            }
        })
    }

    fn bound(&self, ports: &mut Ports, port: u32) -> u32 {
        if let Some(device) = ports.devices.get_mut(&self.number) {
            device.bound.insert(port, false);
        }
        port
    }
}

impl EventDevice for FakeEvents {
    fn bind_unbound(&self, remote: u16) -> io::Result<u32> {
        self.shared.with(|state| {
            let port = state.ports.allocate(DOM0, Port::Unbound { remote });
            Ok(self.bound(&mut state.ports, port))
        })
    }

    fn bind_interdomain(&self, remote: u16, remote_port: u32) -> io::Result<u32> {
        self.shared.with(|state| {
            let port = state.ports.connect(DOM0, remote, remote_port)?;
            self.bound(&mut state.ports, port);
            state.ports.deliver(DOM0, port);
            Ok(port)
        })
    }

    fn bind_virq(&self, virq: u32) -> io::Result<u32> {
        self.shared.with(|state| {
            if state
                .ports
                .ports
                .values()
                .any(|kind| *kind == Port::Virq(virq))
            {
                return Err(error(libc::EEXIST));
            }
            let port = state.ports.allocate(DOM0, Port::Virq(virq));
            Ok(self.bound(&mut state.ports, port))
        })
    }

    fn unbind(&self, port: u32) -> io::Result<()> {
        let number = self.number;
        self.with_device(port, |ports| {
            if let Some(device) = ports.devices.get_mut(&number) {
                device.bound.remove(&port);
                device.pending.remove(&port);
            }
            ports.close(DOM0, port);
        })
    }

    fn notify(&self, port: u32) -> io::Result<()> {
        self.with_device(port, |ports| ports.send(DOM0, port))?
    }

    fn unmask(&self, port: u32) -> io::Result<()> {
        let number = self.number;
        self.with_device(port, |ports| {
            if let Some(device) = ports.devices.get_mut(&number) {
                device.bound.insert(port, false);
                device.refresh();
            }
        })
    }

    fn pending(&self) -> io::Result<Vec<u32>> {
        // Under the lock, so that no signal between emptying the pipe and taking the ports is lost.
        self.shared.with(|state| {
            while matches!((&self.readable).read(&mut [0; 64]), Ok(len) if len > 0) {}
            let device = state.ports.devices.get_mut(&self.number);
            let Some(device) = device else {
                return Ok(Vec::new());
            };
            let ready = device.ready();
            for port in &ready {
                device.pending.remove(port);
                device.bound.insert(*port, true);
            }
            Ok(ready)
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Drop for FakeEvents {
    fn drop(&mut self) {
        self.shared.with(|state| {
            if let Some(device) = state.ports.devices.remove(&self.number) {
                for port in device.bound.keys() {
                    state.ports.close(DOM0, *port);
                }
            }
        });
    }
}
