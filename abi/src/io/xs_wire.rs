//! `io/xs_wire.h`: the xenstore protocol.

abi_consts! {
    /// Bytes of each ring of [`XenstoreDomainInterface`].
    pub const XENSTORE_RING_SIZE: usize = 1024;
    /// Most bytes after an [`XsdSockmsg`].
    pub const XENSTORE_PAYLOAD_MAX: usize = 4096;
    /// Most bytes of an absolute path.
    pub const XENSTORE_ABS_PATH_MAX: usize = 3072;
    /// Most bytes of a relative path.
    pub const XENSTORE_REL_PATH_MAX: usize = 2048;
    /// [`XenstoreDomainInterface::server_features`]: the connection can be made anew.
    pub const XENSTORE_SERVER_FEATURE_RECONNECTION: u32 = 1;
    /// [`XenstoreDomainInterface::server_features`]: `error` is used.
    pub const XENSTORE_SERVER_FEATURE_ERROR: u32 = 2;
    /// [`XenstoreDomainInterface::connection`]: connected.
    pub const XENSTORE_CONNECTED: u32 = 0;
    /// [`XenstoreDomainInterface::connection`]: being made anew.
    pub const XENSTORE_RECONNECT: u32 = 1;
    /// [`XenstoreDomainInterface::error`]: none.
    pub const XENSTORE_ERROR_NONE: u32 = 0;
    /// [`XenstoreDomainInterface::error`]: communication failed.
    pub const XENSTORE_ERROR_COMM: u32 = 1;
    /// [`XenstoreDomainInterface::error`]: an index is out of range.
    pub const XENSTORE_ERROR_RINGIDX: u32 = 2;
    /// [`XenstoreDomainInterface::error`]: the protocol was violated.
    pub const XENSTORE_ERROR_PROTO: u32 = 3;
}

abi_enums! {
    /// The type of a message.
    pub enum XsType: u32 {
        /// Controls the daemon.
        CONTROL = 0 => "XS_CONTROL",
        /// Lists a node's children.
        DIRECTORY = 1 => "XS_DIRECTORY",
        /// Reads a node.
        READ = 2 => "XS_READ",
        /// Reads a node's permissions.
        GET_PERMS = 3 => "XS_GET_PERMS",
        /// Sets a watch.
        WATCH = 4 => "XS_WATCH",
        /// Removes a watch.
        UNWATCH = 5 => "XS_UNWATCH",
        /// Starts a transaction.
        TRANSACTION_START = 6 => "XS_TRANSACTION_START",
        /// Ends a transaction.
        TRANSACTION_END = 7 => "XS_TRANSACTION_END",
        /// Tells of a new domain.
        INTRODUCE = 8 => "XS_INTRODUCE",
        /// Tells that a domain is gone.
        RELEASE = 9 => "XS_RELEASE",
        /// Asks for a domain's home.
        GET_DOMAIN_PATH = 10 => "XS_GET_DOMAIN_PATH",
        /// Writes a node.
        WRITE = 11 => "XS_WRITE",
        /// Creates a node.
        MKDIR = 12 => "XS_MKDIR",
        /// Removes a node and those below it.
        RM = 13 => "XS_RM",
        /// Sets a node's permissions.
        SET_PERMS = 14 => "XS_SET_PERMS",
        /// From the daemon: a watch fired.
        WATCH_EVENT = 15 => "XS_WATCH_EVENT",
        /// From the daemon: an error, as text.
        ERROR = 16 => "XS_ERROR",
        /// Asks whether a domain is known.
        IS_DOMAIN_INTRODUCED = 17 => "XS_IS_DOMAIN_INTRODUCED",
        /// A domain resumed.
        RESUME = 18 => "XS_RESUME",
        /// A domain serves another.
        SET_TARGET = 19 => "XS_SET_TARGET",
        /// Removes all watches and transactions.
        RESET_WATCHES = 21 => "XS_RESET_WATCHES",
        /// Lists some of a node's children.
        DIRECTORY_PART = 22 => "XS_DIRECTORY_PART",
    }
}

abi_structs! {
    /// The head of a message.
    pub struct XsdSockmsg = "struct xsd_sockmsg"[16] {
        [0] kind: XsType as "type",
        /// Chosen by the client, repeated in the reply.
        [4] req_id: u32,
        /// The transaction, or 0.
        [8] tx_id: u32,
        /// Bytes that follow.
        [12] len: u32,
    }

    /// The page between a domain and the daemon.
    pub struct XenstoreDomainInterface = "struct xenstore_domain_interface"[2076] {
        /// To the daemon.
        [0] req: [u8; XENSTORE_RING_SIZE],
        /// To the domain.
        [1024] rsp: [u8; XENSTORE_RING_SIZE],
        [2048] req_cons: u32,
        [2052] req_prod: u32,
        [2056] rsp_cons: u32,
        [2060] rsp_prod: u32,
        /// `XENSTORE_SERVER_FEATURE_*`.
        [2064] server_features: u32,
        /// [`XENSTORE_CONNECTED`] or [`XENSTORE_RECONNECT`].
        [2068] connection: u32,
        /// `XENSTORE_ERROR_*`.
        [2072] error: u32,
    }
}
