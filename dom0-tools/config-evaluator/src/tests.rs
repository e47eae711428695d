use oxen_config_file::{Answer, Diagnostic, HostFacts, Override, Reading, Request, Source};
use oxen_guest_config::{Action, Affinity, BlockBackend, DiskMode};

/// What a file called `web` reads as, with the words of a command line.
fn read_with(text: &str, words: &[&str]) -> Result<Reading, Vec<Diagnostic>> {
    let source = Source {
        name: "web".to_owned(),
        text: text.to_owned(),
    };
    let overrides: Vec<Override> = words
        .iter()
        .map(|word| Override::from_word(word).unwrap())
        .collect();
    let uname = ["Linux", "host", "6.1.0", "#1", "x86_64"].map(str::to_owned);
    both_ways(&Request { source, overrides, host: HostFacts { uname } })
}

/// What a file is evaluated as, which is what it is read as without an evaluator where that can be done.
pub fn both_ways(request: &Request) -> Answer {
    let evaluated = super::read(request);
    if let Some(read) = oxen_config_file::read(&request.source, &request.overrides) {
        assert_eq!(read, evaluated, "{request:?}");
    }
    evaluated
}

fn good(text: &str) -> Reading {
    match read_with(text, &[]) {
        Ok(reading) => reading,
        Err(errors) => panic!("{}", join(&errors)),
    }
}

fn join(all: &[Diagnostic]) -> String {
    all.iter().map(|one| format!("{one}\n")).collect()
}

/// The errors of a file that starts with what every guest needs.
fn errors(rest: &str) -> String {
    let text = format!("name = 'web'; kernel = '/boot/vmlinuz'\n{rest}");
    join(&read_with(&text, &[]).expect_err("the file is read"))
}

fn warnings(rest: &str) -> String {
    let text = format!("name = 'web'; kernel = '/boot/vmlinuz'\n{rest}");
    join(&good(&text).warnings)
}

#[test]
fn a_file_in_xm_s_style() {
    let reading = good(
        r#"
#  -*- mode: python; -*-
kernel  = "/boot/vmlinuz-guest"
ramdisk = "/boot/initrd-guest"
builder = 'linux'
memory  = 64
name    = "ExampleGuest"
cpus    = "0-3,5,^1"
vcpus   = 4
vif  = [ 'mac=00:16:3e:00:00:11, bridge=br0', '' ]
disk = [ 'phy:hda1,hda1,w',
         'file:/srv/swap.img,hda2,w' ]
dhcp = "dhcp"
root = "/dev/hda1 ro"
extra = ""
on_crash = 'preserve'
"#,
    );
    let config = reading.config;
    assert_eq!(config.name, "ExampleGuest");
    assert_eq!((config.memory_mib, config.vcpus), (64, 4));
    assert_eq!(config.vifs.len(), 2);
    assert_eq!(config.vifs[0].bridge.as_deref(), Some("br0"));
    assert_eq!(config.disks[0].target, "/dev/hda1");
    assert_eq!(config.disks[1].backend, BlockBackend::File);
    assert_eq!(config.command_line(), "ip=dhcp root=/dev/hda1 ro");
    assert_eq!(config.on_crash, Action::Preserve);
    assert!(matches!(config.cpus, Some(Affinity::Together(_))));
    assert!(reading.warnings.is_empty(), "{}", join(&reading.warnings));
}

/// In the spirit of xm's second sample file: a variable of the command line numbers the guests.
const NUMBERED: &str = r#"
import os, re
def check_number(var, val):
    val = int(val)
    if val <= 0:
        raise ValueError, "numbers start at 1"
    return val

xm_vars.var('number', use="Which guest. Greater than 0.", check=check_number)
xm_vars.check()

arch = os.uname()[4]
if re.search('64', arch):
    kernel = "/boot/vmlinuz-64"
else:
    kernel = "/boot/vmlinuz-32"
name = "guest%d" % number
disk = [ 'phy:vg/root%d,xvda1,w' % (7 + number), 'phy:vg/usr,xvda6,r' ]
vif = [ 'mac=00:16:3e:00:00:%02x' % number, ]
extra = "NUMBER=%d" % number
"#;

#[test]
fn a_file_with_functions_and_a_variable_of_the_command_line() {
    let text = NUMBERED.replace("%02x", "%x");
    let config = read_with(&text, &["number=3"]).map(|reading| reading.config);
    let config = config.unwrap_or_else(|errors| panic!("{}", join(&errors)));
    assert_eq!(config.name, "guest3");
    assert_eq!(config.kernel.as_deref(), Some("/boot/vmlinuz-64"));
    assert_eq!(config.disks[0].target, "/dev/vg/root10");
    assert_eq!(config.command_line(), "NUMBER=3");

    let missing = join(&read_with(&text, &[]).unwrap_err());
    assert!(
        missing.contains("number=VALUE on the command line"),
        "{missing}"
    );
    let refused = join(&read_with(&text, &["number=0"]).unwrap_err());
    assert!(
        refused.starts_with("web:6:") && refused.contains("numbers start at 1"),
        "{refused}"
    );
}

#[test]
fn a_file_in_xl_s_style() {
    let config = good(
        r#"
name = "xl-guest"
type = "pv"
uuid = "06ed00fe-1162-4fc4-b5d8-11993ee4a8b9"
kernel = "/boot/vmlinuz"
cmdline = "console=hvc0 root=/dev/xvda"
memory = 512
maxmem = 1024
maxvcpus = 4
vcpus = 2
cpus = ["0", "1", 2, "all,^3"]
cpus_soft = "node:0"
cpu_weight = 512
cpu_cap = 150
disk = [ "/dev/vg/guest,raw,xvda,rw", 'format=raw, vdev=xvdb, access=ro, target=/srv/data.img' ]
vif = [ "mac=00:16:3e:74:34:32,script=vif-route,rate=10MB/s" ]
on_poweroff = "preserve"
on_watchdog = "restart"
max_grant_frames = 64
vnc = 1
tsc_mode = "default"
"#,
    )
    .config;
    assert_eq!(config.command_line(), "console=hvc0 root=/dev/xvda");
    assert_eq!(
        (config.max_memory_mib(), config.max_vcpus(), config.vcpus),
        (1024, 4, 2)
    );
    assert_eq!(config.disks[1].mode, DiskMode::Read);
    assert_eq!(config.on_watchdog, Action::Restart);
    assert_eq!((config.weight(), config.cap_percent()), (512, 150));
    assert!(matches!(config.cpus, Some(Affinity::Each(sets)) if sets.len() == 4));
}

#[test]
fn python_s_expressions() {
    let config = good(
        r#"
base = "/srv/" + "images"
disks = [("xvd" + letter, "w") for letter in ["a", "b"]]
name = "we" "b"
kernel = base + "/vmlinuz" if len(disks) is not None else None
memory = 2 * 64
for i in range(2):
    memory += i
disk = ["file:%s/%s.img,%s,%s" % (base, vdev, vdev, mode) for vdev, mode in disks]
print("two disks")
"#,
    )
    .config;
    assert_eq!((config.name.as_str(), config.memory_mib), ("web", 129));
    assert_eq!(config.disks[1].target, "/srv/images/xvdb.img");
}

#[test]
fn overrides_win_and_add_devices() {
    let text = "name = 'a'\nkernel = '/k'\nmemory = 64\nvif = ['bridge=x']\n";
    let words = [
        "memory=256",
        "name=b",
        "vif=bridge=y",
        "vif=bridge=z",
        "extra=a b",
        "cpus=[\"0\", \"1\"]",
    ];
    let config = read_with(text, &words).unwrap().config;
    assert_eq!((config.memory_mib, config.name.as_str()), (256, "b"));
    assert_eq!(config.vifs.len(), 2);
    assert_eq!(config.command_line(), "a b");
    assert!(matches!(config.cpus, Some(Affinity::Each(_))));
    let error = join(&read_with(text, &["memory=much"]).unwrap_err());
    assert_eq!(
        error,
        "command line: memory: `\"much\"` is not what was expected: a number of MiB from 1 to 4294967296\n"
    );
}

#[test]
fn errors_say_where_what_and_what_was_expected() {
    assert_eq!(
        errors("memory = 'lots'\n"),
        "web:2:1: memory: `\"lots\"` is not what was expected: a number of MiB from 1 to 4294967296\n"
    );
    assert!(
        errors("\n  \ndisk = ['phy:a,xvda,w',\n    'phy:b,vdb,w']\n")
            .starts_with("web:5:5: disk[1]: vdev: `vdb` is no name")
    );
    assert!(
        errors("vif = ['brigde=x']\n").starts_with("web:2:8: vif[0]: there is no key `brigde`")
    );
    assert!(errors("vif = [1]\n").contains("text in quotes"));
    assert!(errors("cpus = 'a'\n").starts_with("web:2:1: cpus: `a`"));
    assert!(errors("on_crash = 'explode'\n").contains("`explode` is not one of destroy, restart"));
    assert!(errors("uuid = 'x'\n").starts_with("web:2:1: uuid"));
    assert!(errors("type = 'hvm'\n").contains("`hvm` guests are not supported yet"));
    assert!(errors("builder = 'hvm'\n").starts_with("web:2:1: builder"));
    assert!(errors("pci = ['01:00.0']\n").contains("pci: it is not supported"));
    assert!(errors("maxmem = 1\n").starts_with("web:2:1: maxmem"));
    assert!(
        errors("disk = ['phy:a,xvda,w', 'phy:b,xvda,w']\n")
            .starts_with("web:2:25: disk[1]: there are two")
    );
}

#[test]
fn all_errors_are_told_in_the_file_s_order() {
    let all = errors("vcpus = 0\nmemory = []\nvif = ['x']\n");
    let lines: Vec<&str> = all
        .lines()
        .map(|line| line.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(lines, ["vcpus", "memory", "vif[0]"]);
}

#[test]
fn errors_of_the_language_have_a_place() {
    for (rest, place, what) in [
        ("x = (1,\n", "web:", ""),
        ("a = b\n", "web:2:5", "`b` is not defined"),
        ("a = open('/etc/passwd')\n", "web:2:5", "cannot reach files"),
        ("import socket\n", "web:2:", "`socket` cannot be imported"),
        ("from os import uname\n", "web:2:1", "import os"),
        (
            "while True:\n    pass\n",
            "web:2:1",
            "`while` is not available",
        ),
        (
            "if 1 == 1:\n    try:\n        pass\n",
            "web:3:5",
            "`try` is not available",
        ),
        ("print 'x'\n", "web:2:1", "brackets"),
        ("a = 'x\n", "web:2:5", "no end"),
        ("a = 1 / 0\n", "web:2:5", ""),
        ("if True: raise ValueError('bad')\n", "web:2:10", "bad"),
        ("a = \"x\" 'y'\n", "web:2:9", "follow each other"),
    ] {
        let text = errors(rest);
        assert!(
            text.starts_with(place) && text.contains(what),
            "{rest}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn odd_variables_are_pointed_out() {
    assert_eq!(
        warnings("memmory = 5\n"),
        "web:2:1: memmory: there is no such option; did you mean `memory`?\n"
    );
    assert_eq!(
        warnings("purpose = 'x'\n"),
        "web:2:1: purpose: there is no such option; it is ignored\n"
    );
    assert_eq!(
        warnings("size = 64\nmemory = size\ndef f(x):\n    return x\nvnc = 1\npci = []\n"),
        ""
    );
    assert!(warnings("cmdline = 'a'\nextra = 'b'\n").contains("ignored"));
}

#[test]
fn endless_work_ends() {
    assert!(errors("for i in range(2000000000):\n    a = i\n").starts_with("web:"));
    assert!(errors("def f(x):\n    return f(x)\nf(1)\n").starts_with("web:"));
    assert!(
        errors("a = []\nfor i in range(900000):\n    a.append('%d' % i * 100)\n")
            .starts_with("web:")
    );
    let long = format!("a = 1{}\n", " + 1".repeat(15_000));
    assert!(warnings(&long).contains("no such option"));
    assert!(errors(&format!("a = {}", "(".repeat(1000))).contains("nest"));
    assert!(errors(&"#".repeat(200_000)).contains("bytes"));
}

#[test]
fn masks_of_vcpus() {
    let config = |rest: &str| good(&format!("name='a'\nkernel='/k'\n{rest}")).config;
    let some = config("vcpus=4\nvcpu_avail=3\n");
    assert_eq!((some.vcpus, some.max_vcpus()), (2, 4));
    assert_eq!(config("maxvcpus=3\n").vcpus, 3);
    assert!(errors("vcpus=4\nvcpu_avail=5\n").contains("vcpu_avail"));
}

#[test]
fn words_that_are_overrides() {
    assert_eq!(Override::from_word("a=b=c").unwrap().value, "b=c");
    assert_eq!(Override::from_word("_x1=").unwrap().value, "");
    for word in ["web", "/etc/xen/a=b", "1a=2", "=x", "a-b=1"] {
        assert_eq!(Override::from_word(word), None, "{word}");
    }
}
