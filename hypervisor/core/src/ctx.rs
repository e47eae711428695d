//! What a handler works with: the calling vCPU, its domain, its registers.

use crate::Hypervisor;
use crate::domain::Domain;
use crate::vcpu::{Vcpu, VcpuState};
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_hal::{GuestFrame, Machine};
use oxen_types::{CpuId, DomId, Gva};

/// The calling vCPU on its processor.
#[derive(Debug)]
pub struct Ctx<'a, M: Machine> {
    /// The hypervisor.
    pub hv: &'a Hypervisor<M>,
    /// The processor.
    pub cpu: CpuId,
    /// The vCPU.
    pub vcpu: &'a Arc<Vcpu>,
    /// Its domain.
    pub domain: &'a Arc<Domain>,
    /// The part of the vCPU that this processor has taken.
    pub state: &'a mut VcpuState,
    /// Its registers, which go back to the processor on return.
    pub frame: &'a mut GuestFrame,
}

impl<M: Machine> Ctx<'_, M> {
    /// The machine.
    #[inline]
    pub fn machine(&self) -> &'static M {
        self.hv.machine
    }

    /// Reads a structure from the guest, once.
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&self, from: Gva) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.machine().copy_from_guest(value.as_mut_bytes(), from).map_err(|_| Errno::EFAULT)?;
        Ok(value)
    }

    /// Reads element `index` of an array in the guest.
    #[inline]
    pub fn read_element<T: FromBytes + IntoBytes>(&self, array: Gva, index: u64) -> Result<T, Errno> {
        self.read(element::<T>(array, index)?)
    }

    /// Writes a structure to the guest.
    #[inline]
    pub fn write<T: IntoBytes + Immutable + ?Sized>(&self, to: Gva, value: &T) -> Result<(), Errno> {
        self.machine().copy_to_guest(to, value.as_bytes()).map_err(|_| Errno::EFAULT)
    }

    /// Writes element `index` of an array in the guest.
    #[inline]
    pub fn write_element<T: IntoBytes + Immutable>(&self, array: Gva, index: u64, value: &T) -> Result<(), Errno> {
        self.write(element::<T>(array, index)?, value)
    }

    /// The domain that an argument names: the caller's own for `DOMID_SELF` or its number, another one only for a control domain.
    pub fn target_domain(&self, id: u16) -> Result<Arc<Domain>, Errno> {
        let id = DomId(id);
        if id == DomId::SELF || id == self.domain.id {
            return Ok(self.domain.clone());
        }
        let target = self.hv.domains.get(id).ok_or(Errno::ESRCH)?;
        if !self.domain.privileges.control {
            return Err(Errno::EPERM);
        }
        Ok(target)
    }

    /// Refuses callers that do not run the control stack.
    pub fn require_control(&self) -> Result<(), Errno> {
        if self.domain.privileges.control { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Refuses callers that do not drive the hardware.
    pub fn require_hardware(&self) -> Result<(), Errno> {
        if self.domain.privileges.hardware { Ok(()) } else { Err(Errno::EPERM) }
    }
}

fn element<T>(array: Gva, index: u64) -> Result<Gva, Errno> {
    let offset = index.checked_mul(size_of::<T>() as u64).ok_or(Errno::EFAULT)?;
    array.checked_add(offset).ok_or(Errno::EFAULT)
}
