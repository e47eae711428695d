//! Debian's own tools (package `xenstore-utils`), and our client, against the daemon as a process, which is killed under load.

use oxen_xenstore::{Access, Errno, Nodes, Perms, Store};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The daemon in a directory of its own.
struct Daemon {
    dir: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = start(dir.path());
        Self { dir, child }
    }

    fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = start(self.dir.path());
    }

    fn store(&self) -> Store {
        Store::open_path(self.dir.path().join("socket")).unwrap()
    }

    /// Runs one of Debian's tools.
    fn tool(&self, name: &str, arguments: &[&str]) -> Output {
        Command::new(name).args(arguments).env("XENSTORED_PATH", self.dir.path().join("socket")).output().unwrap()
    }

    fn text(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.tool(name, arguments);
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(dir: &Path) -> Child {
    let program = env!("CARGO_BIN_EXE_xenstored");
    let child = Command::new(program).args(["-N", "-D", "--rundir"]).arg(dir).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while Store::open_path(dir.join("socket")).is_err() {
        assert!(Instant::now() < deadline, "{program} does not answer");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn debians_tools_work() {
    if Command::new("xenstore-ls").arg("--help").output().is_err() {
        eprintln!("skipped: there is no xenstore-ls; install the package xenstore-utils");
        return;
    }
    let daemon = Daemon::new();
    daemon.text("xenstore-write", &["/a/b", "hello", "/a/c", "with spaces"]);
    assert_eq!(daemon.text("xenstore-read", &["/a/b", "/a/c"]), "hello\nwith spaces\n");
    assert_eq!(daemon.text("xenstore-list", &["/a"]), "b\nc\n");
    daemon.text("xenstore-chmod", &["/a/b", "n3", "r4"]);
    let listing = daemon.text("xenstore-ls", &["-fp", "/a"]);
    assert!(listing.starts_with("/a/b = \"hello\"   (n3,r4)\n/a/c = \"with spaces\"   (n0)"), "{listing}");
    assert!(daemon.tool("xenstore-exists", &["/a/b"]).status.success());
    daemon.text("xenstore-rm", &["/a/b"]);
    assert!(!daemon.tool("xenstore-exists", &["/a/b"]).status.success());
    assert!(!daemon.tool("xenstore-read", &["/a/b"]).status.success());
    assert!(!daemon.tool("xenstore-write", &["/bad//path", "x"]).status.success());
    // More children than fit one message: the tools fetch the list in parts.
    let store = daemon.store();
    for number in 0..300 {
        store.write(&format!("/many/a-child-with-a-long-name-{number:03}"), b"").unwrap();
    }
    assert_eq!(daemon.text("xenstore-list", &["/many"]).lines().count(), 300);
    // A watcher that ends by itself after the first event and one change.
    let mut watcher = Command::new("xenstore-watch")
        .args(["-n", "2", "/watched"])
        .env("XENSTORED_PATH", daemon.dir.path().join("socket"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while watcher.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "xenstore-watch saw nothing");
        store.write("/watched/below", b"1").unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut seen = String::new();
    std::io::Read::read_to_string(&mut watcher.stdout.take().unwrap(), &mut seen).unwrap();
    assert!(seen.starts_with("/watched\n/watched/below\n"), "{seen}");
}

#[test]
fn the_client_outlives_the_daemon() {
    let mut daemon = Daemon::new();
    let store = daemon.store();
    store.watch("/counter", "mine").unwrap();
    assert_eq!(store.next_event(Some(Duration::from_secs(20))).unwrap().unwrap().token, "mine");
    store.write("/counter", "0").unwrap();
    store.set_perms("/counter", &Perms::owned(0, Access::None).and(5, Access::Read)).unwrap();
    // Several threads count in transactions while the daemon is killed again and again. Afterwards no step is missing. A step may
    // count twice where the daemon died between doing it and saying so.
    const THREADS: u32 = 3;
    const STEPS: u32 = 1500;
    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let store = daemon.store();
            std::thread::spawn(move || {
                for _ in 0..STEPS {
                    store
                        .transaction(|t| {
                            let count: u32 = t.read_text("/counter")?.parse().unwrap();
                            t.write("/counter", (count + 1).to_string())
                        })
                        .unwrap();
                }
            })
        })
        .collect();
    let mut kills = 0;
    while !workers.iter().all(std::thread::JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(60));
        daemon.kill_and_start();
        kills += 1;
    }
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let count: u32 = store.read_text("/counter").unwrap().parse().unwrap();
    assert!((THREADS * STEPS..=THREADS * STEPS + kills * THREADS).contains(&count), "{count} after {kills} kills");
    assert_eq!(store.get_perms("/counter").unwrap().to_string(), "n0 r5");
    store.write("/counter", "done").unwrap();
    assert!(store.next_event(Some(Duration::from_secs(20))).unwrap().is_some(), "the watch was set again");
}

#[test]
fn requests_are_refused_with_their_reason() {
    let daemon = Daemon::new();
    let store = daemon.store();
    for (path, errno) in [("/none", Errno::ENOENT), ("/bad//path", Errno::EINVAL), ("/a/", Errno::EINVAL)] {
        let error = store.read(path).unwrap_err();
        assert_eq!((error.errno(), error.subject.as_str()), (Some(errno), path), "{error}");
    }
    assert!(store.introduce(3, 1, 1).is_err(), "there is no hypervisor here");
    assert!(!store.is_introduced(3).unwrap());
    assert_eq!(store.get_domain_path(3).unwrap(), "/local/domain/3");
    assert_eq!(store.control(&["check"]).unwrap(), "OK");
    assert!(store.control(&["help"]).unwrap().contains("quota"));
    let reader = Store::open_path(daemon.dir.path().join("socket_ro")).unwrap();
    assert_eq!(reader.write("/x", b"1").unwrap_err().errno(), Some(Errno::EROFS));
    assert!(reader.read("/").is_ok());
}
