//! Runs a few instructions with chosen registers, in the kernel or as user, and tells how they ended.
//!
//! The instructions are followed by `int3`: a probe that reaches it is "done", everything else is the trap that stopped it.

use crate::hypercall;
use crate::mem::{self, PAGE, Page};
use crate::start;
use crate::sys::{FLAT_CS64, FLAT_SS};
use crate::trap::{self, Frame, Vector};
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

struct Catcher {
    kept_rsp: UnsafeCell<u64>,
    frame: UnsafeCell<Frame>,
}
// SAFETY: probes run on the boot vCPU only, one at a time.
unsafe impl Sync for Catcher {}

static CATCHER: Catcher = Catcher {
    kept_rsp: UnsafeCell::new(0),
    frame: UnsafeCell::new(Frame {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rbp: 0,
        rdi: 0,
        rsi: 0,
        rdx: 0,
        rbx: 0,
        rax: 0,
        r11: 0,
        rcx: 0,
        error: 0,
        vector: 0,
        rip: 0,
        cs: 0,
        rflags: 0,
        rsp: 0,
        ss: 0,
    }),
};
static ACTIVE: AtomicBool = AtomicBool::new(false);
static KERNEL_PAGES: AtomicU64 = AtomicU64::new(0);

/// How a probe ended.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// Registers at the end.
    pub frame: Frame,
    /// Fault address that the hypervisor stored, for page faults.
    pub cr2: u64,
    /// Event mask when the handler was entered.
    pub mask_on_entry: bool,
    base: u64,
    len: u64,
}

impl Trap {
    /// Whether the instructions completed.
    pub fn done(&self) -> bool {
        self.frame.vector == 3 && self.frame.rip == self.base + self.len + 1
    }

    /// Offset of rip from the first instruction.
    pub fn offset(&self) -> i64 {
        self.frame.rip.wrapping_sub(self.base) as i64
    }

    /// Whether the probe ended with exception `vector`.
    pub fn is(&self, vector: u32) -> bool {
        !self.done() && self.frame.vector == vector
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.done() {
            return f.write_str("done");
        }
        write!(f, "{}", Vector(self.frame.vector))?;
        if trap::has_error_code(self.frame.vector) {
            write!(f, "({:#x})", self.frame.error)?;
        }
        match self.offset() {
            offset @ 0..4096 => write!(f, "+{offset}"),
            _ => f.write_str("+elsewhere"),
        }
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    code: &'a [u8],
    /// Registers to start with. rip, rsp and the selectors are filled in already.
    pub frame: Frame,
    /// Where the bytes are written.
    code_page: Page,
    /// Offset in that page.
    code_offset: usize,
}

/// Selector and rflags of a new probe: events stay masked.
const RFLAGS: u64 = 2;

impl<'a> Probe<'a> {
    /// `code` to be run in the kernel, on a stack of its own.
    pub fn kernel(code: &'a [u8]) -> Self {
        let (code_page, stack) = kernel_pages();
        let frame = Frame {
            rip: code_page.va(),
            // Ring 0 in the frame means: stay in the kernel.
            cs: FLAT_CS64 & !3,
            rflags: RFLAGS,
            rsp: stack.va() + PAGE,
            ss: FLAT_SS,
            ..Frame::default()
        };
        Self { code, frame, code_page, code_offset: (frame.rip % PAGE) as usize }
    }

    /// `code` to be run in user mode at `rip` with stack `rsp`; `code_page` is the page that `rip` maps, for writing.
    pub fn user(code: &'a [u8], code_page: Page, rip: u64, rsp: u64) -> Self {
        let frame = Frame { rip, cs: FLAT_CS64, rflags: RFLAGS, rsp, ss: FLAT_SS, ..Frame::default() };
        Self { code, frame, code_page, code_offset: (frame.rip % PAGE) as usize }
    }

    /// Changes the registers to start with.
    pub fn with(mut self, change: impl FnOnce(&mut Frame)) -> Self {
        change(&mut self.frame);
        self
    }

    /// Runs it.
    pub fn run(self) -> Trap {
        self.code_page.write_bytes(self.code_offset, self.code);
        self.code_page.write_bytes(self.code_offset + self.code.len(), &[0xcc]);
        run_frame(&self.frame, self.frame.rip, self.code.len() as u64)
    }
}

/// Enters `frame` as it stands and returns the trap that ends it; offsets are counted from `base`.
pub fn run_frame(frame: &Frame, base: u64, len: u64) -> Trap {
    let info = start::vcpu_info(0);
    let mask = info.upcall_mask();
    ACTIVE.store(true, Ordering::Relaxed);
    // SAFETY: see `Catcher`.
    trap::enter(frame, unsafe { &mut *CATCHER.kept_rsp.get() });
    ACTIVE.store(false, Ordering::Relaxed);
    let mask_on_entry = info.upcall_mask();
    info.set_upcall_mask(mask);
    if !mask && info.upcall_pending() {
        // Any hypercall delivers what came in while events were masked.
        hypercall::raw(crate::sys::nr::XEN_VERSION, [0, 0, 0, 0, 0]);
    }
    // SAFETY: see `Catcher`; `caught` filled it.
    let frame = unsafe { *CATCHER.frame.get() };
    Trap { frame, cr2: info.cr2(), mask_on_entry, base, len }
}

/// Whether a probe is running.
pub(crate) fn active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

/// Ends the running probe with `frame`.
pub(crate) fn caught(frame: &Frame) -> ! {
    // SAFETY: see `Catcher`; the probe is not running any more.
    let kept_rsp = unsafe {
        *CATCHER.frame.get() = *frame;
        *CATCHER.kept_rsp.get()
    };
    trap::leave(kept_rsp)
}

/// Runs a Rust function; a fault in it ends it early. The result is `None` when it ran to its end.
///
/// Values that the function owns at the fault are not dropped.
pub fn catch<F: FnMut()>(mut body: F) -> Option<Trap> {
    extern "C" fn call<F: FnMut()>(body: *mut F) {
        // SAFETY: `catch` passes a pointer to its own argument and waits for the end.
        unsafe { (*body)() }
    }
    // mov rdi, rbx; call r12; then the int3 of the probe.
    let probe = Probe::kernel(&[0x48, 0x89, 0xdf, 0x41, 0xff, 0xd4]).with(|f| {
        f.rbx = core::ptr::from_mut(&mut body) as u64;
        f.r12 = call::<F> as *const () as u64;
    });
    let trap = probe.run();
    (!trap.done()).then_some(trap)
}

fn kernel_pages() -> (Page, Page) {
    let mut first = KERNEL_PAGES.load(Ordering::Relaxed);
    if first == 0 {
        first = mem::alloc_pages(1 + STACK_PAGES).va();
        KERNEL_PAGES.store(first, Ordering::Relaxed);
    }
    let code = Page::at(first);
    (code, code.nth(STACK_PAGES))
}

/// Pages of the kernel probes' stack, between the code page and the end.
const STACK_PAGES: usize = 4;
