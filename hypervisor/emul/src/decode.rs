//! Decodes one 64-bit instruction into its parts (Intel SDM vol. 2, "Instruction Format").

use crate::registers;
use oxen_hal::GuestFrame;

/// The longest instruction that a processor accepts.
pub const MAX_INSTRUCTION_BYTES: usize = 15;

/// The opcode map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// One byte.
    Primary,
    /// 0x0f and one byte.
    TwoByte,
}

/// A segment override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Segment {
    Fs,
    Gs,
}

/// A repeat prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// 0xf3.
    Rep,
    /// 0xf2.
    Repne,
}

/// The memory operand of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MemoryOperand {
    base: Option<u8>,
    index: Option<u8>,
    scale: u8,
    displacement: i64,
    rip_relative: bool,
}

/// An instruction in its parts.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// Bytes in all.
    pub length: usize,
    /// Opcode map.
    pub map: Map,
    /// Opcode byte.
    pub opcode: u8,
    /// 0x66 prefix.
    pub operand_size_prefix: bool,
    /// Any REX prefix.
    pub has_rex: bool,
    /// REX.W.
    pub rex_w: bool,
    /// F2 or F3.
    pub repeat: Option<Repeat>,
    /// FS or GS.
    pub segment: Option<Segment>,
    /// F0.
    pub lock: bool,
    /// ModRM.reg with REX.R.
    pub reg: u8,
    /// ModRM.rm with REX.B where ModRM names a register.
    pub rm_register: Option<u8>,
    /// The raw ModRM byte.
    pub modrm: u8,
    /// The memory operand where ModRM names memory.
    pub memory: Option<MemoryOperand>,
    /// Sign-extended immediate.
    pub immediate: i64,
    address32: bool,
}

struct Bytes<'a> {
    rest: &'a [u8],
}

impl Bytes<'_> {
    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take_signed(&mut self, bytes: usize) -> Option<i64> {
        let (head, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        let mut raw = [0; 8];
        raw.get_mut(..bytes)?.copy_from_slice(head);
        if bytes == 0 {
            return Some(0);
        }
        let shift = 64 - 8 * bytes as u32;
        Some(i64::from_le_bytes(raw) << shift >> shift)
    }
}

#[derive(Clone, Copy, Default)]
struct Rex {
    present: bool,
    w: bool,
    r: u8,
    x: u8,
    b: u8,
}

impl Instruction {
    /// Decodes the instruction at the start of `bytes`, which may be shorter than the longest instruction. `None` where it is cut off
    /// or not one that this crate knows the shape of.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let limit = bytes.len().min(MAX_INSTRUCTION_BYTES);
        let mut input = Bytes { rest: bytes.get(..limit)? };
        let mut insn = Instruction {
            length: 0,
            map: Map::Primary,
            opcode: 0,
            operand_size_prefix: false,
            has_rex: false,
            rex_w: false,
            repeat: None,
            segment: None,
            lock: false,
            reg: 0,
            rm_register: None,
            modrm: 0,
            memory: None,
            immediate: 0,
            address32: false,
        };
        let mut rex = Rex::default();
        let mut byte = input.take()?;
        loop {
            match byte {
                0x66 => insn.operand_size_prefix = true,
                0x67 => insn.address32 = true,
                0xf0 => insn.lock = true,
                0xf2 => insn.repeat = Some(Repeat::Repne),
                0xf3 => insn.repeat = Some(Repeat::Rep),
                0x64 => insn.segment = Some(Segment::Fs),
                0x65 => insn.segment = Some(Segment::Gs),
                0x26 | 0x2e | 0x36 | 0x3e => {}
                _ => break,
            }
            byte = input.take()?;
        }
        if byte & 0xf0 == 0x40 {
            rex = Rex { present: true, w: byte & 8 != 0, r: (byte & 4) << 1, x: (byte & 2) << 2, b: (byte & 1) << 3 };
            byte = input.take()?;
        }
        insn.has_rex = rex.present;
        insn.rex_w = rex.w;
        if byte == 0x0f {
            insn.map = Map::TwoByte;
            byte = input.take()?;
        }
        insn.opcode = byte;
        let shape = shape(insn.map, byte)?;
        if shape.modrm {
            insn.decode_modrm(&mut input, rex)?;
        }
        insn.immediate = input.take_signed(shape.immediate.bytes(insn.operand_bytes(), insn.modrm))?;
        insn.length = limit - input.rest.len();
        Some(insn)
    }

    fn decode_modrm(&mut self, input: &mut Bytes<'_>, rex: Rex) -> Option<()> {
        let modrm = input.take()?;
        self.modrm = modrm;
        self.reg = modrm >> 3 & 7 | rex.r;
        let (mode, rm) = (modrm >> 6, modrm & 7);
        if mode == 3 {
            self.rm_register = Some(rm | rex.b);
            return Some(());
        }
        let mut operand = MemoryOperand::default();
        let mut displacement_bytes = match mode {
            1 => 1,
            2 => 4,
            _ => 0,
        };
        if rm == 4 {
            let sib = input.take()?;
            let (index, base) = (sib >> 3 & 7 | rex.x, sib & 7);
            operand.scale = sib >> 6;
            operand.index = (index != 4).then_some(index);
            if base == 5 && mode == 0 {
                displacement_bytes = 4;
            } else {
                operand.base = Some(base | rex.b);
            }
        } else if rm == 5 && mode == 0 {
            operand.rip_relative = true;
            displacement_bytes = 4;
        } else {
            operand.base = Some(rm | rex.b);
        }
        operand.displacement = input.take_signed(displacement_bytes)?;
        self.memory = Some(operand);
        Some(())
    }

    /// Size of the operands: 2, 4 or 8 bytes. Byte instructions are told by their opcode.
    #[must_use]
    pub fn operand_bytes(&self) -> u8 {
        if self.rex_w {
            8
        } else if self.operand_size_prefix {
            2
        } else {
            4
        }
    }

    /// A 0x67 prefix: addresses have 32 bits.
    #[must_use]
    pub const fn has_address32(&self) -> bool {
        self.address32
    }

    /// Address of the memory operand: the segment's base is the caller's to add (FS, GS).
    #[must_use]
    pub fn effective_address(&self, frame: &GuestFrame) -> Option<u64> {
        let operand = self.memory?;
        let mut address = operand.displacement as u64;
        if operand.rip_relative {
            address = address.wrapping_add(frame.rip).wrapping_add(self.length as u64);
        }
        if let Some(base) = operand.base {
            address = address.wrapping_add(registers::get(frame, base));
        }
        if let Some(index) = operand.index {
            address = address.wrapping_add(registers::get(frame, index) << operand.scale);
        }
        Some(if self.address32 { address & 0xffff_ffff } else { address })
    }
}

#[derive(Clone, Copy)]
enum Immediate {
    None,
    Byte,
    /// 2 bytes with 16-bit operands, else 4.
    Full,
    /// For the group 0xf6/0xf7: only `test` (reg 0 and 1) has one.
    TestOnly,
}

impl Immediate {
    fn bytes(self, operand: u8, modrm: u8) -> usize {
        match self {
            Immediate::None => 0,
            Immediate::Byte => 1,
            Immediate::Full if operand == 2 => 2,
            Immediate::Full => 4,
            Immediate::TestOnly if modrm >> 3 & 7 < 2 => 4,
            Immediate::TestOnly => 0,
        }
    }
}

struct Shape {
    modrm: bool,
    immediate: Immediate,
}

/// What follows an opcode, for the opcodes that this crate knows.
fn shape(map: Map, opcode: u8) -> Option<Shape> {
    let of = |modrm, immediate| Some(Shape { modrm, immediate });
    match (map, opcode) {
        // add, or, adc, sbb, and, sub, xor, cmp: register forms.
        (Map::Primary, 0x00..=0x3f) if opcode & 7 < 4 => of(true, Immediate::None),
        (Map::Primary, 0x6c..=0x6f | 0xec..=0xef | 0xfa | 0xfb | 0xf4 | 0xcc | 0xce | 0xa4 | 0xa5 | 0xaa | 0xab) => of(false, Immediate::None),
        (Map::Primary, 0x80 | 0x83 | 0xc6) => of(true, Immediate::Byte),
        (Map::Primary, 0x81 | 0xc7) => of(true, Immediate::Full),
        (Map::Primary, 0x84..=0x8b) => of(true, Immediate::None),
        (Map::Primary, 0xcd | 0xe4..=0xe7) => of(false, Immediate::Byte),
        (Map::Primary, 0xf7) => of(true, Immediate::TestOnly),
        (Map::Primary, 0xfe | 0xff) => of(true, Immediate::None),
        (Map::TwoByte, 0x01 | 0x00 | 0x20..=0x23 | 0xae | 0xc7) => of(true, Immediate::None),
        (Map::TwoByte, 0x05..=0x09 | 0x0b | 0x30..=0x35 | 0xa2) => of(false, Immediate::None),
        (Map::TwoByte, 0xa3 | 0xab | 0xb3 | 0xbb | 0xb0 | 0xb1 | 0xc0 | 0xc1 | 0xb6 | 0xb7) => of(true, Immediate::None),
        (Map::TwoByte, 0xba) => of(true, Immediate::Byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> GuestFrame {
        GuestFrame { rax: 0x1000, rcx: 0x20, rdx: 0x300, r9: 0x9000, rip: 0x5000, ..GuestFrame::default() }
    }

    #[test]
    fn mov_to_memory() {
        // mov %rdx,0x10(%rax,%rcx,8)
        let insn = Instruction::decode(&[0x48, 0x89, 0x54, 0xc8, 0x10, 0x90]).unwrap();
        assert_eq!((insn.length, insn.opcode, insn.reg, insn.operand_bytes()), (5, 0x89, 2, 8));
        assert_eq!(insn.effective_address(&frame()), Some(0x1000 + 0x100 + 0x10));
    }

    #[test]
    fn rip_relative_with_immediate() {
        // movq $-1,0x11223344(%rip)
        let insn = Instruction::decode(&[0x48, 0xc7, 0x05, 0x44, 0x33, 0x22, 0x11, 0xff, 0xff, 0xff, 0xff]).unwrap();
        assert_eq!((insn.length, insn.immediate), (11, -1));
        assert_eq!(insn.effective_address(&frame()), Some(0x5000 + 11 + 0x1122_3344));
    }

    #[test]
    fn extended_registers() {
        // lock cmpxchg %r8,(%r9)
        let insn = Instruction::decode(&[0xf0, 0x4d, 0x0f, 0xb1, 0x01]).unwrap();
        assert!(insn.lock && insn.map == Map::TwoByte);
        assert_eq!((insn.opcode, insn.reg, insn.length), (0xb1, 8, 5));
        assert_eq!(insn.effective_address(&frame()), Some(0x9000));
    }

    #[test]
    fn cut_off_input_is_refused() {
        let whole = [0x48, 0xc7, 0x05, 0x44, 0x33, 0x22, 0x11, 0xff, 0xff, 0xff, 0xff];
        for end in 0..whole.len() {
            assert!(Instruction::decode(&whole[..end]).is_none(), "{end}");
        }
        assert!(Instruction::decode(&[0x66; 20]).is_none());
    }

    #[test]
    fn any_bytes_are_safe() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200_000 {
            let mut bytes = [0; 16];
            for chunk in bytes.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.copy_from_slice(&state.to_le_bytes());
            }
            if let Some(insn) = Instruction::decode(&bytes) {
                assert!(insn.length <= MAX_INSTRUCTION_BYTES);
                let _ = insn.effective_address(&frame());
            }
        }
    }
}
