//! CRC-32 (IEEE 802.3, reflected), as gzip and xz use it.

const POLYNOMIAL: u32 = 0xedb8_8320;

/// `TABLES[k][b]` is the CRC of byte `b` followed by `k` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[zeros - 1][byte];
            tables[zeros][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// CRC-32 of `bytes`, eight at a time.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let lookup = |zeros: usize, byte: u32| TABLES[zeros & 7][(byte & 0xff) as usize];
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut crc = u32::MAX;
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk) ^ u64::from(crc);
        let (low, high) = (word as u32, (word >> 32) as u32);
        crc = lookup(7, low)
            ^ lookup(6, low >> 8)
            ^ lookup(5, low >> 16)
            ^ lookup(4, low >> 24)
            ^ lookup(3, high)
            ^ lookup(2, high >> 8)
            ^ lookup(1, high >> 16)
            ^ lookup(0, high >> 24);
    }
    for byte in rest {
        crc = (crc >> 8) ^ lookup(0, crc ^ u32::from(*byte));
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn check_values() {
        // The catalogue's check value, and lengths around the eight-byte step.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(&[0; 32]), 0x190a_55ad);
    }
}
