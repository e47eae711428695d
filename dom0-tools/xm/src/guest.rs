//! The commands that go through xend: guests' lives, their devices and settings.

mod cli;
mod create;
mod devices;
mod evaluator;
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
        GuestCommand::Start(options) => create::start(client, &options.domain, options.paused, options.console, voice),
        GuestCommand::Delete(options) => simple(client, &options.domain, &Operation::Delete),
        GuestCommand::Console(options) => life::console(client, &options.domain),
        GuestCommand::Shutdown(options) => life::shut_down(client, options, voice, false),
        GuestCommand::Reboot(options) => life::shut_down(client, options, voice, true),
        GuestCommand::Destroy(options) => each(client, &options.domains, &Operation::Destroy),
        GuestCommand::Pause(options) => each(client, &options.domains, &Operation::Pause),
        GuestCommand::Unpause(options) => each(client, &options.domains, &Operation::Unpause),
        GuestCommand::Rename(options) => simple(client, &options.domain, &Operation::Rename { name: options.name.clone() }),
        GuestCommand::Domid(options) => life::domid(client, &options.domain, voice),
        GuestCommand::Domname(options) => life::domname(client, options.domid, voice),
        GuestCommand::Sysrq(options) => simple(client, &options.domain, &Operation::Sysrq { key: options.key }),
        GuestCommand::DumpCore(options) => {
            let outcome = operate(client, &options.domain, &Operation::DumpCore { path: options.file.clone(), live: options.live, destroy: options.destroy })?;
            Ok(outcome_text(&outcome, json))
        }
        GuestCommand::MemSet(options) => simple(client, &options.domain, &Operation::MemSet { target_kib: settings::kib(&options.amount)? }),
        GuestCommand::MemMax(options) => simple(client, &options.domain, &Operation::MemMax { max_kib: settings::kib(&options.amount)? }),
        GuestCommand::VcpuSet(options) => simple(client, &options.domain, &Operation::VcpuSet { vcpus: options.vcpus }),
        GuestCommand::VcpuPin(options) => settings::pin(client, &options.domain, &options.vcpu, &options.hard, options.soft.as_deref()),
        GuestCommand::SchedCredit(options) => settings::sched_credit(client, options.domain.as_deref(), options.weight, options.cap, json),
        GuestCommand::BlockAttach(options) => devices::block_attach(client, &options.domain, &options.disk, json),
        GuestCommand::BlockDetach(options) => simple(client, &options.domain, &Operation::BlockDetach { device: options.device.clone(), force: options.force }),
        GuestCommand::BlockList(options) => devices::block_list(client, &options.domains, json),
        GuestCommand::NetworkAttach(options) => devices::network_attach(client, &options.domain, &options.settings, json),
        GuestCommand::NetworkDetach(options) => simple(client, &options.domain, &Operation::NetworkDetach { device: options.device.clone(), force: options.force }),
        GuestCommand::NetworkList(options) => devices::network_list(client, &options.domains, json),
        GuestCommand::Metrics(_) => Ok(client.metrics()?.into_bytes()),
        GuestCommand::Log(options) => Ok(client.log(options.lines)?.into_bytes()),
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
            let part = progress.done.saturating_mul(100).checked_div(progress.total).map_or_else(String::new, |percent| format!(" ({percent} %)"));
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
