//! Values of variables.

use starlark::values::Value as StarlarkValue;
use starlark::values::ValueLike;
use starlark::values::float::StarlarkFloat;
use starlark::values::list::ListRef;
use starlark::values::tuple::TupleRef;
use std::fmt;

/// How deep lists are followed; options have lists of texts and numbers only.
pub(super) const MAX_DEPTH: u32 = 4;

/// The value of a variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list or tuple.
    List(Vec<Value>),
    /// Something that no option takes: a function, say. Its type.
    Other(String),
}

impl Value {
    /// The value of a Starlark variable.
    pub fn new(value: StarlarkValue<'_>) -> Self {
        Self::at_depth(value, 0)
    }

    /// Whether a file can say it as it stands.
    pub fn is_literal(&self) -> bool {
        match self {
            Self::List(items) => items.iter().all(Self::is_literal),
            Self::Other(_) => false,
            _ => true,
        }
    }

    fn at_depth(value: StarlarkValue<'_>, depth: u32) -> Self {
        if value.is_none() {
            return Self::None;
        }
        if let Some(text) = value.unpack_str() {
            return Self::Text(text.to_owned());
        }
        if let Some(truth) = value.unpack_bool() {
            return Self::Bool(truth);
        }
        if let Some(number) = value.unpack_i32() {
            return Self::Integer(number.into());
        }
        // Larger integers are of another type, which knows its digits.
        if value.get_type() == "int"
            && let Ok(number) = value.to_str().parse()
        {
            return Self::Integer(number);
        }
        if let Some(number) = value.downcast_ref::<StarlarkFloat>() {
            return Self::Float(number.0);
        }
        let items = ListRef::from_value(value)
            .map(ListRef::content)
            .or_else(|| TupleRef::from_value(value).map(TupleRef::content));
        match items {
            Some(items) if depth < MAX_DEPTH => Self::List(
                items
                    .iter()
                    .map(|item| Self::at_depth(*item, depth + 1))
                    .collect(),
            ),
            _ => Self::Other(value.get_type().to_owned()),
        }
    }
}

impl fmt::Display for Value {
    /// As messages name it: short, with its kind where that is the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_TEXT: usize = 80;
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Text(text) if text.chars().count() > MAX_TEXT => {
                let start: String = text.chars().take(MAX_TEXT).collect();
                write!(f, "\"{start}...\"")
            }
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::List(items) => write!(f, "a list of {}", items.len()),
            Self::Other(kind) => write!(f, "a {kind}"),
        }
    }
}
