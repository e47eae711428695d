use super::*;
use oxen_abi::arch_x86_64::VcpuGuestContext;
use oxen_xenctl::NewDomain;
use oxen_xenctl::fake::FakeHost;
use std::process::Command;

const DOMID: u16 = 3;
/// The offset of x86's part in the shared information page, whose parts are words.
const ARCH: usize = std::mem::offset_of!(SharedInfo, arch);

/// A guest with a linear table of `extra` besides its own pages.
struct World {
    host: FakeHost,
    xen: Xen,
    pages: Vec<u64>,
    directory: tempfile::TempDir,
}

fn put(host: &FakeHost, frame: u64, offset: usize, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    host.memory(&[frame]).unwrap().write(offset, &bytes).unwrap();
}

/// A guest with three pages, with the words 1 to 3 in them, whose table has the entries that `entries` makes of their frames.
fn world(entries: impl FnOnce(&[u64]) -> Vec<u64>) -> World {
    let host = FakeHost::new(1000).unwrap();
    let xen = host.xen();
    host.add_domain(DOMID);
    let pages: Vec<u64> = (0..3).map(|_| host.add_frame(DOMID)).collect();
    for (page, word) in pages.iter().zip(1..) {
        put(&host, *page, 0, &[word]);
    }
    let [l4, l3, l2, l1, table] = [(); 5].map(|()| host.add_frame(DOMID));
    let entry = |frame: u64| frame << 12 | 1;
    // The table is at 2 MiB: indices 0, 0, 1, 0.
    put(&host, l4, 0, &[entry(l3)]);
    put(&host, l3, 0, &[entry(l2)]);
    put(&host, l2, 8, &[entry(l1)]);
    put(&host, l1, 0, &[entry(table)]);
    let entries = entries(&pages);
    put(&host, table, 0, &entries);
    let shared = host.domain(DOMID).unwrap().shared_info;
    put(&host, shared, ARCH, &[entries.len() as u64, u64::MAX, 0, l4 << 12, 2 << 20]);
    World { host, xen, pages, directory: tempfile::tempdir().unwrap() }
}

impl World {
    fn path(&self) -> PathBuf {
        self.directory.path().join("core")
    }

    fn dump(&self) -> Result<Vec<u8>, DumpError> {
        let mut last = (0, 0);
        let bytes = dump(&self.xen, DOMID, &self.path(), &mut |done, total| last = (done, total))?;
        let file = fs::read(self.path()).unwrap();
        assert_eq!(bytes, file.len() as u64);
        assert!(last.0 > 0 && last.0 <= last.1);
        Ok(file)
    }

    fn files(&self) -> usize {
        fs::read_dir(self.directory.path()).unwrap().count()
    }
}

/// Offset and length of a section.
fn section(file: &[u8], name: &str) -> (usize, usize) {
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().unwrap()) as usize;
    let (table, count) = (word(40), half(60));
    let names = word(table + 64 + 24);
    for at in (0..count).map(|index| table + 64 * index) {
        let from = names + u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        if file[from..].starts_with(format!("{name}\0").as_bytes()) {
            return (word(at + 24), word(at + 32));
        }
    }
    panic!("no section {name}");
}

fn words(file: &[u8], name: &str) -> Vec<u64> {
    let (offset, len) = section(file, name);
    file[offset..offset + len].chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

#[test]
fn pages_are_listed_and_written() {
    let world = world(<[u64]>::to_vec);
    let file = world.dump().unwrap();
    let listed = words(&file, ".xen_p2m");
    let expected: Vec<u64> = (0..).zip(&world.pages).flat_map(|(pfn, mfn)| [pfn, *mfn]).collect();
    assert_eq!(listed, expected);
    let contents: Vec<u64> = words(&file, ".xen_pages").into_iter().step_by(512).collect();
    assert_eq!(contents, [1, 2, 3]);
    assert_eq!(section(&file, ".xen_shared_info").1, 4096);
    assert_eq!(world.files(), 1);
}

#[test]
fn standard_tools_read_it() {
    let world = world(<[u64]>::to_vec);
    world.dump().unwrap();
    let Ok(out) = Command::new("readelf").args(["-h", "-S", "-W"]).arg(world.path()).output() else {
        eprintln!("readelf is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("CORE (Core file)") && text.contains(".xen_pages"), "{text}");
}

#[test]
fn what_a_guest_lies_about_is_left_out() {
    let foreign = 0x1000;
    // A page twice, no page, Linux's mark of a foreign page, a frame that is not the guest's.
    let world = world(|pages| vec![pages[0], pages[0], u64::MAX, pages[1] | 1 << 62, foreign, pages[2]]);
    assert!(!world.pages.contains(&foreign));
    let file = world.dump().unwrap();
    assert_eq!(words(&file, ".xen_p2m"), [0, world.pages[0], 5, world.pages[2]]);
    assert_eq!(section(&file, ".xen_pages").1, 2 * 4096);
}

#[test]
fn a_guest_that_has_not_started_is_told_and_leaves_no_file() {
    let world = world(<[u64]>::to_vec);
    let shared = world.host.domain(DOMID).unwrap().shared_info;
    for arch in [[0; 5], [u64::MAX, 0, 0, 1 << 12, 0], [3, 0, 0, 0, 0], [3, 0, 0, 1 << 12, 0]] {
        put(&world.host, shared, ARCH, &arch);
        assert!(matches!(world.dump(), Err(DumpError::NoPages { .. })), "{arch:?}");
    }
    assert_eq!(world.files(), 0);
}

#[test]
fn the_old_tree_is_understood() {
    let world = world(<[u64]>::to_vec);
    let [top, middle, list] = [(); 3].map(|()| world.host.add_frame(DOMID));
    put(&world.host, top, 0, &[middle]);
    put(&world.host, middle, 0, &[list]);
    put(&world.host, list, 0, &world.pages);
    let shared = world.host.domain(DOMID).unwrap().shared_info;
    put(&world.host, shared, ARCH, &[3, top, 0, 0, 0]);
    let contents: Vec<u64> = words(&world.dump().unwrap(), ".xen_pages").into_iter().step_by(512).collect();
    assert_eq!(contents, [1, 2, 3]);
}

#[test]
fn a_missing_directory_and_a_missing_domain_are_named() {
    let world = world(<[u64]>::to_vec);
    let path = world.directory.path().join("none/core");
    let error = dump(&world.xen, DOMID, &path, &mut |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    let error = dump(&world.xen, 9, &world.path(), &mut |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("domain 9"), "{error}");
    assert_eq!(world.files(), 0);
}

#[test]
fn registers_are_in_it() {
    let world = world(<[u64]>::to_vec);
    let mut context = VcpuGuestContext::default();
    context.user_regs.rip = 0x1234;
    let xen = &world.xen;
    let domid = xen.create_domain(&NewDomain { nr_vcpus: 1, ..NewDomain::default() }).unwrap();
    xen.set_max_vcpus(domid, 1).unwrap();
    xen.set_vcpu_context(domid, 0, &context).unwrap();
    let guest = Guest::look(xen, domid).unwrap();
    assert_eq!((guest.nr_vcpus, guest.contexts.len()), (1, 5168));
    assert_eq!(VcpuGuestContext::read_from_bytes(&guest.contexts).unwrap().user_regs.rip, 0x1234);
}
