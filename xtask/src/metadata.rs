//! What cargo knows about the workspace.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::toolchain::INHERITED;
use crate::workspace::Workspace;

/// The workspace's packages.
pub struct Packages(Vec<Package>);

/// One package of the workspace.
#[derive(Debug)]
pub struct Package {
    /// Its name, `oxen-core`.
    pub name: String,
    /// The directory of its `Cargo.toml`.
    pub dir: PathBuf,
    /// Names of the workspace packages among its normal dependencies.
    pub imports: Vec<String>,
    /// Names of its programs.
    pub binaries: Vec<String>,
}

impl Packages {
    /// Asks cargo.
    pub fn load(ws: &Workspace) -> Result<Self> {
        let mut command = std::process::Command::new("cargo");
        for name in INHERITED {
            command.env_remove(name);
        }
        let output = command.current_dir(&ws.root).args(["metadata", "--format-version=1", "--no-deps"]).output().context("cannot run cargo metadata")?;
        anyhow::ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout)?;
        let packages = json["packages"].as_array().context("cargo metadata lists no packages")?;
        Ok(Self(packages.iter().filter_map(package).collect()))
    }

    /// All packages.
    pub fn iter(&self) -> impl Iterator<Item = &Package> {
        self.0.iter()
    }

    /// The programs of one package; empty when the package does not exist.
    pub fn binaries(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|package| package.name == name).flat_map(|package| package.binaries.clone()).collect()
    }
}

fn package(json: &Value) -> Option<Package> {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let manifest = PathBuf::from(json["manifest_path"].as_str()?);
    Some(Package {
        name: json["name"].as_str()?.to_owned(),
        dir: manifest.parent()?.to_path_buf(),
        imports: array(&json["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string())
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
            .collect(),
        binaries: array(&json["targets"])
            .iter()
            .filter(|target| array(&target["kind"]).iter().any(|kind| kind == "bin"))
            .filter_map(|target| target["name"].as_str().map(str::to_owned))
            .collect(),
    })
}
