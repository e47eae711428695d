//! Making errors.

use crate::{Code, Error};
use std::fmt::Display;

/// An error about the device `device`, whose message begins with its name.
pub(crate) fn about(code: Code, device: &str, why: impl Display) -> Error {
    Error::new(code, format!("{device}: {why}")).about(device)
}

/// What the store said while something was done with `device`.
pub(crate) fn store(device: &str) -> impl Fn(oxen_xenstore::Error) -> Error + '_ {
    move |error| about(Code::Xenstore, device, error)
}
