//! Page faults of PV guests.

use super::trap::inject;
use super::{emulate, flags};
use crate::Hypervisor;
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::vcpu::VcpuState;
use oxen_abi::arch_x86_64::FLAT_KERNEL_CS;
use oxen_emul::registers;
use oxen_emul::rmw::MemoryWrite;
use oxen_emul::string::StringWrite;
use oxen_emul::{Instruction, MAX_INSTRUCTION_BYTES};
use oxen_hal::{GuestFrame, Machine};
use oxen_mm::{FrameType, MmError, QuickTables};
use oxen_types::{Gva, Mfn};

/// Error code bits (Intel SDM vol. 3, "Page-Fault Exception").
const PRESENT: u32 = 1 << 0;
const WRITE: u32 = 1 << 1;
const USER: u32 = 1 << 2;
const RESERVED: u32 = 1 << 3;
const FETCH: u32 = 1 << 4;
/// Number of the assist `VMASST_TYPE_writable_pagetables`.
const ASSIST_WRITABLE_PAGE_TABLES: u32 = 2;
/// Attempts to exchange an entry that the processor changes at the same time.
const MAX_ATTEMPTS: u32 = 16;

/// Handles a page fault: a descriptor table page to be mapped, a write to a page table to be emulated, or the guest's own business.
#[inline]
pub(super) fn page_fault<M: Machine>(ctx: &mut Ctx<'_, M>) {
    let va = ctx.machine().fault_address();
    let code = ctx.frame.error_code;
    if code & (PRESENT | USER) == PRESENT && va.range_is_guest(1) && ctx.machine().give_up_smap() {
        // A guest's access is never a supervisor's: the processor is wrong, and the instruction is done again without the check.
        ctx.hv.log(format_args!("CPU{}: faulty SMAP (seen in QEMU before version 8); switched off", ctx.cpu));
        return;
    }
    if ctx.state.context.in_kernel
        && code & (PRESENT | WRITE | RESERVED | FETCH) == PRESENT | WRITE
        && (unhurried_table_write(ctx, va) || write_to_read_only(ctx, va))
    {
        return;
    }
    let mut va = va;
    if code & PRESENT == 0
        && let Some(offset) = ctx.machine().ldt_offset(va)
    {
        if ctx.map_ldt_page(offset) {
            return;
        }
        // The guest knows its LDT by its own address, not by that of the window.
        va = Gva(ctx.state.ldt.base.0.wrapping_add(offset));
    }
    if let Some(info) = ctx.vcpu.info() {
        info.set_cr2(ctx.machine(), va.0);
    }
    // The processor always says user: both modes of the guest run in ring 3.
    let mode = if ctx.state.context.in_kernel { 0 } else { USER };
    inject(ctx, 14, Some(u64::from(code & !USER | mode)));
}

/// How kernels write single entries: a 64-bit `mov` or `xchg` of a register and memory, without prefixes, at a register and at most a short displacement. The
/// processor has said which address that is.
struct PlainWrite {
    register: u8,
    exchanges: bool,
    length: u64,
}

/// Decodes the instruction at rip, which faulted on its write, where it is such a write.
#[inline(always)]
fn plain_write<M: Machine>(machine: &M, frame: &GuestFrame) -> Option<PlainWrite> {
    const REX_W: u8 = 0x48;
    const MOV: u8 = 0x89;
    const XCHG: u8 = 0x87;
    if frame.cs as u16 != FLAT_KERNEL_CS {
        return None;
    }
    let [rex, opcode, modrm, ..] = machine.read_guest_u64(Gva(frame.rip)).ok()?.to_le_bytes();
    let (mode, base) = (modrm >> 6, modrm & 7);
    // Base 4 stands for a further byte, and 5 without displacement for an address relative to rip.
    if rex & 0xf8 != REX_W || !matches!(opcode, MOV | XCHG) || mode > 1 || base == 4 || (mode == 0 && base == 5) {
        return None;
    }
    Some(PlainWrite { register: modrm >> 3 & 7 | rex << 1 & 8, exchanges: opcode == XCHG, length: 3 + u64::from(mode) })
}

/// A write of a whole entry to one of the guest's level-1 tables at `va`, by a plain instruction; `exchange` writes the new entry and gives the old one. False where it is
/// anything else, or is refused.
#[inline(always)]
fn plain_write_to_table<M: Machine>(
    hv: &Hypervisor<M>,
    (domain, state): (&Domain, &VcpuState),
    frame: &mut GuestFrame,
    va: Gva,
    exchange: impl FnOnce(Mfn, u64) -> Option<u64>,
) -> bool {
    let Some(write) = plain_write(hv.machine, frame).filter(|_| va.0.is_multiple_of(8)) else { return false };
    let Some(root) = state.root.as_ref().map(oxen_mm::HeldTable::mfn) else { return false };
    if !writes_are_emulated(domain) {
        return false;
    }
    let register = registers::get_mut(frame, write.register);
    let Some(old) = exchange(root, *register) else { return false };
    if write.exchanges {
        *register = old;
    }
    frame.rip = frame.rip.wrapping_add(write.length);
    frame.rflags &= !flags::RF;
    true
}

/// Such a write in the most frequent case, without a context; false where nothing was done.
#[inline(always)]
pub(crate) fn quick_table_write<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, state: &VcpuState, frame: &mut GuestFrame) -> bool {
    let va = hv.machine.fault_address();
    plain_write_to_table(hv, (domain, state), frame, va, |root, new| {
        let mut tables = domain.page_tables.lock();
        let mut quick = QuickTables::new(&mut tables, domain.id, domain.has_devices())?;
        hv.memory.quick_exchange_at(&mut quick, root, va, new)
    })
}

/// Such a write.
#[cold]
fn unhurried_table_write<M: Machine>(ctx: &mut Ctx<'_, M>, va: Gva) -> bool {
    let (hv, domain) = (ctx.hv, ctx.domain);
    plain_write_to_table(hv, (domain, ctx.state), ctx.frame, va, |root, new| {
        hv.with_tables(domain, domain.id, |mm, tables| mm.exchange_at(tables, root, va, new)).ok().flatten()
    })
}

/// The hardware domain's writes are emulated for its device memory already, whatever it says of its tables.
#[inline]
fn writes_are_emulated(domain: &Domain) -> bool {
    domain.privileges.hardware || domain.has_assist(ASSIST_WRITABLE_PAGE_TABLES)
}

/// The guest's kernel wrote to a page that it sees read-only: emulated where the page is one of its level-1 tables, or device memory of which dom0 may
/// only read. False where it is neither: the fault is the guest's.
#[cold]
fn write_to_read_only<M: Machine>(ctx: &mut Ctx<'_, M>, va: Gva) -> bool {
    let Some(root) = ctx.state.root.as_ref().map(oxen_mm::HeldTable::mfn) else { return false };
    let Some(mapping) = ctx.hv.memory.walk(root, va) else { return false };
    let Some(mfn) = mapping.frame() else { return false };
    if mapping.writable {
        // Another CPU has made the page writable since; the instruction is done again.
        ctx.machine().flush_page_local(va);
        return true;
    }
    match ctx.hv.memory.inspect(mfn) {
        Some(info) if info.ty == FrameType::L1 && info.owner == ctx.domain.id => {
            writes_are_emulated(ctx.domain) && write_page_table(ctx, va, mfn)
        }
        Some(_) => false,
        None => ctx.domain.has_devices() && ctx.machine().is_hypervisor_mmio(mfn) && skip_write(ctx),
    }
}

/// An instruction that writes one memory operand.
struct Writer {
    insn: Instruction,
    string: Option<StringWrite>,
    write: MemoryWrite,
    /// Of the operand.
    address: u64,
}

impl Writer {
    /// Brings registers and flags up to date after the operand went from `old` to `new`.
    fn finish<M: Machine>(&self, ctx: &mut Ctx<'_, M>, old: u64, new: u64) {
        self.write.finish(ctx.frame, old, new);
        self.advance(ctx);
    }

    /// Goes on to the next element or instruction.
    fn advance<M: Machine>(&self, ctx: &mut Ctx<'_, M>) {
        // Unfinished repetitions come back by the fault of the next element.
        if self.string.is_none_or(|string| string.finish(ctx.frame)) {
            ctx.frame.rip = ctx.frame.rip.wrapping_add(self.insn.length as u64);
        }
    }
}

/// Decodes the instruction at rip.
fn decode_write<M: Machine>(ctx: &Ctx<'_, M>) -> Option<Writer> {
    let mut bytes = [0; MAX_INSTRUCTION_BYTES];
    let got = emulate::fetch(ctx, &mut bytes);
    let insn = Instruction::decode(bytes.get(..got)?)?;
    let base = emulate::segment_base(ctx, insn.segment);
    let Some(string) = StringWrite::of(&insn) else {
        let write = MemoryWrite::of(&insn, ctx.frame)?;
        let address = insn.effective_address(ctx.frame)?.wrapping_add(base);
        return Some(Writer { insn, string: None, write, address });
    };
    let mut value = ctx.frame.rax.to_le_bytes();
    if string.from_memory {
        let source = Gva(ctx.frame.rsi.wrapping_add(base));
        ctx.machine().copy_from_guest(value.get_mut(..usize::from(string.bytes))?, source).ok()?;
    }
    let write = MemoryWrite::store(u64::from_le_bytes(value), string.bytes);
    Some(Writer { insn, string: Some(string), write, address: ctx.frame.rdi })
}

/// Carries out a write to a level-1 table as the instruction would, with the new entry checked.
fn write_page_table<M: Machine>(ctx: &mut Ctx<'_, M>, va: Gva, table: Mfn) -> bool {
    let Some(writer) = decode_write(ctx) else { return false };
    let (write, address) = (&writer.write, writer.address);
    if address != va.0 || !address.is_multiple_of(write.bytes.into()) {
        return false;
    }
    let index = Gva(address).page_offset() / 8;
    let shift = (address % 8 * 8) as u32;
    let mask = oxen_emul::registers::mask(write.bytes);
    for _ in 0..MAX_ATTEMPTS {
        let entry = ctx.machine().read_entry(table, index);
        let old = entry >> shift & mask;
        let Some(new) = write.apply(ctx.frame, old) else {
            writer.finish(ctx, old, old);
            return true;
        };
        let new_entry = entry & !(mask << shift) | (new & mask) << shift;
        let owner = ctx.domain.id;
        let result = ctx.hv.with_tables(ctx.domain, owner, |mm, tables| {
            match mm.exchange_leaf(tables, table, index, entry, new_entry) {
                Err(MmError::EntryChanged { .. }) => Ok(false),
                other => other.map(|()| true),
            }
        });
        match result {
            Ok(true) => {
                writer.finish(ctx, old, new);
                return true;
            }
            // The processor or another vCPU changed the entry: once more with what it is now.
            Ok(false) => {}
            Err(MmError::Preempted) => return true,
            Err(error) => {
                ctx.hv.log_limited(format_args!("{}v{}: write to page table {table} refused: {error}", ctx.domain.id, ctx.vcpu.id));
                return false;
            }
        }
    }
    true
}

/// Lets a write to device memory that dom0 may only read pass without effect.
fn skip_write<M: Machine>(ctx: &mut Ctx<'_, M>) -> bool {
    let Some(writer) = decode_write(ctx) else { return false };
    writer.advance(ctx);
    true
}
