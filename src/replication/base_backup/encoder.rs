//! Compression of archives, for whoever makes them: the server, or a client that keeps them.

use std::io::{self, Read, Write};

use super::options::Compression;

/// Compresses what is written, or not.
pub enum Encoder<W: Write> {
    /// As it is.
    Plain(W),
    /// gzip.
    Gzip(flate2::write::GzEncoder<W>),
    /// LZ4 frames.
    Lz4(Box<lz4_flex::frame::FrameEncoder<W>>),
    /// zstd.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Compresses into `out`.
    ///
    /// # Errors
    /// A level that the method does not have.
    pub fn new(compression: Compression, out: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(out),
            Compression::Gzip(level) => Self::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::new(level))),
            Compression::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
            Compression::Zstd(level) => Self::Zstd(zstd::stream::write::Encoder::new(out, level)?),
        })
    }

    /// Writes the rest; what it wrote into.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(self) -> io::Result<W> {
        Ok(match self {
            Self::Plain(mut w) => {
                w.flush()?;
                w
            }
            Self::Gzip(w) => w.finish()?,
            Self::Lz4(w) => w.finish()?,
            Self::Zstd(w) => w.finish()?,
        })
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(w) => w.write(bytes),
            Self::Gzip(w) => w.write(bytes),
            Self::Lz4(w) => w.write(bytes),
            Self::Zstd(w) => w.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(w) => w.flush(),
            Self::Gzip(w) => w.flush(),
            Self::Lz4(w) => w.flush(),
            Self::Zstd(w) => w.flush(),
        }
    }
}

/// Reads an archive of this name as plain tar.
///
/// # Errors
/// zstd cannot be set up.
pub fn decoder<'a>(name: &str, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match Compression::of_name(name) {
        Compression::None => Box::new(from),
        Compression::Gzip(_) => Box::new(flate2::read::MultiGzDecoder::new(from)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(from)),
        Compression::Zstd(_) => Box::new(zstd::stream::read::Decoder::new(from)?),
    })
}
