//! Memory, processors, shares.

use super::operate;
use crate::exit::Failure;
use oxen_xend_api::{Client, Operation, Scheduling};
use std::fmt::Write;

/// An amount of memory in KiB: a number of MiB, or one with a suffix.
pub fn kib(text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::Usage(format!("`{text}` is no amount of memory; expected a number of MiB, or one with suffix k, m, g or t"));
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, suffix)) if suffix.is_ascii_alphabetic() => {
            let shift = match suffix.to_ascii_lowercase() {
                'b' => 0,
                'k' => 10,
                'm' => 20,
                'g' => 30,
                't' => 40,
                _ => return Err(wrong()),
            };
            (&text[..at], shift)
        }
        _ => (text, 20),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).map(|bytes| bytes >> 10).ok_or_else(wrong)
}

/// Says where vCPUs may run.
pub fn pin(client: &Client, domain: &str, vcpu: &str, hard: &str, soft: Option<&str>) -> Result<Vec<u8>, Failure> {
    let vcpu = match vcpu {
        "all" => None,
        number => Some(number.parse().map_err(|_| Failure::Usage(format!("`{number}` is no vCPU; expected a number or `all`")))?),
    };
    let given = |set: &str| (set != "-").then(|| set.to_owned());
    let operation = Operation::VcpuPin { vcpu, hard: given(hard), soft: soft.and_then(given) };
    operate(client, domain, &operation).map(|_| Vec::new())
}

/// Shows or sets weights and caps.
pub fn sched_credit(client: &Client, domain: Option<&str>, weight: Option<u16>, cap: Option<u16>, json: bool) -> Result<Vec<u8>, Failure> {
    if let Some(domain) = domain
        && (weight.is_some() || cap.is_some())
    {
        return operate(client, domain, &Operation::SchedCredit { weight, cap }).map(|_| Vec::new());
    }
    let domains = match domain {
        Some(domain) => vec![client.domain(domain)?],
        None => client.domains()?,
    };
    let rows: Vec<_> = domains.into_iter().filter_map(|domain| Some((domain.name, domain.domid?, domain.scheduling?))).collect();
    if json {
        let rows: Vec<_> = rows.iter().map(|(name, domid, Scheduling { weight, cap })| serde_json::json!({ "name": name, "domid": domid, "weight": weight, "cap": cap })).collect();
        return Ok(crate::json(&rows));
    }
    let mut out = format!("{:<33} {:>4} {:>6} {:>4}\n", "Name", "ID", "Weight", "Cap");
    for (name, domid, Scheduling { weight, cap }) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<33} {domid:>4} {weight:>6} {cap:>4}");
    }
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_in_mib_unless_they_say_otherwise() {
        assert_eq!(kib("256").unwrap(), 256 << 10);
        assert_eq!(kib("1g").unwrap(), 1 << 20);
        assert_eq!(kib("2048K").unwrap(), 2048);
        for wrong in ["", "m", "12x", "-1", "99999999999999999999", "18446744073709551615"] {
            assert!(kib(wrong).is_err(), "{wrong}");
        }
    }
}
