//! The commands that go through xend, with a running xend on a machine in this process: columns, JSON, exit codes, messages.

use oxen_dom0_testkit::{World, Xend};
use std::process::{Command, Output};

struct Host {
    world: World,
    xend: Xend,
}

impl Host {
    fn new() -> Self {
        let world = World::new();
        let xend = world.start();
        world.watch(&xend);
        Self { world, xend }
    }

    fn xm(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_xm")).args(line.split(' ')).env("XEND_SOCKET", &self.xend.socket).output().expect("the binary runs")
    }

    /// What a command prints that works.
    fn prints(&self, line: &str) -> String {
        let output = self.xm(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit code of a command that fails, and the one line that it says.
    fn fails(&self, line: &str) -> (Option<i32>, String) {
        let output = self.xm(line);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        (output.status.code(), text.trim_end().to_owned())
    }

    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.prints(line)).unwrap()
    }

    /// Writes a configuration file; its path.
    fn config(&self, name: &str, more: &str) -> String {
        let path = self.world.dir().join(name);
        let kernel = self.world.dir().join("kernel");
        std::fs::write(&path, format!("name = '{name}'\nkernel = '{}'\nmemory = 8\n{more}\n", kernel.display())).unwrap();
        path.display().to_string()
    }
}

#[test]
fn a_guest_s_life_from_the_command_line() {
    let host = Host::new();
    host.world.guest_with_devices("web");
    let config = host.config("web", "disk = ['file:/disks/web.img,xvda,w']\nvif = ['mac=00:16:3e:00:00:01,bridge=xenbr0']");
    assert_eq!(host.prints(&format!("create -q {config}")), "");
    assert_eq!(host.prints("domid web"), "1\n");
    assert_eq!(host.prints("domname 1"), "web\n");
    assert_eq!(
        host.prints("block-list web"),
        "Vdev   BE  handle state evt-ch ring-ref BE-path\n51712  0   1      1     -      -        /local/domain/0/backend/vbd/1/51712\n"
    );
    assert_eq!(
        host.prints("network-list web"),
        "Idx BE Mac Addr.         handle state evt-ch tx-  /rx-rr BE-path\n0   0  00:16:3e:00:00:01 0      1     -      -    /-     /local/domain/0/backend/vif/1/0\n"
    );
    host.prints("sched-credit -d web -w 512 -c 50");
    assert_eq!(host.prints("sched-credit -d web"), "Name                                ID Weight  Cap\nweb                                  1    512   50\n");
    let list = host.json("list -l web");
    assert_eq!((&list[0]["name"], &list[0]["state"], &list[0]["memory_kib"]), (&"web".into(), &"running".into(), &8192.into()));
    assert_eq!(list[0]["scheduling"]["weight"], 512);
    assert_eq!(host.json("list -l").as_array().unwrap().len(), 2);
    host.prints("pause web");
    assert_eq!(host.json("list -l web")[0]["state"], "paused");
    host.prints("unpause web");
    host.prints("rename web shop");
    assert_eq!(host.fails("domid web").0, Some(5));
    host.prints("destroy shop");
    host.world.assert_nothing_left("xm destroy");
}

#[test]
fn failures_have_one_line_and_a_code() {
    let host = Host::new();
    let web = host.config("web", "");
    host.prints(&format!("create -q {web}"));
    let again = host.config("other", "name = 'web'");
    for (line, code, part) in [
        (format!("create -q {again}"), 10, "the name web is in use"),
        (format!("create -q {} memory=4000", host.config("large", "")), 10, "not enough free memory"),
        (format!("create -q {} kernel=/nonexistent", host.config("none", "")), 1, "/nonexistent: No such file"),
        (format!("create -q {} disk=phy:/dev/none,xvda,w", host.config("none", "")), 1, "/dev/none does not exist"),
        ("create -q /nonexistent/config".to_owned(), 8, "cannot read the configuration /nonexistent/config"),
        ("destroy nobody".to_owned(), 5, "there is no domain nobody"),
        ("delete web".to_owned(), 9, "web is running"),
        ("mem-set web 1000".to_owned(), 1, "more than the 8192 KiB"),
        ("block-detach web xvdb".to_owned(), 1, "xvdb"),
    ] {
        let (exit, text) = host.fails(&line);
        assert!(exit == Some(code) && text.starts_with("xm: ") && text.contains(part), "{line}: {exit:?} {text}");
    }
    host.prints("destroy web");
    host.world.assert_nothing_left("failures");
}

#[test]
fn without_a_daemon_the_message_says_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_xm")).args(["domid", "web"]).env("XEND_SOCKET", "/nonexistent/xend.sock").output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/nonexistent/xend.sock") && text.contains("systemctl start xend"), "{text}");
}
