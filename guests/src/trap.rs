//! Exception and callback entry points.
//!
//! Every stub turns the hypervisor's bounce frame into a [`Frame`], calls [`dispatch`] and goes back through the iret hypercall with
//! whatever the frame then says. Events are masked on entry to every one of them.

use crate::hypercall;
use crate::mem::{self, PAGE};
use crate::sys::{self, FLAT_CS64, FLAT_SS, TrapInfo};
use crate::{check, event, probe, start};
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt;

/// Vector number that stands for the event callback.
pub const EVENT: u32 = 256;
/// Vector number that stands for the failsafe callback.
pub const FAILSAFE: u32 = 257;
/// Vector number that stands for the 64-bit syscall callback.
pub const SYSCALL: u32 = 258;
/// Vector number that stands for the 32-bit syscall callback.
pub const SYSCALL32: u32 = 259;
/// Vector number that stands for the sysenter callback.
pub const SYSENTER: u32 = 260;
/// Vector number that stands for the NMI callback.
pub const NMI: u32 = 261;

/// Complete state of an interrupted context.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub r11: u64,
    pub rcx: u64,
    /// Error code, or 0. On return this word holds the iret hypercall's flags.
    pub error: u32,
    /// Exception vector, or one of the numbers above 255 of this module. Must be 0 on return.
    pub vector: u32,
    pub rip: u64,
    /// Selector in bits 0 to 15, event mask of the interrupted context in bits 32 to 39.
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 21 * 8);

impl Frame {
    /// The event mask of the interrupted context.
    pub fn saved_upcall_mask(&self) -> u64 {
        self.cs >> 32 & 0xff
    }
}

macro_rules! stubs {
    () => {
        global_asm!(
            // The error code's upper half is free: it takes the vector.
            ".macro GUEST_STUB name, vector, has_error",
            "guest_trap_\\name:",
            "    pop rcx",
            "    pop r11",
            "    .if \\has_error == 0",
            "    push 0",
            "    .endif",
            "    mov dword ptr [rsp + 4], \\vector",
            "    jmp guest_trap_common",
            ".endm",
            ".text",
            ".irp n, 0,1,2,3,4,5,6,7,9,15,16,18,19,20,22,23,24,25,26,27,28,29,30,31,128,129,130",
            "    GUEST_STUB \\n, \\n, 0",
            ".endr",
            ".irp n, 8,10,11,12,13,14,17,21",
            "    GUEST_STUB \\n, \\n, 1",
            ".endr",
            "GUEST_STUB event, 256, 0",
            "GUEST_STUB syscall, 258, 0",
            "GUEST_STUB syscall32, 259, 0",
            "GUEST_STUB sysenter, 260, 0",
            "GUEST_STUB nmi, 261, 0",
            // The failsafe frame holds four selectors above r11.
            "guest_trap_failsafe:",
            "    pop rcx",
            "    pop r11",
            "    pop [rip + {failsafe} + 0]",
            "    pop [rip + {failsafe} + 8]",
            "    pop [rip + {failsafe} + 16]",
            "    pop [rip + {failsafe} + 24]",
            "    push 0",
            "    mov dword ptr [rsp + 4], 257",
            "guest_trap_common:",
            "    push rcx",
            "    push r11",
            "    push rax",
            "    push rbx",
            "    push rdx",
            "    push rsi",
            "    push rdi",
            "    push rbp",
            "    push r8",
            "    push r9",
            "    push r10",
            "    push r12",
            "    push r13",
            "    push r14",
            "    push r15",
            "    mov rdi, rsp",
            "    mov rbp, rsp",
            "    and rsp, -16",
            "    cld",
            "    call {dispatch}",
            "    mov rsp, rbp",
            "guest_return:",
            "    pop r15",
            "    pop r14",
            "    pop r13",
            "    pop r12",
            "    pop r10",
            "    pop r9",
            "    pop r8",
            "    pop rbp",
            "    pop rdi",
            "    pop rsi",
            "    pop rdx",
            "    pop rbx",
            // What is left is the iret hypercall's frame: rax, r11, rcx, flags, rip, cs, rflags, rsp, ss.
            "    mov eax, 23",
            "    syscall",
            "    ud2",
            // Enters the context at rdi; `guest_leave` makes this call return. rsi: where the stack pointer is kept.
            "guest_enter:",
            "    push rbx",
            "    push rbp",
            "    push r12",
            "    push r13",
            "    push r14",
            "    push r15",
            "    mov [rsi], rsp",
            "    sub rsp, {frame_bytes}",
            "    mov rsi, rdi",
            "    mov rdi, rsp",
            "    mov ecx, {frame_bytes} / 8",
            "    cld",
            "    rep movsq",
            "    jmp guest_return",
            // Continues after the last `guest_enter`. rdi: the stack pointer it kept.
            "guest_leave:",
            "    mov rsp, rdi",
            "    pop r15",
            "    pop r14",
            "    pop r13",
            "    pop r12",
            "    pop rbp",
            "    pop rbx",
            "    ret",
            ".pushsection .data, \"aw\", @progbits",
            ".balign 8",
            "guest_trap_table:",
            ".irp n, 0,1,2,3,4,5,6,7,9,15,16,18,19,20,22,23,24,25,26,27,28,29,30,31,128,129,130,8,10,11,12,13,14,17,21",
            "    .quad \\n, guest_trap_\\n",
            ".endr",
            "    .quad 0, 0",
            "guest_callback_table:",
            "    .quad guest_trap_event, guest_trap_failsafe, guest_trap_syscall, guest_trap_syscall32",
            "    .quad guest_trap_sysenter, guest_trap_nmi",
            ".popsection",
            failsafe = sym FAILSAFE_SELECTORS,
            dispatch = sym dispatch,
            frame_bytes = const size_of::<Frame>(),
        );
    };
}
stubs!();

// SAFETY: the assembly above defines the functions with these signatures.
unsafe extern "C" {
    fn guest_enter(frame: *const Frame, kept_rsp: *mut u64);
    fn guest_leave(kept_rsp: u64) -> !;
    static guest_trap_table: [[u64; 2]; 36];
    static guest_callback_table: [u64; 6];
}

#[repr(C)]
struct Selectors(UnsafeCell<[u64; 4]>);
// SAFETY: written by the failsafe stub on the boot vCPU and read after it.
unsafe impl Sync for Selectors {}
static FAILSAFE_SELECTORS: Selectors = Selectors(UnsafeCell::new([0; 4]));

/// A function that handles a vector; the context continues as the frame says when it returns.
pub type Hook = fn(&mut Frame);

struct Hooks(UnsafeCell<[Option<Hook>; 262]>);
// SAFETY: changed by the boot vCPU between the traps it provokes.
unsafe impl Sync for Hooks {}
static HOOKS: Hooks = Hooks(UnsafeCell::new([None; 262]));

/// ds, es, fs, gs out of the last failsafe frame.
pub fn failsafe_selectors() -> [u64; 4] {
    // SAFETY: see `Selectors`.
    unsafe { *FAILSAFE_SELECTORS.0.get() }
}

/// Calls `hook` for `vector` from now on, instead of ending the kernel or the running probe.
pub fn set_hook(vector: u32, hook: Option<Hook>) {
    // SAFETY: see `Hooks`.
    unsafe { (&mut *HOOKS.0.get())[vector as usize] = hook };
}

/// Address of the stub for the callback with vector number `vector` (256 and up).
pub fn callback_address(vector: u32) -> u64 {
    // SAFETY: filled at link time.
    unsafe { guest_callback_table[(vector - EVENT) as usize] }
}

/// The entry for `vector` as [`init`] registers it, but with `flags`. Panics for vectors without stub.
pub fn trap_entry(vector: u8, flags: u8) -> TrapInfo {
    // SAFETY: filled at link time.
    let table = unsafe { &guest_trap_table };
    let Some(entry) = table[..35].iter().find(|e| e[0] == u64::from(vector)) else {
        panic!("no stub for vector {vector}")
    };
    TrapInfo { vector, flags, cs: FLAT_CS64 as u16, address: entry[1], ..TrapInfo::default() }
}

/// Flags of the entry for `vector`: events masked on entry; breakpoint, overflow and 0x80 may be raised from user mode.
pub fn default_flags(vector: u8) -> u8 {
    4 | if matches!(vector, 3 | 4 | 128) { 3 } else { 0 }
}

/// Fills the trap table of a vCPU context, which is indexed by vector.
pub fn fill_table(table: &mut [TrapInfo; 256]) {
    // SAFETY: filled at link time.
    let stubs = unsafe { &guest_trap_table };
    for stub in &stubs[..35] {
        let vector = stub[0] as u8;
        table[usize::from(vector)] = trap_entry(vector, default_flags(vector));
    }
}

/// Registers every stub as trap handler, and the event and failsafe callbacks.
pub fn init() {
    let mut table: [TrapInfo; 36] = core::array::from_fn(|_| TrapInfo::default());
    // SAFETY: filled at link time.
    let stubs = unsafe { &guest_trap_table };
    for (slot, stub) in table.iter_mut().zip(&stubs[..35]) {
        *slot = trap_entry(stub[0] as u8, default_flags(stub[0] as u8));
    }
    let rc = hypercall::set_trap_table(&mut table);
    check!("init.set_trap_table", rc.is_ok());
    register_callback(sys::CALLBACKTYPE_EVENT, EVENT);
    register_callback(sys::CALLBACKTYPE_FAILSAFE, FAILSAFE);
    let stack = mem::alloc_pages(4);
    let rc = hypercall::stack_switch(FLAT_SS, stack.va() + 4 * PAGE);
    check!("init.stack_switch", rc.is_ok());
}

/// Registers the stub of `vector` as callback of type `kind`.
pub fn register_callback(kind: u16, vector: u32) {
    let rc = hypercall::register_callback(kind, sys::CALLBACKF_MASK_EVENTS, callback_address(vector));
    check!("init.callback", rc.is_ok());
}

/// Enters `frame` and comes back through [`leave`].
pub(crate) fn enter(frame: &Frame, kept_rsp: &mut u64) {
    // SAFETY: `guest_enter` keeps the callee-saved registers of the calling convention on this stack; `leave` restores them.
    unsafe { guest_enter(frame, kept_rsp) }
}

/// Ends the trap being handled and returns from the [`enter`] that kept `kept_rsp`.
pub(crate) fn leave(kept_rsp: u64) -> ! {
    // SAFETY: the caller passes what `enter` kept, and that call is still active on the abandoned-to stack.
    unsafe { guest_leave(kept_rsp) }
}

extern "C" fn dispatch(frame: &mut Frame) {
    let vector = frame.vector;
    // SAFETY: see `Hooks`; the reference does not outlive the statement.
    let hook = unsafe { (&*HOOKS.0.get()).get(vector as usize).copied().flatten() };
    if let Some(hook) = hook {
        hook(frame);
    } else if vector == EVENT {
        event::upcall();
    } else if probe::active() {
        probe::caught(frame);
    } else {
        unexpected(frame);
    }
    frame.error = 0;
    frame.vector = 0;
}

fn unexpected(frame: &Frame) -> ! {
    let cr2 = start::vcpu_info(0).cr2();
    crate::say!("NOTE unexpected trap: {frame:x?} cr2 {cr2:x}");
    let vector = Vector(frame.vector);
    check::abort(format_args!("unexpected {vector}({:#x}) at {:#x}", frame.error, frame.rip))
}

/// A vector number, printed by its usual name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector(pub u32);

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "#DE",
            1 => "#DB",
            2 => "#NMI",
            3 => "#BP",
            4 => "#OF",
            5 => "#BR",
            6 => "#UD",
            7 => "#NM",
            8 => "#DF",
            10 => "#TS",
            11 => "#NP",
            12 => "#SS",
            13 => "#GP",
            14 => "#PF",
            16 => "#MF",
            17 => "#AC",
            18 => "#MC",
            19 => "#XM",
            EVENT => "event",
            FAILSAFE => "failsafe",
            SYSCALL => "syscall",
            SYSCALL32 => "syscall32",
            SYSENTER => "sysenter",
            NMI => "nmi",
            other => return write!(f, "vector {other:#x}"),
        };
        f.write_str(name)
    }
}

/// Whether the processor pushes an error code for `vector`.
pub fn has_error_code(vector: u32) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}
