//! A guest's disks.

use crate::text::words;
use crate::{Error, Result, Vdev};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How domain 0 reaches a disk's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BlockBackend {
    /// By what the target is: block devices as they are, files through a loop device.
    #[default]
    Auto,
    /// The target is a block device.
    Phy,
    /// The target is a file, which a loop device makes a block device.
    File,
}

words!(
    BlockBackend,
    "backendtype",
    Auto = "auto" | "qdisk" | "tap" | "tap2",
    Phy = "phy",
    File = "file"
);

/// The format of a disk's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    /// The disk's bytes one by one.
    #[default]
    Raw,
    /// QEMU's first format. [`crate::GuestConfig::check`] refuses it.
    Qcow,
    /// QEMU's second format. [`crate::GuestConfig::check`] refuses it.
    Qcow2,
    /// Microsoft's format. [`crate::GuestConfig::check`] refuses it.
    Vhd,
    /// QEMU's enhanced format. [`crate::GuestConfig::check`] refuses it.
    Qed,
}

words!(
    DiskFormat,
    "format",
    Raw = "raw" | "aio",
    Qcow = "qcow",
    Qcow2 = "qcow2",
    Vhd = "vhd",
    Qed = "qed"
);

/// Whether a guest may write to a disk, and what others may do meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DiskMode {
    /// It reads. Others may read too, but nobody may write.
    #[default]
    Read,
    /// It reads, whatever others do.
    ReadForced,
    /// It reads and writes, and nobody else uses the disk.
    Write,
    /// It reads and writes, whatever others do: for cluster file systems.
    WriteForced,
}

words!(
    DiskMode,
    "access",
    Read = "r" | "ro",
    ReadForced = "r!" | "ro!",
    Write = "w" | "rw",
    WriteForced = "w!" | "rw!"
);

impl DiskMode {
    /// Whether the guest may write.
    pub fn writable(self) -> bool {
        matches!(self, Self::Write | Self::WriteForced)
    }

    /// Whether the checks for other users of the disk are left out.
    pub fn forced(self) -> bool {
        matches!(self, Self::ReadForced | Self::WriteForced)
    }
}

/// A disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its name in the guest.
    pub vdev: Vdev,
    /// The data: an absolute path in domain 0, or what `script` takes. Empty only in a CD drive without a disc.
    #[serde(default)]
    pub target: String,
    /// How domain 0 reaches the data.
    #[serde(default)]
    pub backend: BlockBackend,
    /// Their format.
    #[serde(default)]
    pub format: DiskFormat,
    /// Who may do what with them.
    #[serde(default)]
    pub mode: DiskMode,
    /// It is a CD drive.
    #[serde(default)]
    pub cdrom: bool,
    /// The script that makes the target usable; `None` leaves it to the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The domain that serves the disk, by name or id; `None` is domain 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_domain: Option<String>,
    /// Whether the guest may discard blocks; `None` leaves it to the back end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<bool>,
}

/// What has been read of a disk so far.
#[derive(Default)]
struct Parts {
    target: Option<String>,
    vdev: Option<Vdev>,
    backend: Option<BlockBackend>,
    format: Option<DiskFormat>,
    mode: Option<DiskMode>,
    cdrom: bool,
    script: Option<String>,
    backend_domain: Option<String>,
    discard: Option<bool>,
    /// The number of values without a key.
    positional: usize,
    /// The target had a prefix such as `phy:`, after which no format is given by position.
    prefixed: bool,
}

impl FromStr for Disk {
    type Err = Error;

    /// Reads both spellings: xm's `phy:vg/root,xvda1,w` and xl's `/path,raw,xvda,rw` or `format=raw,vdev=xvda,access=rw,target=/path`.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = Parts::default();
        let mut rest = text;
        loop {
            let trimmed = rest.trim_start();
            // The target's value is all that follows, commas included.
            if let Some(target) = trimmed.strip_prefix("target=") {
                parts.set_target(target.trim_end())?;
                break;
            }
            let (word, tail) = match trimmed.split_once(',') {
                Some((word, tail)) => (word, Some(tail)),
                None => (trimmed, None),
            };
            parts.word(word.trim())?;
            match tail {
                Some(tail) => rest = tail,
                None => break,
            }
        }
        parts.finish(text)
    }
}

impl Parts {
    /// One word between commas.
    fn word(&mut self, word: &str) -> Result<()> {
        match word {
            "cdrom" | "devtype=cdrom" => self.cdrom = true,
            "devtype=disk" | "direct-io-safe" => {}
            "discard" => self.discard = Some(true),
            "no-discard" => self.discard = Some(false),
            // A target may have an equals sign in its path, but then it starts with a slash or a prefix.
            _ => match word.split_once('=').filter(|(key, _)| is_key(key)) {
                Some((key, value)) => return self.key(key, value.trim()),
                None => return self.position(word),
            },
        }
        Ok(())
    }

    /// A word with a key.
    fn key(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "vdev" => self.set_vdev(value)?,
            "format" => self.format = Some(value.parse()?),
            "access" => self.mode = Some(value.parse()?),
            "backendtype" => self.backend = Some(value.parse()?),
            "backend" => self.backend_domain = Some(value.to_owned()),
            "script" => self.script = Some(value.to_owned()),
            _ => {
                return Err(Error::new(
                    "disk",
                    format!(
                        "there is no key `{key}`; expected target, format, vdev, access, devtype, backendtype, backend or script"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A word without key: target, format, vdev, access, in that order; after a prefixed target vdev, access, back end.
    fn position(&mut self, word: &str) -> Result<()> {
        self.positional += 1;
        let nth = if self.prefixed && self.positional > 1 {
            self.positional + 1
        } else {
            self.positional
        };
        match nth {
            1 => self.set_target(word)?,
            // xm's users leave the format out: `/path,xvda,w`.
            2 if word.parse::<DiskFormat>().is_err() && word.parse::<Vdev>().is_ok() => {
                self.prefixed = true;
                self.set_vdev(word)?;
            }
            _ if word.is_empty() => {}
            2 => self.format = Some(word.parse()?),
            3 => self.set_vdev(word)?,
            4 => self.mode = Some(word.parse()?),
            5 if self.prefixed => self.backend_domain = Some(word.to_owned()),
            _ => {
                return Err(Error::new(
                    "disk",
                    format!(
                        "`{word}` is one value too many; expected target, format, vdev, access"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The target, with the prefixes that say how it is reached.
    fn set_target(&mut self, target: &str) -> Result<()> {
        let mut target = target;
        let mut is_device = false;
        while let Some((prefix, rest)) = target.split_once(':').filter(|(prefix, _)| is_key(prefix))
        {
            match prefix {
                "phy" => {
                    self.backend = Some(BlockBackend::Phy);
                    is_device = true;
                }
                "file" => self.backend = Some(BlockBackend::File),
                "tap" | "tap2" | "tapdisk" | "ioemu" => {}
                "aio" | "raw" | "qcow" | "qcow2" | "vhd" => self.format = Some(prefix.parse()?),
                "drbd" | "iscsi" | "nbd" | "enbd" => {
                    self.script = Some(format!("block-{prefix}"));
                    self.prefixed = true;
                    self.target = Some(rest.to_owned());
                    return Ok(());
                }
                _ => {
                    return Err(Error::new(
                        "disk",
                        format!(
                            "`{prefix}:` is no kind of disk; expected phy:, file:, tap:aio: or a path"
                        ),
                    ));
                }
            }
            self.prefixed = true;
            target = rest;
        }
        self.target = Some(
            if is_device && !target.is_empty() && !target.starts_with('/') {
                format!("/dev/{target}")
            } else {
                target.to_owned()
            },
        );
        Ok(())
    }

    /// The name in the guest, which may end with the kind of device.
    fn set_vdev(&mut self, name: &str) -> Result<()> {
        let name = match name.strip_suffix(":cdrom") {
            Some(name) => {
                self.cdrom = true;
                name
            }
            None => name.strip_suffix(":disk").unwrap_or(name),
        };
        self.vdev = Some(name.parse()?);
        Ok(())
    }

    /// The disk, given the text that it was read from.
    fn finish(self, text: &str) -> Result<Disk> {
        let missing = |what: &str| {
            Error::new(
                "disk",
                format!(
                    "`{text}` lacks {what}; expected `phy:vg/disk,xvda,w`, `file:/path,xvda,w` or \
                     `format=raw,vdev=xvda,access=rw,target=/path`"
                ),
            )
        };
        let vdev = self
            .vdev
            .ok_or_else(|| missing("the name that the disk has in the guest"))?;
        let target = self.target.unwrap_or_default();
        if target.is_empty() && !self.cdrom {
            return Err(missing("a target"));
        }
        // xl gives write access unless told otherwise, xm's users always say; a CD cannot be written.
        let mode = self.mode.unwrap_or(if self.cdrom {
            DiskMode::Read
        } else {
            DiskMode::Write
        });
        Ok(Disk {
            vdev,
            target,
            backend: self.backend.unwrap_or_default(),
            format: self.format.unwrap_or_default(),
            mode,
            cdrom: self.cdrom,
            script: self.script,
            backend_domain: self.backend_domain,
            discard: self.discard,
        })
    }
}

/// Whether a word may be a key or a prefix: letters, digits and dashes, starting with a letter.
fn is_key(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

impl fmt::Display for Disk {
    /// xl's spelling with keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "vdev={},format={},access={}",
            self.vdev, self.format, self.mode
        )?;
        if self.backend != BlockBackend::Auto {
            write!(f, ",backendtype={}", self.backend)?;
        }
        if self.cdrom {
            f.write_str(",cdrom")?;
        }
        if let Some(script) = &self.script {
            write!(f, ",script={script}")?;
        }
        if let Some(domain) = &self.backend_domain {
            write!(f, ",backend={domain}")?;
        }
        match self.discard {
            Some(true) => f.write_str(",discard")?,
            Some(false) => f.write_str(",no-discard")?,
            None => {}
        }
        write!(f, ",target={}", self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(text: &str) -> Disk {
        let disk: Disk = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            disk.to_string().parse::<Disk>().as_ref(),
            Ok(&disk),
            "{text}"
        );
        disk
    }

    #[test]
    fn xm_s_spelling() {
        let root = disk("phy:vg0/root,xvda1,w");
        assert_eq!(
            (root.target.as_str(), root.backend),
            ("/dev/vg0/root", BlockBackend::Phy)
        );
        assert_eq!((root.vdev.name(), root.mode), ("xvda1", DiskMode::Write));
        let data = disk("file:/srv/a=b.img,sda2,r");
        assert_eq!(
            (data.target.as_str(), data.backend),
            ("/srv/a=b.img", BlockBackend::File)
        );
        assert_eq!(data.mode, DiskMode::Read);
        assert_eq!(disk("tap:aio:/srv/x,xvdb,w!").mode, DiskMode::WriteForced);
        assert_eq!(disk("tap:qcow:/srv/x,xvdb,w").format, DiskFormat::Qcow);
        let cd = disk("file:/srv/cd.iso,hdc:cdrom,r");
        assert!(cd.cdrom && !cd.mode.writable());
        assert_eq!(
            disk("phy:/dev/sdb,xvdc,w,storage")
                .backend_domain
                .as_deref(),
            Some("storage")
        );
        assert_eq!(disk("drbd:r0,xvda,w").script.as_deref(), Some("block-drbd"));
    }

    #[test]
    fn xl_s_spelling() {
        let a = disk("/dev/vg/guest-volume,raw,xvda,rw");
        assert_eq!(
            (a.target.as_str(), a.mode),
            ("/dev/vg/guest-volume", DiskMode::Write)
        );
        assert_eq!(
            disk("/dev/vg/guest-volume,,hda"),
            disk("format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume")
        );
        assert_eq!(
            disk("raw:/dev/vg/guest-volume,hda,w"),
            disk("/dev/vg/guest-volume,,hda")
        );
        let cd = disk("/root/image.iso,,hdc,cdrom");
        assert!(cd.cdrom && cd.mode == DiskMode::Read);
        assert!(disk(",,hdc:cdrom,r").target.is_empty());
        assert_eq!(disk("vdev=xvdb,discard,target=/a,b=c").target, "/a,b=c");
        assert_eq!(disk("/a,xvda").mode, DiskMode::Write);
    }

    #[test]
    fn refusals_name_what_is_missing() {
        let refusal = |text: &str| text.parse::<Disk>().unwrap_err().to_string();
        assert!(refusal("").contains("lacks"));
        assert!(refusal("phy:a").contains("the name"));
        assert!(refusal("phy:,xvda,w").contains("a target"));
        assert!(refusal("phy:a,vda,w").contains("`vda`"));
        assert!(refusal("phy:a,xvda,x").contains("`x` is not one of r, r!, w, w!"));
        assert!(refusal("phi:a,xvda,w").contains("`phi:`"));
        assert!(refusal("vdef=xvda,target=/a").contains("`vdef`"));
        assert!(refusal("/a,raw,xvda,w,w,w").contains("too many"));
    }
}
