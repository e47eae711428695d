//! Sets of numbered things as bit maps in the guest (`struct xenctl_bitmap`).

use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::xen::XenctlBitmap;
use oxen_hal::Machine;
use oxen_types::{CpuId, CpuSet, Gva, MAX_CPUS};

/// Bytes that hold every CPU.
const BYTES: usize = MAX_CPUS / 8;
/// Most bits of a map that is written: what lies beyond the last CPU is cleared byte by byte.
const MAX_BITS: u32 = 1 << 16;

impl<M: Machine> Ctx<'_, M> {
    /// Reads a set of CPUs. Bits beyond [`MAX_CPUS`] are ignored.
    pub(super) fn read_cpus(&self, map: &XenctlBitmap) -> Result<CpuSet, Errno> {
        let mut bytes = [0; BYTES];
        let length = bytes_of(map.nr_bits).min(BYTES);
        let part = bytes.get_mut(..length).ok_or(Errno::EINVAL)?;
        self.machine().copy_from_guest(part, Gva(map.bitmap.address())).map_err(|_| Errno::EFAULT)?;
        Ok(to_cpus(&bytes, map.nr_bits))
    }

    /// Writes a set of CPUs; members that the map has no room for are left out.
    pub(super) fn write_cpus(&self, map: &XenctlBitmap, cpus: &CpuSet) -> Result<(), Errno> {
        self.write_bits(map, &to_bytes(cpus, map.nr_bits))
    }

    /// Writes a set of NUMA nodes: there is one, number 0, and it is a member.
    pub(super) fn write_nodes(&self, map: &XenctlBitmap) -> Result<(), Errno> {
        self.write_bits(map, &to_bytes(&CpuSet::of(CpuId(0)), map.nr_bits))
    }

    fn write_bits(&self, map: &XenctlBitmap, bytes: &[u8; BYTES]) -> Result<(), Errno> {
        if map.nr_bits > MAX_BITS {
            return Err(Errno::E2BIG);
        }
        let to = Gva(map.bitmap.address());
        let length = bytes_of(map.nr_bits);
        self.write(to, bytes.get(..length.min(BYTES)).unwrap_or(bytes))?;
        for done in (BYTES..length).step_by(BYTES) {
            let zeros = [0; BYTES];
            let part = zeros.get(..(length - done).min(BYTES)).unwrap_or(&zeros);
            self.write(to.checked_add(done as u64).ok_or(Errno::EFAULT)?, part)?;
        }
        Ok(())
    }
}

fn bytes_of(nr_bits: u32) -> usize {
    nr_bits.div_ceil(8) as usize
}

fn to_cpus(bytes: &[u8; BYTES], nr_bits: u32) -> CpuSet {
    let cpus = CpuSet::new();
    for n in 0..nr_bits.min(MAX_CPUS as u32) {
        if bytes.get(n as usize / 8).is_some_and(|byte| byte >> (n % 8) & 1 != 0) {
            cpus.insert(CpuId(n));
        }
    }
    cpus
}

fn to_bytes(cpus: &CpuSet, nr_bits: u32) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for cpu in cpus.iter().take_while(|cpu| cpu.0 < nr_bits) {
        if let Some(byte) = bytes.get_mut(cpu.index() / 8) {
            *byte |= 1 << (cpu.0 % 8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let cpus = CpuSet::new();
        for n in [0, 9, 10, 255] {
            cpus.insert(CpuId(n));
        }
        let bytes = to_bytes(&cpus, 256);
        assert_eq!((bytes[0], bytes[1], bytes[31]), (1, 6, 0x80));
        assert!(to_cpus(&bytes, 256).iter().eq(cpus.iter()));
    }

    #[test]
    fn bits_beyond_the_map_are_no_members() {
        let cpus = CpuSet::of(CpuId(10));
        assert_eq!(to_bytes(&cpus, 10), [0; BYTES]);
        let mut bytes = [0; BYTES];
        bytes[1] = 0xff;
        assert_eq!(to_cpus(&bytes, 10).len(), 2);
    }
}
