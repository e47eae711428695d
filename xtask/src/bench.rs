//! `bench`.
use anyhow::Result;
use crate::workspace::Workspace;
/// What `bench` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {}
/// Runs it.
pub fn run(_ws: &Workspace, _options: &Options) -> Result<bool> {
    anyhow::bail!("the benchmark is not part of this build")
}
