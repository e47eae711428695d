//! `xm top`: what domains use, again and again.

mod columns;
mod page;
mod rows;
mod screen;
mod view;

pub use columns::Order;
pub use view::Parts;

use crate::cli::TopOptions;
use crate::exit::Failure;
use crate::host::Host;
use crate::machine::Machine;
use oxen_metrics::Snapshot;
use oxen_xenstore::{Nodes as _, Store};
use columns::text;
use page::Facts;
use rows::Look;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Instant;

/// Looks until it is told to end: on the screen, or as text or JSON, a line for each look, to `out`.
pub fn run(options: &TopOptions, json: bool, machine: &Machine, out: &mut dyn Write) -> Result<(), Failure> {
    let source = Source::open(machine)?;
    if options.batch || json {
        batch(&source, options, json, out)
    } else {
        screen::run(&source, options)
    }
}

/// Where the numbers come from: the hypervisor and domain 0's kernel; names from xenstore, while it runs.
struct Source<'m> {
    host: Host<'m>,
    store: Option<Store>,
    root: &'m Path,
}

impl<'m> Source<'m> {
    fn open(machine: &'m Machine) -> Result<Self, Failure> {
        Ok(Self {
            host: Host::open(machine)?,
            store: machine.store(),
            root: &machine.root,
        })
    }

    /// What is now, compared with `before`.
    fn look(&self, before: Option<&Look>) -> Result<Look, Failure> {
        let snapshot = Snapshot::usage(self.host.xen(), |domid| self.name(domid), self.root)?;
        Ok(Look::new(snapshot, Instant::now(), before))
    }

    /// What does not change.
    fn facts(&self) -> Result<Facts, Failure> {
        let version = self.host.xen().version()?;
        let phys = self.host.xen().physinfo()?;
        Ok(Facts {
            version: format!("{}.{}{}", version.major, version.minor, version.extra),
            cpu_mhz: phys.cpu_khz / 1000,
        })
    }

    fn name(&self, domid: u16) -> Option<String> {
        if domid == 0 {
            return Some("Domain-0".to_owned());
        }
        self.store
            .as_ref()?
            .try_read(&format!("/local/domain/{domid}/name"))
            .ok()?
    }
}

/// Prints looks one after the other. The first has no processor shares, as there is nothing to compare with.
fn batch(source: &Source<'_>, options: &TopOptions, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let mut before: Option<Look> = None;
    let mut done: u32 = 0;
    loop {
        let mut look = source.look(before.as_ref())?;
        options.order.sort(&mut look.rows);
        let output = if json {
            serde_json::to_string(&look.rows)
                .map(|json| json + "\n")
                .unwrap_or_default()
        } else {
            text(&look.rows, options.parts(), options.repeat_header)
        };
        crate::print(output.as_bytes(), out)?;
        done = done.saturating_add(1);
        if options.iterations.is_some_and(|most| done >= most) {
            return Ok(());
        }
        before = Some(look);
        thread::sleep(options.delay());
    }
}
