//! Hash functions with PostgreSQL's values, which users see: `hashtext(x)` and its kin.
//!
//! Bob Jenkins' lookup3 (<http://burtleburtle.net/bob/c/lookup3.c>), seeded as PostgreSQL's common/hashfn.c does.

use super::{Call, ScalarFn};
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// Bodies by `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("hashtext", hash_text),
    ("hashname", hash_text),
    ("hashbpchar", hash_bpchar),
    ("hashvarlena", hash_bytea),
    ("hashchar", hash_integer),
    ("hashint2", hash_integer),
    ("hashint4", hash_integer),
    ("hashint8", hash_integer),
    ("hashoid", hash_integer),
];

fn mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    for (shift, rotate_of) in [(4, 0), (6, 1), (8, 2), (16, 0), (19, 1), (4, 2)] {
        // Each step: x -= z; x ^= rot(z, n); z += y, with x, y, z = a, b, c in turn.
        let (x, y, z) = match rotate_of {
            0 => (&mut *a, &mut *b, &mut *c),
            1 => (&mut *b, &mut *c, &mut *a),
            _ => (&mut *c, &mut *a, &mut *b),
        };
        *x = x.wrapping_sub(*z) ^ z.rotate_left(shift);
        *z = z.wrapping_add(*y);
    }
}

fn finish(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// Hash of bytes, PostgreSQL's `hash_bytes`.
pub(super) fn hash_bytes(bytes: &[u8]) -> u32 {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let seed = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
    let (mut a, mut b, mut c) = (seed, seed, seed);
    let mut chunks = bytes.chunks_exact(12);
    let word = |part: &[u8]| part.iter().rev().fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
    for chunk in &mut chunks {
        a = a.wrapping_add(word(&chunk[..4]));
        b = b.wrapping_add(word(&chunk[4..8]));
        c = c.wrapping_add(word(&chunk[8..]));
        mix(&mut a, &mut b, &mut c);
    }
    let rest = chunks.remainder();
    let part = |from: usize, upto: usize| word(rest.get(from..upto.min(rest.len())).unwrap_or(&[]));
    a = a.wrapping_add(part(0, 4));
    b = b.wrapping_add(part(4, 8));
    // The lowest byte of c is the length's.
    c = c.wrapping_add(part(8, 12) << 8);
    finish(a, b, c)
}

/// Hash of a word, PostgreSQL's `hash_bytes_uint32`.
pub(super) fn hash_word(word: u32) -> u32 {
    let seed = 0x9e37_79b9_u32.wrapping_add(4).wrapping_add(3_923_095);
    finish(seed.wrapping_add(word), seed, seed)
}

fn answer(hash: u32) -> Datum {
    Datum::Int4(hash.cast_signed())
}

fn hash_text(_: &mut Call<'_>, args: &[Datum]) -> Result<Datum, SqlError> {
    match args {
        [Datum::Text(text)] => Ok(answer(hash_bytes(text.as_bytes()))),
        _ => Err(SqlError::internal("hashtext of something else")),
    }
}

fn hash_bpchar(_: &mut Call<'_>, args: &[Datum]) -> Result<Datum, SqlError> {
    match args {
        [Datum::Text(text)] => Ok(answer(hash_bytes(text.trim_end_matches(' ').as_bytes()))),
        _ => Err(SqlError::internal("hashbpchar of something else")),
    }
}

fn hash_bytea(_: &mut Call<'_>, args: &[Datum]) -> Result<Datum, SqlError> {
    match args {
        [Datum::Bytea(bytes)] => Ok(answer(hash_bytes(bytes))),
        _ => Err(SqlError::internal("hashvarlena of something else")),
    }
}

fn hash_integer(_: &mut Call<'_>, args: &[Datum]) -> Result<Datum, SqlError> {
    let word = match args {
        [Datum::Char(n)] => i32::from(n.cast_signed()).cast_unsigned(),
        [Datum::Int2(n)] => i32::from(*n).cast_unsigned(),
        [Datum::Int4(n)] => n.cast_unsigned(),
        [Datum::Oid(n)] => *n,
        [Datum::Int8(n)] => {
            // Equal values of int4 and int8 hash alike.
            #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
            let (low, high) = (n.cast_unsigned() as u32, (n.cast_unsigned() >> 32) as u32);
            low ^ if *n >= 0 { high } else { !high }
        }
        _ => return Err(SqlError::internal("hash of something else")),
    };
    Ok(answer(hash_word(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that PostgreSQL 15 gives: select hashtext(''), hashtext('abc'), hashtext('a longer text, of more than twelve bytes'), hashint4(42).
    #[test]
    fn values_are_postgresqls() {
        assert_eq!(hash_bytes(b"").cast_signed(), VALUES[0]);
        assert_eq!(hash_bytes(b"abc").cast_signed(), VALUES[1]);
        assert_eq!(hash_bytes(b"a longer text, of more than twelve bytes").cast_signed(), VALUES[2]);
        assert_eq!(hash_word(42).cast_signed(), VALUES[3]);
    }

    const VALUES: [i32; 4] = [-1_477_818_771, -785_388_649, -887_503_599, 1_509_752_520];
}
