use super::*;
use crate::cli::{Cli, Command as Verb, HostCommand};
use crate::machine::Machine;
use oxen_abi::Errno;
use oxen_dom0_testkit::{FakeHost, PATIENCE, wait_for};
use oxen_xend_api::Client;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use std::env;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

/// Says what the program on the terminal meets.
const MEETS: &str = "XM_TOP_MEETS";
/// The terminal gets a screen of its own, and the other one back (xterm's private modes).
const TAKEN_SCREEN: &str = "\x1b[?1049h";
const GIVEN_BACK: &str = "\x1b[?1049l";

#[test]
fn lines_are_painted_over_what_was_there() {
    let lines = [vec![(Style::Plain, "a".to_owned()), (Style::Reverse, "b".to_owned())], Vec::new(), vec![(Style::Bold, "c".to_owned())]];
    let mut out = Vec::new();
    paint(&lines, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "\x1b[1;1Ha\x1b[7mb\x1b[0m\x1b[K\x1b[2;1H\x1b[K\x1b[3;1H\x1b[1mc\x1b[0m\x1b[K");
}

/// `xm top` on a terminal of its own.
struct OnTerminal {
    child: Child,
    /// The user's end.
    user: File,
    /// The program's end.
    line: File,
    before: Termios,
    seen: Arc<Mutex<String>>,
}

impl OnTerminal {
    /// Starts [`on_a_terminal`] in a process of its own, on a screen of 80 columns and 24 lines.
    fn start(meets: &str) -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap();
        let line = OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(name.to_bytes())).unwrap();
        let user = File::from(user);
        resize(&user, 80, 24);
        let before = tcgetattr(&line).unwrap();
        let end = || line.try_clone().unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "top::screen::tests::on_a_terminal", "--ignored", "--nocapture", "--test-threads=1"])
            .env(MEETS, meets)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (user.try_clone().unwrap(), Arc::clone(&seen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends when both ends are closed.
            while let Ok(len @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        });
        let terminal = Self { child, user, line, before, seen };
        terminal.wait("Domain-0");
        assert!(terminal.seen().contains(TAKEN_SCREEN));
        let modes = tcgetattr(&terminal.line).unwrap().local_modes;
        assert!(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        terminal
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the screen has shown `text`.
    fn wait(&self, text: &str) {
        wait_for(text, || self.seen().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.user.write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, after which the terminal is what it was. The exit status and what was shown after the screen was given back.
    fn end(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {}", self.seen());
            thread::sleep(Duration::from_millis(2));
        };
        self.wait(GIVEN_BACK);
        let after = tcgetattr(&self.line).unwrap();
        let modes = |termios: &Termios| (termios.input_modes, termios.output_modes, termios.control_modes, termios.local_modes);
        assert_eq!(modes(&after), modes(&self.before));
        let seen = self.seen();
        assert_eq!((seen.matches(TAKEN_SCREEN).count(), seen.matches(GIVEN_BACK).count()), (1, 1), "{seen:?}");
        let (shown, rest) = seen.split_once(GIVEN_BACK).unwrap();
        // The cursor and the wrapping of lines, too.
        assert!(shown.ends_with("\x1b[?7h\x1b[?25h"), "{shown:?}");
        (status, rest.to_owned())
    }
}

fn resize(terminal: &File, columns: u16, lines: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// What the tests below start: `xm top` of a machine on which the second list of domains fails or panics when the environment says so.
#[test]
#[ignore = "started on a terminal by other tests"]
fn on_a_terminal() {
    let meets = env::var(MEETS).expect("started by another test");
    let host = FakeHost::new(1024).unwrap();
    host.add_vcpus(0, 1);
    if meets == "error" {
        host.fail("sysctl getdomaininfolist", 1, Errno::EFAULT);
    }
    let xen = move || {
        let (seen, panics) = (host.clone(), meets == "panic");
        host.xen_with(Box::new(move |_| {
            let lists = seen.calls().iter().filter(|call| **call == "sysctl getdomaininfolist").count();
            assert!(!panics || lists <= 1, "the test panics");
            Ok(())
        }))
    };
    let machine = Machine { hypervisor: Box::new(move || Ok(xen())), store_socket: "/nonexistent".into(), xend: Client::new("/nonexistent"), root: "/nonexistent".into() };
    let Verb::Host(HostCommand::Top(options)) = Cli::read(["xm", "top", "-d", "1000"]).unwrap().command else { unreachable!() };
    let source = Source::open(&machine).unwrap();
    if let Err(failure) = run(&source, &options) {
        eprintln!("xm: {failure}");
        std::process::exit(failure.code().into());
    }
}

#[test]
fn keys_are_read_and_the_terminal_is_given_back() {
    let mut terminal = OnTerminal::start("nothing");
    terminal.press("s");
    terminal.wait("by NAME");
    // An arrow is several bytes that belong together.
    terminal.press("\x1b[C\x1b[Cd");
    terminal.wait("Delay in seconds (now 1000): ");
    terminal.press("9\r");
    terminal.wait("(now 1000): 9");
    terminal.press("d");
    terminal.wait("Delay in seconds (now 9): ");
    terminal.press("\x03");
    let (status, rest) = terminal.end();
    assert!(status.success(), "{status} {rest}");
}

#[test]
fn an_arrow_that_comes_in_parts_does_not_end_it_and_esc_does() {
    let mut terminal = OnTerminal::start("nothing");
    terminal.press("\x1b");
    thread::sleep(Duration::from_millis(10));
    terminal.press("[C");
    thread::sleep(ESCAPE_DELAY * 2);
    terminal.press("s");
    terminal.wait("by NAME");
    terminal.press("\x1b");
    assert!(terminal.end().0.success());
}

#[test]
fn a_terminal_of_another_size_is_filled() {
    let mut terminal = OnTerminal::start("nothing");
    terminal.wait("\x1b[24;1H  ");
    // Keys and changes of size come the same way, which is open once a key has come.
    terminal.press("s");
    terminal.wait("by NAME");
    resize(&terminal.user, 120, 10);
    terminal.signal(Signal::WINCH);
    terminal.wait("\x1b[10;1H  ");
    assert!(terminal.seen().contains("VBD_OO"), "the columns of a wide screen");
    terminal.press("q");
    assert!(terminal.end().0.success());
}

#[test]
fn signals_end_it_and_give_the_terminal_back() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let terminal = OnTerminal::start("nothing");
        terminal.signal(signal);
        let (status, rest) = terminal.end();
        assert_eq!((status.signal(), rest.as_str()), (Some(signal.as_raw()), ""));
    }
}

#[test]
fn what_went_wrong_is_said_on_the_screen_that_was_there_before() {
    let mut terminal = OnTerminal::start("error");
    terminal.press(" ");
    let (status, rest) = terminal.end();
    assert_eq!(status.code(), Some(1));
    assert!(rest.contains("xm: the hypervisor refused sysctl getdomaininfolist: EFAULT"), "{rest:?}");
}

#[test]
fn a_panic_is_told_on_the_screen_that_was_there_before() {
    let mut terminal = OnTerminal::start("panic");
    terminal.press(" ");
    let (status, rest) = terminal.end();
    assert_eq!(status.code(), Some(101));
    assert!(rest.contains("the test panics"), "{rest:?}");
}
