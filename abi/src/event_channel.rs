//! `event_channel.h`: event channels.

use crate::xen::{EvtchnPort, Virq};

/// Number of event queues per vCPU in the FIFO ABI (`EVTCHN_FIFO_MAX_QUEUES`).
pub const FIFO_MAX_QUEUES: usize = 16;

abi_consts! {
    /// Ports of the 2-level ABI.
    pub const EVTCHN_2L_NR_CHANNELS: u32 = 4096;
    /// Ports of the FIFO ABI.
    pub const EVTCHN_FIFO_NR_CHANNELS: u32 = 1 << 17;
    /// Highest priority.
    pub const EVTCHN_FIFO_PRIORITY_MAX: u32 = 0;
    /// Priority of new ports.
    pub const EVTCHN_FIFO_PRIORITY_DEFAULT: u32 = 7;
    /// Lowest priority.
    pub const EVTCHN_FIFO_PRIORITY_MIN: u32 = 15;
    /// Event word: the bit that says pending.
    pub const EVTCHN_FIFO_PENDING: u32 = 31;
    /// Event word: the bit that says masked.
    pub const EVTCHN_FIFO_MASKED: u32 = 30;
    /// Event word: the bit that says linked into a queue.
    pub const EVTCHN_FIFO_LINKED: u32 = 29;
    /// Event word: the bit that says the link is being changed.
    pub const EVTCHN_FIFO_BUSY: u32 = 28;
    /// Event word: bits of the link to the next port.
    pub const EVTCHN_FIFO_LINK_BITS: u32 = 17;
    /// Event word: mask of the link.
    pub const EVTCHN_FIFO_LINK_MASK: u32 = (1 << 17) - 1;

    /// [`BindPirq::flags`]: the interrupt may be shared.
    pub const BIND_PIRQ_WILL_SHARE: u32 = 1 => "BIND_PIRQ__WILL_SHARE";
}

abi_enums! {
    /// The commands of `event_channel_op`.
    pub enum EvtchnOp: u32 {
        /// [`BindInterdomain`].
        BIND_INTERDOMAIN = 0 => "EVTCHNOP_bind_interdomain",
        /// [`BindVirq`].
        BIND_VIRQ = 1 => "EVTCHNOP_bind_virq",
        /// [`BindPirq`].
        BIND_PIRQ = 2 => "EVTCHNOP_bind_pirq",
        /// [`Close`].
        CLOSE = 3 => "EVTCHNOP_close",
        /// [`Send`].
        SEND = 4 => "EVTCHNOP_send",
        /// [`Status`].
        STATUS = 5 => "EVTCHNOP_status",
        /// [`AllocUnbound`].
        ALLOC_UNBOUND = 6 => "EVTCHNOP_alloc_unbound",
        /// [`BindIpi`].
        BIND_IPI = 7 => "EVTCHNOP_bind_ipi",
        /// [`BindVcpu`].
        BIND_VCPU = 8 => "EVTCHNOP_bind_vcpu",
        /// [`Unmask`].
        UNMASK = 9 => "EVTCHNOP_unmask",
        /// [`Reset`].
        RESET = 10 => "EVTCHNOP_reset",
        /// [`InitControl`].
        INIT_CONTROL = 11 => "EVTCHNOP_init_control",
        /// [`ExpandArray`].
        EXPAND_ARRAY = 12 => "EVTCHNOP_expand_array",
        /// [`SetPriority`].
        SET_PRIORITY = 13 => "EVTCHNOP_set_priority",
    }

    /// What a port is bound to ([`Status::status`]).
    pub enum EvtchnStatus: u32 {
        /// Free.
        CLOSED = 0 => "EVTCHNSTAT_closed",
        /// Waiting for a peer.
        UNBOUND = 1 => "EVTCHNSTAT_unbound",
        /// Connected to a peer.
        INTERDOMAIN = 2 => "EVTCHNSTAT_interdomain",
        /// A physical interrupt.
        PIRQ = 3 => "EVTCHNSTAT_pirq",
        /// A virtual interrupt.
        VIRQ = 4 => "EVTCHNSTAT_virq",
        /// An inter-processor interrupt.
        IPI = 5 => "EVTCHNSTAT_ipi",
    }
}

abi_structs! {
    /// Allocates a port of `dom` to which `remote_dom` may bind.
    pub struct AllocUnbound = "struct evtchn_alloc_unbound"[8] {
        [0] dom: u16,
        [2] remote_dom: u16,
        /// Result.
        [4] port: EvtchnPort,
    }

    /// Connects a new port to a peer's unbound one.
    pub struct BindInterdomain = "struct evtchn_bind_interdomain"[12] {
        [0] remote_dom: u16,
        [2] _pad: u16,
        [4] remote_port: EvtchnPort,
        /// Result.
        [8] local_port: EvtchnPort,
    }

    /// Binds a virtual interrupt of one vCPU.
    pub struct BindVirq = "struct evtchn_bind_virq"[12] {
        [0] virq: Virq,
        [4] vcpu: u32,
        /// Result.
        [8] port: EvtchnPort,
    }

    /// Binds a physical interrupt.
    pub struct BindPirq = "struct evtchn_bind_pirq"[12] {
        [0] pirq: u32,
        /// [`BIND_PIRQ_WILL_SHARE`] or 0.
        [4] flags: u32,
        /// Result.
        [8] port: EvtchnPort,
    }

    /// Binds an inter-processor interrupt.
    pub struct BindIpi = "struct evtchn_bind_ipi"[8] {
        [0] vcpu: u32,
        /// Result.
        [4] port: EvtchnPort,
    }

    /// Closes a port.
    pub struct Close = "struct evtchn_close"[4] {
        [0] port: EvtchnPort,
    }

    /// Notifies the other end.
    pub struct Send = "struct evtchn_send"[4] {
        [0] port: EvtchnPort,
    }

    /// Reports what a port is bound to.
    pub struct Status = "struct evtchn_status"[24] {
        [0] dom: u16,
        [2] _pad: u16,
        [4] port: EvtchnPort,
        /// Result.
        [8] status: EvtchnStatus,
        /// Result: the vCPU that is notified.
        [12] vcpu: u32,
        /// Result: [`StatusPeer`] for unbound and interdomain ports; the number in the first word for pirq and virq.
        [16] u: [u32; 2],
    }

    /// Moves a port's notifications to another vCPU.
    pub struct BindVcpu = "struct evtchn_bind_vcpu"[8] {
        [0] port: EvtchnPort,
        [4] vcpu: u32,
    }

    /// Unmasks a port and delivers what is pending.
    pub struct Unmask = "struct evtchn_unmask"[4] {
        [0] port: EvtchnPort,
    }

    /// Closes all ports.
    pub struct Reset = "struct evtchn_reset"[2] {
        [0] dom: u16,
    }

    /// Sets a vCPU's FIFO control block and switches to the FIFO ABI.
    pub struct InitControl = "struct evtchn_init_control"[24] {
        /// Frame that holds the [`FifoControlBlock`].
        [0] control_gfn: u64,
        /// Where in the frame, in bytes.
        [8] offset: u32,
        [12] vcpu: u32,
        /// Result: [`EVTCHN_FIFO_LINK_BITS`].
        [16] link_bits: u8,
        [17] _pad: [u8; 7],
    }

    /// Adds a page of event words.
    pub struct ExpandArray = "struct evtchn_expand_array"[8] {
        /// Its frame.
        [0] array_gfn: u64,
    }

    /// Sets a port's priority.
    pub struct SetPriority = "struct evtchn_set_priority"[8] {
        [0] port: EvtchnPort,
        /// 0 (highest) to 15 (lowest).
        [4] priority: u32,
    }

    /// The FIFO ABI's queues of one vCPU.
    pub struct FifoControlBlock = "struct evtchn_fifo_control_block"[72] {
        /// One bit per queue that may have events.
        [0] ready: u32,
        [4] _rsvd: u32,
        /// First port of each queue.
        [8] head: [u32; FIFO_MAX_QUEUES],
    }

    /// [`Status::u`] of unbound (`port` unused) and interdomain ports.
    pub struct StatusPeer = "struct evtchn_status::u.interdomain"[8] {
        /// The domain at, or awaited at, the other end.
        [0] dom: u16,
        [2] _pad: u16,
        /// The peer's port.
        [4] port: EvtchnPort,
    }
}
