//! Evaluates a file.

use super::library;
use super::value::{starlark_value, value};
use oxen_config_file::{Diagnostic, Evaluation, Given, HostFacts, Outline, Override, Parsed, Source, Value, diagnostic, general, parse};
use starlark::PrintHandler;
use starlark::environment::{Globals, GlobalsBuilder, LibraryExtension, Module};
use starlark::eval::Evaluator;
use starlark::syntax::AstModule;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The most function calls and rounds of loops.
const MAX_STEPS: u64 = 1_000_000;

/// The most memory for values, in bytes.
const MAX_HEAP_BYTES: usize = 64 << 20;

/// How deep functions may call each other.
const MAX_CALLS: usize = 100;

/// Extensions of the language that Python has too.
const EXTENSIONS: &[LibraryExtension] = &[
    LibraryExtension::Map,
    LibraryExtension::Filter,
    LibraryExtension::Print,
    LibraryExtension::SetType,
];

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

/// Evaluates a file, with variables that the command line sets.
pub fn evaluate(
    file: &Source,
    overrides: &[Override],
    host: &HostFacts,
) -> Result<Evaluation, Diagnostic> {
    let Parsed {
        module,
        outline,
        given,
    } = parse(file, overrides)?;
    let given = given
        .into_iter()
        .map(|(name, given)| {
            let value = match given {
                Given::Value(value) => value,
                Given::Expression(assignment) => expression(&name, assignment)?,
            };
            Ok((name, value))
        })
        .collect::<Result<Vec<_>, Diagnostic>>()?;
    let (variables, output) = evaluate_module(file, module, &outline, &given, host)?;
    Ok(Evaluation {
        variables,
        given,
        outline,
        output,
    })
}

/// What the command line sets the variable `name` to.
fn expression(name: &str, assignment: AstModule) -> Result<Value, Diagnostic> {
    let line = "command line";
    Module::with_temp_heap(|module| {
        let mut eval = Evaluator::new(&module);
        limit(&mut eval).map_err(|error| general(line, error.to_string()))?;
        eval.eval_module(assignment, &globals())
            .map_err(|error| diagnostic(line, &error))?;
        Ok(module.get(name).map_or(Value::None, value))
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
            match module.get(&name).map(value) {
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

/// Whether a file's variables are read off; then they are checked to be those that an evaluation gives.
#[cfg(test)]
pub fn read_off_as_evaluated(text: &str) -> bool {
    let file = Source {
        name: "both".to_owned(),
        text: text.to_owned(),
    };
    let Ok(Parsed {
        module, outline, ..
    }) = parse(&file, &[])
    else {
        return false;
    };
    let Some(read_off) = oxen_config_file::plain_variables(&module) else { return false };
    let evaluated = evaluate_module(&file, module, &outline, &[], &HostFacts::default());
    assert_eq!(Ok((read_off, String::new())), evaluated, "{text:?}");
    true
}
