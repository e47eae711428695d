//! What happens when a guest stops, and with domain 0.

use crate::text::words;

/// What happens when a guest has stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is removed.
    Destroy,
    /// It is removed and created anew.
    Restart,
    /// It stays for examination, holding its memory.
    Preserve,
    /// It is renamed and stays, and a new one is created.
    RenameRestart,
    /// Its memory is written to a file, then it is removed.
    CoredumpDestroy,
    /// Its memory is written to a file, then it is removed and created anew.
    CoredumpRestart,
    /// It is reset in place. Not supported for PV guests; [`crate::GuestConfig::check`] refuses it.
    SoftReset,
}

words!(
    Action,
    "action",
    Destroy = "destroy",
    Restart = "restart",
    Preserve = "preserve",
    RenameRestart = "rename-restart",
    CoredumpDestroy = "coredump-destroy",
    CoredumpRestart = "coredump-restart",
    SoftReset = "soft-reset",
);

/// Whether a managed guest starts with domain 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDaemonStart {
    /// It does not.
    #[default]
    Ignore,
    /// It does.
    Start,
}

words!(
    OnDaemonStart,
    "on_xend_start",
    Ignore = "ignore",
    Start = "start"
);

/// What happens to a guest when domain 0 stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDaemonStop {
    /// Nothing: it goes down with the machine.
    Ignore,
    /// It is asked to shut down.
    #[default]
    Shutdown,
    /// It is saved. Not supported yet; [`crate::GuestConfig::check`] refuses it.
    Suspend,
}

words!(
    OnDaemonStop,
    "on_xend_stop",
    Ignore = "ignore",
    Shutdown = "shutdown",
    Suspend = "suspend"
);
