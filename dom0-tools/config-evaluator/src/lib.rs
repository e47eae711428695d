//! The evaluator of configuration files that do more than to assign literals.
//!
//! It bounds nesting, size, steps and memory, but one operation can still ask for more memory than there is, so that files are evaluated in a
//! process of its own: the program of this crate, which has resource limits.
#![forbid(unsafe_code)]

mod evaluate;
mod library;
mod value;

use oxen_config_file::{Answer, Request, configuration, with_deep_stack};

/// Evaluates a file, also one that only assigns literals.
///
/// # Errors
///
/// Those of [`Answer`].
pub fn read(request: &Request) -> Answer {
    let Request { source, overrides, host } = request;
    let evaluation = with_deep_stack(source, || evaluate::evaluate(source, overrides, host)).map_err(|error| vec![error])?;
    configuration(source, overrides, evaluation)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
