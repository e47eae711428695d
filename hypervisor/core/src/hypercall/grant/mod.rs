//! `grant_table_op`: setting a table up; lists of requests.

mod cache;
mod copy;
mod map;

use super::{Answer, Args, low32};
use crate::ctx::Ctx;
use alloc::vec::Vec;
use oxen_abi::grant_table::{
    GetStatusFrames, GetVersion, GrantStatus, GrantTableOp, QuerySize, SetVersion, SetupTable, SwapGrantRef, Transfer,
};
use oxen_abi::{Errno, GuestHandle};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_hal::Machine;
use oxen_types::{GrantRef, Gva};

/// Requests of a list done before the guest may take interrupts.
const BUDGET: u32 = 128;

/// The page tables need more time: the request is to be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Preempted;

/// Why a request is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Status(GrantStatus),
    Preempted,
}

impl From<GrantStatus> for Refusal {
    fn from(status: GrantStatus) -> Self {
        Refusal::Status(status)
    }
}

impl<M: Machine> Ctx<'_, M> {
    /// `(command, array, count)`.
    pub(super) fn grant_table_op(&mut self, args: &mut Args) -> Answer {
        let (array, count) = (Gva(args[1]), low32(args[2]));
        if i32::try_from(count).is_err() {
            return Err(Errno::EINVAL);
        }
        match GrantTableOp(low32(args[0])) {
            GrantTableOp::MAP_GRANT_REF => self.map_grants(args),
            GrantTableOp::UNMAP_GRANT_REF => self.unmap_grants(args),
            GrantTableOp::UNMAP_AND_REPLACE => self.unmap_and_replace_grants(args),
            GrantTableOp::COPY => self.copy_grants(args),
            GrantTableOp::SWAP_GRANT_REF => self.grant_list(args, |ctx, request: &mut SwapGrantRef| {
                let mut grants = ctx.domain.grants.lock();
                let result = grants.swap(ctx.machine(), GrantRef(request.ref_a), GrantRef(request.ref_b));
                request.status = result.err().unwrap_or(GrantStatus::OKAY);
                Ok(())
            }),
            GrantTableOp::TRANSFER => self.grant_list(args, |ctx, request: &mut Transfer| {
                ctx.hv.log_limited(format_args!("{}: transfers of pages by grants are not supported", ctx.domain.id));
                request.status = GrantStatus::GENERAL_ERROR;
                Ok(())
            }),
            GrantTableOp::CACHE_FLUSH => self.flush_granted(args),
            other => self.grant_query(other, array, count),
        }
    }

    /// Does the requests of a list one by one, and writes each back. After some of them the call is made again for the rest.
    fn grant_list<T: FromBytes + IntoBytes + Immutable>(
        &self,
        args: &mut Args,
        mut each: impl FnMut(&Self, &mut T) -> Result<(), Preempted>,
    ) -> Answer {
        let (list, count) = (Gva(args[1]), low32(args[2]));
        let mut done = 0;
        while done < count {
            if done == BUDGET {
                return later::<T>(args, done);
            }
            let mut request: T = self.read_element(list, done.into())?;
            if each(self, &mut request) == Err(Preempted) {
                return later::<T>(args, done);
            }
            self.write_element(list, done.into(), &request)?;
            done += 1;
        }
        Ok(0)
    }

    /// What concerns a table as a whole.
    fn grant_query(&mut self, command: GrantTableOp, array: Gva, count: u32) -> Answer {
        let one = || if count == 1 { Ok(()) } else { Err(Errno::EINVAL) };
        match command {
            GrantTableOp::SETUP_TABLE => {
                one()?;
                let mut request: SetupTable = self.read(array)?;
                request.status = self.setup_grant_table(&request);
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
                    Err(error) => domain_status(error),
                };
                self.write(array, &request)?;
            }
            GrantTableOp::SET_VERSION => {
                let mut request: SetVersion = self.read(array)?;
                let answer = {
                    let mut grants = self.domain.grants.lock();
                    let answer = grants.set_version(&self.hv.memory, self.domain.id, request.version);
                    // The version in force is told in any case.
                    request.version = grants.version();
                    answer
                };
                self.write(array, &request)?;
                answer?;
            }
            GrantTableOp::GET_VERSION => {
                let mut request: GetVersion = self.read(array)?;
                request.version = self.target_domain(request.dom)?.grants.lock().version();
                self.write(array, &request)?;
            }
            GrantTableOp::GET_STATUS_FRAMES => {
                one()?;
                let mut request: GetStatusFrames = self.read(array)?;
                request.status = self.tell_status_frames(&request);
                self.write(array, &request)?;
            }
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    /// Grows the table and tells its frames.
    fn setup_grant_table(&self, request: &SetupTable) -> GrantStatus {
        let target = match self.target_domain(request.dom) {
            Ok(target) => target,
            Err(error) => return domain_status(error),
        };
        let frames: Vec<u64> = {
            let mut grants = target.grants.lock();
            if request.nr_frames > grants.max_frames {
                return GrantStatus::GENERAL_ERROR;
            }
            if grants.grow(&self.hv.memory, target.id, request.nr_frames).is_err() {
                return GrantStatus::NO_SPACE;
            }
            grants.frames().take(request.nr_frames as usize).map(|mfn| mfn.0).collect()
        };
        self.tell_frames(request.frame_list, &frames)
    }

    /// Tells the first frames of the status array; tables of version 1 have none.
    fn tell_status_frames(&self, request: &GetStatusFrames) -> GrantStatus {
        let target = match self.target_domain(request.dom) {
            Ok(target) => target,
            Err(error) => return domain_status(error),
        };
        let wanted = request.nr_frames as usize;
        let frames: Vec<u64> = target.grants.lock().status_frames().take(wanted).map(|mfn| mfn.0).collect();
        if frames.len() < wanted { GrantStatus::GENERAL_ERROR } else { self.tell_frames(request.frame_list, &frames) }
    }

    fn tell_frames(&self, list: GuestHandle<u64>, frames: &[u64]) -> GrantStatus {
        let told = frames.iter().zip(0..).try_for_each(|(mfn, index)| self.write_element(Gva(list.address()), index, mfn));
        if told.is_ok() { GrantStatus::OKAY } else { GrantStatus::BAD_VIRT_ADDR }
    }
}

/// Leaves in the argument words what is left of a list of `T`s.
fn later<T>(args: &mut Args, done: u32) -> Answer {
    args[1] = args[1].wrapping_add(u64::from(done) * size_of::<T>() as u64);
    args[2] = u64::from(low32(args[2]) - done);
    Err(Errno::ERESTART)
}

fn domain_status(error: Errno) -> GrantStatus {
    if error == Errno::EPERM { GrantStatus::PERMISSION_DENIED } else { GrantStatus::BAD_DOMAIN }
}
