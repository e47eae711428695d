//! What is wanted, and what came of it.

use crate::cache::DEFAULT_DIR;
use oxen_abi::arch_x86_64::CpuidLeaf;
use oxen_xenctl::NewDomain;
use std::path::PathBuf;

/// How the cache knows a kernel again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// By its file, which need not be read for that.
    #[default]
    File,
    /// By what is in it: the file was made for this guest only.
    Content,
}

/// A guest to build.
#[derive(Clone, Debug)]
pub struct Request {
    /// UUID, id, number of vCPUs, limits of ports and grants.
    pub domain: NewDomain,
    /// The kernel: a bzImage or an ELF file, compressed or not.
    pub kernel: PathBuf,
    /// The initial RAM disk, if there is one.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line, at most 1023 bytes.
    pub command_line: String,
    /// Memory at the start, in KiB; rounded down to whole pages.
    pub memory_kib: u64,
    /// Memory that it may balloon up to, in KiB; at least `memory_kib`.
    pub max_memory_kib: u64,
    /// Seconds by which its wall clock differs from the host's.
    pub time_offset: i64,
    /// CPUID leaves that differ from what the hypervisor gives PV guests.
    pub cpuid: Vec<CpuidLeaf>,
    /// The domain that serves the xenstore ring.
    pub store_domid: u16,
    /// The domain that serves the console ring.
    pub console_domid: u16,
    /// The directory in which unpacked kernels are kept for the next guest; `None` for no cache.
    pub cache: Option<PathBuf>,
    /// How the kernel is known again there.
    pub identity: Identity,
}

impl Request {
    /// A guest with one vCPU, served by domain 0, that runs `kernel` in `memory_kib` KiB.
    #[must_use]
    pub fn new(kernel: impl Into<PathBuf>, memory_kib: u64) -> Self {
        Self {
            domain: NewDomain::default(),
            kernel: kernel.into(),
            ramdisk: None,
            command_line: String::new(),
            memory_kib,
            max_memory_kib: memory_kib,
            time_offset: 0,
            cpuid: Vec::new(),
            store_domid: 0,
            console_domid: 0,
            cache: Some(DEFAULT_DIR.into()),
            identity: Identity::File,
        }
    }
}

/// A domain that is built, paused once, and knows nothing of xenstore yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its id.
    pub domid: u16,
    /// Its pages.
    pub nr_pages: u64,
    /// Frame of the xenstore ring.
    pub store_mfn: u64,
    /// The guest's event channel of the xenstore ring.
    pub store_port: u32,
    /// Frame of the console ring.
    pub console_mfn: u64,
    /// The guest's event channel of the console ring.
    pub console_port: u32,
    /// What the kernel says that it is, for instance "linux".
    pub guest_os: String,
}
