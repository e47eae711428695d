//! What is wrong with a value.

use std::fmt;

/// The result of reading or checking.
pub type Result<T> = std::result::Result<T, Error>;

/// A value that an option does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The option, such as `memory` or `vif[0]`.
    pub option: String,
    /// What is wrong with it, with the value and what was expected.
    pub problem: String,
}

impl Error {
    /// `option` has `problem`.
    pub fn new(option: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            option: option.into(),
            problem: problem.into(),
        }
    }

    /// The same problem, said of `option`.
    pub fn within(self, option: impl Into<String>) -> Self {
        Self {
            option: option.into(),
            ..self
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl std::error::Error for Error {}
