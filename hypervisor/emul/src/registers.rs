//! Register numbers as instructions encode them.

use oxen_hal::GuestFrame;

/// The register with the number that an instruction encodes (Intel SDM vol. 2, "Register/Opcode Field").
#[must_use]
pub fn get(frame: &GuestFrame, number: u8) -> u64 {
    match number & 15 {
        0 => frame.rax,
        1 => frame.rcx,
        2 => frame.rdx,
        3 => frame.rbx,
        4 => frame.rsp,
        5 => frame.rbp,
        6 => frame.rsi,
        7 => frame.rdi,
        8 => frame.r8,
        9 => frame.r9,
        10 => frame.r10,
        11 => frame.r11,
        12 => frame.r12,
        13 => frame.r13,
        14 => frame.r14,
        _ => frame.r15,
    }
}

/// The place of that register.
pub fn get_mut(frame: &mut GuestFrame, number: u8) -> &mut u64 {
    match number & 15 {
        0 => &mut frame.rax,
        1 => &mut frame.rcx,
        2 => &mut frame.rdx,
        3 => &mut frame.rbx,
        4 => &mut frame.rsp,
        5 => &mut frame.rbp,
        6 => &mut frame.rsi,
        7 => &mut frame.rdi,
        8 => &mut frame.r8,
        9 => &mut frame.r9,
        10 => &mut frame.r10,
        11 => &mut frame.r11,
        12 => &mut frame.r12,
        13 => &mut frame.r13,
        14 => &mut frame.r14,
        _ => &mut frame.r15,
    }
}

/// Reads the low `bytes` of a register; without a REX prefix the byte registers 4 to 7 are ah, ch, dh, bh.
#[must_use]
pub fn read(frame: &GuestFrame, number: u8, bytes: u8, has_rex: bool) -> u64 {
    if bytes == 1 && !has_rex && (4..8).contains(&number) {
        return get(frame, number - 4) >> 8 & 0xff;
    }
    get(frame, number) & mask(bytes)
}

/// Writes the low `bytes` of a register; a 32-bit write clears the upper half.
pub fn write(frame: &mut GuestFrame, number: u8, bytes: u8, has_rex: bool, value: u64) {
    if bytes == 1 && !has_rex && (4..8).contains(&number) {
        let place = get_mut(frame, number - 4);
        *place = *place & !0xff00 | (value & 0xff) << 8;
        return;
    }
    let place = get_mut(frame, number);
    *place = match bytes {
        4 => value & 0xffff_ffff,
        8 => value,
        n => *place & !mask(n) | value & mask(n),
    };
}

/// All ones in the low `bytes`.
#[must_use]
pub const fn mask(bytes: u8) -> u64 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}
