//! What hardware a domain may use.

use crate::error::Result;
use crate::privcmd::Xen;
use oxen_abi::domctl::{DomctlCmd, IomemPermission, IoportPermission, IrqPermission};

impl Xen {
    /// Whether domain `domid` may use interrupt `pirq`.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`](crate::Error::Domain).
    pub fn allow_irq(&self, domid: u16, pirq: u32, allow: bool) -> Result<()> {
        let argument = IrqPermission {
            pirq,
            allow_access: u8::from(allow),
            ..IrqPermission::default()
        };
        let call = "domctl irq_permission";
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl(call, DomctlCmd::IRQ_PERMISSION, domid, &argument) }.map(drop)
    }

    /// Whether domain `domid` may map `count` frames of device memory from `first` on.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`](crate::Error::Domain).
    pub fn allow_iomem(&self, domid: u16, first: u64, count: u64, allow: bool) -> Result<()> {
        let argument = IomemPermission {
            first_mfn: first,
            nr_mfns: count,
            allow_access: u8::from(allow),
            ..IomemPermission::default()
        };
        let call = "domctl iomem_permission";
        // SAFETY: the structure holds frame numbers, which are not addresses of this process.
        unsafe { self.domctl(call, DomctlCmd::IOMEM_PERMISSION, domid, &argument) }.map(drop)
    }

    /// Whether domain `domid` may use `count` I/O ports from `first` on.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`](crate::Error::Domain).
    pub fn allow_ioports(&self, domid: u16, first: u32, count: u32, allow: bool) -> Result<()> {
        let argument = IoportPermission {
            first_port: first,
            nr_ports: count,
            allow_access: u8::from(allow),
            ..IoportPermission::default()
        };
        let call = "domctl ioport_permission";
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl(call, DomctlCmd::IOPORT_PERMISSION, domid, &argument) }.map(drop)
    }
}
