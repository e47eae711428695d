//! Disks and network cards of running guests.

use super::{operate, outcome_text};
use crate::exit::Failure;
use oxen_guest_config::{Disk, Vif};
use oxen_xend_api::{BlockDevice, Client, DeviceState, NetworkDevice, Operation};
use std::fmt::Write;

/// Adds a disk: given as one word, or as back end, name and mode.
pub fn block_attach(client: &Client, domain: &str, words: &[String], json: bool) -> Result<Vec<u8>, Failure> {
    let text = words.join(",");
    let disk: Disk = text.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let outcome = operate(client, domain, &Operation::BlockAttach { disk: Box::new(disk) })?;
    Ok(outcome_text(&outcome, json))
}

/// Adds a network card.
pub fn network_attach(client: &Client, domain: &str, words: &[String], json: bool) -> Result<Vec<u8>, Failure> {
    let vif: Vif = words.join(",").parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let outcome = operate(client, domain, &Operation::NetworkAttach { vif: Box::new(vif) })?;
    Ok(outcome_text(&outcome, json))
}

/// Lists disks.
pub fn block_list(client: &Client, domains: &[String], json: bool) -> Result<Vec<u8>, Failure> {
    let mut all: Vec<(&String, BlockDevice)> = Vec::new();
    for domain in domains {
        all.extend(client.blocks(domain)?.into_iter().map(|device| (domain, device)));
    }
    if json {
        return Ok(crate::json(&all.iter().map(|(_, device)| device).collect::<Vec<_>>()));
    }
    let mut out = format!("{:<6} {:<3} {:<6} {:<5} {:<6} {:<8} {}\n", "Vdev", "BE", "handle", "state", "evt-ch", "ring-ref", "BE-path");
    for (_, BlockDevice { device, ring_ref, .. }) in &all {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{:<6} {:<3} {:<6} {:<5} {:<6} {:<8} {}",
            device.id,
            device.backend_domid,
            domid(&device.frontend),
            number(device.frontend_state),
            or_dash(device.event_channel),
            or_dash(*ring_ref),
            device.backend
        );
    }
    Ok(out.into_bytes())
}

/// Lists network cards.
pub fn network_list(client: &Client, domains: &[String], json: bool) -> Result<Vec<u8>, Failure> {
    let mut all: Vec<NetworkDevice> = Vec::new();
    for domain in domains {
        all.extend(client.networks(domain)?);
    }
    if json {
        return Ok(crate::json(&all));
    }
    let mut out = format!("{:<3} {:<2} {:<17} {:<6} {:<5} {:<6} {:<5}/{:<5} {}\n", "Idx", "BE", "Mac Addr.", "handle", "state", "evt-ch", "tx-", "rx-rr", "BE-path");
    for NetworkDevice { device, mac, tx_ring_ref, rx_ring_ref, .. } in &all {
        let _ = writeln!(
            out,
            "{:<3} {:<2} {:<17} {:<6} {:<5} {:<6} {:<5}/{:<5} {}",
            device.id,
            device.backend_domid,
            mac,
            device.id,
            number(device.frontend_state),
            or_dash(device.event_channel),
            or_dash(*tx_ring_ref),
            or_dash(*rx_ring_ref),
            device.backend
        );
    }
    Ok(out.into_bytes())
}

/// The domain id in `/local/domain/ID/...`.
fn domid(frontend: &str) -> &str {
    frontend.split('/').nth(3).unwrap_or("-")
}

fn or_dash(value: Option<u32>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The number of a state (`XenbusState` of the public interface).
fn number(state: DeviceState) -> u8 {
    match state {
        DeviceState::Unknown => 0,
        DeviceState::Initialising => 1,
        DeviceState::InitWait => 2,
        DeviceState::Initialised => 3,
        DeviceState::Connected => 4,
        DeviceState::Closing => 5,
        DeviceState::Closed => 6,
        DeviceState::Reconfiguring => 7,
        DeviceState::Reconfigured => 8,
    }
}
