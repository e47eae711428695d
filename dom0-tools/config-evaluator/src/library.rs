//! The parts of Python's library and of xm that old files use.

use starlark::environment::{GlobalsBuilder, Module};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::list::UnpackList;
use starlark::values::none::NoneType;
use starlark::values::tuple::{AllocTuple, TupleRef, UnpackTuple};

/// The largest program that a regular expression may become, in bytes.
const MAX_EXPRESSION_BYTES: usize = 1 << 20;

/// The most text that a file may print, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// Gives the functions what they know: what `os.uname()` says, and the variables that the command line has set.
pub fn prepare(module: &Module<'_>, uname: &[String; 5], given: &[String]) {
    let heap = module.heap();
    let uname = heap.alloc(AllocTuple(uname.iter()));
    let given = heap.alloc(AllocTuple(given.iter()));
    module.set_extra_value(heap.alloc((uname, given)));
}

/// What [`prepare`] left: what `os.uname()` says and the variables that are set.
fn knowledge<'v>(eval: &Evaluator<'v, '_, '_>) -> anyhow::Result<(Value<'v>, Value<'v>)> {
    let known = eval.module().extra_value().and_then(TupleRef::from_value);
    match known.map(TupleRef::content) {
        Some([uname, given]) => Ok((*uname, *given)),
        _ => Err(anyhow::anyhow!("this function is not available here")),
    }
}

/// Python's functions that Starlark lacks.
#[starlark_module]
pub fn builtins(builder: &mut GlobalsBuilder) {
    /// The sum of numbers.
    fn sum(#[starlark(require = pos)] items: UnpackList<i64>) -> anyhow::Result<i64> {
        items
            .items
            .iter()
            .try_fold(0_i64, |sum, item| sum.checked_add(*item))
            .ok_or_else(|| anyhow::anyhow!("the sum is too large"))
    }
}

/// `os`.
#[starlark_module]
pub fn os(builder: &mut GlobalsBuilder) {
    /// Name of the system, host name, release, version and machine of domain 0.
    fn uname<'v>(eval: &mut Evaluator<'v, '_, '_>) -> anyhow::Result<Value<'v>> {
        Ok(knowledge(eval)?.0)
    }

    /// Domain 0's variables are not given to files.
    fn getenv<'v>(
        #[starlark(require = pos)] name: &str,
        #[starlark(require = pos)] default: Option<Value<'v>>,
    ) -> anyhow::Result<Value<'v>> {
        let _ = name;
        Ok(default.unwrap_or_else(Value::new_none))
    }
}

/// `os.path`, as far as it does not look at files.
#[starlark_module]
pub fn os_path(builder: &mut GlobalsBuilder) {
    /// Joins parts of a path.
    fn join(#[starlark(args)] parts: UnpackTuple<String>) -> anyhow::Result<String> {
        let mut path = String::new();
        for part in parts.items {
            if part.starts_with('/') {
                path.clear();
            } else if !path.is_empty() && !path.ends_with('/') {
                path.push('/');
            }
            path.push_str(&part);
        }
        Ok(path)
    }

    /// What follows the last slash.
    fn basename(#[starlark(require = pos)] path: &str) -> anyhow::Result<String> {
        Ok(path.rsplit('/').next().unwrap_or(path).to_owned())
    }

    /// What precedes the last slash.
    fn dirname(#[starlark(require = pos)] path: &str) -> anyhow::Result<String> {
        Ok(path
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory)
            .to_owned())
    }
}

/// `re`, with functions that say whether and what, not where.
#[starlark_module]
pub fn re(builder: &mut GlobalsBuilder) {
    /// Whether the expression fits somewhere in the text.
    fn search(
        #[starlark(require = pos)] pattern: &str,
        #[starlark(require = pos)] text: &str,
    ) -> anyhow::Result<bool> {
        Ok(expression(pattern)?.is_match(text))
    }

    /// Whether the expression fits at the start of the text.
    fn r#match(
        #[starlark(require = pos)] pattern: &str,
        #[starlark(require = pos)] text: &str,
    ) -> anyhow::Result<bool> {
        Ok(expression(&format!("^(?:{pattern})"))?.is_match(text))
    }

    /// The text with everything that the expression fits replaced.
    fn sub(
        #[starlark(require = pos)] pattern: &str,
        #[starlark(require = pos)] by: &str,
        #[starlark(require = pos)] text: &str,
    ) -> anyhow::Result<String> {
        Ok(expression(pattern)?
            .replace_all(text, regex::NoExpand(by))
            .into_owned())
    }
}

fn expression(pattern: &str) -> anyhow::Result<regex::Regex> {
    Ok(regex::RegexBuilder::new(pattern)
        .size_limit(MAX_EXPRESSION_BYTES)
        .build()?)
}

/// `xm_vars`: variables that the command line sets.
#[starlark_module]
pub fn xm_vars(builder: &mut GlobalsBuilder) {
    /// Declares a variable; `check` is called with its name and value and returns the value to use.
    #[allow(clippy::too_many_arguments)]
    fn var<'v>(
        #[starlark(require = pos)] name: &str,
        val: Option<Value<'v>>,
        r#fn: Option<Value<'v>>,
        default: Option<Value<'v>>,
        r#use: Option<&str>,
        check: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = (val, r#fn);
        let given = TupleRef::from_value(knowledge(eval)?.1).map_or(&[][..], TupleRef::content);
        let given = given.iter().any(|given| given.unpack_str() == Some(name));
        let preset = eval.module().get(name).filter(|_| given);
        let Some(mut value) = preset.or(default) else {
            let hint = r#use.map_or_else(String::new, |hint| format!(" ({hint})"));
            return Err(anyhow::anyhow!(
                "`{name}` is not given{hint}; put {name}=VALUE on the command line"
            )
            .into());
        };
        if let Some(check) = check.filter(|check| !check.is_none()) {
            let name = eval.heap().alloc(name);
            value = eval.eval_function(check, &[name, value], &[])?;
        }
        eval.module().set(name, value);
        Ok(NoneType)
    }

    /// Variables are checked as they are declared.
    fn check() -> anyhow::Result<NoneType> {
        Ok(NoneType)
    }
}
