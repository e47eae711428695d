//! Measures a control stack from inside dom0: `oxen-control-bench xl` or `oxen-control-bench xm`, and the parts to measure
//! when not all, with the daemons running.
//!
//! Both commands are given the same words and the same configuration files. Output, one line per row: `CONTROL <row> <value> <unit>`; less is better in every
//! row. Time is dom0's monotonic clock, which under QEMU's instruction counting does not depend on the host. The same program, with other words, is the other
//! end inside the guests.
#![forbid(unsafe_code)]

mod commands;
mod console;
mod guest;
mod peer;
mod rows;
mod usage;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [command @ ("xl" | "xm"), ref parts @ ..] => rows::measure(command, parts),
        ["sink", port] => peer::sink(number(port)?),
        ["source", address, mib] => peer::source(address, number(mib)?).map(|took| println!("{}", took.as_nanos())),
        ["events-listen", domid] => peer::events_listen(number(domid)?),
        ["events-call", domid, port, count] => peer::events_call(number(domid)?, number(port)?, number(count)?),
        ["disk", device, mib] => peer::disk(device, number(mib)?),
        _ => bail!("usage: oxen-control-bench xl|xm [PART]...; in guests sink PORT, source ADDRESS MIB, events-listen DOMID, events-call DOMID PORT COUNT, disk DEVICE MIB"),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    word.parse().with_context(|| format!("`{word}` is not a number that fits here"))
}
