//! `io/xenbus.h`: states of devices.

abi_enums! {
    /// The state of one end of a device, as xenstore has it.
    pub enum XenbusState: u32 {
        /// No state.
        UNKNOWN = 0 => "XenbusStateUnknown",
        /// Starts.
        INITIALISING = 1 => "XenbusStateInitialising",
        /// Waits for the peer or for scripts.
        INIT_WAIT = 2 => "XenbusStateInitWait",
        /// Waits for the peer to connect.
        INITIALISED = 3 => "XenbusStateInitialised",
        /// Works.
        CONNECTED = 4 => "XenbusStateConnected",
        /// Is being closed.
        CLOSING = 5 => "XenbusStateClosing",
        /// Is closed.
        CLOSED = 6 => "XenbusStateClosed",
        /// Is being reconfigured.
        RECONFIGURING = 7 => "XenbusStateReconfiguring",
        /// Is reconfigured.
        RECONFIGURED = 8 => "XenbusStateReconfigured",
    }
}
