//! The `xm` command: looks at and controls the hypervisor and its domains from domain 0.
//!
//! `cli` is the command line, `machine` says where everything is, `host` asks the hypervisor and the kernel, `model` holds what they said, `text` lays it out. What looks only works without
//! any daemon; `guest` has the commands that go through xend.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod exit;
mod guest;
mod host;
mod machine;
mod manuals;
mod model;
#[cfg(test)]
mod tests;
mod text;
mod top;

use cli::{Cli, Command, HostCommand};
use exit::Failure;
use host::Host;
use machine::Machine;
use oxen_xend_api::Client;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::read(env::args_os()).unwrap_or_else(|error| error.exit());
    match carry_out(&cli, &Machine::default(), &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xm: {failure}");
            failure.exit_code()
        }
    }
}

/// Carries the command out on `machine` and prints to `out`. A reader that went away is no failure.
fn carry_out(cli: &Cli, machine: &Machine, out: &mut dyn Write) -> Result<(), Failure> {
    match run(cli, machine, out).and_then(|output| print(&output, out)) {
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Carries the command out and returns what to print at its end; `top` prints to `out` meanwhile.
fn run(cli: &Cli, machine: &Machine, out: &mut dyn Write) -> Result<Vec<u8>, Failure> {
    let command = match &cli.command {
        Command::Guest(command) => return guest::run(command, &machine.xend, cli.json),
        Command::Host(command) => command,
    };
    match command {
        HostCommand::Info(options) => {
            let info = Host::open(machine)?.info(options.numa)?;
            Ok(render(cli.json, &info, text::info))
        }
        HostCommand::List(options) if options.long => long_list(&machine.xend, &options.domains),
        HostCommand::List(options) => {
            let (running, halted) = cli::select_all(Host::open(machine)?.domains()?, guest::halted(&machine.xend), &options.domains)?;
            if cli.json {
                let rows = running.iter().map(serde_json::to_value).chain(halted.iter().map(serde_json::to_value));
                return Ok(json(&rows.filter_map(Result::ok).collect::<Vec<_>>()));
            }
            Ok(text::list(&running, &halted).into_bytes())
        }
        HostCommand::VcpuList(options) => {
            let host = Host::open(machine)?;
            let vcpus = host.vcpus(cli::select(host.domains()?, &options.domains)?)?;
            Ok(render(cli.json, &vcpus, |vcpus| text::vcpu_list(vcpus)))
        }
        HostCommand::Uptime(options) => {
            let uptimes = host::uptimes(machine, cli::select(Host::open(machine)?.domains()?, &options.domains)?);
            Ok(render(cli.json, &uptimes, |uptimes| text::uptime(uptimes)))
        }
        HostCommand::Dmesg(options) => {
            let ring = Host::open(machine)?.dmesg(options.clear)?;
            Ok(if cli.json {
                json(&model::lines(&ring))
            } else {
                ring
            })
        }
        HostCommand::DebugKeys(options) => {
            Host::open(machine)?.debug_keys(&options.keys)?;
            Ok(if cli.json {
                json(&serde_json::json!({ "keys": options.keys }))
            } else {
                Vec::new()
            })
        }
        HostCommand::Top(options) => {
            top::run(options, cli.json, machine, out)?;
            Ok(Vec::new())
        }
        HostCommand::Manuals(options) => {
            manuals::write(cli::command(), &options.directory).map_err(Failure::Output)?;
            Ok(Vec::new())
        }
        HostCommand::Help(options) => help(cli.json, options.command.as_deref()),
    }
}

/// What xend knows about domains.
fn long_list(client: &Client, domains: &[String]) -> Result<Vec<u8>, Failure> {
    if domains.is_empty() {
        return Ok(json(&client.domains()?));
    }
    let all: Result<Vec<_>, _> = domains.iter().map(|domain| client.domain(domain)).collect();
    Ok(json(&all?))
}

/// The help of one command, or of all.
fn help(as_json: bool, command: Option<&str>) -> Result<Vec<u8>, Failure> {
    let mut root = cli::command();
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

/// Writes `output` to `out`.
fn print(output: &[u8], out: &mut dyn Write) -> Result<(), Failure> {
    out.write_all(output).and_then(|()| out.flush()).map_err(Failure::Output)
}
