//! The commands that go through xend: guests' lives, their devices and settings.

mod cli;
mod create;
mod devices;
mod life;
mod settings;

pub use cli::GuestCommand;

use crate::exit::Failure;
use crate::model::Halted;
use oxen_xend_api::{Client, Operation, Outcome, Progress, Task};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Work that takes less time than this shows no progress.
const QUIET: Duration = Duration::from_millis(700);

/// How commands speak.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// JSON instead of text.
    pub json: bool,
    /// No messages, only errors.
    pub quiet: bool,
}

impl Voice {
    /// Says what was done.
    fn say(self, text: &str) {
        if !self.quiet && !self.json {
            println!("{text}");
        }
    }
}

/// Carries a command out and returns what to print.
pub fn run(command: &GuestCommand, client: &Client, json: bool) -> Result<Vec<u8>, Failure> {
    let voice = Voice { json, quiet: false };
    match command {
        GuestCommand::Create(options) => create::create(client, options, voice, false),
        GuestCommand::New(options) => create::create(client, options, voice, true),
        GuestCommand::Start { domain, paused, console } => create::start(client, domain, *paused, *console, voice),
        GuestCommand::Delete { domain } => simple(client, domain, &Operation::Delete),
        GuestCommand::Console { domain } => life::console(client, domain),
        GuestCommand::Shutdown(options) => life::shut_down(client, options, voice, false),
        GuestCommand::Reboot(options) => life::shut_down(client, options, voice, true),
        GuestCommand::Destroy { domains } => each(client, domains, &Operation::Destroy),
        GuestCommand::Pause { domains } => each(client, domains, &Operation::Pause),
        GuestCommand::Unpause { domains } => each(client, domains, &Operation::Unpause),
        GuestCommand::Rename { domain, name } => simple(client, domain, &Operation::Rename { name: name.clone() }),
        GuestCommand::Domid { domain } => life::domid(client, domain, voice),
        GuestCommand::Domname { domid } => life::domname(client, *domid, voice),
        GuestCommand::Sysrq { domain, key } => simple(client, domain, &Operation::Sysrq { key: *key }),
        GuestCommand::DumpCore { domain, file, live, destroy } => {
            let outcome = operate(client, domain, &Operation::DumpCore { path: file.clone(), live: *live, destroy: *destroy })?;
            Ok(outcome_text(&outcome, json))
        }
        GuestCommand::MemSet { domain, amount } => simple(client, domain, &Operation::MemSet { target_kib: settings::kib(amount)? }),
        GuestCommand::MemMax { domain, amount } => simple(client, domain, &Operation::MemMax { max_kib: settings::kib(amount)? }),
        GuestCommand::VcpuSet { domain, vcpus } => simple(client, domain, &Operation::VcpuSet { vcpus: *vcpus }),
        GuestCommand::VcpuPin { domain, vcpu, hard, soft } => settings::pin(client, domain, vcpu, hard, soft.as_deref()),
        GuestCommand::SchedCredit { domain, weight, cap } => settings::sched_credit(client, domain.as_deref(), *weight, *cap, json),
        GuestCommand::BlockAttach { domain, disk } => devices::block_attach(client, domain, disk, json),
        GuestCommand::BlockDetach { domain, device, force } => simple(client, domain, &Operation::BlockDetach { device: device.clone(), force: *force }),
        GuestCommand::BlockList { domains } => devices::block_list(client, domains, json),
        GuestCommand::NetworkAttach { domain, settings } => devices::network_attach(client, domain, settings, json),
        GuestCommand::NetworkDetach { domain, device, force } => simple(client, domain, &Operation::NetworkDetach { device: device.clone(), force: *force }),
        GuestCommand::NetworkList { domains } => devices::network_list(client, domains, json),
        GuestCommand::Metrics => Ok(client.metrics()?.into_bytes()),
        GuestCommand::Log { lines } => Ok(client.log(*lines)?.into_bytes()),
    }
}

/// The guests that do not run; none when xend does not say.
pub fn halted(client: &Client) -> Vec<Halted> {
    let known = client.halted().unwrap_or_default();
    known.into_iter().map(|guest| Halted { name: guest.name, id: None, memory_mib: guest.memory_kib / 1024, vcpus: guest.vcpus, uuid: guest.uuid }).collect()
}

/// Does `operation` on one domain.
fn simple(client: &Client, domain: &str, operation: &Operation) -> Result<Vec<u8>, Failure> {
    operate(client, domain, operation).map(|_| Vec::new())
}

/// Does `operation` on each domain; the first failure is returned when all have been tried, others are printed.
fn each(client: &Client, domains: &[String], operation: &Operation) -> Result<Vec<u8>, Failure> {
    let failures = domains.iter().filter_map(|domain| operate(client, domain, operation).err().map(|failure| (domain, failure)));
    first_failure(failures).map_or(Ok(Vec::new()), Err)
}

/// The first of several failures; the others are printed.
fn first_failure<'a>(failures: impl Iterator<Item = (&'a String, Failure)>) -> Option<Failure> {
    let mut first = None;
    for (domain, failure) in failures {
        if first.is_none() {
            first = Some(failure);
        } else {
            eprintln!("xm: {domain}: {failure}");
        }
    }
    first
}

/// Does `operation` and waits for its end.
fn operate(client: &Client, domain: &str, operation: &Operation) -> Result<Outcome, Failure> {
    wait(client, client.operate(domain, operation)?)
}

/// Waits for the end of a task; on a terminal, what takes long shows how it goes on.
fn wait(client: &Client, task: Task) -> Result<Outcome, Failure> {
    let start = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let mut shown = false;
    let result = client.wait(task, |progress: &Progress| {
        if terminal && start.elapsed() > QUIET && !progress.step.is_empty() {
            shown = true;
            let part = if progress.total == 0 { String::new() } else { format!(" ({} %)", progress.done.saturating_mul(100) / progress.total) };
            // A message that cannot be shown is no reason to stop.
            let _ = write!(std::io::stderr(), "\r\x1b[K{}{part}", progress.step);
        }
    });
    if shown {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    Ok(result?)
}

/// What an operation brought about.
fn outcome_text(outcome: &Outcome, json: bool) -> Vec<u8> {
    if json {
        return crate::json(outcome);
    }
    match outcome {
        Outcome::Nothing | Outcome::Domain { .. } => Vec::new(),
        Outcome::Block { device } => format!("{} attached as {}\n", device.target, device.name).into_bytes(),
        Outcome::Network { device } => format!("network card {} attached, {}\n", device.device.id, device.mac).into_bytes(),
        Outcome::File { path, bytes } => format!("{bytes} bytes written to {path}\n").into_bytes(),
    }
}
