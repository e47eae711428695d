//! Preloaded into Debian's xenstored and oxenstored, it plays the hypervisor: a domain 0 whose ring nobody uses. So they can be measured
//! on any machine.
//!
//! The functions are those of libxenctrl, libxenevtchn and libxengnttab that the daemons call, with the C types of their headers.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

/// Stands for every handle; nobody looks inside.
static HANDLE: u64 = 0;

fn handle() -> *mut c_void {
    (&raw const HANDLE).cast_mut().cast()
}

/// Opens what stands for a file of `/proc/xen`: an unnamed file with these contents.
fn memory_file(contents: &[u8], len: usize) -> c_int {
    // SAFETY: the name is a C string and lives for ever.
    let fd = unsafe { libc::memfd_create(c"xen".as_ptr(), 0) };
    if fd >= 0 {
        // SAFETY: the descriptor is open, the buffer lives.
        unsafe {
            libc::ftruncate(fd, len as libc::off_t);
            libc::pwrite(fd, contents.as_ptr().cast(), contents.len(), 0);
        }
    }
    fd
}

fn open_any(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller of `open` passes a C string.
    match unsafe { CStr::from_ptr(path) }.to_bytes() {
        b"/proc/xen/xsd_port" => memory_file(b"1\n", 2),
        b"/proc/xen/xsd_kva" => memory_file(b"", 4096),
        // SAFETY: the arguments are passed on as they came.
        _ => unsafe { libc::openat(libc::AT_FDCWD, path, flags, mode) },
    }
}

/// `open(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    open_any(path, flags, mode)
}

/// `open(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    open_any(path, flags, mode)
}

/// Limits cannot be raised in every container, and need not be.
#[unsafe(no_mangle)]
pub extern "C" fn setrlimit(_resource: c_int, _limit: *const c_void) -> c_int {
    0
}

/// `xc_interface_open`.
#[unsafe(no_mangle)]
pub extern "C" fn xc_interface_open(_logger: *mut c_void, _dombuild: *mut c_void, _flags: c_uint) -> *mut c_void {
    handle()
}

/// `xc_interface_close`.
#[unsafe(no_mangle)]
pub extern "C" fn xc_interface_close(_xch: *mut c_void) -> c_int {
    0
}

/// `xc_domain_getinfo`: there are no domains but 0, about which nobody asks.
#[unsafe(no_mangle)]
pub extern "C" fn xc_domain_getinfo(_xch: *mut c_void, _first: u32, _max: c_uint, _info: *mut c_void) -> c_int {
    0
}

/// `xc_domain_getinfolist`.
#[unsafe(no_mangle)]
pub extern "C" fn xc_domain_getinfolist(_xch: *mut c_void, _first: u32, _max: c_uint, _info: *mut c_void) -> c_int {
    0
}

/// `xenevtchn_open`.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_open(_logger: *mut c_void, _flags: c_uint) -> *mut c_void {
    handle()
}

/// `xenevtchn_fdopen`.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_fdopen(_logger: *mut c_void, _fd: c_int, _flags: c_uint) -> *mut c_void {
    handle()
}

/// `xenevtchn_close`.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_close(_xce: *mut c_void) -> c_int {
    0
}

/// `xenevtchn_fd`: a descriptor that never becomes readable.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_fd(_xce: *mut c_void) -> c_int {
    // SAFETY: the call has no preconditions.
    unsafe { libc::eventfd(0, libc::EFD_NONBLOCK) }
}

/// `xenevtchn_bind_interdomain`.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_bind_interdomain(_xce: *mut c_void, _domid: u32, port: u32) -> c_int {
    100 + port as c_int
}

/// `xenevtchn_bind_virq`.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_bind_virq(_xce: *mut c_void, virq: c_uint) -> c_int {
    1 + virq as c_int
}

/// `xenevtchn_notify`.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_notify(_xce: *mut c_void, _port: u32) -> c_int {
    0
}

/// `xenevtchn_pending`: never asked, as the descriptor is never readable.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_pending(_xce: *mut c_void) -> c_int {
    -1
}

/// `xenevtchn_unbind`.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_unbind(_xce: *mut c_void, _port: u32) -> c_int {
    0
}

/// `xenevtchn_unmask`.
#[unsafe(no_mangle)]
pub extern "C" fn xenevtchn_unmask(_xce: *mut c_void, _port: u32) -> c_int {
    0
}

/// `xengnttab_open`.
#[unsafe(no_mangle)]
pub extern "C" fn xengnttab_open(_logger: *mut c_void, _flags: c_uint) -> *mut c_void {
    handle()
}

/// `xengnttab_close`.
#[unsafe(no_mangle)]
pub extern "C" fn xengnttab_close(_xgt: *mut c_void) -> c_int {
    0
}

/// `xengnttab_set_max_grants`.
#[unsafe(no_mangle)]
pub extern "C" fn xengnttab_set_max_grants(_xgt: *mut c_void, _count: u32) -> c_int {
    0
}

/// `xengnttab_map_grant_ref`: no domain is ever introduced.
#[unsafe(no_mangle)]
pub extern "C" fn xengnttab_map_grant_ref(_xgt: *mut c_void, _domid: u32, _reference: u32, _protection: c_int) -> *mut c_void {
    ptr::null_mut()
}

/// `xengnttab_unmap`.
#[unsafe(no_mangle)]
pub extern "C" fn xengnttab_unmap(_xgt: *mut c_void, _start: *mut c_void, _count: u32) -> c_int {
    0
}
