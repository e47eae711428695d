//! Devices over a real store and a kernel that is played.

mod disks;
mod vifs;

use crate::kernel::{
    Access, FileId, Kernel, Link, LinkChange, LoopUse, Mount, NewLoop, Number, Target,
};
use crate::{Devices, Guest, Settings};
use oxen_guest_config::Uuid;
use oxen_xenstore::{Access as Rights, Nodes, Perms, Store};
use oxen_xenstored::limits::Limits;
use oxen_xenstored::server::{NoRings, Options, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// What the played kernel has, and what was done with it.
#[derive(Default)]
struct World {
    targets: BTreeMap<PathBuf, Target>,
    /// Targets that somebody in domain 0 has claimed.
    claimed: BTreeSet<PathBuf>,
    loops: Vec<LoopUse>,
    mounts: Vec<Mount>,
    links: BTreeMap<String, Link>,
    done: Vec<String>,
}

#[derive(Clone, Default)]
struct Played(Arc<Mutex<World>>);

impl Played {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn device(&self, path: &str, minor: u32) {
        self.world()
            .targets
            .insert(path.into(), Target::Device(Number { major: 8, minor }));
    }

    fn file(&self, path: &str, inode: u64) {
        self.world()
            .targets
            .insert(path.into(), Target::File(FileId { device: 1, inode }, 4096));
    }

    fn interface(&self, name: &str, index: u32, is_bridge: bool) {
        self.world().links.insert(
            name.into(),
            Link {
                index,
                mtu: 1500,
                is_bridge,
            },
        );
    }
}

impl Kernel for Played {
    fn link(&self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.world().links.get(name).copied())
    }

    fn bridges(&self) -> io::Result<Vec<String>> {
        Ok(self
            .world()
            .links
            .iter()
            .filter(|(_, link)| link.is_bridge)
            .map(|(name, _)| name.clone())
            .collect())
    }

    fn set_link(&self, index: u32, change: &LinkChange) -> io::Result<()> {
        let LinkChange {
            name,
            mtu,
            bridge,
            up,
            arp,
        } = change;
        self.world().done.push(format!(
            "link {index}: name {name:?}, mtu {mtu:?}, bridge {bridge:?}, up {up}, arp {arp:?}"
        ));
        Ok(())
    }

    fn add_host_route(&self, index: u32, ip: IpAddr) -> io::Result<()> {
        self.world().done.push(format!("route {ip} to {index}"));
        Ok(())
    }

    fn answer_for_others(&self, name: &str) -> io::Result<()> {
        self.world().done.push(format!("{name} answers for others"));
        Ok(())
    }

    fn answer_for(&self, name: &str, ip: IpAddr) -> io::Result<()> {
        self.world().done.push(format!("{name} answers for {ip}"));
        Ok(())
    }

    fn target(&self, path: &Path) -> io::Result<Target> {
        self.world()
            .targets
            .get(path)
            .copied()
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        let claimed = self.world().claimed.contains(path);
        if access.exclusive && claimed {
            Err(ErrorKind::ResourceBusy.into())
        } else {
            File::open("/dev/null")
        }
    }

    fn loops(&self) -> io::Result<Vec<LoopUse>> {
        Ok(self.world().loops.clone())
    }

    fn bind_loop(&self, _: &File, read_only: bool) -> io::Result<NewLoop> {
        let mut world = self.world();
        let index = u32::try_from(world.loops.len()).unwrap();
        let number = Number {
            major: 7,
            minor: index,
        };
        // The tests bind one file only.
        world.loops.push(LoopUse {
            index,
            number,
            file: FileId {
                device: 1,
                inode: 77,
            },
            read_only,
        });
        Ok(NewLoop {
            device: File::open("/dev/null")?,
            index,
            number,
        })
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(self.world().mounts.clone())
    }

    fn holders(&self, _: Number) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn backend(&self, _: &str, _: u16, _: u32) -> Option<PathBuf> {
        // Always one that is gone as soon as its nodes are.
        Some("/nonexistent".into())
    }
}

/// A daemon in a thread, a played kernel with drivers, and what is tested.
struct Host {
    store: Store,
    kernel: Played,
    devices: Arc<Devices>,
    /// Threads, each of which ends when its socket closes.
    threads: Vec<(UnixStream, JoinHandle<()>)>,
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
        let kernel = Played::default();
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
            threads: vec![(stop, daemon)],
            dir,
        }
    }

    /// Plays the drivers: new back ends wait for their guest, back ends whose guest's end is gone or closed close.
    fn with_drivers(mut self) -> Self {
        let store = self.store.reopen().unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        store.watch("/local/domain", "").unwrap();
        let drivers = spawn(move || {
            let mut polled = [
                rustix::event::PollFd::from_borrowed_fd(
                    store.event_fd(),
                    rustix::event::PollFlags::IN,
                ),
                rustix::event::PollFd::new(&stopped, rustix::event::PollFlags::IN),
            ];
            loop {
                rustix::event::poll(&mut polled, None).unwrap();
                if !polled[1].revents().is_empty() {
                    return;
                }
                while store.next_event(Some(Duration::ZERO)).unwrap().is_some() {}
                drive(&store);
            }
        });
        self.threads.push((stop, drivers));
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
        // The daemon comes last: the drivers talk to it.
        while let Some((stop, thread)) = self.threads.pop() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

fn drive(store: &Store) {
    for kind in ["vbd", "vif"] {
        let root = format!("/local/domain/0/backend/{kind}");
        for domid in store.directory(&root).unwrap_or_default() {
            for devid in store
                .directory(&format!("{root}/{domid}"))
                .unwrap_or_default()
            {
                let backend = format!("{root}/{domid}/{devid}");
                let front = store
                    .read(&format!(
                        "/local/domain/{domid}/device/{kind}/{devid}/state"
                    ))
                    .ok()
                    .map(|state| String::from_utf8_lossy(&state).into_owned());
                let state = store.try_read(&format!("{backend}/state")).unwrap();
                let next = match (front.as_deref(), state.as_deref()) {
                    (None | Some("6"), Some("1" | "2" | "4" | "5")) => "6",
                    (Some(_), Some("1")) => "2",
                    (Some("4"), Some("2")) => "4",
                    _ => continue,
                };
                store.write(&format!("{backend}/state"), next).unwrap();
            }
        }
    }
}
