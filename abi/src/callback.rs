//! `callback.h`: a PV guest's entry points.

abi_consts! {
    /// [`CallbackRegister::flags`]: mask events on entry.
    pub const CALLBACKF_MASK_EVENTS: u16 = 1 => "CALLBACKF_mask_events";
}

abi_enums! {
    /// The commands of `callback_op`.
    pub enum CallbackOp: u32 {
        /// [`CallbackRegister`].
        REGISTER = 0 => "CALLBACKOP_register",
        /// [`CallbackUnregister`].
        UNREGISTER = 1 => "CALLBACKOP_unregister",
    }

    /// The entry points.
    pub enum CallbackType: u16 {
        /// Events.
        EVENT = 0 => "CALLBACKTYPE_event",
        /// Failing segment loads.
        FAILSAFE = 1 => "CALLBACKTYPE_failsafe",
        /// 64-bit `syscall`.
        SYSCALL = 2 => "CALLBACKTYPE_syscall",
        /// `sysenter` of the first interface.
        SYSENTER_DEPRECATED = 3 => "CALLBACKTYPE_sysenter_deprecated",
        /// NMIs.
        NMI = 4 => "CALLBACKTYPE_nmi",
        /// `sysenter`.
        SYSENTER = 5 => "CALLBACKTYPE_sysenter",
        /// 32-bit `syscall`.
        SYSCALL32 = 7 => "CALLBACKTYPE_syscall32",
    }
}

abi_structs! {
    /// Argument of register.
    pub struct CallbackRegister = "struct callback_register"[16] {
        [0] kind: CallbackType as "type",
        /// [`CALLBACKF_MASK_EVENTS`] or 0.
        [2] flags: u16,
        [4] _pad: u32,
        /// The entry point.
        [8] address: u64,
    }

    /// Argument of unregister.
    pub struct CallbackUnregister = "struct callback_unregister"[4] {
        [0] kind: CallbackType as "type",
        [2] _unused: u16,
    }
}
