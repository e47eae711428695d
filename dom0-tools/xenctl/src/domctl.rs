//! `domctl`: domains.

mod life;
mod permission;
mod policy;
mod scheduler;
mod vcpu;

pub use life::NewDomain;
pub use scheduler::CreditParameters;

use crate::bitmap::CpuMap;
use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::Hypercall;
use oxen_abi::domctl::{
    Domctl, DomctlCmd, GetDomainInfo, GetVcpuInfo, VCPUAFFINITY_HARD, VCPUAFFINITY_SOFT,
    VcpuAffinity as AffinityArgument, XEN_DOMCTL_INTERFACE_VERSION,
};
use oxen_abi::xen::XenctlBitmap;
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};

/// The pCPUs that a vCPU may run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuAffinity {
    /// Where it may run.
    pub hard: CpuMap,
    /// Where it had better run.
    pub soft: CpuMap,
}

impl Xen {
    /// The state of domain `domid`.
    pub fn domain(&self, domid: u16) -> Result<GetDomainInfo> {
        let call = "domctl getdomaininfo";
        // SAFETY: the structure holds no addresses.
        let info = unsafe {
            self.domctl(
                call,
                DomctlCmd::GETDOMAININFO,
                domid,
                &GetDomainInfo::default(),
            )?
        };
        // For an id that does not exist the hypervisor answers with the next domain.
        if info.domain == domid {
            Ok(info)
        } else {
            Err(Error::NoSuchDomain { domid })
        }
    }

    /// The state of vCPU `vcpu` of domain `domid`; `None` when it was never created.
    pub fn vcpu(&self, domid: u16, vcpu: u32) -> Result<Option<GetVcpuInfo>> {
        let argument = GetVcpuInfo {
            vcpu,
            ..GetVcpuInfo::default()
        };
        // SAFETY: the structure holds no addresses.
        match unsafe {
            self.domctl(
                "domctl getvcpuinfo",
                DomctlCmd::GETVCPUINFO,
                domid,
                &argument,
            )
        } {
            Ok(info) => Ok(Some(info)),
            Err(Error::NoSuchDomain { .. }) => {
                // The same error says that the vCPU does not exist; the domain may.
                self.domain(domid)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where vCPU `vcpu` of domain `domid` may run. `nr_cpus` bounds the pCPU numbers.
    pub fn vcpu_affinity(&self, domid: u16, vcpu: u32, nr_cpus: u32) -> Result<VcpuAffinity> {
        let bytes = nr_cpus.div_ceil(8) as usize;
        let (hard, soft) = (self.buffer(bytes)?, self.buffer(bytes)?);
        let bitmap = |address| XenctlBitmap {
            bitmap: address,
            nr_bits: nr_cpus,
            ..XenctlBitmap::default()
        };
        let argument = AffinityArgument {
            vcpu,
            flags: VCPUAFFINITY_HARD | VCPUAFFINITY_SOFT,
            cpumap_hard: bitmap(hard.handle()),
            cpumap_soft: bitmap(soft.handle()),
        };
        // SAFETY: both handles' buffers have room for `nr_bits` bits.
        unsafe {
            self.domctl(
                "domctl getvcpuaffinity",
                DomctlCmd::GETVCPUAFFINITY,
                domid,
                &argument,
            )?
        };
        Ok(VcpuAffinity {
            hard: CpuMap::from_bytes(hard.bytes(), nr_cpus),
            soft: CpuMap::from_bytes(soft.bytes(), nr_cpus),
        })
    }

    /// Makes the domctl that creates a domain and returns the domain's id.
    ///
    /// # Safety
    ///
    /// As [`Xen::domctl`].
    unsafe fn domctl_for_id<T: IntoBytes + FromBytes + Immutable>(
        &self,
        call: &'static str,
        cmd: DomctlCmd,
        domid: Option<u16>,
        payload: &T,
    ) -> Result<u16> {
        let domctl = Domctl::new(cmd, domid.unwrap_or(0), payload);
        // SAFETY: the argument is the whole structure; the caller vouches for the addresses in its payload.
        unsafe { self.hypercall_in_out(call, Hypercall::DOMCTL, None, &domctl) }
            .map(|answer| answer.domain)
            .map_err(|error| error.or_interface_version(XEN_DOMCTL_INTERFACE_VERSION))
    }

    /// Makes a domctl and returns its payload as the hypervisor left it.
    ///
    /// # Safety
    ///
    /// `T` is the payload of `cmd`; addresses in it as for [`Xen::hypercall`].
    unsafe fn domctl<T: IntoBytes + FromBytes + Immutable>(
        &self,
        call: &'static str,
        cmd: DomctlCmd,
        domid: u16,
        payload: &T,
    ) -> Result<T> {
        let domctl = Domctl::new(cmd, domid, payload);
        // SAFETY: the argument is the whole structure; the caller vouches for the addresses in its payload.
        let answer = unsafe { self.hypercall_in_out(call, Hypercall::DOMCTL, None, &domctl) }
            .map_err(|error| {
                error
                    .or_interface_version(XEN_DOMCTL_INTERFACE_VERSION)
                    .about(domid)
            })?;
        Ok(answer.u.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use oxen_abi::Errno;
    use oxen_abi::domctl::VcpuAffinity as Affinity;

    /// A hypervisor with domains 0 and 5; 0 has vCPUs 0 and 2 of 3.
    fn hypervisor() -> Xen {
        fake::xen(|op, args| {
            assert_eq!(op, Hypercall::DOMCTL);
            let mut domctl: Domctl = fake::read(args[0]);
            assert_eq!(domctl.interface_version, XEN_DOMCTL_INTERFACE_VERSION);
            match domctl.cmd {
                DomctlCmd::GETDOMAININFO => {
                    let domain = [0, 5]
                        .into_iter()
                        .find(|id| *id >= domctl.domain)
                        .ok_or(Errno::ESRCH)?;
                    domctl.u.write(&GetDomainInfo {
                        domain,
                        max_vcpu_id: 2,
                        ..GetDomainInfo::default()
                    });
                }
                DomctlCmd::GETVCPUINFO => {
                    let info: GetVcpuInfo = domctl.u.read();
                    match (domctl.domain, info.vcpu) {
                        (0, 0 | 2) => domctl.u.write(&GetVcpuInfo { online: 1, ..info }),
                        (0, 1) => return Err(Errno::ESRCH),
                        (0, _) => return Err(Errno::EINVAL),
                        _ => return Err(Errno::ESRCH),
                    }
                }
                DomctlCmd::GETVCPUAFFINITY => {
                    let affinity: Affinity = domctl.u.read();
                    assert_eq!(affinity.flags, VCPUAFFINITY_HARD | VCPUAFFINITY_SOFT);
                    fake::write_bytes(affinity.cpumap_hard.bitmap.address(), &[0b01]);
                    fake::write_bytes(affinity.cpumap_soft.bitmap.address(), &[0b11]);
                }
                other => panic!("{other:?} was not asked for"),
            }
            fake::write(args[0], &domctl);
            Ok(0)
        })
    }

    #[test]
    fn the_next_domain_is_not_taken_for_the_wanted_one() {
        let xen = hypervisor();
        assert_eq!(xen.domain(5).unwrap().domain, 5);
        assert!(matches!(
            xen.domain(3),
            Err(Error::NoSuchDomain { domid: 3 })
        ));
        assert!(matches!(
            xen.domain(6),
            Err(Error::NoSuchDomain { domid: 6 })
        ));
    }

    #[test]
    fn a_missing_vcpu_differs_from_a_missing_domain() {
        let xen = hypervisor();
        assert_eq!(xen.vcpu(0, 2).unwrap().map(|info| info.vcpu), Some(2));
        assert_eq!(xen.vcpu(0, 1).unwrap(), None);
        assert!(matches!(
            xen.vcpu(9, 0),
            Err(Error::NoSuchDomain { domid: 9 })
        ));
    }

    #[test]
    fn affinities_are_sets_of_cpus() {
        let affinity = hypervisor().vcpu_affinity(0, 0, 2).unwrap();
        assert_eq!(
            (affinity.hard.to_string(), affinity.soft.to_string()),
            ("0".into(), "0-1".into())
        );
    }
}
