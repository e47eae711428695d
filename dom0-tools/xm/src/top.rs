//! `xm top`: what domains use, again and again.

pub mod rows;
mod screen;

use crate::exit::Failure;
use crate::host::Host;
use oxen_metrics::Snapshot;
use oxen_xenstore::{Nodes as _, Store};
use rows::{Look, text};
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Where xenstored listens, and the variable that says otherwise.
const STORE_SOCKET: (&str, &str) = ("/run/xenstored/socket", "XENSTORED_PATH");

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// As text, without taking the screen.
    pub batch: bool,
    /// As JSON, a line for each look; batch too.
    pub json: bool,
    /// The time between two looks.
    pub delay: Duration,
    /// What the domains are ordered by.
    pub order: rows::Order,
    /// End after this many looks.
    pub iterations: Option<u32>,
}

/// Looks until it is told to end.
pub fn run(options: &Options) -> Result<(), Failure> {
    let source = Source::open()?;
    if options.batch || options.json {
        batch(&source, options)
    } else {
        screen::run(&source, options).map_err(Failure::Output)
    }
}

/// Where the numbers come from: the hypervisor and domain 0's kernel; names from xenstore, while it runs.
struct Source {
    host: Host,
    store: Option<Store>,
}

impl Source {
    fn open() -> Result<Self, Failure> {
        let (default, variable) = STORE_SOCKET;
        // The kernel's device would wait for a daemon that may never come.
        let socket =
            std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from);
        Ok(Self {
            host: Host::open()?,
            store: Store::open_path(socket).ok(),
        })
    }

    /// What is now, compared with `before`.
    fn look(&self, before: Option<&Look>) -> Look {
        let snapshot = Snapshot::take(self.host.xen(), |domid| self.name(domid));
        Look::new(snapshot, Instant::now(), before)
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
fn batch(source: &Source, options: &Options) -> Result<(), Failure> {
    let mut before: Option<Look> = None;
    let mut done: u32 = 0;
    loop {
        let mut look = source.look(before.as_ref());
        options.order.sort(&mut look.rows);
        let output = if options.json {
            serde_json::to_string(&look.rows)
                .map(|json| json + "\n")
                .unwrap_or_default()
        } else {
            text(&look.rows)
        };
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(output.as_bytes())
            .and_then(|()| stdout.flush())
        {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(Failure::Output)?,
        }
        drop(stdout);
        done = done.saturating_add(1);
        if options.iterations.is_some_and(|most| done >= most) {
            return Ok(());
        }
        before = Some(look);
        thread::sleep(options.delay);
    }
}
