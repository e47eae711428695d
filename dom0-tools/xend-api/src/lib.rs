//! The interface of the `xend` daemon: JSON over HTTP over the Unix socket [`SOCKET`].
//!
//! Reading is `GET`. Whatever changes something is a [`Task`]: a `POST` starts it and answers with it; [`route::task`] tells how it goes
//! on. Failures are an [`Error`] with an HTTP status that fits, its [`Code`] being what programs look at.
//!
//! [`Client`] speaks all of this; [`document`] describes it for others as an OpenAPI document.

#![forbid(unsafe_code)]

mod client;
mod domain;
mod error;
mod host;
mod operation;
mod schema;
mod task;

pub use client::{Client, Failure};
pub use domain::{
    BlockDevice, Busy, Device, DeviceState, Domain, Flags, NetworkDevice, Reason, State, Vcpu,
};
pub use error::{Code, Error};
pub use host::{Cpu, Host, Version};
pub use operation::{Create, Operation, Scheduling, ShutdownWay};
pub use schema::document;
pub use task::{Outcome, Progress, Status, Task};

pub use oxen_guest_config as config;

/// The version of the interface. It rises when a client of the previous version would no longer be understood.
pub const VERSION: u32 = 1;

/// The daemon's socket.
pub const SOCKET: &str = "/run/xend/xend.sock";

/// Where things are.
pub mod route {
    /// `GET`: [`Version`](super::Version).
    pub const VERSION: &str = "/v1/version";
    /// `GET`: the OpenAPI document.
    pub const SCHEMA: &str = "/v1/schema";
    /// `GET`: [`Host`](super::Host).
    pub const HOST: &str = "/v1/host";
    /// `GET`: a list of [`Domain`](super::Domain); `POST` of [`Create`](super::Create): a [`Task`](super::Task), at once. With `?wait=SECONDS`: when it has
    /// ended, or after that many seconds, at most 60.
    pub const DOMAINS: &str = "/v1/domains";
    /// `GET`: a list of [`Domain`](super::Domain), those that are known and do not run; quick to answer.
    pub const HALTED: &str = "/v1/halted";
    /// `GET`: a list of [`Task`](super::Task), the running ones and the latest that ended.
    pub const TASKS: &str = "/v1/tasks";
    /// `GET`: the end of the daemon's log as text; `?lines=N` says how much of it.
    pub const LOG: &str = "/v1/log";
    /// `GET`: metrics in Prometheus' text format.
    pub const METRICS: &str = "/metrics";

    /// `GET`: one [`Domain`](super::Domain). `which` is a name, a domain id or a UUID.
    pub fn domain(which: &str) -> String {
        format!("{DOMAINS}/{}", escape(which))
    }

    /// `POST` of an [`Operation`](super::Operation): a [`Task`](super::Task), with `?wait=SECONDS` as for [`DOMAINS`].
    pub fn operations(which: &str) -> String {
        format!("{}/operations", domain(which))
    }

    /// `GET`: the domain's [`Vcpu`](super::Vcpu)s.
    pub fn vcpus(which: &str) -> String {
        format!("{}/vcpus", domain(which))
    }

    /// `GET`: the domain's [`BlockDevice`](super::BlockDevice)s.
    pub fn blocks(which: &str) -> String {
        format!("{}/blocks", domain(which))
    }

    /// `GET`: the domain's [`NetworkDevice`](super::NetworkDevice)s.
    pub fn networks(which: &str) -> String {
        format!("{}/networks", domain(which))
    }

    /// `GET`: one [`Task`](super::Task), at once. With `?after=REVISION&wait=SECONDS`: as soon as the task's revision is higher than
    /// `after`, or after that many seconds, at most 60.
    pub fn task(id: u64) -> String {
        format!("{TASKS}/{id}")
    }

    /// A path segment with everything but unreserved characters escaped (RFC 3986, section 2.3).
    fn escape(segment: &str) -> String {
        let mut escaped = String::with_capacity(segment.len());
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                escaped.push(char::from(byte));
            } else {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        }
        escaped
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn names_are_escaped() {
            assert_eq!(super::domain("web-1"), "/v1/domains/web-1");
            assert_eq!(
                super::operations("a/b c"),
                "/v1/domains/a%2Fb%20c/operations"
            );
        }
    }
}
