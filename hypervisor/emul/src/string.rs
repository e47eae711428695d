//! `stos` and `movs`, one element at a time.

use crate::decode::{Instruction, Map};
use oxen_hal::GuestFrame;

/// RFLAGS.DF: addresses go down (Intel SDM vol. 1, "DF Flag").
const DIRECTION: u64 = 1 << 10;

/// A string instruction that writes memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringWrite {
    /// Bytes of an element: 1, 2, 4 or 8.
    pub bytes: u8,
    /// The element comes from memory at rsi (`movs`), else it is the accumulator (`stos`).
    pub from_memory: bool,
    repeated: bool,
}

impl StringWrite {
    /// Recognises `insn`. 32-bit addresses are left out: no 64-bit kernel has anything there.
    #[must_use]
    pub fn of(insn: &Instruction) -> Option<Self> {
        let known = insn.map == Map::Primary && matches!(insn.opcode, 0xa4 | 0xa5 | 0xaa | 0xab);
        if !known || insn.lock || insn.has_address32() {
            return None;
        }
        let bytes = if insn.opcode & 1 == 0 { 1 } else { insn.operand_bytes() };
        // Both repeat prefixes mean the same here (Intel SDM vol. 2, "REP/REPE/REPZ/REPNE/REPNZ").
        Some(Self { bytes, from_memory: insn.opcode < 0xa8, repeated: insn.repeat.is_some() })
    }

    /// Brings the registers up to date after one element. True where the instruction is done and the guest goes on with the next one.
    pub fn finish(&self, frame: &mut GuestFrame) -> bool {
        let step = u64::from(self.bytes);
        let step = if frame.rflags & DIRECTION == 0 { step } else { step.wrapping_neg() };
        frame.rdi = frame.rdi.wrapping_add(step);
        if self.from_memory {
            frame.rsi = frame.rsi.wrapping_add(step);
        }
        if self.repeated {
            frame.rcx = frame.rcx.wrapping_sub(1);
        }
        !self.repeated || frame.rcx == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<StringWrite> {
        StringWrite::of(&Instruction::decode(bytes).unwrap())
    }

    #[test]
    fn forms() {
        assert_eq!(of(&[0x48, 0xab]), Some(StringWrite { bytes: 8, from_memory: false, repeated: false }));
        assert_eq!(of(&[0xf3, 0x48, 0xa5]), Some(StringWrite { bytes: 8, from_memory: true, repeated: true }));
        assert_eq!(of(&[0xaa]), Some(StringWrite { bytes: 1, from_memory: false, repeated: false }));
        assert_eq!(of(&[0x66, 0xa5]), Some(StringWrite { bytes: 2, from_memory: true, repeated: false }));
        assert_eq!(of(&[0x67, 0x48, 0xab]), None);
        assert_eq!(of(&[0xf0, 0x48, 0xab]), None);
        assert_eq!(of(&[0x48, 0x89, 0x18]), None);
    }

    #[test]
    fn repetition_counts_down() {
        let mut frame = GuestFrame { rcx: 2, rdi: 0x1000, rsi: 0x2000, ..GuestFrame::default() };
        let moves = of(&[0xf3, 0x48, 0xa5]).unwrap();
        assert!(!moves.finish(&mut frame));
        assert_eq!((frame.rcx, frame.rdi, frame.rsi), (1, 0x1008, 0x2008));
        frame.rflags = DIRECTION;
        assert!(moves.finish(&mut frame));
        assert_eq!((frame.rcx, frame.rdi, frame.rsi), (0, 0x1000, 0x2000));
    }

    #[test]
    fn store_leaves_the_source_alone() {
        let mut frame = GuestFrame { rcx: 9, rdi: 0x1000, rsi: 0x2000, ..GuestFrame::default() };
        assert!(of(&[0xab]).unwrap().finish(&mut frame));
        assert_eq!((frame.rcx, frame.rdi, frame.rsi), (9, 0x1004, 0x2000));
    }
}
