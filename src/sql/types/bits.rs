//! `bit` and `varbit`.

/// A string of bits, first bit in the high bit of the first byte; unused low bits of the last byte are 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BitString {
    /// Number of bits.
    pub len: u32,
    /// `(len + 7) / 8` bytes.
    pub bytes: Box<[u8]>,
}
