//! The reader of configuration files.
//!
//! Files have xm's format, which is Python: assignments to variables, some of which are options. They are evaluated as Starlark,
//! the subset of Python that cannot reach files, processes or the network and that ends; what old files use beyond it (`import os`,
//! `raise`, `is None`, `os.uname()`, `re.search()`, `xm_vars`) is translated or provided. xl's files are the same without functions.
//!
//! The reader bounds nesting, size, steps and memory, but one operation can still ask for more memory than there is. A program that
//! reads files it does not trust calls [`read`] in a process of its own with resource limits.
#![forbid(unsafe_code)]

mod evaluate;
mod library;
mod options;
mod outline;
mod plain;
mod source;
mod table;
mod value;
mod variables;

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

/// Reads a file, with the values that the command line sets.
///
/// # Errors
///
/// Everything that is wrong, in the order of the file. A file that cannot be evaluated has one error.
pub fn read(
    source: &Source,
    overrides: &[Override],
    host: &HostFacts,
) -> Result<Reading, Vec<Diagnostic>> {
    let evaluation = evaluate::evaluate(source, overrides, host).map_err(|error| vec![error])?;
    options::configuration(source, overrides, evaluation)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
