//! Making, populating with vCPUs, and ending domains.

use crate::ctx::Ctx;
use crate::domain::{Domain, DomainSpec, Privileges};
use crate::grant::{MAX_FRAMES, MAX_MAPTRACK_FRAMES, MAX_VERSION};
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::domctl::{
    CDF_HAP, CDF_HVM, CDF_IOMMU, CDF_NESTED_VIRT, CDF_OOS_OFF, CDF_S3_INTEGRITY, CDF_VPMU, CDF_XS_DOMAIN, CreateDomain, Domctl,
    GRANT_VERSION_MASK, MaxVcpus,
};
use oxen_hal::Machine;
use oxen_types::DomId;

/// All flags that the interface has.
const KNOWN_FLAGS: u32 = CDF_HVM | CDF_HAP | CDF_S3_INTEGRITY | CDF_OOS_OFF | CDF_XS_DOMAIN | CDF_IOMMU | CDF_NESTED_VIRT | CDF_VPMU;
/// Flags that ask for what there is not.
const REFUSED_FLAGS: u32 = CDF_HVM | CDF_HAP | CDF_IOMMU | CDF_NESTED_VIRT | CDF_VPMU;
/// Most vCPUs of a PV guest.
const MAX_VCPUS: u32 = 512;
/// The pool of all processors.
const POOL: u32 = 0;
/// `XEN_X86_EMU_PIT` of the public header `arch-x86/xen.h`, which a PV guest's description may have set.
const EMULATE_PIT: u32 = 1 << 8;

impl<M: Machine> Ctx<'_, M> {
    /// Makes a domain, paused, without memory and vCPUs; its number goes into `op`.
    pub(super) fn create_domain(&mut self, op: &mut Domctl) -> Result<(), Errno> {
        let request: CreateDomain = op.u.read();
        let wanted = Some(DomId(op.domain)).filter(|id| id.is_ordinary()).unwrap_or(DomId::DOM0);
        let spec = self.spec_of(wanted, &request)?;
        let mut control = self.hv.control.try_take().ok_or(Errno::ERESTART)?;
        let domain = self.hv.make_domain(&mut control, &spec)?;
        op.domain = domain.id.0;
        Ok(())
    }

    fn spec_of(&self, id: DomId, request: &CreateDomain) -> Result<DomainSpec, Errno> {
        let refuse = |why: core::fmt::Arguments<'_>, error| {
            self.hv.log(format_args!("{}: createdomain refused: {why}", self.domain.id));
            Err(error)
        };
        if request.flags & !KNOWN_FLAGS != 0 || request.iommu_opts != 0 {
            return refuse(format_args!("flags {:#x}, iommu options {:#x}", request.flags, request.iommu_opts), Errno::EINVAL);
        }
        if request.flags & REFUSED_FLAGS != 0 {
            return refuse(format_args!("flags {:#x}: only PV guests without devices are supported", request.flags), Errno::EINVAL);
        }
        if request.arch.emulation_flags & !EMULATE_PIT != 0 {
            return refuse(format_args!("emulation flags {:#x} of a PV guest", request.arch.emulation_flags), Errno::EOPNOTSUPP);
        }
        if request.vmtrace_size != 0 {
            return refuse(format_args!("{} bytes of processor traces", request.vmtrace_size), Errno::EINVAL);
        }
        if request.max_vcpus == 0 || request.max_vcpus > MAX_VCPUS {
            return refuse(format_args!("{} vCPUs, of 1 to {MAX_VCPUS}", request.max_vcpus), Errno::EINVAL);
        }
        if request.cpupool_id != POOL {
            return refuse(format_args!("cpupool {}", request.cpupool_id), Errno::ESRCH);
        }
        let (version, other_bits) = (request.grant_opts & GRANT_VERSION_MASK, request.grant_opts & !GRANT_VERSION_MASK);
        if version > MAX_VERSION || other_bits != 0 {
            return refuse(format_args!("grant options {:#x}: versions up to {MAX_VERSION} are supported", request.grant_opts), Errno::EINVAL);
        }
        let bounded = |wanted: i32, max: u32| u32::try_from(wanted).map_or(Some(max), |n| (n <= max).then_some(n));
        let grant_frames = bounded(request.max_grant_frames, MAX_FRAMES);
        let maptrack_frames = bounded(request.max_maptrack_frames, MAX_MAPTRACK_FRAMES);
        let (Some(grant_frames), Some(max_maptrack_frames)) = (grant_frames, maptrack_frames) else {
            let (grants, maptrack) = (request.max_grant_frames, request.max_maptrack_frames);
            return refuse(format_args!("{grants} grant frames, {maptrack} maptrack frames"), Errno::EINVAL);
        };
        if version != 0 && grant_frames == 0 {
            return refuse(format_args!("a grant table without a frame"), Errno::EINVAL);
        }
        Ok(DomainSpec {
            handle: request.handle,
            max_port: request.max_evtchn_port,
            max_grant_frames: if version == 0 { 0 } else { grant_frames },
            max_grant_version: version,
            max_maptrack_frames,
            pauses: 1,
            ..DomainSpec::new(id, Privileges::default(), request.max_vcpus)
        })
    }

    /// Makes all vCPUs that the domain was made for.
    pub(super) fn set_max_vcpus(&mut self, target: &Arc<Domain>, request: &MaxVcpus) -> Result<(), Errno> {
        self.require_other(target)?;
        let _control = self.hv.control.try_take().ok_or(Errno::ERESTART)?;
        if request.max != target.max_vcpus() || target.is_dying() {
            return Err(Errno::EINVAL);
        }
        self.hv.add_vcpus(target, false);
        Ok(())
    }

    /// Ends a domain. To be called until it does not say `ERESTART`.
    pub(super) fn destroy_domain(&mut self, target: &Arc<Domain>) -> Result<(), Errno> {
        self.require_other(target)?;
        let _control = self.hv.control.try_take().ok_or(Errno::ERESTART)?;
        self.hv.destroy_step(self.cpu, target)
    }
}
