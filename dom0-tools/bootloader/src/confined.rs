//! The confined process.

use crate::disk::partitions;
use crate::find::{Found, Opened, find};
use crate::wire::Answer;
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use std::error::Error;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

/// The most address space, in bytes.
const MAX_ADDRESS_SPACE: u64 = 512 << 20;
/// The most processor time, in seconds: what reading the largest files takes on a slow machine.
const MAX_CPU_S: u64 = 60;
/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

/// The system calls that are left: reading and writing what is open, memory, the end.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    // The standard library asks whether a descriptor is open before it closes it.
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Confines this process and writes what the disk at standard input boots to standard output.
pub fn run(wanted: Option<&str>) -> ExitCode {
    let disk = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(disk) => File::from(disk),
        Err(_) => return ExitCode::FAILURE,
    };
    if confine().is_err() {
        return ExitCode::FAILURE;
    }
    match answer(disk, wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Gives up everything but reading and writing what is open.
fn confine() -> Result<(), Box<dyn Error>> {
    let limits = [
        (Resource::As, MAX_ADDRESS_SPACE),
        (Resource::Cpu, MAX_CPU_S),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nproc, 0),
    ];
    for (resource, most) in limits {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    let rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program)?;
    Ok(())
}

/// Writes the answer for `disk`.
fn answer(mut disk: File, wanted: Option<&str>) -> io::Result<()> {
    let len = disk.seek(SeekFrom::End(0))?;
    let mut out = io::stdout().lock();
    let found = match find(&partitions(disk, len), wanted) {
        Ok(found) => found,
        Err(reason) => return line(&mut out, &Answer::Refused { reason }),
    };
    let Found {
        boot,
        kernel,
        ramdisk,
    } = found;
    let header = Answer::Found {
        title: boot.title,
        arguments: boot.arguments,
        kernel_len: kernel.len,
        ramdisk_len: ramdisk.as_ref().map(|ramdisk| ramdisk.len),
    };
    line(&mut out, &header)?;
    copy(kernel, &mut out)?;
    if let Some(ramdisk) = ramdisk {
        copy(ramdisk, &mut out)?;
    }
    out.flush()
}

fn line(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes all of a file, or fails.
fn copy(from: Opened, out: &mut impl Write) -> io::Result<()> {
    let Opened { mut file, len } = from;
    let mut buffer = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let to = buffer.get_mut(..most).unwrap_or_default();
        let got = file.read_bytes(to).map_err(io::Error::other)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write_all(to.get(..got).unwrap_or_default())?;
        left = left.saturating_sub(got as u64);
    }
    Ok(())
}
