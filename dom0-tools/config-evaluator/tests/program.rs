//! The program: what it answers, and that a file that asks for too much ends it alone.

use oxen_config_file::{Answer, HostFacts, Request, Source};
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn run(text: &str) -> Output {
    let source = Source { name: "web".to_owned(), text: text.to_owned() };
    let request = Request { source, overrides: Vec::new(), host: HostFacts::default() };
    let mut child = Command::new(env!("CARGO_BIN_EXE_oxen-config-evaluator")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&request).unwrap()).unwrap();
    child.wait_with_output().unwrap()
}

fn answer(text: &str) -> Answer {
    let output = run(text);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn it_answers() {
    let reading = answer("name = 'we' + 'b'\nkernel = '/boot/vmlinuz'\nprint(name)\n").unwrap();
    assert_eq!((reading.config.name.as_str(), reading.output.as_str()), ("web", "web\n"));
    let errors = answer("name = 1 +\n").unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().starts_with("web:"), "{}", errors[0]);
}

#[test]
fn what_asks_for_too_much_ends_it() {
    let output = run("name = 'a' * 2000000000\n");
    assert!(!output.status.success() && output.stdout.is_empty(), "{:?} {}", output.status, output.stdout.len());
    assert!(String::from_utf8_lossy(&output.stderr).contains("memory"), "{output:?}");
}
