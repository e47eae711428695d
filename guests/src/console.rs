//! Console output through console_io, one whole line per call so that hypervisor messages do not split it.

use crate::hypercall;
use crate::sys::nr;
use core::fmt;

/// Longest line in bytes; the rest is dropped.
const LINE_BYTES: usize = 240;

struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // One byte stays free for the line end.
            if self.len < LINE_BYTES - 1 {
                self.bytes[self.len] = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// Prints one line.
pub fn print_line(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; LINE_BYTES], len: 0 };
    // `Line` never fails; a formatting error of a value just shortens the line.
    let _ = fmt::write(&mut line, text);
    line.bytes[line.len] = b'\n';
    let len = line.len as u64 + 1;
    hypercall::raw(nr::CONSOLE_IO, [0, len, hypercall::handle(&mut line.bytes), 0, 0]);
}

/// Prints one line on the hypervisor's console, as `println!` would.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { $crate::console::print_line(format_args!($($arg)*)) };
}
