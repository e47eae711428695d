//! Page faults of PV guests.

use super::trap::inject;
use super::emulate;
use crate::ctx::Ctx;
use oxen_emul::rmw::MemoryWrite;
use oxen_emul::string::StringWrite;
use oxen_emul::{Instruction, MAX_INSTRUCTION_BYTES};
use oxen_hal::Machine;
use oxen_mm::{FrameType, MmError};
use oxen_types::Gva;

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
    if ctx.state.context.in_kernel && code & (PRESENT | WRITE | RESERVED | FETCH) == PRESENT | WRITE && write_to_read_only(ctx, va) {
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
            // The hardware domain's writes are emulated for its device memory already, whatever it says of its tables.
            let emulated = ctx.domain.privileges.hardware || ctx.domain.has_assist(ASSIST_WRITABLE_PAGE_TABLES);
            emulated && write_page_table(ctx, va, mfn)
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
fn write_page_table<M: Machine>(ctx: &mut Ctx<'_, M>, va: Gva, table: oxen_types::Mfn) -> bool {
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
            if mm.machine().read_entry(table, index) != entry {
                return Ok(false);
            }
            mm.update_entry(tables, table, index, new_entry, false).map(|()| true)
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
