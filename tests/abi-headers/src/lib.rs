//! Compares the ABI crate with the public C headers.
//!
//! [`program`] writes a C program that prints the size, offset or value of everything in [`oxen_abi::tables`]; [`run`] compiles it
//! against the headers of Debian's `libxen-dev` and runs it; [`differences`] compares.
#![forbid(unsafe_code)]

pub mod families;

use oxen_abi::tables::{CONSTANTS, Constant, Field, STRUCTS, Struct};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The headers that declare what the ABI crate states.
const HEADERS: &[&str] = &[
    "stddef.h",
    "stdint.h",
    "stdio.h",
    "xen/xen.h",
    "xen/arch-x86/cpuid.h",
    "xen/hvm/save.h",
    "xen/arch-x86/hvm/start_info.h",
    "xen/arch-x86/xen-mca.h",
    "xen/callback.h",
    "xen/domctl.h",
    "xen/elfnote.h",
    "xen/errno.h",
    "xen/event_channel.h",
    "xen/features.h",
    "xen/grant_table.h",
    "xen/hvm/dm_op.h",
    "xen/hvm/hvm_info_table.h",
    "xen/hvm/hvm_op.h",
    "xen/hvm/hvm_vcpu.h",
    "xen/hvm/ioreq.h",
    "xen/hvm/params.h",
    "xen/hypfs.h",
    "xen/io/console.h",
    "xen/io/xenbus.h",
    "xen/io/xs_wire.h",
    "xen/memory.h",
    "xen/nmi.h",
    "xen/physdev.h",
    "xen/platform.h",
    "xen/pmu.h",
    "xen/sched.h",
    "xen/sysctl.h",
    "xen/vcpu.h",
    "xen/version.h",
];

/// One fact: a key such as `offset struct start_info.flags`, and its value.
pub type Facts = HashMap<String, u64>;

/// All structures of the ABI crate.
fn structs() -> impl Iterator<Item = &'static Struct> {
    STRUCTS.iter().copied().flatten()
}

/// All constants of the ABI crate.
pub fn constants() -> impl Iterator<Item = &'static Constant> {
    CONSTANTS.iter().copied().flatten()
}

/// The fields of `s` that the header has too.
fn fields(s: &'static Struct) -> impl Iterator<Item = &'static Field> {
    s.fields.iter().filter(|field| !field.is_padding())
}

/// What the ABI crate says.
pub fn rust_facts() -> Facts {
    let mut facts = Facts::new();
    for s in structs() {
        facts.insert(format!("size {}", s.c_name), s.size as u64);
        for field in fields(s) {
            facts.insert(
                format!("offset {}.{}", s.c_name, field.c_name),
                field.offset as u64,
            );
            facts.insert(
                format!("size {}.{}", s.c_name, field.c_name),
                field.size as u64,
            );
        }
    }
    for constant in constants() {
        // Negative C constants are sign-extended when they are converted to 64 bits.
        facts.insert(format!("value {}", constant.c_name), constant.value as u64);
    }
    facts
}

/// The C program that prints the same facts, one per line: key, `=`, value.
pub fn program() -> String {
    let mut text = String::from("#define __XEN_TOOLS__ 1\n");
    for header in HEADERS {
        let _ = writeln!(text, "#include <{header}>");
    }
    text.push_str("#define FACT(key, value) printf(\"%s=%llu\\n\", key, (unsigned long long)(value))\nint main(void)\n{\n");
    for s in structs() {
        let ty = c_type(s.c_name);
        let _ = writeln!(text, "    FACT(\"size {}\", sizeof({ty}));", s.c_name);
        for field in fields(s) {
            let (name, member) = (s.c_name, field.c_name);
            let _ = writeln!(
                text,
                "    FACT(\"offset {name}.{member}\", offsetof({ty}, {member}));"
            );
            let _ = writeln!(
                text,
                "    FACT(\"size {name}.{member}\", sizeof((({ty} *)0)->{member}));"
            );
        }
    }
    for constant in constants() {
        let _ = writeln!(text, "    FACT(\"value {0}\", {0});", constant.c_name);
    }
    text.push_str("    return 0;\n}\n");
    text
}

/// The C spelling of a table's type: `a::b` is the type of member `b` of `a`.
fn c_type(name: &str) -> String {
    match name.split_once("::") {
        Some((outer, member)) => format!("__typeof__((({outer} *)0)->{member})"),
        None => name.to_owned(),
    }
}

/// The directory that holds `xen/xen.h`, or advice on how to get it. `OXEN_XEN_HEADERS` names another one than `/usr/include`.
pub fn include_directory() -> Result<PathBuf, String> {
    let directory = std::env::var_os("OXEN_XEN_HEADERS")
        .map_or_else(|| PathBuf::from("/usr/include"), PathBuf::from);
    if directory.join("xen/xen.h").is_file() {
        return Ok(directory);
    }
    Err(format!(
        "Xen's public headers are not in {}: install Debian's package libxen-dev (apt-get install libxen-dev), \
         or set OXEN_XEN_HEADERS to the directory that holds xen/xen.h",
        directory.display()
    ))
}

/// Compiles [`program`] in `scratch` and returns what it prints.
pub fn run(scratch: &Path) -> Result<Facts, String> {
    let include = include_directory()?;
    let source = scratch.join("facts.c");
    let binary = scratch.join("facts");
    std::fs::write(&source, program())
        .map_err(|e| format!("cannot write {}: {e}", source.display()))?;

    let compiler = Command::new("gcc")
        .args(["-std=gnu11", "-Wall", "-Werror=overflow", "-o"])
        .arg(&binary)
        .arg("-I")
        .arg(&include)
        .arg(&source)
        .output()
        .map_err(|e| format!("cannot run gcc ({e}): install the packages gcc and libc6-dev"))?;
    if !compiler.status.success() {
        let messages = String::from_utf8_lossy(&compiler.stderr).into_owned();
        return Err(format!(
            "the headers lack something that the ABI crate states:\n{messages}"
        ));
    }

    let output = Command::new(&binary)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", binary.display()))?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Reads the program's output.
fn parse(output: &str) -> Result<Facts, String> {
    output
        .lines()
        .map(|line| {
            let (key, value) = line
                .rsplit_once('=')
                .ok_or_else(|| format!("no value in {line:?}"))?;
            let value = value.parse().map_err(|e| format!("{line:?}: {e}"))?;
            Ok((key.to_owned(), value))
        })
        .collect()
}

/// One line for every fact on which the two sides do not agree, sorted.
pub fn differences(rust: &Facts, c: &Facts) -> Vec<String> {
    let mut lines: Vec<String> = rust
        .iter()
        .filter_map(|(key, ours)| match c.get(key) {
            Some(theirs) if theirs == ours => None,
            Some(theirs) => Some(format!("{key}: {ours:#x} here, {theirs:#x} in the header")),
            None => Some(format!(
                "{key}: {ours:#x} here, not printed by the C program"
            )),
        })
        .collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, u64)]) -> Facts {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), *value))
            .collect()
    }

    #[test]
    fn differing_and_missing_facts_are_reported() {
        let rust = facts(&[("size a", 8), ("size b", 4), ("size c", 2)]);
        let c = facts(&[("size a", 8), ("size b", 16)]);
        let lines = differences(&rust, &c);
        assert_eq!(
            lines,
            [
                "size b: 0x4 here, 0x10 in the header",
                "size c: 0x2 here, not printed by the C program"
            ]
        );
    }

    #[test]
    fn output_is_parsed_at_the_last_equals_sign() {
        assert_eq!(
            parse("value A=3\nsize b=8\n"),
            Ok(facts(&[("value A", 3), ("size b", 8)]))
        );
        assert!(parse("nothing").is_err());
    }

    #[test]
    fn members_are_spelt_as_types() {
        assert_eq!(c_type("struct a"), "struct a");
        assert_eq!(c_type("struct a::b.c"), "__typeof__(((struct a *)0)->b.c)");
    }
}
