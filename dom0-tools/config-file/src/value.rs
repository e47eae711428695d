//! Values of variables.

use std::fmt;

/// How deep lists are followed; options have lists of texts and numbers only.
pub const MAX_DEPTH: u32 = 4;

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
    /// Whether a file can say it as it stands.
    pub fn is_literal(&self) -> bool {
        match self {
            Self::List(items) => items.iter().all(Self::is_literal),
            Self::Other(_) => false,
            _ => true,
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
