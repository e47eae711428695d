//! Evaluates the configuration file in the request on standard input, JSON of [`Request`], and answers with JSON of [`Answer`].
#![forbid(unsafe_code)]

use oxen_config_file::{Answer, Request};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io::{Error, Write, stdin, stdout};

/// The most address space, in bytes: that of the stack, of the heap for values, and as much again for everything else.
const MAX_ADDRESS_SPACE: u64 = 512 << 20;
/// The longest that a file may be evaluated, in seconds of the processor.
const MAX_SECONDS: u64 = 60;

fn main() -> Result<(), Error> {
    let limits = [(Resource::As, MAX_ADDRESS_SPACE), (Resource::Cpu, MAX_SECONDS), (Resource::Core, 0)];
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    let request: Request = serde_json::from_reader(stdin().lock())?;
    let answer: Answer = oxen_config_evaluator::read(&request);
    let mut out = stdout().lock();
    serde_json::to_writer(&mut out, &answer)?;
    out.flush()
}
