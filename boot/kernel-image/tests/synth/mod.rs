//! Small kernels made up for tests: ELF files with Xen notes, and bzImages around payloads.
#![allow(dead_code, reason = "each test file uses its own part")]

/// A deterministic source of numbers (xorshift).
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of several values.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// One note of owner "Xen".
pub fn note(kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [4, desc.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"Xen\0");
    bytes.extend(desc);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A loadable part.
pub struct Part {
    pub paddr: u64,
    pub data: Vec<u8>,
    pub mem_len: u64,
}

/// Notes as Debian's kernel has them, for a kernel whose first part is at 16 MiB.
pub fn linux_notes() -> Vec<Vec<u8>> {
    vec![
        note(6, b"linux\0"),
        note(7, b"2.6\0"),
        note(5, b"xen-3.0\0"),
        note(3, &0xffff_ffff_8000_0000_u64.to_le_bytes()),
        note(15, &0x80_0000_0000_u64.to_le_bytes()),
        note(1, &0xffff_ffff_8100_0040_u64.to_le_bytes()),
        note(10, b"!writable_page_tables|pae_pgdir_above_4gb"),
        note(17, &0x8801_u32.to_le_bytes()),
        note(9, b"yes\0"),
        note(8, b"generic\0"),
        note(13, &[1_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat()),
        note(14, &1_u32.to_le_bytes()),
        note(16, &1_u32.to_le_bytes()),
        note(12, &0xffff_8000_0000_0000_u64.to_le_bytes()),
        note(18, &0x100_0850_u64.to_le_bytes()),
    ]
}

/// Two parts like those of a kernel: text that compresses, data that does not, and zeroes behind it.
pub fn linux_parts(len: usize) -> Vec<Part> {
    let mut random = Random(0x1234_5678_9abc_def1);
    let text = (0..len)
        .map(|at| {
            if at % 7 == 0 {
                random.next() as u8 & 0x3f
            } else {
                (at / 64) as u8
            }
        })
        .collect();
    let data = (0..len / 4).map(|_| random.next() as u8).collect();
    vec![
        Part {
            paddr: 0x100_0000,
            data: text,
            mem_len: len as u64,
        },
        Part {
            paddr: 0x180_0010,
            data,
            mem_len: len as u64 + 0x2345,
        },
    ]
}

/// An ELF64 executable of these parts and notes.
pub fn elf(parts: &[Part], notes: &[Vec<u8>]) -> Vec<u8> {
    let notes = notes.concat();
    let nr_headers = parts.len() + 1;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend(0x100_0000_u64.to_le_bytes());
    file.extend(64_u64.to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    for half in [64, 56, nr_headers as u16, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = (64 + 56 * nr_headers) as u64;
    let mut header = |kind: u32, paddr: u64, file_len: u64, mem_len: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        for word in [offset, 0, paddr, file_len, mem_len, 1] {
            file.extend(word.to_le_bytes());
        }
        offset += file_len;
    };
    for part in parts {
        header(1, part.paddr, part.data.len() as u64, part.mem_len);
    }
    header(4, 0, notes.len() as u64, notes.len() as u64);
    for part in parts {
        file.extend(&part.data);
    }
    file.extend(notes);
    file
}

/// A bzImage of protocol 2.15 around a payload that already has its length trailer.
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    const SETUP_SECTS: usize = 3;
    const PAYLOAD_OFFSET: usize = 0x2cc;
    let mut file = vec![0; (SETUP_SECTS + 1) * 512 + PAYLOAD_OFFSET];
    file[0x1f1] = SETUP_SECTS as u8;
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&(PAYLOAD_OFFSET as u32).to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file.extend(payload);
    file.extend([0; 512]);
    file
}
