//! What was wrong with a command line.

use alloc::string::String;
use core::fmt;

/// One mistake. `Display` gives one line with the option's name and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// No option of this name exists.
    Unknown {
        /// The name as written.
        name: String,
        /// The value as written, where there is one.
        value: Option<String>,
    },
    /// The option exists, its value cannot be read.
    Malformed {
        /// The name as written.
        name: String,
        /// The value as written, where there is one.
        value: Option<String>,
        /// What the value may be.
        expected: &'static str,
    },
}

/// `name=value` or `name`, with everything unprintable escaped.
struct Written<'a>(&'a str, Option<&'a str>);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}", self.0.escape_debug())?;
        if let Some(value) = self.1 {
            write!(f, "={}", value.escape_debug())?;
        }
        f.write_str("\"")
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, value } => write!(
                f,
                "command line: unknown option {}, ignored",
                Written(name, value.as_deref())
            ),
            Self::Malformed {
                name,
                value,
                expected,
            } => {
                write!(
                    f,
                    "command line: bad value in {}, ignored; expected {expected}",
                    Written(name, value.as_deref())
                )
            }
        }
    }
}
