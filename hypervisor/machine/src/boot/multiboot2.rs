//! The boot information that the loader left: Multiboot2 specification 2.0, section "Boot information format".
//!
//! The bytes come from the loader, which is trusted to mean well but not to be free of errors: every length is checked, a tag that does not fit is left out.

use oxen_hal::{MemoryKind, MemoryRange};
use oxen_types::Maddr;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_LOADER_NAME: u32 = 2;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_FRAMEBUFFER: u32 = 8;
const TAG_ELF_SECTIONS: u32 = 9;
const TAG_EFI64_SYSTEM_TABLE: u32 = 12;
const TAG_RSDP_V1: u32 = 14;
const TAG_RSDP_V2: u32 = 15;
const TAG_EFI_MEMORY_MAP: u32 = 17;

/// Reads a little-endian 32-bit word.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

/// Reads a little-endian 64-bit word.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// Text up to the first zero byte; up to the first byte that is not UTF-8 where the loader passed such.
fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let bytes = &bytes[..end];
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// One tag: its type and what follows type and size.
#[derive(Clone, Copy, Debug)]
struct Tag<'a> {
    kind: u32,
    body: &'a [u8],
}

/// The boot information, `bytes` from its first byte to its last.
#[derive(Clone, Copy, Debug)]
pub struct BootInformation<'a> {
    bytes: &'a [u8],
}

/// A module as the loader describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedModule<'a> {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// The words after the file name in the loader's configuration.
    pub command_line: &'a str,
}

/// The screen that the loader left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Characters and attributes: address, columns, rows.
    Text {
        /// Machine address of the first cell.
        address: u64,
        /// Bytes from one row to the next.
        pitch: u32,
        /// Columns.
        columns: u32,
        /// Rows.
        rows: u32,
    },
    /// Pixels.
    Pixels(PixelScreen),
}

/// A linear framebuffer with direct colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PixelScreen {
    /// Machine address of the first pixel.
    pub address: u64,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits of a pixel.
    pub bits_per_pixel: u8,
    /// Position and size in bits of the red field.
    pub red: (u8, u8),
    /// Position and size in bits of the green field.
    pub green: (u8, u8),
    /// Position and size in bits of the blue field.
    pub blue: (u8, u8),
}

/// The image's ELF section headers, which the loader kept with the sections it loaded.
#[derive(Clone, Copy, Debug)]
pub struct ElfSections<'a> {
    /// The table's bytes.
    pub headers: &'a [u8],
    /// Bytes of one header.
    pub entry_bytes: usize,
}

impl<'a> BootInformation<'a> {
    /// Bytes of the whole structure, from its first eight.
    #[must_use]
    pub fn total_bytes(head: &[u8]) -> Option<u32> {
        u32_at(head, 0)
    }

    /// Wraps the structure's bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn tags(self) -> impl Iterator<Item = Tag<'a>> {
        let mut at = 8;
        core::iter::from_fn(move || {
            let kind = u32_at(self.bytes, at)?;
            let size = u32_at(self.bytes, at + 4)? as usize;
            if kind == TAG_END {
                return None;
            }
            let body = self.bytes.get(at + 8..at.checked_add(size)?)?;
            at = at.checked_add(size.next_multiple_of(8))?;
            Some(Tag { kind, body })
        })
    }

    fn first(self, kind: u32) -> Option<&'a [u8]> {
        self.tags().find(|tag| tag.kind == kind).map(|tag| tag.body)
    }

    /// The hypervisor's command line, without the file name.
    #[must_use]
    pub fn command_line(self) -> &'a str {
        self.first(TAG_COMMAND_LINE).map_or("", text)
    }

    /// The loader's name.
    #[must_use]
    pub fn loader_name(self) -> &'a str {
        self.first(TAG_LOADER_NAME).map_or("unknown loader", text)
    }

    /// The modules, in the order of the loader's configuration.
    pub fn modules(self) -> impl Iterator<Item = LoadedModule<'a>> {
        self.tags().filter(|tag| tag.kind == TAG_MODULE).filter_map(|tag| {
            let (start, end) = (u32_at(tag.body, 0)?, u32_at(tag.body, 4)?);
            Some(LoadedModule { start, end: end.max(start), command_line: text(tag.body.get(8..)?) })
        })
    }

    /// True where the machine started through UEFI.
    #[must_use]
    pub fn is_efi(self) -> bool {
        self.tags().any(|tag| matches!(tag.kind, TAG_EFI64_SYSTEM_TABLE | TAG_EFI_MEMORY_MAP))
    }

    /// Machine address of the EFI system table.
    #[must_use]
    pub fn efi_system_table(self) -> Option<u64> {
        u64_at(self.first(TAG_EFI64_SYSTEM_TABLE)?, 0)
    }

    /// The loader's copy of the ACPI root pointer; the newer form where both are there.
    #[must_use]
    pub fn rsdp(self) -> Option<&'a [u8]> {
        self.first(TAG_RSDP_V2).or_else(|| self.first(TAG_RSDP_V1))
    }

    /// The firmware's memory map as it stands there, unsorted. The loader's E820 form where there is one (on UEFI GRUB derives it), otherwise
    /// the EFI map itself.
    pub fn memory_map(self) -> impl Iterator<Item = MemoryRange> {
        let e820 = self.first(TAG_MEMORY_MAP);
        let efi = if e820.is_some() { None } else { self.first(TAG_EFI_MEMORY_MAP) };
        e820.into_iter().flat_map(e820_ranges).chain(efi.into_iter().flat_map(efi_ranges))
    }

    /// The screen.
    #[must_use]
    pub fn screen(self) -> Option<Screen> {
        let body = self.first(TAG_FRAMEBUFFER)?;
        let address = u64_at(body, 0)?;
        let (pitch, width, height) = (u32_at(body, 8)?, u32_at(body, 12)?, u32_at(body, 16)?);
        let bits_per_pixel = *body.get(20)?;
        match *body.get(21)? {
            1 => {
                let field = |at: usize| Some((*body.get(at)?, *body.get(at + 1)?));
                Some(Screen::Pixels(PixelScreen {
                    address,
                    pitch,
                    width,
                    height,
                    bits_per_pixel,
                    red: field(24)?,
                    green: field(26)?,
                    blue: field(28)?,
                }))
            }
            2 => Some(Screen::Text { address, pitch, columns: width, rows: height }),
            _ => None,
        }
    }

    /// The section headers of the image.
    #[must_use]
    pub fn elf_sections(self) -> Option<ElfSections<'a>> {
        let body = self.first(TAG_ELF_SECTIONS)?;
        let entry_bytes = u32_at(body, 4)? as usize;
        Some(ElfSections { headers: body.get(12..)?, entry_bytes })
    }
}

/// Entries of the E820 tag: base, length, type, reserved.
fn e820_ranges(body: &[u8]) -> impl Iterator<Item = MemoryRange> {
    let entry_bytes = u32_at(body, 0).map_or(24, |bytes| bytes.max(24)) as usize;
    body.get(8..).unwrap_or(&[]).chunks_exact(entry_bytes).filter_map(|entry| {
        let (base, len, kind) = (u64_at(entry, 0)?, u64_at(entry, 8)?, u32_at(entry, 16)?);
        Some(MemoryRange { start: Maddr(base), end: Maddr(base.saturating_add(len)), kind: MemoryKind::from_e820(kind) })
    })
}

/// Entries of the EFI memory map (UEFI specification 2.10, section 7.2, "EFI_MEMORY_DESCRIPTOR"), by what may be done with them after ExitBootServices.
fn efi_ranges(body: &[u8]) -> impl Iterator<Item = MemoryRange> {
    let entry_bytes = u32_at(body, 0).map_or(40, |bytes| bytes.max(40)) as usize;
    body.get(8..).unwrap_or(&[]).chunks_exact(entry_bytes).filter_map(|entry| {
        let (kind, start, pages) = (u32_at(entry, 0)?, u64_at(entry, 8)?, u64_at(entry, 24)?);
        let kind = match kind {
            // Loader code and data, boot services code and data, conventional memory.
            1..=4 | 7 => MemoryKind::Ram,
            8 => MemoryKind::Unusable,
            9 => MemoryKind::AcpiTables,
            10 => MemoryKind::AcpiNvs,
            _ => MemoryKind::Reserved,
        };
        Some(MemoryRange { start: Maddr(start), end: Maddr(start.saturating_add(pages.saturating_mul(4096))), kind })
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn info(tags: &[(u32, &[u8])]) -> Vec<u8> {
        let mut bytes = std::vec![0; 8];
        for (kind, body) in tags.iter().chain(&[(0, &[][..])]) {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((body.len() as u32 + 8).to_le_bytes());
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    #[test]
    fn text_and_modules() {
        let mut module = Vec::new();
        module.extend(0x10_0000_u32.to_le_bytes());
        module.extend(0x10_1234_u32.to_le_bytes());
        module.extend(b"root=/dev/sda1\0");
        let bytes = info(&[(1, b"com1=115200\0"), (2, b"GRUB\xff\0"), (3, &module), (3, &[1, 2])]);
        let info = BootInformation::new(&bytes);
        assert_eq!(info.command_line(), "com1=115200");
        assert_eq!(info.loader_name(), "GRUB");
        let modules: Vec<_> = info.modules().collect();
        assert_eq!(modules, [LoadedModule { start: 0x10_0000, end: 0x10_1234, command_line: "root=/dev/sda1" }]);
        assert!(!info.is_efi() && info.screen().is_none() && info.rsdp().is_none());
    }

    #[test]
    fn e820_map() {
        let mut map = Vec::new();
        map.extend(24_u32.to_le_bytes());
        map.extend(0_u32.to_le_bytes());
        for (base, len, kind) in [(0_u64, 0x9fc00_u64, 1_u32), (0x9fc00, 0x400, 2), (u64::MAX - 1, 100, 99)] {
            map.extend(base.to_le_bytes());
            map.extend(len.to_le_bytes());
            map.extend(kind.to_le_bytes());
            map.extend(0_u32.to_le_bytes());
        }
        let bytes = info(&[(6, &map)]);
        let ranges: Vec<_> = BootInformation::new(&bytes).memory_map().collect();
        assert_eq!(ranges.len(), 3);
        assert_eq!(ranges[0], MemoryRange { start: Maddr(0), end: Maddr(0x9fc00), kind: MemoryKind::Ram });
        assert_eq!(ranges[2], MemoryRange { start: Maddr(u64::MAX - 1), end: Maddr(u64::MAX), kind: MemoryKind::Other(99) });
    }

    #[test]
    fn damaged_tags_end_the_list() {
        let mut bytes = info(&[(1, b"abc\0"), (2, b"loader\0")]);
        for cut in 0..bytes.len() {
            let short = BootInformation::new(&bytes[..cut]);
            let _ = (short.command_line(), short.loader_name(), short.modules().count(), short.memory_map().count(), short.screen());
        }
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(BootInformation::new(&bytes).command_line(), "");
        bytes[12..16].copy_from_slice(&0_u32.to_le_bytes());
        assert_eq!(BootInformation::new(&bytes).command_line(), "");
    }
}
