//! How a fake host answers hypercalls.

use super::host::{FakeDomain, State};
use super::{read, write};
use oxen_abi::domctl::{
    DOMINF_PAUSED, DOMINF_SHUTDOWN, DOMINF_SHUTDOWN_SHIFT, Domctl, DomctlCmd, GetDomainInfo,
    XEN_INVALID_MAX_VCPU_ID,
};
use oxen_abi::{Errno, Hypercall};

/// Answers one call.
pub(super) fn answer(state: &mut State, op: Hypercall, args: [u64; 5]) -> Result<u32, Errno> {
    match op {
        Hypercall::DOMCTL => domctl(state, args[0]),
        _ => Err(Errno::ENOSYS),
    }
}

fn domctl(state: &mut State, address: u64) -> Result<u32, Errno> {
    let mut domctl: Domctl = read(address);
    match domctl.cmd {
        DomctlCmd::GETDOMAININFO => {
            state.enter("domctl getdomaininfo")?;
            let (domid, domain) = state
                .domains
                .range(domctl.domain..)
                .next()
                .ok_or(Errno::ESRCH)?;
            domctl.u.write(&info(*domid, domain));
        }
        _ => return Err(Errno::ENOSYS),
    }
    write(address, &domctl);
    Ok(0)
}

/// What getdomaininfo tells of a domain.
fn info(domid: u16, domain: &FakeDomain) -> GetDomainInfo {
    let paused = if domain.paused > 0 { DOMINF_PAUSED } else { 0 };
    let shutdown = domain.shutdown.map_or(0, |reason| {
        DOMINF_SHUTDOWN | reason.raw() << DOMINF_SHUTDOWN_SHIFT
    });
    GetDomainInfo {
        domain: domid,
        flags: paused | shutdown,
        tot_pages: domain.frames.len() as u64,
        max_pages: domain.max_pages,
        outstanding_pages: domain.claimed,
        shared_info_frame: domain.shared_info,
        nr_online_vcpus: domain.contexts.len() as u32,
        max_vcpu_id: domain
            .nr_vcpus
            .checked_sub(1)
            .unwrap_or(XEN_INVALID_MAX_VCPU_ID),
        handle: domain.config.handle,
        ..GetDomainInfo::default()
    }
}
