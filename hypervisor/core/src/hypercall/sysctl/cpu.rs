//! Processor features as the tools count them: words of CPUID bits in a fixed order (public header `arch-x86/cpufeatureset.h`).

use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::sysctl::{
    CPU_FEATURESET_HOST, CPU_FEATURESET_HVM, CPU_FEATURESET_HVM_MAX, CPU_FEATURESET_PV, CPU_FEATURESET_PV_MAX, CPU_FEATURESET_RAW, CPU_POLICY_HOST,
    CPU_POLICY_HVM_DEFAULT, CPU_POLICY_HVM_MAX, CPU_POLICY_PV_DEFAULT, CPU_POLICY_PV_MAX, CPU_POLICY_RAW, CpuFeatureset, CpuPolicy,
};
use oxen_emul::cpuid;
use oxen_emul::policy::{CpuidPolicy, MAX_MSRS};
use oxen_hal::Machine;
use oxen_types::Gva;

/// Words of a feature set.
const WORDS: usize = 19;
/// Words of it that `physinfo` shows.
const CAPABILITY_WORDS: usize = 8;

/// Registers of an answer of CPUID.
const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// Where each word comes from: leaf, subleaf, register. Words 16 and 17 are those of the MSR ARCH_CAPABILITIES, which no guest sees.
const SOURCES: [Option<(u32, u32, usize)>; WORDS] = [
    Some((1, 0, EDX)),
    Some((1, 0, ECX)),
    Some((0x8000_0001, 0, EDX)),
    Some((0x8000_0001, 0, ECX)),
    Some((0xd, 1, EAX)),
    Some((7, 0, EBX)),
    Some((7, 0, ECX)),
    Some((0x8000_0007, 0, EDX)),
    Some((0x8000_0008, 0, EBX)),
    Some((7, 0, EDX)),
    Some((7, 1, EAX)),
    Some((0x8000_0021, 0, EAX)),
    Some((7, 1, EBX)),
    Some((7, 2, EDX)),
    Some((7, 1, ECX)),
    Some((7, 1, EDX)),
    None,
    None,
    Some((0x8000_0021, 0, ECX)),
];

impl<M: Machine> Ctx<'_, M> {
    /// The first words of the processor's own features.
    pub(super) fn hardware_capabilities(&self) -> [u32; CAPABILITY_WORDS] {
        let all = self.host_features();
        core::array::from_fn(|i| all.get(i).copied().unwrap_or(0))
    }

    fn host_features(&self) -> [u32; WORDS] {
        collect(self.host_cpuid())
    }

    /// The processor's own answers. For leaves that it does not have it would answer with something else.
    fn host_cpuid(&self) -> impl Fn(u32, u32) -> [u32; 4] {
        let machine = self.machine();
        let (basic, extended) = (machine.cpuid(0, 0)[EAX], machine.cpuid(0x8000_0000, 0)[EAX]);
        let subleaves = if basic >= 7 { machine.cpuid(7, 0)[EAX] } else { 0 };
        move |leaf, subleaf| {
            let limit = if leaf >= 0x8000_0000 { extended } else { basic };
            let present = leaf <= limit && (leaf != 7 || subleaf <= subleaves);
            if present { machine.cpuid(leaf, subleaf) } else { [0; 4] }
        }
    }

    /// Tells a policy: the processor's own, or what PV guests get.
    pub(super) fn host_policy(&self, request: &mut CpuPolicy) -> Result<(), Errno> {
        if request.rsvd != 0 {
            return Err(Errno::EINVAL);
        }
        let policy = match request.index {
            CPU_POLICY_RAW | CPU_POLICY_HOST => CpuidPolicy::collect(self.host_cpuid()),
            CPU_POLICY_PV_MAX | CPU_POLICY_PV_DEFAULT => self.hv.pv_policy(),
            CPU_POLICY_HVM_MAX | CPU_POLICY_HVM_DEFAULT => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::EINVAL),
        };
        self.write_policy(&policy, &mut request.nr_leaves, request.leaves)?;
        request.nr_msrs = if request.msrs.is_null() { MAX_MSRS as u32 } else { 0 };
        Ok(())
    }

    /// What a PV guest of one vCPU would see that does not drive the hardware.
    fn pv_features(&self) -> [u32; WORDS] {
        let machine = self.machine();
        collect(|leaf, subleaf| {
            let query = cpuid::Query {
                leaf,
                subleaf,
                cr4: 0,
                xcr0: 1,
                vcpu: 0,
                max_vcpus: 1,
                hardware_domain: false,
                tsc_khz: machine.tsc_khz(),
                tsc_scale: machine.tsc_scale(),
            };
            cpuid::pv(&query, |leaf, subleaf| machine.cpuid(leaf, subleaf))
        })
    }

    /// Writes a feature set, or as much of it as fits, and sets its length. A null array asks for the length only.
    pub(super) fn cpu_featureset(&self, request: &mut CpuFeatureset) -> Result<(), Errno> {
        let words = match request.index {
            CPU_FEATURESET_RAW | CPU_FEATURESET_HOST => self.host_features(),
            CPU_FEATURESET_PV | CPU_FEATURESET_PV_MAX => self.pv_features(),
            CPU_FEATURESET_HVM | CPU_FEATURESET_HVM_MAX => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::EINVAL),
        };
        let array = Gva(request.features.address());
        let room = core::mem::replace(&mut request.nr_features, WORDS as u32) as usize;
        if array.is_null() {
            return Ok(());
        }
        let count = room.min(WORDS);
        for (index, word) in words.iter().take(count).enumerate() {
            self.write_element(array, index as u64, word)?;
        }
        request.nr_features = count as u32;
        if room < WORDS { Err(Errno::ENOBUFS) } else { Ok(()) }
    }
}

fn collect(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> [u32; WORDS] {
    SOURCES.map(|source| {
        let Some((leaf, subleaf, register)) = source else { return 0 };
        cpuid(leaf, subleaf).get(register).copied().unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_the_header_s_order() {
        let words = collect(|leaf, subleaf| [EAX, EBX, ECX, EDX].map(|r| leaf & 0xffff_00ff | subleaf << 8 | (r as u32) << 16));
        assert_eq!(words[0], 0x0003_0001);
        assert_eq!(words[2], 0x8003_0001);
        assert_eq!(words[5], 0x0001_0007);
        assert_eq!(words[10], 0x0000_0107);
        assert_eq!(words[16], 0);
        assert_eq!(words[18], 0x8002_0021);
    }
}
