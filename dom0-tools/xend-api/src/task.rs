//! Work that takes time.

use crate::{BlockDevice, Domain, Error, NetworkDevice};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that the daemon does or has done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// Its number, unique while the daemon runs.
    pub id: u64,
    /// Rises with every change; see [`crate::route::task`].
    pub revision: u64,
    /// What it does: `create`, `shutdown`, ...
    pub operation: String,
    /// The guest's name.
    pub domain: String,
    /// The guest's UUID.
    pub uuid: String,
    /// When it started, in seconds since 1970.
    pub started_at: u64,
    /// How it stands.
    #[serde(flatten)]
    pub status: Status,
}

impl Task {
    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        !matches!(self.status, Status::Running { .. })
    }
}

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// Under way.
    Running {
        /// How far.
        progress: Progress,
    },
    /// Ended well.
    Done {
        /// What came out.
        outcome: Box<Outcome>,
    },
    /// Failed, and undone.
    Failed {
        /// Why.
        error: Error,
    },
}

/// How far a task is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// What is being done now.
    pub step: String,
    /// How much of it is done, in units of the step, such as bytes.
    pub done: u64,
    /// How much there is to do; 0 when unknown.
    pub total: u64,
}

/// What came out of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing to tell.
    Nothing,
    /// The guest as it is now.
    Domain {
        /// The guest.
        domain: Domain,
    },
    /// An attached disk.
    Block {
        /// The disk.
        device: BlockDevice,
    },
    /// An attached network card.
    Network {
        /// The card.
        device: NetworkDevice,
    },
    /// A written file.
    File {
        /// Where it is.
        path: String,
        /// Its size in bytes.
        bytes: u64,
    },
}
