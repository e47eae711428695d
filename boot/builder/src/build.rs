//! Fills the frames of a planned domain.

use crate::plan::{P2m, PfnRange, Plan, Role};
use crate::tables::{TableFrames, TableLevel};
use oxen_abi::xen::{
    ConsoleDom0, ConsoleDomU, Dom0VgaConsoleInfo, EvtchnPort, MAX_GUEST_CMDLINE, SIF_INITDOMAIN,
    SIF_MOD_START_PFN, SIF_PRIVILEGED, StartInfo,
};
use oxen_abi::{Payload, zerocopy::IntoBytes};
use oxen_kernel_image::{Kernel, Segment};
use oxen_types::{Gva, Maddr, Mfn, PAGE_SHIFT, PAGE_SIZE, PT_ENTRIES, Pfn};

/// Page-table entry bits. Intel SDM volume 3, "Paging", table of 4-level paging-structure entries.
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;

/// Entries that point at tables, and those that map ordinary pages.
const READ_WRITE: u64 = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;
/// Entries that map page tables.
const READ_ONLY: u64 = PRESENT | USER | ACCESSED | DIRTY;

/// The frames of a domain under construction. Frames that nothing is written to keep what they hold, so whoever provides them clears them.
pub trait GuestMemory {
    /// Why an access failed.
    type Error;

    /// Puts the machine frame numbers behind the PFNs `first..first + out.len()` into `out`.
    fn mfns(&self, first: Pfn, out: &mut [u64]) -> Result<(), Self::Error>;

    /// Writes bytes into one frame; `offset + bytes.len()` is at most 4096.
    fn write(&mut self, pfn: Pfn, offset: usize, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Clears bytes of one frame; `offset + len` is at most 4096.
    fn zero(&mut self, pfn: Pfn, offset: usize, len: usize) -> Result<(), Self::Error>;
}

/// How vCPU 0 starts. Registers that are not named are zero; `rflags` has IF set; the selectors are the flat kernel ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Instruction pointer.
    pub rip: Gva,
    /// Stack pointer.
    pub rsp: Gva,
    /// Address of the start information, in `rsi`.
    pub rsi: Gva,
    /// The root page table.
    pub cr3: Mfn,
    /// The command line was longer than the start information holds; the end is missing.
    pub cmdline_cut: bool,
}

/// Copies the kernel's segments to their frames and clears what they leave open. Errors: those of `memory`.
pub fn load_kernel<M: GuestMemory>(kernel: &Kernel<'_>, memory: &mut M) -> Result<(), M::Error> {
    for segment in kernel.segments() {
        write_across(memory, segment.paddr, segment.data)?;
        clear_rest(segment, memory)?;
    }
    Ok(())
}

/// Clears what a segment's data leaves open, for callers that put the data there by themselves. Errors: those of `memory`.
pub fn clear_rest<M: GuestMemory>(segment: &Segment<'_>, memory: &mut M) -> Result<(), M::Error> {
    let data_len = segment.data.len() as u64;
    zero_across(
        memory,
        segment.paddr.saturating_add(data_len),
        segment.mem_len.saturating_sub(data_len),
    )
}

/// Copies the initial RAM disk to its frames, for callers that do not place it there by choosing the frames. Does nothing where the plan
/// has none. Errors: those of `memory`.
pub fn load_initrd<M: GuestMemory>(
    plan: &Plan,
    bytes: &[u8],
    memory: &mut M,
) -> Result<(), M::Error> {
    match plan.initrd {
        Some(initrd) => write_across(memory, initrd.pfns.first.0 << PAGE_SHIFT, bytes),
        None => Ok(()),
    }
}

/// Writes the page tables, the p2m and the start information, and clears the boot stack.
///
/// `shared_info` is the address of the domain's shared information page, `cmdline` the kernel's command line without a terminating zero.
/// Errors: those of `memory`.
pub fn build<M: GuestMemory>(
    plan: &Plan,
    shared_info: Maddr,
    cmdline: &[u8],
    memory: &mut M,
) -> Result<Built, M::Error> {
    let read_only = plan.table_pfns();
    write_tables(
        &plan.tables,
        PfnRange {
            first: Pfn(0),
            count: plan.mapped,
        },
        Some(read_only),
        memory,
    )?;
    write_p2m(plan, memory)?;
    if let P2m {
        pfns,
        tables: Some(tables),
        ..
    } = plan.p2m
    {
        write_tables(&tables, pfns, None, memory)?;
    }
    write_root(plan, memory)?;

    let mut start_info = start_info(plan, memory)?;
    start_info.shared_info = shared_info.0;
    // One byte stays for the terminating zero.
    let kept = cmdline.get(..MAX_GUEST_CMDLINE - 1).unwrap_or(cmdline);
    copy_prefix(&mut start_info.cmd_line, kept);
    memory.write(plan.start_info, 0, start_info.as_bytes())?;
    let used = size_of::<StartInfo>();
    memory.zero(plan.start_info, used, PAGE_SIZE as usize - used)?;
    if let Role::Dom0 { vga: Some(vga), .. } = &plan.role {
        memory.write(plan.start_info, used, vga.as_bytes())?;
    }
    for pfn in [Some(plan.stack), plan.xenstore, plan.console]
        .into_iter()
        .flatten()
    {
        memory.zero(pfn, 0, PAGE_SIZE as usize)?;
    }
    Ok(Built {
        rip: plan.entry,
        rsp: Gva(plan.va(plan.stack).0.wrapping_add(PAGE_SIZE)),
        rsi: plan.va(plan.start_info),
        cr3: mfn(memory, plan.root)?,
        cmdline_cut: kept.len() < cmdline.len(),
    })
}

fn mfn<M: GuestMemory>(memory: &M, pfn: Pfn) -> Result<Mfn, M::Error> {
    let mut mfns = [0];
    memory.mfns(pfn, &mut mfns)?;
    let [mfn] = mfns;
    Ok(Mfn(mfn))
}

/// Cuts `paddr..paddr + len` at page boundaries and calls `f` with the frame, the offset in it, and the part of `0..len`.
fn each_page<E>(
    paddr: u64,
    len: u64,
    mut f: impl FnMut(Pfn, usize, core::ops::Range<u64>) -> Result<(), E>,
) -> Result<(), E> {
    let mut done = 0;
    while done < len {
        let at = paddr.wrapping_add(done);
        let offset = at % PAGE_SIZE;
        let part = (PAGE_SIZE - offset).min(len - done);
        f(Pfn(at >> PAGE_SHIFT), offset as usize, done..done + part)?;
        done += part;
    }
    Ok(())
}

fn write_across<M: GuestMemory>(memory: &mut M, paddr: u64, bytes: &[u8]) -> Result<(), M::Error> {
    each_page(paddr, bytes.len() as u64, |pfn, offset, part| {
        memory.write(
            pfn,
            offset,
            bytes
                .get(part.start as usize..part.end as usize)
                .unwrap_or_default(),
        )
    })
}

fn zero_across<M: GuestMemory>(memory: &mut M, paddr: u64, len: u64) -> Result<(), M::Error> {
    each_page(paddr, len, |pfn, offset, part| {
        memory.zero(pfn, offset, (part.end - part.start) as usize)
    })
}

/// Fills the tables so that they map `target` in order, `read_only` frames without the writable bit.
fn write_tables<M: GuestMemory>(
    tables: &TableFrames,
    target: PfnRange,
    read_only: Option<PfnRange>,
    memory: &mut M,
) -> Result<(), M::Error> {
    for n in 0..tables.count(TableLevel::L1) {
        let (first_va, last_va) = tables.part(TableLevel::L1, n);
        let first = target
            .first
            .offset((first_va - tables.first_va()) >> PAGE_SHIFT);
        write_table(
            memory,
            tables.first(TableLevel::L1).offset(n),
            TableLevel::L1,
            (first_va, last_va),
            first,
            read_only,
        )?;
    }
    for (level, below) in [
        (TableLevel::L2, TableLevel::L1),
        (TableLevel::L3, TableLevel::L2),
    ] {
        for n in 0..tables.count(level) {
            let part = tables.part(level, n);
            let first_below =
                (part.0 >> level.entry_shift()) - (tables.first_va() >> level.entry_shift());
            write_table(
                memory,
                tables.first(level).offset(n),
                level,
                part,
                tables.first(below).offset(first_below),
                None,
            )?;
        }
    }
    Ok(())
}

/// Writes one table: its entries for the addresses `part` (first and last byte) get the frames of the PFNs from `first` on.
fn write_table<M: GuestMemory>(
    memory: &mut M,
    table: Pfn,
    level: TableLevel,
    part: (u64, u64),
    first: Pfn,
    read_only: Option<PfnRange>,
) -> Result<(), M::Error> {
    let mut entries = [0; PT_ENTRIES];
    let used = entries
        .get_mut(level.index(part.0)..=level.index(part.1))
        .unwrap_or_default();
    memory.mfns(first, used)?;
    for (pfn, entry) in (first.0..).zip(used) {
        let protect = read_only.is_some_and(|range| range.contains(Pfn(pfn)));
        *entry = *entry << PAGE_SHIFT | if protect { READ_ONLY } else { READ_WRITE };
    }
    memory.write(table, 0, entries.as_bytes())
}

/// Writes the root: one entry for each L3 table. The hypervisor adds its own entries when it takes the frame as a root.
fn write_root<M: GuestMemory>(plan: &Plan, memory: &mut M) -> Result<(), M::Error> {
    let mut entries = [0; PT_ENTRIES];
    for tables in [Some(plan.tables), plan.p2m.tables].into_iter().flatten() {
        for n in 0..tables.count(TableLevel::L3) {
            let (first_va, _) = tables.part(TableLevel::L3, n);
            let table = mfn(memory, tables.first(TableLevel::L3).offset(n))?;
            if let Some(entry) = entries.get_mut(TableLevel::L4.index(first_va)) {
                *entry = table.0 << PAGE_SHIFT | READ_WRITE;
            }
        }
    }
    memory.write(plan.root, 0, entries.as_bytes())
}

/// Writes the p2m: the MFN of every page of the domain, in PFN order.
fn write_p2m<M: GuestMemory>(plan: &Plan, memory: &mut M) -> Result<(), M::Error> {
    let per_page = PT_ENTRIES as u64;
    for n in 0..plan.p2m.pfns.count {
        let mut mfns = [u64::MAX; PT_ENTRIES];
        let first = n * per_page;
        let used = plan.nr_pages.saturating_sub(first).min(per_page) as usize;
        memory.mfns(Pfn(first), mfns.get_mut(..used).unwrap_or_default())?;
        memory.write(plan.p2m.pfns.first.offset(n), 0, mfns.as_bytes())?;
    }
    Ok(())
}

/// What the layout says of the start information.
fn start_info<M: GuestMemory>(plan: &Plan, memory: &M) -> Result<StartInfo, M::Error> {
    let mut info = StartInfo {
        nr_pages: plan.nr_pages,
        pt_base: plan.va(plan.root).0,
        nr_pt_frames: plan.table_pfns().count,
        mfn_list: plan.p2m.va.0,
        ..StartInfo::default()
    };
    let magic: &[u8] = match (&plan.role, plan.pae) {
        (Role::Dom0 { .. }, true) => b"xen-3.0-x86_64p",
        _ => b"xen-3.0-x86_64",
    };
    copy_prefix(&mut info.magic, magic);
    if let Some(initrd) = plan.initrd {
        info.mod_len = initrd.len;
        info.mod_start = initrd.va.map_or(initrd.pfns.first.0, |va| va.0);
        if initrd.va.is_none() {
            info.flags |= SIF_MOD_START_PFN;
        }
    }
    if let Some(p2m) = plan.p2m_pfns() {
        info.first_p2m_pfn = p2m.first.0;
        info.nr_p2m_frames = p2m.count;
    }
    match plan.role {
        Role::Dom0 { vga, pm_bits } => {
            info.flags |= SIF_PRIVILEGED | SIF_INITDOMAIN | u32::from(pm_bits) << 8;
            if vga.is_some() {
                info.console = Payload::new(&ConsoleDom0 {
                    info_off: size_of::<StartInfo>() as u32,
                    info_size: size_of::<Dom0VgaConsoleInfo>() as u32,
                });
            }
        }
        Role::DomU {
            store_port,
            console_port,
        } => {
            info.store_evtchn = EvtchnPort::from(store_port);
            if let Some(pfn) = plan.xenstore {
                info.store_mfn = mfn(memory, pfn)?.0;
            }
            if let Some(pfn) = plan.console {
                info.console = Payload::new(&ConsoleDomU {
                    mfn: mfn(memory, pfn)?.0,
                    evtchn: EvtchnPort::from(console_port),
                    ..ConsoleDomU::default()
                });
            }
        }
    }
    Ok(info)
}

fn copy_prefix(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
