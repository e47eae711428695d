//! Making room for a guest: domain 0's balloon.

use crate::daemon::Daemon;
use crate::error::ToApi;
use crate::tasks::Job;
use oxen_xend_api::{Code, Error};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a guest costs beside its memory, in KiB: the slack on its limit, and the hypervisor's own structures, of which vCPUs and the
/// page-table bookkeeping are the largest.
const OVERHEAD_KIB: u64 = 2048;
/// How long domain 0's balloon may take without any progress.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

impl Daemon {
    /// Free memory in KiB that is promised to nobody.
    pub(crate) fn free_kib(&self) -> Result<u64, Error> {
        let info = self.xen.physinfo().or_api("asking for the free memory")?;
        Ok((info.free_pages.saturating_sub(info.outstanding_pages)) * 4)
    }

    /// Sees to it that a guest of `memory_kib` can be created, by taking memory from domain 0 as far as the configuration allows. The caller holds
    /// [`Daemon::memory`].
    pub(crate) fn make_room(&self, memory_kib: u64, job: &Job) -> Result<(), Error> {
        let need = memory_kib.saturating_add(OVERHEAD_KIB);
        let mut free = self.free_kib()?;
        if free >= need {
            return Ok(());
        }
        let dom0 = self.xen.domain(0).or_api("asking for domain 0's memory")?.tot_pages * 4;
        let target = dom0.saturating_sub(need - free);
        let min = self.settings.dom0_min_mem_kib;
        if min == 0 || target < min {
            let why = if min == 0 { "domain 0 may not be ballooned (dom0-min-mem is 0)".to_owned() } else { format!("domain 0 has {dom0} KiB and keeps at least {min} KiB (dom0-min-mem)") };
            return Err(Error::new(Code::NotEnoughMemory, format!("not enough free memory: {need} KiB are needed, {free} KiB are free, {why}")));
        }
        let start = free;
        job.progress("taking memory from domain 0", 0, need - start);
        self.write_node(0, "memory/target", &target.to_string())?;
        let mut last_progress = Instant::now();
        while free < need {
            sleep(POLL);
            let now = self.free_kib()?;
            if now > free {
                last_progress = Instant::now();
                job.progress("taking memory from domain 0", now.saturating_sub(start), need - start);
            } else if last_progress.elapsed() > PATIENCE {
                // Domain 0 must not go on giving away memory that nobody waits for.
                self.write_node(0, "memory/target", &dom0.to_string())?;
                return Err(Error::new(Code::NotEnoughMemory, format!("not enough free memory: {need} KiB are needed, and domain 0 gave up only {} of {} KiB", now.saturating_sub(start), need - start)));
            }
            free = now;
        }
        Ok(())
    }
}
