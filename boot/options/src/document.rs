//! The documentation of the options.

use crate::table::{Setter, TABLE};
use alloc::string::String;
use core::fmt::Write;

const INTRODUCTION: &str = "\
# Hypervisor command line

<!-- Made from the table in `src/table.rs`; the test `documentation_is_in_step` compares. To write it anew:
     OXEN_BLESS=1 cargo test -p oxen-options -->

Options are separated by blanks and written `name`, `name=value` or `no-name`. Where one is given twice, the last one counts. An unknown
option or a value that cannot be read is reported with its name and value, and start-up goes on. What follows a word `--` is appended to
the command line of domain 0's kernel.

A *boolean* is `yes`, `no`, `on`, `off`, `true`, `false`, `enable`, `disable`, `1` or `0`; the option's bare name means `yes`, its name
with `no-` in front means `no`.
";

/// The table as a Markdown page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n## Options\n\n| Option | Default | Meaning |\n|---|---|---|\n");
    for spec in TABLE {
        let written = match spec.setter {
            Setter::Switch(_) | Setter::Bare => String::from(spec.name),
            Setter::Value(_) => {
                let mut written = String::from(spec.name);
                written.push('=');
                // A bar would end the table's cell.
                written.push_str(&spec.syntax.replace('|', "\\|"));
                written
            }
        };
        let _ = writeln!(page, "| `{written}` | {} | {} |", spec.default, spec.help);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/OPTIONS.md");

    #[test]
    fn documentation_is_in_step() {
        let page = markdown();
        if std::env::var_os("OXEN_BLESS").is_some() {
            std::fs::write(PATH, &page).expect("OPTIONS.md can be written");
        }
        let written = std::fs::read_to_string(PATH).unwrap_or_default();
        assert!(
            written == page,
            "OPTIONS.md differs from the table: run OXEN_BLESS=1 cargo test -p oxen-options"
        );
    }

    #[test]
    fn names_are_unique_and_plain() {
        for (index, spec) in TABLE.iter().enumerate() {
            assert!(
                spec.name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert!(
                !TABLE
                    .iter()
                    .skip(index + 1)
                    .any(|other| other.name == spec.name),
                "{}",
                spec.name
            );
            assert_eq!(
                matches!(spec.setter, Setter::Value(_)),
                !spec.syntax.is_empty(),
                "{}",
                spec.name
            );
        }
    }
}
