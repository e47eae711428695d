//! What a kernel's Xen notes say. Public header `elfnote.h`; how the values are read follows what existing kernels rely on.

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::elf::{Note, Segment};
use crate::error::ImageError;
use alloc::string::String;
use oxen_abi::elfnote::ElfNote;
use oxen_abi::features;

/// Features by bit number (`XENFEAT_*`, public header `features.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// What the kernel can use.
    pub supported: u32,
    /// What the kernel cannot do without; always a part of `supported`.
    pub required: u32,
}

impl Features {
    /// Whether the kernel can use the feature of this bit number.
    #[must_use]
    pub fn supports(&self, bit: u32) -> bool {
        self.supported
            .checked_shr(bit)
            .is_some_and(|bits| bits & 1 != 0)
    }

    /// Whether the kernel requires the feature of this bit number.
    #[must_use]
    pub fn requires(&self, bit: u32) -> bool {
        self.required
            .checked_shr(bit)
            .is_some_and(|bits| bits & 1 != 0)
    }
}

/// How the kernel marks an L1 entry that is not present but still names a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L1MfnValid {
    /// Bits to look at.
    pub mask: u64,
    /// What they hold when the entry names a frame.
    pub value: u64,
}

/// What a kernel says of itself and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Virtual address of the entry point.
    pub entry: u64,
    /// Virtual address of pseudo-physical address 0.
    pub virt_base: u64,
    /// What the file's physical addresses count from.
    pub paddr_offset: u64,
    /// Virtual address of the first loaded byte.
    pub virt_start: u64,
    /// Virtual address past the last loaded byte.
    pub virt_end: u64,
    /// Virtual address of the page to fill with hypercall stubs.
    pub hypercall_page: Option<u64>,
    /// Lowest address at which the hypervisor's range may start.
    pub hv_start_low: Option<u64>,
    /// Virtual address at which the kernel wants its initial p2m, instead of after the kernel.
    pub init_p2m: Option<u64>,
    /// The kernel takes its initial RAM disk by PFN and needs no mapping of it.
    pub mod_start_pfn: bool,
    /// The kernel claims to be a PAE kernel; selects the trailing `p` of domain 0's magic.
    pub pae: bool,
    /// Features, from the text note and the bit note together.
    pub features: Features,
    /// The kernel understands that a suspend can be cancelled.
    pub suspend_cancel: bool,
    /// How it marks unused L1 entries that keep their frame.
    pub l1_mfn_valid: Option<L1MfnValid>,
    /// Physical address of the PVH entry point.
    pub phys32_entry: Option<u32>,
    /// Name of the guest, for instance "linux".
    pub guest_os: String,
    /// Version of the guest.
    pub guest_version: String,
}

impl KernelInfo {
    /// Length in bytes of what is loaded, from the first to the last byte.
    #[must_use]
    pub fn loaded_len(&self) -> u64 {
        self.virt_end.saturating_sub(self.virt_start)
    }

    /// Pseudo-physical address of a virtual address inside the kernel.
    #[must_use]
    pub fn paddr(&self, va: u64) -> u64 {
        va.wrapping_sub(self.virt_base)
    }
}

/// Notes as they are collected, before they are judged together.
#[derive(Default)]
struct Collected<'a> {
    entry: Option<u64>,
    virt_base: Option<u64>,
    paddr_offset: Option<u64>,
    hypercall_page: Option<u64>,
    hv_start_low: Option<u64>,
    init_p2m: Option<u64>,
    phys32_entry: Option<u64>,
    xen_version: Option<&'a [u8]>,
    loader: &'a [u8],
    guest_os: &'a [u8],
    guest_version: &'a [u8],
    mod_start_pfn: bool,
    pae: bool,
    features: Features,
    suspend_cancel: bool,
    l1_mfn_valid: Option<L1MfnValid>,
}

impl<'a> Collected<'a> {
    fn take(&mut self, note: Note<'a>) -> Result<(), ImageError> {
        let text = until_zero(note.desc);
        match ElfNote(note.kind) {
            ElfNote::ENTRY => self.entry = Some(number(note.desc)?),
            ElfNote::VIRT_BASE => self.virt_base = Some(number(note.desc)?),
            ElfNote::PADDR_OFFSET => self.paddr_offset = Some(number(note.desc)?),
            ElfNote::HYPERCALL_PAGE => self.hypercall_page = Some(number(note.desc)?),
            ElfNote::HV_START_LOW => self.hv_start_low = Some(number(note.desc)?),
            ElfNote::INIT_P2M => self.init_p2m = Some(number(note.desc)?),
            ElfNote::PHYS32_ENTRY => self.phys32_entry = Some(number(note.desc)?),
            ElfNote::XEN_VERSION => self.xen_version = Some(text),
            ElfNote::LOADER => self.loader = text,
            ElfNote::GUEST_OS => self.guest_os = text,
            ElfNote::GUEST_VERSION => self.guest_version = text,
            ElfNote::MOD_START_PFN => self.mod_start_pfn = number(note.desc)? != 0,
            ElfNote::SUSPEND_CANCEL => self.suspend_cancel = number(note.desc)? != 0,
            ElfNote::PAE_MODE => self.pae = text.starts_with(b"yes") || text == b"bimodal",
            ElfNote::FEATURES => add_features(text, &mut self.features)?,
            ElfNote::SUPPORTED_FEATURES => self.features.supported |= number(note.desc)? as u32,
            ElfNote::L1_MFN_VALID => self.l1_mfn_valid = mask_and_value(note.desc),
            _ => {}
        }
        Ok(())
    }
}

/// Judges the notes of a kernel with entry point `elf_entry` and the given segments.
pub(crate) fn read(
    notes: &[Note<'_>],
    elf_entry: u64,
    segments: &[Segment<'_>],
) -> Result<KernelInfo, ImageError> {
    let mut collected = Collected::default();
    for note in notes {
        collected.take(*note)?;
    }
    let notes = collected;

    // Kernels built for PVH alone carry the one note that PVH needs.
    if notes.phys32_entry.is_some() && notes.entry.is_none() && notes.xen_version.is_none() {
        return Err(ImageError::NoPvEntry);
    }
    if !notes.loader.starts_with(b"generic") && !notes.guest_os.starts_with(b"linux") {
        return Err(ImageError::WrongLoader);
    }
    let version = notes.xen_version.unwrap_or_default();
    if !version.starts_with(b"xen-3.0") {
        return Err(ImageError::WrongInterface {
            version: cut_to(version),
        });
    }
    if notes.paddr_offset.is_some() && notes.virt_base.is_none() {
        return Err(ImageError::BadElf("note PADDR_OFFSET without VIRT_BASE"));
    }

    let virt_base = notes.virt_base.unwrap_or(0);
    let paddr_offset = notes.paddr_offset.unwrap_or(0);
    let (virt_start, virt_end) = loaded_range(segments, paddr_offset, virt_base)?;
    let entry = notes.entry.unwrap_or(elf_entry);
    let inside = |va: u64| (virt_start..virt_end).contains(&va);
    if !inside(entry) {
        return Err(ImageError::BadAddress {
            what: "the entry point",
            va: entry,
        });
    }
    if let Some(va) = notes.hypercall_page
        && !(va % 4096 == 0 && inside(va) && inside(va.saturating_add(4095)))
    {
        return Err(ImageError::BadAddress {
            what: "the hypercall page",
            va,
        });
    }
    if let Some(va) = notes.init_p2m
        && (va % 4096 != 0 || inside(va))
    {
        return Err(ImageError::BadAddress {
            what: "the initial p2m",
            va,
        });
    }
    Ok(KernelInfo {
        entry,
        virt_base,
        paddr_offset,
        virt_start,
        virt_end,
        hypercall_page: notes.hypercall_page,
        hv_start_low: notes.hv_start_low,
        init_p2m: notes.init_p2m,
        mod_start_pfn: notes.mod_start_pfn,
        pae: notes.pae,
        features: notes.features,
        suspend_cancel: notes.suspend_cancel,
        l1_mfn_valid: notes.l1_mfn_valid,
        phys32_entry: notes
            .phys32_entry
            .and_then(|paddr| u32::try_from(paddr).ok()),
        guest_os: printable(notes.guest_os),
        guest_version: printable(notes.guest_version),
    })
}

/// Virtual addresses of the first loaded byte and past the last one.
fn loaded_range(
    segments: &[Segment<'_>],
    paddr_offset: u64,
    virt_base: u64,
) -> Result<(u64, u64), ImageError> {
    const RANGE: ImageError = ImageError::BadElf("a segment lies outside the address space");
    let (mut start, mut end) = (u64::MAX, 0);
    for segment in segments {
        let first = segment.paddr.checked_sub(paddr_offset).ok_or(RANGE)?;
        start = start.min(first);
        end = end.max(first.checked_add(segment.mem_len).ok_or(RANGE)?);
    }
    Ok((
        virt_base.checked_add(start).ok_or(RANGE)?,
        virt_base.checked_add(end).ok_or(RANGE)?,
    ))
}

/// A number of 1, 2, 4 or 8 bytes.
fn number(desc: &[u8]) -> Result<u64, ImageError> {
    let value = match desc.len() {
        1 => desc.first().map(|byte| u64::from(*byte)),
        2 => u16_at(desc, 0).map(u64::from),
        4 => u32_at(desc, 0).map(u64::from),
        8 => u64_at(desc, 0),
        _ => None,
    };
    value.ok_or(ImageError::BadElf("a numeric Xen note of odd length"))
}

/// A pair of numbers of equal length. Kernels may state several pairs; the first is the one in use.
fn mask_and_value(desc: &[u8]) -> Option<L1MfnValid> {
    let unit = match desc.len() {
        8 => 4,
        len if len >= 16 => 8,
        _ => return None,
    };
    Some(L1MfnValid {
        mask: number(desc.get(..unit)?).ok()?,
        value: number(desc.get(unit..2 * unit)?).ok()?,
    })
}

/// The features that the text note can name.
const FEATURE_NAMES: &[(&[u8], u32)] = &[
    (
        b"writable_page_tables",
        features::XENFEAT_WRITABLE_PAGE_TABLES,
    ),
    (
        b"writable_descriptor_tables",
        features::XENFEAT_WRITABLE_DESCRIPTOR_TABLES,
    ),
    (
        b"auto_translated_physmap",
        features::XENFEAT_AUTO_TRANSLATED_PHYSMAP,
    ),
    (
        b"supervisor_mode_kernel",
        features::XENFEAT_SUPERVISOR_MODE_KERNEL,
    ),
    (
        b"pae_pgdir_above_4gb",
        features::XENFEAT_PAE_PGDIR_ABOVE_4GB,
    ),
    (
        b"hvm_callback_vector",
        features::XENFEAT_HVM_CALLBACK_VECTOR,
    ),
    (b"dom0", features::XENFEAT_DOM0),
];

/// Reads `name|!name|...`: a plain name is supported, one with `!` is required. An unknown plain name is of no consequence.
fn add_features(text: &[u8], features: &mut Features) -> Result<(), ImageError> {
    for word in text.split(|byte| *byte == b'|') {
        let (name, required) = match word.strip_prefix(b"!") {
            Some(name) => (name, true),
            None => (word, false),
        };
        match FEATURE_NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, bit)) => {
                features.supported |= 1 << bit;
                features.required |= u32::from(required) << bit;
            }
            None if required => return Err(ImageError::UnknownFeature { name: cut_to(name) }),
            None => {}
        }
    }
    Ok(())
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The first `N` bytes, zero-filled.
fn cut_to<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

/// Text for display: at most 64 characters, anything unprintable as a dot.
fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(64)
        .map(|byte| {
            if byte.is_ascii_graphic() || *byte == b' ' {
                *byte as char
            } else {
                '.'
            }
        })
        .collect()
}
