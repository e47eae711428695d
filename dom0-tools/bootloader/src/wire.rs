//! What goes through the pipe: a line of JSON, then the files.

use serde::{Deserialize, Serialize};

/// The longest line, in bytes.
pub const MAX_LINE: u64 = 64 * 1024;

/// The line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The kernel's bytes follow, then the initial RAM disk's.
    Found {
        /// The entry's title.
        title: String,
        /// The kernel's command line.
        arguments: String,
        /// The kernel's length in bytes.
        kernel_len: u64,
        /// The initial RAM disk's length in bytes.
        ramdisk_len: Option<u64>,
    },
    /// Nothing follows.
    Refused {
        /// Why.
        reason: String,
    },
}
