//! What must hold after every call: each frame has the uses and references that a recount of all page tables and of all that domains hold gives.

use crate::world::{CPUS, FRAMES, World};
use anyhow::{Result, bail, ensure};
use oxen_core::domain::Domain;
use oxen_core::vcpu::VcpuState;
use oxen_hal::{AddressSpace, Frames};
use oxen_mm::entry::{self, PRESENT, RW, USER};
use oxen_mm::{FrameInfo, FrameType, Level, MappingRef};
use oxen_types::{CpuId, DomId, Mfn, PT_ENTRIES};
use std::collections::BTreeMap;

/// Steps in which a domain's end comes.
const MOST_STEPS: u32 = 20_000;

/// What a frame should look like.
#[derive(Default)]
struct Expected {
    uses: u64,
    ty: Option<FrameType>,
    references: u64,
}

/// A recount.
#[derive(Default)]
struct Recount {
    frames: BTreeMap<Mfn, Expected>,
}

impl Recount {
    fn add_use(&mut self, mfn: Mfn, ty: FrameType) -> Result<()> {
        let frame = self.frames.entry(mfn).or_default();
        if let Some(other) = frame.ty.filter(|other| *other != ty) {
            bail!("{mfn} is used as {ty:?} and as {other:?}");
        }
        frame.ty = Some(ty);
        frame.uses += 1;
        Ok(())
    }

    fn add_reference(&mut self, mfn: Mfn) {
        self.frames.entry(mfn).or_default().references += 1;
    }

    fn add_state(&mut self, state: &VcpuState) -> Result<()> {
        for root in state.root.iter().chain(&state.user_root) {
            self.add_use(root.mfn(), FrameType::L4)?;
        }
        for frame in state.gdt_frames.iter().chain(state.ldt_frames.iter().flatten()) {
            self.add_use(frame.mfn(), FrameType::SegDesc)?;
        }
        Ok(())
    }

    fn add_domain(&mut self, domain: &Domain) -> Result<()> {
        self.add_use(domain.shared_info.mfn(), FrameType::Writable)?;
        let grants = domain.grants.lock();
        for mfn in grants.frames().chain(grants.status_frames()) {
            self.add_use(mfn, FrameType::Writable)?;
        }
        for frame in domain.event_frames.lock().iter().chain(&domain.pirqs.lock().eoi_page) {
            self.add_use(frame.mfn(), FrameType::Writable)?;
        }
        for vcpu in domain.vcpus() {
            if let Some(frame) = vcpu.info_frame.lock().as_ref() {
                self.add_use(frame.mfn(), FrameType::Writable)?;
            }
            // That of a running vCPU is with its processor.
            if let Some(state) = vcpu.state.try_take() {
                self.add_state(&state)?;
            }
        }
        for mapping in domain.maptrack.lock().mappings() {
            match &mapping.device {
                Some(MappingRef::Write(held)) => self.add_use(held.mfn(), FrameType::Writable)?,
                Some(MappingRef::Read(held)) => self.add_reference(held.mfn()),
                None => {}
            }
        }
        Ok(())
    }

    fn add_table(&mut self, world: &World, table: Mfn, info: &FrameInfo) -> Result<()> {
        let Some(level) = info.ty.level().filter(|_| info.uses > 0) else { return Ok(()) };
        for index in 0..info.checked_entries.min(PT_ENTRIES) {
            let e = world.machine.read_entry(table, index);
            if level == Level::L4 && entry::is_hypervisor_slot(index) {
                ensure!(!info.validated || e == world.machine.hypervisor_slot(index - 256), "{table} lacks the hypervisor's entry {index}");
                continue;
            }
            if e & PRESENT == 0 {
                continue;
            }
            ensure!(e & USER != 0, "entry {index} of {table} is {e:#x}");
            let target = entry::frame(e);
            if world.machine.meta(target).is_none() {
                ensure!(level == Level::L1, "entry {index} of {table} is {e:#x}");
                continue;
            }
            match level.below() {
                Some(below) => {
                    let owner = world.hv.memory.owner(target);
                    ensure!(owner == Some(info.owner), "entry {index} of {table}, which is {}'s, is {owner:?}'s {target}", info.owner);
                    self.add_use(target, FrameType::table(below))?;
                }
                None if e & RW != 0 => self.add_use(target, FrameType::Writable)?,
                None => self.add_reference(target),
            }
            if level == Level::L1 {
                may_map(world, info.owner, target)?;
            }
        }
        Ok(())
    }
}

/// An unprivileged domain maps its own frames, what is shared with all, and what others grant it.
fn may_map(world: &World, domain: DomId, target: Mfn) -> Result<()> {
    let owner = world.hv.memory.owner(target);
    let Some(mapper) = world.hv.domains.get(domain).filter(|mapper| !mapper.privileges.control) else { return Ok(()) };
    let granted = || mapper.maptrack.lock().mappings().any(|mapping| mapping.mfn == target && mapping.host);
    ensure!(owner == Some(domain) || owner == Some(DomId::XEN) || mapper.is_dying() || granted(), "{domain} maps {target}, which is {owner:?}'s");
    Ok(())
}

/// Recounts everything.
pub fn check(world: &World, total: u64) -> Result<()> {
    let mut recount = Recount::default();
    let mut in_use = 0;
    for mfn in (0..FRAMES).map(Mfn) {
        let Some(info) = world.hv.memory.inspect(mfn) else { continue };
        in_use += 1;
        recount.frames.entry(mfn).or_default().references += u64::from(info.allocated);
        if info.pinned || info.partial {
            ensure!(info.pinned != info.partial, "{mfn} is {info:?}");
            recount.add_use(mfn, info.ty)?;
        }
        recount.add_table(world, mfn, &info)?;
    }
    for domain in world.hv.domains.snapshot() {
        recount.add_domain(&domain)?;
    }
    for cpu in &world.cpus {
        if let Some(running) = &cpu.borrow().local.running {
            recount.add_state(&running.state)?;
        }
    }
    for (mfn, expected) in &recount.frames {
        let Some(info) = world.hv.memory.inspect(*mfn) else { bail!("{mfn} is referred to and free") };
        ensure!(info.uses == expected.uses, "{mfn} has {} uses by recount: {info:?}", expected.uses);
        let references = expected.references + u64::from(expected.uses > 0);
        ensure!(info.references == references, "{mfn} has {references} references by recount: {info:?}");
        if let Some(ty) = expected.ty {
            ensure!(info.ty == ty, "{mfn} is used as {ty:?}: {info:?}");
            let cached = ty != FrameType::Writable && world.machine.is_cached(*mfn, true);
            ensure!(!cached, "{mfn} is {ty:?}, and a processor can write it");
        }
    }
    let free = world.hv.memory.free_frames();
    ensure!(free + in_use == total, "{free} frames are free and {in_use} in use, of {total}");
    Ok(())
}

/// What the world has in it, for whoever wants to know whether calls get anywhere.
pub fn summary(world: &World) -> String {
    let domains = world.hv.domains.snapshot();
    let mappings: usize = domains.iter().map(|domain| domain.maptrack.lock().mappings().count()).sum();
    let ports: usize = domains.iter().map(|domain| domain.events.lock().in_use().count()).sum();
    let of_type = |wanted: fn(&FrameInfo) -> bool| (0..FRAMES).filter_map(|n| world.hv.memory.inspect(Mfn(n))).filter(wanted).count();
    let tables = of_type(|info| info.ty.level().is_some() && info.uses > 0);
    let descriptors = of_type(|info| info.ty == FrameType::SegDesc && info.uses > 0);
    format!(
        "    {} domains, {mappings} grants mapped, {ports} ports, {tables} tables, {descriptors} descriptor pages, {} frames free",
        domains.len(),
        world.hv.memory.free_frames()
    )
}

/// Where a domain's vCPUs are, and what memory it has.
fn state_of(world: &World, domain: &Domain) -> String {
    let pages = world.hv.memory.account(domain.id).map_or(0, oxen_mm::Account::pages);
    let vcpus = domain.vcpus().map(|vcpu| format!("{:?}{}", *vcpu.place.lock(), if vcpu.state.is_taken() { " with its state taken" } else { "" }));
    format!("{pages} pages, vCPUs {}", vcpus.collect::<Vec<_>>().join(", "))
}

/// Ends all domains; every frame must come back.
pub fn finish(world: &World, total: u64) -> Result<()> {
    for domain in world.hv.domains.snapshot() {
        let mut steps = 0;
        while let Err(error) = world.hv.destroy_step(CpuId(0), &domain) {
            ensure!(error == oxen_abi::Errno::ERESTART, "the end of {} fails: {error:?}", domain.id);
            steps += 1;
            ensure!(steps < MOST_STEPS, "the end of {} does not come: {}", domain.id, state_of(world, &domain));
            world.begin_step();
            (0..CPUS).for_each(|cpu| {
                world.enter(cpu, crate::world::KICK_VECTOR);
            });
        }
        check(world, total)?;
    }
    world.hv.bury_dead();
    let left: Vec<DomId> = world.hv.domains.snapshot().iter().map(|domain| domain.id).collect();
    ensure!(left.is_empty(), "of the ended domains these are left: {left:?}");
    ensure!(world.hv.memory.claimed_frames() == 0, "{} frames stay claimed", world.hv.memory.claimed_frames());
    let free = world.hv.memory.free_frames();
    ensure!(free == total, "{free} of {total} frames came back");
    for cpu in 0..CPUS {
        let timers = world.hv.timers.get(cpu as usize).map_or(0, |queue| queue.lock().len());
        ensure!(timers == 0, "{timers} timers of CPU {cpu} are left");
    }
    Ok(())
}
