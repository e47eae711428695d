//! The two rings that a guest shares with dom0's daemons: console output, and xenstore requests one at a time.

use crate::hypercall;
use crate::mem::{self, Page};
use crate::start::start_info;
use crate::{event, sys};
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};
use oxen_abi::io::console::XenconsInterface;
use oxen_abi::io::xs_wire::{XENSTORE_RING_SIZE, XenstoreDomainInterface, XsType, XsdSockmsg};
use oxen_abi::sched::SchedOp;
use oxen_abi::xen::ConsoleDomU;
use oxen_abi::zerocopy::{FromBytes, IntoBytes};

/// One direction of a ring page.
struct Ring {
    page: Page,
    bytes: usize,
    size: u32,
    cons: usize,
    prod: usize,
}

impl Ring {
    fn index(&self, offset: usize) -> &'static AtomicU32 {
        // SAFETY: the page is mapped for good, the offsets are those of the aligned index words, accessed atomically only.
        unsafe { &*((self.page.va() + offset as u64) as *const AtomicU32) }
    }

    fn byte(&self, index: u32) -> *mut u8 {
        (self.page.va() + self.bytes as u64 + u64::from(index % self.size)) as *mut u8
    }

    /// Puts as much as there is room for; says how much.
    fn put(&self, bytes: &[u8]) -> usize {
        let (cons, prod) = (self.index(self.cons).load(Ordering::Acquire), self.index(self.prod).load(Ordering::Relaxed));
        let room = self.size.saturating_sub(prod.wrapping_sub(cons)) as usize;
        let count = bytes.len().min(room);
        for (n, byte) in (0..).zip(&bytes[..count]) {
            // SAFETY: inside the ring; volatile because the other end reads it.
            unsafe { self.byte(prod.wrapping_add(n)).write_volatile(*byte) };
        }
        self.index(self.prod).store(prod.wrapping_add(count as u32), Ordering::Release);
        count
    }

    /// Puts all of `bytes` in, telling the other end by `port`, and gives way while there is no room.
    fn put_all(&self, mut bytes: &[u8], port: u32) {
        while !bytes.is_empty() {
            let count = self.put(bytes);
            bytes = &bytes[count..];
            event::send(port);
            if count == 0 {
                hypercall::sched_op(SchedOp::YIELD.0.into(), &mut 0_u32);
            }
        }
    }

    /// Takes as much as there is; says how much.
    fn take(&self, bytes: &mut [u8]) -> usize {
        let (cons, prod) = (self.index(self.cons).load(Ordering::Relaxed), self.index(self.prod).load(Ordering::Acquire));
        let count = bytes.len().min(prod.wrapping_sub(cons) as usize);
        for (n, byte) in (0..).zip(&mut bytes[..count]) {
            // SAFETY: inside the ring; volatile because the other end wrote it.
            *byte = unsafe { self.byte(cons.wrapping_add(n)).read_volatile() };
        }
        self.index(self.cons).store(cons.wrapping_add(count as u32), Ordering::Release);
        count
    }
}

/// Waits for an event unless `ready`. Events are logged by the upcall, which comes when this returns.
fn block_unless(ready: impl Fn() -> bool) {
    event::disable_upcalls();
    if !ready() {
        // Lets upcalls happen and blocks in one step.
        hypercall::sched_op(SchedOp::BLOCK.0.into(), &mut 0_u32);
    }
    event::enable_upcalls();
}

/// The console.
pub struct Console {
    output: Ring,
    port: u32,
}

impl Console {
    /// The one that the start information names.
    pub fn open() -> Self {
        let console: ConsoleDomU = start_info().console.read();
        let output = Ring {
            page: Page::at_pfn(mem::m2p(console.mfn)),
            bytes: offset_of!(XenconsInterface, output),
            size: 2048,
            cons: offset_of!(XenconsInterface, out_cons),
            prod: offset_of!(XenconsInterface, out_prod),
        };
        Self { output, port: console.evtchn }
    }

    /// Writes all of `bytes`, giving way while there is no room.
    pub fn write(&self, bytes: &[u8]) {
        self.output.put_all(bytes, self.port);
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

/// The connection with xenstored.
pub struct Store {
    requests: Ring,
    answers: Ring,
    port: u32,
    events: u32,
}

impl Store {
    /// The one that the start information names.
    pub fn open() -> Self {
        let page = Page::at_pfn(mem::m2p(start_info().store_mfn));
        let size = XENSTORE_RING_SIZE as u32;
        let requests = Ring {
            page,
            bytes: offset_of!(XenstoreDomainInterface, req),
            size,
            cons: offset_of!(XenstoreDomainInterface, req_cons),
            prod: offset_of!(XenstoreDomainInterface, req_prod),
        };
        let answers = Ring {
            page,
            bytes: offset_of!(XenstoreDomainInterface, rsp),
            size,
            cons: offset_of!(XenstoreDomainInterface, rsp_cons),
            prod: offset_of!(XenstoreDomainInterface, rsp_prod),
        };
        Self { requests, answers, port: start_info().store_evtchn, events: 0 }
    }

    /// Sends a request whose body is `parts` and waits for the answer; its type, and how much of `answer` it fills. Events that come
    /// meanwhile are counted.
    pub fn request(&mut self, kind: XsType, parts: &[&[u8]], answer: &mut [u8]) -> (XsType, usize) {
        let len = parts.iter().map(|part| part.len() as u32).sum();
        let head = XsdSockmsg { kind, req_id: 1, tx_id: 0, len };
        self.send(head.as_bytes());
        for part in parts {
            self.send(part);
        }
        loop {
            let (kind, len) = self.receive(answer);
            if kind != XsType::WATCH_EVENT {
                return (kind, len);
            }
            self.events += 1;
        }
    }

    /// Waits for an event of a watch, if none has come since the last call.
    pub fn wait_for_event(&mut self, scratch: &mut [u8]) {
        while self.events == 0 {
            if self.receive(scratch).0 == XsType::WATCH_EVENT {
                self.events += 1;
            }
        }
        self.events = 0;
    }

    fn send(&self, bytes: &[u8]) {
        self.requests.put_all(bytes, self.port);
    }

    /// Takes one message; what does not fit `body` is dropped.
    fn receive(&self, body: &mut [u8]) -> (XsType, usize) {
        let mut head = [0; size_of::<XsdSockmsg>()];
        self.take_all(&mut head);
        let head = XsdSockmsg::read_from_bytes(&head).unwrap_or_default();
        let len = (head.len as usize).min(body.len());
        self.take_all(&mut body[..len]);
        for _ in len..head.len as usize {
            self.take_all(&mut [0]);
        }
        (head.kind, len)
    }

    fn take_all(&self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let count = self.answers.take(bytes);
            bytes = &mut bytes[count..];
            if count > 0 {
                event::send(self.port);
            } else {
                let (cons, prod) = (self.answers.index(self.answers.cons), self.answers.index(self.answers.prod));
                block_unless(|| cons.load(Ordering::Relaxed) != prod.load(Ordering::Acquire));
            }
        }
    }
}

/// Ends the domain for `reason`.
pub fn shut_down(reason: u32) -> ! {
    loop {
        let mut reason = reason;
        hypercall::sched_op(sys::SCHEDOP_SHUTDOWN, &mut reason);
    }
}

/// Does nothing for ever.
pub fn idle() -> ! {
    loop {
        block_unless(|| false);
    }
}
