//! The list of domains.

use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::sysctl::GetDomainInfoList;
use oxen_hal::Machine;
use oxen_types::{DomId, Gva};

impl<M: Machine> Ctx<'_, M> {
    /// Describes the domains from number `first_domain` on, as many as there is room for.
    pub(super) fn domain_info_list(&self, request: &mut GetDomainInfoList) -> Result<(), Errno> {
        let first = DomId(request.first_domain);
        let domains = self.hv.domains.snapshot();
        let wanted = domains.iter().filter(|domain| domain.id >= first);
        let mut count = 0;
        for domain in wanted.take(request.max_domains as usize) {
            self.write_element(Gva(request.buffer.address()), count.into(), &self.hv.describe_domain(domain))?;
            count += 1;
        }
        request.num_domains = count;
        Ok(())
    }
}
