//! Values for the fields of arguments: mostly plausible ones, so that calls come past their first check.

use crate::world::{self, BASE, DATA_PAGES, FRAMES, PAGES, World};
use oxen_abi::zerocopy::IntoBytes;
use oxen_hal::Clock;
use oxen_mm::FrameType;
use oxen_testkit::Rng;
use oxen_types::{DomId, Gva, Mfn, VcpuId};

/// What a field means.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Nothing: 0.
    Zero,
    /// This number.
    Is(u64),
    /// Below the number.
    Below(u64),
    /// Any bits.
    Any,
    /// A few bits set.
    Flags,
    Domain,
    /// The domain of a page-table operation: the caller's own, most of the time.
    Foreign,
    /// The number of a domain that exists.
    Guest,
    Vcpu,
    Port,
    /// A machine frame.
    Frame,
    /// The address of a page.
    Page,
    /// How a grant is to be mapped, at an address or at a page-table entry.
    GrantFlags { by_entry: bool },
    /// A pointer to a vCPU's registers.
    Context,
    /// A page-table entry.
    Entry,
    /// Machine address of a page-table entry, with an update command in the low bits.
    EntryAddress,
    /// Machine address of a descriptor.
    DescriptorAddress,
    /// A guest's pointer to data that is filled with anything useful.
    Pointer,
    Reference,
    Handle,
    Time,
    /// Number of elements.
    Count,
}

/// Where values come from.
pub struct Values<'a> {
    pub world: &'a World,
    pub rng: Rng,
    /// The domain that calls.
    pub caller: DomId,
    pub cpu: u32,
}

impl Values<'_> {
    pub fn value(&mut self, kind: Kind) -> u64 {
        if self.rng.one_in(60) {
            return self.odd();
        }
        match kind {
            Kind::Zero => 0,
            Kind::Is(n) => n,
            Kind::Below(n) => self.rng.below(n),
            Kind::Any => self.odd(),
            Kind::Flags => 1 << self.rng.below(16) | if self.rng.one_in(3) { 1 << self.rng.below(32) } else { 0 } & !u64::from(self.rng.one_in(2)),
            Kind::Domain => self.domain(),
            Kind::Foreign => {
                if self.rng.one_in(6) {
                    self.domain()
                } else {
                    DomId::SELF.0.into()
                }
            }
            Kind::Guest => {
                let domains = self.world.hv.domains.snapshot();
                if domains.is_empty() { 0 } else { self.rng.pick(&domains).id.0.into() }
            }
            Kind::Vcpu => self.seldom(8, 70, 3),
            Kind::Port => self.seldom(8, 300, 12),
            Kind::Frame => self.frame().0,
            Kind::Page => BASE + self.rng.below(DATA_PAGES) * 4096,
            Kind::GrantFlags { by_entry } => *self.rng.pick(&[2, 2, 2, 6, 6, 3, 7, 1, 5]) | if by_entry { 16 } else { 0 },
            Kind::Context => self.context(),
            Kind::Entry => self.entry(),
            Kind::EntryAddress => {
                let table = self.frame_from(DATA_PAGES, PAGES);
                let index = if self.rng.one_in(2) { 256 + self.rng.below(PAGES + 4) } else { self.rng.below(512) };
                table.0 << 12 | index << 3 | if self.rng.one_in(3) { self.rng.below(8) } else { 0 }
            }
            Kind::DescriptorAddress => self.frame().0 << 12 | self.rng.below(512) << 3,
            Kind::Pointer => self.pointer(),
            Kind::Reference => self.seldom(10, 2000, 16),
            Kind::Handle => self.seldom(10, 1000, 8),
            Kind::Time => self.world.machine.now_ns() + self.rng.below(5_000_000),
            Kind::Count => self.seldom(20, 1 << 34, 6),
        }
    }

    /// A number below `usual`, or once in `odds` times below `most`.
    fn seldom(&mut self, odds: u64, most: u64, usual: u64) -> u64 {
        let end = if self.rng.one_in(odds) { most } else { usual };
        self.rng.below(end)
    }

    fn odd(&mut self) -> u64 {
        match self.rng.below(5) {
            0 => self.rng.next_u64(),
            1 => u64::MAX >> self.rng.below(64),
            2 => 1 << self.rng.below(64),
            3 => u64::MAX - self.rng.below(16),
            _ => self.rng.below(64),
        }
    }

    fn domain(&mut self) -> u64 {
        match self.rng.below(10) {
            0..=3 => DomId::SELF.0.into(),
            4 => self.caller.0.into(),
            5..=7 => self.rng.below(3),
            8 => self.rng.below(8),
            _ => 0x7ff0 + self.rng.below(6),
        }
    }

    /// A frame that is or was the caller's, or a page-table page of his, or anybody's.
    fn frame(&mut self) -> Mfn {
        match self.rng.below(10) {
            0..=4 => self.frame_from(0, DATA_PAGES),
            5..=7 => self.frame_from(DATA_PAGES, PAGES),
            _ => Mfn(self.rng.below(FRAMES + 8)),
        }
    }

    /// The frame of one of the caller's pages, as his tables have it now.
    fn frame_from(&mut self, first: u64, end: u64) -> Mfn {
        let page = BASE + (first + self.rng.below(end - first)) * 4096;
        let found = self.world.machine.loaded_root(self.cpu).and_then(|root| self.world.hv.memory.walk(root, Gva(page)));
        found.map_or(Mfn(self.rng.below(FRAMES)), |found| oxen_mm::entry::frame(found.entry))
    }

    /// A page whose memory is gone, and an entry with some of the caller's that is left: without that, a guest soon has no memory to put arguments in.
    pub fn repair(&mut self) -> Option<(u64, u64)> {
        let (world, cpu, caller) = (self.world, self.cpu, self.caller);
        let page = (BASE..BASE + DATA_PAGES * 4096).step_by(4096).find(|&va| world.machine.on_cpu(cpu, || world.machine.translate_guest(Gva(va), true)).is_none())?;
        let first = self.rng.below(FRAMES);
        let usable = |mfn: &Mfn| {
            let info = world.hv.memory.inspect(*mfn);
            info.is_some_and(|info| info.owner == caller && info.allocated && !info.shared && (info.uses == 0 || info.ty == FrameType::Writable))
        };
        let mfn = (first..FRAMES).chain(0..first).map(Mfn).find(usable)?;
        Some((page, mfn.0 << 12 | 7))
    }

    /// Writes registers with which a vCPU could start, and tells where.
    fn context(&mut self) -> u64 {
        let world = self.world;
        let first = self.rng.below(FRAMES);
        let is_root = |mfn: &Mfn| world.hv.memory.inspect(*mfn).is_some_and(|info| info.ty == FrameType::L4);
        let root = (first..FRAMES).chain(0..first).map(Mfn).find(is_root).unwrap_or(Mfn(0));
        let mut context = world::context(root, VcpuId(self.rng.below(2) as u32));
        if self.rng.one_in(3) {
            context.ctrlreg[1] = root.0 << 12;
        }
        if self.rng.one_in(3) {
            context.gdt_ents = self.rng.below(1024);
            context.gdt_frames[0] = self.frame().0;
            context.gdt_frames[1] = self.frame().0;
        }
        if self.rng.one_in(3) {
            context.ldt_base = self.value(Kind::Page);
            context.ldt_ents = self.rng.below(600);
        }
        context.event_callback_eip = if self.rng.one_in(3) { self.value(Kind::Pointer) } else { world::CODE };
        let at = self.buffer();
        world.write(self.cpu, at, context.as_bytes());
        at
    }

    fn entry(&mut self) -> u64 {
        if self.rng.one_in(6) {
            return 0;
        }
        let mut flags = 1 | 4;
        for (bit, odds) in [(1, 2), (5, 2), (6, 2), (63, 4), (9, 6), (7, 40), (3, 40), (8, 30), (0, 30)] {
            if self.rng.one_in(odds) {
                flags ^= 1 << bit;
            }
        }
        self.frame().0 << 12 | flags
    }

    fn pointer(&mut self) -> u64 {
        match self.rng.below(24) {
            0 => 0,
            1 => 0xffff_8000_0000_0000 + self.rng.below(1 << 40),
            2 => self.rng.next_u64(),
            3 => BASE + self.rng.below(PAGES + 4) * 4096 + self.rng.below(4096),
            4 => BASE + (1 + self.rng.below(DATA_PAGES - 4)) * 4096 - self.rng.below(64),
            _ => self.buffer(),
        }
    }

    /// Room in a data page.
    pub fn buffer(&mut self) -> u64 {
        BASE + (1 + self.rng.below(DATA_PAGES - 4)) * 4096 + self.rng.below(256) * 8
    }
}
