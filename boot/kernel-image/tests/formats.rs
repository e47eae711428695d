//! Every packing that Linux's build knows, made here and unpacked; then damaged in every way, which must never panic.

#[path = "synth/pack.rs"]
mod pack;
mod synth;

use lzma_rust2::CheckType;
use oxen_kernel_image::{Compression, Container, ImageError, Kernel, KernelFile};
use synth::{Random, bzimage, elf, linux_notes, linux_parts};

fn kernel(len: usize) -> Vec<u8> {
    elf(&linux_parts(len), &linux_notes())
}

/// All packings of `bytes`, each with what it must be recognised as.
fn packings(bytes: &[u8]) -> Vec<(Compression, Vec<u8>)> {
    vec![
        (Compression::None, bytes.to_vec()),
        (Compression::Gzip, pack::gzip(bytes)),
        (Compression::Xz, pack::xz(bytes, CheckType::Crc32, None)),
        (Compression::Xz, pack::xz(bytes, CheckType::None, None)),
        (
            Compression::Xz,
            pack::xz(bytes, CheckType::Crc32, Some(20_001)),
        ),
        (Compression::Lzma, pack::lzma(bytes, true)),
        (Compression::Lzma, pack::lzma(bytes, false)),
        (Compression::Lz4, pack::lz4(bytes)),
        (Compression::Zstd, pack::zstd(bytes, 1, false)),
        (Compression::Zstd, pack::zstd(bytes, 22, true)),
    ]
}

#[test]
fn every_packing_unpacks() {
    let elf = kernel(300_000);
    for (compression, payload) in packings(&elf) {
        let module = bzimage(&payload);
        let file = KernelFile::open(&module).unwrap();
        assert_eq!(file.container(), Container::BzImage { protocol: 0x020f });
        assert_eq!(
            (file.compression(), file.unpacked_len()),
            (compression, elf.len())
        );
        assert_eq!(file.stored().is_some(), compression == Compression::None);
        assert!(
            *file.unpack().unwrap() == elf,
            "{compression} {}",
            payload.len()
        );
        let mut out = vec![0xee; elf.len() + 10];
        assert!(file.unpack_into(&mut out).unwrap() == elf);
        assert_eq!(out[elf.len()..], [0xee; 10]);
        let mut small = vec![0; elf.len() - 1];
        let refused = file.unpack_into(&mut small);
        assert_eq!(
            refused,
            Err(ImageError::BufferTooSmall {
                need: elf.len(),
                have: elf.len() - 1
            })
        );
    }
}

/// Data with long runs, far matches, incompressible stretches, empty and tiny sizes, and what looks like x86 calls.
#[test]
fn data_of_every_kind_unpacks() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut cases: Vec<Vec<u8>> = vec![vec![], vec![7], vec![0; 300_000]];
    for _ in 0..3 {
        cases.push(
            (0..60_000)
                .map(|_| random.pick(&[0xe8, 0xe9, 0, 0xff, 0, 0xff, 1, 0xfe, 0x80, 0x55]))
                .collect(),
        );
    }
    cases.push((0..60_000).map(|_| random.next() as u8).collect());
    let mut mixed: Vec<u8> = Vec::new();
    while mixed.len() < 400_000 {
        match random.below(3) {
            0 => mixed.extend((0..random.below(2000)).map(|_| random.0 as u8)),
            1 => mixed.extend(
                (0..random.below(500))
                    .map(|n| (n * n) as u8)
                    .collect::<Vec<_>>(),
            ),
            _ => {
                let at = random.below(mixed.len().max(1) as u64) as usize;
                let len = (random.below(3000) as usize).min(mixed.len() - at.min(mixed.len()));
                mixed.extend_from_within(at.min(mixed.len())..at.min(mixed.len()) + len);
            }
        }
    }
    cases.push(mixed);
    for case in cases {
        for (compression, payload) in packings(&case) {
            if compression == Compression::None {
                continue;
            }
            let module = bzimage(&payload);
            let unpacked = KernelFile::open(&module).unwrap().unpack();
            assert!(
                unpacked.as_deref() == Ok(&case[..]),
                "{compression}, {} bytes: {:?}",
                case.len(),
                unpacked.err()
            );
        }
    }
}

#[test]
fn other_containers() {
    let elf = kernel(1000);
    let file = KernelFile::open(&elf).unwrap();
    assert_eq!(
        (file.container(), file.stored()),
        (Container::Elf, Some(&elf[..]))
    );
    let gzipped = pack::gzip(&elf);
    let file = KernelFile::open(&gzipped).unwrap();
    assert_eq!(file.container(), Container::Gzip);
    assert!(*file.unpack().unwrap() == elf);
}

/// Whatever a damaged module does, it does it without a panic. Where a checksum covers the data, a wrong result is an error.
fn check_damaged(module: &[u8], original: &[u8], checked: bool) {
    let Ok(file) = KernelFile::open(module) else {
        return;
    };
    if file.unpacked_len() > 1 << 20 {
        return;
    }
    if let Ok(unpacked) = file.unpack() {
        assert!(!checked || *unpacked == *original, "damage went unnoticed");
        let _ = Kernel::parse(&unpacked).map(|kernel| kernel.segments().len());
    }
}

#[test]
fn damaged_modules_never_panic() {
    let elf = kernel(6000);
    let mut random = Random(0xdead_beef_dead_beef);
    for (compression, payload) in packings(&elf) {
        let module = bzimage(&payload);
        let checked = match compression {
            Compression::Gzip | Compression::Zstd => true,
            // The number of the check, in the stream's header.
            Compression::Xz => payload[7] == 1,
            _ => false,
        };
        for _ in 0..1000 {
            let mut damaged = module.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(damaged.len() as u64) as usize;
                damaged[at] = if random.below(2) == 0 {
                    damaged[at] ^ 1 << random.below(8)
                } else {
                    random.next() as u8
                };
            }
            check_damaged(&damaged, &elf, checked);
        }
        for _ in 0..300 {
            check_damaged(
                &module[..random.below(module.len() as u64) as usize],
                &elf,
                checked,
            );
        }
        // A payload that ends early although the container is whole.
        for cut in (1..payload.len()).step_by(payload.len() / 200 + 1) {
            let mut payload = payload[..payload.len() - cut].to_vec();
            payload.extend((elf.len() as u32).to_le_bytes());
            check_damaged(&bzimage(&payload), &elf, checked);
        }
    }
}

/// Payloads that are random but for their first bytes reach further into the decoders than flipped bits do.
#[test]
fn random_payloads_never_panic() {
    let mut random = Random(0x1357_9bdf_0246_8ace);
    let elf = kernel(2000);
    for (_, payload) in packings(&elf) {
        for _ in 0..1000 {
            let kept = 4 + random.below(60) as usize;
            let mut payload = payload[..kept.min(payload.len())].to_vec();
            payload.extend((0..random.below(3000)).map(|_| random.next() as u8));
            payload.extend((random.below(20_000) as u32).to_le_bytes());
            check_damaged(&bzimage(&payload), &[], false);
        }
    }
}

#[test]
fn errors_name_the_culprit() {
    let open = |module: &[u8]| KernelFile::open(module).map(|_| ()).unwrap_err();
    let shown = |module: &[u8]| open(module).to_string();

    assert_eq!(
        open(b""),
        ImageError::NotAKernel {
            len: 0,
            first: [0; 8]
        }
    );
    assert_eq!(
        shown(b"#!/bin/sh\n"),
        "not a kernel: 10 bytes starting with 23 21 2f 62 69 6e 2f 73; expected a bzImage or an x86-64 ELF file"
    );
    let whole = bzimage(&pack::gzip(&kernel(5000)));
    assert!(matches!(
        open(&whole[..0x240]),
        ImageError::Truncated {
            what: "the bzImage header",
            ..
        }
    ));
    assert!(matches!(
        open(&whole[..4000]),
        ImageError::Truncated {
            what: "the bzImage payload",
            have: 4000,
            ..
        }
    ));
    let mut old = whole.clone();
    old[0x206] = 7;
    old[0x207] = 2;
    assert_eq!(
        shown(&old),
        "bzImage with boot protocol 2.07; 2.08 or later is needed"
    );
    assert_eq!(shown(&bzimage(b"")), "bzImage without a payload");
    assert_eq!(
        shown(&bzimage(b"mystery!rest")),
        "unknown compression: the payload starts with 6d 79 73 74 65 72 79 21"
    );
    assert_eq!(
        open(&bzimage(b"BZh91AY&SY")),
        ImageError::UnsupportedCompression(Compression::Bzip2)
    );
    assert!(matches!(
        open(&bzimage(b"\x1f\x8b\xff\xff\xff\xff")),
        ImageError::TooLarge {
            len: 0xffff_ffff,
            ..
        }
    ));

    let reason = |payload: &[u8]| {
        KernelFile::open(&bzimage(payload))
            .unwrap()
            .unpack()
            .unwrap_err()
            .to_string()
    };
    let elf = kernel(5000);
    let crc64 = pack::xz(&elf, CheckType::Crc64, None);
    assert_eq!(
        reason(&crc64),
        "corrupt xz payload: xz check other than CRC-32"
    );
    let mut flipped = pack::zstd(&elf, 3, false);
    let near_end = flipped.len() - 6;
    flipped[near_end] ^= 1;
    assert_eq!(reason(&flipped), "corrupt zstd payload: checksum mismatch");
    for (compression, payload) in packings(&elf).into_iter().skip(1) {
        let (stream, _) = payload.split_at(payload.len() - 4);
        for len in [elf.len() - 1, elf.len() + 1] {
            let mut wrong_len = stream.to_vec();
            wrong_len.extend((len as u32).to_le_bytes());
            let said = KernelFile::open(&bzimage(&wrong_len))
                .unwrap()
                .unpack()
                .map(|_| ())
                .map_err(|error| error.to_string());
            // LZMA alone carries no length of its own: it stops where the output is full, unless that is within a match.
            if compression != Compression::Lzma || len > elf.len() {
                let said = said.unwrap_err();
                assert!(said.starts_with("corrupt "), "{said}");
            }
        }
    }
}

#[test]
fn headers_and_notes_are_enough_to_parse() {
    let whole = kernel(300_000);
    let notes = Kernel::note_segments(&whole[..4096], whole.len() as u64);
    assert!(!notes.is_empty());
    let mut sparse = vec![0; whole.len()];
    for (offset, len) in notes.iter().copied().chain([(0, 4096)]) {
        let range = offset as usize..(offset + len) as usize;
        sparse[range.clone()].copy_from_slice(&whole[range]);
    }
    let (sparse, whole_kernel) = (Kernel::parse(&sparse).unwrap(), Kernel::parse(&whole).unwrap());
    assert_eq!(sparse.info(), whole_kernel.info());
    for (sparse, segment) in sparse.segments().iter().zip(whole_kernel.segments()) {
        assert_eq!((sparse.paddr, sparse.offset, sparse.mem_len), (segment.paddr, segment.offset, segment.mem_len));
        let offset = segment.offset as usize;
        assert_eq!(&whole[offset..offset + sparse.data.len()], segment.data);
    }
    // Notes beyond the end of the file, and what is no kernel at all.
    assert_eq!(Kernel::note_segments(&whole[..4096], 100), []);
    assert_eq!(Kernel::note_segments(&[7; 4096], 1 << 20), []);
}
