//! What the screen shows and what keys do to it. Nothing here touches a terminal.

use super::columns::{COLUMNS, Order};
use crate::cli::{DELAYS_S, TopOptions};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Most digits of a delay that is being typed.
const DIGITS: usize = 4;

/// Which parts of domains are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Network cards.
    pub networks: bool,
    /// Disks.
    pub disks: bool,
    /// vCPUs.
    pub vcpus: bool,
}

/// What the screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What the domains are ordered by.
    pub order: Order,
    /// Whether the order is reversed.
    pub reverse: bool,
    /// What is shown below each domain.
    pub parts: Parts,
    /// Whether the heads stand before each domain.
    pub repeat: bool,
    /// Seconds between two looks.
    pub delay_s: u32,
    /// The first line of the table that is shown, below the heads.
    pub first_line: usize,
    /// The first column that is shown beside the name.
    pub first_column: usize,
    /// The digits of a new delay, while they are being typed.
    pub typed: Option<String>,
    /// What was wrong with the last key.
    pub message: Option<String>,
}

/// What a key wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// The screen is to be drawn anew.
    Draw,
    /// A new look is to be taken.
    Look,
    /// The end.
    Quit,
}

impl View {
    /// What `options` ask for.
    pub fn new(options: &TopOptions) -> Self {
        Self {
            order: options.order,
            reverse: false,
            parts: options.parts(),
            repeat: options.repeat_header,
            delay_s: options.delay,
            first_line: 0,
            first_column: 1,
            typed: None,
            message: None,
        }
    }

    /// A key is pressed while `page` lines of the table fit on the screen.
    pub fn press(&mut self, key: KeyEvent, page: usize) -> Wish {
        // Some terminals tell when a key is let go, too.
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Wish::Quit,
                KeyCode::Char('l') => Wish::Draw,
                _ => Wish::Nothing,
            };
        }
        self.message = None;
        if self.typed.is_some() {
            return self.type_delay(key.code);
        }
        match key.code {
            KeyCode::Char(letter) => return self.letter(letter.to_ascii_lowercase()),
            KeyCode::Esc => return Wish::Quit,
            KeyCode::Up => self.first_line = self.first_line.saturating_sub(1),
            KeyCode::Down => self.first_line = self.first_line.saturating_add(1),
            KeyCode::PageUp => self.first_line = self.first_line.saturating_sub(page),
            KeyCode::PageDown => self.first_line = self.first_line.saturating_add(page),
            KeyCode::Home => (self.first_line, self.first_column) = (0, 1),
            KeyCode::End => self.first_line = usize::MAX,
            KeyCode::Left => self.first_column = self.first_column.saturating_sub(1).max(1),
            KeyCode::Right => self.first_column = self.first_column.saturating_add(1).min(COLUMNS.len().saturating_sub(1)),
            _ => return Wish::Nothing,
        }
        Wish::Draw
    }

    fn letter(&mut self, letter: char) -> Wish {
        match letter {
            'q' => return Wish::Quit,
            ' ' => return Wish::Look,
            'd' => self.typed = Some(String::new()),
            'n' => self.parts.networks ^= true,
            'b' | 'x' => self.parts.disks ^= true,
            'v' => self.parts.vcpus ^= true,
            'r' => self.repeat ^= true,
            's' | '>' => self.order = self.order.next(),
            '<' => self.order = self.order.previous(),
            'i' => self.reverse ^= true,
            _ => return Wish::Nothing,
        }
        Wish::Draw
    }

    /// A key while a delay is being typed.
    fn type_delay(&mut self, key: KeyCode) -> Wish {
        let Some(typed) = &mut self.typed else { return Wish::Nothing };
        match key {
            KeyCode::Char(digit) if digit.is_ascii_digit() && typed.len() < DIGITS => typed.push(digit),
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Esc => self.typed = None,
            KeyCode::Enter => {
                match typed.parse() {
                    Ok(delay_s) if DELAYS_S.contains(&delay_s) => self.delay_s = delay_s,
                    _ if typed.is_empty() => {}
                    _ => self.message = Some(format!("a delay is {} to {} seconds, not {typed}", DELAYS_S.start(), DELAYS_S.end())),
                }
                self.typed = None;
            }
            _ => return Wish::Nothing,
        }
        Wish::Draw
    }

    /// Keeps the table on the screen: `lines` of it there are, and `page` fit.
    pub fn clamp(&mut self, lines: usize, page: usize) {
        self.first_line = self.first_line.min(lines.saturating_sub(page));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, HostCommand};

    /// Lines of the table that fit.
    const PAGE: usize = 10;

    fn view(options: &str) -> View {
        let cli = Cli::read(format!("xm top {options}").split_whitespace()).unwrap();
        let Command::Host(HostCommand::Top(options)) = cli.command else { panic!("{options}") };
        View::new(&options)
    }

    fn press(view: &mut View, key: KeyCode) -> Wish {
        view.press(KeyEvent::new(key, KeyModifiers::NONE), PAGE)
    }

    fn type_all(view: &mut View, keys: &str) {
        for key in keys.chars() {
            assert_eq!(press(view, KeyCode::Char(key)), Wish::Draw, "{key}");
        }
    }

    #[test]
    fn options_are_the_first_view() {
        let view = view("-n -r -d 7 -o vbd-rd");
        assert_eq!((view.parts.networks, view.parts.disks, view.parts.vcpus), (true, false, false));
        assert_eq!((view.repeat, view.delay_s, view.order), (true, 7, Order::VbdRd));
    }

    #[test]
    fn letters_switch_on_and_off_in_either_case() {
        let mut view = view("");
        let before = view.clone();
        type_all(&mut view, "NxVrI");
        assert_eq!((view.parts, view.repeat, view.reverse), (Parts { networks: true, disks: true, vcpus: true }, true, true));
        type_all(&mut view, "nbvRi");
        assert_eq!(view, before);
        assert_eq!(press(&mut view, KeyCode::Char('z')), Wish::Nothing);
        assert_eq!(press(&mut view, KeyCode::Char(' ')), Wish::Look);
        assert_eq!(view, before);
    }

    #[test]
    fn q_esc_and_ctrl_c_end_it() {
        let mut view = view("");
        for key in [KeyCode::Char('q'), KeyCode::Char('Q'), KeyCode::Esc] {
            assert_eq!(press(&mut view, key), Wish::Quit, "{key:?}");
        }
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.press(ctrl_c, PAGE), Wish::Quit);
        press(&mut view, KeyCode::Char('d'));
        assert_eq!(view.press(ctrl_c, PAGE), Wish::Quit);
        // A key that is let go has been pressed before.
        let released = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(view.press(released, PAGE), Wish::Nothing);
    }

    #[test]
    fn a_delay_is_typed() {
        let mut view = view("");
        type_all(&mut view, "d12");
        assert_eq!(view.typed.as_deref(), Some("12"));
        // Letters are no commands meanwhile, nor part of the number.
        assert_eq!(press(&mut view, KeyCode::Char('q')), Wish::Nothing);
        press(&mut view, KeyCode::Backspace);
        type_all(&mut view, "5");
        assert_eq!(view.delay_s, 3);
        assert_eq!(press(&mut view, KeyCode::Enter), Wish::Draw);
        assert_eq!((view.delay_s, view.typed.take(), view.message.take()), (15, None, None));
        // Given up, or nothing typed.
        type_all(&mut view, "d9");
        assert_eq!(press(&mut view, KeyCode::Esc), Wish::Draw);
        type_all(&mut view, "d");
        press(&mut view, KeyCode::Enter);
        assert_eq!((view.delay_s, view.typed.clone(), view.message.clone()), (15, None, None));
        for (wrong, digits) in [("0", "0"), ("3601", "3601"), ("99999", "9999")] {
            type_all(&mut view, "d");
            for key in wrong.chars() {
                press(&mut view, KeyCode::Char(key));
            }
            press(&mut view, KeyCode::Enter);
            assert_eq!((view.delay_s, view.message.as_deref()), (15, Some(&*format!("a delay is 1 to 3600 seconds, not {digits}"))));
        }
        // The message goes with the next key.
        type_all(&mut view, "n");
        assert_eq!(view.message, None);
    }

    #[test]
    fn keys_go_through_all_orders_and_back() {
        let mut view = view("");
        let mut seen = Vec::new();
        loop {
            type_all(&mut view, "s");
            seen.push(view.order);
            if view.order == Order::Id {
                break;
            }
        }
        let all = <Order as clap::ValueEnum>::value_variants();
        assert_eq!(seen.len(), all.len(), "{seen:?}");
        assert!(all.iter().all(|order| seen.contains(order)), "{seen:?}");
        for expected in seen.iter().rev().skip(1) {
            type_all(&mut view, "<");
            assert_eq!(view.order, *expected);
        }
    }

    #[test]
    fn the_table_stays_on_the_screen() {
        let mut view = view("");
        let mut at = |key, lines| {
            press(&mut view, key);
            view.clamp(lines, PAGE);
            view.first_line
        };
        assert_eq!(at(KeyCode::Up, 25), 0);
        assert_eq!(at(KeyCode::Down, 25), 1);
        assert_eq!(at(KeyCode::PageDown, 25), 11);
        assert_eq!(at(KeyCode::PageDown, 25), 15);
        assert_eq!(at(KeyCode::Down, 25), 15);
        assert_eq!(at(KeyCode::PageUp, 25), 5);
        assert_eq!(at(KeyCode::End, 25), 15);
        // Domains end.
        assert_eq!(at(KeyCode::Down, 3), 0);
        for (key, column) in [(KeyCode::Left, 1), (KeyCode::Right, 2), (KeyCode::Right, 3), (KeyCode::Home, 1)] {
            press(&mut view, key);
            assert_eq!(view.first_column, column, "{key:?}");
        }
        for _ in 0..100 {
            press(&mut view, KeyCode::Right);
        }
        assert_eq!(view.first_column, COLUMNS.len() - 1);
    }
}
