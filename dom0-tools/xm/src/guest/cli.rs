//! The command line of the commands that go through xend.

use crate::commands::commands;
use clap::Args;

commands! {
    /// Commands on guests.
    pub enum GuestCommand {
        /// Create a guest and start it.
        "create" => Create(CreateOptions),
        /// Make a guest known without starting it; `xm start` starts it.
        "new" => New(CreateOptions),
        /// Start a guest that was made known with `xm new`.
        "start" => Start(StartOptions),
        /// Forget a guest that was made known with `xm new`.
        "delete" => Delete(DeleteOptions),
        /// Connect to a guest's console; Ctrl-] leaves it.
        "console" => Console(ConsoleOptions),
        /// Ask guests to shut down.
        "shutdown" => Shutdown(EndOptions),
        /// Ask guests to reboot.
        "reboot" => Reboot(EndOptions),
        /// End guests at once.
        "destroy" => Destroy(SomeDomains),
        /// Stop guests until they are unpaused.
        "pause" => Pause(SomeDomains),
        /// Let paused guests run.
        "unpause" => Unpause(SomeDomains),
        /// Give a guest another name.
        "rename" => Rename(RenameOptions),
        /// Print the id of a domain.
        "domid" => Domid(DomidOptions),
        /// Print the name of a domain.
        "domname" => Domname(DomnameOptions),
        /// Press a magic system request key.
        "sysrq" => Sysrq(SysrqOptions),
        /// Write a guest's memory to an ELF core file.
        "dump-core" => DumpCore(DumpCoreOptions),
        /// Tell a domain how much memory to have.
        "mem-set" => MemSet(MemoryOptions),
        /// Set the most memory that a domain may have.
        "mem-max" => MemMax(MemoryOptions),
        /// Tell a domain how many of its vCPUs to use.
        "vcpu-set" => VcpuSet(VcpuSetOptions),
        /// Say where a domain's vCPUs may run.
        "vcpu-pin" => VcpuPin(VcpuPinOptions),
        /// Show or set weights and caps.
        "sched-credit" => SchedCredit(SchedCreditOptions),
        /// Add a disk to a guest.
        "block-attach" => BlockAttach(BlockAttachOptions),
        /// Take a disk from a guest.
        "block-detach" => BlockDetach(BlockDetachOptions),
        /// List guests' disks.
        "block-list" => BlockList(SomeDomains),
        /// Add a network card to a guest.
        "network-attach" => NetworkAttach(NetworkAttachOptions),
        /// Take a network card from a guest.
        "network-detach" => NetworkDetach(NetworkDetachOptions),
        /// List guests' network cards.
        "network-list" => NetworkList(SomeDomains),
        /// Print metrics of the host, the domains and their devices, for Prometheus.
        "metrics" => Metrics(NoOptions),
        /// Print xend's log.
        "log" => Log(LogOptions),
    }
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
    /// Pull it out: what the guest holds is still written, for up to five seconds.
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
    /// Even if the guest does not let go of it within two seconds.
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
