//! Packs bytes the ways that Linux's build packs kernels, length trailer included.

use lzma_rust2::filter::FilterType;
use lzma_rust2::{CheckType, LzmaOptions, LzmaWriter, XzOptions, XzWriter};
use std::io::Write;
use std::num::NonZeroU64;

fn with_len_trailer(mut packed: Vec<u8>, unpacked: &[u8]) -> Vec<u8> {
    packed.extend((unpacked.len() as u32).to_le_bytes());
    packed
}

/// CRC-32 the slow way.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 != 0 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

/// gzip with every optional header field.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0b1_1110, 0, 0, 0, 0, 2, 3];
    packed.extend([3, 0, b'x', b'y', b'z']);
    packed.extend(b"vmlinux.bin\0a comment\0\xaa\xbb");
    packed.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    packed.extend(crc32(bytes).to_le_bytes());
    with_len_trailer(packed, bytes)
}

/// xz with the x86 filter; in blocks of `block_len` bytes where that is given.
pub fn xz(bytes: &[u8], check: CheckType, block_len: Option<u64>) -> Vec<u8> {
    let mut options = XzOptions::with_preset(6);
    options.set_check_sum_type(check);
    options.prepend_pre_filter(FilterType::BcjX86, 0);
    if let Some(len) = block_len {
        options.lzma_options.dict_size = 4096;
        options.set_block_size(NonZeroU64::new(len));
    }
    let mut writer = XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(bytes).unwrap();
    with_len_trailer(writer.finish().unwrap(), bytes)
}

/// LZMA alone, with an end marker or with the length in the header.
pub fn lzma(bytes: &[u8], marker: bool) -> Vec<u8> {
    let len = (!marker).then_some(bytes.len() as u64);
    let mut writer =
        LzmaWriter::new_use_header(Vec::new(), &LzmaOptions::with_preset(6), len).unwrap();
    writer.write_all(bytes).unwrap();
    with_len_trailer(writer.finish().unwrap(), bytes)
}

/// The legacy LZ4 frame.
pub fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
    for block in bytes.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        packed.extend((block.len() as u32).to_le_bytes());
        packed.extend(block);
    }
    with_len_trailer(packed, bytes)
}

/// zstd with a checksum; with the length in the frame's header or without.
pub fn zstd(bytes: &[u8], level: i32, states_len: bool) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder
        .set_pledged_src_size(states_len.then_some(bytes.len() as u64))
        .unwrap();
    encoder.write_all(bytes).unwrap();
    with_len_trailer(encoder.finish().unwrap(), bytes)
}
