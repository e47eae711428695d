//! S-expressions, the form of `xend-config.sxp`: `(name value ...)`, strings in double or single quotes, `#` up to the end of a line.

use std::fmt;

/// Lists may be nested this deep.
const MAX_DEPTH: usize = 32;

/// Where something stands in a file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A word or a string.
    Atom(String),
    /// A list.
    List(Vec<Expression>),
}

/// Why a text is no sequence of expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub at: Position,
    /// Why.
    pub problem: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.problem)
    }
}

/// Reads a whole text.
///
/// # Errors
///
/// The first thing that is not understood.
pub fn parse(text: &str) -> Result<Vec<Expression>, SyntaxError> {
    let mut reader = Reader { rest: text.chars().peekable(), at: Position { line: 1, column: 1 } };
    // Open lists, innermost last, each with the position of its parenthesis.
    let mut open: Vec<(Position, Vec<Expression>)> = Vec::new();
    let mut whole = Vec::new();
    loop {
        reader.skip_space();
        let at = reader.at;
        let Some(c) = reader.next() else { break };
        let value = match c {
            '(' if open.len() == MAX_DEPTH => return Err(SyntaxError { at, problem: format!("lists are nested deeper than {MAX_DEPTH}") }),
            '(' => {
                open.push((at, Vec::new()));
                continue;
            }
            ')' => match open.pop() {
                Some((at, items)) => Expression { at, value: Value::List(items) },
                None => return Err(SyntaxError { at, problem: "`)` without `(`".to_owned() }),
            },
            '"' | '\'' => Expression { at, value: Value::Atom(reader.string(at, c)?) },
            c => Expression { at, value: Value::Atom(reader.word(c)) },
        };
        open.last_mut().map_or(&mut whole, |(_, items)| items).push(value);
    }
    match open.pop() {
        Some((at, _)) => Err(SyntaxError { at, problem: "`(` without `)`".to_owned() }),
        None => Ok(whole),
    }
}

struct Reader<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    at: Position,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        if self.rest.peek().is_some_and(|c| wanted(*c)) { self.next() } else { None }
    }

    /// Skips white space and comments.
    fn skip_space(&mut self) {
        while let Some(c) = self.next_if(|c| c.is_whitespace() || c == '#') {
            if c == '#' {
                while self.next_if(|c| c != '\n').is_some() {}
            }
        }
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(c) = self.next_if(|c| !c.is_whitespace() && !"()\"'#".contains(c)) {
            word.push(c);
        }
        word
    }

    fn string(&mut self, at: Position, quote: char) -> Result<String, SyntaxError> {
        let unfinished = || SyntaxError { at, problem: "the string does not end".to_owned() };
        let mut text = String::new();
        loop {
            match self.next().ok_or_else(unfinished)? {
                c if c == quote => return Ok(text),
                '\\' => text.push(match self.next().ok_or_else(unfinished)? {
                    'n' => '\n',
                    't' => '\t',
                    c => c,
                }),
                c => text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn atom(expression: &Expression) -> &str {
        match &expression.value {
            Value::Atom(text) => text,
            Value::List(_) => panic!("not an atom"),
        }
    }

    #[test]
    fn reads_lists_strings_and_comments() {
        let read = parse("# settings\n(dom0-min-mem 256) # kept\n(vif-script 'my script' \"a\\\"b\")").unwrap();
        let [first, second] = &read[..] else { panic!("{read:?}") };
        assert_eq!(first.at, Position { line: 2, column: 1 });
        let Value::List(items) = &second.value else { panic!() };
        assert_eq!(items.iter().map(atom).collect::<Vec<_>>(), ["vif-script", "my script", "a\"b"]);
    }

    #[test]
    fn errors_name_the_place() {
        assert_eq!(parse("(a\n  (b").unwrap_err().to_string(), "line 2, column 3: `(` without `)`");
        assert_eq!(parse("a)").unwrap_err().to_string(), "line 1, column 2: `)` without `(`");
        assert_eq!(parse("(a \"b").unwrap_err().to_string(), "line 1, column 4: the string does not end");
        assert!(parse(&"(".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".*") {
            let _ = parse(&text);
        }
    }
}
