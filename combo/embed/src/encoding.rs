//! Takes the bytes of a file, gives them compressed if that is worth it. Pure: the same bytes for ever.

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, write::GzEncoder};

/// How an answer may be encoded (RFC 9110, 8.4.1; RFC 9659 for the window of zstd).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Encoding {
    Brotli,
    Zstd,
    Gzip,
}

/// One byte in so many has to be saved.
const WORTH: usize = 20;

/// The least and the most that brotli can look back by, as powers of two.
const BROTLI_WINDOW: std::ops::RangeInclusive<u32> = 10..=24;

/// The last that looks back no further than the 8 MiB that clients have to have.
const ZSTD_LEVEL: i32 = 19;

/// What is compressed by nature.
const COMPRESSED: [&str; 46] = [
    "7z", "aac", "apk", "avif", "br", "bz2", "cab", "crx", "deb", "docx", "epub", "flac", "gif", "gz",
    "heic", "heif", "jar", "jpeg", "jpg", "jxl", "lz4", "m4a", "m4v", "mkv", "mov", "mp3", "mp4", "odp",
    "ods", "odt", "oga", "ogg", "ogv", "opus", "png", "pptx", "rar", "tgz", "webm", "webp", "woff", "woff2",
    "xlsx", "xz", "zip", "zst",
];

impl Encoding {
    pub(crate) const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// What a file in it is called.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zst",
            Self::Gzip => "gz",
        }
    }

    /// The compressed form, or nothing where it is not smaller by a twentieth.
    pub(crate) fn compress(self, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let compressed = match self {
            Self::Brotli => brotli(bytes)?,
            Self::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL)?,
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(bytes)?;
                encoder.finish()?
            }
        };
        Ok((compressed.len() <= bytes.len() - bytes.len().div_ceil(WORTH)).then_some(compressed))
    }
}

/// Whether a file of this name may get smaller.
pub(crate) fn may_shrink(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    COMPRESSED.binary_search(&&*extension).is_err()
}

fn brotli(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let bits = usize::BITS - bytes.len().leading_zeros();
    let window = bits.clamp(*BROTLI_WINDOW.start(), *BROTLI_WINDOW.end());
    let params = BrotliEncoderParams {
        quality: 11,
        lgwin: window.cast_signed(),
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    let mut compressed = Vec::new();
    let _ = brotli::BrotliCompress(&mut bytes, &mut compressed, &params)?;
    Ok(compressed)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn decompress(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let _ = match encoding {
            Encoding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain),
            Encoding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut plain),
            Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
        }
        .unwrap();
        plain
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let words: String = (0..2_000).map(|n| format!("line {n} of {}\n", n * 7919 % 1_000)).collect();
        for encoding in Encoding::ALL {
            let compressed = encoding.compress(words.as_bytes()).unwrap().unwrap();
            assert!(compressed.len() * 3 < words.len(), "{encoding:?}: {}", compressed.len());
            assert_eq!(decompress(encoding, &compressed), words.as_bytes(), "{encoding:?}");
            assert_eq!(encoding.compress(words.as_bytes()).unwrap().unwrap(), compressed, "{encoding:?}");
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_left_as_it_is() {
        // Numbers that nothing is to be seen in.
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        })
        .take(10_000)
        .collect();
        let mut nearly = noise.clone();
        nearly.extend([b' '; 400]);
        for encoding in Encoding::ALL {
            assert_eq!(encoding.compress(b"").unwrap(), None, "{encoding:?}");
            assert_eq!(encoding.compress(b"a").unwrap(), None, "{encoding:?}");
            assert_eq!(encoding.compress(&noise).unwrap(), None, "{encoding:?}");
            assert_eq!(encoding.compress(&nearly).unwrap(), None, "{encoding:?}");
        }
    }

    /// RFC 9659: a client needs to have no more than 8 MiB of window.
    #[test]
    fn zstd_looks_back_by_8_mib_at_most() {
        let large = vec![b'a'; 9 << 20];
        let frame = Encoding::Zstd.compress(&large).unwrap().unwrap();
        let mut decoder = zstd::stream::read::Decoder::new(&*frame).unwrap();
        decoder.window_log_max(23).unwrap();
        assert_eq!(io::copy(&mut decoder, &mut io::sink()).unwrap(), 9 << 20);
    }

    #[test]
    fn what_is_compressed_by_nature_is_told_by_its_extension() {
        assert!(COMPRESSED.is_sorted());
        for (path, expected) in [
            ("a.html", true),
            ("a.js", true),
            ("a.svg", true),
            ("a.wasm", true),
            ("a.pdf", true),
            ("a.ttf", true),
            ("a", true),
            ("png", true),
            ("a.png/b", true),
            ("a.png", false),
            ("a/b.JPG", false),
            ("a.woff2", false),
            ("a.tar.gz", false),
            ("a.zst", false),
            ("a.7z", false),
        ] {
            assert_eq!(may_shrink(path), expected, "{path}");
        }
    }
}
