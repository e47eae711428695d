//! Consoles, and the end of guests.

use super::cli::EndOptions;
use super::{Voice, first_failure, wait};
use crate::exit::Failure;
use oxen_xend_api::{Client, Operation, ShutdownWay, State};
use oxen_xenconsoled::client::{Ended, attach};
use oxen_xenstore::Store;
use std::time::Duration;

/// How long a guest's console may take to appear.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(20);

/// Connects the terminal to a guest's console.
pub fn console(client: &Client, domain: &str) -> Result<Vec<u8>, Failure> {
    let domid = running_domid(client, domain)?;
    let store = Store::open().map_err(|error| Failure::Other(error.to_string()))?;
    match attach(&store, domid, CONSOLE_PATIENCE) {
        Ok(Ended::Detached | Ended::GuestGone) => Ok(Vec::new()),
        Err(error) => Err(Failure::Other(format!("{domain}: {error}"))),
    }
}

/// The id of a domain. The hypervisor is asked first for numbers, so that consoles can be had while xend does not run.
fn running_domid(client: &Client, domain: &str) -> Result<u16, Failure> {
    if let Ok(domid) = domain.parse() {
        return Ok(domid);
    }
    client.domain(domain)?.domid.ok_or_else(|| Failure::Other(format!("{domain} is not running")))
}

/// Asks guests to shut down or reboot.
pub fn shut_down(client: &Client, options: &EndOptions, voice: Voice, reboot: bool) -> Result<Vec<u8>, Failure> {
    let domains = if options.all {
        let running = client.domains()?.into_iter().filter(|domain| domain.domid.is_some_and(|domid| domid != 0) && !matches!(domain.state, State::Shutdown | State::Crashed | State::Dying));
        running.map(|domain| domain.uuid).collect()
    } else {
        options.domains.clone()
    };
    let wait_s = options.wait.then_some(options.timeout);
    let operation = if reboot {
        Operation::Reboot { wait_s }
    } else {
        Operation::Shutdown { way: if options.halt { ShutdownWay::Halt } else { ShutdownWay::Poweroff }, wait_s }
    };
    // All are asked before any is waited for.
    let tasks: Vec<_> = domains.iter().map(|domain| (domain, client.operate(domain, &operation))).collect();
    let mut failures = Vec::new();
    for (domain, task) in tasks {
        match task.map_err(Failure::from).and_then(|task| wait(client, task)) {
            Ok(_) if options.wait => voice.say(&format!("{domain}: {}", if reboot { "rebooted" } else { "shut down" })),
            Ok(_) => {}
            Err(failure) => failures.push((domain, failure)),
        }
    }
    first_failure(failures.into_iter()).map_or(Ok(Vec::new()), Err)
}

/// Prints a domain's id.
pub fn domid(client: &Client, domain: &str, voice: Voice) -> Result<Vec<u8>, Failure> {
    let domid = running_domid(client, domain)?;
    Ok(if voice.json { crate::json(&serde_json::json!({ "domid": domid })) } else { format!("{domid}\n").into_bytes() })
}

/// Prints a domain's name.
pub fn domname(client: &Client, domid: u16, voice: Voice) -> Result<Vec<u8>, Failure> {
    let name = client.domain(&domid.to_string())?.name;
    Ok(if voice.json { crate::json(&serde_json::json!({ "name": name })) } else { format!("{name}\n").into_bytes() })
}
