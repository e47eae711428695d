//! The command line.

use crate::commands::{Entry, JSON, commands, json_option};
use crate::exit::{EXIT_CODES, Failure};
use crate::guest::GuestCommand;
use crate::model::{Domain, Halted};
use crate::top::{Order, Parts};
use clap::error::ErrorKind;
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// A command.
#[derive(Debug)]
pub enum Command {
    /// One that does not need xend.
    Host(HostCommand),
    /// One that goes through xend.
    Guest(GuestCommand),
}

/// The command line.
#[derive(Debug)]
pub struct Cli {
    /// Print JSON instead of text.
    pub json: bool,
    /// What to do.
    pub command: Command,
}

impl Cli {
    /// The command line `words`, the first of which is the program's name.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or the help that it asks for.
    pub fn read<T: Into<OsString>>(words: impl IntoIterator<Item = T>) -> Result<Self, clap::Error> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let named = words.get(1).and_then(|word| word.to_str()).and_then(described);
        let command = named.map_or_else(command, |named| root().subcommand(named));
        // Taking the descriptions apart would serve nothing, as the process ends soon.
        let mut command = ManuallyDrop::new(command);
        let mut matches = command.try_get_matches_from_mut(words)?;
        let mut json = matches.get_flag(JSON);
        let Some((name, mut options)) = matches.remove_subcommand() else { return Err(command.error(ErrorKind::MissingSubcommand, "a command is needed")) };
        json |= options.get_flag(JSON);
        let read = if let Some(entry) = find(HostCommand::LIST, &name) {
            (entry.read)(&mut options).map(Command::Host)
        } else if let Some(entry) = find(GuestCommand::LIST, &name) {
            (entry.read)(&mut options).map(Command::Guest)
        } else {
            Err(command.error(ErrorKind::InvalidSubcommand, format!("there is no command {name}")))
        };
        let command = read.map_err(|error| error.format(&mut command))?;
        Ok(Self { json, command })
    }
}

/// The command line for the parser, with all commands.
pub fn command() -> clap::Command {
    let commands = GuestCommand::LIST.iter().map(Entry::describe).chain(HostCommand::LIST.iter().map(Entry::describe));
    root().subcommands(commands)
}

/// The command line without commands.
fn root() -> clap::Command {
    clap::Command::new("xm")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Looks at and controls the hypervisor and its domains from domain 0")
        .after_help(EXIT_CODES)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(json_option())
}

/// The command `name` for the parser.
fn described(name: &str) -> Option<clap::Command> {
    find(HostCommand::LIST, name).map(Entry::describe).or_else(|| find(GuestCommand::LIST, name).map(Entry::describe))
}

fn find<'a, T>(list: &'a [Entry<T>], name: &str) -> Option<&'a Entry<T>> {
    list.iter().find(|entry| entry.name == name)
}

commands! {
    /// Commands that do not need xend.
    pub enum HostCommand {
        /// Describe the host and the hypervisor.
        "info" => Info(InfoOptions),
        /// List domains: name, id, memory in MiB, vCPUs, state and processor time.
        #[doc = ""]
        /// State letters: r some vCPU runs, b all wait, p paused, s shut down, c crashed, d being destroyed.
        "list" => List(ListOptions),
        /// List vCPUs: where they are, their state, processor time and where they may run.
        "vcpu-list" => VcpuList(AnyDomains),
        /// Say how long domains have been running.
        "uptime" => Uptime(AnyDomains),
        /// Print the hypervisor's messages.
        "dmesg" => Dmesg(DmesgOptions),
        /// Press keys on the hypervisor's console; `xm dmesg` then shows what they did. Key h lists the keys.
        "debug-keys" => DebugKeys(Keys),
        /// Show what domains use, and keep showing it.
        #[doc = ""]
        /// Keys: q, Esc or Ctrl-C ends, d sets the delay, space looks at once; n shows network cards, b or x disks, v vCPUs; s or > orders by the next column, < by the one before, i inverts the
        /// order; r repeats the heads; the arrow and page keys move through domains and columns.
        "top" => Top(TopOptions),
        /// Write manual pages and completions for shells into a directory.
        "manuals" hidden => Manuals(ManualsOptions),
        /// Describe a command, or list all commands.
        "help" => Help(HelpOptions),
    }
}

/// Options of `info`.
#[derive(Args, Debug)]
pub struct InfoOptions {
    /// Also describe where processors and memory are.
    #[arg(short, long)]
    pub numa: bool,
}

/// Options of `list`.
#[derive(Args, Debug)]
pub struct ListOptions {
    /// Names or ids; all domains when none is given.
    pub domains: Vec<String>,
    /// Everything that xend knows about them, as JSON.
    #[arg(short, long)]
    pub long: bool,
}

/// Domains, or all of them.
#[derive(Args, Debug)]
pub struct AnyDomains {
    /// Names or ids; all domains when none is given.
    pub domains: Vec<String>,
}

/// Options of `dmesg`.
#[derive(Args, Debug)]
pub struct DmesgOptions {
    /// Forget them after printing.
    #[arg(short, long)]
    pub clear: bool,
}

/// Keys of the hypervisor's console.
#[derive(Args, Debug)]
pub struct Keys {
    /// The keys, such as `h` or `q`.
    pub keys: String,
}

/// Options of `manuals`.
#[derive(Args, Debug)]
pub struct ManualsOptions {
    /// The directory.
    pub directory: PathBuf,
}

/// Options of `help`.
#[derive(Args, Debug)]
pub struct HelpOptions {
    /// The command.
    pub command: Option<String>,
}

/// The delays that `top` takes, in seconds.
pub const DELAYS_S: RangeInclusive<u32> = 1..=3600;

/// Options of `top`.
#[derive(Args, Debug)]
pub struct TopOptions {
    /// Print as text, without taking the screen.
    #[arg(short, long)]
    pub batch: bool,
    /// Seconds between two looks.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(i64::from(*DELAYS_S.start())..=i64::from(*DELAYS_S.end())))]
    pub delay: u32,
    /// End after this many looks.
    #[arg(short, long)]
    pub iterations: Option<u32>,
    /// What the domains are ordered by.
    #[arg(short, long, value_enum, default_value_t)]
    pub order: Order,
    /// Show network cards.
    #[arg(short, long)]
    pub networks: bool,
    /// Show disks.
    #[arg(short = 'x', long)]
    pub vbds: bool,
    /// Show vCPUs.
    #[arg(short, long)]
    pub vcpus: bool,
    /// Repeat the heads of the table before each domain.
    #[arg(short, long)]
    pub repeat_header: bool,
}

impl TopOptions {
    /// The time between two looks.
    pub fn delay(&self) -> Duration {
        Duration::from_secs(u64::from(self.delay))
    }

    /// Which parts of domains are shown.
    pub fn parts(&self) -> Parts {
        Parts { networks: self.networks, disks: self.vbds, vcpus: self.vcpus }
    }
}

/// The domains among `all` that `wanted` names, in that order; all when it names none.
pub fn select(all: Vec<Domain>, wanted: &[String]) -> Result<Vec<Domain>, Failure> {
    if wanted.is_empty() {
        return Ok(all);
    }
    wanted
        .iter()
        .map(|name| {
            let id: Option<u16> = name.parse().ok();
            let found = all
                .iter()
                .find(|domain| Some(domain.id) == id || domain.name.as_deref() == Some(name));
            found
                .cloned()
                .ok_or_else(|| Failure::NoSuchDomain(name.clone()))
        })
        .collect()
}

/// As [`select`], of the domains that run and of the guests that do not.
pub fn select_all(running: Vec<Domain>, halted: Vec<Halted>, wanted: &[String]) -> Result<(Vec<Domain>, Vec<Halted>), Failure> {
    if wanted.is_empty() {
        return Ok((running, halted));
    }
    let (not_running, others): (Vec<String>, Vec<String>) = wanted.iter().cloned().partition(|name| halted.iter().any(|guest| guest.name == *name));
    let running = if others.is_empty() { Vec::new() } else { select(running, &others)? };
    Ok((running, halted.into_iter().filter(|guest| not_running.contains(&guest.name)).collect()))
}

/// A command as `help --json` prints it.
#[derive(Debug, Serialize)]
pub struct Description {
    name: String,
    about: String,
    usage: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<Description>,
}

/// Describes `command` and those below it.
pub fn describe(command: &clap::Command) -> Description {
    Description {
        name: command.get_name().to_owned(),
        about: command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default(),
        usage: command.clone().render_usage().to_string(),
        commands: command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(describe)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn json_is_accepted_before_and_after_the_command() {
        let json = |line: &str| Cli::read(line.split(' ')).map(|cli| cli.json).map_err(|error| error.to_string());
        for line in ["xm --json list", "xm list --json", "xm list web --json -l", "xm help --json", "xm metrics --json"] {
            assert_eq!(json(line), Ok(true), "{line}");
        }
        assert_eq!(json("xm list"), Ok(false));
        assert!(json("xm --jason list").is_err() && json("xm list --jason").is_err());
    }

    #[test]
    fn every_command_has_a_description_and_takes_json() {
        let mut root = command();
        root.build();
        for command in root.get_subcommands() {
            let json = command.get_arguments().filter(|option| option.get_long() == Some(JSON)).count();
            assert!(json == 1 && command.get_about().is_some(), "{}", command.get_name());
        }
        // Its own description, not that of its options' structure.
        let about = |name: &str| root.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
        assert_eq!(about("new").as_deref(), Some("Make a guest known without starting it; `xm start` starts it"));
        assert!(root.find_subcommand("list").and_then(clap::Command::get_long_about).is_some_and(|about| about.to_string().contains("State letters")));
    }

    #[test]
    fn guests_that_do_not_run_are_listed_after_the_others() {
        let running = || vec![Domain::named(0, "Domain-0"), Domain::named(3, "web")];
        let halted = || vec![Halted { name: "db".to_owned(), ..Halted::default() }];
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let (running, halted) = select_all(running(), halted(), &wanted)?;
            Ok::<_, Failure>(running.into_iter().filter_map(|domain| domain.name).chain(halted.into_iter().map(|guest| guest.name)).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["Domain-0", "web", "db"]);
        assert_eq!(names(&["db"]).unwrap(), ["db"]);
        assert_eq!(names(&["db", "3"]).unwrap(), ["web", "db"]);
        assert_eq!(names(&["db", "nothing"]).unwrap_err().code(), 5);
    }

    #[test]
    fn domains_are_found_by_id_and_by_name() {
        let all = || vec![Domain::named(0, "Domain-0"), Domain::named(3, "web")];
        let ids = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            select(all(), &wanted)
                .map(|list| list.iter().map(|domain| domain.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[]).unwrap(), [0, 3]);
        assert_eq!(ids(&["web", "0"]).unwrap(), [3, 0]);
        assert_eq!(ids(&["Domain-0"]).unwrap(), [0]);
        assert_eq!(ids(&["nothing"]).unwrap_err().code(), 5);
    }
}
