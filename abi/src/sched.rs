//! `sched.h`: scheduling and shutdown.

use crate::GuestHandle;
use crate::xen::EvtchnPort;

abi_enums! {
    /// The commands of `sched_op`.
    pub enum SchedOp: u32 {
        /// Gives up the pCPU.
        YIELD = 0 => "SCHEDOP_yield",
        /// Unmasks upcalls and waits for one.
        BLOCK = 1 => "SCHEDOP_block",
        /// Stops the domain ([`Shutdown`]).
        SHUTDOWN = 2 => "SCHEDOP_shutdown",
        /// Waits for one of some ports ([`Poll`]).
        POLL = 3 => "SCHEDOP_poll",
        /// Stops another domain ([`RemoteShutdown`]).
        REMOTE_SHUTDOWN = 4 => "SCHEDOP_remote_shutdown",
        /// Records a shutdown reason ([`Shutdown`]).
        SHUTDOWN_CODE = 5 => "SCHEDOP_shutdown_code",
        /// Sets a watchdog ([`Watchdog`]).
        WATCHDOG = 6 => "SCHEDOP_watchdog",
        /// Pins the calling vCPU to a pCPU for a while ([`PinOverride`]).
        PIN_OVERRIDE = 7 => "SCHEDOP_pin_override",
    }

    /// Why a domain shut down.
    pub enum ShutdownReason: u32 {
        /// Finished in good order.
        POWEROFF = 0 => "SHUTDOWN_poweroff",
        /// Wants to start again.
        REBOOT = 1 => "SHUTDOWN_reboot",
        /// Ready to be saved.
        SUSPEND = 2 => "SHUTDOWN_suspend",
        /// Crashed.
        CRASH = 3 => "SHUTDOWN_crash",
        /// A watchdog expired.
        WATCHDOG = 4 => "SHUTDOWN_watchdog",
        /// Wants to be reset but keep its memory.
        SOFT_RESET = 5 => "SHUTDOWN_soft_reset",
    }
}

abi_structs! {
    /// Argument of shutdown and shutdown_code.
    pub struct Shutdown = "struct sched_shutdown"[4] {
        [0] reason: ShutdownReason,
    }

    /// Argument of poll.
    pub struct Poll = "struct sched_poll"[24] {
        /// The ports.
        [0] ports: GuestHandle<EvtchnPort>,
        /// How many, at most 128.
        [8] nr_ports: u32,
        [12] _pad: u32,
        /// System time in ns at which to give up; 0 never.
        [16] timeout: u64,
    }

    /// Argument of remote_shutdown.
    pub struct RemoteShutdown = "struct sched_remote_shutdown"[8] {
        [0] domain_id: u16,
        [2] _pad: u16,
        [4] reason: ShutdownReason,
    }

    /// Argument of watchdog.
    pub struct Watchdog = "struct sched_watchdog"[8] {
        /// The watchdog, or 0 for a new one.
        [0] id: u32,
        /// Seconds; 0 turns it off.
        [4] timeout: u32,
    }

    /// Argument of pin_override.
    pub struct PinOverride = "struct sched_pin_override"[4] {
        /// The pCPU; negative undoes the pin.
        [0] pcpu: i32,
    }
}
