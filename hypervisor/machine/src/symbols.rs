//! Names of the image's functions, for backtraces: a compact sorted copy of the ELF symbol table that the loader kept.

use crate::boot::multiboot2::{ElfSections, u32_at, u64_at};
use crate::boot::ranges::Span;
use crate::layout::{IMAGE, direct};
use crate::memory::{Purpose, early_alloc_for};
use core::fmt;
use oxen_sync::OnceCell;
use oxen_types::Maddr;

const SECTION_SYMBOLS: u32 = 2;
const SYMBOL_BYTES: usize = 24;
const KIND_FUNCTION: u8 = 2;

/// Where the loader put the symbol table and its strings (ELF-64 object file format 1.5, "Sections").
pub(crate) fn find(sections: ElfSections<'_>) -> Option<(Span, Span)> {
    let entry_bytes = sections.entry_bytes.max(64);
    let place = |header: &[u8]| Some(Span::new(u64_at(header, 16)?, u64_at(header, 32)?)).filter(|span| span.start != 0);
    let symbols = sections.headers.chunks_exact(entry_bytes).find(|header| u32_at(header, 4) == Some(SECTION_SYMBOLS))?;
    let strings = sections.headers.chunks_exact(entry_bytes).nth(u32_at(symbols, 40)? as usize)?;
    Some((place(symbols)?, place(strings)?))
}

/// A function: its place in the image and its name's place in the text.
#[derive(Clone, Copy, Debug)]
struct Function {
    offset: u32,
    len: u32,
    name: u32,
    name_len: u32,
}

#[derive(Debug)]
struct Table {
    functions: &'static [Function],
    names: &'static [u8],
}

static TABLE: OnceCell<Table> = OnceCell::new();

/// The functions in a symbol table, with their mangled names.
fn functions<'a>(symbols: &'a [u8], strings: &'a [u8]) -> impl Iterator<Item = (u32, u32, &'a [u8])> {
    symbols.chunks_exact(SYMBOL_BYTES).filter_map(move |symbol| {
        let (name, value, len) = (u32_at(symbol, 0)?, u64_at(symbol, 8)?, u64_at(symbol, 16)?);
        if *symbol.get(4)? & 15 != KIND_FUNCTION {
            return None;
        }
        let offset = u32::try_from(value.checked_sub(IMAGE)?).ok()?;
        let name = strings.get(name as usize..)?;
        let end = name.iter().position(|&byte| byte == 0)?;
        Some((offset, u32::try_from(len).ok()?, &name[..end]))
    })
}

/// Copies what is needed of the symbol table.
pub(crate) fn start(symbols: &[u8], strings: &[u8]) {
    let (count, name_bytes) = functions(symbols, strings).fold((0, 0), |(count, bytes), (_, _, name)| (count + 1, bytes + name.len()));
    let table_bytes = count * size_of::<Function>();
    if count == 0 {
        return;
    }
    let frames = ((table_bytes + name_bytes) as u64).div_ceil(4096);
    let room = direct(early_alloc_for(frames, 1, Purpose::Image).maddr()) as *mut u8;
    // SAFETY: the frames were just allocated for these two arrays, and all zero is a valid value of both element types.
    let (table, names) = unsafe {
        core::ptr::write_bytes(room, 0, table_bytes + name_bytes);
        (
            core::slice::from_raw_parts_mut(room.cast::<Function>(), count),
            core::slice::from_raw_parts_mut(room.add(table_bytes), name_bytes),
        )
    };
    let mut used = 0;
    for (slot, (offset, len, name)) in table.iter_mut().zip(functions(symbols, strings)) {
        names[used..used + name.len()].copy_from_slice(name);
        *slot = Function { offset, len, name: used as u32, name_len: name.len() as u32 };
        used += name.len();
    }
    table.sort_unstable_by_key(|function| function.offset);
    let _ = TABLE.set(Table { functions: table, names });
}

/// The bytes of a loaded section.
///
/// # Safety
/// `span` is memory below 4 GiB that stays unchanged while the slice is used.
pub(crate) unsafe fn section(span: Span) -> &'static [u8] {
    // SAFETY: the boot tables and the final ones both show all RAM in the direct map.
    unsafe { core::slice::from_raw_parts(direct(Maddr(span.start)) as *const u8, span.len() as usize) }
}

/// An address, printed with the name of its function where that is known.
#[derive(Clone, Copy, Debug)]
pub struct Symbolised(pub u64);

impl fmt::Display for Symbolised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[<{:016x}>]", self.0)?;
        let Some((name, offset, len)) = lookup(self.0) else { return Ok(()) };
        write!(f, " {:#}+{offset:#x}/{len:#x}", rustc_demangle::demangle(name))
    }
}

/// Mangled name of the function at `address`, the offset in it and its length.
fn lookup(address: u64) -> Option<(&'static str, u32, u32)> {
    let table = TABLE.get()?;
    let offset = u32::try_from(address.checked_sub(IMAGE)?).ok()?;
    let after = table.functions.partition_point(|function| function.offset <= offset);
    let function = table.functions.get(after.checked_sub(1)?)?;
    // Assembly routines may have no size; anything that close still says where to look.
    if offset - function.offset > function.len.max(4096) {
        return None;
    }
    let start = function.name as usize;
    let name = table.names.get(start..start + function.name_len as usize)?;
    Some((core::str::from_utf8(name).ok()?, offset - function.offset, function.len))
}
