//! ELF64 executables. Layout: System V ABI, "Object Files"; numbers for x86-64 from its processor supplement.

use crate::bytes::{first_bytes, slice_at, u16_at, u32_at, u64_at};
use crate::error::ImageError;
use crate::info::{self, KernelInfo};
use alloc::vec::Vec;

const CLASS_64: u8 = 2;
const DATA_LITTLE_ENDIAN: u8 = 1;
const TYPE_EXEC: u16 = 2;
const TYPE_DYN: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const HEADER_LEN: usize = 64;

const PROGRAM_HEADER_LEN: u16 = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const SECTION_HEADER_LEN: u16 = 64;
const SHT_NOTE: u32 = 7;

/// A real kernel has five program headers; a file with more than this is taken for damaged.
const MAX_PROGRAM_HEADERS: u16 = 64;
const MAX_SECTION_HEADERS: u16 = 4096;

/// A part of the kernel to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Pseudo-physical address of its first byte, the note PADDR_OFFSET already taken off.
    pub paddr: u64,
    /// Where `data` lies in the file, in bytes.
    pub offset: u64,
    /// The bytes to put there.
    pub data: &'a [u8],
    /// Length in memory in bytes; what exceeds `data` is zero.
    pub mem_len: u64,
}

/// An unpacked kernel whose headers and notes have been read.
#[derive(Clone, Debug)]
pub struct Kernel<'a> {
    info: KernelInfo,
    segments: Vec<Segment<'a>>,
}

impl<'a> Kernel<'a> {
    /// Reads an ELF file. Every error of [`ImageError`] that speaks of ELF, notes, features or addresses can come of it.
    pub fn parse(elf: &'a [u8]) -> Result<Self, ImageError> {
        let headers = Headers::read(elf)?;
        let notes = headers.notes()?;
        let segments = headers.segments()?;
        let info = info::read(&notes, headers.entry, &segments)?;
        let segments = segments
            .into_iter()
            .map(|segment| Segment {
                paddr: segment.paddr.wrapping_sub(info.paddr_offset),
                ..segment
            })
            .collect();
        Ok(Self { info, segments })
    }

    /// Where the note segments of an ELF file lie, as offset and length, by the file's first bytes. A kernel whose other bytes are zero
    /// parses like the whole one if it has such segments; nothing is returned for a file that `parse` would refuse or that has none.
    #[must_use]
    pub fn note_segments(head: &[u8], file_len: u64) -> Vec<(u64, u64)> {
        let Ok(headers) = Headers::read(head) else {
            return Vec::new();
        };
        let notes: Vec<_> = headers
            .program_headers(PT_NOTE)
            .map(|header| (header.offset, header.file_len))
            .collect();
        let inside = |(offset, len): &(u64, u64)| {
            offset.checked_add(*len).is_some_and(|end| end <= file_len)
        };
        let total = notes
            .iter()
            .try_fold(0_u64, |sum, (_, len)| sum.checked_add(*len));
        // Segments that lie on top of each other must not make reading them longer than reading the file.
        if notes.iter().all(inside) && total.is_some_and(|total| total <= file_len) {
            notes
        } else {
            Vec::new()
        }
    }

    /// What the notes say.
    #[must_use]
    pub fn info(&self) -> &KernelInfo {
        &self.info
    }

    /// The parts to load, in file order.
    #[must_use]
    pub fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }
}

/// A note with the owner "Xen".
#[derive(Clone, Copy)]
pub(crate) struct Note<'a> {
    pub kind: u32,
    pub desc: &'a [u8],
}

struct Headers<'a> {
    elf: &'a [u8],
    entry: u64,
    program_headers: &'a [u8],
}

impl<'a> Headers<'a> {
    fn read(elf: &'a [u8]) -> Result<Self, ImageError> {
        if !elf.starts_with(b"\x7fELF") {
            return Err(ImageError::NotElf {
                first: first_bytes(elf),
            });
        }
        let cut = |what, need| ImageError::Truncated {
            what,
            need,
            have: elf.len() as u64,
        };
        let header_cut = cut("the ELF header", HEADER_LEN as u64);
        // The class comes first: a 32-bit file is told apart even where its shorter header is all there is.
        match *elf.get(4).ok_or(header_cut)? {
            CLASS_64 => {}
            class => return Err(ImageError::WrongClass { class }),
        }
        let header = elf.get(..HEADER_LEN).ok_or(header_cut)?;
        let half = |offset| u16_at(header, offset).ok_or(header_cut);
        let xword = |offset| u64_at(header, offset).ok_or(header_cut);
        match header.get(5) {
            Some(&DATA_LITTLE_ENDIAN) => {}
            data => {
                return Err(ImageError::WrongByteOrder {
                    data: data.copied().unwrap_or_default(),
                });
            }
        }
        match half(18)? {
            MACHINE_X86_64 => {}
            machine => return Err(ImageError::WrongMachine { machine }),
        }
        match half(16)? {
            TYPE_EXEC | TYPE_DYN => {}
            kind => return Err(ImageError::NotExecutable { kind }),
        }
        let nr_program_headers = half(56)?;
        if nr_program_headers == 0
            || nr_program_headers > MAX_PROGRAM_HEADERS
            || half(54)? != PROGRAM_HEADER_LEN
        {
            return Err(ImageError::BadElf("number or size of program headers"));
        }
        let (offset, len) = (
            xword(32)?,
            u64::from(nr_program_headers) * u64::from(PROGRAM_HEADER_LEN),
        );
        let program_headers = slice_at(elf, offset, len)
            .ok_or_else(|| cut("the ELF program headers", offset.saturating_add(len)))?;
        Ok(Self {
            elf,
            entry: xword(24)?,
            program_headers,
        })
    }

    /// The program headers of type `kind`.
    fn program_headers(&self, kind: u32) -> impl Iterator<Item = ProgramHeader> + use<'a> {
        self.program_headers
            .chunks_exact(usize::from(PROGRAM_HEADER_LEN))
            .filter_map(ProgramHeader::read)
            .filter(move |header| header.kind == kind)
    }

    fn file_range(
        &self,
        what: &'static str,
        offset: u64,
        len: u64,
    ) -> Result<&'a [u8], ImageError> {
        slice_at(self.elf, offset, len).ok_or(ImageError::Truncated {
            what,
            need: offset.saturating_add(len),
            have: self.elf.len() as u64,
        })
    }

    /// The loadable segments, at the physical addresses that the file states.
    fn segments(&self) -> Result<Vec<Segment<'a>>, ImageError> {
        let mut segments = Vec::new();
        for header in self
            .program_headers(PT_LOAD)
            .filter(|header| header.mem_len != 0)
        {
            if header.file_len > header.mem_len {
                return Err(ImageError::BadElf(
                    "a segment is longer in the file than in memory",
                ));
            }
            let data = self.file_range("an ELF segment", header.offset, header.file_len)?;
            segments.push(Segment {
                paddr: header.paddr,
                offset: header.offset,
                data,
                mem_len: header.mem_len,
            });
        }
        if segments.is_empty() {
            return Err(ImageError::BadElf("nothing to load"));
        }
        Ok(segments)
    }

    /// All notes with the owner "Xen": those of the program headers, or where there are none, those of the section headers.
    fn notes(&self) -> Result<Vec<Note<'a>>, ImageError> {
        let mut notes = Vec::new();
        for header in self.program_headers(PT_NOTE) {
            read_notes(
                self.file_range("an ELF note segment", header.offset, header.file_len)?,
                &mut notes,
            )?;
        }
        if notes.is_empty() {
            for section in self.note_sections() {
                read_notes(section, &mut notes)?;
            }
        }
        if notes.is_empty() {
            Err(ImageError::NoXenNotes)
        } else {
            Ok(notes)
        }
    }

    /// The contents of the note sections. Section headers are not needed to load a kernel, so damaged ones count as absent.
    fn note_sections(&self) -> Vec<&'a [u8]> {
        let table = || {
            let offset = u64_at(self.elf, 40)?;
            let nr = u16_at(self.elf, 60)?.min(MAX_SECTION_HEADERS);
            if u16_at(self.elf, 58)? != SECTION_HEADER_LEN {
                return None;
            }
            slice_at(
                self.elf,
                offset,
                u64::from(nr) * u64::from(SECTION_HEADER_LEN),
            )
        };
        table()
            .unwrap_or_default()
            .chunks_exact(usize::from(SECTION_HEADER_LEN))
            .filter(|section| u32_at(section, 4) == Some(SHT_NOTE))
            .filter_map(|section| slice_at(self.elf, u64_at(section, 24)?, u64_at(section, 32)?))
            .collect()
    }
}

struct ProgramHeader {
    kind: u32,
    offset: u64,
    paddr: u64,
    file_len: u64,
    mem_len: u64,
}

impl ProgramHeader {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            offset: u64_at(bytes, 8)?,
            paddr: u64_at(bytes, 24)?,
            file_len: u64_at(bytes, 32)?,
            mem_len: u64_at(bytes, 40)?,
        })
    }
}

/// Appends the Xen notes among `bytes`. Name and description are each padded to four bytes.
fn read_notes<'a>(mut bytes: &'a [u8], notes: &mut Vec<Note<'a>>) -> Result<(), ImageError> {
    const NOTE_HEADER_LEN: u64 = 12;
    while !bytes.is_empty() {
        let note = || {
            let name_len = u64::from(u32_at(bytes, 0)?);
            let desc_len = u64::from(u32_at(bytes, 4)?);
            let kind = u32_at(bytes, 8)?;
            let name = slice_at(bytes, NOTE_HEADER_LEN, name_len)?;
            let desc_at = NOTE_HEADER_LEN + name_len.next_multiple_of(4);
            let desc = slice_at(bytes, desc_at, desc_len)?;
            // The last note of a segment may lack its padding.
            let next_at = (desc_at + desc_len.next_multiple_of(4)).min(bytes.len() as u64);
            Some((
                name,
                Note { kind, desc },
                bytes.get(usize::try_from(next_at).ok()?..)?,
            ))
        };
        let (name, note, rest) =
            note().ok_or(ImageError::BadElf("a note reaches beyond its segment"))?;
        if name == b"Xen\0" {
            notes.push(note);
        }
        bytes = rest;
    }
    Ok(())
}
