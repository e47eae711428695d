//! The command line of the commands that go through xend.

use clap::{Args, Subcommand};

/// Commands on guests.
#[derive(Debug, Subcommand)]
pub enum GuestCommand {
    /// Create a guest and start it.
    Create(CreateOptions),
    /// Make a guest known without starting it; `xm start` starts it.
    New(CreateOptions),
    /// Start a guest that was made known with `xm new`.
    Start {
        /// Its name or UUID.
        domain: String,
        /// Leave it paused.
        #[arg(short, long)]
        paused: bool,
        /// Connect to its console.
        #[arg(short = 'c', long = "console_autoconnect", alias = "console")]
        console: bool,
    },
    /// Forget a guest that was made known with `xm new`.
    Delete {
        /// Its name or UUID.
        domain: String,
    },
    /// Connect to a guest's console; Ctrl-] leaves it.
    Console {
        /// Its name or id.
        domain: String,
    },
    /// Ask guests to shut down.
    Shutdown(EndOptions),
    /// Ask guests to reboot.
    Reboot(EndOptions),
    /// End guests at once.
    Destroy {
        /// Names or ids.
        #[arg(required = true)]
        domains: Vec<String>,
    },
    /// Stop guests until they are unpaused.
    Pause {
        /// Names or ids.
        #[arg(required = true)]
        domains: Vec<String>,
    },
    /// Let paused guests run.
    Unpause {
        /// Names or ids.
        #[arg(required = true)]
        domains: Vec<String>,
    },
    /// Give a guest another name.
    Rename {
        /// Its name or id.
        domain: String,
        /// The new name.
        name: String,
    },
    /// Print the id of a domain.
    Domid {
        /// Its name.
        domain: String,
    },
    /// Print the name of a domain.
    Domname {
        /// Its id.
        domid: u16,
    },
    /// Press a magic system request key.
    Sysrq {
        /// The guest's name or id.
        domain: String,
        /// The key.
        key: char,
    },
    /// Write a guest's memory to an ELF core file.
    DumpCore {
        /// Its name or id.
        domain: String,
        /// The file; without it, one below /var/lib/xen/dump.
        file: Option<String>,
        /// Do not pause it meanwhile.
        #[arg(short = 'L', long)]
        live: bool,
        /// Destroy it afterwards.
        #[arg(short = 'C', long = "crash")]
        destroy: bool,
    },
    /// Tell a domain how much memory to have.
    MemSet {
        /// Its name or id.
        domain: String,
        /// The amount, in MiB or with a suffix k, m, g, t.
        amount: String,
    },
    /// Set the most memory that a domain may have.
    MemMax {
        /// Its name or id.
        domain: String,
        /// The amount, in MiB or with a suffix k, m, g, t.
        amount: String,
    },
    /// Tell a domain how many of its vCPUs to use.
    VcpuSet {
        /// Its name or id.
        domain: String,
        /// How many.
        vcpus: u32,
    },
    /// Say where a domain's vCPUs may run.
    VcpuPin {
        /// The domain's name or id.
        domain: String,
        /// The vCPU, or `all`.
        vcpu: String,
        /// The pCPUs that it may run on: `0-3,^2`, `all`, or `-` to leave that as it is.
        hard: String,
        /// The pCPUs that it had better run on.
        soft: Option<String>,
    },
    /// Show or set weights and caps.
    SchedCredit {
        /// The domain; without it all are shown.
        #[arg(short, long)]
        domain: Option<String>,
        /// The share relative to other domains', 1 to 65535.
        #[arg(short, long, requires = "domain")]
        weight: Option<u16>,
        /// The most processor time, in percent of one pCPU; 0 is no limit.
        #[arg(short, long, requires = "domain")]
        cap: Option<u16>,
    },
    /// Add a disk to a guest.
    BlockAttach {
        /// The guest's name or id.
        domain: String,
        /// A disk as in a configuration file (`file:/d.img,xvdb,w`), or its parts: back end, name in the guest, mode.
        #[arg(required = true)]
        disk: Vec<String>,
    },
    /// Take a disk from a guest.
    BlockDetach {
        /// The guest's name or id.
        domain: String,
        /// The disk's name in the guest or its number.
        device: String,
        /// Do not wait for the guest to agree.
        #[arg(short, long)]
        force: bool,
    },
    /// List guests' disks.
    BlockList {
        /// Names or ids.
        #[arg(required = true)]
        domains: Vec<String>,
    },
    /// Add a network card to a guest.
    NetworkAttach {
        /// The guest's name or id.
        domain: String,
        /// Settings as in a configuration file: `mac=...`, `bridge=...`, `ip=...`.
        settings: Vec<String>,
    },
    /// Take a network card from a guest.
    NetworkDetach {
        /// The guest's name or id.
        domain: String,
        /// The card's number or address.
        device: String,
        /// Do not wait for the guest to agree.
        #[arg(short, long)]
        force: bool,
    },
    /// List guests' network cards.
    NetworkList {
        /// Names or ids.
        #[arg(required = true)]
        domains: Vec<String>,
    },
    /// Print metrics of the host, the domains and their devices, for Prometheus.
    Metrics,
    /// Print xend's log.
    Log {
        /// How many lines.
        #[arg(short = 'n', long, default_value_t = 500)]
        lines: usize,
    },
}

/// Options of `create` and `new`.
#[derive(Args, Debug)]
pub struct CreateOptions {
    /// The configuration file, or its name in /etc/xen, and values that override it: `name=value`.
    #[arg(value_name = "FILE | NAME=VALUE")]
    pub words: Vec<String>,
    /// The configuration file.
    #[arg(short = 'f', long = "defconfig", value_name = "FILE")]
    pub file: Option<String>,
    /// Connect to the guest's console.
    #[arg(short = 'c', long = "console_autoconnect", alias = "console")]
    pub console: bool,
    /// Leave the guest paused.
    #[arg(short, long)]
    pub paused: bool,
    /// Only print the configuration that results.
    #[arg(short = 'n', long = "dryrun", alias = "dry-run")]
    pub dry_run: bool,
    /// Print nothing but errors.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Options of `shutdown` and `reboot`.
#[derive(Args, Debug)]
pub struct EndOptions {
    /// Names or ids.
    #[arg(required_unless_present = "all")]
    pub domains: Vec<String>,
    /// All guests.
    #[arg(short, long, conflicts_with = "domains")]
    pub all: bool,
    /// Wait until they have done so.
    #[arg(short, long)]
    pub wait: bool,
    /// How long to wait, in seconds.
    #[arg(short, long, default_value_t = 300)]
    pub timeout: u32,
    /// Stop without powering off.
    #[arg(short = 'H', long)]
    pub halt: bool,
}
