//! Segment descriptors, task state segment and interrupt descriptor table (Intel SDM vol. 3, chapters "Protected-Mode Memory Management", "Interrupt and
//! Exception Handling" and "Task Management").

/// Selector of the hypervisor's code segment.
pub const HYPERVISOR_CS: u16 = 0xe008;
/// Selector of the hypervisor's stack and data segment.
pub const HYPERVISOR_DS: u16 = 0xe010;
/// Selector of the guests' flat 32-bit code segment. `FLAT_RING3_CS32` of the public header `arch-x86/xen-x86_64.h`.
pub const USER_CS32: u16 = 0xe023;
/// Selector of the guests' flat data segment. `FLAT_RING3_DS32`, `FLAT_RING3_SS64`.
pub const USER_DS: u16 = 0xe02b;
/// Selector of the guests' flat 64-bit code segment. `FLAT_RING3_CS64`.
pub const USER_CS64: u16 = 0xe033;
/// Selector of the task state segment.
pub const TSS: u16 = 0xe040;
/// Selector of the guest's LDT.
pub const LDT: u16 = 0xe050;

/// Pages of the GDT that belong to the guest; entries of the page after them are the hypervisor's. `FIRST_RESERVED_GDT_PAGE` of the public header `arch-x86/xen.h`.
pub const GUEST_GDT_PAGES: usize = 14;
/// Pages that an LDT of the greatest size (8192 entries) takes.
pub const LDT_PAGES: usize = 16;
/// Last byte of the GDT that selectors may refer to: the end of the hypervisor's page.
pub const GDT_LIMIT: u16 = ((GUEST_GDT_PAGES + 1) * 4096 - 1) as u16;

/// Index of a selector's descriptor within its GDT page.
#[must_use]
pub const fn index_in_page(selector: u16) -> usize {
    (selector as usize >> 3) % 512
}

/// A descriptor of a flat code or data segment. The accessed bit is set, so that the processor never writes to the table.
const fn flat(kind: u64, dpl: u64, flags: u64) -> u64 {
    let limit = 0xffff | 0xf << 48;
    let present = 1 << 47;
    let not_system = 1 << 44;
    limit | present | not_system | dpl << 45 | kind << 40 | flags << 52
}

const CODE: u64 = 0xb;
const DATA: u64 = 0x3;
/// Flags G and L.
const LONG: u64 = 0xa;
/// Flags G and D/B.
const BITS_32: u64 = 0xc;

/// The hypervisor's descriptors that never change: pairs of selector and descriptor.
pub const FIXED: [(u16, u64); 5] = [
    (HYPERVISOR_CS, flat(CODE, 0, LONG)),
    (HYPERVISOR_DS, flat(DATA, 0, BITS_32)),
    (USER_CS32, flat(CODE, 3, BITS_32)),
    (USER_DS, flat(DATA, 3, BITS_32)),
    (USER_CS64, flat(CODE, 3, LONG)),
];

/// Type of an available 64-bit task state segment.
const TYPE_TSS: u64 = 9;
/// Type of a local descriptor table.
const TYPE_LDT: u64 = 2;

const fn system(kind: u64, base: u64, limit: u32) -> [u64; 2] {
    let limit_bits = (limit as u64 & 0xffff) | (limit as u64 >> 16 & 0xf) << 48;
    let base_bits = (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56;
    [limit_bits | base_bits | kind << 40 | 1 << 47, base >> 32]
}

/// The descriptor of a task state segment at `base`.
#[must_use]
pub const fn tss_descriptor(base: u64) -> [u64; 2] {
    system(TYPE_TSS, base, (size_of::<Tss>() - 1) as u32)
}

/// The descriptor of a local descriptor table at `base` with `entries` (at least one) entries.
#[must_use]
pub const fn ldt_descriptor(base: u64, entries: u32) -> [u64; 2] {
    system(TYPE_LDT, base, entries * 8 - 1)
}

/// Stacks that the processor switches to for certain vectors, whatever it was doing: their numbers in the gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ist {
    /// The current stack, or the main stack on an entry from ring 3.
    None = 0,
    /// Non-maskable interrupts.
    Nmi = 1,
    /// Double faults.
    DoubleFault = 2,
    /// Machine checks.
    MachineCheck = 3,
    /// Debug exceptions: one that `mov ss` held back can arrive on the first instruction of the system call entry, where the guest's rsp is still loaded.
    Debug = 4,
}

/// Number of [`Ist`] stacks.
pub const NR_IST: usize = 4;

/// A 64-bit task state segment.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub struct Tss {
    reserved_0: u32,
    /// Stack pointers for rings 0 to 2.
    pub rsp: [u64; 3],
    reserved_1: u64,
    /// Interrupt stack table: entry `i` is stack `i + 1`.
    pub ist: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    /// Offset of the I/O permission bitmap; beyond the segment, so that ring 3 may use no port.
    pub io_map: u16,
}

const _: () = assert!(size_of::<Tss>() == 104);

impl Tss {
    /// A segment with the given main stack and interrupt stacks (tops).
    #[must_use]
    pub const fn new(main_stack: u64, ist: [u64; NR_IST]) -> Self {
        let [nmi, double_fault, machine_check, debug] = ist;
        Self {
            reserved_0: 0,
            rsp: [main_stack, 0, 0],
            reserved_1: 0,
            ist: [nmi, double_fault, machine_check, debug, 0, 0, 0],
            reserved_2: 0,
            reserved_3: 0,
            io_map: size_of::<Self>() as u16,
        }
    }
}

/// A 64-bit interrupt gate: interrupts are off in the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Gate(pub u64, pub u64);

impl Gate {
    /// A gate to `handler` in the hypervisor's code segment, on stack `ist`, for the instructions `int n`, `int3` and `into` usable from ring `dpl` on.
    #[must_use]
    pub const fn new(handler: u64, ist: Ist, dpl: u8) -> Self {
        let low = (handler & 0xffff)
            | (HYPERVISOR_CS as u64) << 16
            | (ist as u64) << 32
            | 0xe << 40
            | (dpl as u64) << 45
            | 1 << 47
            | (handler >> 16 & 0xffff) << 48;
        Self(low, handler >> 32)
    }
}

/// Number of the breakpoint exception.
pub const VECTOR_BREAKPOINT: usize = 3;
/// Number of the overflow exception.
pub const VECTOR_OVERFLOW: usize = 4;

/// Stack and privilege level of the gate of `vector`. All `int n` of guests arrive as general protection faults, so that they cannot be taken for interrupts.
#[must_use]
pub const fn gate_attributes(vector: usize) -> (Ist, u8) {
    match vector {
        1 => (Ist::Debug, 0),
        2 => (Ist::Nmi, 0),
        8 => (Ist::DoubleFault, 0),
        18 => (Ist::MachineCheck, 0),
        VECTOR_BREAKPOINT | VECTOR_OVERFLOW => (Ist::None, 3),
        _ => (Ist::None, 0),
    }
}

/// True where the processor pushes an error code for `vector` (SDM vol. 3, "Exception and Interrupt Reference"; 21 is the control protection exception,
/// 29 and 30 are AMD's).
#[must_use]
pub const fn has_error_code(vector: usize) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_descriptors_have_the_known_encodings() {
        assert_eq!(FIXED.map(|(_, d)| d), [
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff
        ]);
    }

    #[test]
    fn system_descriptors_split_base_and_limit() {
        assert_eq!(tss_descriptor(0xffff_8200_1234_5678), [0x1200_8934_5678_0067, 0xffff_8200]);
        assert_eq!(ldt_descriptor(0xffff_8200_0002_0000, 8192), [0x0000_8202_0000_ffff, 0xffff_8200]);
    }

    #[test]
    fn gates_split_the_handler() {
        let gate = Gate::new(0xffff_82d0_4567_89ab, Ist::Nmi, 3);
        assert_eq!(gate, Gate(0x4567_ee01_e008_89ab, 0xffff_82d0));
    }

    #[test]
    fn selectors_lie_in_the_hypervisors_page() {
        for selector in [HYPERVISOR_CS, USER_CS32, USER_CS64, TSS, LDT + 8] {
            assert_eq!(selector as usize >> 15, 1);
            assert_eq!(selector as usize >> 12, GUEST_GDT_PAGES);
            assert!(selector <= GDT_LIMIT);
        }
        // `syscall` and `sysret` take their selectors from two bases (SDM vol. 2, "SYSRET").
        assert_eq!([HYPERVISOR_CS + 8, USER_CS32 + 8, USER_CS32 + 16], [HYPERVISOR_DS, USER_DS, USER_CS64]);
    }

    #[test]
    fn task_state_segment_fields() {
        let tss = Tss::new(0x1000, [1, 2, 3, 4]);
        assert_eq!({ tss.rsp }[0], 0x1000);
        assert_eq!({ tss.ist }, [1, 2, 3, 4, 0, 0, 0]);
        assert_eq!(core::mem::offset_of!(Tss, ist), 0x24);
        assert_eq!(core::mem::offset_of!(Tss, io_map), 0x66);
    }
}
