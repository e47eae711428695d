//! The page of hypercall stubs for kernels that ask for one.

const STUB_LEN: usize = 32;
/// Hypercall 23 returns from an exception and is jumped to, not called.
const IRET: usize = 23;
/// What fills the bytes between the stubs: `int3`.
const FILLER: u8 = 0xcc;

/// The hypercall page of a 64-bit PV guest: stub `n` at byte `32 * n`. Public header `xen.h`, "Hypercall page", and the calling
/// convention of `arch-x86/xen-x86_64.h`.
#[must_use]
pub fn pv_hypercall_page() -> [u8; 4096] {
    let mut page = [FILLER; 4096];
    for (number, stub) in page.chunks_exact_mut(STUB_LEN).enumerate() {
        let [n0, n1, n2, n3] = (number as u32).to_le_bytes();
        if number == IRET {
            // push rcx; push r11; push rax; mov eax, n; syscall
            fill(
                stub,
                &[0x51, 0x41, 0x53, 0x50, 0xb8, n0, n1, n2, n3, 0x0f, 0x05],
            );
        } else {
            // push rcx; push r11; mov eax, n; syscall; pop r11; pop rcx; ret
            fill(
                stub,
                &[
                    0x51, 0x41, 0x53, 0xb8, n0, n1, n2, n3, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3,
                ],
            );
        }
    }
    page
}

fn fill(stub: &mut [u8], code: &[u8]) {
    for (to, from) in stub.iter_mut().zip(code) {
        *to = *from;
    }
}
