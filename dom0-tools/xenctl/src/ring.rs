//! Byte rings between two domains, as the console and xenstore pages have them.
//!
//! Each direction has a producer and a consumer index that run freely; the low bits are positions. All of it lies in memory that the
//! other domain can write, so the indices are checked at every step, and a step that does not add up is a [`RingFault`].

use crate::mapping::{AccessError, SharedMemory};
use oxen_abi::io::console::XenconsInterface;
use oxen_abi::io::xs_wire::{XENSTORE_RING_SIZE, XenstoreDomainInterface};
use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

/// Where the parts of one direction lie in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    /// Offset of the bytes.
    data: usize,
    /// Number of bytes, a power of two.
    size: u32,
    /// Offset of the consumer's index.
    consumer: usize,
    /// Offset of the producer's index.
    producer: usize,
}

impl RingLayout {
    /// The console's bytes to the domain.
    pub const CONSOLE_INPUT: Self = Self {
        data: offset_of!(XenconsInterface, input),
        size: 1024,
        consumer: offset_of!(XenconsInterface, in_cons),
        producer: offset_of!(XenconsInterface, in_prod),
    };
    /// The console's bytes from the domain.
    pub const CONSOLE_OUTPUT: Self = Self {
        data: offset_of!(XenconsInterface, output),
        size: 2048,
        consumer: offset_of!(XenconsInterface, out_cons),
        producer: offset_of!(XenconsInterface, out_prod),
    };
    /// Requests of the domain to the xenstore daemon.
    pub const XENSTORE_REQUESTS: Self = Self {
        data: offset_of!(XenstoreDomainInterface, req),
        size: XENSTORE_RING_SIZE as u32,
        consumer: offset_of!(XenstoreDomainInterface, req_cons),
        producer: offset_of!(XenstoreDomainInterface, req_prod),
    };
    /// Replies and events of the xenstore daemon to the domain.
    pub const XENSTORE_REPLIES: Self = Self {
        data: offset_of!(XenstoreDomainInterface, rsp),
        size: XENSTORE_RING_SIZE as u32,
        consumer: offset_of!(XenstoreDomainInterface, rsp_cons),
        producer: offset_of!(XenstoreDomainInterface, rsp_prod),
    };

    /// Number of bytes that fit.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }
}

/// The indices of a ring contradict each other: the other domain is broken or hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// More bytes between the indices than the ring has.
    Indices {
        /// The consumer's index.
        consumer: u32,
        /// The producer's index.
        producer: u32,
        /// Bytes of the ring.
        size: u32,
    },
    /// The memory does not hold such a ring.
    Access(AccessError),
}

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Indices {
                consumer,
                producer,
                size,
            } => write!(
                f,
                "ring indices {consumer:#x} (consumer) and {producer:#x} (producer) are more than {size} bytes apart"
            ),
            Self::Access(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RingFault {}

impl From<AccessError> for RingFault {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

/// One direction of the rings in `memory`. Only one thread at a time may produce, and one consume.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'m> {
    memory: &'m SharedMemory,
    layout: RingLayout,
}

impl<'m> Ring<'m> {
    /// The direction that `layout` describes.
    #[must_use]
    pub const fn new(memory: &'m SharedMemory, layout: RingLayout) -> Self {
        Self { memory, layout }
    }

    /// Consumer and producer index, and the bytes between them.
    fn indices(&self) -> Result<(u32, u32, u32), RingFault> {
        let size = self.layout.size;
        let consumer = self
            .memory
            .load_u32(self.layout.consumer, Ordering::Acquire)?;
        let producer = self
            .memory
            .load_u32(self.layout.producer, Ordering::Acquire)?;
        match producer.wrapping_sub(consumer) {
            used if used <= size => Ok((consumer, producer, used)),
            _ => Err(RingFault::Indices {
                consumer,
                producer,
                size,
            }),
        }
    }

    /// Bytes that wait to be consumed.
    ///
    /// # Errors
    ///
    /// [`RingFault`].
    pub fn used(&self) -> Result<u32, RingFault> {
        self.indices().map(|(_, _, used)| used)
    }

    /// Bytes that can be produced.
    ///
    /// # Errors
    ///
    /// [`RingFault`].
    pub fn room(&self) -> Result<u32, RingFault> {
        Ok(self.layout.size - self.used()?)
    }

    /// Copies waiting bytes to the start of `out` without consuming them; returns how many.
    ///
    /// # Errors
    ///
    /// [`RingFault`].
    pub fn peek(&self, out: &mut [u8]) -> Result<usize, RingFault> {
        let (consumer, _, used) = self.indices()?;
        let len = out.len().min(used as usize);
        let (position, first) = self.split(consumer, len);
        let (head, tail) = out.get_mut(..len).unwrap_or_default().split_at_mut(first);
        self.memory.read(self.layout.data + position, head)?;
        self.memory.read(self.layout.data, tail)?;
        Ok(len)
    }

    /// Moves the consumer's index on over `len` bytes that were peeked at; the producer may then overwrite them.
    ///
    /// # Errors
    ///
    /// [`RingFault`], also when fewer bytes wait.
    pub fn advance(&self, len: usize) -> Result<(), RingFault> {
        let (consumer, producer, used) = self.indices()?;
        match u32::try_from(len) {
            Ok(len) if len <= used => {
                let next = consumer.wrapping_add(len);
                self.memory
                    .store_u32(self.layout.consumer, next, Ordering::Release)?;
                // The producer must see this before the caller looks whether there is more.
                fence(Ordering::SeqCst);
                Ok(())
            }
            _ => Err(RingFault::Indices {
                consumer,
                producer,
                size: self.layout.size,
            }),
        }
    }

    /// Moves waiting bytes to the start of `out`; returns how many. Afterwards the other domain wants to be notified, if any were.
    ///
    /// # Errors
    ///
    /// [`RingFault`].
    pub fn consume(&self, out: &mut [u8]) -> Result<usize, RingFault> {
        let len = self.peek(out)?;
        if len > 0 {
            self.advance(len)?;
        }
        Ok(len)
    }

    /// Puts as many of `bytes` into the ring as fit; returns how many. Afterwards the other domain wants to be notified, if any were.
    ///
    /// # Errors
    ///
    /// [`RingFault`].
    pub fn produce(&self, bytes: &[u8]) -> Result<usize, RingFault> {
        let (_, producer, used) = self.indices()?;
        let len = bytes.len().min((self.layout.size - used) as usize);
        if len == 0 {
            return Ok(0);
        }
        let (position, first) = self.split(producer, len);
        let (head, tail) = bytes.get(..len).unwrap_or_default().split_at(first);
        self.memory.write(self.layout.data + position, head)?;
        self.memory.write(self.layout.data, tail)?;
        // `len` is at most `size`.
        let next = producer.wrapping_add(len as u32);
        self.memory
            .store_u32(self.layout.producer, next, Ordering::Release)?;
        fence(Ordering::SeqCst);
        Ok(len)
    }

    /// Gives up what waits: the consumer's index becomes the producer's. This is the way out of a [`RingFault::Indices`].
    ///
    /// # Errors
    ///
    /// [`RingFault::Access`].
    pub fn drain(&self) -> Result<(), RingFault> {
        let producer = self
            .memory
            .load_u32(self.layout.producer, Ordering::Acquire)?;
        self.memory
            .store_u32(self.layout.consumer, producer, Ordering::Release)?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// The position of `index`, and how many of `len` bytes from there on lie before the end of the ring.
    fn split(&self, index: u32, len: usize) -> (usize, usize) {
        let position = (index & (self.layout.size - 1)) as usize;
        (position, len.min(self.layout.size as usize - position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const LAYOUTS: [RingLayout; 4] = [
        RingLayout::CONSOLE_INPUT,
        RingLayout::CONSOLE_OUTPUT,
        RingLayout::XENSTORE_REQUESTS,
        RingLayout::XENSTORE_REPLIES,
    ];

    /// A small generator of numbers for reproducible sequences (xorshift).
    struct Random(u64);

    impl Random {
        fn next(&mut self, below: u32) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as u32 % below
        }
    }

    #[test]
    fn behaves_as_a_bounded_queue() {
        for layout in LAYOUTS {
            let memory = SharedMemory::private(1).unwrap();
            // Start right before the indices wrap.
            for index in [layout.consumer, layout.producer] {
                memory
                    .store_u32(index, u32::MAX - 100, Ordering::Relaxed)
                    .unwrap();
            }
            let ring = Ring::new(&memory, layout);
            let mut model = VecDeque::new();
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for step in 0..3000_u32 {
                let mut bytes = vec![0; random.next(layout.size + 50) as usize];
                if random.next(2) == 0 {
                    bytes.fill_with(|| step as u8 ^ random.next(256) as u8);
                    let done = ring.produce(&bytes).unwrap();
                    assert_eq!(done, bytes.len().min(layout.size as usize - model.len()));
                    model.extend(&bytes[..done]);
                } else {
                    let done = ring.consume(&mut bytes).unwrap();
                    assert_eq!(done, bytes.len().min(model.len()));
                    let expected: Vec<u8> = model.drain(..done).collect();
                    assert_eq!(bytes[..done], expected);
                }
                assert_eq!(ring.used().unwrap() as usize, model.len());
            }
        }
    }

    #[test]
    fn hostile_indices_are_a_fault_until_drained() {
        let mut random = Random(88_172_645_463_325_252);
        for layout in LAYOUTS {
            let memory = SharedMemory::private(1).unwrap();
            let ring = Ring::new(&memory, layout);
            for _ in 0..2000 {
                let consumer = random.next(u32::MAX);
                let distance = match random.next(3) {
                    0 => random.next(layout.size + 1),
                    1 => layout.size + random.next(4),
                    _ => random.next(u32::MAX),
                };
                let producer = consumer.wrapping_add(distance);
                memory
                    .store_u32(layout.consumer, consumer, Ordering::Relaxed)
                    .unwrap();
                memory
                    .store_u32(layout.producer, producer, Ordering::Relaxed)
                    .unwrap();
                let mut out = [0; 4000];
                if distance <= layout.size {
                    assert_eq!(ring.consume(&mut out), Ok(distance as usize));
                } else {
                    assert!(matches!(
                        ring.peek(&mut out),
                        Err(RingFault::Indices { .. })
                    ));
                    assert!(ring.consume(&mut out).is_err());
                    assert!(ring.produce(&out).is_err());
                    assert!(ring.advance(0).is_err());
                    ring.drain().unwrap();
                }
                assert_eq!(ring.used(), Ok(0));
            }
        }
    }

    #[test]
    fn advancing_past_what_waits_is_refused() {
        let memory = SharedMemory::private(1).unwrap();
        let ring = Ring::new(&memory, RingLayout::CONSOLE_OUTPUT);
        ring.produce(b"abc").unwrap();
        assert!(ring.advance(4).is_err());
        ring.advance(1).unwrap();
        let mut out = [0; 8];
        assert_eq!(ring.consume(&mut out), Ok(2));
        assert_eq!(&out[..2], b"bc");
    }
}
