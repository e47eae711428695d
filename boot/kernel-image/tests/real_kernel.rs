//! A distribution's kernel, where `OXEN_TEST_KERNEL` names one.

use oxen_kernel_image::{Kernel, KernelFile};
use std::time::Instant;

#[test]
fn unpacks_and_parses() {
    let Some(path) = std::env::var_os("OXEN_TEST_KERNEL") else {
        eprintln!("OXEN_TEST_KERNEL is not set: nothing tested");
        return;
    };
    let module = std::fs::read(path).expect("the kernel can be read");
    let file = KernelFile::open(&module).expect("the container is known");
    let start = Instant::now();
    let unpacked = file.unpack().expect("the payload unpacks");
    eprintln!(
        "{}, {}, {} bytes in {:?}",
        file.container(),
        file.compression(),
        unpacked.len(),
        start.elapsed()
    );
    let kernel = Kernel::parse(&unpacked).expect("the kernel parses");
    eprintln!("{:#x?}", kernel.info());
    for segment in kernel.segments() {
        eprintln!(
            "{:#x} {:#x} {:#x}",
            segment.paddr,
            segment.data.len(),
            segment.mem_len
        );
    }
    assert!(
        kernel.info().features.supports(11),
        "every distribution kernel can be domain 0"
    );
    assert!(kernel.info().mod_start_pfn);
}
