//! ELF files and Xen notes, good and bad.

mod synth;

use oxen_kernel_image::{ImageError, Kernel, KernelInfo, L1MfnValid};
use synth::{Part, Random, elf, linux_notes, linux_parts, note};

const LEN: usize = 3000;

fn parse_notes(notes: &[Vec<u8>]) -> Result<KernelInfo, ImageError> {
    Kernel::parse(&elf(&linux_parts(LEN), notes)).map(|kernel| kernel.info().clone())
}

/// Linux's notes with these added; of two notes of a kind the later one counts.
fn with(extra: &[Vec<u8>]) -> Result<KernelInfo, ImageError> {
    parse_notes(&[linux_notes(), extra.to_vec()].concat())
}

/// Linux's notes without those of this kind.
fn without(kinds: &[u32]) -> Vec<Vec<u8>> {
    linux_notes()
        .into_iter()
        .filter(|note| !kinds.contains(&u32::from_le_bytes(note[8..12].try_into().unwrap())))
        .collect()
}

#[test]
fn linux() {
    let info = parse_notes(&linux_notes()).unwrap();
    assert_eq!(info.entry, 0xffff_ffff_8100_0040);
    assert_eq!(
        (info.virt_base, info.paddr_offset),
        (0xffff_ffff_8000_0000, 0)
    );
    assert_eq!(info.virt_start, 0xffff_ffff_8100_0000);
    assert_eq!(info.virt_end, 0xffff_ffff_8180_0010 + LEN as u64 + 0x2345);
    assert_eq!(info.hypercall_page, None);
    assert_eq!(info.hv_start_low, Some(0xffff_8000_0000_0000));
    assert_eq!(info.init_p2m, Some(0x80_0000_0000));
    assert!(info.mod_start_pfn && info.pae && info.suspend_cancel);
    assert_eq!(
        (info.features.supported, info.features.required),
        (0x8811, 1)
    );
    assert!(
        info.features.supports(11)
            && info.features.requires(0)
            && !info.features.requires(4)
            && !info.features.supports(40)
    );
    assert_eq!(info.l1_mfn_valid, Some(L1MfnValid { mask: 1, value: 1 }));
    assert_eq!(info.phys32_entry, Some(0x100_0850));
    assert_eq!(
        (info.guest_os.as_str(), info.guest_version.as_str()),
        ("linux", "2.6")
    );
}

#[test]
fn segments_lie_where_the_notes_say() {
    let parts = linux_parts(LEN);
    let notes = [
        linux_notes(),
        vec![
            note(4, &0x10_0000_u64.to_le_bytes()),
            note(1, &0xffff_ffff_80f0_0000_u64.to_le_bytes()),
        ],
    ]
    .concat();
    let file = elf(&parts, &notes);
    let kernel = Kernel::parse(&file).unwrap();
    let found: Vec<_> = kernel
        .segments()
        .iter()
        .map(|segment| (segment.paddr, segment.data, segment.mem_len))
        .collect();
    let expected: Vec<_> = parts
        .iter()
        .map(|part| (part.paddr - 0x10_0000, &part.data[..], part.mem_len))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(kernel.info().virt_start, 0xffff_ffff_80f0_0000);
}

#[test]
fn feature_text() {
    let features = |text: &str| with(&[note(10, text.as_bytes())]).map(|info| info.features);
    // Bits 0, 4, 11 and 15 come from the other notes.
    assert_eq!(
        features("writable_descriptor_tables|!auto_translated_physmap|hvm_callback_vector")
            .unwrap()
            .supported,
        0x8917
    );
    assert_eq!(
        features("!auto_translated_physmap|!supervisor_mode_kernel")
            .unwrap()
            .required,
        0b1101
    );
    assert_eq!(
        features("something_new||pae_pgdir_above_4gb|")
            .unwrap()
            .required,
        1
    );
    let refused = features("!something_new").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the kernel requires unknown feature \"something_new\""
    );
    assert!(features("!").is_err());
}

#[test]
fn refusals() {
    let gnu = vec![b"\x04\0\0\0\x02\0\0\0\x01\0\0\0GNU\0ab\0\0".to_vec()];
    assert_eq!(parse_notes(&gnu), Err(ImageError::NoXenNotes));
    assert_eq!(parse_notes(&[]), Err(ImageError::NoXenNotes));
    assert_eq!(
        parse_notes(&[note(18, &0x100_0000_u32.to_le_bytes())]),
        Err(ImageError::NoPvEntry)
    );
    assert_eq!(parse_notes(&without(&[6, 8])), Err(ImageError::WrongLoader));
    assert!(parse_notes(&without(&[6])).is_ok());
    assert!(parse_notes(&without(&[8])).is_ok());
    assert!(matches!(
        parse_notes(&without(&[5])),
        Err(ImageError::WrongInterface { .. })
    ));
    assert_eq!(
        with(&[note(5, b"xen-4.0")]).unwrap_err().to_string(),
        "the kernel wants interface \"xen-4.0\"; this is xen-3.0"
    );
    assert!(matches!(
        parse_notes(&[without(&[3]), vec![note(4, &[0; 8])]].concat()),
        Err(ImageError::BadElf(_))
    ));
    assert!(matches!(
        with(&[note(1, &[0; 8])]),
        Err(ImageError::BadAddress {
            what: "the entry point",
            va: 0
        })
    ));
    assert!(matches!(
        with(&[note(1, &[0; 3])]),
        Err(ImageError::BadElf(_))
    ));
    for va in [0_u64, 0xffff_ffff_8100_0800, u64::MAX - 4095] {
        assert!(matches!(
            with(&[note(2, &va.to_le_bytes())]),
            Err(ImageError::BadAddress {
                what: "the hypercall page",
                ..
            })
        ));
    }
    for va in [0x80_0000_0001_u64, 0xffff_ffff_8100_0000] {
        assert!(matches!(
            with(&[note(15, &va.to_le_bytes())]),
            Err(ImageError::BadAddress {
                what: "the initial p2m",
                ..
            })
        ));
    }
    let mut beyond = linux_notes();
    beyond.push(note(6, b"linux")[..14].to_vec());
    assert!(matches!(
        parse_notes(&beyond),
        Err(ImageError::BadElf("a note reaches beyond its segment"))
    ));
}

/// A kernel that leaves out what has a default.
#[test]
fn defaults() {
    let mut notes = vec![note(5, b"xen-3.0"), note(8, b"generic")];
    let info = parse_notes(&notes).unwrap();
    assert_eq!(
        (info.entry, info.virt_base, info.virt_start),
        (0x100_0000, 0, 0x100_0000)
    );
    assert!(!info.mod_start_pfn && !info.pae && info.init_p2m.is_none());
    notes.push(note(2, &0x100_0000_u64.to_le_bytes()));
    let parts = [Part {
        paddr: 0x100_0000,
        data: vec![1; 10],
        mem_len: 4096,
    }];
    let file = elf(&parts, &notes);
    assert_eq!(
        Kernel::parse(&file).unwrap().info().hypercall_page,
        Some(0x100_0000)
    );
}

#[test]
fn files_that_are_no_kernels() {
    let good = elf(&linux_parts(LEN), &linux_notes());
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        Kernel::parse(&file).map(|_| ()).unwrap_err()
    };
    assert_eq!(
        patched(0, b"MZ"),
        ImageError::NotElf {
            first: *b"MZLF\x02\x01\x01\0"
        }
    );
    assert_eq!(
        patched(4, &[1]).to_string(),
        "32-bit kernel; only 64-bit kernels are supported"
    );
    assert_eq!(patched(5, &[2]), ImageError::WrongByteOrder { data: 2 });
    assert_eq!(
        patched(18, &[183, 0]).to_string(),
        "kernel for ELF machine 183; x86-64 (62) is needed"
    );
    assert_eq!(patched(16, &[1, 0]), ImageError::NotExecutable { kind: 1 });
    assert!(matches!(patched(56, &[0, 0]), ImageError::BadElf(_)));
    assert!(matches!(patched(56, &[255, 255]), ImageError::BadElf(_)));
    assert!(matches!(
        patched(32, &[0xff; 8]),
        ImageError::Truncated {
            what: "the ELF program headers",
            ..
        }
    ));
    // The first segment's offset, then its lengths.
    assert!(matches!(
        patched(64 + 8, &[0xff; 8]),
        ImageError::Truncated {
            what: "an ELF segment",
            ..
        }
    ));
    assert!(matches!(
        patched(64 + 40, &1_u64.to_le_bytes()),
        ImageError::BadElf(_)
    ));
    assert!(matches!(
        patched(64 + 40, &[0xff; 8]),
        ImageError::BadElf(_)
    ));
    assert!(matches!(
        Kernel::parse(&good[..40]),
        Err(ImageError::Truncated {
            what: "the ELF header",
            ..
        })
    ));
    assert!(matches!(
        Kernel::parse(&good[..good.len() - 1]),
        Err(ImageError::Truncated { .. })
    ));
}

#[test]
fn damaged_files_never_panic() {
    let good = elf(&linux_parts(LEN), &linux_notes());
    let mut random = Random(0x600d_f00d_600d_f00d);
    let headers = 64 + 3 * 56;
    let notes_at = good.len() - linux_notes().concat().len();
    for _ in 0..200_000 {
        let mut file = good.clone();
        for _ in 0..1 + random.below(4) {
            let at = if random.below(2) == 0 {
                random.below(headers)
            } else {
                notes_at as u64 + random.below((good.len() - notes_at) as u64)
            };
            file[at as usize] =
                random.pick(&[0, 1, 0x7f, 0x80, 0xff, random_byte(at, file[at as usize])]);
        }
        if random.below(4) == 0 {
            file.truncate(random.below(file.len() as u64) as usize);
        }
        if let Ok(kernel) = Kernel::parse(&file) {
            assert!(kernel.info().virt_start < kernel.info().virt_end);
            assert!(
                kernel
                    .segments()
                    .iter()
                    .all(|segment| segment.data.len() as u64 <= segment.mem_len)
            );
        }
    }
}

fn random_byte(at: u64, old: u8) -> u8 {
    old ^ 1 << (at % 8)
}
