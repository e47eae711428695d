//! Random operations of two domains on two processors, against a model that recounts all page tables after each one.

mod common;

use common::Devices;
use oxen_hal::{AddressSpace, FlushScope, Frames};
use oxen_mm::entry::{self, NX, PAT_OR_PSE, PRESENT, PWT, RW, USER};
use oxen_mm::{FrameBlock, FrameType, HeldPage, HeldTable, HeldTyped, Level, MappingRef, Mm, MmError, MmuContext, PageTables, QuickTables, SharedFrame};
use oxen_testkit::{Config, FakeMachine, Rng};
use oxen_types::{CpuId, CpuSet, DomId, Gva, Mfn, PT_ENTRIES};
use std::collections::BTreeMap;

const FRAMES: u64 = 96;
const CPUS: u32 = 2;
/// The only entries that the test uses, so that recounting is quick.
const INDEXES: [usize; 9] = [0, 1, 2, 255, 256, 263, 271, 272, 511];

/// One domain as the test sees it.
struct Guest {
    id: DomId,
    tables: PageTables,
    dirty: CpuSet,
    frames: Vec<Mfn>,
    pages: Vec<HeldPage>,
    uses: Vec<HeldTyped>,
    idle_roots: Vec<HeldTable>,
    shared: Vec<SharedFrame>,
}

struct Test {
    rng: Rng,
    machine: &'static FakeMachine,
    mm: &'static Mm<FakeMachine>,
    guests: [Guest; 2],
    /// Root that each processor runs on, and whose it is.
    running: [Option<(usize, HeldTable)>; CPUS as usize],
    stolen: Vec<FrameBlock>,
    total: u64,
}

/// What a frame should look like.
#[derive(Default)]
struct Expected {
    uses: u64,
    ty: Option<FrameType>,
    counts: u64,
}

impl Expected {
    fn add_use(&mut self, mfn: Mfn, ty: FrameType) {
        assert!(self.ty.is_none_or(|t| t == ty), "{mfn} is used as {ty:?} and as {:?}", self.ty);
        self.ty = Some(ty);
        self.uses += 1;
    }
}

impl Test {
    fn new(seed: u64) -> Self {
        let machine = FakeMachine::new(Config { frames: FRAMES, cpus: CPUS, ..Config::default() });
        let mm: &'static Mm<FakeMachine> = Box::leak(Box::new(Mm::new(machine)));
        mm.add_range(Mfn(0), FRAMES);
        let guest = |n| {
            mm.account(DomId(n)).unwrap().set_limit(60);
            Guest {
                id: DomId(n),
                tables: PageTables::new(),
                dirty: CpuSet::new(),
                frames: Vec::new(),
                pages: Vec::new(),
                uses: Vec::new(),
                idle_roots: Vec::new(),
                shared: Vec::new(),
            }
        };
        let total = mm.free_frames();
        let guests = [guest(1), guest(2)];
        Self { rng: Rng::new(seed), machine, mm, guests, running: [None, None], stolen: Vec::new(), total }
    }

    fn budget(&mut self) -> u32 {
        match self.rng.below(4) {
            0 => 1,
            1 => self.rng.below(2000) as u32,
            _ => 1 << 20,
        }
    }

    fn frame_of(&mut self, g: usize) -> Mfn {
        let frames = &self.guests[g].frames;
        if frames.is_empty() || self.rng.one_in(30) { Mfn(self.rng.below(FRAMES + 10)) } else { *self.rng.pick(frames) }
    }

    /// A frame that is meant as table of `level`, or as data for level 0.
    fn frame_for(&mut self, g: usize, level: u64) -> Mfn {
        if self.rng.one_in(12) {
            return self.frame_of(g);
        }
        let fitting: Vec<Mfn> = self.guests[g].frames.iter().copied().filter(|m| role(*m) == level).collect();
        if fitting.is_empty() { self.frame_of(g) } else { *self.rng.pick(&fitting) }
    }

    fn random_entry(&mut self, g: usize, level: u64) -> u64 {
        if self.rng.one_in(4) {
            return self.rng.next_u64() & !PRESENT;
        }
        let mut flags = PRESENT;
        for (flag, odds) in [(USER, 2), (RW, 2), (NX, 3), (1 << 9, 4), (1 << 62, 4), (PWT, 60), (PAT_OR_PSE, 60)] {
            if self.rng.one_in(odds) {
                flags |= flag;
            }
        }
        let mfn = if level == 1 && self.rng.one_in(20) {
            Mfn(0x10_0000 + self.rng.below(0x300))
        } else {
            self.frame_for(g, level.saturating_sub(1))
        };
        entry::make(mfn, flags)
    }

    fn step(&mut self) {
        let g = self.rng.below(2) as usize;
        let budget = self.budget();
        let Self { mm, machine, .. } = *self;
        match self.rng.below(20) {
            0 | 1 => {
                if let Ok(mfn) = mm.alloc_for(self.guests[g].id, 0, 0) {
                    machine.assert_not_cached(mfn);
                    self.guests[g].frames.push(mfn);
                }
            }
            2 if self.rng.one_in(4) => {
                let mfn = self.frame_of(g);
                if mm.release(mfn, self.guests[g].id).is_ok() {
                    self.guests[g].frames.retain(|m| *m != mfn);
                }
            }
            3 if self.rng.one_in(4) => {
                let mfn = self.frame_of(g);
                if let Ok(block) = mm.steal(mfn, self.guests[g].id) {
                    self.guests[g].frames.retain(|m| *m != mfn);
                    self.stolen.push(block);
                }
            }
            4 => self.place_stolen(g),
            5 | 6 => {
                let mfn = self.frame_of(g);
                let level = if self.rng.one_in(6) { level_of(1 + self.rng.below(4)) } else { level_of(role(mfn)) };
                let result = mm.pin(&mut self.ctx(g, budget), mfn, level);
                self.log_error(result);
            }
            7 => {
                let mfn = self.frame_of(g);
                let result = mm.unpin(&mut self.ctx(g, budget), mfn);
                self.log_error(result);
            }
            8 => {
                let mfn = self.frame_for(g, 4);
                if let Ok(root) = mm.get_table(&mut self.ctx(g, budget), mfn, Level::L4) {
                    self.run(g, root);
                }
            }
            9 => self.drop_something(g, budget),
            10 => {
                let mfn = self.frame_of(g);
                let dirty = self.guests[g].dirty.clone();
                match self.rng.below(3) {
                    0 => {
                        let held = mm.get_page(mfn, self.guests[g].id).map(oxen_mm::PageRef::hold);
                        self.guests[g].pages.extend(held);
                    }
                    1 => {
                        let held = mm.get_writable(mfn, self.guests[g].id, &dirty).map(oxen_mm::TypedRef::hold);
                        self.guests[g].uses.extend(held);
                    }
                    _ => {
                        let held = mm.get_descriptors(&mut self.ctx(g, budget), mfn);
                        self.guests[g].uses.extend(held);
                    }
                }
            }
            11 => self.touch(),
            12 => self.flush(),
            13 => self.foreign(budget),
            14 => self.grant(budget),
            17 => self.connect(g, budget),
            15 if self.rng.one_in(4) && self.guests[g].shared.len() < 3 => {
                if let Ok(block) = mm.alloc_zeroed(0, 0) {
                    machine.assert_not_cached(block.mfn());
                    let frame = mm.share(block, self.guests[g].id, true);
                    self.guests[g].shared.push(frame);
                }
            }
            16 => {
                if let Some(root) = self.running.iter().flatten().find(|(owner, _)| *owner == g).map(|(_, r)| r.mfn()) {
                    let entry = self.random_entry(g, 1);
                    let va = if self.rng.one_in(4) { self.random_va() } else { self.mapped_va(root) };
                    let quick = self.rng.one_in(2);
                    if !quick || self.quick(g, |q| mm.quick_update_va(q, root, va, entry)) != Some(true) {
                        let result = mm.update_va(&mut self.ctx(g, budget), root, va, entry);
                        self.log_error(result);
                    }
                }
            }
            18 => self.exchange(budget),
            19 if self.rng.one_in(2) => self.switch_root(),
            _ => {
                let table = self.frame_of(g);
                let index = *self.rng.pick(&INDEXES);
                let level = mm.inspect(table).and_then(|i| i.ty.level()).map_or(role(table), |l| l as u64);
                let entry = self.random_entry(g, level);
                let (preserve, quick) = (self.rng.one_in(2), self.rng.one_in(2));
                let request = [table.maddr().0 | (index * 8) as u64 | if preserve { 2 } else { 0 }, entry];
                if !quick || self.quick(g, |q| mm.quick_updates(q, &[request])) != Some(1) {
                    let result = mm.update_entry(&mut self.ctx(g, budget), table, index, entry, preserve);
                    self.log_error(result);
                }
            }
        }
        let _ = machine.take_events();
    }

    fn ctx(&mut self, g: usize, budget: u32) -> MmuContext<'_, Devices> {
        let guest = &mut self.guests[g];
        MmuContext::new(&mut guest.tables, guest.id, &guest.dirty, &Devices, false, budget)
    }

    /// Works on a guest's tables the quick way, where they are ready for that.
    fn quick<R>(&mut self, g: usize, f: impl FnOnce(&mut QuickTables<'_>) -> R) -> Option<R> {
        let guest = &mut self.guests[g];
        Some(f(&mut QuickTables::new(&mut guest.tables, guest.id, false)?))
    }

    /// A guest writes to one of its level-1 tables where it sees it.
    fn exchange(&mut self, budget: u32) {
        let mm = self.mm;
        let cpu = self.rng.below(u64::from(CPUS)) as usize;
        let Some((g, root)) = self.running[cpu].as_ref().map(|(g, root)| (*g, root.mfn())) else { return };
        let va = Gva(self.mapped_va(root).0 | *self.rng.pick(&INDEXES) as u64 * 8);
        let entry = self.random_entry(g, 1);
        if self.quick(g, |q| mm.quick_exchange_at(q, root, va, entry)).flatten().is_none() {
            let result = mm.exchange_at(&mut self.ctx(g, budget), root, va, entry);
            self.log_error(result.map(drop));
        }
    }

    /// A processor goes on with another root of the guest that it runs.
    fn switch_root(&mut self) {
        let (mm, machine) = (self.mm, self.machine);
        let cpu = self.rng.below(u64::from(CPUS)) as u32;
        let Some((g, mut held)) = self.running[cpu as usize].take() else { return };
        let root = self.frame_for(g, 4);
        self.quick(g, |q| mm.quick_switch_root(q, &mut held, root, || machine.on_cpu(cpu, || machine.load_root(root, true))));
        self.running[cpu as usize] = Some((g, held));
    }

    fn log_error(&self, result: Result<(), MmError>) {
        if let Err(error) = result {
            let _ = error.errno();
            assert!(!error.to_string().is_empty());
        }
    }

    fn random_va(&mut self) -> Gva {
        let mut va = 0;
        for level in 1..=4 {
            va |= (*self.rng.pick(&INDEXES) as u64) << (12 + 9 * (level - 1));
        }
        // Sign extension makes it canonical.
        Gva((((va << 16) as i64) >> 16) as u64)
    }

    /// Puts a validated root on a processor, and takes the one that was there off.
    fn run(&mut self, g: usize, root: HeldTable) {
        let cpu = self.rng.below(u64::from(CPUS)) as u32;
        let machine = self.machine;
        self.guests[g].dirty.insert(CpuId(cpu));
        let same = matches!(&self.running[cpu as usize], Some((owner, _)) if *owner == g);
        machine.on_cpu(cpu, || machine.load_root(root.mfn(), !same));
        if let Some((owner, old)) = self.running[cpu as usize].replace((g, root)) {
            if owner != g {
                self.guests[owner].dirty.remove(CpuId(cpu));
            }
            self.guests[owner].idle_roots.push(old);
        }
    }

    fn drop_something(&mut self, g: usize, budget: u32) {
        let mm = self.mm;
        match self.rng.below(5) {
            0 => {
                if let Some(held) = self.guests[g].pages.pop() {
                    mm.put(held);
                }
            }
            1 => {
                if let Some(held) = self.guests[g].uses.pop() {
                    mm.put_typed(held);
                }
            }
            2 if self.rng.one_in(4) => {
                if let Some(frame) = self.guests[g].shared.pop() {
                    mm.unshare(frame);
                }
            }
            _ => {
                if let Some(root) = self.guests[g].idle_roots.pop()
                    && let Err(root) = mm.put_table(&mut self.ctx(g, budget), root)
                {
                    self.guests[g].idle_roots.push(root);
                }
            }
        }
    }

    fn place_stolen(&mut self, g: usize) {
        let Some(block) = self.stolen.pop() else { return };
        if self.rng.one_in(2) {
            self.mm.free(block);
            return;
        }
        match self.mm.assign(block, self.guests[g].id) {
            Ok(mfn) => {
                self.machine.assert_not_cached(mfn);
                self.guests[g].frames.push(mfn);
            }
            Err((_, block)) => self.mm.free(block),
        }
    }

    /// An address that the tables below `root` translate, where the random choices find one.
    fn mapped_va(&mut self, root: Mfn) -> Gva {
        let (mut table, mut va) = (root, 0);
        for level in (1..=4).rev() {
            let present: Vec<usize> =
                INDEXES.into_iter().filter(|&i| !(256..272).contains(&i) && self.machine_entry(table, i) & PRESENT != 0).collect();
            let index = if present.is_empty() { 0 } else { *self.rng.pick(&present) };
            va |= (index as u64) << (12 + 9 * (level - 1));
            table = entry::frame(self.machine_entry(table, index));
        }
        Gva((((va << 16) as i64) >> 16) as u64)
    }

    /// The guest on a processor uses its memory.
    fn touch(&mut self) {
        let cpu = self.rng.below(u64::from(CPUS)) as u32;
        let Some(root) = self.running[cpu as usize].as_ref().map(|(_, root)| root.mfn()) else { return };
        for _ in 0..20 {
            let (va, write) = (self.mapped_va(root), self.rng.one_in(2));
            let machine = self.machine;
            if !va.range_is_guest(1) {
                continue;
            }
            machine.on_cpu(cpu, || machine.translate_guest(va, write));
        }
    }

    /// A guest flushes, as it must now and then.
    fn flush(&mut self) {
        let machine = self.machine;
        let cpu = self.rng.below(u64::from(CPUS)) as u32;
        machine.on_cpu(cpu, || machine.flush_local(FlushScope::All));
    }

    /// Makes a path from a root down to writable data.
    fn connect(&mut self, g: usize, budget: u32) {
        let mut table = self.frame_for(g, 4);
        for level in (1..=4).rev() {
            let next = self.frame_for(g, level - 1);
            let index = *self.rng.pick(&INDEXES);
            let mm = self.mm;
            let result = mm.update_entry(&mut self.ctx(g, budget), table, index, entry::make(next, PRESENT | RW | USER), false);
            self.log_error(result);
            table = next;
        }
    }

    /// Domain 1 maps memory of domain 2.
    fn foreign(&mut self, budget: u32) {
        let table = self.frame_for(0, 1);
        let entry = self.random_entry(1, 1);
        let index = *self.rng.pick(&INDEXES);
        let id = self.guests[1].id;
        let mm = self.mm;
        let _ = mm.update_entry(&mut self.ctx(0, budget).with_foreign(id), table, index, entry, false);
    }

    /// Domain 1 maps or unmaps a grant of domain 2.
    fn grant(&mut self, budget: u32) {
        let mm = self.mm;
        let table = self.frame_for(0, 1);
        let index = *self.rng.pick(&INDEXES);
        if self.rng.one_in(2) {
            let e = self.machine_entry(table, index);
            let result = mm.clear_grant_entry(&mut self.ctx(0, budget), table, index, entry::frame(e), e & RW != 0, 0);
            if let Ok(held) = result {
                // What is not RAM holds no reference; giving it back does nothing.
                self.machine.flush_remote(&self.guests[0].dirty, FlushScope::All);
                mm.put_mapping(held);
            }
            return;
        }
        let granted = self.frame_for(1, 0);
        let id = self.guests[1].id;
        let held = if self.rng.one_in(2) {
            mm.get_page(granted, id).map(|p| MappingRef::Read(p.hold()))
        } else {
            mm.get_writable(granted, id, &self.guests[1].dirty).map(|p| MappingRef::Write(p.hold()))
        };
        if let Ok(held) = held
            && let Err((_, held)) = mm.set_grant_entry(&mut self.ctx(0, budget), table, index, PRESENT | USER, held)
        {
            mm.put_mapping(held);
        }
    }

    fn machine_entry(&self, table: Mfn, index: usize) -> u64 {
        if self.machine.meta(table).is_some() { self.machine.read_entry(table, index) } else { 0 }
    }

    /// Recounts everything.
    fn check(&self) {
        let mut expected: BTreeMap<Mfn, Expected> = BTreeMap::new();
        let mut in_use = 0;
        for n in 0..FRAMES {
            let mfn = Mfn(n);
            let Some(info) = self.mm.inspect(mfn) else { continue };
            in_use += 1;
            let e = expected.entry(mfn).or_default();
            e.counts += u64::from(info.allocated);
            if info.pinned || info.partial {
                assert!(info.pinned != info.partial, "{mfn} {info:?}");
                e.add_use(mfn, info.ty);
            }
            self.count_entries(mfn, &mut expected);
        }
        for guest in &self.guests {
            for held in &guest.pages {
                expected.entry(held.mfn()).or_default().counts += 1;
            }
            for held in &guest.uses {
                let ty = self.mm.inspect(held.mfn()).map_or(FrameType::None, |i| i.ty);
                assert!(matches!(ty, FrameType::Writable | FrameType::SegDesc));
                expected.entry(held.mfn()).or_default().add_use(held.mfn(), ty);
            }
            for held in &guest.idle_roots {
                expected.entry(held.mfn()).or_default().add_use(held.mfn(), FrameType::L4);
            }
            for held in &guest.shared {
                expected.entry(held.mfn()).or_default().add_use(held.mfn(), FrameType::Writable);
            }
        }
        for (_, held) in self.running.iter().flatten() {
            expected.entry(held.mfn()).or_default().add_use(held.mfn(), FrameType::L4);
        }
        for (mfn, e) in &expected {
            let info = self.mm.inspect(*mfn).unwrap_or_else(|| panic!("{mfn} is referred to and free"));
            assert_eq!(info.uses, e.uses, "{mfn} {info:?}");
            assert_eq!(info.references, e.counts + u64::from(e.uses > 0), "{mfn} {info:?}");
            if let Some(ty) = e.ty {
                assert_eq!(info.ty, ty, "{mfn}");
                assert!(info.validated || info.partial || ty == FrameType::Writable, "{mfn} {info:?}");
                if ty != FrameType::Writable {
                    assert!(!self.machine.is_cached(*mfn, true), "{mfn} is {ty:?} and a processor can write it");
                }
            }
        }
        let stolen = self.stolen.len() as u64;
        assert_eq!(self.mm.free_frames() + in_use + stolen, self.total);
        let owned: u64 = [1, 2].iter().map(|&n| self.mm.account(DomId(n)).unwrap().pages()).sum();
        let shared = (0..FRAMES).filter(|&n| self.mm.inspect(Mfn(n)).is_some_and(|i| i.shared)).count() as u64;
        assert_eq!(owned + shared, in_use);
    }

    fn count_entries(&self, table: Mfn, expected: &mut BTreeMap<Mfn, Expected>) {
        let Some(info) = self.mm.inspect(table) else { return };
        let Some(level) = info.ty.level().filter(|_| info.uses > 0) else { return };
        for index in INDEXES.into_iter().filter(|&i| i < info.checked_entries) {
            let e = self.machine.read_entry(table, index);
            if level == Level::L4 && entry::is_hypervisor_slot(index) {
                if info.validated {
                    assert_eq!(e, self.machine.hypervisor_slot(index - 256));
                }
                continue;
            }
            if e & PRESENT == 0 {
                continue;
            }
            let target = entry::frame(e);
            assert_eq!(e & USER, USER);
            if self.machine.meta(target).is_none() {
                assert!(level == Level::L1 && (target.0 >= 0x10_0100 || e & RW == 0) && target.0 < 0x10_0200);
                continue;
            }
            let owner = self.mm.owner(target);
            let x = expected.entry(target).or_default();
            match level.below() {
                Some(below) => {
                    assert_eq!(owner, Some(info.owner), "a table of another domain");
                    assert_eq!(e & entry::UPPER_DISALLOWED, 0);
                    x.add_use(target, FrameType::table(below));
                }
                None => {
                    assert!(owner == Some(info.owner) || info.owner == DomId(1), "{table} maps {target} of {owner:?}");
                    if e & RW != 0 {
                        x.add_use(target, FrameType::Writable);
                    } else {
                        x.counts += 1;
                    }
                }
            }
        }
    }

    /// Both domains die; nothing may be left.
    fn finish(mut self) {
        let (mm, machine) = (self.mm, self.machine);
        for cpu in 0..CPUS {
            machine.on_cpu(cpu, || machine.load_idle_root());
            if let Some((g, root)) = self.running[cpu as usize].take() {
                self.guests[g].dirty.remove(CpuId(cpu));
                self.guests[g].idle_roots.push(root);
            }
        }
        for g in 0..2 {
            mm.account(self.guests[g].id).unwrap().set_dying();
            while let Some(root) = self.guests[g].idle_roots.pop() {
                let budget = self.budget();
                if let Err(root) = mm.put_table(&mut self.ctx(g, budget), root) {
                    self.guests[g].idle_roots.push(root);
                }
            }
            std::mem::take(&mut self.guests[g].pages).into_iter().for_each(|p| mm.put(p));
            std::mem::take(&mut self.guests[g].uses).into_iter().for_each(|p| mm.put_typed(p));
            std::mem::take(&mut self.guests[g].shared).into_iter().for_each(|p| mm.unshare(p));
            self.check();
            let mut cursor = 0;
            loop {
                let budget = self.budget().max(1);
                match mm.relinquish(&mut self.ctx(g, budget), &mut cursor) {
                    Ok(()) => break,
                    Err(error) => assert_eq!(error, MmError::Preempted),
                }
            }
            self.check();
        }
        // Domain 1 died first; what it mapped of domain 2 is gone with it.
        std::mem::take(&mut self.stolen).into_iter().for_each(|b| mm.free(b));
        for g in &self.guests {
            assert_eq!(mm.account(g.id).unwrap().pages(), 0);
        }
        assert_eq!(mm.free_frames(), self.total);
        while let Ok(block) = mm.alloc(0, 0) {
            machine.assert_not_cached(block.mfn());
        }
    }
}

fn role(mfn: Mfn) -> u64 {
    [0, 1, 2, 3, 4, 0, 1, 0][mfn.0 as usize % 8]
}

fn level_of(n: u64) -> Level {
    match n {
        2 => Level::L2,
        3 => Level::L3,
        4 => Level::L4,
        _ => Level::L1,
    }
}

fn run(seed: u64, steps: u32) {
    let mut test = Test::new(seed);
    for _ in 0..steps {
        test.step();
        test.check();
    }
    test.finish();
}

#[test]
fn counts_are_right_after_every_operation() {
    assert!(INDEXES.iter().all(|&i| i < PT_ENTRIES));
    // OXEN_SEEDS=first..last repeats or extends the search.
    let seeds = std::env::var("OXEN_SEEDS").ok().and_then(|s| {
        let (first, last) = s.split_once("..")?;
        Some(first.parse().ok()?..last.parse().ok()?)
    });
    for seed in seeds.unwrap_or(0..60) {
        println!("seed {seed}");
        run(seed, 1500);
    }
}
