//! A domain from its creation to its end.

use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::Errno;
use oxen_abi::domctl::{
    AddressSize, CreateDomain, DomctlCmd, HypercallInit, MaxMem, MaxVcpus, SendTrigger,
    SetDomainHandle, SetTimeOffset, Subscribe, TscInfo,
};
use oxen_abi::xen::DomainHandle;

/// What a domain is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDomain {
    /// Its UUID.
    pub handle: DomainHandle,
    /// Its id; `None` lets the hypervisor choose.
    pub domid: Option<u16>,
    /// Its number of vCPUs.
    pub nr_vcpus: u32,
    /// Its highest event channel port; `None` for no limit of its own.
    pub max_port: Option<u32>,
    /// Frames that its grant table may have; `None` for the hypervisor's default.
    pub max_grant_frames: Option<u32>,
    /// Frames of its records of foreign grants; `None` for the hypervisor's default.
    pub max_maptrack_frames: Option<u32>,
    /// The highest version of grant tables that it may use.
    pub grant_version: u8,
    /// The pool of pCPUs that it runs in.
    pub cpupool: u32,
}

impl Default for NewDomain {
    /// One vCPU, version 1 grants, 1024 ports, as Xen's tools have it.
    fn default() -> Self {
        Self {
            handle: [0; 16],
            domid: None,
            nr_vcpus: 1,
            max_port: Some(1023),
            max_grant_frames: None,
            max_maptrack_frames: None,
            grant_version: 1,
            cpupool: 0,
        }
    }
}

impl Xen {
    /// Creates a paused PV domain without vCPUs and memory; returns its id.
    ///
    /// # Errors
    ///
    /// [`Error::Hypercall`] or [`Error::Domain`]: `EEXIST` when the id is in use, `ENOMEM`, `EINVAL` for a limit above the hypervisor's.
    pub fn create_domain(&self, new: &NewDomain) -> Result<u16> {
        let call = "domctl createdomain";
        let limit = |limit: Option<u32>| match limit.map(i32::try_from) {
            None => Ok(-1),
            Some(Ok(limit)) => Ok(limit),
            Some(Err(_)) => Err(Error::Hypercall {
                call,
                errno: Errno::EINVAL,
            }),
        };
        let argument = CreateDomain {
            handle: new.handle,
            max_vcpus: new.nr_vcpus,
            max_evtchn_port: limit(new.max_port)?.cast_unsigned(),
            max_grant_frames: limit(new.max_grant_frames)?,
            max_maptrack_frames: limit(new.max_maptrack_frames)?,
            grant_opts: u32::from(new.grant_version),
            cpupool_id: new.cpupool,
            ..CreateDomain::default()
        };
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl_for_id(call, DomctlCmd::CREATEDOMAIN, new.domid, &argument) }
    }

    /// Destroys domain `domid`, in as many steps as the hypervisor wants.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`] when it is gone already.
    pub fn destroy_domain(&self, domid: u16) -> Result<()> {
        loop {
            match self.plain_domctl("domctl destroydomain", DomctlCmd::DESTROYDOMAIN, domid) {
                Err(error) if matches!(error.errno(), Some(Errno::EAGAIN | Errno::ERESTART)) => {}
                result => return result,
            }
        }
    }

    /// Pauses domain `domid` until as many unpauses.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`].
    pub fn pause_domain(&self, domid: u16) -> Result<()> {
        self.plain_domctl("domctl pausedomain", DomctlCmd::PAUSEDOMAIN, domid)
    }

    /// Undoes one pause. The first one ends a domain's creation.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`]; [`Error::Domain`] with `EINVAL` when it is not paused.
    pub fn unpause_domain(&self, domid: u16) -> Result<()> {
        self.plain_domctl("domctl unpausedomain", DomctlCmd::UNPAUSEDOMAIN, domid)
    }

    /// Lets domain `domid` run on after it shut down in order to be saved.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`].
    pub fn resume_domain(&self, domid: u16) -> Result<()> {
        self.plain_domctl("domctl resumedomain", DomctlCmd::RESUMEDOMAIN, domid)
    }

    /// Allocates the vCPUs of domain `domid`; their number is the one that it was created with.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn set_max_vcpus(&self, domid: u16, max: u32) -> Result<()> {
        let argument = MaxVcpus { max };
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl("domctl max_vcpus", DomctlCmd::MAX_VCPUS, domid, &argument) }.map(drop)
    }

    /// Limits the memory of domain `domid`, in KiB.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`].
    pub fn set_max_memory(&self, domid: u16, max_kib: u64) -> Result<()> {
        let argument = MaxMem { max_memkb: max_kib };
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl("domctl max_mem", DomctlCmd::MAX_MEM, domid, &argument) }.map(drop)
    }

    /// Gives domain `domid` another UUID.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`].
    pub fn set_handle(&self, domid: u16, handle: DomainHandle) -> Result<()> {
        let argument = SetDomainHandle { handle };
        let call = "domctl setdomainhandle";
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl(call, DomctlCmd::SETDOMAINHANDLE, domid, &argument) }.map(drop)
    }

    /// Moves the wall clock of domain `domid` by `seconds` from the host's.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`].
    pub fn set_time_offset(&self, domid: u16, seconds: i64) -> Result<()> {
        let argument = SetTimeOffset {
            time_offset_seconds: seconds,
        };
        let call = "domctl settimeoffset";
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl(call, DomctlCmd::SETTIMEOFFSET, domid, &argument) }.map(drop)
    }

    /// Says how domain `domid` sees the time-stamp counter: mode 0 default, 1 always emulated, 2 never.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] with `EINVAL` for another mode.
    pub fn set_tsc_mode(&self, domid: u16, mode: u32) -> Result<()> {
        let argument = TscInfo {
            tsc_mode: mode,
            ..TscInfo::default()
        };
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl("domctl settscinfo", DomctlCmd::SETTSCINFO, domid, &argument) }
            .map(drop)
    }

    /// Fills frame `mfn` of domain `domid` with hypercall stubs.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn init_hypercall_page(&self, domid: u16, mfn: u64) -> Result<()> {
        let argument = HypercallInit { gmfn: mfn };
        let call = "domctl hypercall_init";
        // SAFETY: the structure holds a frame number of the domain, which is not an address of this process.
        unsafe { self.domctl(call, DomctlCmd::HYPERCALL_INIT, domid, &argument) }.map(drop)
    }

    /// The width of PV domain `domid` in bits.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`].
    pub fn address_size(&self, domid: u16) -> Result<u32> {
        let call = "domctl get_address_size";
        let cmd = DomctlCmd::GET_ADDRESS_SIZE;
        // SAFETY: the structure holds no addresses.
        let answer = unsafe { self.domctl(call, cmd, domid, &AddressSize::default())? };
        Ok(answer.size)
    }

    /// Presses a button (`SENDTRIGGER_*`) of domain `domid`.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn send_trigger(&self, domid: u16, trigger: u32, vcpu: u32) -> Result<()> {
        let argument = SendTrigger { trigger, vcpu };
        let call = "domctl sendtrigger";
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl(call, DomctlCmd::SENDTRIGGER, domid, &argument) }.map(drop)
    }

    /// Has `port` of this domain notified when domain `domid` suspends.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`].
    pub fn subscribe_to_suspend(&self, domid: u16, port: u32) -> Result<()> {
        let argument = Subscribe { port };
        // SAFETY: the structure holds no addresses.
        unsafe { self.domctl("domctl subscribe", DomctlCmd::SUBSCRIBE, domid, &argument) }.map(drop)
    }

    /// A domctl without argument.
    fn plain_domctl(&self, call: &'static str, cmd: DomctlCmd, domid: u16) -> Result<()> {
        // SAFETY: the command takes no argument.
        unsafe { self.domctl(call, cmd, domid, &0_u64) }.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    #[test]
    fn a_domain_comes_and_goes() {
        let host = FakeHost::new(100).unwrap();
        let xen = host.xen();
        let new = NewDomain {
            nr_vcpus: 3,
            ..NewDomain::default()
        };
        let domid = xen.create_domain(&new).unwrap();
        assert_eq!(host.domain(domid).unwrap().paused, 1);
        xen.set_max_vcpus(domid, 3).unwrap();
        xen.set_max_memory(domid, 400).unwrap();
        assert_eq!(xen.domain(domid).unwrap().max_pages, 100);
        xen.unpause_domain(domid).unwrap();
        let error = xen.unpause_domain(domid).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL));
        assert!(error.to_string().contains(&format!("domain {domid}")));
        xen.destroy_domain(domid).unwrap();
        assert!(matches!(
            xen.destroy_domain(domid),
            Err(Error::NoSuchDomain { .. })
        ));
    }

    #[test]
    fn destruction_goes_on_until_it_is_done() {
        let host = FakeHost::new(100).unwrap();
        let xen = host.xen();
        let domid = xen.create_domain(&NewDomain::default()).unwrap();
        for _ in 0..3 {
            host.fail("domctl destroydomain", 0, Errno::EAGAIN);
        }
        host.fail("domctl destroydomain", 0, Errno::ERESTART);
        xen.destroy_domain(domid).unwrap();
        assert_eq!(host.domids(), [0]);
    }

    #[test]
    fn a_wanted_id_is_taken_or_refused() {
        let host = FakeHost::new(100).unwrap();
        let xen = host.xen();
        let new = NewDomain {
            domid: Some(7),
            ..NewDomain::default()
        };
        assert_eq!(xen.create_domain(&new).unwrap(), 7);
        assert_eq!(
            xen.create_domain(&new).unwrap_err().errno(),
            Some(Errno::EEXIST)
        );
    }
}
