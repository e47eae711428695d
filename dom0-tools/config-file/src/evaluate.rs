//! Evaluates a file.

use super::outline::{Outline, position};
use super::value::Value;
use super::{Diagnostic, HostFacts, Override, Source, library, plain, source};
use starlark::PrintHandler;
use starlark::environment::{Globals, GlobalsBuilder, LibraryExtension, Module};
use starlark::eval::Evaluator;
use starlark::syntax::{AstModule, Dialect, DialectTypes};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// The most function calls and rounds of loops.
const MAX_STEPS: u64 = 1_000_000;

/// The most memory for values, in bytes.
const MAX_HEAP_BYTES: usize = 64 << 20;

/// How deep functions may call each other.
const MAX_CALLS: usize = 100;

/// The stack of the evaluation, in bytes of address space: the largest file that is nothing but one long expression fits.
const STACK_BYTES: usize = 128 << 20;

/// Extensions of the language that Python has too.
const EXTENSIONS: &[LibraryExtension] = &[
    LibraryExtension::Map,
    LibraryExtension::Filter,
    LibraryExtension::Print,
    LibraryExtension::SetType,
];

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

/// Evaluates a file, with variables that the command line sets.
pub fn evaluate(
    file: &Source,
    overrides: &[Override],
    host: &HostFacts,
) -> Result<Evaluation, Diagnostic> {
    let text = source::translate(file)?;
    // Expressions are walked recursively, so a long one needs a deep stack.
    let evaluation = thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        let handle = builder.spawn_scoped(scope, || {
            catch_unwind(AssertUnwindSafe(|| run(file, text, overrides, host)))
        });
        handle.map(thread::ScopedJoinHandle::join)
    });
    match evaluation {
        Ok(Ok(Ok(evaluation))) => evaluation,
        Ok(_) => Err(general(
            &file.name,
            "the file asks for more than can be evaluated".to_owned(),
        )),
        Err(error) => Err(general(
            &file.name,
            format!("no memory to evaluate the file: {error}"),
        )),
    }
}

/// An error about the file as a whole.
fn general(file: &str, message: String) -> Diagnostic {
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

fn globals() -> Globals {
    GlobalsBuilder::extended_by(EXTENSIONS)
        .with(library::builtins)
        .with_namespace("os", |os| {
            library::os(os);
            os.namespace("path", library::os_path);
        })
        .with_namespace("re", library::re)
        .with_namespace("xm_vars", library::xm_vars)
        .build()
}

/// Keeps what the file prints.
#[derive(Default)]
struct Printed(RefCell<String>);

impl PrintHandler for Printed {
    fn println(&self, text: &str) -> starlark::Result<()> {
        let mut output = self.0.borrow_mut();
        if output.len().saturating_add(text.len()) < library::MAX_OUTPUT_BYTES {
            output.push_str(text);
            output.push('\n');
        }
        Ok(())
    }
}

fn run(
    file: &Source,
    text: String,
    overrides: &[Override],
    host: &HostFacts,
) -> Result<Evaluation, Diagnostic> {
    let fault = |error: starlark::Error| diagnostic(&file.name, &error);
    let ast = AstModule::parse(&file.name, text, &dialect()).map_err(fault)?;
    let outline = Outline::new(&ast);
    let given = given(overrides)?;
    let literals = given.iter().all(|(_, value)| value.is_literal());
    let (variables, output) = match plain::variables(&ast) {
        Some(assigned) if literals => {
            let mut variables: BTreeMap<_, _> = given.iter().cloned().collect();
            variables.extend(assigned);
            (variables, String::new())
        }
        _ => evaluate_module(file, ast, &outline, &given, host)?,
    };
    Ok(Evaluation {
        variables,
        given,
        outline,
        output,
    })
}

/// Has a file evaluated: its variables, functions left out, and what it printed.
fn evaluate_module(
    file: &Source,
    ast: AstModule,
    outline: &Outline,
    given: &[(String, Value)],
    host: &HostFacts,
) -> Result<(BTreeMap<String, Value>, String), Diagnostic> {
    let fault = |error: starlark::Error| diagnostic(&file.name, &error);
    let globals = globals();
    let names: Vec<String> = given.iter().map(|(name, _)| name.clone()).collect();
    let printed = Printed::default();
    let variables = Module::with_temp_heap(|module| {
        // What the file declares exists, so that the names resolve before the declaration is carried out.
        for name in &outline.declared {
            module.set(name, starlark::values::Value::new_none());
        }
        for (name, value) in given {
            if let Some(value) = starlark_value(value, &module) {
                module.set(name, value);
            }
        }
        library::prepare(&module, &host.uname, &names);
        {
            let mut eval = Evaluator::new(&module);
            eval.set_print_handler(&printed);
            limit(&mut eval).map_err(|error| general(&file.name, error.to_string()))?;
            eval.eval_module(ast, &globals).map_err(fault)?;
        }
        let mut variables = BTreeMap::new();
        for name in module.names() {
            let name = name.as_str().to_owned();
            match module.get(&name).map(Value::new) {
                // Functions are tools of the file, not options.
                Some(Value::Other(kind)) if kind == "function" => {}
                Some(value) => {
                    variables.insert(name, value);
                }
                None => {}
            }
        }
        Ok(variables)
    })?;
    Ok((variables, printed.0.into_inner()))
}

fn limit(eval: &mut Evaluator<'_, '_, '_>) -> anyhow::Result<()> {
    eval.set_max_callstack_size(MAX_CALLS)?;
    eval.set_max_heap_size(MAX_HEAP_BYTES)?;
    eval.set_max_tick_count(MAX_STEPS)
}

/// The values that the command line sets: literals of Python where they are ones, text otherwise.
fn given(overrides: &[Override]) -> Result<Vec<(String, Value)>, Diagnostic> {
    overrides
        .iter()
        .map(|item| Ok((item.name.clone(), literal(item)?)))
        .collect()
}

/// The value of an override.
fn literal(item: &Override) -> Result<Value, Diagnostic> {
    let text = item.value.trim();
    let is_number = text.parse::<i64>().is_ok();
    let is_expression =
        text.starts_with(['[', '(', '"', '\'']) || matches!(text, "True" | "False" | "None");
    if is_number {
        return Ok(text.parse().map_or(Value::None, Value::Integer));
    }
    if !is_expression {
        return Ok(Value::Text(item.value.clone()));
    }
    let name = "command line";
    let line = Source {
        name: name.to_owned(),
        text: format!("{} = {text}", item.name),
    };
    let fault = |error: starlark::Error| diagnostic(name, &error);
    let ast = AstModule::parse(name, source::translate(&line)?, &dialect()).map_err(fault)?;
    if let Some(value) = plain::variables(&ast).and_then(|mut variables| variables.remove(&item.name)) {
        return Ok(value);
    }
    Module::with_temp_heap(|module| {
        let mut eval = Evaluator::new(&module);
        limit(&mut eval).map_err(|error| general(name, error.to_string()))?;
        eval.eval_module(ast, &globals()).map_err(fault)?;
        Ok(module.get(&item.name).map_or(Value::None, Value::new))
    })
}

/// A value as the file sees it; `None` for what only the evaluation makes.
fn starlark_value<'v>(value: &Value, module: &Module<'v>) -> Option<starlark::values::Value<'v>> {
    let heap = module.heap();
    Some(match value {
        Value::None => starlark::values::Value::new_none(),
        Value::Bool(truth) => starlark::values::Value::new_bool(*truth),
        Value::Integer(number) => heap.alloc(*number),
        Value::Float(number) => heap.alloc(*number),
        Value::Text(text) => heap.alloc(text.as_str()),
        Value::List(items) => {
            let items: Option<Vec<_>> = items
                .iter()
                .map(|item| starlark_value(item, module))
                .collect();
            heap.alloc(items?)
        }
        Value::Other(_) => return None,
    })
}

/// What the evaluation said, as one line with a place.
fn diagnostic(file: &str, error: &starlark::Error) -> Diagnostic {
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

/// Whether a file's variables are read off; then they are checked to be those that an evaluation gives.
#[cfg(test)]
pub fn read_off_as_evaluated(text: &str) -> bool {
    let file = Source {
        name: "both".to_owned(),
        text: text.to_owned(),
    };
    let parsed = source::translate(&file).ok().and_then(|text| AstModule::parse(&file.name, text, &dialect()).ok());
    let Some(ast) = parsed else { return false };
    let Some(read_off) = plain::variables(&ast) else { return false };
    let outline = Outline::new(&ast);
    let evaluated = evaluate_module(&file, ast, &outline, &[], &HostFacts::default());
    assert_eq!(Ok((read_off, String::new())), evaluated, "{text:?}");
    true
}
