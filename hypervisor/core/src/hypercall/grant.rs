//! `grant_table_op`: setting a table up.

use super::{Answer, Args, low32};
use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::grant_table::{GetVersion, GrantTableOp, GrantStatus, QuerySize, SetVersion, SetupTable};
use oxen_hal::Machine;
use oxen_types::Gva;

impl<M: Machine> Ctx<'_, M> {
    /// `(command, array, count)`.
    pub(super) fn grant_table_op(&mut self, args: &Args) -> Answer {
        let (array, count) = (Gva(args[1]), low32(args[2]));
        let one = || if count == 1 { Ok(()) } else { Err(Errno::EINVAL) };
        match GrantTableOp(low32(args[0])) {
            GrantTableOp::SETUP_TABLE => {
                one()?;
                let mut request: SetupTable = self.read(array)?;
                request.status = self.setup_grant_table(&request)?;
                self.write(array, &request)?;
            }
            GrantTableOp::QUERY_SIZE => {
                one()?;
                let mut request: QuerySize = self.read(array)?;
                request.status = match self.target_domain(request.dom) {
                    Ok(target) => {
                        let grants = target.grants.lock();
                        request.nr_frames = grants.nr_frames();
                        request.max_nr_frames = grants.max_frames;
                        GrantStatus::OKAY
                    }
                    Err(Errno::EPERM) => GrantStatus::PERMISSION_DENIED,
                    Err(_) => GrantStatus::BAD_DOMAIN,
                };
                self.write(array, &request)?;
            }
            GrantTableOp::SET_VERSION => {
                let mut request: SetVersion = self.read(array)?;
                match request.version {
                    1 => {}
                    2 => return Err(Errno::ENOSYS),
                    _ => return Err(Errno::EINVAL),
                }
                request.version = 1;
                self.write(array, &request)?;
            }
            GrantTableOp::GET_VERSION => {
                let mut request: GetVersion = self.read(array)?;
                self.target_domain(request.dom)?;
                request.version = 1;
                self.write(array, &request)?;
            }
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    /// Grows the table and tells its frames.
    fn setup_grant_table(&self, request: &SetupTable) -> Result<GrantStatus, Errno> {
        let target = match self.target_domain(request.dom) {
            Ok(target) => target,
            Err(Errno::EPERM) => return Ok(GrantStatus::PERMISSION_DENIED),
            Err(_) => return Ok(GrantStatus::BAD_DOMAIN),
        };
        let frames: alloc::vec::Vec<u64> = {
            let mut grants = target.grants.lock();
            if request.nr_frames > grants.max_frames {
                return Ok(GrantStatus::GENERAL_ERROR);
            }
            if grants.grow(&self.hv.memory, target.id, request.nr_frames).is_err() {
                return Ok(GrantStatus::NO_SPACE);
            }
            grants.frames().take(request.nr_frames as usize).map(|mfn| mfn.0).collect()
        };
        for (index, mfn) in frames.iter().enumerate() {
            self.write_element(Gva(request.frame_list.address()), index as u64, mfn)?;
        }
        Ok(GrantStatus::OKAY)
    }
}
