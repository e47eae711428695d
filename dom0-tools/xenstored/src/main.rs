//! The xenstored program.
#![forbid(unsafe_code)]

mod background;

use clap::{ArgAction, Parser};
use oxen_xenstored::limits::Limits;
use oxen_xenstored::log;
use oxen_xenstored::server::{Connector, NoRings, Options, Server, Xen};
use std::path::PathBuf;
use std::process::ExitCode;

/// Keeps the tree of names and values through which domains, their devices and the tools find each other
#[derive(Debug, Parser)]
#[command(name = "xenstored", version, disable_help_flag = true, disable_version_flag = true)]
struct Arguments {
    /// Print this help
    #[arg(short = 'H', long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
    /// Stay in the foreground
    #[arg(short = 'N', long)]
    no_fork: bool,
    /// Write the process id to FILE
    #[arg(short = 'F', long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Print the process id
    #[arg(short = 'P', long)]
    output_pid: bool,
    /// Serve the socket only, no domain: works without the hypervisor
    #[arg(short = 'D', long)]
    no_domain_init: bool,
    /// Write the log to FILE instead of /var/log/xen/xenstored.log (in the foreground: instead of standard error)
    #[arg(short = 'T', long, alias = "trace-file", value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Nodes of a domain
    #[arg(short = 'E', long, value_name = "NUMBER")]
    entry_nb: Option<u32>,
    /// Bytes of a node of a domain
    #[arg(short = 'S', long, value_name = "BYTES")]
    entry_size: Option<u32>,
    /// Watches of a domain
    #[arg(short = 'W', long, value_name = "NUMBER")]
    watch_nb: Option<u32>,
    /// Transactions of a domain at a time
    #[arg(short = 't', long, value_name = "NUMBER")]
    transaction: Option<u32>,
    /// Permissions of a node of a domain
    #[arg(short = 'A', long, value_name = "NUMBER")]
    perm_nb: Option<u32>,
    /// Another quota, by the name that `xenstore-control quota` shows
    #[arg(short = 'Q', long, value_name = "NAME=NUMBER", value_parser = parse_quota)]
    quota: Vec<(String, u32)>,
    /// Keep no journal: a restart loses everything
    #[arg(long)]
    no_journal: bool,
    /// Log every request
    #[arg(short = 'V', long)]
    verbose: bool,
    /// Accepted for other daemons' sake; the tree is always in memory
    #[arg(short = 'I', long, value_name = "ON|OFF", num_args = 0..=1, hide = true)]
    internal_db: Option<Option<String>>,
    /// The directory of sockets and journal
    #[arg(long, value_name = "DIR", env = "XENSTORED_RUNDIR", default_value = "/run/xenstored")]
    rundir: PathBuf,
}

fn parse_quota(text: &str) -> Result<(String, u32), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    let value = value.parse().map_err(|_| format!("{value} is not a number"))?;
    if !Limits::default().set(name, value) {
        let names: Vec<&str> = Limits::default().each().iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no quota {name}; there are {}", names.join(", ")));
    }
    Ok((name.to_owned(), value))
}

impl Arguments {
    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        let named =
            [("nodes", self.entry_nb), ("node-size", self.entry_size), ("watches", self.watch_nb), ("transactions", self.transaction), ("perms", self.perm_nb)];
        for (name, value) in
            named.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(self.quota.iter().map(|(name, value)| (name.as_str(), *value)))
        {
            limits.set(name, value);
        }
        limits
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.no_fork || background::is_child() { serve(&arguments) } else { background::start(arguments.output_pid) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::line(&error);
            eprintln!("xenstored: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), String> {
    background::open_log(arguments.log_file.as_deref(), arguments.no_fork);
    let options = Options { rundir: arguments.rundir.clone(), limits: arguments.limits(), journal: !arguments.no_journal, trace: arguments.verbose };
    if arguments.no_domain_init {
        return run(arguments, Server::new(&options, NoRings));
    }
    let xen = Xen::open().map_err(|error| error.to_string())?;
    run(arguments, Server::new(&options, xen))
}

fn run<C: Connector>(arguments: &Arguments, server: std::io::Result<Server<C>>) -> Result<(), String> {
    let mut server = server.map_err(|error| error.to_string())?;
    let pid = std::process::id();
    if let Some(file) = &arguments.pid_file {
        std::fs::write(file, format!("{pid}\n")).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if arguments.output_pid && !background::is_child() {
        println!("{pid}");
    }
    if let Some(domains) = server.resumed() {
        log::line(&format!("goes on where it was, with {domains} domains"));
    }
    background::ready();
    server.run().map_err(|error| error.to_string())
}
