//! The reader of configuration files.
//!
//! Files have xm's format, which is Python: assignments to variables, some of which are options. They are evaluated as Starlark,
//! the subset of Python that cannot reach files, processes or the network and that ends; what old files use beyond it (`import os`,
//! `raise`, `is None`, `os.uname()`, `re.search()`, `xm_vars`) is translated or provided. xl's files are the same without functions.
//!
//! Most files only assign literals. Those are read here, without an evaluator, which takes longer to start than a small guest; what the others
//! need is in the crate `config-evaluator`, which builds on this one, and is a program, so that what a file asks for ends that program only.
#![forbid(unsafe_code)]

mod options;
mod outline;
mod parse;
mod plain;
mod source;
mod table;
mod value;
mod variables;

pub use options::configuration;
pub use outline::Outline;
pub use parse::{Evaluation, Given, Parsed, diagnostic, general, parse, with_deep_stack};
pub use plain::variables as plain_variables;
pub use table::READ as OPTIONS;
pub use value::{MAX_DEPTH, Value};

use oxen_guest_config::GuestConfig;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What files may know about domain 0, without looking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// What `os.uname()` gives: name of the system, host name, release, version, machine.
    pub uname: [String; 5],
}

/// A value that the command line sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The option or variable.
    pub name: String,
    /// A number, a list in Python's syntax, or text with or without quotes.
    pub value: String,
}

impl Override {
    /// The override that `word` spells as `name=value`; `None` when it does not spell one.
    pub fn from_word(word: &str) -> Option<Self> {
        let (name, value) = word.split_once('=')?;
        let start = |c: char| c.is_ascii_alphabetic() || c == '_';
        let legal = name.starts_with(start) && name.chars().all(|c| start(c) || c.is_ascii_digit());
        legal.then(|| Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// Something wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file, or `command line`.
    pub file: String,
    /// Where in it.
    pub position: Option<Position>,
    /// The option.
    pub option: Option<String>,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(option) = &self.option {
            write!(f, ": {option}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The configuration. It has passed [`GuestConfig::check`].
    pub config: GuestConfig,
    /// What the user should know although it is no fault.
    pub warnings: Vec<Diagnostic>,
    /// What the file printed.
    pub output: String,
}

/// What an evaluator is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The file.
    pub source: Source,
    /// The values that the command line sets.
    pub overrides: Vec<Override>,
    /// What the file may know.
    pub host: HostFacts,
}

/// What a file says: its configuration, or everything that is wrong, in the order of the file. A file that cannot be evaluated has one error.
pub type Answer = Result<Reading, Vec<Diagnostic>>;

/// Reads a file that only assigns literals, with the values that the command line sets; `None` when it takes an evaluator.
pub fn read(source: &Source, overrides: &[Override]) -> Option<Answer> {
    match with_deep_stack(source, || Ok(plain::evaluation(parse(source, overrides)?))) {
        Ok(evaluation) => Some(configuration(source, overrides, evaluation?)),
        Err(error) => Some(Err(vec![error])),
    }
}
