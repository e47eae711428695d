//! The other end inside a guest, and its counterpart in dom0.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use oxen_xenctl::EventChannels;

const CHUNK: usize = 64 << 10;
const MIB: usize = 1 << 20;
/// How long an end waits for the other before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes everything from one connection and answers with the number of bytes.
pub fn sink(port: u16) -> Result<()> {
    sink_on(&TcpListener::bind(("0.0.0.0", port))?)
}

/// As [`sink`], on a socket that listens already.
pub fn sink_on(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match stream.read(&mut chunk)? {
            0 => break,
            len => total += len,
        }
    }
    write!(stream, "{total}")?;
    Ok(())
}

/// Sends `mib` MiB to a [`sink`] and waits for its answer; returns how long that took from the connection on.
pub fn source(address: &str, mib: usize) -> Result<Duration> {
    let mut stream = connect(address)?;
    let chunk = vec![0x5a; CHUNK];
    let started = Instant::now();
    for _ in 0..mib * MIB / CHUNK {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let took = started.elapsed();
    if answer != (mib * MIB).to_string() {
        bail!("{address} got {answer} bytes of {}", mib * MIB);
    }
    Ok(took)
}

/// Connects to an address on which somebody is about to listen.
pub fn connect(address: &str) -> Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => return Err(error).with_context(|| format!("cannot connect to {address}")),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Makes a port for domain `domid`, prints its number, and answers each event until none comes any more.
pub fn events_listen(domid: u16) -> Result<()> {
    let events = EventChannels::open()?;
    let port = events.bind_unbound(domid)?;
    println!("{}", port.0);
    loop {
        let pending = events.wait(Some(PATIENCE))?;
        if pending.is_empty() {
            return Ok(());
        }
        events.unmask(port)?;
        events.notify(port)?;
    }
}

/// Sends `count` events, one after the other's answer; prints the nanoseconds of one round trip.
pub fn events_call(domid: u16, port: u32, count: u32) -> Result<()> {
    let events = EventChannels::open()?;
    let port = events.bind_interdomain(domid, port)?;
    let round = || -> Result<()> {
        events.notify(port)?;
        if events.wait(Some(PATIENCE))?.is_empty() {
            bail!("domain {domid} does not answer");
        }
        Ok(events.unmask(port)?)
    };
    // A new connection is signalled once by itself.
    events.wait(Some(Duration::from_millis(200)))?;
    events.unmask(port)?;
    for _ in 0..count / 10 {
        round()?;
    }
    let started = Instant::now();
    for _ in 0..count {
        round()?;
    }
    println!("{}", started.elapsed().as_nanos() / u128::from(count.max(1)));
    Ok(())
}

/// Writes and reads the first `mib` MiB of a disk; prints the nanoseconds of both.
pub fn disk(device: &str, mib: usize) -> Result<()> {
    let mut file = File::options().read(true).write(true).open(device).with_context(|| format!("cannot open {device}"))?;
    let mut chunk = vec![0x5a; MIB];
    let started = Instant::now();
    for _ in 0..mib {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    let wrote = started.elapsed();
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    file.rewind()?;
    let started = Instant::now();
    for _ in 0..mib {
        file.read_exact(&mut chunk)?;
    }
    println!("{} {}", wrote.as_nanos(), started.elapsed().as_nanos());
    Ok(())
}
