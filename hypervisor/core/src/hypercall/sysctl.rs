//! `sysctl`: the host as a whole.

use super::{Answer, Args};
use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_hal::Machine;

impl<M: Machine> Ctx<'_, M> {
    /// `(operation)`.
    pub(super) fn sysctl(&mut self, _args: &Args) -> Answer {
        self.require_control()?;
        Err(Errno::ENOSYS)
    }
}
