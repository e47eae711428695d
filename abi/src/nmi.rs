//! `nmi.h`: NMI callbacks.

abi_enums! {
    /// The commands of `nmi_op`.
    pub enum NmiOp: u32 {
        /// [`NmiCallback`].
        REGISTER_CALLBACK = 0 => "XENNMI_register_callback",
        /// No argument.
        UNREGISTER_CALLBACK = 1 => "XENNMI_unregister_callback",
    }
}

abi_structs! {
    /// Argument of register_callback.
    pub struct NmiCallback = "struct xennmi_callback"[16] {
        [0] handler_address: u64,
        [8] pad: u64,
    }
}
