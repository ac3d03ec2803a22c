//! `bit` and `varbit`.

use std::sync::Arc;

use super::Datum;
use crate::sqlstate::{SqlError, SqlState};

/// A string of bits, first bit in the high bit of the first byte; unused low bits of the last byte are 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BitString {
    /// Number of bits.
    pub len: u32,
    /// `(len + 7) / 8` bytes.
    pub bytes: Box<[u8]>,
}

impl BitString {
    /// From single bits.
    pub fn from_bits(bits: impl Iterator<Item = bool>) -> Self {
        let mut bytes = Vec::new();
        let mut len = 0u32;
        for bit in bits {
            if len.is_multiple_of(8) {
                bytes.push(0);
            }
            if let Some(last) = bytes.last_mut().filter(|_| bit) {
                *last |= 0x80 >> (len % 8);
            }
            len += 1;
        }
        Self { len, bytes: bytes.into() }
    }

    /// Its bits, first to last.
    pub fn bits(&self) -> impl Iterator<Item = bool> {
        (0..self.len).map(|i| self.bytes.get((i / 8) as usize).is_some_and(|b| b & (0x80 >> (i % 8)) != 0))
    }

    /// Reads `0101`, `b0101`, `x1f`.
    ///
    /// # Errors
    /// `22P02`.
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        let bad =
            |c: char, kind: &str| SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("\"{c}\" is not a valid {kind} digit"));
        let (body, hex) = match text.as_bytes().first() {
            Some(b'b' | b'B') => (&text[1..], false),
            Some(b'x' | b'X') => (&text[1..], true),
            _ => (text, false),
        };
        let mut bits = Vec::with_capacity(body.len());
        for c in body.chars() {
            if hex {
                let d = c.to_digit(16).ok_or_else(|| bad(c, "hexadecimal"))?;
                bits.extend((0..4).rev().map(|i| d >> i & 1 == 1));
            } else {
                bits.push(match c {
                    '0' => false,
                    '1' => true,
                    _ => return Err(bad(c, "binary")),
                });
            }
        }
        Ok(Self::from_bits(bits.into_iter()))
    }

    /// Appends `0101`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.bits().map(|b| b'0' + u8::from(b)));
    }
}

/// Longest bit string a column can declare.
pub const MAX_LEN: u32 = 83_886_080;

/// Fits a bit string to `bit(n)` or `varbit(n)`.
///
/// # Errors
/// `22026`-like length mismatch for implicit fits.
pub fn fit(b: Arc<BitString>, fixed: bool, typmod: i32, explicit: bool) -> Result<Datum, SqlError> {
    let Some(limit) = u32::try_from(typmod).ok().filter(|n| (1..=MAX_LEN).contains(n)) else {
        return Ok(Datum::Bits(b));
    };
    if b.len == limit || (!fixed && b.len < limit) {
        return Ok(Datum::Bits(b));
    }
    if !explicit {
        return Err(if fixed {
            SqlError::new(SqlState("22026"), format!("bit string length {} does not match type bit({limit})", b.len))
        } else {
            SqlError::new(SqlState::STRING_DATA_RIGHT_TRUNCATION, format!("bit string too long for type bit varying({limit})"))
        });
    }
    let bits = b.bits().chain(std::iter::repeat(false)).take(limit as usize);
    Ok(Datum::Bits(Arc::new(BitString::from_bits(bits))))
}
