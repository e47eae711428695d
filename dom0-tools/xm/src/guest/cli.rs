//! The command line of the commands that go through xend.

use crate::deferred::Deferred;
use clap::{Args, Subcommand};

/// Commands on guests.
#[derive(Debug, Subcommand)]
pub enum GuestCommand {
    /// Create a guest and start it.
    Create(Deferred<CreateOptions>),
    /// Make a guest known without starting it; `xm start` starts it.
    New(Deferred<CreateOptions>),
    /// Start a guest that was made known with `xm new`.
    Start(Deferred<StartOptions>),
    /// Forget a guest that was made known with `xm new`.
    Delete(Deferred<DeleteOptions>),
    /// Connect to a guest's console; Ctrl-] leaves it.
    Console(Deferred<ConsoleOptions>),
    /// Ask guests to shut down.
    Shutdown(Deferred<EndOptions>),
    /// Ask guests to reboot.
    Reboot(Deferred<EndOptions>),
    /// End guests at once.
    Destroy(Deferred<SomeDomains>),
    /// Stop guests until they are unpaused.
    Pause(Deferred<SomeDomains>),
    /// Let paused guests run.
    Unpause(Deferred<SomeDomains>),
    /// Give a guest another name.
    Rename(Deferred<RenameOptions>),
    /// Print the id of a domain.
    Domid(Deferred<DomidOptions>),
    /// Print the name of a domain.
    Domname(Deferred<DomnameOptions>),
    /// Press a magic system request key.
    Sysrq(Deferred<SysrqOptions>),
    /// Write a guest's memory to an ELF core file.
    DumpCore(Deferred<DumpCoreOptions>),
    /// Tell a domain how much memory to have.
    MemSet(Deferred<MemoryOptions>),
    /// Set the most memory that a domain may have.
    MemMax(Deferred<MemoryOptions>),
    /// Tell a domain how many of its vCPUs to use.
    VcpuSet(Deferred<VcpuSetOptions>),
    /// Say where a domain's vCPUs may run.
    VcpuPin(Deferred<VcpuPinOptions>),
    /// Show or set weights and caps.
    SchedCredit(Deferred<SchedCreditOptions>),
    /// Add a disk to a guest.
    BlockAttach(Deferred<BlockAttachOptions>),
    /// Take a disk from a guest.
    BlockDetach(Deferred<BlockDetachOptions>),
    /// List guests' disks.
    BlockList(Deferred<SomeDomains>),
    /// Add a network card to a guest.
    NetworkAttach(Deferred<NetworkAttachOptions>),
    /// Take a network card from a guest.
    NetworkDetach(Deferred<NetworkDetachOptions>),
    /// List guests' network cards.
    NetworkList(Deferred<SomeDomains>),
    /// Print metrics of the host, the domains and their devices, for Prometheus.
    Metrics(Deferred<NoOptions>),
    /// Print xend's log.
    Log(Deferred<LogOptions>),
}

/// For commands without options.
#[derive(Args, Debug)]
pub struct NoOptions {}

/// Options of `start`.
#[derive(Args, Debug)]
pub struct StartOptions {
    /// Its name or UUID.
    pub domain: String,
    /// Leave it paused.
    #[arg(short, long)]
    pub paused: bool,
    /// Connect to its console.
    #[arg(short = 'c', long = "console_autoconnect", alias = "console")]
    pub console: bool,
}

/// Options of `delete`.
#[derive(Args, Debug)]
pub struct DeleteOptions {
    /// Its name or UUID.
    pub domain: String,
}

/// Options of `console`.
#[derive(Args, Debug)]
pub struct ConsoleOptions {
    /// Its name or id.
    pub domain: String,
}

/// One or more domains.
#[derive(Args, Debug)]
pub struct SomeDomains {
    /// Names or ids.
    #[arg(required = true)]
    pub domains: Vec<String>,
}

/// Options of `rename`.
#[derive(Args, Debug)]
pub struct RenameOptions {
    /// Its name or id.
    pub domain: String,
    /// The new name.
    pub name: String,
}

/// Options of `domid`.
#[derive(Args, Debug)]
pub struct DomidOptions {
    /// Its name.
    pub domain: String,
}

/// Options of `domname`.
#[derive(Args, Debug)]
pub struct DomnameOptions {
    /// Its id.
    pub domid: u16,
}

/// Options of `sysrq`.
#[derive(Args, Debug)]
pub struct SysrqOptions {
    /// The guest's name or id.
    pub domain: String,
    /// The key.
    pub key: char,
}

/// Options of `dump-core`.
#[derive(Args, Debug)]
pub struct DumpCoreOptions {
    /// Its name or id.
    pub domain: String,
    /// The file; without it, one below /var/lib/xen/dump.
    pub file: Option<String>,
    /// Do not pause it meanwhile.
    #[arg(short = 'L', long)]
    pub live: bool,
    /// Destroy it afterwards.
    #[arg(short = 'C', long = "crash")]
    pub destroy: bool,
}

/// Options of `mem-set` and `mem-max`.
#[derive(Args, Debug)]
pub struct MemoryOptions {
    /// Its name or id.
    pub domain: String,
    /// The amount, in MiB or with a suffix k, m, g, t.
    pub amount: String,
}

/// Options of `vcpu-set`.
#[derive(Args, Debug)]
pub struct VcpuSetOptions {
    /// Its name or id.
    pub domain: String,
    /// How many.
    pub vcpus: u32,
}

/// Options of `vcpu-pin`.
#[derive(Args, Debug)]
pub struct VcpuPinOptions {
    /// The domain's name or id.
    pub domain: String,
    /// The vCPU, or `all`.
    pub vcpu: String,
    /// The pCPUs that it may run on: `0-3,^2`, `all`, or `-` to leave that as it is.
    pub hard: String,
    /// The pCPUs that it had better run on.
    pub soft: Option<String>,
}

/// Options of `sched-credit`.
#[derive(Args, Debug)]
pub struct SchedCreditOptions {
    /// The domain; without it all are shown.
    #[arg(short, long)]
    pub domain: Option<String>,
    /// The share relative to other domains', 1 to 65535.
    #[arg(short, long, requires = "domain")]
    pub weight: Option<u16>,
    /// The most processor time, in percent of one pCPU; 0 is no limit.
    #[arg(short, long, requires = "domain")]
    pub cap: Option<u16>,
}

/// Options of `block-attach`.
#[derive(Args, Debug)]
pub struct BlockAttachOptions {
    /// The guest's name or id.
    pub domain: String,
    /// A disk as in a configuration file (`file:/d.img,xvdb,w`), or its parts: back end, name in the guest, mode.
    #[arg(required = true)]
    pub disk: Vec<String>,
}

/// Options of `block-detach`.
#[derive(Args, Debug)]
pub struct BlockDetachOptions {
    /// The guest's name or id.
    pub domain: String,
    /// The disk's name in the guest or its number.
    pub device: String,
    /// Even if the guest does not let go of it.
    #[arg(short, long)]
    pub force: bool,
}

/// Options of `network-attach`.
#[derive(Args, Debug)]
pub struct NetworkAttachOptions {
    /// The guest's name or id.
    pub domain: String,
    /// Settings as in a configuration file: `mac=...`, `bridge=...`, `ip=...`.
    pub settings: Vec<String>,
}

/// Options of `network-detach`.
#[derive(Args, Debug)]
pub struct NetworkDetachOptions {
    /// The guest's name or id.
    pub domain: String,
    /// The card's number or address.
    pub device: String,
    /// Even if the guest does not let go of it.
    #[arg(short, long)]
    pub force: bool,
}

/// Options of `log`.
#[derive(Args, Debug)]
pub struct LogOptions {
    /// How many lines.
    #[arg(short = 'n', long, default_value_t = 500)]
    pub lines: usize,
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
