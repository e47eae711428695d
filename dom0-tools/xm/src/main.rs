//! The `xm` command: looks at and controls the hypervisor and its domains from domain 0.
//!
//! `cli` is the command line, `host` asks the hypervisor and the kernel, `model` holds what they said, `text` lays it out. What looks only works without
//! any daemon; `guest` has the commands that go through xend.
#![forbid(unsafe_code)]

mod cli;
mod exit;
mod guest;
mod host;
mod manuals;
mod model;
mod text;
mod top;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use exit::Failure;
use host::Host;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).and_then(|output| print(&output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xm: {failure}");
            failure.exit_code()
        }
    }
}

/// Carries the command out and returns what to print.
fn run(cli: &Cli) -> Result<Vec<u8>, Failure> {
    match &cli.command {
        Command::Info { numa } => {
            let info = Host::open()?.info(*numa)?;
            Ok(render(cli.json, &info, text::info))
        }
        Command::List { domains, long: true } => long_list(domains),
        Command::Guest(command) => guest::run(command, cli.json),
        Command::List { domains, long: false } => {
            let (running, halted) = cli::select_all(Host::open()?.domains()?, guest::halted(), domains)?;
            if cli.json {
                let rows = running.iter().map(serde_json::to_value).chain(halted.iter().map(serde_json::to_value));
                return Ok(json(&rows.filter_map(Result::ok).collect::<Vec<_>>()));
            }
            Ok(text::list(&running, &halted).into_bytes())
        }
        Command::VcpuList { domains } => {
            let host = Host::open()?;
            let vcpus = host.vcpus(cli::select(host.domains()?, domains)?)?;
            Ok(render(cli.json, &vcpus, |vcpus| text::vcpu_list(vcpus)))
        }
        Command::Uptime { domains } => {
            let uptimes = host::uptimes(cli::select(Host::open()?.domains()?, domains)?);
            Ok(render(cli.json, &uptimes, |uptimes| text::uptime(uptimes)))
        }
        Command::Dmesg { clear } => {
            let ring = Host::open()?.dmesg(*clear)?;
            Ok(if cli.json {
                json(&model::lines(&ring))
            } else {
                ring
            })
        }
        Command::DebugKeys { keys } => {
            Host::open()?.debug_keys(keys)?;
            Ok(if cli.json {
                json(&serde_json::json!({ "keys": keys }))
            } else {
                Vec::new()
            })
        }
        Command::Top {
            batch,
            delay,
            iterations,
            order,
        } => {
            top::run(&top::Options {
                batch: *batch,
                json: cli.json,
                delay: Duration::from_secs(u64::from(*delay)),
                iterations: *iterations,
                order: *order,
            })?;
            Ok(Vec::new())
        }
        Command::Manuals { directory } => {
            manuals::write(Cli::command(), directory).map_err(Failure::Output)?;
            Ok(Vec::new())
        }
        Command::Help { command } => help(cli.json, command.as_deref()),
    }
}

/// What xend knows about domains.
fn long_list(domains: &[String]) -> Result<Vec<u8>, Failure> {
    let client = oxen_xend_api::Client::default();
    if domains.is_empty() {
        return Ok(json(&client.domains()?));
    }
    let all: Result<Vec<_>, _> = domains.iter().map(|domain| client.domain(domain)).collect();
    Ok(json(&all?))
}

/// The help of one command, or of all.
fn help(as_json: bool, command: Option<&str>) -> Result<Vec<u8>, Failure> {
    let mut root = Cli::command();
    root.build();
    let mut selected = match command {
        None => root,
        Some(name) => root
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Failure::NoSuchCommand(name.to_owned()))?,
    };
    if as_json {
        return Ok(json(&cli::describe(&selected)));
    }
    Ok(selected.render_long_help().to_string().into_bytes())
}

/// `value` as JSON, or as text.
fn render<T: serde::Serialize>(
    as_json: bool,
    value: &T,
    as_text: impl FnOnce(&T) -> String,
) -> Vec<u8> {
    if as_json {
        json(value)
    } else {
        as_text(value).into_bytes()
    }
}

/// `value` as indented JSON and a newline.
fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // Everything here has string keys and finite numbers, the only things that JSON could refuse.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Writes to standard output. A reader that went away is no failure.
fn print(output: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(output).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}
