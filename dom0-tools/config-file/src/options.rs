//! Reads the options among a file's variables.

use super::parse::Evaluation;
use super::value::Value;
use super::variables::Variables;
use super::{Diagnostic, Override, Reading, Source};
use oxen_guest_config::{
    Action, Affinity, Bootloader, Console, CpuSet, GuestConfig, GuestKind, KernelArguments, Limits,
    MAX_VCPUS,
};
use std::str::FromStr;

/// The configuration that the variables spell.
pub fn configuration(
    file: &Source,
    overrides: &[Override],
    mut evaluation: Evaluation,
) -> Result<Reading, Vec<Diagnostic>> {
    let output = std::mem::take(&mut evaluation.output);
    let mut vars = Variables::new(file, overrides, evaluation);
    let mut config = GuestConfig::default();
    identity(&mut vars, &mut config);
    boot(&mut vars, &mut config);
    memory(&mut vars, &mut config);
    processors(&mut vars, &mut config);
    config.vifs = vars.parsed_list("vif");
    config.disks = vars.parsed_list("disk");
    actions(&mut vars, &mut config);
    config.console = Console {
        log: vars.flag("console_log"),
        limit_bytes: vars.integer("console_limit", "bytes", 1024..=1 << 30),
    };
    config.limits = limits(&mut vars);
    vars.warn_of_the_rest();
    // What could not be read has its default now, about which nothing needs to be said.
    if vars.errors.is_empty() {
        for error in config.check() {
            vars.error(&error.option, None, error.problem);
        }
    }
    let mut errors = vars.errors;
    if errors.is_empty() {
        return Ok(Reading {
            config,
            warnings: vars.warnings,
            output,
        });
    }
    errors.sort_by_key(|error| (error.position.is_none(), error.position));
    Err(errors)
}

fn identity(vars: &mut Variables<'_>, config: &mut GuestConfig) {
    config.name = vars.text("name").unwrap_or_default();
    if let Some(text) = vars.text("uuid") {
        match text.parse() {
            Ok(uuid) => config.uuid = Some(uuid),
            Err(_) => vars.error(
                "uuid",
                None,
                format!(
                    "`{text}` is no UUID; expected one such as 06ed00fe-1162-4fc4-b5d8-11993ee4a8b9"
                ),
            ),
        }
    }
    let builder = vars.text("builder");
    let kind = vars.text("type");
    let (option, word) = match (&kind, &builder) {
        (Some(kind), _) => ("type", kind.as_str()),
        (None, Some(builder)) => ("builder", builder.as_str()),
        (None, None) => return,
    };
    match word {
        "pv" | "linux" | "generic" => config.kind = GuestKind::Pv,
        "pvh" | "hvm" => vars.error(
            option,
            None,
            format!("`{word}` guests are not supported yet; expected \"pv\""),
        ),
        _ => vars.error(
            option,
            None,
            format!("`{word}` is no kind of guest; expected \"pv\""),
        ),
    }
    if let Some(pool) = vars.text("pool").filter(|pool| pool != "Pool-0") {
        vars.error(
            "pool",
            None,
            format!("there is no pool `{pool}`; expected Pool-0"),
        );
    }
}

fn boot(vars: &mut Variables<'_>, config: &mut GuestConfig) {
    config.kernel = vars.text("kernel");
    config.ramdisk = vars.text("ramdisk");
    config.arguments = KernelArguments {
        cmdline: vars.text("cmdline"),
        root: vars.text("root"),
        ip: vars.text("ip"),
        netmask: vars.text("netmask"),
        gateway: vars.text("gateway"),
        hostname: vars.text("hostname"),
        interface: vars.text("interface"),
        dhcp: vars.text("dhcp"),
        nfs_server: vars.text("nfs_server"),
        nfs_root: vars.text("nfs_root"),
        extra: vars.text("extra"),
    };
    if config.arguments.cmdline.is_some() {
        let others = [&config.arguments.root, &config.arguments.extra];
        if others.iter().any(|other| other.is_some()) {
            vars.warning(
                "cmdline",
                "it is the whole command line: root and extra are ignored".to_owned(),
            );
        }
    }
    let mut args: Vec<String> = match vars.take("bootloader_args") {
        Some(Value::Text(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(_) => vars
            .list("bootloader_args")
            .into_iter()
            .map(|(_, arg)| arg)
            .collect(),
        None => Vec::new(),
    };
    if let Some(more) = vars.text("bootargs") {
        args.extend(more.split_whitespace().map(str::to_owned));
    }
    config.bootloader = vars
        .text("bootloader")
        .map(|program| Bootloader { program, args });
    // Menus count from 0, so a number is as good as a title.
    config.bootentry = match vars.take("bootentry") {
        Some(Value::Integer(number)) => Some(number.to_string()),
        _ => vars.text("bootentry"),
    };
}

fn memory(vars: &mut Variables<'_>, config: &mut GuestConfig) {
    const MOST_MIB: u64 = 1 << 32;
    if let Some(memory) = vars.integer("memory", "MiB", 1..=MOST_MIB) {
        config.memory_mib = memory;
    }
    config.max_memory_mib = vars.integer("maxmem", "MiB", 1..=MOST_MIB);
}

fn processors(vars: &mut Variables<'_>, config: &mut GuestConfig) {
    if let Some(vcpus) = vars.integer("vcpus", "vCPUs", 1..=MAX_VCPUS) {
        config.vcpus = vcpus;
    }
    config.max_vcpus = vars.integer("maxvcpus", "vCPUs", 1..=MAX_VCPUS);
    // With maxvcpus alone, the guest starts with all of them, as under xl.
    if let (None, Some(most)) = (vars.take("vcpus"), config.max_vcpus) {
        config.vcpus = most;
    }
    if let Some(mask) = vars.integer("vcpu_avail", "a bit mask of vCPUs", 1..=i64::MAX as u64) {
        available(vars, config, mask);
    }
    config.cpus = affinity(vars, "cpus");
    if let Some(cpu) = vars.integer("cpu", "a pCPU", 0..=4095_u32)
        && config.cpus.is_none()
    {
        config.cpus = CpuSet::from_str(&cpu.to_string())
            .ok()
            .map(|set| Affinity::Each(vec![set]));
    }
    config.cpus_soft = affinity(vars, "cpus_soft");
    config.cpu_weight = vars.integer("cpu_weight", "shares", 1..=u16::MAX);
    config.cpu_cap = vars.integer("cpu_cap", "percent", 0..=u16::MAX);
}

/// xm's `vcpu_avail`: the vCPUs that are online at start, as a mask. They are brought online in order, so it has no holes.
fn available(vars: &mut Variables<'_>, config: &mut GuestConfig, mask: u64) {
    let online = mask.trailing_ones();
    if online != mask.count_ones() || online > config.max_vcpus() {
        let most = config.max_vcpus();
        vars.error(
            "vcpu_avail",
            None,
            format!(
                "`{mask:#x}` is not what was expected: a mask of the first vCPUs, at most {most}"
            ),
        );
        return;
    }
    config.max_vcpus = Some(config.max_vcpus());
    config.vcpus = online;
}

/// `cpus`: a set for all vCPUs, a number, or a list with a set for each vCPU.
fn affinity(vars: &mut Variables<'_>, name: &'static str) -> Option<Affinity> {
    let value = vars.take(name)?;
    let mut set = |value: &Value, item: Option<usize>| -> Option<CpuSet> {
        let text = match value {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            other => {
                return vars.expected(
                    name,
                    item,
                    other,
                    "a set such as \"0-3,^2\", or a list with one for each vCPU",
                );
            }
        };
        match text.parse() {
            Ok(set) => Some(set),
            Err(error) => {
                let error: oxen_guest_config::Error = error;
                vars.error(name, item, error.problem);
                None
            }
        }
    };
    match &value {
        Value::Text(text) if text.trim().is_empty() => None,
        Value::List(items) if items.is_empty() => None,
        Value::List(items) => {
            let sets: Vec<CpuSet> = items
                .iter()
                .enumerate()
                .filter_map(|(i, item)| set(item, Some(i)))
                .collect();
            Some(Affinity::Each(sets))
        }
        other => set(other, None).map(Affinity::Together),
    }
}

fn actions(vars: &mut Variables<'_>, config: &mut GuestConfig) {
    if let Some(word) = vars.text("restart") {
        let (poweroff, reboot, crash) = match word.as_str() {
            "always" => (Action::Restart, Action::Restart, Action::Restart),
            "onreboot" => (Action::Destroy, Action::Restart, Action::Destroy),
            "never" => (Action::Destroy, Action::Destroy, Action::Destroy),
            _ => {
                return vars.error(
                    "restart",
                    None,
                    format!("`{word}` is not one of onreboot, always, never"),
                );
            }
        };
        (config.on_poweroff, config.on_reboot, config.on_crash) = (poweroff, reboot, crash);
    }
    if let Some(word) = vars.parsed("on_shutdown") {
        config.on_poweroff = word;
    }
    for (option, action) in [
        ("on_poweroff", &mut config.on_poweroff),
        ("on_reboot", &mut config.on_reboot),
        ("on_crash", &mut config.on_crash),
        ("on_watchdog", &mut config.on_watchdog),
    ] {
        if let Some(word) = vars.parsed(option) {
            *action = word;
        }
    }
    // Only fully virtual guests are reset in place.
    vars.take("on_soft_reset");
    config.on_xend_start = vars.parsed("on_xend_start").unwrap_or_default();
    config.on_xend_stop = vars.parsed("on_xend_stop").unwrap_or_default();
}

fn limits(vars: &mut Variables<'_>) -> Limits {
    let event_channels = vars.integer("event_channels", "ports", 1..=1 << 17);
    Limits {
        max_grant_frames: vars.integer("max_grant_frames", "frames", 1..=1 << 20),
        max_maptrack_frames: vars.integer("max_maptrack_frames", "frames", 0..=1 << 20),
        max_event_channels: vars
            .integer("max_event_channels", "ports", 1..=1 << 17)
            .or(event_channels),
        max_grant_version: vars.integer("max_grant_version", "grant table versions", 1..=2),
    }
}
