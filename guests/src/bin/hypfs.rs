//! hypfs_op: what is read by path, and what is refused.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::Hypercall;
use oxen_abi::hypfs::{HypfsDirlistentry, HypfsOp, HypfsType};
use oxen_guests::hypercall::{self, Rc};
use oxen_guests::{check, expect, expect_text};

oxen_guests::test_kernel!("hypfs", run);

const READ: u64 = HypfsOp::READ.0 as u64;
const WRITE: u64 = HypfsOp::WRITE_CONTENTS.0 as u64;
/// Bytes of `struct xen_hypfs_direntry`, which comes before what an entry holds.
const HEAD: usize = 12;

fn raw(args: [u64; 5]) -> Rc {
    Rc(hypercall::raw(Hypercall::HYPFS_OP.0.into(), args))
}

/// Reads the entry at `path`, which has its zero, into `answer`.
fn read(path: &[u8], answer: &mut [u8]) -> Rc {
    raw([READ, path.as_ptr() as u64, path.len() as u64, answer.as_mut_ptr() as u64, answer.len() as u64])
}

/// The bytes that the head of an answer speaks of.
fn length(answer: &[u8]) -> usize {
    u32::from_le_bytes([answer[4], answer[5], answer[6], answer[7]]) as usize
}

fn run() {
    expect_text!("version", raw([0; 5]), "1");
    expect_text!("version.argument", raw([0, 1, 0, 0, 0]), "-EINVAL");
    expect_text!("unknown", raw([9, 0, 0, 0, 0]), "-EINVAL");
    values();
    directories();
    errors();
}

fn values() {
    let mut answer = [0xff_u8; 256];
    expect_text!("minor", read(b"/buildinfo/version/minor\0", &mut answer), "0");
    expect!("minor.type", answer[0], HypfsType::UINT.0);
    expect!("minor.encoding", answer[1], 0);
    expect!("minor.pad", answer[2..4] == [0, 0], true);
    expect!("minor.length", length(&answer), 4);
    expect!("minor.write_length", answer[8..HEAD] == [0; 4], true);
    expect!("minor.value", answer[HEAD..HEAD + 4] == [17, 0, 0, 0], true);
    expect!("minor.no_more", answer[HEAD + 4..].iter().all(|byte| *byte == 0xff), true);
    for (name, path) in [("extra", b"/buildinfo/version/extra\0".as_slice()), ("compiler", b"/buildinfo/compileinfo/compiler\0"), ("changeset", b"/buildinfo/changeset\0")] {
        expect_text!(name, read(path, &mut answer), "0");
        expect!("text.type", answer[0], HypfsType::STRING.0);
        let text = &answer[HEAD..HEAD + length(&answer)];
        expect!("text.zero", text.iter().position(|byte| *byte == 0) == Some(text.len() - 1), true);
    }
    expect_text!("granularity", read(b"/cpupool/0/sched-gran\0", &mut answer), "0");
    expect!("granularity.value", &answer[HEAD..HEAD + length(&answer)] == b"cpu\0", true);
}

/// Whether a directory's listing is well-formed and has this name.
fn lists(answer: &[u8], name: &[u8]) -> bool {
    let mut rest = &answer[HEAD..HEAD + length(answer)];
    let mut found = false;
    loop {
        let entry = &rest[HypfsDirlistentry::NAME..];
        let end = entry.iter().position(|byte| *byte == 0).unwrap_or(entry.len());
        found |= &entry[..end] == name;
        // The name is padded, whatever comes before it.
        let size = HypfsDirlistentry::NAME + (end + 1).next_multiple_of(4);
        match usize::from(u16::from_le_bytes([rest[12], rest[13]])) {
            // Xen has some bytes to spare behind what it makes as it is read.
            0 => return found && rest.len() >= size,
            next if next == size && next < rest.len() => rest = &rest[next..],
            _ => return false,
        }
    }
}

fn directories() {
    let mut answer = [0_u8; 2048];
    for (name, path, child) in [
        ("root", b"/\0".as_slice(), b"buildinfo".as_slice()),
        ("buildinfo", b"/buildinfo\0", b"version"),
        ("slash", b"/buildinfo/\0", b"compileinfo"),
        ("version", b"/buildinfo/version\0", b"major"),
        ("cpupool", b"/cpupool\0", b"0"),
    ] {
        expect_text!(name, read(path, &mut answer), "0");
        expect!("directory.type", answer[0], HypfsType::DIR.0);
        expect!("directory.lists", lists(&answer, child), true);
    }
    expect_text!("version", read(b"/buildinfo/version\0", &mut answer), "0");
    expect!("version.length", length(&answer), 66);
}

fn errors() {
    let mut answer = [0_u8; 64];
    let minor = b"/buildinfo/version/minor\0";
    for (name, path, text) in [
        ("path.missing", b"/nothing\0".as_slice(), "-ENOENT"),
        ("path.below_value", b"/buildinfo/version/minor/x\0", "-ENOENT"),
        ("path.value_slash", b"/buildinfo/version/minor/\0", "-ENOENT"),
        ("path.two_slashes", b"//\0", "-ENOENT"),
        ("path.no_slash", b"buildinfo\0", "-EINVAL"),
        ("path.no_zero", b"/buildinfo", "-EINVAL"),
        ("path.zero_inside", b"/build\0info\0", "-EINVAL"),
        ("path.only_zero", b"\0", "-EINVAL"),
        ("path.empty", b"", "-EINVAL"),
    ] {
        expect_text!(name, read(path, &mut answer), text);
    }
    let (path, length_of_path, to) = (minor.as_ptr() as u64, minor.len() as u64, answer.as_mut_ptr() as u64);
    expect_text!("path.too_long", raw([READ, path, 1025, to, 64]), "-EINVAL");
    expect_text!("path.pointer", raw([READ, 0xffff_8300_0000_0000, length_of_path, to, 64]), "-EFAULT");
    expect_text!("buffer.pointer", raw([READ, path, length_of_path, 0xffff_8300_0000_0000, 64]), "-EFAULT");
    expect_text!("buffer.no_head", raw([READ, path, length_of_path, to, 11]), "-EINVAL");
    answer.fill(0);
    expect_text!("buffer.small", raw([READ, path, length_of_path, to, 15]), "-ENOBUFS");
    expect!("buffer.needed", length(&answer), 4);
    check!("buffer.untouched", answer[HEAD..].iter().all(|byte| *byte == 0));
    expect_text!("buffer.exact", raw([READ, path, length_of_path, to, 16]), "0");
    expect_text!("write.value", raw([WRITE, path, length_of_path, to, 4]), "-EACCES");
    let directory = b"/buildinfo\0";
    expect_text!("write.directory", raw([WRITE, directory.as_ptr() as u64, directory.len() as u64, to, 4]), "-EACCES");
    expect_text!("unknown.with_path", raw([9, path, length_of_path, to, 64]), "-EOPNOTSUPP");
    expect_text!("unknown.missing", raw([9, b"/x\0".as_ptr() as u64, 3, to, 64]), "-ENOENT");
    expect_text!("write.missing", raw([WRITE, path, 3, to, 4]), "-EINVAL");
}
