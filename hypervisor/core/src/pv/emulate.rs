//! Privileged instructions of PV kernels, which run in ring 3 and fault on them.

use super::flags;
use crate::Hypervisor;
use crate::ctx::Ctx;
use core::sync::atomic::Ordering::Relaxed;
use oxen_abi::hypercall_page::pv_hypercall_page;
use oxen_abi::Errno;
use oxen_emul::decode::{Map, Repeat, Segment};
use oxen_emul::msr::{self, Read, Write};
use oxen_emul::registers;
use oxen_emul::{Instruction, MAX_INSTRUCTION_BYTES, cpuid};
use oxen_hal::{Machine, PciAddress};
use oxen_mm::HeldTable;
use oxen_types::{Gva, Maddr, Mfn};

/// CR0 as every PV guest sees it, without TS (Intel SDM vol. 3, "Control Registers"): PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
const CR0_TS: u64 = 1 << 3;
/// CR4 bits that a guest may choose.
const CR4_GUEST: u64 = 1 << 2 | 1 << 3 | 1 << 16 | 1 << 18;
/// CR4 bits of the machine that a guest sees: PAE, MCE, OSFXSR, OSXMMEXCPT.
const CR4_SHOWN: u64 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_FSGSBASE: u64 = 1 << 16;
/// The bytes that force an emulated CPUID: `ud2`, "xen", `cpuid` (public header `arch-x86/xen.h`).
const FORCED_CPUID: [u8; 7] = [0x0f, 0x0b, b'x', b'e', b'n', 0x0f, 0xa2];

/// Reads instruction bytes at rip: as many as are mapped, up to the page's end and beyond.
pub(super) fn fetch<M: Machine>(ctx: &Ctx<'_, M>, bytes: &mut [u8; MAX_INSTRUCTION_BYTES]) -> usize {
    let rip = Gva(ctx.frame.rip);
    if ctx.machine().copy_from_guest(bytes, rip).is_ok() {
        return bytes.len();
    }
    let in_page = (4096 - rip.page_offset()).min(bytes.len());
    let Some(part) = bytes.get_mut(..in_page) else { return 0 };
    if ctx.machine().copy_from_guest(part, rip).is_ok() { in_page } else { 0 }
}

/// Base of an overridden segment.
pub(super) fn segment_base<M: Machine>(ctx: &Ctx<'_, M>, segment: Option<Segment>) -> u64 {
    match segment {
        None => 0,
        Some(Segment::Fs) => ctx.machine().fs_base(),
        Some(Segment::Gs) => ctx.machine().gs_base(),
    }
}

fn decode<M: Machine>(ctx: &Ctx<'_, M>) -> Option<Instruction> {
    let mut bytes = [0; MAX_INSTRUCTION_BYTES];
    let got = fetch(ctx, &mut bytes);
    Instruction::decode(bytes.get(..got)?)
}

/// The vector and length of the software interrupt instruction at rip, where that is what raised the fault.
pub(super) fn software_interrupt<M: Machine>(ctx: &Ctx<'_, M>) -> Option<(u8, u64)> {
    // Bit 1: the error code names a gate of the interrupt descriptor table; bit 0: an event outside the program.
    if ctx.frame.error_code & 3 != 2 {
        return None;
    }
    let insn = decode(ctx)?;
    (insn.map == Map::Primary && insn.opcode == 0xcd).then_some((insn.immediate as u8, insn.length as u64))
}

/// `#UD`: true where the instruction was a forced CPUID, or one that the processor refuses and the guest may use all the same.
pub(super) fn invalid_opcode<M: Machine>(ctx: &mut Ctx<'_, M>) -> bool {
    let mut bytes = [0; FORCED_CPUID.len()];
    if ctx.machine().copy_from_guest(&mut bytes, Gva(ctx.frame.rip)).is_err() || bytes != FORCED_CPUID {
        return false;
    }
    do_cpuid(ctx);
    advance(ctx, FORCED_CPUID.len());
    true
}

fn advance<M: Machine>(ctx: &mut Ctx<'_, M>, bytes: usize) {
    ctx.frame.rip = ctx.frame.rip.wrapping_add(bytes as u64);
    ctx.frame.rflags &= !flags::RF;
}

fn do_cpuid<M: Machine>(ctx: &mut Ctx<'_, M>) {
    let (leaf, subleaf) = (ctx.frame.rax as u32, ctx.frame.rcx as u32);
    let query = cpuid::Query {
        leaf,
        subleaf,
        // A kernel that asks by the forced form learns from OSXSAVE whether it may switch XSAVE on, before it has.
        cr4: ctx.state.context.cr4 | if ctx.state.context.in_kernel { ctx.machine().cr4() & CR4_OSXSAVE } else { 0 },
        xcr0: ctx.state.context.xcr0,
        vcpu: ctx.vcpu.id.0,
        max_vcpus: ctx.domain.max_vcpus(),
        hardware_domain: ctx.domain.privileges.hardware,
        tsc_khz: ctx.machine().tsc_khz(),
        tsc_scale: ctx.machine().tsc_scale(),
    };
    let machine = ctx.machine();
    let answer = cpuid::pv(&query, |leaf, subleaf| machine.cpuid(leaf, subleaf));
    let policy = ctx.domain.cpuid.lock().clone();
    let [a, b, c, d] = policy.map_or(answer, |policy| policy.apply(leaf, subleaf, answer));
    ctx.frame.rax = a.into();
    ctx.frame.rbx = b.into();
    ctx.frame.rcx = c.into();
    ctx.frame.rdx = d.into();
}

/// `#GP(0)`: emulates the instruction where the guest may use it. False leaves the fault to the guest.
pub(super) fn privileged<M: Machine>(ctx: &mut Ctx<'_, M>) -> bool {
    let Some(insn) = decode(ctx) else { return false };
    if insn.lock {
        return false;
    }
    let done = match (insn.map, insn.opcode) {
        (Map::Primary, 0xe4..=0xe7 | 0xec..=0xef) => port_io(ctx, &insn),
        (Map::Primary, 0x6c..=0x6f) => return string_io(ctx, &insn),
        (Map::Primary, 0xfa | 0xfb) => ctx.state.iopl >= if ctx.state.context.in_kernel { 1 } else { 3 },
        (Map::TwoByte, 0xa2) => {
            do_cpuid(ctx);
            true
        }
        _ if !ctx.state.context.in_kernel => false,
        (Map::TwoByte, 0x09) => {
            if ctx.domain.has_devices() {
                ctx.machine().wbinvd();
            }
            true
        }
        (Map::TwoByte, 0x06) => set_task_switched(ctx, false),
        (Map::TwoByte, 0x20) => read_control(ctx, &insn),
        (Map::TwoByte, 0x22) if insn.reg == 3 => return write_cr3(ctx, &insn),
        (Map::TwoByte, 0x22) => write_control(ctx, &insn),
        (Map::TwoByte, 0x21) => read_debug(ctx, &insn),
        (Map::TwoByte, 0x23) => write_debug(ctx, &insn),
        (Map::TwoByte, 0x31) => read_time_stamp(ctx),
        (Map::TwoByte, 0x30) => write_msr(ctx),
        (Map::TwoByte, 0x32) => read_msr(ctx),
        (Map::TwoByte, 0x01) if insn.modrm == 0xd1 => set_xcr(ctx),
        (Map::TwoByte, 0x01) if insn.modrm == 0xf9 => {
            ctx.frame.rcx = ctx.state.context.tsc_aux.into();
            read_time_stamp(ctx)
        }
        _ => false,
    };
    if done {
        advance(ctx, insn.length);
    }
    done
}

/// `rdtsc` and `rdtscp` fault where the guest has set CR4.TSD, which keeps them from its user mode only.
fn read_time_stamp<M: Machine>(ctx: &mut Ctx<'_, M>) -> bool {
    let tsc = ctx.machine().tsc();
    ctx.frame.rax = tsc & 0xffff_ffff;
    ctx.frame.rdx = tsc >> 32;
    true
}

pub(super) fn set_task_switched<M: Machine>(ctx: &mut Ctx<'_, M>, set: bool) -> bool {
    ctx.state.context.task_switched = set;
    ctx.machine().set_task_switched(set);
    true
}

fn guest_cr4<M: Machine>(ctx: &Ctx<'_, M>) -> u64 {
    ctx.state.context.cr4 & CR4_GUEST | CR4_SHOWN
}

fn read_control<M: Machine>(ctx: &mut Ctx<'_, M>, insn: &Instruction) -> bool {
    let Some(register) = insn.rm_register else { return false };
    let value = match insn.reg {
        0 => CR0 | if ctx.state.context.task_switched { CR0_TS } else { 0 },
        2 => ctx.vcpu.info().map_or(0, |i| i.cr2(ctx.machine())),
        3 => ctx.state.root.as_ref().map_or(0, |root| root.mfn().maddr().0),
        4 => guest_cr4(ctx),
        _ => return false,
    };
    *registers::get_mut(ctx.frame, register) = value;
    true
}

fn write_control<M: Machine>(ctx: &mut Ctx<'_, M>, insn: &Instruction) -> bool {
    let Some(register) = insn.rm_register else { return false };
    let value = registers::get(ctx.frame, register);
    match insn.reg {
        0 if (value ^ CR0) & !CR0_TS == 0 => set_task_switched(ctx, value & CR0_TS != 0),
        2 => {
            if let Some(info) = ctx.vcpu.info() {
                info.set_cr2(ctx.machine(), value);
            }
            true
        }
        4 => {
            let allowed = cpuid::allowed_cr4(&|leaf, subleaf| ctx.machine().cpuid(leaf, subleaf)) & CR4_GUEST;
            ctx.state.context.cr4 = value & allowed;
            ctx.machine().set_guest_cr4(ctx.state.context.cr4);
            true
        }
        _ => false,
    }
}

/// `mov` to CR3: the new kernel root. Where the work on its tables is not finished the guest comes back to the instruction.
fn write_cr3<M: Machine>(ctx: &mut Ctx<'_, M>, insn: &Instruction) -> bool {
    let Some(register) = insn.rm_register else { return false };
    let root = Maddr(registers::get(ctx.frame, register)).mfn();
    match ctx.new_base_pointer(root) {
        Ok(()) => advance(ctx, insn.length),
        Err(Errno::ERESTART) => {}
        Err(_) => return false,
    }
    true
}

fn write_debug<M: Machine>(ctx: &mut Ctx<'_, M>, insn: &Instruction) -> bool {
    let Some(register) = insn.rm_register else { return false };
    let value = registers::get(ctx.frame, register);
    ctx.load_debug_register(insn.reg.into(), value).is_ok()
}

fn read_debug<M: Machine>(ctx: &mut Ctx<'_, M>, insn: &Instruction) -> bool {
    let Some(register) = insn.rm_register else { return false };
    let number = match insn.reg {
        4 => 6,
        5 => 7,
        n => usize::from(n),
    };
    let Some(value) = ctx.state.context.debug.get(number).copied() else { return false };
    *registers::get_mut(ctx.frame, register) = value;
    true
}

/// `rdmsr` without prefixes, which kernels use at each switch between processes; false where the instruction is another one or is refused.
pub(super) fn plain_rdmsr<M: Machine>(ctx: &mut Ctx<'_, M>) -> bool {
    const RDMSR: u64 = 0x320f;
    const LENGTH: usize = 2;
    let word = ctx.machine().read_guest_u64(Gva(ctx.frame.rip));
    let done = word.is_ok_and(|word| word & 0xffff == RDMSR) && read_msr(ctx);
    if done {
        advance(ctx, LENGTH);
    }
    done
}

fn read_msr<M: Machine>(ctx: &mut Ctx<'_, M>) -> bool {
    let number = ctx.frame.rcx as u32;
    let machine = ctx.machine();
    let value = match msr::read(number, ctx.vcpu.id.0 == 0) {
        Read::Value(value) => Some(value),
        Read::FsBase => Some(machine.fs_base()),
        Read::ActiveGsBase => Some(machine.gs_base()),
        Read::InactiveGsBase => Some(machine.inactive_gs_base()),
        Read::TscAux => Some(ctx.state.context.tsc_aux.into()),
        Read::Machine => machine.rdmsr(number),
        Read::MachineForHardwareDomain if ctx.domain.privileges.hardware => machine.rdmsr(number),
        Read::MachineForHardwareDomain | Read::Refused => None,
    };
    // A kernel that has no handler yet could not survive the fault: what exists on the machine reads as 0 then.
    let early = ctx.state.traps.get(13).is_none_or(|t| t.address == 0);
    let value = value.or_else(|| machine.rdmsr(number).filter(|_| early).map(|_| 0));
    let Some(value) = value else {
        ctx.hv.log_limited(format_args!("{}v{}: rdmsr {number:#x} refused", ctx.domain.id, ctx.vcpu.id));
        return false;
    };
    ctx.frame.rax = value & 0xffff_ffff;
    ctx.frame.rdx = value >> 32;
    true
}

fn write_msr<M: Machine>(ctx: &mut Ctx<'_, M>) -> bool {
    let number = ctx.frame.rcx as u32;
    let value = ctx.frame.rax & 0xffff_ffff | ctx.frame.rdx << 32;
    let machine = ctx.machine();
    let canonical = Gva(value).is_canonical();
    match msr::write(number) {
        Write::FsBase if canonical => machine.set_fs_base(value),
        Write::ActiveGsBase if canonical => machine.set_gs_base(value),
        Write::InactiveGsBase if canonical => machine.set_inactive_gs_base(value),
        Write::HypercallPage if fill_hypercall_page(ctx, value) => {}
        Write::TscAux if value >> 32 == 0 => {
            ctx.state.context.tsc_aux = value as u32;
            return machine.wrmsr(number, value);
        }
        Write::Ignored => {}
        Write::OnlyValue(only) if only == value => {}
        _ => {
            ctx.hv.log_limited(format_args!("{}v{}: wrmsr {number:#x} = {value:#x} refused", ctx.domain.id, ctx.vcpu.id));
            return false;
        }
    }
    true
}

/// Places the page of hypercall stubs: frame number in the upper bits, index of the page (there is one) in the lower twelve.
fn fill_hypercall_page<M: Machine>(ctx: &Ctx<'_, M>, value: u64) -> bool {
    let frame = ctx.hv.memory.get_writable(Mfn(value >> 12), ctx.domain.id, &ctx.domain.dirty_cpus);
    match frame {
        Ok(frame) if value & 0xfff == 0 => {
            ctx.machine().write_bytes(frame.mfn(), 0, &pv_hypercall_page());
            true
        }
        _ => false,
    }
}

/// `xsetbv`: the components that are enabled must exist, x87 among them, and AVX needs SSE.
fn set_xcr<M: Machine>(ctx: &mut Ctx<'_, M>) -> bool {
    let value = ctx.frame.rax & 0xffff_ffff | ctx.frame.rdx << 32;
    if ctx.frame.rcx as u32 != 0 || ctx.state.context.cr4 & CR4_OSXSAVE == 0 {
        return false;
    }
    if !cpuid::valid_xcr0(value, &|leaf, subleaf| ctx.machine().cpuid(leaf, subleaf)) {
        return false;
    }
    ctx.state.context.xcr0 = value;
    ctx.machine().set_xcr0(value);
    true
}

/// Whether the guest itself allows its present mode to use these ports.
fn guest_allows_ports<M: Machine>(ctx: &Ctx<'_, M>, port: u16, bytes: u8) -> bool {
    if ctx.state.iopl >= if ctx.state.context.in_kernel { 1 } else { 3 } {
        return true;
    }
    let Some(bitmap) = ctx.state.io_bitmap else { return false };
    let last = u32::from(port) + u32::from(bytes);
    if last > bitmap.nr_ports {
        return false;
    }
    // The bitmap is in the kernel's memory: it is read through the kernel's tables.
    let Some(root) = ctx.state.root.as_ref().map(HeldTable::mfn) else { return false };
    let in_kernel = ctx.state.context.in_kernel;
    if !in_kernel {
        ctx.machine().load_root(root, false);
    }
    let mut allowed = true;
    for p in u32::from(port)..last {
        let mut byte = [0xff];
        let read = ctx.machine().copy_from_guest(&mut byte, Gva(bitmap.address.0.wrapping_add(u64::from(p / 8))));
        allowed &= read.is_ok() && byte[0] >> (p % 8) & 1 == 0;
    }
    if !in_kernel && let Some(user) = ctx.state.user_root.as_ref().map(HeldTable::mfn) {
        ctx.machine().load_root(user, false);
    }
    allowed
}

impl<M: Machine> Hypervisor<M> {
    /// Ports that stay with the hypervisor: interrupt controllers, the timer, and its serial line.
    pub(crate) fn keeps_port(&self, port: u16) -> bool {
        matches!(port, 0x20 | 0x21 | 0xa0 | 0xa1 | 0x40..=0x43) || self.machine.is_hypervisor_port(port)
    }
}

/// Whether a domain that does not drive the machine was given these ports.
fn was_given<M: Machine>(ctx: &Ctx<'_, M>, port: u16, bytes: u8) -> bool {
    let first = u64::from(port);
    ctx.domain.access.lock().ports.contains(first, first + u64::from(bytes) - 1)
}

fn read_port<M: Machine>(ctx: &Ctx<'_, M>, port: u16, bytes: u8) -> u32 {
    let ones = registers::mask(bytes) as u32;
    if !ctx.domain.privileges.hardware {
        return if was_given(ctx, port, bytes) { ctx.machine().port_in(port, bytes) } else { ones };
    }
    match (port, bytes) {
        (0xcf8, 4) => ctx.domain.pci_address_latch.load(Relaxed),
        (0xcfc..=0xcff, _) => match pci_target(ctx, port) {
            Some((function, offset)) if offset % u16::from(bytes) == 0 => ctx.machine().pci_read(function, offset, bytes),
            _ => ones,
        },
        _ if (0..u16::from(bytes)).any(|i| ctx.hv.keeps_port(port.wrapping_add(i))) => ones,
        _ => ctx.machine().port_in(port, bytes),
    }
}

fn write_port<M: Machine>(ctx: &Ctx<'_, M>, port: u16, bytes: u8, value: u32) {
    if !ctx.domain.privileges.hardware {
        if was_given(ctx, port, bytes) {
            ctx.machine().port_out(port, bytes, value);
        }
        return;
    }
    match (port, bytes) {
        (0xcf8, 4) => ctx.domain.pci_address_latch.store(value, Relaxed),
        (0xcfc..=0xcff, _) => {
            if let Some((function, offset)) = pci_target(ctx, port)
                && offset % u16::from(bytes) == 0
            {
                ctx.machine().pci_write(function, offset, bytes, value);
            }
        }
        _ if (0..u16::from(bytes)).any(|i| ctx.hv.keeps_port(port.wrapping_add(i))) => {}
        _ => ctx.machine().port_out(port, bytes, value),
    }
}

/// The register that an access to ports 0xcfc to 0xcff means (PCI Local Bus Specification 3.0, section 3.2.2.3.2).
fn pci_target<M: Machine>(ctx: &Ctx<'_, M>, port: u16) -> Option<(PciAddress, u16)> {
    let latch = ctx.domain.pci_address_latch.load(Relaxed);
    if latch >> 31 == 0 {
        return None;
    }
    let function = PciAddress { segment: 0, bus: (latch >> 16) as u8, devfn: (latch >> 8) as u8 };
    // AMD processors take bits 8 to 11 of the register number from bits 24 to 27.
    let offset = (latch & 0xfc) as u16 | (latch >> 16 & 0xf00) as u16 | port & 3;
    Some((function, offset))
}

fn io_bytes(insn: &Instruction) -> u8 {
    match (insn.opcode & 1, insn.operand_size_prefix) {
        (0, _) => 1,
        (_, true) => 2,
        _ => 4,
    }
}

fn port_io<M: Machine>(ctx: &mut Ctx<'_, M>, insn: &Instruction) -> bool {
    let bytes = io_bytes(insn);
    let port = if insn.opcode & 8 == 0 { u16::from(insn.immediate as u8) } else { ctx.frame.rdx as u16 };
    if !guest_allows_ports(ctx, port, bytes) {
        return false;
    }
    if insn.opcode & 2 == 0 {
        let value = read_port(ctx, port, bytes);
        registers::write(ctx.frame, 0, bytes, true, value.into());
    } else {
        write_port(ctx, port, bytes, ctx.frame.rax as u32 & registers::mask(bytes) as u32);
    }
    true
}

/// `ins` and `outs`: one element; with a repeat prefix the guest comes back for the next one. A fault of the memory operand is delivered to the guest.
fn string_io<M: Machine>(ctx: &mut Ctx<'_, M>, insn: &Instruction) -> bool {
    let bytes = io_bytes(insn);
    let port = ctx.frame.rdx as u16;
    if !guest_allows_ports(ctx, port, bytes) {
        return false;
    }
    let repeated = insn.repeat == Some(Repeat::Rep);
    if repeated && ctx.frame.rcx == 0 {
        advance(ctx, insn.length);
        return true;
    }
    let input = insn.opcode & 2 == 0;
    let at = if input { ctx.frame.rdi } else { ctx.frame.rsi.wrapping_add(segment_base(ctx, insn.segment)) };
    let mut raw = [0; 4];
    let Some(element) = raw.get_mut(..usize::from(bytes)) else { return false };
    let result = if input {
        let value = read_port(ctx, port, bytes).to_le_bytes();
        element.copy_from_slice(value.get(..usize::from(bytes)).unwrap_or(&[]));
        ctx.machine().copy_to_guest(Gva(at), element)
    } else {
        ctx.machine().copy_from_guest(element, Gva(at))
    };
    if let Err(fault) = result {
        if let Some(info) = ctx.vcpu.info() {
            info.set_cr2(ctx.machine(), fault.va.0);
        }
        let write = if input { 2 } else { 0 };
        let user = if ctx.state.context.in_kernel { 0 } else { 4 };
        super::trap::inject(ctx, 14, Some(write | user));
        return true;
    }
    if !input {
        write_port(ctx, port, bytes, u32::from_le_bytes(raw));
    }
    let step = if ctx.frame.rflags & flags::DF != 0 { u64::from(bytes).wrapping_neg() } else { bytes.into() };
    let pointer = if input { &mut ctx.frame.rdi } else { &mut ctx.frame.rsi };
    *pointer = pointer.wrapping_add(step);
    if repeated {
        ctx.frame.rcx = ctx.frame.rcx.wrapping_sub(1);
    }
    if !repeated || ctx.frame.rcx == 0 {
        advance(ctx, insn.length);
    }
    true
}

/// The CR4 bits that a guest may choose decide which instructions it can use: FSGSBASE among them.
const _: () = assert!(CR4_GUEST & CR4_FSGSBASE != 0);
