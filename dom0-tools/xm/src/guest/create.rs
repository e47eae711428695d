//! `create`, `new`, `start`.

use super::cli::CreateOptions;
use super::{Voice, evaluator, life, wait};
use crate::exit::Failure;
use oxen_config_file::{HostFacts, Override, Reading, Request, Source, read};
use oxen_guest_config::GuestConfig;
use oxen_xend_api::{Client, Create, Domain, Operation, Outcome};
use std::path::{Path, PathBuf};

/// Where configuration files are looked for when their name has no directory.
const CONFIG_DIR: &str = "/etc/xen";

/// Creates a guest (`managed`: makes it known).
pub fn create(client: &Client, options: &CreateOptions, voice: Voice, managed: bool) -> Result<Vec<u8>, Failure> {
    let voice = Voice { quiet: options.quiet, ..voice };
    let config = configuration(options, voice)?;
    if options.dry_run {
        return Ok(crate::json(&config));
    }
    let name = config.name.clone();
    let request = Create { config: Box::new(config), paused: options.paused, managed, start: !managed };
    let outcome = wait(client, client.create(&request)?)?;
    if managed {
        voice.say(&format!("{name} is known; `xm start {name}` starts it"));
        return Ok(super::outcome_text(&outcome, voice.json));
    }
    started(client, &outcome, options.console, voice)
}

/// Starts a managed guest.
pub fn start(client: &Client, domain: &str, paused: bool, console: bool, voice: Voice) -> Result<Vec<u8>, Failure> {
    let outcome = wait(client, client.operate(domain, &Operation::Start { paused })?)?;
    started(client, &outcome, console, voice)
}

fn started(client: &Client, outcome: &Outcome, console: bool, voice: Voice) -> Result<Vec<u8>, Failure> {
    let Outcome::Domain { domain: Domain { name, domid: Some(domid), .. } } = outcome else {
        return Ok(super::outcome_text(outcome, voice.json));
    };
    voice.say(&format!("Started domain {name} (id={domid})"));
    if console {
        return life::console(client, &domid.to_string());
    }
    Ok(if voice.json { crate::json(outcome) } else { Vec::new() })
}

/// Reads the configuration that the command line asks for.
fn configuration(options: &CreateOptions, voice: Voice) -> Result<GuestConfig, Failure> {
    let mut file = options.file.clone();
    let mut overrides = Vec::new();
    for word in &options.words {
        match Override::from_word(word) {
            // A file whose name looks like an assignment can be given with -f.
            Some(assignment) => overrides.push(assignment),
            None if file.is_none() => file = Some(word.clone()),
            None => return Err(Failure::Usage(format!("`{word}` is neither the configuration file, which is {}, nor name=value", file.unwrap_or_default()))),
        }
    }
    let source = match file {
        Some(file) => open(&file, voice)?,
        None if overrides.is_empty() => return Err(Failure::Usage("a configuration file or name=value is needed".to_owned())),
        None => Source { name: "command line".to_owned(), text: String::new() },
    };
    let answer = match read(&source, &overrides) {
        Some(answer) => answer,
        None => evaluator::evaluate(&Request { source, overrides, host: host_facts() })?,
    };
    let Reading { config, warnings, output } = answer.map_err(|problems| Failure::Config(problems.iter().map(ToString::to_string).collect()))?;
    if !output.is_empty() && !voice.quiet {
        eprint!("{output}");
    }
    for warning in warnings {
        eprintln!("xm: warning: {warning}");
    }
    Ok(config)
}

fn open(file: &str, voice: Voice) -> Result<Source, Failure> {
    let mut path = PathBuf::from(file);
    if !path.exists() && !file.contains('/') {
        path = Path::new(CONFIG_DIR).join(file);
    }
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::Config(vec![format!("cannot read the configuration {}: {error}", path.display())]))?;
    let name = path.display().to_string();
    voice.say(&format!("Using config file \"{name}\"."));
    Ok(Source { name, text })
}

fn host_facts() -> HostFacts {
    let uname = rustix::system::uname();
    let parts = [uname.sysname(), uname.nodename(), uname.release(), uname.version(), uname.machine()];
    HostFacts { uname: parts.map(|part| part.to_string_lossy().into_owned()) }
}
