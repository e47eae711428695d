//! Grant tables against a model: random granters' writes, uses, swaps, growth and changes of the version.

extern crate std;
use super::*;
use oxen_abi::grant_table::{
    GNTTAB_NR_RESERVED_ENTRIES, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TRANSITIVE, GTF_TYPE_MASK, GTF_WRITING,
};
use oxen_testkit::{Config, FakeMachine, Rng};
use std::collections::BTreeMap;
use std::vec::Vec;

const GRANTER: DomId = DomId(1);
const GRANTEES: [DomId; 2] = [DomId(2), DomId(3)];
/// Bound of the table, in frames.
const FRAMES: u32 = 3;
const STEPS: usize = 4000;
const SEEDS: u64 = 24;

/// An entry as the granter wrote it, in the fields of version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Written {
    flags: u16,
    domid: u16,
    middle: u32,
    second: u64,
}

impl Written {
    fn object(&self, version: u32) -> Object {
        match (version, self.flags & GTF_TYPE_MASK) {
            (2, GTF_TRANSITIVE) => Object::Grant { granter: DomId(self.middle as u16), reference: GrantRef(self.second as u32) },
            (2, _) if self.flags & GTF_SUB_PAGE != 0 => {
                Object::Part { mfn: Mfn(self.second), start: self.middle as u16, length: (self.middle >> 16) as u16 }
            }
            _ => Object::Page(Mfn(self.second)),
        }
    }

    /// Whether the interface lets `grantee` begin such a use.
    fn grants(&self, version: u32, grantee: DomId, purpose: Purpose, write: bool) -> bool {
        let kind = self.flags & GTF_TYPE_MASK;
        let whole = kind == GTF_PERMIT_ACCESS && self.flags & GTF_SUB_PAGE == 0;
        let fit = match purpose {
            Purpose::Map => whole,
            Purpose::Copy => kind == GTF_PERMIT_ACCESS || version == 2 && kind == GTF_TRANSITIVE,
            Purpose::CopyOfGrant => kind == GTF_PERMIT_ACCESS,
        };
        fit && self.domid == grantee.0 && !(write && self.flags & GTF_READONLY != 0)
    }
}

#[derive(Clone, Debug)]
struct Use {
    grantee: DomId,
    object: Object,
    readers: u32,
    writers: u32,
}

struct Model {
    machine: &'static FakeMachine,
    mm: Mm<FakeMachine>,
    table: GrantTable,
    version: u32,
    written: BTreeMap<u32, Written>,
    uses: BTreeMap<u32, Use>,
    free_at_start: u64,
}

impl Model {
    fn new() -> Self {
        let machine = FakeMachine::new(Config { frames: 32, ..Config::default() });
        let mm = Mm::new(machine);
        mm.add_range(Mfn(0), 32);
        let free_at_start = mm.free_frames();
        let mut table = GrantTable::new(FRAMES, MAX_VERSION);
        table.grow(&mm, GRANTER, 1).unwrap();
        Self { machine, mm, table, version: 1, written: BTreeMap::new(), uses: BTreeMap::new(), free_at_start }
    }

    fn entries(&self) -> u32 {
        self.table.nr_frames() * entries_per_frame(self.version)
    }

    /// A reference: mostly one of a few, so that uses meet; sometimes near or beyond the end.
    fn reference(&self, rng: &mut Rng) -> u32 {
        match rng.below(8) {
            0 => self.entries() - 1,
            1 => self.entries() + rng.below(3) as u32,
            _ => rng.below(12) as u32,
        }
    }

    fn bytes_at(&self, reference: u32) -> (Mfn, usize) {
        let per_frame = entries_per_frame(self.version);
        let frames: Vec<Mfn> = self.table.frames().collect();
        (frames[(reference / per_frame) as usize], ((reference % per_frame) * (4096 / per_frame)) as usize)
    }

    /// The granter writes an entry that nobody uses, as its protocol asks.
    fn write(&mut self, rng: &mut Rng) {
        let reference = rng.below(u64::from(self.entries()).min(12)) as u32;
        if self.uses.contains_key(&reference) {
            return;
        }
        let kinds = [0, GTF_PERMIT_ACCESS, GTF_PERMIT_ACCESS | GTF_READONLY, 2, GTF_TRANSITIVE, GTF_PERMIT_ACCESS | GTF_SUB_PAGE];
        let second = if self.version == 1 { rng.below(1 << 32) } else { rng.below(1 << 34) };
        let written = Written { flags: *rng.pick(&kinds), domid: rng.pick(&GRANTEES).0, middle: rng.below(1 << 32) as u32, second };
        let (frame, offset) = self.bytes_at(reference);
        let head = u64::from(written.domid) << 16 | u64::from(written.flags);
        let word = |at: usize| self.machine.shared_u64(frame, offset + at);
        let written = if self.version == 1 {
            word(0).store(written.second << 32 | head, Ordering::SeqCst);
            Written { middle: 0, ..written }
        } else {
            word(8).store(written.second, Ordering::SeqCst);
            word(0).store(u64::from(written.middle) << 32 | head, Ordering::SeqCst);
            written
        };
        self.written.insert(reference, written);
    }

    fn pin(&mut self, rng: &mut Rng) {
        let reference = self.reference(rng);
        let (grantee, write, count) = (*rng.pick(&GRANTEES), rng.below(2) == 1, 1 + rng.below(2) as u32);
        let purpose = *rng.pick(&[Purpose::Map, Purpose::Copy, Purpose::CopyOfGrant]);
        let result = self.table.pin(self.machine, GrantRef(reference), (grantee, purpose), write, count);
        let written = self.written.get(&reference).copied().unwrap_or_default();
        let expected = match self.uses.get(&reference) {
            _ if reference >= self.entries() => Err(GrantStatus::BAD_GNTREF),
            None if written.grants(self.version, grantee, purpose, write) => Ok(written.object(self.version)),
            Some(found)
                if found.grantee == grantee
                    && !(write && written.flags & GTF_READONLY != 0)
                    && match purpose {
                        Purpose::Map => matches!(found.object, Object::Page(_)),
                        Purpose::Copy => true,
                        Purpose::CopyOfGrant => !matches!(found.object, Object::Grant { .. }),
                    } =>
            {
                Ok(found.object)
            }
            _ => Err(GrantStatus::GENERAL_ERROR),
        };
        assert_eq!(result, expected, "reference {reference}, {purpose:?}, write {write}, {written:?}, {:?}", self.uses.get(&reference));
        if let Ok(object) = result {
            let found = self.uses.entry(reference).or_insert(Use { grantee, object, readers: 0, writers: 0 });
            *(if write { &mut found.writers } else { &mut found.readers }) += count;
        }
    }

    fn unpin(&mut self, rng: &mut Rng) {
        let used: Vec<u32> = self.uses.keys().copied().collect();
        if used.is_empty() {
            return;
        }
        let reference = *rng.pick(&used);
        let Some(found) = self.uses.get_mut(&reference) else { return };
        let write = found.readers == 0 || found.writers != 0 && rng.below(2) == 1;
        let held = if write { &mut found.writers } else { &mut found.readers };
        let count = 1 + rng.below((*held).into()) as u32;
        *held -= count;
        let over = (found.readers, found.writers) == (0, 0);
        self.table.unpin(self.machine, GrantRef(reference), write, count);
        if over {
            self.uses.remove(&reference);
        }
    }

    fn swap(&mut self, rng: &mut Rng) {
        let (a, b) = (self.reference(rng), self.reference(rng));
        let result = self.table.swap(self.machine, GrantRef(a), GrantRef(b));
        if a.max(b) >= self.entries() {
            assert_eq!(result, Err(GrantStatus::BAD_GNTREF));
        } else if a != b && (self.uses.contains_key(&a) || self.uses.contains_key(&b)) {
            assert_eq!(result, Err(GrantStatus::EAGAIN));
        } else {
            assert_eq!(result, Ok(()));
            let (first, second) = (self.written.get(&a).copied().unwrap_or_default(), self.written.get(&b).copied().unwrap_or_default());
            self.written.insert(a, second);
            self.written.insert(b, first);
        }
    }

    fn set_version(&mut self, rng: &mut Rng) {
        let wanted = rng.below(4) as u32;
        let result = self.table.set_version(&self.mm, GRANTER, wanted);
        let reserved = |reference: &u32| *reference < GNTTAB_NR_RESERVED_ENTRIES;
        let unrepresentable = |written: &Written| {
            let kind = written.flags & GTF_TYPE_MASK;
            kind == GTF_TRANSITIVE || kind == GTF_PERMIT_ACCESS && written.second >> 32 != 0
        };
        let expected = if wanted == 0 || wanted > 2 {
            Err(Errno::EINVAL)
        } else if wanted == self.version {
            Ok(())
        } else if !self.uses.keys().all(reserved) {
            Err(Errno::EBUSY)
        } else if wanted == 1 && self.written.iter().any(|(reference, written)| reserved(reference) && unrepresentable(written)) {
            Err(Errno::ERANGE)
        } else {
            Ok(())
        };
        assert_eq!(result, expected, "from {} to {wanted}", self.version);
        if result.is_err() || wanted == self.version {
            return;
        }
        self.written.retain(|reference, _| reserved(reference));
        for written in self.written.values_mut() {
            written.middle = 0;
            if wanted == 1 && written.flags & GTF_TYPE_MASK != GTF_PERMIT_ACCESS {
                *written = Written::default();
            }
        }
        self.version = wanted;
    }

    /// Marks, as the granter sees them, are what the uses say; flags are what it wrote.
    fn check(&self) {
        for reference in (0..12).chain([self.entries() - 1]) {
            let (frame, offset) = self.bytes_at(reference);
            let head = self.machine.shared_u32(frame, offset).load(Ordering::SeqCst);
            let all_marks = GTF_READING | GTF_WRITING;
            let marks = match self.version {
                1 => head as u16 & all_marks,
                _ => {
                    let status: Vec<Mfn> = self.table.status_frames().collect();
                    let byte = reference as usize % 2048 * 2;
                    let word = self.machine.shared_u32(status[reference as usize / 2048], byte & !3).load(Ordering::SeqCst);
                    (word >> (byte % 4 * 8)) as u16
                }
            };
            let expected = match self.uses.get(&reference) {
                None => 0,
                Some(found) if found.writers != 0 => all_marks,
                Some(_) => GTF_READING,
            };
            assert_eq!(marks, expected, "reference {reference}");
            let written = self.written.get(&reference).copied().unwrap_or_default();
            assert_eq!((head as u16 & !all_marks, (head >> 16) as u16), (written.flags, written.domid), "reference {reference}");
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        match rng.below(32) {
            0 => self.set_version(rng),
            1 => {
                let wanted = rng.below(u64::from(FRAMES) + 2) as u32;
                let expected = if wanted > FRAMES { Err(Errno::EINVAL) } else { Ok(()) };
                assert_eq!(self.table.grow(&self.mm, GRANTER, wanted), expected);
            }
            2..4 => self.swap(rng),
            4..12 => self.write(rng),
            12..22 => self.pin(rng),
            _ => self.unpin(rng),
        }
    }
}

#[test]
fn tables_agree_with_the_model() {
    let mut changed = 0;
    let mut used = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut model = Model::new();
        for _ in 0..STEPS {
            let before = model.version;
            model.step(&mut rng);
            model.check();
            changed += usize::from(model.version != before);
            used += usize::from(!model.uses.is_empty());
        }
        for frame in model.table.take_frames() {
            model.mm.unshare(frame);
        }
        assert_eq!(model.mm.free_frames(), model.free_at_start, "seed {seed}");
    }
    assert!(changed > 20 && used > STEPS, "{changed} changes of the version, {used} steps with uses");
}
