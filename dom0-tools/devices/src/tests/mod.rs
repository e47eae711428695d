//! Devices over a real store and a kernel for tests.

mod disks;
mod vifs;

use crate::fake::{FakeDrivers, FakeKernel};
use crate::{Devices, Guest, Settings};
use oxen_guest_config::Uuid;
use oxen_xenstore::{Access as Rights, Nodes, Perms, Store};
use oxen_xenstored::limits::Limits;
use oxen_xenstored::server::{NoRings, Options, Server};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// A daemon in a thread, a kernel with drivers, and what is tested.
struct Host {
    store: Store,
    kernel: FakeKernel,
    devices: Arc<Devices>,
    /// They talk to the daemon, so that they must end before it does.
    drivers: Option<FakeDrivers>,
    /// The daemon, which ends when its socket closes.
    daemon: Option<(UnixStream, JoinHandle<()>)>,
    dir: tempfile::TempDir,
}

impl Host {
    /// With drivers for back ends.
    fn new() -> Self {
        let host = Self::without_drivers(Duration::from_secs(20));
        host.with_drivers()
    }

    fn without_drivers(timeout: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let options = Options {
            rundir: dir.path().to_owned(),
            limits: Limits::default(),
            journal: false,
            trace: false,
        };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let daemon = spawn(move || {
            let mut server = Server::new(&options, NoRings).unwrap();
            server.stop_on(stopped.as_fd()).unwrap();
            ready.send(()).unwrap();
            server.run().unwrap();
        });
        is_ready.recv().unwrap();
        let store = Store::open_path(dir.path().join("socket")).unwrap();
        let kernel = FakeKernel::default();
        kernel.interface("xenbr0", 5, true);
        let settings = Settings {
            block_timeout: timeout,
            vif_timeout: timeout,
            script_dir: dir.path().to_owned(),
            ..Settings::default()
        };
        let devices = Arc::new(Devices::with_kernel(settings, Box::new(kernel.clone())));
        Self {
            store,
            kernel,
            devices,
            drivers: None,
            daemon: Some((stop, daemon)),
            dir,
        }
    }

    fn with_drivers(mut self) -> Self {
        self.drivers = Some(self.kernel.drivers(self.store.reopen().unwrap()).unwrap());
        self
    }

    fn guest(&self, domid: u16) -> Guest {
        let home = format!("/local/domain/{domid}");
        self.store.mkdir(&home).unwrap();
        self.store
            .set_perms(
                &home,
                &Perms::owned(0, Rights::None).and(domid, Rights::Read),
            )
            .unwrap();
        self.store
            .write(&format!("{home}/name"), format!("guest{domid}"))
            .unwrap();
        Guest {
            domid,
            name: format!("guest{domid}"),
            uuid: Uuid::nil(),
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        self.store.try_read(path).unwrap()
    }

    fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.drivers = None;
        if let Some((stop, thread)) = self.daemon.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}
