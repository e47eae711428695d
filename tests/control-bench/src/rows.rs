//! The rows, in the order in which they are measured.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use oxen_xenctl::Xen;

use crate::commands::{Config, Tools};
use crate::console::Log;
use crate::guest::Guest;
use crate::usage::{Cpu, Memory};

/// How often what is quick is repeated; the median counts. The clock leaves little to chance.
const ROUNDS: usize = 3;
/// Guests at once.
const MANY: usize = 100;
/// How long they are watched.
const IDLE: Duration = Duration::from_secs(10);
/// How long a guest may take to boot.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

const FIRST_LINE: &str = "Linux version";
const INIT: &str = "guest: user space reached";
const SERVING: &str = "guest: serving";

/// The parts, in the order in which they are measured.
const PARTS: [(&str, fn(&Bench) -> Result<()>); 4] = [("minimal", Bench::minimal), ("many", Bench::many), ("linux", Bench::linux), ("devices", Bench::devices)];

/// Measures the parts that are named, or all when none is.
pub fn measure(command: &str, wanted: &[&str]) -> Result<()> {
    if let Some(unknown) = wanted.iter().find(|wanted| PARTS.iter().all(|(name, _)| name != *wanted)) {
        bail!("there is no part `{unknown}`; there are {}", PARTS.map(|(name, _)| name).join(", "));
    }
    let bench = Bench { tools: Tools(command.to_owned()), xen: Xen::open()? };
    bench.tools.time(&["list"])?;
    let mut failed = Vec::new();
    for (name, part) in PARTS {
        if !wanted.is_empty() && !wanted.contains(&name) {
            continue;
        }
        if let Err(error) = part(&bench) {
            println!("CONTROL-FAILED {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("{} failed", failed.join(" and "));
    }
    Ok(())
}

struct Bench {
    tools: Tools,
    xen: Xen,
}

impl Bench {
    /// One guest that does nothing, created and destroyed, paused and running.
    fn minimal(&self) -> Result<()> {
        for (paused, kind) in [(true, "minimal-paused"), (false, "minimal")] {
            let config = Config::idle(kind);
            let (mut created, mut destroyed) = (Vec::new(), Vec::new());
            for _ in 0..=ROUNDS {
                created.push(self.tools.create(&config, paused)?);
                destroyed.push(self.tools.destroy(kind)?);
                self.settle(1)?;
            }
            // The first one meets cold caches.
            say_ms(&format!("create-{kind}"), median(&created[1..]));
            say_ms(&format!("destroy-{kind}"), median(&destroyed[1..]));
        }
        Ok(())
    }

    /// Waits until only `domains` are left, and for what the daemons still do after an answer.
    fn settle(&self, domains: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.xen.domains()?.len() > domains {
            anyhow::ensure!(Instant::now() < deadline, "destroyed domains do not go away");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    /// A Linux guest without devices, from the command to its init: once with a kernel that nobody has unpacked yet, once more.
    fn linux(&self) -> Result<()> {
        let first = self.boot(&Config::linux("linux1", ""))?;
        self.end("linux1")?;
        say_ms("create-linux-first", first.created);
        self.boot(&Config::linux("linux2", ""))?.say("linux");
        say_ms("destroy-linux", self.end("linux2")?);
        Ok(())
    }

    /// Destroys the only guest.
    fn end(&self, name: &str) -> Result<Duration> {
        let took = self.tools.destroy(name)?;
        self.settle(1)?;
        Ok(took)
    }

    /// Two Linux guests with a disk and a card: their creation, and what their devices cost.
    fn devices(&self) -> Result<()> {
        let mut guests = Vec::new();
        for n in 1..=2 {
            let image = format!("/run/disk{n}.img");
            File::create(&image)?.set_len(64 << 20)?;
            let (name, address) = (format!("device{n}"), format!("192.168.77.1{n}"));
            let config = Config::linux(&name, &format!("guest.ip={address}/24")).with(format!("disk = [\"file:{image},xvda,w\"]")).with("vif = [\"bridge=xenbr0\"]");
            let boot = self.boot(&config)?;
            if n == 1 {
                boot.say("linux-devices");
            }
            guests.push(Guest { address, domid: self.tools.domid(&name)? });
        }
        let [first, second] = &guests[..] else { anyhow::bail!("{} guests instead of two", guests.len()) };
        for (name, value, unit) in first.micro()? {
            say(&name, value, unit);
        }
        let (name, value, unit) = first.event_round_trip(second)?;
        say(&name, value, unit);
        for (name, value, unit) in first.network(second, &self.xen)?.into_iter().chain(first.disk(&self.xen)?) {
            say(&name, value, unit);
        }
        self.idle("idle-2-linux")?;
        self.tools.destroy("device2")?;
        say_ms("destroy-linux-devices", self.end("device1")?);
        Ok(())
    }

    /// Creates a guest and waits until it serves.
    fn boot(&self, config: &Config) -> Result<Boot> {
        let log = Log::of(&config.name)?;
        let (tools, config_of_thread) = (self.tools.clone(), config.clone());
        let started = Instant::now();
        let command = std::thread::spawn(move || tools.create(&config_of_thread, false));
        let first_line = log.wait_for(FIRST_LINE, BOOT_LIMIT)? - started;
        let init = log.wait_for(INIT, BOOT_LIMIT)? - started;
        let created = command.join().map_err(|_| anyhow::anyhow!("the thread of the command panicked"))??;
        log.wait_for(SERVING, BOOT_LIMIT)?;
        Ok(Boot { created, first_line, init })
    }

    /// Many guests at once.
    fn many(&self) -> Result<()> {
        let before = Memory::now(&self.xen)?;
        let (mut created, mut destroyed) = (Duration::ZERO, Duration::ZERO);
        for n in 1..=MANY {
            created += self.tools.create(&Config::idle(&format!("many{n}")), false)?;
            if [1, 10, MANY].contains(&n) {
                self.list(n)?;
            }
        }
        say_ms("create-one-of-100", created / count(MANY));
        self.idle("idle-100-guests")?;
        let after = Memory::now(&self.xen)?;
        let own = after.domains_kib.saturating_sub(before.domains_kib);
        let per_guest = |kib: u64| kib as f64 / f64::from(count(MANY));
        say("memory-hypervisor-per-guest", per_guest(before.free_kib.saturating_sub(after.free_kib).saturating_sub(own)), "KiB");
        say("memory-dom0-per-guest", per_guest(before.dom0_available_kib.saturating_sub(after.dom0_available_kib)), "KiB");
        for n in 1..=MANY {
            destroyed += self.tools.destroy(&format!("many{n}"))?;
        }
        say_ms("destroy-one-of-100", destroyed / count(MANY));
        self.settle(1)
    }

    fn list(&self, guests: usize) -> Result<()> {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let (text, took) = self.tools.run(&["list"])?;
            anyhow::ensure!(text.lines().count() == guests + 2, "the list of {guests} guests has {} lines", text.lines().count());
            times.push(took);
        }
        say_ms(&format!("list-{guests}"), median(&times));
        Ok(())
    }

    /// The share of the processor that is used when nobody asks for anything.
    fn idle(&self, name: &str) -> Result<()> {
        std::thread::sleep(Duration::from_secs(2));
        let before = Cpu::now(&self.xen)?;
        std::thread::sleep(IDLE);
        let (elapsed, used) = before.until(&Cpu::now(&self.xen)?);
        say(name, used.as_secs_f64() / elapsed.as_secs_f64() * 100.0, "%");
        Ok(())
    }
}

/// How long it took from the start of the command to its end, and to lines on the guest's console.
struct Boot {
    created: Duration,
    first_line: Duration,
    init: Duration,
}

impl Boot {
    fn say(&self, kind: &str) {
        say_ms(&format!("create-{kind}"), self.created);
        say_ms(&format!("{kind}-first-line"), self.first_line);
        say_ms(&format!("{kind}-init"), self.init);
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn say_ms(row: &str, time: Duration) {
    say(row, time.as_secs_f64() * 1e3, "ms");
}

fn say(row: &str, value: f64, unit: &str) {
    println!("CONTROL {row} {value:.3} {unit}");
}
