//! Which processors share a core and a socket, out of the fields of their APIC ids (Intel SDM vol. 2, CPUID leaves 1, 4 and 0xb; AMD APM vol. 3,
//! leaves 0x8000_0008 and 0x8000_001e).

/// CPUID: leaf and subleaf to eax, ebx, ecx, edx.
pub trait Cpuid {
    /// Executes the instruction.
    fn query(&self, leaf: u32, subleaf: u32) -> [u32; 4];
}

/// Widths of the fields of an APIC id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdFields {
    /// Low bits that number the threads of a core.
    pub thread_bits: u32,
    /// Low bits that number the threads of a socket.
    pub socket_bits: u32,
}

/// Bits that `count` numbers need.
fn bits_for(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

impl IdFields {
    /// Finds the widths that this machine uses.
    #[must_use]
    pub fn detect(cpuid: &impl Cpuid) -> Self {
        let max = cpuid.query(0, 0)[0];
        let max_extended = cpuid.query(0x8000_0000, 0)[0];
        Self::extended_topology(cpuid, max)
            .or_else(|| Self::amd(cpuid, max_extended))
            .unwrap_or_else(|| Self::legacy(cpuid, max))
    }

    /// Leaf 0xb: one subleaf for each level, threads first.
    fn extended_topology(cpuid: &impl Cpuid, max: u32) -> Option<Self> {
        const LEVEL_THREAD: u32 = 1;
        const LEVEL_CORE: u32 = 2;
        if max < 0xb {
            return None;
        }
        let mut found = None;
        let mut thread_bits = 0;
        for subleaf in 0..8 {
            let [shift, count, level, _] = cpuid.query(0xb, subleaf);
            let shift = shift & 31;
            match level >> 8 & 0xff {
                _ if count & 0xffff == 0 => break,
                LEVEL_THREAD => {
                    thread_bits = shift;
                    found = Some(Self { thread_bits, socket_bits: shift });
                }
                LEVEL_CORE => found = Some(Self { thread_bits, socket_bits: shift.max(thread_bits) }),
                _ => break,
            }
        }
        found
    }

    /// AMD without leaf 0xb.
    fn amd(cpuid: &impl Cpuid, max_extended: u32) -> Option<Self> {
        const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
        let is_amd = cpuid.query(0, 0)[1] == u32::from_le_bytes(*b"Auth");
        if !is_amd || max_extended < 0x8000_0008 {
            return None;
        }
        let sizes = cpuid.query(0x8000_0008, 0)[2];
        let socket_bits = match sizes >> 12 & 15 {
            0 => bits_for((sizes & 0xff) + 1),
            bits => bits,
        };
        let has_threads = max_extended >= 0x8000_001e && cpuid.query(0x8000_0001, 0)[2] & TOPOLOGY_EXTENSIONS != 0;
        let threads = if has_threads { (cpuid.query(0x8000_001e, 0)[1] >> 8 & 0xff) + 1 } else { 1 };
        Some(Self { thread_bits: bits_for(threads).min(socket_bits), socket_bits })
    }

    /// Leaves 1 and 4.
    fn legacy(cpuid: &impl Cpuid, max: u32) -> Self {
        const MULTI_THREADED: u32 = 1 << 28;
        let [_, ebx, _, edx] = cpuid.query(1, 0);
        if edx & MULTI_THREADED == 0 {
            return Self { thread_bits: 0, socket_bits: 0 };
        }
        let socket_bits = bits_for(ebx >> 16 & 0xff);
        let core_bits = if max >= 4 { bits_for((cpuid.query(4, 0)[0] >> 26) + 1) } else { 0 };
        Self { thread_bits: socket_bits.saturating_sub(core_bits), socket_bits }
    }

    /// (core within the socket, socket) of the processor with this APIC id.
    #[must_use]
    pub fn place(self, apic_id: u32) -> (u32, u32) {
        let field = |from: u32, to: u32| (u64::from(apic_id) >> from & ((1_u64 << (to - from)) - 1)) as u32;
        (field(self.thread_bits, self.socket_bits), (u64::from(apic_id) >> self.socket_bits) as u32)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeMap;

    struct Fake(BTreeMap<(u32, u32), [u32; 4]>);
    impl Cpuid for Fake {
        fn query(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
            self.0.get(&(leaf, subleaf)).copied().unwrap_or_default()
        }
    }

    fn detect(leaves: &[((u32, u32), [u32; 4])]) -> IdFields {
        IdFields::detect(&Fake(leaves.iter().copied().collect()))
    }

    #[test]
    fn extended_topology() {
        let fields = detect(&[((0, 0), [0xd, 0, 0, 0]), ((0xb, 0), [1, 2, 0x100, 0]), ((0xb, 1), [4, 16, 0x201, 0])]);
        assert_eq!(fields, IdFields { thread_bits: 1, socket_bits: 4 });
        assert_eq!(fields.place(0x17), (3, 1));
    }

    #[test]
    fn amd_without_extended_topology() {
        let fields = detect(&[
            ((0, 0), [1, u32::from_le_bytes(*b"Auth"), 0, 0]),
            ((0x8000_0000, 0), [0x8000_001e, 0, 0, 0]),
            ((0x8000_0001, 0), [0, 0, 1 << 22, 0]),
            ((0x8000_0008, 0), [0, 0, 4 << 12 | 15, 0]),
            ((0x8000_001e, 0), [0, 1 << 8, 0, 0]),
        ]);
        assert_eq!(fields, IdFields { thread_bits: 1, socket_bits: 4 });
    }

    #[test]
    fn legacy() {
        let fields = detect(&[((0, 0), [4, 0, 0, 0]), ((1, 0), [0, 8 << 16, 0, 1 << 28]), ((4, 0), [3 << 26, 0, 0, 0])]);
        assert_eq!(fields, IdFields { thread_bits: 1, socket_bits: 3 });
        let single = detect(&[((0, 0), [4, 0, 0, 0])]);
        assert_eq!((single.place(0), single.place(3)), ((0, 0), (0, 3)));
    }
}
