//! The daemon's configuration, `/etc/xen/xend-config.sxp`.

use crate::sxp::{self, Expression, Position, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs, io};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/xen/xend-config.sxp";

/// What the daemon is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `dom0-min-mem`, in KiB: domain 0 is not ballooned below it; 0 leaves domain 0 alone.
    pub dom0_min_mem_kib: u64,
    /// `vif-script`: the script for network cards that name none; without it they are set up by the daemon itself.
    pub vif_script: Option<String>,
    /// `vif-bridge`: the bridge for network cards that name none.
    pub vif_bridge: Option<String>,
    /// `network-script`: run with `start` when the daemon starts.
    pub network_script: Option<String>,
    /// `console-limit`, in KiB: how much of a guest's output is kept while nobody reads it.
    pub console_limit_kib: u64,
    /// `device-timeout`, in seconds: how long a device's back end may take to get ready or to go away.
    pub device_timeout: Duration,
    /// `console-timeout`, in seconds: how long a guest that has ended is kept for `xenconsoled` to find its console, if it has not yet.
    pub console_timeout: Duration,
    /// `shutdown-timeout`, in seconds: how long a guest may take to acknowledge a request to shut down.
    pub shutdown_timeout: Duration,
    /// `restart-limit`: a guest that restarts more often than this within a minute is not started again.
    pub restart_limit: usize,
    /// `log-level`.
    pub log_level: tracing::Level,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dom0_min_mem_kib: 256 << 10,
            vif_script: None,
            vif_bridge: None,
            network_script: None,
            console_limit_kib: 1024,
            device_timeout: Duration::from_secs(40),
            console_timeout: Duration::from_secs(2),
            shutdown_timeout: Duration::from_secs(30),
            restart_limit: 5,
            log_level: tracing::Level::INFO,
        }
    }
}

/// Settings of Xen's daemon that this one does not act on; they are accepted so that an existing file goes on working.
const WITHOUT_EFFECT: &[&str] = &[
    "logfile",
    "loglevel",
    "xend-http-server",
    "xend-unix-server",
    "xend-tcp-xmlrpc-server",
    "xend-unix-xmlrpc-server",
    "xend-relocation-server",
    "xend-unix-path",
    "xend-port",
    "xend-relocation-port",
    "xend-address",
    "xend-relocation-address",
    "xend-relocation-hosts-allow",
    "enable-dom0-ballooning",
    "total_available_memory",
    "dom0-cpus",
    "enable-dump",
    "vnc-listen",
    "vncpasswd",
    "keymap",
];

/// Why a configuration file is not usable.
#[derive(Debug)]
pub enum SettingsError {
    /// It cannot be read.
    File(PathBuf, io::Error),
    /// Something in it is wrong.
    Content(PathBuf, Position, String),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Content(path, at, problem) => write!(f, "{}: {at}: {problem}", path.display()),
        }
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Reads a file; a file that does not exist leaves everything at its default. Also returns warnings.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or understood.
    pub fn read(path: &Path) -> Result<(Self, Vec<String>), SettingsError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Self::default(), Vec::new())),
            Err(error) => return Err(SettingsError::File(path.to_owned(), error)),
        };
        Self::parse(&text).map_err(|(at, problem)| SettingsError::Content(path.to_owned(), at, problem))
    }

    fn parse(text: &str) -> Result<(Self, Vec<String>), (Position, String)> {
        let mut settings = Self::default();
        let mut warnings = Vec::new();
        for entry in sxp::parse(text).map_err(|error| (error.at, error.problem))? {
            let Value::List(items) = &entry.value else {
                return Err((entry.at, "expected a list such as (dom0-min-mem 256)".to_owned()));
            };
            let words: Vec<&str> = items.iter().filter_map(atom).collect();
            match &words[..] {
                [name, ..] if WITHOUT_EFFECT.contains(name) => warnings.push(format!("{}: {name} has no effect", entry.at)),
                [name, values @ ..] if words.len() == items.len() => settings.set(name, values).map_err(|problem| (entry.at, problem))?,
                _ => return Err((entry.at, "expected a name and its value".to_owned())),
            }
        }
        Ok((settings, warnings))
    }

    fn set(&mut self, name: &str, values: &[&str]) -> Result<(), String> {
        let text = values.join(" ");
        let number = || text.parse::<u64>().map_err(|_| format!("{name}: `{text}` is no number"));
        let seconds = || number().map(Duration::from_secs);
        let word = || (!text.is_empty()).then(|| text.clone());
        match name {
            "dom0-min-mem" => self.dom0_min_mem_kib = number()?.checked_mul(1024).ok_or_else(|| format!("{name}: {text} MiB is more than can be"))?,
            "vif-script" => self.vif_script = word(),
            "vif-bridge" => self.vif_bridge = word(),
            "network-script" => self.network_script = word(),
            "console-limit" => self.console_limit_kib = number()?,
            "console-timeout" => self.console_timeout = seconds()?,
            "device-create-timeout" | "device-timeout" => self.device_timeout = seconds()?,
            "shutdown-timeout" => self.shutdown_timeout = seconds()?,
            "restart-limit" => self.restart_limit = usize::try_from(number()?).unwrap_or(usize::MAX),
            "log-level" => self.log_level = text.parse().map_err(|_| format!("{name}: `{text}` is none of error, warn, info, debug, trace"))?,
            _ => return Err(format!("unknown setting `{name}`")),
        }
        Ok(())
    }
}

fn atom(expression: &Expression) -> Option<&str> {
    match &expression.value {
        Value::Atom(text) => Some(text),
        Value::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let (settings, warnings) = Settings::parse("(dom0-min-mem 512)\n(vif-script vif-bridge bridge=br0)\n(xend-port 8000)").unwrap();
        assert_eq!(settings.dom0_min_mem_kib, 512 << 10);
        assert_eq!(settings.vif_script.as_deref(), Some("vif-bridge bridge=br0"));
        assert_eq!(warnings, ["line 3, column 1: xend-port has no effect"]);
    }

    #[test]
    fn errors_name_setting_and_place() {
        let (at, problem) = Settings::parse("\n (dom0-min-mem much)").unwrap_err();
        assert_eq!((at.line, at.column, problem.as_str()), (2, 2, "dom0-min-mem: `much` is no number"));
        assert!(Settings::parse("(colour blue)").unwrap_err().1.contains("colour"));
    }
}
