//! The address space of the ring-3 program.

use oxen_hal::{AddressSpace, Frames};
use oxen_machine::{MACHINE, memory};
use oxen_types::{Gva, Mfn};

/// Where the program lies, read-only.
pub const CODE: u64 = 0x40_0000;
/// Its stack page; the page after it is absent.
pub const STACK: u64 = 0x60_0000;
/// A stack pointer in it.
pub const STACK_TOP: u64 = STACK + 0xf00;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;

/// A frame full of zeros.
pub fn new_frame() -> Mfn {
    let frame = memory::early_alloc(1, 1);
    MACHINE.zero_frame(frame);
    frame
}

/// Builds the tables; gives the root and the frame of the stack.
pub fn build(program: &[u8]) -> (Mfn, Mfn) {
    let root = new_frame();
    for index in 0..16 {
        MACHINE.write_entry(root, 256 + index, MACHINE.hypervisor_slot(index));
    }
    let code = new_frame();
    MACHINE.write_bytes(code, 0, program);
    let stack = new_frame();
    map(root, CODE, code, USER);
    map(root, STACK, stack, USER | WRITABLE);
    (root, stack)
}

fn map(root: Mfn, va: u64, frame: Mfn, bits: u64) {
    let mut table = root;
    for level in [4, 3, 2] {
        let index = Gva(va).pt_index(level);
        let entry = MACHINE.read_entry(table, index);
        table = if entry & PRESENT != 0 {
            Mfn(entry >> 12 & 0xff_ffff_ffff)
        } else {
            let new = new_frame();
            MACHINE.write_entry(table, index, new.maddr().0 | PRESENT | WRITABLE | USER);
            new
        };
    }
    MACHINE.write_entry(table, Gva(va).pt_index(1), frame.maddr().0 | PRESENT | bits);
}
