//! The binary's behaviour where no hypervisor is needed.

use std::path::Path;
use std::process::{Command, Output};

fn xm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xm"))
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

#[test]
fn help_lists_commands_and_exit_codes() {
    let output = xm(&["help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for word in [
        "info",
        "list",
        "vcpu-list",
        "uptime",
        "dmesg",
        "debug-keys",
        "Exit codes",
    ] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
}

#[test]
fn help_as_json_names_the_commands() {
    let output = xm(&["help", "--json"]);
    let json: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("the output is JSON");
    assert_eq!(json["name"], "xm");
    let commands = json["commands"].as_array().expect("commands are a list");
    assert!(
        commands
            .iter()
            .any(|command| command["name"] == "debug-keys")
    );
}

#[test]
fn help_on_one_command() {
    assert!(stdout(&xm(&["help", "dmesg"])).contains("--clear"));
    assert_eq!(xm(&["help", "nothing"]).status.code(), Some(2));
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    assert_eq!(xm(&["nothing"]).status.code(), Some(2));
    assert_eq!(xm(&["debug-keys"]).status.code(), Some(2));
}

#[test]
fn without_a_hypervisor_the_message_says_what_to_do() {
    if Path::new("/dev/xen/privcmd").exists() || Path::new("/proc/xen").exists() {
        return;
    }
    let output = xm(&["info"]);
    assert_eq!(output.status.code(), Some(3));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.starts_with("xm: this system does not run under Oxen or Xen"),
        "{message}"
    );
}
