//! `domctl`: one domain.

use super::{Answer, Args};
use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_hal::Machine;

impl<M: Machine> Ctx<'_, M> {
    /// `(operation)`.
    pub(super) fn domctl(&mut self, _args: &Args) -> Answer {
        self.require_control()?;
        Err(Errno::ENOSYS)
    }
}
