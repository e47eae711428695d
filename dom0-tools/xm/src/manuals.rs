//! Manual pages and completions for shells, made from the command line's description and from the manual of configuration files.

use clap_complete::Shell;
use std::fs;
use std::io;
use std::path::Path;

/// The manual of configuration files.
const CONFIGURATION: &str = include_str!("../../config-file/MANUAL.md");

/// The shells that completions are made for, and the names of their files.
const SHELLS: &[(Shell, &str)] = &[
    (Shell::Bash, "xm.bash"),
    (Shell::Zsh, "_xm"),
    (Shell::Fish, "xm.fish"),
];

/// Writes `xm.1`, a page for each command, `xm.cfg.5` and the completions into `directory`, which is made where it is missing.
pub fn write(mut command: clap::Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    command.build();
    // `xm help list` does what a page of the commands of `help` would repeat.
    let page = command.clone().disable_help_subcommand(true);
    clap_mangen::generate_to(page, directory)?;
    fs::write(directory.join("xm.cfg.5"), roff(CONFIGURATION))?;
    for (shell, name) in SHELLS {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut command, "xm", &mut script);
        fs::write(directory.join(name), script)?;
    }
    Ok(())
}

/// The manual page of a text in the small part of Markdown that the manual uses: headings, paragraphs, lists of definitions, code.
fn roff(markdown: &str) -> String {
    let mut out = String::from(".TH XM.CFG 5 \"\" Oxen \"File formats\"\n");
    let mut in_code = false;
    for line in markdown.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            out.push_str(if in_code { ".PP\n.nf\n" } else { ".fi\n" });
        } else if in_code {
            out.push_str(&text(line));
            out.push('\n');
        } else if let Some(title) = line.strip_prefix("# ") {
            out.push_str(&format!(
                ".SH NAME\n{}\n",
                text(&title.replacen(':', " -", 1)).replace("\\-", "-")
            ));
        } else if let Some(title) = line.strip_prefix("## ") {
            out.push_str(&format!(".SH {}\n", text(title)));
        } else if let Some(item) = line.strip_prefix("- ") {
            let (term, description) = item.split_once(": ").unwrap_or((item, ""));
            out.push_str(&format!(".TP\n{}\n{}\n", inline(term), inline(description)));
        } else if line.is_empty() {
            out.push_str(".PP\n");
        } else {
            out.push_str(&inline(line));
            out.push('\n');
        }
    }
    out
}

/// A line with code between backquotes in bold.
fn inline(line: &str) -> String {
    let parts = line.split('`').enumerate().map(|(i, part)| {
        if i % 2 == 1 {
            format!("\\fB{}\\fR", text(part))
        } else {
            text(part)
        }
    });
    let line: String = parts.collect();
    // A line that starts with one of these would be taken for a request.
    if line.starts_with(['.', '\'']) {
        format!("\\&{line}")
    } else {
        line
    }
}

/// Text without anything that has a meaning in roff.
fn text(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_completions_are_written() {
        let directory =
            std::env::temp_dir().join(format!("oxen-xm-manuals-{}", std::process::id()));
        write(crate::cli::command(), &directory).unwrap();
        let read = |name: &str| {
            fs::read_to_string(directory.join(name))
                .unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        assert!(read("xm.1").contains("Exit codes"));
        assert!(read("xm-dmesg.1").contains("clear"));
        assert!(read("xm.bash").contains("debug-keys"));
        assert!(read("_xm").contains("vcpu-list"));
        assert!(read("xm.fish").contains("vcpu-list"));
        assert!(read("xm.cfg.5").contains(".SH DISKS"));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn roff_is_escaped() {
        assert_eq!(inline("a `b-c` .d"), "a \\fBb\\-c\\fR .d");
        assert_eq!(inline(".x"), "\\&.x");
        let page = roff("# xm.cfg: x\n\n## A\n\n- `k = 1`: what\n\n```\n.code\n```\n");
        assert!(page.contains(".SH NAME\nxm.cfg - x\n"), "{page}");
        assert!(page.contains(".TP\n\\fBk = 1\\fR\nwhat\n"), "{page}");
        assert!(page.contains(".nf\n\\&.code\n.fi\n"), "{page}");
    }

    /// Every option that is read is in the manual.
    #[test]
    fn the_manual_names_the_options() {
        for option in [
            "kernel",
            "vcpu_avail",
            "bootentry",
            "on_watchdog",
            "console_limit",
            "max_event_channels",
            "cpus_soft",
            "nfs_root",
        ] {
            assert!(
                CONFIGURATION.contains(&format!("`{option}")),
                "{option} is missing"
            );
        }
    }
}
