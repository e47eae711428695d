//! Parses a file and what the command line sets.

use super::outline::{Outline, position};
use super::value::Value;
use super::{Diagnostic, Override, Source, plain, source};
use starlark_syntax::syntax::{AstModule, Dialect, DialectTypes};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// The stack for parsing and evaluating, in bytes of address space: the largest file that is nothing but one long expression fits.
const STACK_BYTES: usize = 128 << 20;

/// The longest text whose expressions any stack is deep enough for, in bytes.
const SHALLOW_BYTES: usize = 1024;

/// A file and what the command line sets, parsed.
#[derive(Debug)]
pub struct Parsed {
    /// The file, translated.
    pub module: AstModule,
    /// What it assigns, and where.
    pub outline: Outline,
    /// The variables that the command line sets, in its order.
    pub given: Vec<(String, Given)>,
}

/// What the command line sets a variable to.
#[derive(Debug)]
pub enum Given {
    /// A value.
    Value(Value),
    /// What an evaluation of these assignments says.
    Expression(AstModule),
}

/// What came out of a file.
#[derive(Debug)]
pub struct Evaluation {
    /// The variables, functions left out.
    pub variables: BTreeMap<String, Value>,
    /// The values that the command line sets, in its order.
    pub given: Vec<(String, Value)>,
    /// What the file assigns, and where.
    pub outline: Outline,
    /// What the file printed.
    pub output: String,
}

/// Does something that walks the expressions of a file recursively, on a stack that is deep enough for it.
///
/// # Errors
///
/// Those of `work`, and that there is no memory for the stack or that `work` panics.
pub fn with_deep_stack<T: Send>(
    file: &Source,
    work: impl FnOnce() -> Result<T, Diagnostic> + Send,
) -> Result<T, Diagnostic> {
    let work = || catch_unwind(AssertUnwindSafe(work));
    let done = if file.text.len() <= SHALLOW_BYTES {
        Ok(work())
    } else {
        thread::scope(|scope| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            let handle = builder.spawn_scoped(scope, work)?;
            Ok(handle.join().unwrap_or_else(Err))
        })
    };
    match done {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(general(
            &file.name,
            "the file asks for more than can be evaluated".to_owned(),
        )),
        Err(error) => Err(no_memory(&file.name, &error)),
    }
}

fn no_memory(file: &str, error: &std::io::Error) -> Diagnostic {
    general(file, format!("no memory to evaluate the file: {error}"))
}

/// An error about the file as a whole.
pub fn general(file: &str, message: String) -> Diagnostic {
    Diagnostic {
        file: file.to_owned(),
        position: None,
        option: None,
        message,
    }
}

fn dialect() -> Dialect {
    Dialect {
        enable_load: false,
        enable_load_reexport: false,
        enable_keyword_only_arguments: true,
        enable_types: DialectTypes::Disable,
        enable_top_level_stmt: true,
        enable_f_strings: true,
        ..Dialect::Standard
    }
}

/// Parses a file, and the values that the command line sets.
///
/// # Errors
///
/// What is wrong with the syntax.
pub fn parse(file: &Source, overrides: &[Override]) -> Result<Parsed, Diagnostic> {
    let module = module(&file.name, source::translate(file)?)?;
    let outline = Outline::new(&module);
    let given = overrides
        .iter()
        .map(|item| Ok((item.name.clone(), given(item)?)))
        .collect::<Result<_, Diagnostic>>()?;
    Ok(Parsed {
        module,
        outline,
        given,
    })
}

fn module(name: &str, text: String) -> Result<AstModule, Diagnostic> {
    AstModule::parse(name, text, &dialect()).map_err(|error| diagnostic(name, &error))
}

/// The value of an override: a literal of Python where it is one, text otherwise.
fn given(item: &Override) -> Result<Given, Diagnostic> {
    let text = item.value.trim();
    let is_expression =
        text.starts_with(['[', '(', '"', '\'']) || matches!(text, "True" | "False" | "None");
    if let Ok(number) = text.parse() {
        return Ok(Given::Value(Value::Integer(number)));
    }
    if !is_expression {
        return Ok(Given::Value(Value::Text(item.value.clone())));
    }
    let line = Source {
        name: "command line".to_owned(),
        text: format!("{} = {text}", item.name),
    };
    let ast = module(&line.name, source::translate(&line)?)?;
    let value = plain::variables(&ast).and_then(|mut variables| variables.remove(&item.name));
    Ok(value.map_or(Given::Expression(ast), Given::Value))
}

/// What the evaluation said, as one line with a place.
pub fn diagnostic(file: &str, error: &starlark_syntax::Error) -> Diagnostic {
    let text = error.without_diagnostic().to_string();
    let line = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("the file cannot be evaluated");
    let mut message = line
        .strip_prefix("fail: ")
        .unwrap_or(line)
        .trim_end_matches('.')
        .to_owned();
    if let Some(name) = message
        .strip_prefix("Variable `")
        .and_then(|rest| rest.split('`').next())
    {
        message = match name {
            "open" | "file" | "input" | "raw_input" | "eval" | "__import__" => {
                format!(
                    "`{name}` is not available: configuration files cannot reach files, processes or the terminal"
                )
            }
            _ => format!(
                "`{name}` is not defined; assign it before it is used, put text in quotes, or give {name}=VALUE on the command line"
            ),
        };
    }
    Diagnostic {
        file: file.to_owned(),
        position: error.span().map(position),
        option: None,
        message,
    }
}
