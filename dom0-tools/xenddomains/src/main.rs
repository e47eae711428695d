//! `xenddomains`: starts the guests that are marked for it with domain 0, and shuts guests down with it.
//!
//! A guest's configuration says what happens to it: `on_xend_start` and `on_xend_stop`.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use oxen_guest_config::{OnDaemonStart, OnDaemonStop};
use oxen_xend_api::{Client, Code, Domain, Failure, Operation, SOCKET, ShutdownWay, State};
use std::process::ExitCode;
use std::thread;

/// Start guests with domain 0 and stop them with it
///
/// Exit codes: 0 done; 1 some guest could not be started or stopped; 2 wrong usage; 3 xend cannot be reached.
#[derive(Debug, Parser)]
#[command(name = "xenddomains", version)]
struct Arguments {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: String,
    /// What to do
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Verb {
    /// Start every managed guest whose configuration says on_xend_start="start"
    Start,
    /// Shut every guest down whose configuration does not say on_xend_stop="ignore", and wait for them
    Stop {
        /// How long a guest may take, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        wait: u32,
    },
    /// Say what would be started and stopped
    Status,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let client = Client::new(&arguments.socket);
    let domains = match client.domains() {
        Ok(domains) => domains,
        Err(failure) => {
            eprintln!("xenddomains: {failure}");
            return ExitCode::from(3);
        }
    };
    let good = match arguments.verb {
        Verb::Start => all(&client, &domains, starts, &Operation::Start { paused: false }),
        Verb::Stop { wait } => {
            let way = ShutdownWay::Poweroff;
            all(&client, &domains, stops, &Operation::Shutdown { way, wait_s: Some(wait) })
        }
        Verb::Status => {
            print!("{}", status(&domains));
            true
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether a guest is to be started.
fn starts(domain: &Domain) -> bool {
    let marked = domain.config.as_ref().is_some_and(|config| config.on_xend_start == OnDaemonStart::Start);
    marked && domain.managed && domain.state == State::Halted
}

/// Whether a guest is to be shut down.
fn stops(domain: &Domain) -> bool {
    let spared = domain.config.as_ref().is_some_and(|config| config.on_xend_stop == OnDaemonStop::Ignore);
    let guest = domain.domid.is_some_and(|domid| domid != 0);
    guest && !spared && matches!(domain.state, State::Creating | State::Running | State::Paused | State::ShuttingDown)
}

/// Does `operation` with all chosen domains at once; says whether all went well.
fn all(client: &Client, domains: &[Domain], chosen: fn(&Domain) -> bool, operation: &Operation) -> bool {
    thread::scope(|scope| {
        let threads: Vec<_> = domains
            .iter()
            .filter(|domain| chosen(domain))
            .map(|domain| (domain, scope.spawn(|| one(client, domain, operation))))
            .collect();
        threads.into_iter().fold(true, |good, (domain, thread)| match thread.join() {
            Ok(Ok(())) => {
                println!("{}: {} done", domain.name, operation.name());
                good
            }
            Ok(Err(failure)) => {
                eprintln!("xenddomains: {}: {}: {failure}", domain.name, operation.name());
                false
            }
            Err(_) => false,
        })
    })
}

/// Does `operation` with one domain.
fn one(client: &Client, domain: &Domain, operation: &Operation) -> Result<(), Failure> {
    // A guest that stands still cannot shut down.
    if domain.state == State::Paused && matches!(operation, Operation::Shutdown { .. }) {
        client.run(&domain.uuid, &Operation::Unpause)?;
    }
    match client.run(&domain.uuid, operation) {
        // It ended by itself meanwhile.
        Err(failure) if failure.refusal().is_some_and(|error| error.code == Code::NoSuchDomain) => Ok(()),
        result => result.map(drop),
    }
}

/// A line for each domain that one of the verbs is about.
fn status(domains: &[Domain]) -> String {
    let line = |domain: &Domain| {
        let what = match (starts(domain), stops(domain)) {
            (true, _) => "to be started",
            (_, true) => "to be shut down with domain 0",
            _ => return None,
        };
        Some(format!("{}: {what}\n", domain.name))
    };
    domains.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use oxen_guest_config::GuestConfig;

    fn guest(state: State, config: GuestConfig) -> Domain {
        let domid = (state != State::Halted).then_some(4);
        Domain { name: "web".to_owned(), state, domid, managed: true, config: Some(Box::new(config)), ..Domain::default() }
    }

    #[test]
    fn command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_marked_halted_guests_are_started() {
        let marked = GuestConfig { on_xend_start: OnDaemonStart::Start, ..GuestConfig::default() };
        assert!(starts(&guest(State::Halted, marked.clone())));
        assert!(!starts(&guest(State::Running, marked.clone())));
        assert!(!starts(&guest(State::Halted, GuestConfig::default())));
        assert!(!starts(&Domain { managed: false, ..guest(State::Halted, marked) }));
    }

    #[test]
    fn running_guests_are_stopped_unless_spared() {
        let spared = GuestConfig { on_xend_stop: OnDaemonStop::Ignore, ..GuestConfig::default() };
        assert!(stops(&guest(State::Running, GuestConfig::default())));
        assert!(stops(&guest(State::Paused, GuestConfig::default())));
        assert!(!stops(&guest(State::Running, spared)));
        assert!(!stops(&guest(State::Crashed, GuestConfig::default())));
        // Guests of other tools have no configuration here, but go down with domain 0 all the same.
        assert!(stops(&Domain { config: None, ..guest(State::Running, GuestConfig::default()) }));
        assert!(!stops(&Domain { domid: Some(0), config: None, state: State::Running, ..Domain::default() }));
    }

    #[test]
    fn an_unreachable_daemon_is_a_failure_for_each_guest() {
        let client = Client::new("/nonexistent/xend.sock");
        let domains = [guest(State::Running, GuestConfig::default())];
        assert!(!all(&client, &domains, stops, &Operation::Destroy));
        assert!(all(&client, &[], stops, &Operation::Destroy));
    }
}
