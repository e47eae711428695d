//! `grub.cfg`.

use super::{Boot, Item, LeadsTo, MAX_DEPTH, MAX_ITEMS, Menu};
use std::collections::BTreeMap;

/// The most variables that are kept.
const MAX_VARIABLES: usize = 1000;
/// The longest text that a word may grow to by its variables, in bytes.
const MAX_WORD: usize = 4096;

type Variables = BTreeMap<String, String>;

/// Reads a menu, with the variables of GRUB's environment block.
pub fn parse(text: &str, environment: &Variables) -> Menu {
    let mut reader = Reader {
        variables: environment.clone(),
        nr_items: 0,
    };
    let mut commands = commands(text).into_iter();
    let items = reader.items(&mut commands, 0);
    Menu {
        items,
        default: reader.variables.get("default").cloned(),
    }
}

/// Reads GRUB's environment block: lines of `name=value`, filled up with `#`.
pub fn parse_environment(text: &str) -> Variables {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .take(MAX_VARIABLES)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A command or a brace.
enum Command {
    /// Words; each is a list of pieces.
    Words(Vec<Word>),
    Open,
    Close,
}

/// A word before its variables are known.
#[derive(Default)]
struct Word {
    pieces: Vec<Piece>,
}

enum Piece {
    Text(String),
    Variable(String),
}

impl Word {
    fn push(&mut self, c: char) {
        match self.pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => self.pieces.push(Piece::Text(c.to_string())),
        }
    }

    /// The text; `None` when a variable is unknown.
    fn known(&self, variables: &Variables) -> Option<String> {
        let parts = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Variable(name) => variables.get(name).map(String::as_str),
        });
        parts
            .collect::<Option<String>>()
            .filter(|text| text.len() <= MAX_WORD)
    }

    /// The text, with unknown variables empty as in GRUB.
    fn text(&self, variables: &Variables) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            let part = match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Variable(name) => variables.get(name).map_or("", String::as_str),
            };
            if text.len().saturating_add(part.len()) <= MAX_WORD {
                text.push_str(part);
            }
        }
        text
    }
}

/// Splits a script into commands and braces.
fn commands(text: &str) -> Vec<Command> {
    let mut out = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = text.chars().peekable();
    let end_command = |out: &mut Vec<Command>, words: &mut Vec<Word>, word: &mut Option<Word>| {
        words.extend(word.take());
        if !words.is_empty() {
            out.push(Command::Words(std::mem::take(words)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '\'' => {
                let word = word.get_or_insert_default();
                for c in chars.by_ref().take_while(|c| *c != '\'') {
                    word.push(c);
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match c {
                        '$' => variable(&mut chars, word),
                        '\\' => {
                            if let Some(c) = chars.next() {
                                word.push(c);
                            }
                        }
                        c => word.push(c),
                    }
                }
            }
            '$' => variable(&mut chars, word.get_or_insert_default()),
            '#' if word.is_none() => {
                // The end of the line still ends the command.
                for c in chars.by_ref() {
                    if c == '\n' {
                        break;
                    }
                }
                end_command(&mut out, &mut words, &mut word);
            }
            '\n' | ';' => end_command(&mut out, &mut words, &mut word),
            '{' | '}' if word.is_none() => {
                end_command(&mut out, &mut words, &mut word);
                out.push(if c == '{' {
                    Command::Open
                } else {
                    Command::Close
                });
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    end_command(&mut out, &mut words, &mut word);
    out
}

/// Reads a variable's name after its dollar sign.
fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut Word) {
    let mut name = String::new();
    if chars.next_if_eq(&'{').is_some() {
        name.extend(chars.by_ref().take_while(|c| *c != '}'));
    } else {
        while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
    }
    word.pieces.push(Piece::Variable(name));
}

struct Reader {
    variables: Variables,
    nr_items: usize,
}

impl Reader {
    /// The items up to the brace that closes the menu.
    fn items(&mut self, commands: &mut std::vec::IntoIter<Command>, depth: usize) -> Vec<Item> {
        let mut items = Vec::new();
        while let Some(command) = commands.next() {
            let words = match command {
                Command::Close => break,
                // The body of a function.
                Command::Open => {
                    skip(commands);
                    continue;
                }
                Command::Words(words) => words,
            };
            let name = words
                .first()
                .map(|word| word.text(&self.variables))
                .unwrap_or_default();
            match name.as_str() {
                "menuentry" | "submenu" => {
                    // The brace ends the command that it follows.
                    if !matches!(commands.as_slice().first(), Some(Command::Open)) {
                        continue;
                    }
                    commands.next();
                    self.nr_items += 1;
                    if self.nr_items > MAX_ITEMS || depth >= MAX_DEPTH {
                        skip(commands);
                        continue;
                    }
                    let mut item = self.head(&words);
                    item.leads_to = if name == "submenu" {
                        LeadsTo::Menu(self.items(commands, depth + 1))
                    } else {
                        self.entry(commands, &item.title)
                    };
                    items.push(item);
                }
                _ => self.assign(&words),
            }
        }
        items
    }

    /// Title and identifier.
    fn head(&self, words: &[Word]) -> Item {
        let texts: Vec<String> = words
            .iter()
            .map(|word| word.text(&self.variables))
            .collect();
        let mut item = Item {
            title: texts.get(1).cloned().unwrap_or_default(),
            ..Item::default()
        };
        // grub-mkconfig writes `$menuentry_id_option 'identifier'`, where the variable is `--id` or empty.
        let named = words.iter().position(|word| matches!(word.pieces.as_slice(), [Piece::Variable(name)] if name == "menuentry_id_option"));
        let option = texts.iter().position(|text| text == "--id").or(named);
        item.id = option
            .and_then(|option| texts.get(option + 1).cloned())
            .or_else(|| {
                texts
                    .iter()
                    .find_map(|text| text.strip_prefix("--id=").map(str::to_owned))
            });
        item
    }

    /// What the commands up to the closing brace load.
    fn entry(&mut self, commands: &mut std::vec::IntoIter<Command>, title: &str) -> LeadsTo {
        let mut boot: Option<Boot> = None;
        for command in commands.by_ref() {
            let words = match command {
                Command::Close => break,
                Command::Open => continue,
                Command::Words(words) => words,
            };
            let texts: Vec<String> = words
                .iter()
                .map(|word| word.text(&self.variables))
                .collect();
            // Conditions are not decided: what follows `then` or `else` on the same line is a command too.
            let start = texts
                .iter()
                .take_while(|text| matches!(text.as_str(), "then" | "else"))
                .count();
            let texts = texts.get(start..).unwrap_or(&[]);
            match texts {
                [command, kernel, arguments @ ..]
                    if matches!(command.as_str(), "linux" | "linux16" | "linuxefi") =>
                {
                    boot = Some(Boot {
                        title: title.to_owned(),
                        kernel: kernel.clone(),
                        ramdisk: None,
                        arguments: join(arguments),
                    });
                }
                [command, first, ..]
                    if matches!(command.as_str(), "initrd" | "initrd16" | "initrdefi") =>
                {
                    if let Some(boot) = &mut boot {
                        boot.ramdisk = Some(first.clone());
                    }
                }
                _ => self.assign(words.get(start..).unwrap_or(&[])),
            }
        }
        boot.map_or(LeadsTo::Nothing, LeadsTo::Boot)
    }

    /// Carries an assignment of a known value out: `set name=value` or `name=value`.
    fn assign(&mut self, words: &[Word]) {
        let start = words
            .iter()
            .take_while(|word| {
                matches!(word.text(&self.variables).as_str(), "then" | "else" | "set")
            })
            .count();
        let Some(text) = words
            .get(start)
            .and_then(|word| word.known(&self.variables))
        else {
            return;
        };
        if let Some((name, value)) = text.split_once('=')
            && !name.is_empty()
            && !value.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && self.variables.len() < MAX_VARIABLES
        {
            self.variables.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// Passes over everything up to the brace that closes the block.
fn skip(commands: &mut std::vec::IntoIter<Command>) {
    let mut depth = 1_usize;
    for command in commands.by_ref() {
        match command {
            Command::Open => depth += 1,
            Command::Close => depth -= 1,
            Command::Words(_) => {}
        }
        if depth == 0 {
            return;
        }
    }
}

fn join(words: &[String]) -> String {
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}
