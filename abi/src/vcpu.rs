//! `vcpu.h`: vCPU control.

abi_consts! {
    /// [`SetSingleshotTimer::flags`]: fail if the time has passed.
    pub const VCPU_SSHOTTMR_FUTURE: u32 = 1 => "VCPU_SSHOTTMR_future";
    /// Set in [`RunstateInfo::state_entry_time`] while the record is written, if the guest asked for it.
    pub const XEN_RUNSTATE_UPDATE: u64 = 1 << 63;
}

abi_enums! {
    /// The commands of `vcpu_op`.
    pub enum VcpuOp: u32 {
        /// Sets the initial state ([`crate::arch_x86_64::VcpuGuestContext`] of PV vCPUs).
        INITIALISE = 0 => "VCPUOP_initialise",
        /// Brings the vCPU up.
        UP = 1 => "VCPUOP_up",
        /// Takes the vCPU down.
        DOWN = 2 => "VCPUOP_down",
        /// Returns 1 if the vCPU is up, else 0.
        IS_UP = 3 => "VCPUOP_is_up",
        /// [`RunstateInfo`].
        GET_RUNSTATE_INFO = 4 => "VCPUOP_get_runstate_info",
        /// [`RegisterRunstateMemoryArea`].
        REGISTER_RUNSTATE_MEMORY_AREA = 5 => "VCPUOP_register_runstate_memory_area",
        /// [`SetPeriodicTimer`].
        SET_PERIODIC_TIMER = 6 => "VCPUOP_set_periodic_timer",
        /// Stops the periodic timer.
        STOP_PERIODIC_TIMER = 7 => "VCPUOP_stop_periodic_timer",
        /// [`SetSingleshotTimer`].
        SET_SINGLESHOT_TIMER = 8 => "VCPUOP_set_singleshot_timer",
        /// Stops the one-shot timer.
        STOP_SINGLESHOT_TIMER = 9 => "VCPUOP_stop_singleshot_timer",
        /// [`RegisterVcpuInfo`].
        REGISTER_VCPU_INFO = 10 => "VCPUOP_register_vcpu_info",
        /// Sends an NMI.
        SEND_NMI = 11 => "VCPUOP_send_nmi",
        /// [`GetPhysid`].
        GET_PHYSID = 12 => "VCPUOP_get_physid",
        /// [`RegisterTimeMemoryArea`].
        REGISTER_VCPU_TIME_MEMORY_AREA = 13 => "VCPUOP_register_vcpu_time_memory_area",
    }

    /// What a vCPU is doing ([`RunstateInfo::state`], and index into [`RunstateInfo::time`]).
    pub enum Runstate: u32 {
        /// Runs on a pCPU.
        RUNNING = 0 => "RUNSTATE_running",
        /// Could run but has no pCPU.
        RUNNABLE = 1 => "RUNSTATE_runnable",
        /// Waits for an event.
        BLOCKED = 2 => "RUNSTATE_blocked",
        /// Paused, down or not initialised.
        OFFLINE = 3 => "RUNSTATE_offline",
    }
}

abi_structs! {
    /// How long a vCPU has been in each state.
    pub struct RunstateInfo = "struct vcpu_runstate_info"[48] {
        /// Now.
        [0] state: Runstate,
        [4] _pad: u32,
        /// System time in ns when the present state was entered; see [`XEN_RUNSTATE_UPDATE`].
        [8] state_entry_time: u64,
        /// ns spent in each state before the present visit.
        [16] time: [u64; 4],
    }

    /// Where the hypervisor shall keep a [`RunstateInfo`].
    pub struct RegisterRunstateMemoryArea = "struct vcpu_register_runstate_memory_area"[8] {
        /// Guest virtual address.
        [0] address: u64 as "addr.v",
    }

    /// Argument of set_periodic_timer.
    pub struct SetPeriodicTimer = "struct vcpu_set_periodic_timer"[8] {
        [0] period_ns: u64,
    }

    /// Argument of set_singleshot_timer.
    pub struct SetSingleshotTimer = "struct vcpu_set_singleshot_timer"[16] {
        /// System time in ns.
        [0] timeout_abs_ns: u64,
        /// [`VCPU_SSHOTTMR_FUTURE`] or 0.
        [8] flags: u32,
        [12] _pad: u32,
    }

    /// Where a vCPU's [`crate::xen::VcpuInfo`] shall be.
    pub struct RegisterVcpuInfo = "struct vcpu_register_vcpu_info"[16] {
        /// Frame: MFN of PV guests, GFN of HVM guests.
        [0] mfn: u64,
        /// Where in the frame, in bytes.
        [8] offset: u32,
        /// Unused.
        [12] rsvd: u32,
    }

    /// Result of get_physid.
    pub struct GetPhysid = "struct vcpu_get_physid"[8] {
        /// APIC id, and ACPI processor id in the upper half.
        [0] phys_id: u64,
    }

    /// Where the hypervisor shall keep a second [`crate::xen::VcpuTimeInfo`].
    pub struct RegisterTimeMemoryArea = "struct vcpu_register_time_memory_area"[8] {
        /// Guest virtual address.
        [0] address: u64 as "addr.v",
    }
}
