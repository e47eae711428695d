//! The file's format: ELF with sections as Xen's documentation of core dumps names them.

use oxen_xenctl::VersionInfo;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Where the first section's contents begin; before it are the ELF header, the sections' names and their headers.
pub const HEADERS: u64 = PAGE;
/// Section types (System V ABI, "Sections").
pub const DATA: u32 = 1;
pub const NOTE: u32 = 7;
const STRINGS: u32 = 3;

/// Bytes of the ELF header and of a section header.
const HEADER_LEN: usize = 64;
const SECTION_LEN: usize = 64;
/// `ET_CORE`, `EM_X86_64`.
const CORE: u16 = 4;
const X86_64: u16 = 62;
/// Types of Xen's notes in core dumps.
const NOTE_NONE: u32 = 0x0200_0000;
const NOTE_HEADER: u32 = 0x0200_0001;
const NOTE_VERSION: u32 = 0x0200_0002;
const NOTE_FORMAT: u32 = 0x0200_0003;
/// Marks a PV guest's dump (`XC_CORE_MAGIC`).
const MAGIC: u64 = 0xf00f_ebed;
/// Version 0.1 of the format, as high and low half.
const FORMAT: u64 = 1;
/// Lengths of the texts in the note of versions, as in the public header `version.h`.
const EXTRA: usize = 16;
const COMPILER: usize = 64;
const COMPILED_BY: usize = 16;
const COMPILE_DOMAIN: usize = 32;
const COMPILE_DATE: usize = 32;
const CAPABILITIES: usize = 1024;
const CHANGESET: usize = 64;

/// A section.
#[derive(Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: u32,
    /// Where it lies in the file.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// Bytes of one of its entries; 0 when it has none.
    pub entry: u64,
}

/// ELF header, section names and section headers: everything before [`HEADERS`].
pub fn headers(sections: &[Section]) -> Vec<u8> {
    const NAMES: &str = ".shstrtab";
    let mut names = b"\0".to_vec();
    let mut name = |text: &str| {
        let at = names.len() as u32;
        names.extend_from_slice(text.as_bytes());
        names.push(0);
        at
    };
    let own = name(NAMES);
    let listed: Vec<(u32, &Section)> = sections.iter().map(|section| (name(section.name), section)).collect();
    let table = (HEADER_LEN + names.len()).next_multiple_of(8);
    let mut out = Vec::with_capacity(HEADERS as usize);
    // Class 64, little-endian, version 1, no particular system.
    out.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.extend(CORE.to_le_bytes());
    out.extend(X86_64.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    // Entry point, program headers: none.
    out.extend([0_u64; 2].iter().flat_map(|word| word.to_le_bytes()));
    out.extend((table as u64).to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    let counts = [HEADER_LEN as u16, 0, 0, SECTION_LEN as u16, sections.len() as u16 + 2, 1];
    out.extend(counts.iter().flat_map(|half| half.to_le_bytes()));
    out.extend_from_slice(&names);
    out.resize(table + SECTION_LEN, 0);
    let mut header = |name: u32, kind: u32, offset: u64, len: u64, entry: u64| {
        out.extend([name, kind].iter().flat_map(|word| word.to_le_bytes()));
        // Flags and address; offset and size; link and info; alignment; entry size.
        out.extend([0, 0, offset, len, 0, 8, entry].iter().flat_map(|word| word.to_le_bytes()));
    };
    header(own, STRINGS, HEADER_LEN as u64, names.len() as u64, 0);
    for (name, section) in listed {
        header(name, section.kind, section.offset, section.len, section.entry);
    }
    out
}

/// The notes. The one of versions is left out when the hypervisor does not tell.
pub fn notes(nr_vcpus: u64, nr_pages: u64, version: Option<&VersionInfo>) -> Vec<u8> {
    let mut out = Vec::new();
    note(&mut out, NOTE_NONE, &[]);
    let header: Vec<u8> = [MAGIC, nr_vcpus, nr_pages, PAGE].into_iter().flat_map(u64::to_le_bytes).collect();
    note(&mut out, NOTE_HEADER, &header);
    if let Some(version) = version {
        note(&mut out, NOTE_VERSION, &versions(version));
    }
    note(&mut out, NOTE_FORMAT, &FORMAT.to_le_bytes());
    out
}

fn versions(version: &VersionInfo) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend([version.major, version.minor].iter().flat_map(|part| u64::from(*part).to_le_bytes()));
    let texts = [
        (&version.extra, EXTRA),
        (&version.compiled.compiler, COMPILER),
        (&version.compiled.by, COMPILED_BY),
        (&version.compiled.domain, COMPILE_DOMAIN),
        (&version.compiled.date, COMPILE_DATE),
        (&version.capabilities, CAPABILITIES),
        (&version.changeset, CHANGESET),
    ];
    for (text, len) in texts {
        // The last byte stays zero.
        let mut field = vec![0; len];
        field.iter_mut().zip(text.bytes().take(len - 1)).for_each(|(to, from)| *to = from);
        out.extend(field);
    }
    out.extend(version.virt_start.to_le_bytes());
    out.extend(u64::from(version.page_size).to_le_bytes());
    out
}

/// A note: lengths of name and contents, type, name and contents, each padded to 4 bytes.
fn note(out: &mut Vec<u8>, kind: u32, contents: &[u8]) {
    const NAME: &[u8; 4] = b"Xen\0";
    out.extend([NAME.len() as u32, contents.len() as u32, kind].iter().flat_map(|word| word.to_le_bytes()));
    out.extend_from_slice(NAME);
    out.extend_from_slice(contents);
    out.resize(out.len().next_multiple_of(4), 0);
}
