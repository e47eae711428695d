//! Rows about system calls, signals and processes.

use std::io::{Error, Read, Result, Write};

use crate::checked;

/// The cheapest system call that really enters the kernel.
pub fn system_calls(count: u64) -> Result<()> {
    for _ in 0..count {
        // SAFETY: reads a number.
        checked(unsafe { libc::syscall(libc::SYS_getppid) })?;
    }
    Ok(())
}

extern "C" fn ignore_signal(_number: libc::c_int) {}

/// A signal to oneself, with its handler and the return from it.
pub fn signals(count: u64) -> Result<()> {
    let handler: extern "C" fn(libc::c_int) = ignore_signal;
    // SAFETY: the handler does nothing and so may run anywhere.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    for _ in 0..count {
        // SAFETY: sends a signal whose handler is in place.
        checked(unsafe { libc::raise(libc::SIGUSR1) }.into())?;
    }
    Ok(())
}

/// Runs `child` in a forked process, which then ends at once; the parent gets its number.
fn fork(child: impl FnOnce()) -> Result<libc::pid_t> {
    // SAFETY: this program has one thread, so the child may do what the parent may.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Error::last_os_error()),
        0 => {
            child();
            // SAFETY: ends the child without running the parent's cleanup.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(pid),
    }
}

fn wait(pid: libc::pid_t) -> Result<()> {
    // SAFETY: no status is asked for.
    checked(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }.into()).map(drop)
}

/// One byte to another process and back.
pub fn pipe_ping_pong(count: u64) -> Result<()> {
    let (mut child_reads, mut parent_writes) = std::io::pipe()?;
    let (mut parent_reads, mut child_writes) = std::io::pipe()?;
    let pid = fork(|| {
        let mut byte = [0];
        for _ in 0..count {
            if child_reads.read_exact(&mut byte).and_then(|()| child_writes.write_all(&byte)).is_err() {
                return;
            }
        }
    })?;
    let mut byte = [7];
    for _ in 0..count {
        parent_writes.write_all(&byte)?;
        parent_reads.read_exact(&mut byte)?;
    }
    wait(pid)
}

/// A process that ends at once.
pub fn fork_exit(count: u64) -> Result<()> {
    for _ in 0..count {
        wait(fork(|| {})?)?;
    }
    Ok(())
}

/// A process that starts this program again, which ends at once.
pub fn fork_exec(count: u64) -> Result<()> {
    let program = c"/proc/self/exe";
    let arguments = [program.as_ptr(), c"exit".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    for _ in 0..count {
        let child = || {
            // SAFETY: the strings and the two arrays end as execve expects and outlive the call. It returns only on
            // failure; the child then ends like one that was never started, which the warm-up has shown.
            unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        };
        wait(fork(child)?)?;
    }
    Ok(())
}
