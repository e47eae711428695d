//! The CPUID leaves and MSRs that a domain sees.

use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::arch_x86_64::CpuidLeaf;
use oxen_abi::domctl::{CpuPolicy, DomctlCmd};

/// Leaves asked for; Xen 4.17 has at most 120.
const MAX_LEAVES: u32 = 256;
/// MSRs asked for; Xen 4.17 has 2.
const MAX_MSRS: u32 = 64;

impl Xen {
    /// The CPUID leaves of domain `domid`.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`], `ENOBUFS` when there are more than any known hypervisor has.
    pub fn cpu_policy(&self, domid: u16) -> Result<Vec<CpuidLeaf>> {
        let call = "domctl get_cpu_policy";
        let leaves = self.buffer(MAX_LEAVES as usize * size_of::<CpuidLeaf>())?;
        let msrs = self.buffer(MAX_MSRS as usize * size_of::<oxen_abi::arch_x86_64::MsrEntry>())?;
        let argument = CpuPolicy {
            nr_leaves: MAX_LEAVES,
            nr_msrs: MAX_MSRS,
            leaves: leaves.handle(),
            msrs: msrs.handle(),
            ..CpuPolicy::default()
        };
        // SAFETY: both handles' buffers have room for the numbers of entries announced.
        let answer = unsafe { self.domctl(call, DomctlCmd::GET_CPU_POLICY, domid, &argument)? };
        leaves
            .array(answer.nr_leaves as usize)
            .ok_or(Error::BadAnswer { call })
    }

    /// Changes CPUID leaves of domain `domid`, before it first runs. Leaves that are not named stay.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`]: `ERANGE` for an unknown leaf, `EINVAL` for one above what the hypervisor can offer, `EEXIST` once it has run.
    pub fn set_cpu_policy(&self, domid: u16, leaves: &[CpuidLeaf]) -> Result<()> {
        let call = "domctl set_cpu_policy";
        let buffer = self.buffer_holding(leaves)?;
        let argument = CpuPolicy {
            nr_leaves: u32::try_from(leaves.len()).unwrap_or(u32::MAX),
            leaves: buffer.handle(),
            ..CpuPolicy::default()
        };
        // SAFETY: the handle's buffer holds `nr_leaves` leaves; a count that does not fit is more than any hypervisor reads.
        unsafe { self.domctl(call, DomctlCmd::SET_CPU_POLICY, domid, &argument) }.map(drop)
    }
}
