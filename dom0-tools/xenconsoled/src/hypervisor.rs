//! The hypervisor's own console in a log file.

use crate::logfile::LogFile;
use oxen_abi::xen::Virq;
use oxen_xenctl::{EventChannels, LocalPort, Xen};

/// Follows the hypervisor's console.
#[derive(Debug)]
pub struct HypervisorLog {
    file: LogFile,
    port: LocalPort,
    /// Where in the console's ring to go on.
    index: u32,
}

impl HypervisorLog {
    /// Starts with all that the console's ring holds.
    pub fn start(xen: &Xen, events: &EventChannels, file: LogFile) -> oxen_xenctl::Result<Self> {
        let mut log = Self { file, port: events.bind_virq(Virq::CON_RING)?, index: 0 };
        log.serve(xen, events)?;
        Ok(log)
    }

    /// The port that becomes pending when there is more.
    pub fn port(&self) -> LocalPort {
        self.port
    }

    /// Takes what is new.
    pub fn serve(&mut self, xen: &Xen, events: &EventChannels) -> oxen_xenctl::Result<()> {
        let (bytes, index) = xen.read_console_from(self.index)?;
        self.index = index;
        if !bytes.is_empty() {
            self.file.append(&bytes);
        }
        events.unmask(self.port)
    }
}
