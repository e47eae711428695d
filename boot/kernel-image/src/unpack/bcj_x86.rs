//! The x86 filter ("branch, call, jump") of xz and 7-Zip: before packing, the relative targets of `call` (E8) and `jmp` (E9) were made
//! absolute, so that calls of one function look alike; this undoes it. "The .xz File Format", section 5.3.2, names the filter.
//!
//! Not every E8 or E9 byte is an instruction. The encoder converted an operand only where its top byte was 00 or FF, and left out those
//! that overlap an earlier suspect; both sides keep the same account of the suspects among the last bytes.

/// Bytes of an operand.
const OPERAND_LEN: usize = 4;
/// Suspects further back than this do not overlap an operand.
const REACH: usize = 3;

/// Undoes the filter in place; `offset` is the position that the first byte counts as.
pub(super) fn decode(data: &mut [u8], offset: u32) {
    let mut at = 0;
    let mut suspects = Suspects(0);
    let mut last_opcode: Option<usize> = None;
    while let Some(opcode_at) = find_opcode(data, at) {
        suspects = match last_opcode.map(|last| opcode_at - last) {
            Some(back @ 1..=REACH) => Suspects(suspects.0 << (back - 1) & 7),
            _ => Suspects(0),
        };
        last_opcode = Some(opcode_at);
        let operand_at = opcode_at + 1;
        let Some(operand) = data
            .get_mut(operand_at..)
            .and_then(|rest| rest.first_chunk_mut::<OPERAND_LEN>())
        else {
            return;
        };
        if suspects.allow(operand) {
            let next_instruction = offset.wrapping_add((operand_at + OPERAND_LEN) as u32);
            *operand = suspects
                .relative(u32::from_le_bytes(*operand), next_instruction)
                .to_le_bytes();
            at = operand_at + OPERAND_LEN;
        } else {
            suspects = Suspects(suspects.0 << 1 | 1);
            at = operand_at;
        }
    }
}

/// Opcode bytes whose operands were left alone: bit n is set for the byte n + 1 places back.
#[derive(Clone, Copy)]
struct Suspects(u32);

impl Suspects {
    /// How many bytes of the operand the furthest suspect's operand overlaps, counted from the one before the last.
    fn overlap(self) -> u32 {
        u32::BITS - self.0.leading_zeros()
    }

    /// Whether the encoder converted this operand.
    fn allow(self, operand: &[u8; OPERAND_LEN]) -> bool {
        let [b0, b1, b2, b3] = *operand;
        let clear = match self.0 {
            0 => true,
            0b001 => !is_sign_byte(b2),
            0b010 => !is_sign_byte(b1),
            0b100 => !is_sign_byte(b0),
            _ => false,
        };
        clear && is_sign_byte(b3)
    }

    /// The relative target for an absolute one.
    fn relative(self, absolute: u32, next_instruction: u32) -> u32 {
        let mut target = absolute.wrapping_sub(next_instruction);
        if self.0 != 0 {
            let covered = 8 * self.overlap();
            // The encoder goes on until this byte is no sign byte, so that the decoder sees what it saw. One more step is always enough:
            // two steps would give back the operand, whose byte was none.
            if is_sign_byte((target >> (24 - covered)) as u8) {
                target = (target ^ (u32::MAX >> covered)).wrapping_sub(next_instruction);
            }
        }
        // Targets are 25 bits with sign.
        ((target << 7) as i32 >> 7) as u32
    }
}

/// The next E8 or E9 byte from `at` on.
fn find_opcode(data: &[u8], mut at: usize) -> Option<usize> {
    const LOW_BITS: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let is_opcode = |byte: u8| byte & 0xfe == 0xe8;
    // Eight bytes at a time: a byte of `differs` is zero where the byte is an opcode, and a zero byte borrows from its neighbour.
    while let Some(word) = data.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let differs = (u64::from_le_bytes(*word) & !LOW_BITS) ^ (LOW_BITS * 0xe8);
        let zero_bytes = differs.wrapping_sub(LOW_BITS) & !differs & HIGH_BITS;
        if zero_bytes != 0 {
            // The lowest one found is always right; only above it can a borrow mislead.
            return Some(at + zero_bytes.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    data.get(at..)?
        .iter()
        .position(|byte| is_opcode(*byte))
        .map(|found| at + found)
}

fn is_sign_byte(byte: u8) -> bool {
    byte == 0x00 || byte == 0xff
}
