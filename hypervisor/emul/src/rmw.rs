//! Instructions that write one memory operand: what they do to the operand, the registers and the flags.

use crate::decode::{Instruction, Map};
use crate::registers::{mask, read, write};
use oxen_hal::GuestFrame;

/// Arithmetic flags (Intel SDM vol. 1, "Status Flags").
mod flag {
    pub const CF: u64 = 1 << 0;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const OF: u64 = 1 << 11;
    pub const ALL: u64 = CF | PF | AF | ZF | SF | OF;
}

/// What an instruction does with its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Store(u64),
    Exchange,
    CompareExchange,
    ExchangeAdd,
    Add(u64),
    Subtract(u64),
    /// Add this to the operand, and leave CF alone: `inc`, and `dec` with all ones.
    Count(u64),
    And(u64),
    Or(u64),
    Xor(u64),
    Bit { index: u64, kind: BitKind },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BitKind {
    Set,
    Reset,
    Complement,
}

/// A decoded write to memory.
#[derive(Clone, Copy, Debug)]
pub struct MemoryWrite {
    operation: Operation,
    /// Bytes of the operand: 1, 2, 4 or 8.
    pub bytes: u8,
    register: u8,
    has_rex: bool,
}

impl MemoryWrite {
    /// A plain store of the low `bytes` of `value`.
    #[must_use]
    pub const fn store(value: u64, bytes: u8) -> Self {
        Self { operation: Operation::Store(value), bytes, register: 0, has_rex: false }
    }

    /// Recognises `insn` as a write to one memory operand; the register operands are read from `frame`.
    #[must_use]
    pub fn of(insn: &Instruction, frame: &GuestFrame) -> Option<Self> {
        insn.memory?;
        let wide = insn.operand_bytes();
        let reg = |bytes| read(frame, insn.reg, bytes, insn.has_rex);
        let imm = insn.immediate as u64;
        let (operation, bytes) = match (insn.map, insn.opcode) {
            (Map::Primary, 0x88) => (Operation::Store(reg(1)), 1),
            (Map::Primary, 0x89) => (Operation::Store(reg(wide)), wide),
            (Map::Primary, 0xc6) if insn.modrm >> 3 & 7 == 0 => (Operation::Store(imm), 1),
            (Map::Primary, 0xc7) if insn.modrm >> 3 & 7 == 0 => (Operation::Store(imm), wide),
            (Map::Primary, 0x86) => (Operation::Exchange, 1),
            (Map::Primary, 0x87) => (Operation::Exchange, wide),
            (Map::Primary, 0x00) => (Operation::Add(reg(1)), 1),
            (Map::Primary, 0x01) => (Operation::Add(reg(wide)), wide),
            (Map::Primary, 0x28) => (Operation::Subtract(reg(1)), 1),
            (Map::Primary, 0x29) => (Operation::Subtract(reg(wide)), wide),
            (Map::Primary, 0x08) => (Operation::Or(reg(1)), 1),
            (Map::Primary, 0x09) => (Operation::Or(reg(wide)), wide),
            (Map::Primary, 0x20) => (Operation::And(reg(1)), 1),
            (Map::Primary, 0x21) => (Operation::And(reg(wide)), wide),
            (Map::Primary, 0x30) => (Operation::Xor(reg(1)), 1),
            (Map::Primary, 0x31) => (Operation::Xor(reg(wide)), wide),
            (Map::Primary, 0x80 | 0x81 | 0x83) => {
                let operation = match insn.modrm >> 3 & 7 {
                    0 => Operation::Add(imm),
                    1 => Operation::Or(imm),
                    4 => Operation::And(imm),
                    5 => Operation::Subtract(imm),
                    6 => Operation::Xor(imm),
                    _ => return None,
                };
                (operation, if insn.opcode == 0x80 { 1 } else { wide })
            }
            (Map::Primary, 0xfe | 0xff) => {
                let operation = match insn.modrm >> 3 & 7 {
                    0 => Operation::Count(1),
                    1 => Operation::Count(u64::MAX),
                    _ => return None,
                };
                (operation, if insn.opcode == 0xfe { 1 } else { wide })
            }
            (Map::TwoByte, 0xb0) => (Operation::CompareExchange, 1),
            (Map::TwoByte, 0xb1) => (Operation::CompareExchange, wide),
            (Map::TwoByte, 0xc0) => (Operation::ExchangeAdd, 1),
            (Map::TwoByte, 0xc1) => (Operation::ExchangeAdd, wide),
            (Map::TwoByte, 0xba) => {
                let kind = match insn.modrm >> 3 & 7 {
                    5 => BitKind::Set,
                    6 => BitKind::Reset,
                    7 => BitKind::Complement,
                    _ => return None,
                };
                (Operation::Bit { index: imm & (u64::from(wide) * 8 - 1), kind }, wide)
            }
            (Map::TwoByte, 0xab | 0xb3 | 0xbb) => {
                let kind = match insn.opcode {
                    0xab => BitKind::Set,
                    0xb3 => BitKind::Reset,
                    _ => BitKind::Complement,
                };
                let index = reg(wide);
                // A larger index would reach beyond the operand.
                if index >= u64::from(wide) * 8 {
                    return None;
                }
                (Operation::Bit { index, kind }, wide)
            }
            _ => return None,
        };
        Some(Self { operation, bytes, register: insn.reg, has_rex: insn.has_rex })
    }

    /// The operand's new value, given its old one; `None` where it stays (a comparison failed).
    #[must_use]
    pub fn apply(&self, frame: &GuestFrame, old: u64) -> Option<u64> {
        let m = mask(self.bytes);
        let reg = read(frame, self.register, self.bytes, self.has_rex);
        Some(match self.operation {
            Operation::Store(value) => value & m,
            Operation::Exchange => reg,
            Operation::CompareExchange => {
                if old & m != frame.rax & m {
                    return None;
                }
                reg
            }
            Operation::ExchangeAdd => old.wrapping_add(reg) & m,
            Operation::Add(value) | Operation::Count(value) => old.wrapping_add(value) & m,
            Operation::Subtract(value) => old.wrapping_sub(value) & m,
            Operation::And(value) => old & value & m,
            Operation::Or(value) => (old | value) & m,
            Operation::Xor(value) => (old ^ value) & m,
            Operation::Bit { index, kind: BitKind::Set } => old | 1 << index,
            Operation::Bit { index, kind: BitKind::Reset } => old & !(1 << index),
            Operation::Bit { index, kind: BitKind::Complement } => old ^ 1 << index,
        })
    }

    /// Brings registers and flags up to date after the operand went from `old` to `new` (equal where a comparison failed).
    pub fn finish(&self, frame: &mut GuestFrame, old: u64, new: u64) {
        match self.operation {
            Operation::Store(_) => {}
            Operation::Exchange => write(frame, self.register, self.bytes, self.has_rex, old),
            Operation::CompareExchange => {
                let accumulator = frame.rax & mask(self.bytes);
                set_flags(frame, self.bytes, accumulator.wrapping_sub(old) & mask(self.bytes), accumulator < old, sub_overflow(self.bytes, accumulator, old));
                if accumulator != old & mask(self.bytes) {
                    write(frame, 0, self.bytes, true, old);
                }
            }
            Operation::ExchangeAdd => {
                let reg = read(frame, self.register, self.bytes, self.has_rex);
                set_flags(frame, self.bytes, new, new < old, add_overflow(self.bytes, old, reg));
                write(frame, self.register, self.bytes, self.has_rex, old);
            }
            Operation::Add(value) => set_flags(frame, self.bytes, new, new < old, add_overflow(self.bytes, old, value)),
            Operation::Subtract(value) => {
                set_flags(frame, self.bytes, new, old < value & mask(self.bytes), sub_overflow(self.bytes, old, value));
            }
            Operation::Count(value) => {
                let carry = frame.rflags & flag::CF != 0;
                set_flags(frame, self.bytes, new, carry, add_overflow(self.bytes, old, value));
            }
            Operation::And(_) | Operation::Or(_) | Operation::Xor(_) => set_flags(frame, self.bytes, new, false, false),
            Operation::Bit { index, .. } => {
                frame.rflags = frame.rflags & !flag::CF | old >> index & 1;
            }
        }
    }
}

const fn sign(bytes: u8) -> u64 {
    1 << (bytes as u32 * 8 - 1)
}

fn add_overflow(bytes: u8, a: u64, b: u64) -> bool {
    let result = a.wrapping_add(b);
    (a ^ result) & (b ^ result) & sign(bytes) != 0
}

fn sub_overflow(bytes: u8, a: u64, b: u64) -> bool {
    let result = a.wrapping_sub(b);
    (a ^ b) & (a ^ result) & sign(bytes) != 0
}

fn set_flags(frame: &mut GuestFrame, bytes: u8, result: u64, carry: bool, overflow: bool) {
    let mut flags = 0;
    if carry {
        flags |= flag::CF;
    }
    if (result as u8).count_ones().is_multiple_of(2) {
        flags |= flag::PF;
    }
    if result & mask(bytes) == 0 {
        flags |= flag::ZF;
    }
    if result & sign(bytes) != 0 {
        flags |= flag::SF;
    }
    if overflow {
        flags |= flag::OF;
    }
    frame.rflags = frame.rflags & !flag::ALL | flags;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: &[u8], frame: &mut GuestFrame, old: u64) -> Option<u64> {
        let insn = Instruction::decode(bytes).unwrap();
        let operation = MemoryWrite::of(&insn, frame).unwrap();
        let new = operation.apply(frame, old);
        operation.finish(frame, old, new.unwrap_or(old));
        new
    }

    #[test]
    fn stores_and_exchanges() {
        let mut frame = GuestFrame { rdx: 0x1122_3344_5566_7788, ..GuestFrame::default() };
        assert_eq!(run(&[0x48, 0x89, 0x10], &mut frame, 7), Some(0x1122_3344_5566_7788));
        assert_eq!(run(&[0x89, 0x10], &mut frame, 7), Some(0x5566_7788));
        assert_eq!(run(&[0x48, 0x87, 0x10], &mut frame, 7), Some(0x1122_3344_5566_7788));
        assert_eq!(frame.rdx, 7);
        assert_eq!(run(&[0x48, 0xc7, 0x00, 0xff, 0xff, 0xff, 0xff], &mut frame, 7), Some(u64::MAX));
    }

    #[test]
    fn compare_exchange_sets_zero_flag_and_accumulator() {
        let mut frame = GuestFrame { rax: 5, rcx: 9, ..GuestFrame::default() };
        let bytes = [0xf0, 0x48, 0x0f, 0xb1, 0x0a];
        assert_eq!(run(&bytes, &mut frame, 5), Some(9));
        assert_ne!(frame.rflags & flag::ZF, 0);
        assert_eq!(run(&bytes, &mut frame, 6), None);
        assert_eq!((frame.rflags & flag::ZF, frame.rax), (0, 6));
    }

    #[test]
    fn arithmetic_sets_flags() {
        let mut frame = GuestFrame { rflags: flag::CF, rdx: 1, ..GuestFrame::default() };
        // incq (%rax) and decb (%rax) keep the carry.
        assert_eq!(run(&[0x48, 0xff, 0x00], &mut frame, u64::MAX), Some(0));
        assert_eq!(frame.rflags & flag::ALL, flag::CF | flag::PF | flag::ZF);
        frame.rflags = 0;
        assert_eq!(run(&[0xfe, 0x08], &mut frame, 0x80), Some(0x7f));
        assert_eq!(frame.rflags & flag::ALL, flag::OF);
        // add %rdx,(%rax); subq $1,(%rax); sub %edx,(%rax)
        assert_eq!(run(&[0x48, 0x01, 0x10], &mut frame, i64::MAX as u64), Some(1 << 63));
        assert_eq!(frame.rflags & (flag::OF | flag::SF | flag::CF), flag::OF | flag::SF);
        assert_eq!(run(&[0x48, 0x83, 0x28, 0x01], &mut frame, 0), Some(u64::MAX));
        assert_eq!(frame.rflags & (flag::CF | flag::SF | flag::OF), flag::CF | flag::SF);
        assert_eq!(run(&[0x29, 0x10], &mut frame, 1), Some(0));
        assert_eq!(frame.rflags & (flag::CF | flag::ZF), flag::ZF);
    }

    #[test]
    fn bit_and_byte_operations() {
        let mut frame = GuestFrame::default();
        // lock btr $1,(%rax)
        assert_eq!(run(&[0xf0, 0x48, 0x0f, 0xba, 0x30, 0x01], &mut frame, 0b110), Some(0b100));
        assert_eq!(frame.rflags & flag::CF, flag::CF);
        // lock andb $0xfd,(%rax)
        assert_eq!(run(&[0xf0, 0x80, 0x20, 0xfd], &mut frame, 0xff), Some(0xfd));
        // lock orb $2,(%rax)
        assert_eq!(run(&[0xf0, 0x80, 0x08, 0x02], &mut frame, 0x10), Some(0x12));
    }
}
