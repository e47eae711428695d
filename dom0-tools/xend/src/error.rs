//! From the libraries' errors to those of the interface.

use oxen_domain_build::BuildError;
use oxen_xend_api::{Code, Error};

/// Turns results into those of the interface, saying what was being done.
pub(crate) trait ToApi<T> {
    /// What failed while `doing`.
    fn or_api(self, doing: &str) -> Result<T, Error>;
}

impl<T> ToApi<T> for oxen_xenctl::Result<T> {
    fn or_api(self, doing: &str) -> Result<T, Error> {
        self.map_err(|error| {
            let code = match &error {
                oxen_xenctl::Error::NoSuchDomain { .. } => Code::NoSuchDomain,
                _ => Code::Hypervisor,
            };
            Error::new(code, format!("{doing}: {error}"))
        })
    }
}

impl<T> ToApi<T> for Result<T, oxen_xenstore::Error> {
    fn or_api(self, doing: &str) -> Result<T, Error> {
        self.map_err(|error| Error::new(Code::Xenstore, format!("{doing}: {error}")))
    }
}

impl<T> ToApi<T> for Result<T, crate::records::Error> {
    fn or_api(self, doing: &str) -> Result<T, Error> {
        self.map_err(|error| Error::new(Code::System, format!("{doing}: the database failed: {error}")))
    }
}

impl<T> ToApi<T> for Result<T, oxen_devices::Error> {
    fn or_api(self, doing: &str) -> Result<T, Error> {
        self.map_err(|error| error.while_doing(doing))
    }
}

impl<T> ToApi<T> for Result<T, BuildError> {
    fn or_api(self, _doing: &str) -> Result<T, Error> {
        self.map_err(|error| {
            let code = match &error {
                BuildError::File { .. } | BuildError::Kernel { .. } | BuildError::Plan { .. } => Code::BadKernel,
                BuildError::CommandLine { .. } | BuildError::Limits { .. } => Code::BadConfig,
                BuildError::Memory { .. } => Code::NotEnoughMemory,
                _ => Code::Hypervisor,
            };
            Error::new(code, error.to_string())
        })
    }
}
