//! Lays the answers out as text, in the columns that Xen's users know.

use crate::model::{Cpus, Domain, Halted, Info, State, Topology, Uptime, Value, Vcpu};
use std::fmt::Write;

/// Shown for a name that nobody knows.
const NO_NAME: &str = "(no name)";

/// `xm info`.
pub fn info(info: &Info) -> String {
    let mut out = String::new();
    for (key, value) in &info.lines {
        let value = match value {
            Value::Number(number) => number.to_string(),
            Value::Thousandths(number) => format!("{}.{:03}", number / 1000, number % 1000),
            Value::Text(text) => text.clone(),
            Value::Words(words) => words.join(" "),
        };
        line(&mut out, format_args!("{key:<22} : {value}"));
    }
    if let Some(topology) = &info.topology {
        topology_tables(&mut out, topology);
    }
    out
}

/// The tables that `xm info --numa` adds.
fn topology_tables(out: &mut String, topology: &Topology) {
    line(out, format_args!("cpu_topology           :"));
    line(out, format_args!("cpu:    core    socket     node"));
    for cpu in &topology.cpus {
        line(
            out,
            format_args!(
                "{:3}:    {:4}     {:4}     {:4}",
                cpu.cpu, cpu.core, cpu.socket, cpu.node
            ),
        );
    }
    line(out, format_args!("numa_info              :"));
    line(
        out,
        format_args!("node:    memsize    memfree    distances"),
    );
    for node in &topology.nodes {
        let distances: Vec<String> = node.distances.iter().map(ToString::to_string).collect();
        let (memory, free) = (node.memory_mib, node.free_mib);
        line(
            out,
            format_args!(
                "{:4}:    {memory:6}     {free:6}      {}",
                node.node,
                distances.join(",")
            ),
        );
    }
}

/// `xm list`: domains, then guests that do not run, which have neither an id nor used any time.
pub fn list(domains: &[Domain], halted: &[Halted]) -> String {
    let mut out = String::from(
        "Name                                        ID   Mem VCPUs\tState\tTime(s)\n",
    );
    for domain in domains {
        let (name, id, memory) = (name(domain.name.as_ref()), domain.id, domain.memory_mib);
        let (vcpus, state, time) = (domain.vcpus, state(&domain.state), domain.cpu_time_s);
        line(
            &mut out,
            format_args!("{name:<40} {id:5} {memory:5} {vcpus:5}     {state}  {time:8.1}"),
        );
    }
    for Halted { name, memory_mib, vcpus, .. } in halted {
        line(&mut out, format_args!("{name:<40} {:5} {memory_mib:5} {vcpus:5}     ------", ""));
    }
    out
}

/// The six letters of a domain's state.
pub fn state(state: &State) -> String {
    [
        (state.running, 'r'),
        (state.blocked, 'b'),
        (state.paused, 'p'),
        (state.shutdown, 's'),
        (state.crashed, 'c'),
        (state.dying, 'd'),
    ]
    .into_iter()
    .map(|(holds, letter)| if holds { letter } else { '-' })
    .collect()
}

/// `xm vcpu-list`.
pub fn vcpu_list(vcpus: &[Vcpu]) -> String {
    let mut out = String::from(
        "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)\n",
    );
    for vcpu in vcpus {
        let (name, id, number, time) = (
            name(vcpu.name.as_ref()),
            vcpu.id,
            vcpu.vcpu,
            vcpu.cpu_time_s,
        );
        let letter = |holds: bool, letter: char| if holds { letter } else { '-' };
        let place = match vcpu.cpu {
            Some(cpu) => format!(
                "{cpu:5}   {}{}- ",
                letter(vcpu.running, 'r'),
                letter(vcpu.blocked, 'b')
            ),
            None => "    -   --p ".to_owned(),
        };
        let affinity =
            |cpus: &Option<Cpus>| cpus.as_ref().map_or("?", |cpus| cpus.0.as_str()).to_owned();
        let (hard, soft) = (affinity(&vcpu.hard_affinity), affinity(&vcpu.soft_affinity));
        line(
            &mut out,
            format_args!("{name:<32} {id:5} {number:5} {place} {time:9.1}  {hard} / {soft}"),
        );
    }
    out
}

/// `xm uptime`.
pub fn uptime(uptimes: &[Uptime]) -> String {
    let mut out = String::new();
    line(
        &mut out,
        format_args!("{:<33} {:>4} {}", "Name", "ID", "Uptime"),
    );
    for uptime in uptimes {
        let duration = uptime
            .uptime_s
            .map_or_else(|| "unknown".to_owned(), duration);
        line(
            &mut out,
            format_args!(
                "{:<33} {:4} {duration}",
                name(uptime.name.as_ref()),
                uptime.id
            ),
        );
    }
    out
}

/// Seconds as days, hours, minutes and seconds.
fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:2}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        _ => format!("{days} days, {clock}"),
    }
}

fn name(name: Option<&String>) -> &str {
    name.map_or(NO_NAME, String::as_str)
}

/// Appends a line.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
    out.push('\n');
}

#[cfg(test)]
mod tests;
