//! Where everything lives: the checkout, and what xtask keeps under `target/`.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout and the directories xtask owns in it.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The directory with the root `Cargo.toml`.
    pub root: PathBuf,
    /// `target/`: everything derived.
    pub target: PathBuf,
    /// `target/cache/`: everything fetched, and everything derived that is keyed by its inputs.
    pub cache: PathBuf,
    /// `target/dist/`: the outputs others rely on.
    pub dist: PathBuf,
    /// `target/logs/`: the full output of every step and of every emulated machine.
    pub logs: PathBuf,
}

impl Workspace {
    /// Finds the checkout that this program was built from and creates its output directories.
    pub fn open() -> Result<Self> {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("xtask has no parent directory")?.to_path_buf();
        let target = root.join("target");
        let ws = Self {
            cache: target.join("cache"),
            dist: target.join("dist"),
            logs: target.join("logs"),
            target,
            root,
        };
        for dir in [&ws.cache, &ws.dist, &ws.logs] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Ok(ws)
    }
}

/// A name for a set of inputs; equal inputs give equal names. Only used to find cached results, never as proof.
#[derive(Default)]
pub struct Key(DefaultHasher);

impl Key {
    /// An empty key for one kind of result; raise `version` when the recipe changes.
    pub fn new(kind: &str, version: u32) -> Self {
        let mut key = Self::default();
        kind.hash(&mut key.0);
        version.hash(&mut key.0);
        key
    }

    /// Adds a value.
    pub fn value(mut self, value: impl Hash) -> Self {
        value.hash(&mut self.0);
        self
    }

    /// Adds the content of a file.
    pub fn file(mut self, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        bytes.hash(&mut self.0);
        Ok(self)
    }

    /// The name.
    pub fn finish(self) -> String {
        format!("{:016x}", self.0.finish())
    }
}

/// Writes `bytes` to `path` unless it already holds them; others then see an unchanged time stamp.
/// The file appears whole or not at all.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let dir = path.parent().with_context(|| format!("{} has no parent directory", path.display()))?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    std::io::Write::write_all(&mut file, bytes)?;
    make_readable(file.path())?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Copies a file like [`write_if_changed`], keeping its permissions.
pub fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write_if_changed(to, &bytes)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}

/// Temporary files are private to their owner; results are not.
fn make_readable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_kind_version_and_value() {
        let base = Key::new("iso", 1).value("a").finish();
        assert_eq!(base, Key::new("iso", 1).value("a").finish());
        assert_ne!(base, Key::new("iso", 2).value("a").finish());
        assert_ne!(base, Key::new("cpio", 1).value("a").finish());
        assert_ne!(base, Key::new("iso", 1).value("b").finish());
    }

    #[test]
    fn unchanged_content_keeps_the_time_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_if_changed(&path, b"one").unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        write_if_changed(&path, b"one").unwrap();
        assert_eq!(before, fs::metadata(&path).unwrap().modified().unwrap());
        write_if_changed(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }
}
