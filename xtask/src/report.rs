//! The result lines of a test run. Shared by the threads that run machines.

use std::sync::Mutex;
use std::time::Duration;

/// How one test ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// As declared.
    Passed,
    /// Not as declared, and how.
    Failed(String),
    /// Not run, and why.
    Skipped(String),
}

#[derive(Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failures: Vec<String>,
}

/// Prints a line per test and counts.
#[derive(Default)]
pub struct Report(Mutex<Tally>);

impl Report {
    /// Records and prints one test.
    pub fn record(&self, name: &str, outcome: Outcome, took: Duration) {
        let mut tally = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seconds = took.as_secs_f32();
        let timing = if seconds >= 0.1 { format!(" ({seconds:.1} s)") } else { String::new() };
        match outcome {
            Outcome::Passed => {
                tally.passed += 1;
                println!("ok    {name}{timing}");
            }
            Outcome::Failed(why) => {
                println!("FAIL  {name}{timing}: {why}");
                tally.failures.push(format!("{name}: {}", why.lines().next().unwrap_or_default()));
            }
            Outcome::Skipped(why) => {
                tally.skipped += 1;
                println!("skip  {name}: {why}");
            }
        }
    }

    /// Records the result of a step that has no finer parts.
    pub fn step<T>(&self, name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        let started = std::time::Instant::now();
        match work() {
            Ok(value) => {
                self.record(name, Outcome::Passed, started.elapsed());
                Some(value)
            }
            Err(error) => {
                self.record(name, Outcome::Failed(format!("{error:#}")), started.elapsed());
                None
            }
        }
    }

    /// Repeats the failures, prints the total line last, and says whether all passed.
    pub fn finish(&self) -> bool {
        let tally = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !tally.failures.is_empty() {
            println!("\nFailures:");
            for failure in &tally.failures {
                println!("  {failure}");
            }
        }
        let skipped = if tally.skipped > 0 { format!(", {} skipped", tally.skipped) } else { String::new() };
        println!("{} passed, {} failed{skipped}", tally.passed, tally.failures.len());
        tally.failures.is_empty() && tally.passed > 0
    }
}
