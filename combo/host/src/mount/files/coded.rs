//! Contents -> the same in a coding, on the fly: so that whoever asks first does not wait long. Takes time; on the
//! blocking pool.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};

use super::accept::Coding;

/// What is smaller is sent as it is: it fits into a packet or two either way.
pub(super) const SMALLEST: u64 = 512;

/// Brotli at a level that takes some 30 ms for a megabyte of text, as zstd and gzip do at theirs.
const BROTLI: i32 = 5;
const ZSTD: i32 = 7;
const GZIP: u32 = 6;

/// Powers of two of bytes that brotli looks back.
const WINDOW: i32 = 20;

/// The contents in a coding; nothing if that saves less than a twentieth.
///
/// # Errors
///
/// When there is no memory for it.
pub(super) fn coded(contents: &[u8], coding: Coding) -> io::Result<Option<Vec<u8>>> {
    let into = Vec::with_capacity(contents.len() / 3);
    let coded = match coding {
        Coding::Brotli => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: BROTLI,
                lgwin: WINDOW,
                size_hint: contents.len(),
                ..Default::default()
            };
            let mut writer = brotli::CompressorWriter::with_params(into, 64 << 10, &params);
            writer.write_all(contents)?;
            writer.into_inner()
        }
        Coding::Zstd => zstd::bulk::compress(contents, ZSTD)?,
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(into, Compression::new(GZIP));
            encoder.write_all(contents)?;
            encoder.finish()?
        }
    };
    Ok((coded.len() < contents.len() - contents.len() / 20).then_some(coded))
}
