//! Registers and placement of vCPUs.

use crate::bitmap::CpuMap;
use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::VcpuGuestContext;
use oxen_abi::domctl::{
    DomctlCmd, VCPUAFFINITY_HARD, VCPUAFFINITY_SOFT, VcpuAffinity as AffinityArgument, VcpuContext,
};
use oxen_abi::xen::XenctlBitmap;

impl Xen {
    /// Sets the registers of a vCPU of a paused domain.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`]: `EINVAL` when a part of the context is not valid.
    pub fn set_vcpu_context(
        &self,
        domid: u16,
        vcpu: u32,
        context: &VcpuGuestContext,
    ) -> Result<()> {
        let buffer = self.buffer_holding(context)?;
        let argument = VcpuContext {
            vcpu,
            ctxt: buffer.handle(),
            ..VcpuContext::default()
        };
        let call = "domctl setvcpucontext";
        // SAFETY: the handle's buffer holds a context.
        unsafe { self.domctl(call, DomctlCmd::SETVCPUCONTEXT, domid, &argument) }.map(drop)
    }

    /// The registers of a vCPU; `None` when it was never started.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn vcpu_context(&self, domid: u16, vcpu: u32) -> Result<Option<Box<VcpuGuestContext>>> {
        let call = "domctl getvcpucontext";
        let buffer = self.buffer(size_of::<VcpuGuestContext>())?;
        let argument = VcpuContext {
            vcpu,
            ctxt: buffer.handle(),
            ..VcpuContext::default()
        };
        // SAFETY: the handle's buffer has room for a context.
        match unsafe { self.domctl(call, DomctlCmd::GETVCPUCONTEXT, domid, &argument) } {
            Ok(_) => match buffer.value() {
                Some(context) => Ok(Some(Box::new(context))),
                None => Err(Error::BadAnswer { call }),
            },
            Err(error) if error.errno() == Some(Errno::ENODATA) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says on which pCPUs a vCPU may run (`hard`) and had better run (`soft`); `None` leaves a set as it is. Returns the sets that are
    /// in force, of pCPUs below `nr_cpus`.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`]: `EINVAL` when no pCPU of the domain's pool is in the set.
    pub fn set_vcpu_affinity(
        &self,
        domid: u16,
        vcpu: u32,
        hard: Option<&CpuMap>,
        soft: Option<&CpuMap>,
        nr_cpus: u32,
    ) -> Result<super::VcpuAffinity> {
        let len = nr_cpus.div_ceil(8) as usize;
        let fill = |map: Option<&CpuMap>| {
            let mut buffer = self.buffer(len)?;
            let bytes = map.map(CpuMap::to_bytes).unwrap_or_default();
            for (to, from) in buffer.bytes_mut().iter_mut().zip(bytes) {
                *to = from;
            }
            Ok::<_, Error>(buffer)
        };
        let (hard_buffer, soft_buffer) = (fill(hard)?, fill(soft)?);
        let bitmap = |bitmap| XenctlBitmap {
            bitmap,
            nr_bits: nr_cpus,
            ..XenctlBitmap::default()
        };
        let flag = |map: Option<&CpuMap>, flag| if map.is_some() { flag } else { 0 };
        let argument = AffinityArgument {
            vcpu,
            flags: flag(hard, VCPUAFFINITY_HARD) | flag(soft, VCPUAFFINITY_SOFT),
            cpumap_hard: bitmap(hard_buffer.handle()),
            cpumap_soft: bitmap(soft_buffer.handle()),
        };
        let call = "domctl setvcpuaffinity";
        // SAFETY: both handles' buffers have `nr_bits` bits.
        unsafe { self.domctl(call, DomctlCmd::SETVCPUAFFINITY, domid, &argument)? };
        Ok(super::VcpuAffinity {
            hard: CpuMap::from_bytes(hard_buffer.bytes(), nr_cpus),
            soft: CpuMap::from_bytes(soft_buffer.bytes(), nr_cpus),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewDomain;
    use crate::fake::FakeHost;

    #[test]
    fn a_context_reads_back() {
        let host = FakeHost::new(10).unwrap();
        let xen = host.xen();
        let domid = xen.create_domain(&NewDomain::default()).unwrap();
        xen.set_max_vcpus(domid, 1).unwrap();
        assert!(xen.vcpu_context(domid, 0).unwrap().is_none());
        let mut context = VcpuGuestContext::default();
        context.user_regs.rip = 0x1234;
        context.gs_base_user = 5;
        xen.set_vcpu_context(domid, 0, &context).unwrap();
        assert_eq!(
            xen.vcpu_context(domid, 0).unwrap().as_deref(),
            Some(&context)
        );
        assert_eq!(
            xen.set_vcpu_context(domid, 1, &context)
                .unwrap_err()
                .errno(),
            Some(Errno::EINVAL)
        );
    }
}
