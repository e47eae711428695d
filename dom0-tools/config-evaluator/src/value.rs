//! Values of variables, as the evaluator has them.

use oxen_config_file::{MAX_DEPTH, Value};
use starlark::values::Value as StarlarkValue;
use starlark::values::ValueLike;
use starlark::values::float::StarlarkFloat;
use starlark::values::list::ListRef;
use starlark::values::tuple::TupleRef;

/// The value of a Starlark variable.
pub fn value(value: StarlarkValue<'_>) -> Value {
    at_depth(value, 0)
}

/// The value of a variable below `depth` lists.
fn at_depth(value: StarlarkValue<'_>, depth: u32) -> Value {
    if value.is_none() {
        return Value::None;
    }
    if let Some(text) = value.unpack_str() {
        return Value::Text(text.to_owned());
    }
    if let Some(truth) = value.unpack_bool() {
        return Value::Bool(truth);
    }
    if let Some(number) = value.unpack_i32() {
        return Value::Integer(number.into());
    }
    // Larger integers are of another type, which knows its digits.
    if value.get_type() == "int"
        && let Ok(number) = value.to_str().parse()
    {
        return Value::Integer(number);
    }
    if let Some(number) = value.downcast_ref::<StarlarkFloat>() {
        return Value::Float(number.0);
    }
    let items = ListRef::from_value(value)
        .map(ListRef::content)
        .or_else(|| TupleRef::from_value(value).map(TupleRef::content));
    match items {
        Some(items) if depth < MAX_DEPTH => Value::List(
            items
                .iter()
                .map(|item| at_depth(*item, depth + 1))
                .collect(),
        ),
        _ => Value::Other(value.get_type().to_owned()),
    }
}

/// A value as the file sees it; `None` for what only the evaluation makes.
pub fn starlark_value<'v>(value: &Value, module: &starlark::environment::Module<'v>) -> Option<StarlarkValue<'v>> {
    let heap = module.heap();
    Some(match value {
        Value::None => StarlarkValue::new_none(),
        Value::Bool(truth) => StarlarkValue::new_bool(*truth),
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
