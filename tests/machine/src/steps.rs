//! The entries that the program makes, in order, and what each must look like.

use crate::space::{self, CODE, STACK, STACK_TOP};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use oxen_hal::{AddressSpace, Clock, CpuOps, Frames, GuestFrame, GuestMemory, VECTOR_HYPERCALL, VECTOR_SYSCALL32, VECTOR_SYSENTER, VcpuContext};
use oxen_machine::{MACHINE, fatal, log};
use oxen_types::{Fault, Gva, Mfn};

static STEP: AtomicUsize = AtomicUsize::new(0);
static STACK_FRAME: AtomicU64 = AtomicU64::new(0);
static SAVED_FRAME: AtomicPtr<GuestFrame> = AtomicPtr::new(core::ptr::null_mut());
static ROUNDS: AtomicU64 = AtomicU64::new(0);
static FIRST_TSC: AtomicU64 = AtomicU64::new(0);

/// The step that is expected next.
pub fn current() -> usize {
    STEP.load(Ordering::Relaxed)
}

/// Tells which frame is the program's stack.
pub fn set_stack_frame(frame: Mfn) {
    STACK_FRAME.store(frame.0, Ordering::Relaxed);
}

/// What is wrong, or nothing.
type Outcome = Result<(), &'static str>;

fn expect(condition: bool, otherwise: &'static str) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise) }
}

/// A trap with its vector and error code, at an instruction of `len` bytes that is skipped.
fn trap(frame: &mut GuestFrame, vector: u32, error: u32, len: u64) -> Outcome {
    expect(frame.entry_vector == vector, "vector")?;
    expect(frame.error_code == error, "error code")?;
    expect(frame.cs & 3 == 3 && frame.rbx == 0x1111_1111_1111_1111 && frame.r15 == 0x8888_8888_8888_8888, "registers")?;
    frame.rip += len;
    Ok(())
}

fn call(frame: &mut GuestFrame, number: u64) -> Outcome {
    expect(frame.entry_vector == VECTOR_HYPERCALL && frame.error_code == 0, "system call")?;
    expect(frame.rax == number, "number")?;
    expect(frame.cs == 0xe033 && frame.ss == 0xe02b && frame.rcx == frame.rip && frame.r11 == frame.rflags, "frame")?;
    expect((CODE..CODE + 4096).contains(&frame.rip) && frame.rsp == STACK_TOP, "place")
}

fn page_fault(frame: &mut GuestFrame, error: u32, address: u64) -> Outcome {
    expect(MACHINE.fault_address() == Gva(address), "fault address")?;
    trap(frame, 14, error, 3)
}

fn software_interrupt(frame: &mut GuestFrame, number: u32) -> Outcome {
    // Some emulators number the gate in 16-byte units.
    let error = if frame.error_code == number * 16 + 2 { number * 16 + 2 } else { number * 8 + 2 };
    trap(frame, 13, error, 2)
}

/// Sends the return to a place where it faults.
fn bad_return(frame: &mut GuestFrame, number: u64, rip: u64, cs: u64) -> Outcome {
    call(frame, number)?;
    keep(frame);
    (frame.rip, frame.cs) = (rip, cs);
    Ok(())
}

fn keep(frame: &GuestFrame) {
    SAVED_FRAME.store(Box::into_raw(Box::new(*frame)), Ordering::Relaxed);
}

/// The fault of that return: all registers are as they were, and the program goes on at rdx.
fn return_fault(frame: &mut GuestFrame, error: u32, rip: u64, cs: u64) -> Outcome {
    // SAFETY: the pointer comes from `keep`.
    let before = unsafe { *Box::from_raw(SAVED_FRAME.load(Ordering::Relaxed)) };
    expect(frame.entry_vector == 13 && frame.error_code == error, "kind of fault")?;
    expect(frame.rip == rip && frame.cs == cs && frame.rsp == before.rsp && frame.rflags == before.rflags, "interrupt frame")?;
    let same = GuestFrame {
        error_code: frame.error_code,
        entry_vector: frame.entry_vector,
        rip: frame.rip,
        cs: frame.cs,
        ..before
    };
    expect(*frame == same, "registers after a fault on return")?;
    frame.rip = frame.rdx;
    frame.cs = 0xe033;
    Ok(())
}

fn copies() -> Outcome {
    let end = Gva(STACK + 4096);
    let fault = |va: u64| Err(Fault { va: Gva(va) });
    let pattern: [u8; 64] = core::array::from_fn(|i| i as u8 + 1);
    let mut back = [0; 64];
    expect(MACHINE.copy_to_guest(Gva(STACK + 3), &pattern).is_ok(), "copy to guest")?;
    expect(MACHINE.copy_from_guest(&mut back, Gva(STACK + 3)).is_ok() && back == pattern, "copy from guest")?;
    let frame = Mfn(STACK_FRAME.load(Ordering::Relaxed));
    expect(MACHINE.read_entry(frame, 1) == u64::from_le_bytes([6, 7, 8, 9, 10, 11, 12, 13]), "what the copy left")?;
    expect(MACHINE.copy_to_guest(Gva(end.0 - 13), &pattern) == fault(end.0), "copy over the end")?;
    expect(MACHINE.read_entry(frame, 511) == u64::from_le_bytes([6, 7, 8, 9, 10, 11, 12, 13]), "bytes before the fault")?;
    back = [0; 64];
    expect(MACHINE.copy_from_guest(&mut back, Gva(end.0 - 13)) == fault(end.0), "read over the end")?;
    expect(back[..13] == pattern[..13] && back[13] == 0, "bytes read before the fault")?;
    expect(MACHINE.copy_to_guest(Gva(CODE), &[0]) == fault(CODE), "write to read-only page")?;
    expect(MACHINE.copy_from_guest(&mut back, Gva(0x8000_0000_0000)) == fault(0x8000_0000_0000), "not canonical")?;
    expect(MACHINE.copy_from_guest(&mut back, Gva(0xffff_82d0_4000_0000)).is_err(), "the hypervisor's own")?;
    expect(MACHINE.read_guest_u64(Gva(STACK + 8)) == Ok(u64::from_le_bytes([6, 7, 8, 9, 10, 11, 12, 13])), "word")?;
    expect(MACHINE.read_guest_u64(Gva(end.0 - 4)).map(drop) == fault(end.0), "word over the end")?;
    expect(MACHINE.read_guest_u64(Gva(0x7fff_ffff_fffc)).map(drop) == fault(0x7fff_ffff_fffc), "word at the end of the lower half")?;
    let words = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    for count in 1..=9 {
        let to = Gva(STACK + 512);
        expect(MACHINE.write_guest_words(to, &[0; 9]).is_ok(), "clear words")?;
        expect(MACHINE.write_guest_words(to, &words[..count]).is_ok(), "words")?;
        for index in 0..9 {
            let wanted = if index < count { words[index] } else { 0 };
            expect(MACHINE.read_guest_u64(Gva(to.0 + 8 * index as u64)) == Ok(wanted), "words read back")?;
        }
        expect(MACHINE.write_guest_words(Gva(end.0 - 8 * (count as u64 - 1)), &words[..count]) == fault(end.0), "words over the end")?;
    }
    expect(MACHINE.write_guest_words(Gva(CODE), &[0; 7]) == fault(CODE), "words to a read-only page")?;
    // IA32_PKRS: where it exists at all, its upper half is reserved. Emulators let unknown registers pass.
    expect(!MACHINE.wrmsr(0x6e1, 1 << 40), "refused register value")
}

/// A word with a watchpoint.
const WATCHED: u64 = STACK + 0x200;
/// DR7: watchpoint 0 on, reads and writes of 8 bytes.
const WATCH: u64 = 0x400 | 0xb << 16 | 1;

/// A guest data segment.
const DATA_SEGMENT: u64 = 0x00cf_f300_0000_ffff;

fn switch_contexts(frame: &mut GuestFrame) -> Outcome {
    let mut mine = Box::new(VcpuContext::new(MACHINE.fpu_bytes()));
    MACHINE.save_context(&mut mine, frame);
    let before = *frame;
    expect(mine.frame == before && mine.es == 0x0b && mine.ds == 7, "saved context")?;
    let mut other = Box::new(VcpuContext::new(MACHINE.fpu_bytes()));
    other.debug[0] = 0x1000;
    other.fs_base = 0x1234_5000;
    expect(MACHINE.load_context(&other, frame), "load of a fresh context")?;
    expect(*frame == other.frame && MACHINE.data_selectors() == [0; 4] && MACHINE.fs_base() == 0x1234_5000, "fresh context")?;
    let mut copy = other.clone();
    MACHINE.save_context(&mut copy, frame);
    expect(copy.fpu.as_bytes()[160..416].iter().all(|b| *b == 0), "registers of the other guest")?;
    other.ds = 0x4b;
    expect(!MACHINE.load_context(&other, frame) && MACHINE.data_selectors()[0] == 0, "bad selector")?;
    other.ds = 0;
    // An extended state that no processor accepts: a reserved bit of MXCSR.
    other.fpu.as_mut_bytes()[27] = 0xff;
    expect(MACHINE.load_context(&other, frame), "bad extended state")?;
    expect(MACHINE.load_context(&mine, frame) && *frame == before, "load of the saved context")?;
    expect(MACHINE.data_selectors()[..2] == [7, 0x0b], "selectors")
}

fn step(number: usize, frame: &mut GuestFrame) -> Outcome {
    match number {
        0 => {
            call(frame, 0)?;
            frame.rax = 1000;
        }
        1 => {
            call(frame, 1)?;
            (frame.rcx, frame.r11) = (77, 88);
        }
        2 => trap(frame, 3, 0, 0)?,
        3 => trap(frame, 6, 0, 2)?,
        4 => page_fault(frame, 4, 0x1234_5678_9000)?,
        5 => page_fault(frame, 7, CODE)?,
        6 => page_fault(frame, 7, 0xffff_8000_0000_0000)?,
        // The first page of the image is not mapped any more: the fault does not tell.
        7 => page_fault(frame, 4, 0xffff_82d0_4000_0000)?,
        8 => software_interrupt(frame, 0x80)?,
        9 => software_interrupt(frame, 0x40)?,
        10 => trap(frame, 13, 0, 1)?,
        11 => bad_return(frame, 11, 0x0000_9000_0000_0000, 0xe033)?,
        12 => return_fault(frame, 0, 0x0000_9000_0000_0000, 0xe033)?,
        13 => bad_return(frame, 13, frame.rdx, 0x1233)?,
        14 => return_fault(frame, 0x1230, frame.rip, 0x1233)?,
        15 => {
            trap(frame, 1, 0, 0)?;
            expect(MACHINE.debug_register(6) & 1 << 14 != 0, "single-step bit of DR6")?;
            expect(frame.rflags & 0x4_0500 == 0x4_0500, "flags")?;
            // The next trap would come after `mov eax`.
            STEP.fetch_sub(usize::from(steps_left(frame)), Ordering::Relaxed);
        }
        16 => {
            call(frame, 16)?;
            expect(frame.rflags & 0x4_0500 == 0x4_0500, "flags")?;
            frame.rflags &= !0x100;
        }
        17 => {
            call(frame, 17)?;
            copies()?;
        }
        18 => {
            call(frame, 18)?;
            MACHINE.set_guest_ldt(512);
        }
        19 => {
            expect(frame.entry_vector == 14, "fault on the LDT")?;
            expect(MACHINE.ldt_offset(MACHINE.fault_address()) == Some(0), "offset in the LDT")?;
            let page = space::new_frame();
            MACHINE.write_entry(page, 0, DATA_SEGMENT);
            MACHINE.map_ldt_page(0, page);
        }
        20 => {
            call(frame, 20)?;
            expect(MACHINE.data_selectors()[0] == 7, "LDT selector")?;
            let page = space::new_frame();
            MACHINE.write_entry(page, 1, DATA_SEGMENT);
            MACHINE.set_guest_gdt(&[page]);
        }
        21 => trap(frame, 13, 0x10, 2)?,
        22 => {
            call(frame, 22)?;
            switch_contexts(frame)?;
        }
        23 => {
            call(frame, 23)?;
            MACHINE.set_task_switched(true);
        }
        24 => {
            trap(frame, 7, 0, 0)?;
            MACHINE.set_task_switched(false);
        }
        25 => {
            call(frame, 25)?;
            MACHINE.set_gs_base(0x7000_0000);
            MACHINE.set_inactive_gs_base(STACK + 256);
            MACHINE.swap_gs();
            expect(MACHINE.gs_base() == STACK + 256 && MACHINE.inactive_gs_base() == 0x7000_0000, "GS bases")?;
            MACHINE.load_user_gs_selector(0x0b);
            expect(MACHINE.gs_base() == STACK + 256 && MACHINE.data_selectors()[3] == 0x0b, "user GS selector")?;
            frame.rdx = 0xfeed;
            expect(MACHINE.write_guest_words(Gva(STACK + 256), &[0xfeed]).is_ok(), "word for GS")?;
        }
        26 => {
            call(frame, 26)?;
            match ROUNDS.fetch_add(1, Ordering::Relaxed) {
                0 => FIRST_TSC.store(MACHINE.tsc(), Ordering::Relaxed),
                999 => {
                    let ticks = MACHINE.tsc() - FIRST_TSC.load(Ordering::Relaxed);
                    log!("999 system calls in {ticks} TSC ticks");
                    return Ok(());
                }
                _ => {}
            }
            STEP.fetch_sub(1, Ordering::Relaxed);
        }
        27 => {
            if frame.entry_vector == 14 && frame.error_code == 1 && MACHINE.give_up_smap() {
                log!("SMAP hits the far return of ring 3; switched off");
                STEP.fetch_sub(1, Ordering::Relaxed);
                return Ok(());
            }
            if frame.entry_vector == VECTOR_SYSCALL32 {
                expect(frame.cs == 0xe023 && frame.ss == 0xe02b && frame.rcx == frame.rip && frame.rax == 27, "32-bit frame")?;
            } else {
                log!("no syscall in 32-bit code");
                trap(frame, 6, 0, 2)?;
                expect(frame.cs == 0xe023, "32-bit code")?;
            }
            (frame.rip, frame.cs) = (frame.rdx, 0xe033);
        }
        28 => {
            if frame.entry_vector == VECTOR_SYSENTER {
                expect(frame.rip == 0 && frame.cs == 3 && frame.rsp == 0, "sysenter frame")?;
                expect(frame.rflags & 0x4_4600 == 0x4_4600 && frame.rbx == 0x1111_1111_1111_1111, "sysenter flags and registers")?;
                (frame.cs, frame.rsp) = (0xe033, STACK_TOP);
            } else {
                log!("no sysenter in 64-bit code");
                trap(frame, 6, 0, 2)?;
            }
            frame.rip = frame.rdx;
        }
        29 => {
            call(frame, 29)?;
            // A watchpoint on a word that the hypervisor reads itself: nothing may come of it but the word.
            expect(MACHINE.write_guest_words(Gva(WATCHED), &[0xe02b]).is_ok(), "watched word")?;
            MACHINE.set_debug_register(0, WATCHED);
            MACHINE.set_debug_register(7, WATCH);
            expect(MACHINE.read_guest_u64(Gva(WATCHED)) == Ok(0xe02b), "watched word read")?;
            expect(MACHINE.debug_register(6) & 0xf == 0, "report of the hypervisor's own access")?;
            frame.rdx = WATCHED;
        }
        30 => {
            // `mov ss` holds the debug exception back, past the system call on processors: then the hypervisor swallows it. Emulators may let it come before.
            if frame.entry_vector == 1 {
                log!("debug exception before the system call");
                STEP.fetch_sub(1, Ordering::Relaxed);
                return Ok(());
            }
            call(frame, 30)?;
            MACHINE.set_debug_register(7, 0x400);
        }
        31 => {
            call(frame, 31)?;
            log!("machine test: passed");
            fatal::reboot();
        }
        _ => return Err("no step left"),
    }
    Ok(())
}

/// Whether the single-stepping of step 15 goes on: until the system call.
fn steps_left(frame: &GuestFrame) -> bool {
    let mut next = [0; 2];
    MACHINE.copy_from_guest(&mut next, Gva(frame.rip)).is_ok() && next != [0x0f, 0x05]
}

/// Compares an entry with the expected one.
pub fn arrived(frame: &mut GuestFrame) {
    let number = STEP.fetch_add(1, Ordering::Relaxed);
    let before = *frame;
    if let Err(why) = step(number, frame) {
        log!("machine test: FAILED at step {number}: {why}; cr2 {:#x}", MACHINE.fault_address().0);
        log!("{before:x?}");
        log!("{frame:x?}");
        fatal::reboot();
    }
}
