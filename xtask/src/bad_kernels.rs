//! Kernels in other forms than the distributed one: the ELF program inside a boot file, and wrong ones made from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cases::Wrong;
use crate::process::Tool;
use crate::workspace::{Key, Workspace};

/// The setup header's fields, from the kernel's `Documentation/arch/x86/boot.rst`.
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Where the compressed payload lies in a boot file.
fn payload(image: &[u8]) -> Result<std::ops::Range<usize>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("the kernel is shorter than its header")?;
        Ok(usize::try_from(u32::from_le_bytes(bytes.try_into()?))?)
    };
    let sectors = match image.get(SETUP_SECTORS) {
        Some(0) => 4,
        Some(n) => usize::from(*n),
        None => bail!("the kernel is shorter than its header"),
    };
    let start = (sectors + 1) * 512 + word(PAYLOAD_OFFSET)?;
    let range = start..start + word(PAYLOAD_LENGTH)?;
    if range.end > image.len() {
        bail!("the kernel's payload lies outside the file");
    }
    Ok(range)
}

/// The uncompressed ELF kernel inside a boot file, unpacked once.
pub fn inner_elf(ws: &Workspace, boot_file: &Path) -> Result<PathBuf> {
    let path = ws.cache.join("vmlinux").join(Key::new("vmlinux", 1).file(boot_file)?.finish());
    if path.exists() {
        return Ok(path);
    }
    let image = fs::read(boot_file)?;
    let range = payload(&image)?;
    // The compressed stream is followed by its unpacked length, four bytes that are not part of it.
    let packed = &image[range.start..range.end - 4];
    let program = match packed {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => bail!("{} has a payload in an unexpected format", boot_file.display()),
    };
    fs::create_dir_all(path.parent().context("cache directory without parent")?)?;
    let scratch = tempfile::tempdir_in(&ws.cache)?;
    let packed_file = scratch.path().join("payload");
    fs::write(&packed_file, packed)?;
    let script = format!("{program} -dc < '{}' > '{}'", packed_file.display(), scratch.path().join("vmlinux").display());
    Tool::new(ws, "sh", "Unpacking a kernel").args(["-c", &script]).run_quietly()?;
    fs::rename(scratch.path().join("vmlinux"), &path)?;
    Ok(path)
}

/// Makes what a bad-input test boots in `dir`; `None` for no module at all.
pub fn make(ws: &Workspace, wrong: Wrong, stock: &Path, dir: &Path) -> Result<Option<PathBuf>> {
    let mut image = fs::read(stock)?;
    let range = payload(&image)?;
    match wrong {
        Wrong::NoModule => return Ok(None),
        Wrong::Nothing => return Ok(Some(stock.to_path_buf())),
        Wrong::NotAKernel => image = b"This is a text, not a kernel.\n".repeat(4000),
        Wrong::TruncatedKernel => image.truncate(image.len() / 2),
        Wrong::CorruptKernel => image[range.start + range.len() / 3..][..256].fill(0x5a),
        Wrong::UnknownCompression => image[range.start..][..6].copy_from_slice(b"ABCDEF"),
        Wrong::NoNotes => image = without_notes(fs::read(inner_elf(ws, stock)?)?),
        Wrong::OtherWordSize => {
            image = fs::read(inner_elf(ws, stock)?)?;
            // EI_CLASS: ELFCLASS32.
            image[4] = 1;
        }
    }
    let path = dir.join("kernel");
    fs::write(&path, image)?;
    Ok(Some(path))
}

/// Renames every note of owner "Xen" so that none is left.
fn without_notes(mut elf: Vec<u8>) -> Vec<u8> {
    let owner = b"\x04\0\0\0";
    let positions: Vec<usize> = elf.windows(16).enumerate().filter(|(_, window)| window.starts_with(owner) && window[12..] == *b"Xen\0").map(|(at, _)| at).collect();
    for at in positions {
        elf[at + 12..at + 15].copy_from_slice(b"Neo");
    }
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_bounded_by_the_file() {
        let mut image = vec![0; 4096];
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH] = 32;
        assert_eq!(payload(&image).unwrap(), 1040..1072);
        image[PAYLOAD_LENGTH + 2] = 1;
        assert!(payload(&image).is_err());
        assert!(payload(&[0; 100]).is_err());
    }

    #[test]
    fn notes_lose_their_owner() {
        let elf = without_notes(b"....\x04\0\0\0\x08\0\0\0\x06\0\0\0Xen\0data".to_vec());
        assert!(!elf.windows(4).any(|window| window == b"Xen\0"));
    }
}
