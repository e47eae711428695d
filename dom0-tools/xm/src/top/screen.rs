//! `xm top` on a terminal, which is given back as it was however the program ends.

use super::Source;
use super::page::{Facts, Size, Span, Style, page};
use super::rows::Look;
use super::view::{View, Wish};
use crate::cli::TopOptions;
use crate::exit::Failure;
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The size of a terminal that does not tell, such as one at a serial line.
const USUAL: Size = Size { width: 80, height: 24 };

/// How long the bytes of one key may take over a serial line.
const ESCAPE_DELAY: Duration = Duration::from_millis(200);

/// Whether the terminal is ours. Changed and acted upon with standard output locked.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Looks until it is told to end.
pub fn run(source: &Source<'_>, options: &TopOptions) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage("standard output is no terminal; `xm top -b` prints to files and pipes".to_owned()));
    }
    let facts = source.facts()?;
    let mut view = View::new(options);
    let mut look = source.look(None)?;
    let terminal = Terminal::take().map_err(Failure::Output)?;
    let mut done: u32 = 1;
    loop {
        terminal.draw(&look, &facts, &mut view).map_err(Failure::Output)?;
        let wish = terminal.wait(&look, &facts, &mut view).map_err(Failure::Output)?;
        if wish == Wish::Quit || options.iterations.is_some_and(|most| done >= most) {
            return Ok(());
        }
        look = source.look(Some(&look))?;
        done = done.saturating_add(1);
    }
}

/// The terminal, for as long as this exists.
struct Terminal;

impl Terminal {
    /// Takes the terminal: no echo, no lines, a screen of its own. It is given back when this is dropped, before the message of a panic and before a signal ends the program.
    fn take() -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        thread::spawn(move || {
            for signal in signals.forever() {
                give_back();
                // When the signal does not end the program, nothing is lost by going on.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
        let mut stdout = io::stdout().lock();
        TAKEN.store(true, Ordering::Relaxed);
        let terminal = Self;
        terminal::enable_raw_mode()?;
        execute!(stdout, EnterAlternateScreen, Hide, DisableLineWrap)?;
        Ok(terminal)
    }

    fn draw(&self, look: &Look, facts: &Facts, view: &mut View) -> io::Result<()> {
        let lines = page(look, facts, view, size());
        let mut picture = Vec::new();
        paint(&lines, &mut picture)?;
        let mut stdout = io::stdout().lock();
        if TAKEN.load(Ordering::Relaxed) {
            stdout.write_all(&picture)?;
        }
        stdout.flush()
    }

    /// Does what keys say until the time of the next look has come or a key asks for it, or for the end.
    fn wait(&self, look: &Look, facts: &Facts, view: &mut View) -> io::Result<Wish> {
        let start = Instant::now();
        loop {
            let left = Duration::from_secs(u64::from(view.delay_s)).saturating_sub(start.elapsed());
            if left.is_zero() || !event::poll(left)? {
                return Ok(Wish::Look);
            }
            let wish = match event::read()? {
                Event::Key(key) if key.code == KeyCode::Esc && rest_of_a_key()? => Wish::Draw,
                Event::Key(key) => view.press(key, size().table()),
                Event::Resize(..) => Wish::Draw,
                _ => Wish::Nothing,
            };
            match wish {
                Wish::Nothing => {}
                Wish::Draw => self.draw(look, facts, view)?,
                Wish::Look | Wish::Quit => return Ok(wish),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether more follows an escape character, which is then dropped: the first byte of an arrow key has come before the others over a slow line. The
/// Esc key is followed by nothing.
fn rest_of_a_key() -> io::Result<bool> {
    let mut more = false;
    while event::poll(ESCAPE_DELAY)? {
        more |= matches!(event::read()?, Event::Key(_));
    }
    Ok(more)
}

/// Makes the terminal what it was, once.
fn give_back() {
    let mut stdout = io::stdout().lock();
    if TAKEN.swap(false, Ordering::Relaxed) {
        // A terminal that has gone away needs nothing.
        let _ = execute!(stdout, EnableLineWrap, Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn size() -> Size {
    match terminal::size() {
        Ok((width, height)) if width > 0 && height > 0 => Size { width: width.into(), height: height.into() },
        _ => USUAL,
    }
}

/// Writes `lines` over what the screen shows.
fn paint(lines: &[Vec<Span>], out: &mut impl Write) -> io::Result<()> {
    for (row, line) in (0..).zip(lines) {
        queue!(out, MoveTo(0, row))?;
        for (style, text) in line {
            match style {
                Style::Plain => queue!(out, Print(text))?,
                Style::Reverse => queue!(out, SetAttribute(Attribute::Reverse), Print(text), SetAttribute(Attribute::Reset))?,
                Style::Bold => queue!(out, SetAttribute(Attribute::Bold), Print(text), SetAttribute(Attribute::Reset))?,
            }
        }
        queue!(out, Clear(ClearType::UntilNewLine))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
