//! A machine with domains whose page tables the tests build by hand.
#![allow(dead_code)]

use oxen_hal::Frames;
use oxen_mm::entry::{PRESENT, RW, USER};
use oxen_mm::{Level, Mm, MmError, MmioAccess, MmioPolicy, MmuContext, PageTables, entry};
use oxen_testkit::{Config, FakeMachine};
use oxen_types::{CpuSet, DomId, Mfn};

pub const ALL: u64 = PRESENT | RW | USER;
pub const RO: u64 = PRESENT | USER;
pub const D1: DomId = DomId(1);
pub const D2: DomId = DomId(2);
pub const PLENTY: u32 = 1 << 30;

/// Device memory from frame 0x10_0000 on: readable below, writable above 0x10_0100, refused above 0x10_0200.
#[derive(Debug)]
pub struct Devices;

impl MmioPolicy for Devices {
    fn mmio_access(&self, mfn: Mfn) -> MmioAccess {
        match mfn.0 {
            0x10_0000..0x10_0100 => MmioAccess::ReadOnly,
            0x10_0100..0x10_0200 => MmioAccess::ReadWrite,
            _ => MmioAccess::Refused,
        }
    }
}

pub struct World {
    pub machine: &'static FakeMachine,
    pub mm: &'static Mm<FakeMachine>,
    pub tables: PageTables,
    pub dirty: CpuSet,
    pub budget: u32,
    pub devices: bool,
}

impl World {
    pub fn new(frames: u64) -> Self {
        Self::with(Config { frames, ..Config::default() })
    }

    pub fn with(config: Config) -> Self {
        let frames = config.frames;
        let machine = FakeMachine::new(config);
        let mm: &'static Mm<FakeMachine> = Box::leak(Box::new(Mm::new(machine)));
        mm.add_range(Mfn(0), frames);
        for domain in [D1, D2] {
            mm.account(domain).unwrap().set_limit(frames);
        }
        let dirty = CpuSet::new();
        Self { machine, mm, tables: PageTables::new(), dirty, budget: PLENTY, devices: false }
    }

    pub fn ctx(&mut self, owner: DomId) -> MmuContext<'_, Devices> {
        MmuContext::new(&mut self.tables, owner, &self.dirty, &Devices, self.devices, self.budget)
    }

    pub fn page(&self, owner: DomId) -> Mfn {
        self.mm.alloc_for(owner, 0, 0).unwrap()
    }

    /// Writes an entry as a guest would before the frame is a table.
    pub fn poke(&self, table: Mfn, index: usize, entry: u64) {
        self.machine.write_entry(table, index, entry);
    }

    pub fn peek(&self, table: Mfn, index: usize) -> u64 {
        self.machine.read_entry(table, index)
    }

    /// A chain L4 → L3 → L2 → L1 of `owner`, not validated; entry 0 of each refers to the next. Root first.
    pub fn chain(&self, owner: DomId) -> [Mfn; 4] {
        let t = [self.page(owner), self.page(owner), self.page(owner), self.page(owner)];
        for pair in t.windows(2) {
            self.poke(pair[0], 0, entry::make(pair[1], ALL));
        }
        t
    }

    pub fn pin(&mut self, owner: DomId, mfn: Mfn, level: Level) -> Result<(), MmError> {
        self.mm.pin(&mut self.ctx(owner), mfn, level)
    }

    pub fn unpin(&mut self, owner: DomId, mfn: Mfn) -> Result<(), MmError> {
        self.mm.unpin(&mut self.ctx(owner), mfn)
    }

    pub fn update(&mut self, owner: DomId, table: Mfn, index: usize, new: u64) -> Result<(), MmError> {
        self.mm.update_entry(&mut self.ctx(owner), table, index, new, false)
    }

    pub fn uses(&self, mfn: Mfn) -> u64 {
        self.mm.inspect(mfn).map_or(0, |i| i.uses)
    }

    pub fn refs(&self, mfn: Mfn) -> u64 {
        self.mm.inspect(mfn).map_or(0, |i| i.references)
    }

    /// Takes the domain's memory away, in steps of `budget`.
    pub fn destroy(&mut self, owner: DomId, budget: u32) {
        self.mm.account(owner).unwrap().set_dying();
        let saved = std::mem::replace(&mut self.budget, budget);
        let mut cursor = 0;
        let mut steps = 0;
        while let Err(error) = self.mm.relinquish(&mut self.ctx(owner), &mut cursor) {
            assert_eq!(error, MmError::Preempted);
            steps += 1;
            assert!(steps < 10_000_000);
        }
        self.budget = saved;
    }
}
