//! A socket between a daemon and xenstored, through which a [`Gate`] sees every request.

use crate::gate::{Gate, Verdict};
use oxen_xenstore::XsType;
use oxen_xenstore::wire::{HEAD_LEN, Head, put_message};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::spawn;

/// Listens at `socket` for a daemon and passes its requests on to xenstored at `upstream`. The thread ends with the test's process.
pub(crate) fn open(socket: &Path, upstream: &Path, gate: &Arc<Gate>) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    let (upstream, gate) = (upstream.to_owned(), Arc::clone(gate));
    spawn(move || {
        for client in listener.incoming().flatten() {
            let (upstream, gate): (PathBuf, _) = (upstream.clone(), Arc::clone(&gate));
            spawn(move || {
                let over = serve(&client, &upstream, &gate);
                if gate.is_dead() || over.is_none() {
                    // To a killed daemon nothing happens any more, not even the end of its connection.
                    std::mem::forget(client);
                }
            });
        }
    });
    Ok(())
}

/// A request on its way.
struct Request {
    name: String,
    head: Head,
    /// Whether the gate counts it.
    counted: bool,
    /// Whether its answer is an error.
    fails: bool,
}

/// Relays until one end closes. `None` when the daemon is dead.
fn serve(client: &UnixStream, upstream: &Path, gate: &Gate) -> Option<()> {
    let Ok(upstream) = UnixStream::connect(upstream) else { return Some(()) };
    if let Ok(other) = upstream.try_clone() {
        gate.connected(other);
    }
    let mut request: Option<Request> = None;
    loop {
        let mut polled = [PollFd::new(client, PollFlags::IN), PollFd::new(&upstream, PollFlags::IN)];
        if poll(&mut polled, None).is_err() {
            return Some(());
        }
        let [from_client, from_upstream] = polled.map(|fd| !fd.revents().is_empty());
        if from_client {
            let Ok((head, payload)) = message(client) else { return Some(()) };
            request = Some(pass(head, payload, &upstream, client, gate)?);
        }
        if from_upstream {
            let Ok((head, payload)) = message(&upstream) else { return (!gate.is_dead()).then_some(()) };
            answer(head, &payload, request.as_ref(), client, gate)?;
        }
    }
}

/// Passes a request on as the gate says.
fn pass(head: Head, payload: Vec<u8>, mut upstream: &UnixStream, client: &UnixStream, gate: &Gate) -> Option<Request> {
    let is_end = head.kind == XsType::TRANSACTION_END;
    let subject = payload.split(|byte| *byte == 0).next().unwrap_or_default();
    // What a transaction does has no effect before its end.
    let mut request = Request { name: format!("{:?} {}", head.kind, String::from_utf8_lossy(subject)), head, counted: head.tx_id == 0 || is_end, fails: false };
    if request.counted {
        match gate.before(&request.name) {
            Verdict::Go => {}
            Verdict::Fail => request.fails = true,
            Verdict::Dead => return None,
        }
    }
    if request.fails && !is_end {
        refuse(client, head);
        return Some(request);
    }
    let payload = if request.fails { b"F\0".to_vec() } else { payload };
    let mut message = Vec::new();
    put_message(&mut message, head.kind, head.req_id, head.tx_id, &[&payload]);
    // A store that went away is seen when its end is read.
    let _ = upstream.write_all(&message);
    Some(request)
}

fn answer(head: Head, payload: &[u8], request: Option<&Request>, mut client: &UnixStream, gate: &Gate) -> Option<()> {
    if head.kind != XsType::WATCH_EVENT
        && let Some(request) = request
    {
        if request.counted && gate.after(&request.name) == Verdict::Dead {
            return None;
        }
        if request.fails {
            refuse(client, request.head);
            return Some(());
        }
    }
    let mut message = Vec::new();
    put_message(&mut message, head.kind, head.req_id, head.tx_id, &[payload]);
    // A daemon that went away is seen when its end is read.
    let _ = client.write_all(&message);
    Some(())
}

fn refuse(mut client: &UnixStream, head: Head) {
    let mut message = Vec::new();
    put_message(&mut message, XsType::ERROR, head.req_id, head.tx_id, &[b"EIO\0"]);
    let _ = client.write_all(&message);
}

fn message(mut stream: &UnixStream) -> io::Result<(Head, Vec<u8>)> {
    let mut head = [0; HEAD_LEN];
    stream.read_exact(&mut head)?;
    let head = Head::parse(&head);
    let mut payload = vec![0; head.len as usize];
    stream.read_exact(&mut payload)?;
    Ok((head, payload))
}
