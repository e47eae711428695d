//! Typed access to a file's variables, with errors that say where.

use super::parse::Evaluation;
use super::outline::Outline;
use super::table::{self, Unread};
use super::value::Value;
use super::{Diagnostic, Override, Position, Source};
use oxen_guest_config::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What the command line is called in messages.
const COMMAND_LINE: &str = "command line";

/// The variables of a file and of the command line.
pub struct Variables<'a> {
    file: &'a Source,
    outline: Outline,
    values: BTreeMap<String, Value>,
    /// The variables that the command line sets.
    given: BTreeSet<String>,
    taken: BTreeSet<&'static str>,
    /// What is wrong so far.
    pub errors: Vec<Diagnostic>,
    /// What is odd so far.
    pub warnings: Vec<Diagnostic>,
}

impl<'a> Variables<'a> {
    /// The variables, those of the command line first. A list that it sets several times is put together.
    pub fn new(file: &'a Source, overrides: &[Override], evaluation: Evaluation) -> Self {
        let mut values = evaluation.variables;
        let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (name, value) in evaluation.given {
            if matches!(name.as_str(), "vif" | "disk") {
                let items = lists.entry(name).or_default();
                match value {
                    Value::List(more) => items.extend(more),
                    other => items.push(other),
                }
            } else if !evaluation.outline.declared.contains(&name) {
                // What the file declares, it has checked and perhaps changed.
                values.insert(name, value);
            }
        }
        values.extend(
            lists
                .into_iter()
                .map(|(name, items)| (name, Value::List(items))),
        );
        Self {
            file,
            outline: evaluation.outline,
            values,
            given: overrides.iter().map(|item| item.name.clone()).collect(),
            taken: BTreeSet::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The value of an option; `None` when it is not set or set to `None`.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.taken.insert(name);
        self.values
            .get(name)
            .filter(|value| **value != Value::None)
            .cloned()
    }

    /// A text; an empty one counts as not set.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::Text(text) => Some(text).filter(|text| !text.trim().is_empty()),
            other => self.expected(name, None, &other, "text in quotes"),
        }
    }

    /// A text that is read as a `T`.
    pub fn parsed<T: FromStr<Err = Error>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(name, None, error.problem);
                None
            }
        }
    }

    /// A number within `range`, or a text that is one.
    pub fn integer<T>(
        &mut self,
        name: &'static str,
        unit: &str,
        range: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display + FromStr,
    {
        let value = self.take(name)?;
        let number = match &value {
            Value::Integer(number) => T::try_from(*number).ok(),
            Value::Bool(truth) => T::try_from(i64::from(*truth)).ok(),
            Value::Text(text) if text.trim().is_empty() => return None,
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let wanted = format!(
                    "a number of {unit} from {} to {}",
                    range.start(),
                    range.end()
                );
                self.expected(name, None, &value, &wanted)
            }
        }
    }

    /// Whether something is switched on.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(truth) => Some(truth),
            Value::Integer(number @ (0 | 1)) => Some(number == 1),
            Value::Text(text) if matches!(text.as_str(), "yes" | "on" | "1") => Some(true),
            Value::Text(text) if matches!(text.as_str(), "no" | "off" | "0") => Some(false),
            other => self.expected(name, None, &other, "0 or 1"),
        }
    }

    /// A list of texts, each with its position; a single text counts as a list of one.
    pub fn list(&mut self, name: &'static str) -> Vec<(usize, String)> {
        let items = match self.take(name) {
            None => return Vec::new(),
            Some(Value::List(items)) => items,
            Some(Value::Text(text)) => vec![Value::Text(text)],
            Some(other) => {
                return self
                    .expected(
                        name,
                        None,
                        &other,
                        "a list of texts such as [\"...\", \"...\"]",
                    )
                    .unwrap_or_default();
            }
        };
        let mut texts = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Value::Text(text) => texts.push((i, text)),
                other => {
                    self.expected::<()>(name, Some(i), &other, "text in quotes");
                }
            }
        }
        texts
    }

    /// A list whose items are read as `T`.
    pub fn parsed_list<T: FromStr<Err = Error>>(&mut self, name: &'static str) -> Vec<T> {
        let mut items = Vec::new();
        for (i, text) in self.list(name) {
            match text.parse::<T>() {
                Ok(item) => items.push(item),
                Err(error) => {
                    let prefix = if error.option == name {
                        String::new()
                    } else {
                        format!("{}: ", error.option)
                    };
                    self.error(name, Some(i), format!("{prefix}{}", error.problem));
                }
            }
        }
        items
    }

    /// Records that an option's value is not what was expected.
    pub fn expected<T>(
        &mut self,
        name: &str,
        item: Option<usize>,
        value: &Value,
        wanted: &str,
    ) -> Option<T> {
        self.error(
            name,
            item,
            format!("`{value}` is not what was expected: {wanted}"),
        );
        None
    }

    /// Records an error.
    pub fn error(&mut self, name: &str, item: Option<usize>, message: String) {
        let diagnostic = self.diagnostic(name, item, message);
        self.errors.push(diagnostic);
    }

    /// Records a warning.
    pub fn warning(&mut self, name: &str, message: String) {
        let diagnostic = self.diagnostic(name, None, message);
        self.warnings.push(diagnostic);
    }

    /// Something about an option or an item of it. `name` may have the item's number at its end, as in `disk[1]`.
    fn diagnostic(&self, name: &str, item: Option<usize>, message: String) -> Diagnostic {
        let (base, item) = match name.split_once('[') {
            Some((base, rest)) => (base, rest.trim_end_matches(']').parse().ok()),
            None => (name, item),
        };
        let on_command_line = self.given.contains(base);
        let assignment = self.outline.assigned.get(base).filter(|_| !on_command_line);
        let position: Option<Position> = assignment.and_then(|assignment| {
            item.and_then(|item| assignment.items.get(item).copied())
                .or(assignment.name)
        });
        Diagnostic {
            file: if on_command_line {
                COMMAND_LINE.to_owned()
            } else {
                self.file.name.clone()
            },
            position,
            option: Some(match item {
                Some(item) => format!("{base}[{item}]"),
                None => base.to_owned(),
            }),
            message,
        }
    }

    /// Warns of variables that nothing has read.
    pub fn warn_of_the_rest(&mut self) {
        let rest: Vec<(String, bool)> = self
            .values
            .iter()
            .filter(|(name, _)| !self.taken.contains(name.as_str()))
            .map(|(name, value)| (name.clone(), is_set(value)))
            .collect();
        for (name, set) in rest {
            match table::unread(&name) {
                Unread::WithoutMeaning => {}
                Unread::NotSupported if set => {
                    self.error(&name, None, "it is not supported yet; remove it".to_owned());
                }
                Unread::NotSupported => {}
                Unread::Unknown(Some(near)) if !self.outline.read.contains(&name) => {
                    self.warning(
                        &name,
                        format!("there is no such option; did you mean `{near}`?"),
                    );
                }
                // A variable that the file itself reads is a tool of the file.
                Unread::Unknown(_)
                    if self.outline.read.contains(&name)
                        || self.outline.declared.contains(&name) => {}
                Unread::Unknown(_) => {
                    self.warning(&name, "there is no such option; it is ignored".to_owned());
                }
            }
        }
    }
}

/// Whether a value asks for something: anything but 0, `False`, `None` and what is empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::None | Value::Bool(false) | Value::Integer(0) => false,
        Value::Text(text) => !text.is_empty() && text != "no",
        Value::List(items) => !items.is_empty(),
        _ => true,
    }
}
