//! Builds guests on a fake host and looks at what is in their memory.

#[path = "../../../boot/kernel-image/tests/synth/mod.rs"]
mod synth;

use oxen_abi::Errno;
use oxen_abi::arch_x86_64::VcpuGuestContext;
use oxen_abi::xen::{ConsoleDomU, StartInfo};
use oxen_abi::zerocopy::FromBytes;
use oxen_domain_build::{BuildError, Built, Identity, Request, build};
use oxen_xenctl::fake::{FakeDomain, FakeHost};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MIB: u64 = 1024;

/// A directory that goes when the test ends.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("oxen-build-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn kernel() -> Vec<u8> {
    synth::elf(&synth::linux_parts(100_000), &synth::linux_notes())
}

fn request(dir: &Dir) -> Request {
    let mut request = Request::new(dir.file("kernel", &kernel()), 48 * MIB);
    let disk: Vec<u8> = (0..3_000_001_u32).map(|n| (n >> 3) as u8).collect();
    request.ramdisk = Some(dir.file("ramdisk", &disk));
    request.command_line = "console=hvc0 quiet".into();
    request.domain.nr_vcpus = 2;
    request.cache = None;
    request
}

/// The guest's memory as its page tables show it.
struct Guest<'h> {
    host: &'h FakeHost,
    domain: FakeDomain,
    /// Mapped pages: frame and whether it is writable.
    pages: BTreeMap<u64, (u64, bool)>,
    /// Frames of page tables.
    tables: Vec<u64>,
}

impl<'h> Guest<'h> {
    fn new(host: &'h FakeHost, built: &Built) -> Self {
        let mut guest = Self {
            host,
            domain: host.domain(built.domid).unwrap(),
            pages: BTreeMap::new(),
            tables: Vec::new(),
        };
        let root = guest.domain.pinned[0];
        guest.walk(root, 4, 0);
        guest
    }

    fn frame(&self, mfn: u64) -> Vec<u8> {
        assert!(
            self.domain.frames.contains(&mfn)
                || mfn == self.domain.shared_info
                || mfn == self.domain.grant_frame
        );
        let mut bytes = vec![0; 4096];
        self.host
            .memory(&[mfn])
            .unwrap()
            .read(0, &mut bytes)
            .unwrap();
        bytes
    }

    fn walk(&mut self, table: u64, level: u32, base: u64) {
        self.tables.push(table);
        let bytes = self.frame(table);
        for (index, entry) in bytes.chunks_exact(8).enumerate() {
            let entry = u64::from_le_bytes(entry.try_into().unwrap());
            if entry & 1 == 0 {
                continue;
            }
            let va = base | (index as u64) << (12 + 9 * (level - 1));
            if level > 1 {
                self.walk(entry >> 12, level - 1, va);
            } else {
                let va = ((va << 16) as i64 >> 16) as u64;
                self.pages.insert(va, (entry >> 12, entry & 2 != 0));
            }
        }
    }

    fn read(&self, va: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let at = va + bytes.len() as u64;
            let offset = (at % 4096) as usize;
            let page = self.frame(self.pages[&(at - at % 4096)].0);
            let part = (4096 - offset).min(len - bytes.len());
            bytes.extend(&page[offset..offset + part]);
        }
        bytes
    }

    fn pfn_to_mfn(&self, start: &StartInfo, pfn: u64) -> u64 {
        let bytes = self.read(start.mfn_list + pfn * 8, 8);
        u64::from_le_bytes(bytes.try_into().unwrap())
    }
}

#[test]
fn a_guest_finds_what_it_is_promised() {
    let dir = Dir::new("whole");
    let host = FakeHost::new(20_000).unwrap();
    let request = request(&dir);
    let built = build(&host.xen(), &request).unwrap();
    let guest = Guest::new(&host, &built);
    assert_eq!(built.nr_pages, 48 * 256);
    assert_eq!(guest.domain.frames.len() as u64, built.nr_pages);
    assert_eq!(
        (
            guest.domain.paused,
            guest.domain.nr_vcpus,
            guest.domain.claimed
        ),
        (1, 2, 0)
    );

    let context = VcpuGuestContext::read_from_bytes(&guest.domain.contexts[&0]).unwrap();
    assert_eq!(context.user_regs.rip, 0xffff_ffff_8100_0040);
    assert_eq!(context.ctrlreg[3], guest.domain.pinned[0] << 12);
    assert_eq!(
        (context.user_regs.cs, context.user_regs.ss),
        (0xe033, 0xe02b)
    );

    let bytes = guest.read(context.user_regs.rsi, size_of::<StartInfo>());
    let start = StartInfo::read_from_bytes(&bytes).unwrap();
    assert!(start.magic.starts_with(b"xen-3.0-x86_64\0"));
    assert!(start.cmd_line.starts_with(b"console=hvc0 quiet\0"));
    assert_eq!(start.nr_pages, built.nr_pages);
    assert_eq!(start.shared_info, guest.domain.shared_info << 12);
    assert_eq!(
        (start.store_mfn, start.store_evtchn),
        (built.store_mfn, built.store_port)
    );
    let console: ConsoleDomU = start.console.read();
    assert_eq!(
        (console.mfn, console.evtchn),
        (built.console_mfn, built.console_port)
    );
    assert_ne!(built.store_port, built.console_port);

    for (pfn, mfn) in (0..built.nr_pages)
        .map(|pfn| (pfn, guest.pfn_to_mfn(&start, pfn)))
        .step_by(97)
    {
        assert_eq!(guest.domain.m2p[&mfn], pfn);
    }
    for part in synth::linux_parts(100_000) {
        let va = 0xffff_ffff_8000_0000 + part.paddr;
        assert!(guest.read(va, part.data.len()) == part.data);
        let rest = guest.read(
            va + part.data.len() as u64,
            part.mem_len as usize - part.data.len(),
        );
        assert!(rest.iter().all(|byte| *byte == 0));
    }
    let disk = std::fs::read(request.ramdisk.unwrap()).unwrap();
    assert_eq!(start.mod_len, disk.len() as u64);
    let frames: Vec<u64> = (0..start.mod_len.div_ceil(4096))
        .map(|n| guest.pfn_to_mfn(&start, start.mod_start + n))
        .collect();
    let mut found = vec![0; disk.len()];
    host.memory(&frames).unwrap().read(0, &mut found).unwrap();
    assert!(found == disk);
}

#[test]
fn page_tables_are_never_mapped_writable() {
    let dir = Dir::new("tables");
    let host = FakeHost::new(20_000).unwrap();
    let built = build(&host.xen(), &request(&dir)).unwrap();
    let guest = Guest::new(&host, &built);
    for (mfn, writable) in guest.pages.values() {
        assert!(!(*writable && guest.tables.contains(mfn)));
    }
}

#[test]
fn the_rings_are_granted_to_the_daemons() {
    let dir = Dir::new("grants");
    let host = FakeHost::new(20_000).unwrap();
    let built = build(&host.xen(), &request(&dir)).unwrap();
    let guest = Guest::new(&host, &built);
    let table = guest.frame(guest.domain.grant_frame);
    let entry = |n: usize| {
        (
            table[n * 8],
            u32::from_le_bytes(table[n * 8 + 4..n * 8 + 8].try_into().unwrap()),
        )
    };
    assert_eq!(entry(0), (1, built.console_mfn as u32));
    assert_eq!(entry(1), (1, built.store_mfn as u32));
    let shared = guest.frame(guest.domain.shared_info);
    assert!((0..32).all(|vcpu| shared[vcpu * 64 + 1] == 1));
    for mfn in [built.store_mfn, built.console_mfn] {
        assert!(guest.frame(mfn).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn whatever_fails_nothing_is_left() {
    let dir = Dir::new("undo");
    let host = FakeHost::new(20_000).unwrap();
    let request = request(&dir);
    build(&host.xen(), &request).unwrap();
    let mut calls = host.calls();
    calls.sort_unstable();
    calls.dedup();
    assert!(calls.len() > 10, "{calls:?}");
    let host = FakeHost::new(20_000).unwrap();
    for call in calls {
        host.fail(call, 0, Errno::EIO);
        let error = build(&host.xen(), &request).unwrap_err();
        assert!(matches!(error, BuildError::Call { .. }), "{call}: {error}");
        assert!(
            error.to_string().contains("EIO") || error.to_string().contains("os error 5"),
            "{error}"
        );
        assert_eq!(host.domids(), [0], "after {call} failed");
        assert_eq!(host.free_frames(), 20_000, "after {call} failed");
    }
}

#[test]
fn a_domain_that_cannot_be_destroyed_is_named() {
    let dir = Dir::new("leftover");
    let host = FakeHost::new(20_000).unwrap();
    host.fail("mmuext_op pin_l4_table", 0, Errno::EINVAL);
    host.fail("domctl destroydomain", 0, Errno::EPERM);
    let error = build(&host.xen(), &request(&dir)).unwrap_err();
    assert!(matches!(error, BuildError::Leftover { .. }));
    assert!(
        error.to_string().contains("pinning") && error.to_string().contains("domain 1 is left"),
        "{error}"
    );
}

#[test]
fn too_little_memory_is_told_in_numbers() {
    let dir = Dir::new("memory");
    let host = FakeHost::new(48 * 256 - 1).unwrap();
    let error = build(&host.xen(), &request(&dir)).unwrap_err();
    assert!(
        matches!(
            error,
            BuildError::Memory {
                need_kib: 49152,
                free_kib: Some(49148)
            }
        ),
        "{error}"
    );
    assert_eq!(host.domids(), [0]);
    assert!(!host.calls().contains(&"memory_op populate_physmap"));
}

/// A kernel that has to be unpacked: gzip with one stored block (RFC 1951, 3.2.4, in pieces of 64 KiB).
fn packed() -> Vec<u8> {
    let elf = kernel();
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut pieces = elf.chunks(0xffff).peekable();
    while let Some(piece) = pieces.next() {
        file.push(u8::from(pieces.peek().is_none()));
        let len = piece.len() as u16;
        file.extend(len.to_le_bytes());
        file.extend((!len).to_le_bytes());
        file.extend(piece);
    }
    let crc = elf.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (crc & 1) * 0xedb8_8320));
    file.extend((!crc).to_le_bytes());
    file.extend((elf.len() as u32).to_le_bytes());
    file
}

#[test]
fn an_unpacked_kernel_is_found_again_until_the_file_changes() {
    found_again(Identity::File, "packed");
}

#[test]
fn a_copy_of_an_unpacked_kernel_is_found_again_by_its_content() {
    found_again(Identity::Content, "copy");
}

/// The kernel in the file `packed` is unpacked once for two guests, the second of which boots from the file `again`.
fn found_again(identity: Identity, again: &str) {
    let dir = Dir::new(&format!("cached-{again}"));
    let host = FakeHost::new(40_000).unwrap();
    let mut request = request(&dir);
    request.kernel = dir.file("packed", &packed());
    request.identity = identity;
    let cache = dir.0.join("cache");
    request.cache = Some(cache.clone());
    let entries = || std::fs::read_dir(&cache).map_or(0, |dir| dir.filter(|entry| entry.as_ref().unwrap().file_name() != "new").count());
    build(&host.xen(), &request).unwrap();
    let start = std::time::Instant::now();
    while entries() == 0 {
        assert!(start.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let entry = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&entry).unwrap();
    assert!(bytes[16..] == kernel());
    // A mark shows that the second guest is built from the entry.
    let at = bytes.windows(8).position(|window| window == &synth::linux_parts(100_000)[1].data[..8]).unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(&entry, &bytes).unwrap();
    if again != "packed" {
        request.kernel = dir.file(again, &packed());
    }
    let built = build(&host.xen(), &request).unwrap();
    let guest = Guest::new(&host, &built);
    assert_eq!(guest.read(0xffff_ffff_8180_0010, 1)[0], synth::linux_parts(100_000)[1].data[0] ^ 0xff);
    dir.file(again, b"something else");
    assert!(matches!(build(&host.xen(), &request), Err(BuildError::Kernel { .. })));
}

#[test]
fn bad_input_creates_no_domain() {
    let dir = Dir::new("input");
    let host = FakeHost::new(20_000).unwrap();
    let fails = |change: &dyn Fn(&mut Request)| {
        let mut request = request(&dir);
        change(&mut request);
        let error = build(&host.xen(), &request).unwrap_err().to_string();
        assert!(!host.calls().contains(&"domctl createdomain"), "{error}");
        error
    };
    let missing = Path::new("/nonexistent/vmlinuz");
    assert!(
        fails(&|request| request.kernel = missing.into())
            .contains("cannot read the kernel /nonexistent/vmlinuz")
    );
    assert!(
        fails(&|request| request.ramdisk = Some(missing.into()))
            .contains("ramdisk /nonexistent/vmlinuz")
    );
    assert!(
        fails(&|request| request.kernel = dir.file("text", b"not a kernel at all"))
            .contains("text")
    );
    assert!(fails(&|request| request.kernel = "/dev/zero".into()).contains("not a regular file"));
    assert!(fails(&|request| request.command_line = "x".repeat(1024)).contains("1024"));
    assert!(fails(&|request| request.max_memory_kib = 1).contains("maxmem"));
    assert!(
        fails(&|request| (request.memory_kib, request.max_memory_kib) = (8 * MIB, 8 * MIB))
            .contains("too little memory")
    );
}
