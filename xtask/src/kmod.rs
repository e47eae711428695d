//! Kernel modules with what they need, in an order in which they can be loaded.
//!
//! Debian's packages carry no `modules.dep` (it is made at installation); each module names its needs itself, in its
//! `.modinfo` section as `depends=a,b` and `softdep=pre: c`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::Tool;
use crate::workspace::Workspace;

/// The modules of one kernel.
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
}

/// One module to load.
#[derive(Debug)]
pub struct Module {
    /// Its name with underscores.
    pub name: String,
    /// The uncompressed ELF file.
    pub content: Vec<u8>,
}

impl Modules {
    /// Finds every module below `/lib/modules/<version>/kernel`.
    pub fn scan(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut pending = vec![dir.to_path_buf()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    pending.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        Ok(Self { files })
    }

    /// The wanted modules and everything they need, needs first. Names that this kernel does not have are built in
    /// (or not configured) and are skipped.
    pub fn resolve(&self, ws: &Workspace, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.visit(ws, name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, ws: &Workspace, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        let name = name.replace('-', "_");
        if !seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(path) = self.files.get(&name) else { return Ok(()) };
        let content = read_module(ws, path)?;
        for need in needs(&content) {
            self.visit(ws, &need, seen, order)?;
        }
        order.push(Module { name, content });
        Ok(())
    }
}

/// The module name of a file, `None` for other files.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

fn read_module(ws: &Workspace, path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|ext| ext != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let plain = path.with_extension("");
    if !plain.exists() {
        let title = format!("unpack {}", path.file_name().unwrap_or_default().to_string_lossy());
        Tool::new(ws, "xz", &title).args(["-dk".as_ref(), path.as_os_str()]).run_quietly()?;
    }
    fs::read(&plain).with_context(|| format!("cannot read {}", plain.display()))
}

/// The names after `depends=` and after `softdep=pre:` in a module's `.modinfo` strings.
fn needs(module: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for text in module.split(|byte| *byte == 0).filter_map(|bytes| std::str::from_utf8(bytes).ok()) {
        if let Some(list) = text.strip_prefix("depends=") {
            names.extend(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
        } else if let Some(list) = text.strip_prefix("softdep=pre:") {
            names.extend(list.split_whitespace().take_while(|word| !word.ends_with(':')).map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_come_from_modinfo() {
        let module = b"\x7fELF\0license=GPL\0depends=jbd2,mbcache\0softdep=pre: crc32c post: other\0depends=\0";
        assert_eq!(needs(module), ["jbd2", "mbcache", "crc32c"]);
    }

    #[test]
    fn names_are_normalised() {
        assert_eq!(module_name(Path::new("/x/xen-privcmd.ko")).as_deref(), Some("xen_privcmd"));
        assert_eq!(module_name(Path::new("/x/ext4.ko.xz")).as_deref(), Some("ext4"));
        assert_eq!(module_name(Path::new("/x/modules.order")), None);
    }
}
