//! The two hypervisors that machines are booted with: Oxen, and the real Xen 4.17 as the oracle.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::compile;
use crate::debs;
use crate::workspace::Workspace;

/// Options that every boot gets: both hypervisors read the same words.
const CONSOLE_OPTIONS: &str = "com1=115200,8n1 console=com1,vga loglvl=all guest_loglvl=all";

/// Which hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Kind {
    /// This project's.
    Oxen,
    /// Debian's xen-hypervisor-4.17-amd64, unpacked from its package, never installed.
    Xen,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oxen => "oxen",
            Self::Xen => "xen",
        })
    }
}

/// A hypervisor ready to be put on an image.
#[derive(Debug, Clone)]
pub struct Hypervisor {
    /// Which one.
    pub kind: Kind,
    /// What GRUB loads.
    pub file: PathBuf,
}

impl Hypervisor {
    /// Builds Oxen or fetches Xen.
    pub fn prepare(ws: &Workspace, kind: Kind) -> Result<Self> {
        let file = match kind {
            Kind::Oxen => compile::hypervisor(ws)?.gz,
            Kind::Xen => {
                let package = debs::unpack(ws, "xen-hypervisor-4.17-amd64", &["./boot/xen-4.17-amd64.gz"])?;
                let file = package.join("boot/xen-4.17-amd64.gz");
                file.is_file().then_some(file).context("xen-hypervisor-4.17-amd64 has no /boot/xen-4.17-amd64.gz")?
            }
        };
        Ok(Self { kind, file })
    }

    /// The processor model to emulate. Xen 4.17's PV dom0 dies under QEMU 7.2's emulation of SMAP.
    pub fn cpu_model(&self) -> &'static str {
        match self.kind {
            Kind::Oxen => "max",
            Kind::Xen => "max,-smap",
        }
    }

    /// Its command line: the consoles, then `more`.
    pub fn options(&self, more: &str) -> String {
        format!("{CONSOLE_OPTIONS} {more}").trim_end().to_owned()
    }
}
