//! Guests' memory in files.

use crate::daemon::{Daemon, Target};
use crate::error::ToApi;
use crate::tasks::{Job, now};
use oxen_xend_api::{Code, Error, Outcome};
use std::path::PathBuf;

impl Daemon {
    /// Writes a guest's memory to a file; unless `live`, the guest is paused meanwhile.
    pub(crate) fn dump_core(&self, target: &Target, path: Option<PathBuf>, live: bool, destroy: bool, job: &Job) -> Result<Outcome, Error> {
        let domid = target.running_guest()?;
        if !live {
            self.xen.pause_domain(domid).or_api("pausing")?;
        }
        let written = self.write_core(domid, &target.name, path, job);
        if !live {
            self.xen.unpause_domain(domid).or_api("unpausing")?;
        }
        let outcome = written?;
        if destroy {
            job.step("destroying the domain");
            self.end(domid, target.uuid, target.record.as_ref())?;
        }
        Ok(outcome)
    }

    /// Writes the file; without a `path`, below the directory for dumps.
    pub(crate) fn write_core(&self, domid: u16, name: &str, path: Option<PathBuf>, job: &Job) -> Result<Outcome, Error> {
        let fail = |problem: String| Error::new(Code::System, problem).about(name);
        let path = match path {
            Some(path) => path,
            None => {
                let dir = &self.places.dumps;
                std::fs::create_dir_all(dir).map_err(|error| fail(format!("cannot create {}: {error}", dir.display())))?;
                dir.join(format!("{name}.{domid}.{}.core", now()))
            }
        };
        let mut progress = |done, total| job.progress("writing the memory", done, total);
        let bytes = oxen_core_dump::dump(&self.xen, domid, &path, &mut progress).map_err(|error| fail(format!("cannot write the memory of {name}: {error}")))?;
        Ok(Outcome::File { path: path.to_string_lossy().into_owned(), bytes })
    }
}
