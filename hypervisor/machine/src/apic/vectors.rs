//! The interrupt vectors: which are fixed, and who has the others.

/// First of the vectors to which the legacy 8259 controllers are moved. All their lines are masked; only spurious interrupts come from them.
pub const LEGACY_FIRST: u8 = 0x20;
/// Last of them.
pub const LEGACY_LAST: u8 = 0x2f;
/// First vector for devices.
pub const DEVICE_FIRST: u8 = 0x30;
/// Last vector for devices.
pub const DEVICE_LAST: u8 = 0xdf;
/// The hypervisor's serial port.
pub const SERIAL: u8 = 0xf0;
/// The local APIC's timer.
pub const TIMER: u8 = 0xfa;
/// Another CPU asks to look at pending work.
pub const KICK: u8 = 0xfb;
/// Another CPU asks for a TLB flush.
pub const FLUSH: u8 = 0xfc;
/// The local APIC met an error.
pub const ERROR: u8 = 0xfe;
/// The local APIC has withdrawn an interrupt.
pub const SPURIOUS: u8 = 0xff;

/// Vectors in the device range that guests raise with `INT n` as system calls and that therefore stay theirs.
const GUEST_GATES: [u8; 2] = [0x80, 0x82];

/// The device vectors of one CPU.
#[derive(Debug)]
pub struct VectorAllocator {
    taken: [u64; 4],
    next: u8,
}

impl VectorAllocator {
    /// All device vectors free.
    #[must_use]
    pub const fn new() -> Self {
        let mut taken = [u64::MAX; 4];
        let mut v = DEVICE_FIRST;
        while v <= DEVICE_LAST {
            taken[v as usize / 64] &= !(1 << (v % 64));
            v += 1;
        }
        let mut i = 0;
        while i < GUEST_GATES.len() {
            let v = GUEST_GATES[i];
            taken[v as usize / 64] |= 1 << (v % 64);
            i += 1;
        }
        Self { taken, next: DEVICE_FIRST }
    }

    /// Takes a free vector. The search goes round the range, so that a vector just given back, for which a message may still be under way, is
    /// the last to be taken again.
    pub fn allocate(&mut self) -> Option<u8> {
        let vector = (self.next..=DEVICE_LAST).chain(DEVICE_FIRST..self.next).find(|v| !self.is_taken(*v))?;
        self.taken[usize::from(vector / 64)] |= 1 << (vector % 64);
        self.next = if vector == DEVICE_LAST { DEVICE_FIRST } else { vector + 1 };
        Some(vector)
    }

    /// Gives a vector back. Others than allocated device vectors are left alone.
    pub fn free(&mut self, vector: u8) {
        if (DEVICE_FIRST..=DEVICE_LAST).contains(&vector) && !GUEST_GATES.contains(&vector) {
            self.taken[usize::from(vector / 64)] &= !(1 << (vector % 64));
        }
    }

    fn is_taken(&self, vector: u8) -> bool {
        self.taken[usize::from(vector / 64)] & 1 << (vector % 64) != 0
    }
}

impl Default for VectorAllocator {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hands_out_each_vector_once() {
        let mut vectors = VectorAllocator::new();
        let mut seen = BTreeSet::new();
        while let Some(v) = vectors.allocate() {
            assert!((DEVICE_FIRST..=DEVICE_LAST).contains(&v) && !GUEST_GATES.contains(&v));
            assert!(seen.insert(v));
        }
        assert_eq!(seen.len(), 174);
        vectors.free(0x80);
        vectors.free(TIMER);
        vectors.free(0x10);
        assert_eq!(vectors.allocate(), None);
        vectors.free(0x44);
        assert_eq!(vectors.allocate(), Some(0x44));
    }

    #[test]
    fn a_freed_vector_rests() {
        let mut vectors = VectorAllocator::new();
        let first = vectors.allocate().unwrap();
        vectors.free(first);
        assert_ne!(vectors.allocate(), Some(first));
    }
}
