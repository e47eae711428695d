//! What the developer sees while a long step runs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Runs `work` under a title: a spinner with the elapsed time on a terminal, one line per step elsewhere.
/// Steps faster than half a second leave no line.
pub fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let spinner = std::io::stderr().is_terminal().then(|| spinner(title));
    let result = work();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let took = started.elapsed();
    match &result {
        Ok(_) if took >= Duration::from_millis(500) => eprintln!("  done   {title} ({:.1} s)", took.as_secs_f32()),
        Ok(_) => {}
        Err(_) => eprintln!("  FAILED {title} ({:.1} s)", took.as_secs_f32()),
    }
    result
}

/// A line that informs, on the error stream like all progress.
pub fn note(text: &str) {
    eprintln!("  {text}");
}

fn spinner(title: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} [{elapsed}]") {
        bar.set_style(style);
    }
    bar.set_message(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
