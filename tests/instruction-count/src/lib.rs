//! A QEMU plugin (interface version 1, as in Debian 12's QEMU 7.2): counts executed instructions and, apart, those in
//! the address range that the x86-64 PV interface reserves for the hypervisor. At each marker that `tests/bench-guest`
//! executes, and at the end, it writes a line `<marker> <hypervisor's> <all>` to the file given as `out=`.
//!
//! With `blocks=`, it also writes to that file, at each marker 2, which of the hypervisor's blocks ran since the marker before: lines
//! `<n-th marker 2> <address> <instructions in the block> <times>`.
//!
//! Counting happens per translated block: a block that is left early by a fault counts whole. That is exact enough for
//! shares; exact totals come from the time stamp counter.
//!
//! The functions below are declared as QEMU's `include/qemu/qemu-plugin.h` documents them.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The interface version that this plugin is written for; QEMU reads it.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 1;

/// Slots 256 to 271 of the top page table belong to the hypervisor in every PV address space.
const HYPERVISOR: std::ops::Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;

/// `nopl disp32(%rax)` with the magic number in the upper half of the displacement.
const MARKER_OPCODE: [u8; 3] = [0x0f, 0x1f, 0x80];
const MARKER_MAGIC: u16 = 0x4f58;

/// `QEMU_PLUGIN_INLINE_ADD_U64` and `QEMU_PLUGIN_CB_NO_REGS`.
const INLINE_ADD_U64: c_int = 0;
const CB_NO_REGS: c_int = 0;

/// A translated block and an instruction of it; QEMU owns both.
#[repr(C)]
pub struct Block {
    _private: [u8; 0],
}
#[repr(C)]
struct Instruction {
    _private: [u8; 0],
}

// SAFETY: the signatures are those of interface version 1.
unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut Block));
    fn qemu_plugin_register_vcpu_tb_exec_inline(block: *mut Block, op: c_int, counter: *mut c_void, add: u64);
    fn qemu_plugin_register_vcpu_insn_exec_cb(insn: *mut Instruction, callback: extern "C" fn(c_uint, *mut c_void), flags: c_int, data: *mut c_void);
    fn qemu_plugin_register_atexit_cb(id: u64, callback: extern "C" fn(u64, *mut c_void), data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_data(insn: *const Instruction) -> *const c_void;
    fn qemu_plugin_insn_size(insn: *const Instruction) -> usize;
}

/// Added to by the translated code. With one emulator thread (`thread=single`) the additions do not race.
static IN_HYPERVISOR: AtomicU64 = AtomicU64::new(0);
static ALL: AtomicU64 = AtomicU64::new(0);
static OUT: Mutex<Option<File>> = Mutex::new(None);
static BLOCKS_OUT: Mutex<Option<File>> = Mutex::new(None);

/// How often a block of the hypervisor ran since the last marker.
struct Executed {
    address: u64,
    length: u64,
    times: &'static AtomicU64,
}
static BLOCKS: Mutex<Vec<Executed>> = Mutex::new(Vec::new());
/// Markers 2 so far.
static ROWS: AtomicU64 = AtomicU64::new(0);

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called by QEMU once: `argv` holds the plugin's arguments as `name=value`.
///
/// # Safety
/// QEMU passes `argc` valid strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(id: u64, _info: *const c_void, argc: c_int, argv: *const *const c_char) -> c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the caller's promise.
    let arguments = (0..count).map(|n| unsafe { CStr::from_ptr(*argv.add(n)) }.to_string_lossy().into_owned());
    for argument in arguments {
        let (place, path) = match argument.split_once('=') {
            Some(("out", path)) => (&OUT, path),
            Some(("blocks", path)) => (&BLOCKS_OUT, path),
            _ => continue,
        };
        let Ok(file) = File::create(path) else { return 1 };
        *locked(place) = Some(file);
    }
    if locked(&OUT).is_none() {
        return 1;
    }
    // SAFETY: the callbacks have the declared signatures and live as long as the library.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, finished, std::ptr::null_mut());
    }
    0
}

/// A block was translated: has its executions counted, and its markers reported.
extern "C" fn translated(_id: u64, block: *mut Block) {
    // SAFETY: QEMU's block is valid during this callback, its instructions' indices are below their number, and the
    // counters live as long as the library.
    unsafe {
        let length = qemu_plugin_tb_n_insns(block);
        let add = length as u64;
        qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, ALL.as_ptr().cast(), add);
        if HYPERVISOR.contains(&qemu_plugin_tb_vaddr(block)) {
            qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, IN_HYPERVISOR.as_ptr().cast(), add);
            if locked(&BLOCKS_OUT).is_some() {
                // The translated code adds to it for ever.
                let times: &'static AtomicU64 = Box::leak(Box::default());
                qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, times.as_ptr().cast(), 1);
                locked(&BLOCKS).push(Executed { address: qemu_plugin_tb_vaddr(block), length: add, times });
            }
        }
        for index in 0..length {
            let insn = qemu_plugin_tb_get_insn(block, index);
            let bytes = std::slice::from_raw_parts(qemu_plugin_insn_data(insn).cast::<u8>(), qemu_plugin_insn_size(insn));
            if let Some(marker) = marker(bytes) {
                qemu_plugin_register_vcpu_insn_exec_cb(insn, reached, CB_NO_REGS, std::ptr::without_provenance_mut(usize::from(marker)));
            }
        }
    }
}

/// The number in a marker instruction.
fn marker(bytes: &[u8]) -> Option<u16> {
    let displacement = bytes.strip_prefix(&MARKER_OPCODE)?;
    match *displacement {
        [a, b, c, d] if u16::from_le_bytes([c, d]) == MARKER_MAGIC => Some(u16::from_le_bytes([a, b])),
        _ => None,
    }
}

extern "C" fn reached(_cpu: c_uint, marker: *mut c_void) {
    report(&marker.addr().to_string());
    report_blocks(marker.addr() == 2);
}

/// Starts counting blocks anew, after writing the counts where a row ends.
fn report_blocks(row_ends: bool) {
    let mut out = locked(&BLOCKS_OUT);
    let Some(out) = out.as_mut() else { return };
    let row = if row_ends { ROWS.fetch_add(1, Ordering::Relaxed) } else { 0 };
    for block in locked(&BLOCKS).iter() {
        let times = block.times.swap(0, Ordering::Relaxed);
        if row_ends && times != 0 {
            let _ = writeln!(out, "{row} {:#x} {} {times}", block.address, block.length);
        }
    }
}

extern "C" fn finished(_id: u64, _data: *mut c_void) {
    report("end");
}

fn report(what: &str) {
    let mut out = locked(&OUT);
    if let Some(file) = out.as_mut() {
        // A full disk shows as a missing line, which the reader reports.
        let _ = writeln!(file, "{what} {} {}", IN_HYPERVISOR.load(Ordering::Relaxed), ALL.load(Ordering::Relaxed));
    }
}
