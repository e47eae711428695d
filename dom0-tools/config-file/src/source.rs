//! Makes old files Starlark, token by token, without moving a line.

use super::{Diagnostic, Position, Source};
use std::ops::Range;

/// The largest file; real ones have a few kilobytes.
const MAX_BYTES: usize = 64 * 1024;

/// How deep brackets and indentation may nest.
const MAX_NESTING: usize = 64;

/// The modules that can be imported: `library` provides them.
const MODULES: &[&str] = &["os", "os.path", "re", "sys", "string"];

/// Statements of Python that there are not, and what to do instead.
const MISSING_STATEMENTS: &[(&str, &str)] = &[
    ("while", "use `for i in range(n):`"),
    (
        "try",
        "errors cannot be caught; test for the condition with `if`",
    ),
    ("with", "files cannot be opened"),
    ("class", "use functions and lists"),
    (
        "global",
        "let the function return the value and assign it outside",
    ),
    (
        "nonlocal",
        "let the function return the value and assign it outside",
    ),
    ("exec", "write the statements themselves"),
    ("execfile", "give the options of both files in one"),
    ("del", "assign another value"),
    (
        "assert",
        "use `if not condition: raise ValueError(\"...\")`",
    ),
    ("async", "use plain statements"),
    ("load", "give the options of both files in one"),
];

/// The text as Starlark.
///
/// # Errors
///
/// When it is too large, nests too deep, or uses what has no counterpart.
pub fn translate(source: &Source) -> Result<String, Diagnostic> {
    let text = source.text.as_str();
    let fault = |at: usize, message: String| Diagnostic {
        file: source.name.clone(),
        position: Some(position(text, at)),
        option: None,
        message,
    };
    if text.len() > MAX_BYTES {
        return Err(Diagnostic {
            position: None,
            ..fault(
                0,
                format!(
                    "the file has {} bytes; expected at most {MAX_BYTES}",
                    text.len()
                ),
            )
        });
    }
    if let Some(at) = text.find('\0') {
        return Err(fault(
            at,
            "there is a zero byte; expected a text file".to_owned(),
        ));
    }
    let tokens = tokens(text).map_err(|(at, message)| fault(at, message))?;
    let edits = edits(text, &tokens).map_err(|(at, message)| fault(at, message))?;
    Ok(apply(text, &edits))
}

/// Line and column of a byte of `text`.
pub fn position(text: &str, at: usize) -> Position {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position {
        line: count(before.matches('\n').count()).saturating_add(1),
        column: count(
            before
                .get(line_start..)
                .map_or(0, |line| line.chars().count()),
        )
        .saturating_add(1),
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A name or keyword.
    Word,
    /// A string, with its quotes and prefix.
    Text,
    /// Any other character.
    Sign(char),
    /// The end of a statement's line.
    End,
}

/// A token and where it is.
#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    range: Range<usize>,
}

type Fault = (usize, String);

/// The tokens of `text`, without spaces, comments and line ends inside brackets.
fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut tokens = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let start = at;
        at += c.len_utf8();
        let kind = match c {
            '\n' => {
                check_indentation(text, at)?;
                if depth > 0 {
                    continue;
                }
                Kind::End
            }
            '#' => {
                at = text
                    .get(at..)
                    .and_then(|rest| rest.find('\n'))
                    .map_or(text.len(), |end| at + end);
                continue;
            }
            // A backslash joins lines.
            '\\' => {
                at += text
                    .get(at..)
                    .map_or(0, |rest| rest.chars().next().map_or(0, char::len_utf8));
                continue;
            }
            '"' | '\'' => {
                at = string_end(text, start, false)?;
                Kind::Text
            }
            c if c == '_' || c.is_alphabetic() => {
                at = word_end(text, start);
                match text.get(start..at) {
                    Some(prefix @ ("r" | "b" | "f" | "u" | "R" | "rb" | "br"))
                        if text
                            .get(at..)
                            .is_some_and(|rest| rest.starts_with(['"', '\''])) =>
                    {
                        at = string_end(text, at, prefix.contains(['r', 'R']))?;
                        Kind::Text
                    }
                    _ => Kind::Word,
                }
            }
            // Numbers are taken whole, so that their letters are no words.
            c if c.is_ascii_digit() => {
                at = word_end(text, start);
                Kind::Sign('0')
            }
            '(' | '[' | '{' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err((start, format!("brackets nest deeper than {MAX_NESTING}")));
                }
                Kind::Sign(c)
            }
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                Kind::Sign(c)
            }
            c if c.is_whitespace() => continue,
            c => Kind::Sign(c),
        };
        tokens.push(Token {
            kind,
            range: start..at,
        });
    }
    Ok(tokens)
}

/// Refuses a line at `at` whose indentation cannot come from sane nesting.
fn check_indentation(text: &str, at: usize) -> Result<(), Fault> {
    let rest = text.get(at..).unwrap_or("");
    let indentation = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    // Eight columns for each level, as old files indent.
    if indentation > MAX_NESTING * 8
        && !rest
            .trim_start_matches([' ', '\t'])
            .starts_with(['\n', '#'])
    {
        return Err((
            at,
            format!("the line is indented by {indentation} characters"),
        ));
    }
    Ok(())
}

/// Where the word at `start` ends.
fn word_end(text: &str, start: usize) -> usize {
    let rest = text.get(start..).unwrap_or("");
    start
        + rest
            .find(|c: char| c != '_' && !c.is_alphanumeric())
            .unwrap_or(rest.len())
}

/// Where the string whose quote is at `start` ends. In a raw string a backslash still keeps a quote from ending it.
fn string_end(text: &str, start: usize, _raw: bool) -> Result<usize, Fault> {
    let rest = text.get(start..).unwrap_or("");
    let single = rest.get(..1).unwrap_or("\"");
    let triple = single.repeat(3);
    let (quote, multiline) = if rest.starts_with(&triple) {
        (triple.as_str(), true)
    } else {
        (single, false)
    };
    let mut at = quote.len();
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with(quote) {
            return Ok(start + at + quote.len());
        }
        let c = tail.chars().next().unwrap_or('"');
        if c == '\n' && !multiline {
            break;
        }
        at += c.len_utf8();
        if c == '\\' {
            at += rest
                .get(at..)
                .and_then(|tail| tail.chars().next())
                .map_or(0, char::len_utf8);
        }
    }
    Err((start, format!("the string has no end; expected {quote}")))
}

/// A piece of text to replace.
struct Edit {
    range: Range<usize>,
    by: String,
}

/// What to replace.
fn edits(text: &str, tokens: &[Token]) -> Result<Vec<Edit>, Fault> {
    let mut edits = Vec::new();
    let mut statement_start = true;
    let mut depth = 0_usize;
    let mut skip_until = 0;
    for (i, token) in tokens.iter().enumerate() {
        let starts = std::mem::take(&mut statement_start);
        let next = tokens.get(i + 1);
        match token.kind {
            Kind::End => statement_start = true,
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Kind::Sign(':' | ';') if depth == 0 => statement_start = true,
            Kind::Text => {
                if let Some(next) = next.filter(|next| next.kind == Kind::Text) {
                    edits.push(join(text, token, next)?);
                }
            }
            Kind::Word if token.range.start < skip_until => {}
            Kind::Word => {
                let word = text.get(token.range.clone()).unwrap_or("");
                if starts && let Some(edit) = statement(text, word, tokens.get(i..).unwrap_or(&[]))?
                {
                    skip_until = edit.range.end;
                    edits.push(edit);
                } else if word == "is" && !follows_dot(tokens, i) {
                    edits.push(comparison(text, token, next));
                }
            }
            Kind::Sign(_) => {}
        }
    }
    Ok(edits)
}

fn follows_dot(tokens: &[Token], i: usize) -> bool {
    i.checked_sub(1)
        .and_then(|before| tokens.get(before))
        .is_some_and(|token| token.kind == Kind::Sign('.'))
}

/// `is` and `is not` as comparisons: identity and equality agree for what files test it on, `None` above all.
fn comparison(text: &str, token: &Token, next: Option<&Token>) -> Edit {
    match next.filter(|next| text.get(next.range.clone()) == Some("not")) {
        Some(not) => Edit {
            range: token.range.start..not.range.end,
            by: "!=".to_owned(),
        },
        None => Edit {
            range: token.range.clone(),
            by: "==".to_owned(),
        },
    }
}

/// Two strings in a row are one in Python.
fn join(text: &str, first: &Token, second: &Token) -> Result<Edit, Fault> {
    let quote = |token: &Token| {
        text.get(token.range.clone())
            .and_then(|text| text.chars().next())
    };
    let triple = |token: &Token| {
        text.get(token.range.clone())
            .is_some_and(|text| text.starts_with("\"\"\"") || text.starts_with("'''"))
    };
    let same_line = text
        .get(first.range.end..second.range.start)
        .is_some_and(|gap| !gap.contains('\n'));
    let alike = quote(first) == quote(second)
        && matches!(quote(first), Some('"' | '\''))
        && !triple(first)
        && !triple(second);
    if same_line && alike {
        Ok(Edit {
            range: first.range.end - 1..second.range.start + 1,
            by: String::new(),
        })
    } else {
        Err((
            second.range.start,
            "two strings follow each other; put a comma or `+` between them".to_owned(),
        ))
    }
}

/// The replacement for the statement that starts with `word`, if it needs one.
fn statement(text: &str, word: &str, tokens: &[Token]) -> Result<Option<Edit>, Fault> {
    let Some(first) = tokens.first() else {
        return Ok(None);
    };
    let next = tokens.get(1).map(|token| token.kind);
    // `load = 1` is an assignment, `exec.x` an expression.
    let is_name = matches!(
        next,
        Some(Kind::Sign('=' | '.' | '[' | ',' | '+' | '-' | '*' | '%'))
    );
    let end = tokens
        .iter()
        .find(|token| matches!(token.kind, Kind::End | Kind::Sign(';')))
        .map_or(text.len(), |token| token.range.start);
    let range = first.range.start..end;
    match word {
        "import" => {
            check_import(text, first.range.end..end)?;
            Ok(Some(Edit {
                range,
                by: "pass".to_owned(),
            }))
        }
        "from" => Err((
            first.range.start,
            "`from` is not available; write `import os` and `os.name` in full".to_owned(),
        )),
        "raise" => {
            let what = text.get(first.range.end..end).unwrap_or("").trim();
            let what = if what.is_empty() {
                "the file raised an error"
            } else {
                what
            };
            let newlines = text
                .get(range.clone())
                .map_or(0, |text| text.matches('\n').count());
            let by = format!("fail({what:?}{})", "\n".repeat(newlines));
            Ok(Some(Edit { range, by }))
        }
        "print" if matches!(next, Some(Kind::Text | Kind::Word)) => Err((
            first.range.start,
            "expected brackets: `print(...)`".to_owned(),
        )),
        _ if is_name => Ok(None),
        _ => match MISSING_STATEMENTS
            .iter()
            .find(|(missing, _)| *missing == word)
        {
            Some((_, instead)) => Err((
                first.range.start,
                format!("`{word}` is not available in configuration files; {instead}"),
            )),
            None => Ok(None),
        },
    }
}

/// Refuses modules that there are not.
fn check_import(text: &str, range: Range<usize>) -> Result<(), Fault> {
    for name in text.get(range.clone()).unwrap_or("").split(',') {
        let name = name.split('#').next().unwrap_or("").trim();
        if !MODULES.contains(&name) {
            return Err((
                range.start,
                format!(
                    "`{name}` cannot be imported; there are {}",
                    MODULES.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

/// `text` with the edits, which are in order and apart.
fn apply(text: &str, edits: &[Edit]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in edits
        .iter()
        .filter(|edit| edit.range.start <= edit.range.end)
    {
        out.push_str(text.get(at..edit.range.start).unwrap_or(""));
        out.push_str(&edit.by);
        at = edit.range.end.max(at);
    }
    out.push_str(text.get(at..).unwrap_or(""));
    out.push('\n');
    out
}
