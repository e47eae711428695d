//! start_info and shared_info.

use crate::sys;
use oxen_abi::xen::{SharedInfo, StartInfo};
use core::mem::offset_of;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

static START_INFO: AtomicU64 = AtomicU64::new(0);

/// The page at whose address the shared_info frame is mapped once [`map_shared_info`] has run.
#[repr(C, align(4096))]
struct SharedPage(UnsafeCell<[u8; 4096]>);
// SAFETY: after mapping, the page is only accessed through volatile or atomic operations.
unsafe impl Sync for SharedPage {}

static SHARED_PAGE: SharedPage = SharedPage(UnsafeCell::new([0; 4096]));

/// The start_info page of the boot vCPU.
pub fn start_info() -> &'static StartInfo {
    let address = START_INFO.load(Ordering::Relaxed) as *const StartInfo;
    // SAFETY: `begin` stored the address that the hypervisor handed over; the page stays mapped and nothing writes it.
    unsafe { &*address }
}

/// Called by the entry code with rsi of the first instruction.
#[cfg(target_os = "none")]
pub extern "C" fn begin(start_info: u64) -> ! {
    unsafe extern "C" {
        fn guest_main() -> !;
    }
    START_INFO.store(start_info, Ordering::Relaxed);
    // SAFETY: every kernel defines `guest_main` through `test_kernel!`.
    unsafe { guest_main() }
}

/// Names the kernel, sets up shared_info and trap handlers, runs `body` and reports the verdict.
pub fn run(name: &'static str, body: fn()) -> ! {
    crate::check::begin(name);
    crate::mem::map_shared_info();
    crate::trap::init();
    body();
    crate::check::finish()
}

/// Virtual address of the shared_info page.
pub fn shared_info_va() -> u64 {
    SHARED_PAGE.0.get() as u64
}

/// Address of the vcpu_info of `vcpu` inside shared_info; only the first 32 have one there.
fn vcpu_info_va(vcpu: usize) -> u64 {
    VCPU_INFO[vcpu].load(Ordering::Relaxed)
}

static VCPU_INFO: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];

/// Makes the shared_info page the place of every vcpu_info.
pub(crate) fn use_shared_vcpu_info() {
    for (vcpu, slot) in VCPU_INFO.iter().enumerate() {
        slot.store(shared_info_va() + vcpu as u64 * 64, Ordering::Relaxed);
    }
}

/// Notes that the vcpu_info of `vcpu` now lives at `va`.
pub fn move_vcpu_info(vcpu: usize, va: u64) {
    VCPU_INFO[vcpu].store(va, Ordering::Relaxed);
}

/// A word of shared_info or of a vcpu_info.
pub fn shared_word(offset: usize) -> &'static AtomicU64 {
    assert!(offset.is_multiple_of(8) && offset < 4096);
    // SAFETY: in range, aligned, inside the mapped shared_info page, which is only accessed atomically.
    unsafe { &*((shared_info_va() + offset as u64) as *const AtomicU64) }
}

/// Handle on one vcpu_info.
#[derive(Clone, Copy, Debug)]
pub struct VcpuInfo {
    va: u64,
}

/// The vcpu_info of `vcpu`.
pub fn vcpu_info(vcpu: usize) -> VcpuInfo {
    VcpuInfo { va: vcpu_info_va(vcpu) }
}

impl VcpuInfo {
    fn byte(self, offset: u64) -> *mut u8 {
        (self.va + offset) as *mut u8
    }

    /// evtchn_upcall_pending.
    pub fn upcall_pending(self) -> bool {
        // SAFETY: inside a mapped vcpu_info; volatile because the hypervisor writes it.
        unsafe { self.byte(0).read_volatile() != 0 }
    }

    /// Sets or clears evtchn_upcall_pending.
    pub fn set_upcall_pending(self, pending: bool) {
        // SAFETY: as in `upcall_pending`.
        unsafe { self.byte(0).write_volatile(pending.into()) }
    }

    /// evtchn_upcall_mask.
    pub fn upcall_mask(self) -> bool {
        // SAFETY: as in `upcall_pending`.
        unsafe { self.byte(1).read_volatile() != 0 }
    }

    /// Sets or clears evtchn_upcall_mask. Clearing does not deliver what is already pending.
    pub fn set_upcall_mask(self, masked: bool) {
        // SAFETY: as in `upcall_pending`.
        unsafe { self.byte(1).write_volatile(masked.into()) }
    }

    /// evtchn_pending_sel.
    pub fn pending_sel(self) -> &'static AtomicU64 {
        // SAFETY: aligned, inside a mapped vcpu_info, accessed atomically.
        unsafe { &*((self.va + 8) as *const AtomicU64) }
    }

    /// arch.cr2: address of the last page fault.
    pub fn cr2(self) -> u64 {
        // SAFETY: inside a mapped vcpu_info.
        unsafe { ((self.va + 16) as *const u64).read_volatile() }
    }

    /// Address of the vcpu_time_info.
    pub fn time_va(self) -> u64 {
        self.va + 32
    }
}

/// Whether the command line holds `word` as one of its space-separated words.
pub fn command_line_has(word: &str) -> bool {
    let line = &start_info().cmd_line;
    let len = line.iter().position(|b| *b == 0).unwrap_or(line.len());
    line[..len].split(|b| *b == b' ').any(|w| w == word.as_bytes())
}

/// Offsets in shared_info.
pub mod offsets {
    use super::{SharedInfo, offset_of};

    /// evtchn_pending, 64 words.
    pub const EVTCHN_PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
    /// evtchn_mask, 64 words.
    pub const EVTCHN_MASK: usize = offset_of!(SharedInfo, evtchn_mask);
    /// wc_version and wc_sec.
    pub const WALL_CLOCK: usize = offset_of!(SharedInfo, wc_version);
    /// arch: max_pfn and following.
    pub const ARCH: usize = offset_of!(SharedInfo, arch);
}

/// Domain identifier that no domain has.
pub const ABSENT_DOMAIN: u16 = 0x1234;

const _: () = assert!(ABSENT_DOMAIN < sys::DOMID_SELF);
