//! `xm top` on the whole screen: each look is drawn over the one before, until the user ends it with Ctrl-C.

use super::rows::{Look, text};
use super::Source;
use crate::cli::TopOptions;
use crate::exit::Failure;
use std::io;
use std::thread;

/// Moves to the screen's first place (ECMA-48, CUP).
const HOME: &str = "\x1b[H";
/// Clears the rest of a line, and of the screen (ECMA-48, EL and ED).
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

/// Looks until it is told to end.
pub fn run(source: &Source<'_>, options: &TopOptions) -> Result<(), Failure> {
    let mut look = source.look(None)?;
    let mut done: u32 = 1;
    loop {
        options.order.sort(&mut look.rows);
        let mut stdout = io::stdout().lock();
        crate::print(picture(&look).as_bytes(), &mut stdout)?;
        drop(stdout);
        if options.iterations.is_some_and(|most| done >= most) {
            return Ok(());
        }
        thread::sleep(options.delay());
        look = source.look(Some(&look))?;
        done = done.saturating_add(1);
    }
}

/// A whole screen.
fn picture(look: &Look) -> String {
    let used = look.memory_kib.saturating_sub(look.free_kib);
    let summary = format!(
        "{} domains, {} pCPUs, {:.1} % busy; memory {} MiB, {} used, {} free\n\n",
        look.rows.len(),
        look.cpus,
        busy_percent(look),
        look.memory_kib >> 10,
        used >> 10,
        look.free_kib >> 10
    );
    let lines = (summary + &text(&look.rows)).replace('\n', &format!("{REST_OF_LINE}\n"));
    format!("{HOME}{lines}{REST_OF_SCREEN}")
}

/// The processor time of all domains since the last look, in percent of all pCPUs.
fn busy_percent(look: &Look) -> f64 {
    // The sum of no numbers would be minus zero.
    let sum = look
        .rows
        .iter()
        .filter_map(|row| row.cpu_percent)
        .fold(0.0, |sum, part| sum + part);
    sum / f64::from(look.cpus.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxen_metrics::{Domain, Host, Snapshot};
    use std::time::Instant;

    #[test]
    fn the_screen_shows_host_and_domains() {
        let snapshot = Snapshot {
            host: Some(Host {
                cpus: 2,
                memory: 1 << 30,
                free: 1 << 29,
                ..Host::default()
            }),
            domains: vec![Domain {
                name: "Domain-0".to_owned(),
                ..Domain::default()
            }],
            ..Snapshot::default()
        };
        let screen = picture(&Look::new(snapshot, Instant::now(), None));
        assert!(
            screen.starts_with(
                "\x1b[H1 domains, 2 pCPUs, 0.0 % busy; memory 1024 MiB, 512 used, 512 free\x1b[K\n"
            ),
            "{screen:?}"
        );
        assert!(screen.contains("Domain-0 ------"), "{screen:?}");
        assert!(screen.ends_with("\x1b[K\n\x1b[J"), "{screen:?}");
    }
}
