//! Readers for the values that several options share. `None` means that the text is no such value.

/// A decimal number or one with the prefix `0x`.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => digits_only(digits, 16),
        None => digits_only(text, 10),
    }
}

/// As `from_str_radix`, without the leading sign that it allows.
fn digits_only(digits: &str, radix: u32) -> Option<u64> {
    if digits.starts_with('+') {
        None
    } else {
        u64::from_str_radix(digits, radix).ok()
    }
}

/// A size in bytes: a number with one of the suffixes B, K, M, G, T in either case; without a suffix it counts KiB.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, 'B' | 'b') if !text.starts_with("0x") => (text.get(..at)?, 0),
        (at, 'K' | 'k') => (text.get(..at)?, 10),
        (at, 'M' | 'm') => (text.get(..at)?, 20),
        (at, 'G' | 'g') => (text.get(..at)?, 30),
        (at, 'T' | 't') => (text.get(..at)?, 40),
        _ => (text, 10),
    };
    number(digits)?.checked_mul(1 << shift)
}

/// A truth value as Xen writes it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "yes" | "on" | "true" | "enable" => Some(true),
        "0" | "no" | "off" | "false" | "disable" => Some(false),
        _ => None,
    }
}
