//! Has configuration files evaluated that do more than to assign literals.

use crate::exit::Failure;
use oxen_config_file::{Answer, Request};
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::{env, thread};

/// The program, which is where this one is.
const PROGRAM: &str = "oxen-config-evaluator";

/// What the evaluator says.
///
/// # Errors
///
/// That it cannot be started, or breaks off: a file may ask for more than its limits.
pub fn evaluate(request: &Request) -> Result<Answer, Failure> {
    let program = env::current_exe().map(|this| this.with_file_name(PROGRAM)).map_err(|error| Failure::Other(format!("cannot tell where {PROGRAM} is: {error}")))?;
    let input = serde_json::to_vec(request).map_err(|error| Failure::Other(format!("{}: {error}", request.source.name)))?;
    let output = ask(Command::new(&program), &input).map_err(|error| Failure::Other(format!("cannot run {}, which evaluates {}: {error}", program.display(), request.source.name)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().next().unwrap_or("nothing was said");
        // The limits end it by signals; what it ends with by itself is no fault of the file.
        return Err(match output.status.code() {
            None => Failure::Config(vec![format!("{}: the file asks for more than can be evaluated ({}: {line})", request.source.name, output.status)]),
            Some(_) => Failure::Other(format!("{} cannot evaluate {} ({}: {line})", program.display(), request.source.name, output.status)),
        });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Failure::Other(format!("{}: {error}", program.display())))
}

/// Runs a program that reads all its input.
fn ask(mut program: Command, input: &[u8]) -> io::Result<Output> {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        // One that breaks off says why by how it ends.
        let write = move || stdin.map(|mut stdin| stdin.write_all(input));
        scope.spawn(write);
        child.wait_with_output()
    })
}
