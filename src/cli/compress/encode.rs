//! The three encoders, behind one face: bytes of a file in, compressed bytes out, block by block.
//! Knows nothing of files.

use std::io::{self, BufReader, Read};

use brotli::CompressorReader;
use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::bufread::GzEncoder;
use zstd::stream::read::Encoder as ZstdEncoder;

use crate::h1::Coding;

/// What is read and written at once, in bytes.
pub(super) const BLOCK: usize = 64 * 1024;

/// Above this the best levels, which do about half a megabyte a second, would take minutes for one file.
const LARGE: u64 = 32 * 1024 * 1024;

/// 8 MiB, the most that clients must take (RFC 9659 section 3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// Reads the `size` bytes of `source` compressed. The memory that it takes is bounded by its windows, not by `size`:
/// about 100 MB.
pub(super) fn encoder<'a>(coding: Coding, source: impl Read + 'a, size: u64) -> io::Result<Box<dyn Read + 'a>> {
    let is_large = size > LARGE;
    Ok(match coding {
        Coding::Brotli => {
            let quality = if is_large { 9 } else { 11 };
            Box::new(CompressorReader::with_params(source, BLOCK, &brotli_params(quality, size)))
        }
        Coding::Zstd => {
            let source = BufReader::with_capacity(BLOCK, source);
            let mut encoder = ZstdEncoder::with_buffer(source, if is_large { 12 } else { 19 })?;
            encoder.window_log(ZSTD_WINDOW_LOG)?;
            encoder.set_pledged_src_size(Some(size))?;
            Box::new(encoder)
        }
        Coding::Gzip => {
            let source = BufReader::with_capacity(BLOCK, source);
            Box::new(GzEncoder::new(source, Compression::best()))
        }
    })
}

/// The window is the smallest that holds the file, up to 4 MiB: with a larger one small files take longer and gain
/// nothing. 16 bytes of a window cannot be used (RFC 7932 section 9.1).
fn brotli_params(quality: i32, size: u64) -> BrotliEncoderParams {
    let lgwin = (10..22).find(|&bits| (1 << bits) - 16 >= size).unwrap_or(22);
    let size_hint = usize::try_from(size).unwrap_or(usize::MAX);
    BrotliEncoderParams { quality, lgwin, size_hint, ..BrotliEncoderParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder(coding, bytes, bytes.len() as u64).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut decoder: Box<dyn Read> = match coding {
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, BLOCK)),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(bytes).unwrap();
                decoder.window_log_max(ZSTD_WINDOW_LOG).unwrap();
                Box::new(decoder)
            }
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        };
        decoder.read_to_end(&mut out).unwrap();
        out
    }

    /// Lines that repeat, and some noise in each.
    fn text(size: usize) -> Vec<u8> {
        let mut seed = 1_u64;
        let mut text = Vec::with_capacity(size + 64);
        while text.len() < size {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.extend_from_slice(format!("<p class=\"text\">{:x}</p>\n", seed >> 48).as_bytes());
        }
        text.truncate(size);
        text
    }

    #[test]
    fn what_comes_out_decodes_to_what_went_in() {
        for size in [0, 1, 256, 1008, 1009, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
            let text = text(size);
            for coding in Coding::ALL {
                assert_eq!(decoded(coding, &encoded(coding, &text)), text, "{coding:?} of {size} bytes");
            }
        }
    }

    #[test]
    fn the_window_of_a_large_file_is_one_that_clients_take() {
        let text = text(33 << 20);
        for coding in Coding::ALL {
            let encoded = encoded(coding, &text);
            assert!(encoded.len() < text.len() / 2);
            assert!(decoded(coding, &encoded) == text, "{coding:?}");
        }
    }

    #[test]
    fn a_window_holds_the_file_up_to_4_mib() {
        for (size, bits) in [(0, 10), (1008, 10), (1009, 11), (100_000, 17), (1 << 22, 22), (u64::MAX, 22)] {
            assert_eq!(brotli_params(11, size).lgwin, bits, "{size}");
        }
    }

    #[test]
    fn a_source_that_fails_fails_the_encoder() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        for coding in Coding::ALL {
            let source = text(BLOCK).into_iter().collect::<Vec<_>>();
            let source = io::Cursor::new(source).chain(Broken);
            let failed = io::copy(&mut encoder(coding, source, 10 * BLOCK as u64).unwrap(), &mut io::sink());
            assert_eq!(failed.unwrap_err().to_string(), "broken", "{coding:?}");
        }
    }
}
