//! Arrays of any type: shape, text form, subscripts.

use smallvec::SmallVec;

use super::scalar::is_space;
use super::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};

/// An array. Elements in row-major order; no dimensions when empty.
#[derive(Clone, Debug)]
pub struct ArrayValue {
    /// Element type.
    pub elem: Oid,
    /// Length and lower bound of each dimension; at most 6.
    pub dims: SmallVec<[Dim; 1]>,
    /// Elements.
    pub values: Vec<Datum>,
}

/// One dimension of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim {
    /// Number of elements, at least 1.
    pub len: i32,
    /// Subscript of the first.
    pub lower: i32,
}

impl Dim {
    /// Subscript of the last element.
    fn upper(self) -> i64 {
        i64::from(self.lower) + i64::from(self.len) - 1
    }

    /// Number of elements.
    fn size(self) -> usize {
        usize::try_from(self.len).unwrap_or(0)
    }

    /// How many elements come before this subscript; `None` outside.
    fn index(self, subscript: i64) -> Option<usize> {
        usize::try_from(subscript - i64::from(self.lower)).ok().filter(|&i| i < self.size())
    }
}

impl ArrayValue {
    /// One dimension from subscript 1; empty if there are no values.
    pub fn one_dim(elem: Oid, values: Vec<Datum>) -> Self {
        Self::with_lower(elem, values, 1)
    }

    /// One dimension from this subscript (`int2vector` starts at 0).
    pub fn with_lower(elem: Oid, values: Vec<Datum>, lower: i32) -> Self {
        let mut dims = SmallVec::new();
        if !values.is_empty() {
            dims.push(Dim { len: i32::try_from(values.len()).unwrap_or(i32::MAX), lower });
        }
        Self { elem, dims, values }
    }

    /// No elements.
    pub fn empty(elem: Oid) -> Self {
        Self { elem, dims: SmallVec::new(), values: Vec::new() }
    }
}

/// Most dimensions an array may have.
pub const MAX_DIMS: usize = 6;
/// Most elements an array may have (`MaxArraySize`).
pub const MAX_SIZE: usize = 134_217_727;

fn malformed(text: &str, detail: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{text}\"")).detail(detail)
}

impl ArrayValue {
    /// Product of dimensions over `values`, with the given shape.
    ///
    /// # Errors
    /// `54000` for more than six dimensions.
    pub fn shaped(elem: Oid, dims: SmallVec<[Dim; 1]>, values: Vec<Datum>) -> Result<Self, SqlError> {
        if dims.len() > MAX_DIMS {
            return Err(too_many_dims(dims.len()));
        }
        dims.iter().try_for_each(|d| check_bounds(*d))?;
        Ok(Self { elem, dims, values })
    }

    /// The element at one subscript per dimension; `None` outside.
    pub fn get(&self, subscripts: &[i32]) -> Option<&Datum> {
        if subscripts.len() != self.dims.len() || self.dims.is_empty() {
            return None;
        }
        let mut at = 0usize;
        for (d, &s) in self.dims.iter().zip(subscripts) {
            let i = i64::from(s) - i64::from(d.lower);
            if i < 0 || i >= i64::from(d.len) {
                return None;
            }
            at = at * usize::try_from(d.len).ok()? + usize::try_from(i).ok()?;
        }
        self.values.get(at)
    }

    /// The part between subscripts (inclusive; `None` means the array's own bound) of each dimension.
    pub fn slice(&self, bounds: &[(Option<i32>, Option<i32>)]) -> Self {
        if bounds.len() > self.dims.len() || self.dims.is_empty() {
            return Self::empty(self.elem);
        }
        let mut ranges = Vec::new();
        for (i, d) in self.dims.iter().enumerate() {
            let upper = d.lower + d.len - 1;
            let (from, to) = bounds.get(i).copied().unwrap_or((None, None));
            let from = from.unwrap_or(d.lower).max(d.lower);
            let to = to.unwrap_or(upper).min(upper);
            if from > to {
                return Self::empty(self.elem);
            }
            ranges.push((from - d.lower, to - from + 1));
        }
        let dims: SmallVec<[Dim; 1]> = ranges.iter().map(|&(_, len)| Dim { len, lower: 1 }).collect();
        let mut values = Vec::new();
        self.collect(0, 0, &ranges, &mut values);
        Self { elem: self.elem, dims, values }
    }

    fn collect(&self, dim: usize, base: usize, ranges: &[(i32, i32)], out: &mut Vec<Datum>) {
        let size = usize::try_from(self.dims[dim].len).unwrap_or(0);
        let (from, len) = ranges[dim];
        for i in from..from + len {
            let at = base * size + usize::try_from(i).unwrap_or(0);
            if dim + 1 == self.dims.len() {
                out.push(self.values[at].clone());
            } else {
                self.collect(dim + 1, at, ranges, out);
            }
        }
    }

    /// Stores an element, growing a one-dimensional array with NULLs as assignment to a subscript does (`array_set_element`).
    ///
    /// # Errors
    /// `2202E` for subscripts out of range, `54000` for an array that would be too large; the array is as it was then.
    pub fn set(&mut self, subscripts: &[i32], value: Datum) -> Result<(), SqlError> {
        if self.dims.is_empty() {
            let dims: SmallVec<[Dim; 1]> = subscripts.iter().map(|&lower| Dim { len: 1, lower }).collect();
            *self = Self::shaped(self.elem, dims, vec![value])?;
            return Ok(());
        }
        if subscripts.len() != self.dims.len() {
            return Err(wrong_number());
        }
        if let ([d], [s]) = (self.dims.as_slice(), subscripts) {
            self.grow(i64::from(*s).min(i64::from(d.lower)), i64::from(*s).max(d.upper()))?;
        }
        let mut at = 0usize;
        for (d, &s) in self.dims.iter().zip(subscripts) {
            let i = d.index(i64::from(s)).ok_or_else(out_of_range)?;
            at = at * d.size() + i;
        }
        *self.values.get_mut(at).ok_or_else(out_of_range)? = value;
        Ok(())
    }

    /// Stores a slice, both bounds inclusive; `None` is the array's own bound. A one-dimensional array grows as for one element
    /// (`array_set_slice`).
    ///
    /// # Errors
    /// `2202E` for bounds out of range or a source with too few elements, `54000` for an array that would be too large; the array is
    /// as it was then.
    pub fn set_slice(&mut self, bounds: &[(Option<i32>, Option<i32>)], source: &Self) -> Result<(), SqlError> {
        let too_small = || SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "source array too small");
        let backwards = || SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "upper bound cannot be less than lower bound");
        if self.dims.is_empty() {
            let mut dims: SmallVec<[Dim; 1]> = SmallVec::new();
            let mut count = 1usize;
            for bound in bounds {
                let (Some(lower), Some(upper)) = *bound else {
                    return Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "array slice subscript must provide both boundaries")
                        .detail("When assigning to a slice of an empty array value, slice boundaries must be fully specified."));
                };
                let len = length(i64::from(lower), i64::from(upper))?;
                count = count.checked_mul(len).filter(|&n| n <= MAX_SIZE).ok_or_else(too_large)?;
                dims.push(Dim { len: i32::try_from(len).map_err(|_| too_large())?, lower });
            }
            let values = source.values.get(..count).ok_or_else(too_small)?.to_vec();
            if !values.is_empty() {
                *self = Self::shaped(self.elem, dims, values)?;
            }
            return Ok(());
        }
        if bounds.len() > self.dims.len() {
            return Err(wrong_number());
        }
        let grows = self.dims.len() == 1;
        let mut ranges: SmallVec<[(i64, i64); 1]> = SmallVec::new();
        for (i, d) in self.dims.iter().enumerate() {
            let (lower, upper) = bounds.get(i).copied().unwrap_or((None, None));
            let (lower, upper) = (lower.map_or(i64::from(d.lower), i64::from), upper.map_or(d.upper(), i64::from));
            if lower > upper {
                return Err(backwards());
            }
            if !grows && (d.index(lower).is_none() || d.index(upper).is_none()) {
                return Err(out_of_range());
            }
            ranges.push((lower, upper));
        }
        let mut wanted = 1usize;
        for &(lower, upper) in &ranges {
            wanted = wanted.checked_mul(length(lower, upper)?).filter(|&n| n <= MAX_SIZE).ok_or_else(too_large)?;
        }
        let source = source.values.get(..wanted).ok_or_else(too_small)?;
        if let (true, [d], [(lower, upper)]) = (grows, self.dims.as_slice(), ranges.as_slice()) {
            self.grow((*lower).min(i64::from(d.lower)), (*upper).max(d.upper()))?;
        }
        let mut at: SmallVec<[i64; 1]> = ranges.iter().map(|r| r.0).collect();
        for value in source {
            let mut flat = 0usize;
            for (d, &s) in self.dims.iter().zip(&at) {
                flat = flat * d.size() + d.index(s).ok_or_else(out_of_range)?;
            }
            *self.values.get_mut(flat).ok_or_else(out_of_range)? = value.clone();
            for (s, &(lower, upper)) in at.iter_mut().zip(&ranges).rev() {
                if *s < upper {
                    *s += 1;
                    break;
                }
                *s = lower;
            }
        }
        Ok(())
    }

    /// Makes the one dimension reach from `lower` to `upper`, both inclusive and no less than they are, with NULLs.
    fn grow(&mut self, lower: i64, upper: i64) -> Result<(), SqlError> {
        let [d] = self.dims.as_mut_slice() else { return Ok(()) };
        let total = length(lower, upper)?;
        let before = length(lower, i64::from(d.lower) - 1)?;
        if total == d.size() {
            return Ok(());
        }
        let lower = i32::try_from(lower).map_err(|_| too_large())?;
        let len = i32::try_from(total).map_err(|_| too_large())?;
        check_bounds(Dim { len, lower })?;
        *d = Dim { len, lower };
        self.values.splice(0..0, std::iter::repeat_n(Datum::Null, before));
        self.values.resize(total, Datum::Null);
        Ok(())
    }

    /// Reads the text form; `read` reads one element.
    ///
    /// # Errors
    /// `22P02` with PostgreSQL's detail.
    pub fn parse(text: &str, elem: Oid, delimiter: u8, mut read: impl FnMut(&str) -> Result<Datum, SqlError>) -> Result<Self, SqlError> {
        let mut p = Parser { text, at: 0, delimiter };
        let explicit = p.explicit_dims()?;
        p.blanks();
        if p.peek() != Some(b'{') {
            return Err(if explicit.is_some() {
                malformed(text, "Array contents must start with \"{\".")
            } else {
                malformed(text, "Array value must start with \"{\" or dimension information.")
            });
        }
        let mut values = Vec::new();
        let mut lens: Vec<Option<usize>> = Vec::new();
        p.braces(0, &mut lens, &mut values, &mut read)?;
        p.blanks();
        if p.at < text.len() {
            return Err(malformed(text, "Junk after closing right brace."));
        }
        if values.is_empty() {
            return Ok(Self::empty(elem));
        }
        let mut dims = SmallVec::new();
        for len in &lens {
            dims.push(Dim { len: i32::try_from(len.unwrap_or(0)).map_err(|_| too_many_dims(0))?, lower: 1 });
        }
        if let Some(explicit) = explicit {
            if explicit.len() != dims.len() || explicit.iter().zip(&dims).any(|(a, b): (&Dim, &Dim)| a.len != b.len) {
                return Err(malformed(text, "Specified array dimensions do not match array contents."));
            }
            dims = explicit;
        }
        Self::shaped(elem, dims, values)
    }

    /// Appends the text form; `write` appends one element that is not NULL.
    ///
    /// # Errors
    /// The element's.
    pub fn write(
        &self,
        delimiter: u8,
        out: &mut Vec<u8>,
        mut write: impl FnMut(&Datum, &mut Vec<u8>) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        if self.values.is_empty() {
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        if self.dims.iter().any(|d| d.lower != 1) {
            for d in &self.dims {
                out.extend_from_slice(format!("[{}:{}]", d.lower, i64::from(d.lower) + i64::from(d.len) - 1).as_bytes());
            }
            out.push(b'=');
        }
        let mut values = self.values.iter();
        self.write_dim(0, &mut values, delimiter, out, &mut write)
    }

    fn write_dim<'a>(
        &'a self,
        dim: usize,
        values: &mut impl Iterator<Item = &'a Datum>,
        delimiter: u8,
        out: &mut Vec<u8>,
        write: &mut impl FnMut(&Datum, &mut Vec<u8>) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        out.push(b'{');
        for i in 0..self.dims[dim].len {
            if i > 0 {
                out.push(delimiter);
            }
            if dim + 1 < self.dims.len() {
                self.write_dim(dim + 1, values, delimiter, out, write)?;
                continue;
            }
            match values.next() {
                None | Some(Datum::Null) => out.extend_from_slice(b"NULL"),
                Some(v) => {
                    let start = out.len();
                    write(v, out)?;
                    quote_element(start, delimiter, out);
                }
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// Quotes the element that starts at `start`, if it would not read back bare.
fn quote_element(start: usize, delimiter: u8, out: &mut Vec<u8>) {
    let element = &out[start..];
    let needs = element.is_empty()
        || element.eq_ignore_ascii_case(b"null")
        || element.iter().any(|&c| matches!(c, b'"' | b'\\' | b'{' | b'}') || c == delimiter || is_space(char::from(c)));
    if !needs {
        return;
    }
    let element = element.to_vec();
    out.truncate(start);
    out.push(b'"');
    for c in element {
        if matches!(c, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(c);
    }
    out.push(b'"');
}

/// So that the arithmetic on bounds cannot overflow (`ArrayCheckBounds`).
fn check_bounds(d: Dim) -> Result<(), SqlError> {
    match d.lower.checked_add(d.len) {
        Some(_) => Ok(()),
        None => Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("array lower bound is too large: {}", d.lower))),
    }
}

/// Elements from `lower` to `upper`, both inclusive.
fn length(lower: i64, upper: i64) -> Result<usize, SqlError> {
    usize::try_from((upper - lower + 1).max(0)).ok().filter(|&n| n <= MAX_SIZE).ok_or_else(too_large)
}

/// `54000`.
pub fn too_large() -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("array size exceeds the maximum allowed ({MAX_SIZE})"))
}

fn out_of_range() -> SqlError {
    SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "array subscript out of range")
}

fn wrong_number() -> SqlError {
    SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "wrong number of array subscripts")
}

/// `54000`.
pub fn too_many_dims(n: usize) -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("number of array dimensions ({n}) exceeds the maximum allowed ({MAX_DIMS})"))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    delimiter: u8,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|c| is_space(char::from(c))) {
            self.at += 1;
        }
    }

    /// `[1:3][-1:0]=`.
    fn explicit_dims(&mut self) -> Result<Option<SmallVec<[Dim; 1]>>, SqlError> {
        self.blanks();
        if self.peek() != Some(b'[') {
            return Ok(None);
        }
        let mut dims = SmallVec::new();
        while self.peek() == Some(b'[') {
            let Some(close) = self.text[self.at..].find(']') else {
                return Err(malformed(self.text, "Missing \"]\" after array dimensions."));
            };
            let inner = &self.text[self.at + 1..self.at + close];
            let int = |s: &str| s.trim().parse::<i32>().map_err(|_| malformed(self.text, "Missing array dimension value."));
            let (lower, upper) = match inner.split_once(':') {
                Some((l, u)) => (int(l)?, int(u)?),
                None => (1, int(inner)?),
            };
            if upper < lower {
                return Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "upper bound cannot be less than lower bound"));
            }
            dims.push(Dim { len: upper.saturating_sub(lower).saturating_add(1), lower });
            self.at += close + 1;
            self.blanks();
        }
        if self.peek() != Some(b'=') {
            return Err(malformed(self.text, "Missing \"=\" after array dimensions."));
        }
        self.at += 1;
        if dims.len() > MAX_DIMS {
            return Err(too_many_dims(dims.len()));
        }
        Ok(Some(dims))
    }

    /// One `{...}` at this depth; `lens[depth]` is the length all siblings must have.
    fn braces(
        &mut self,
        depth: usize,
        lens: &mut Vec<Option<usize>>,
        values: &mut Vec<Datum>,
        read: &mut impl FnMut(&str) -> Result<Datum, SqlError>,
    ) -> Result<(), SqlError> {
        let uneven = |t: &str| malformed(t, "Multidimensional arrays must have sub-arrays with matching dimensions.");
        if depth >= MAX_DIMS {
            return Err(too_many_dims(depth + 1));
        }
        if lens.len() <= depth {
            if depth > 0 && !values.is_empty() {
                return Err(uneven(self.text));
            }
            lens.push(None);
        }
        self.at += 1;
        let mut count = 0;
        let mut nested = None;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            if depth > 0 {
                return Err(uneven(self.text));
            }
            return Ok(());
        }
        loop {
            self.blanks();
            match self.peek() {
                None => return Err(malformed(self.text, "Unexpected end of input.")),
                Some(b'{') => {
                    if nested == Some(false) {
                        return Err(malformed(self.text, "Unexpected \"{\" character."));
                    }
                    nested = Some(true);
                    self.braces(depth + 1, lens, values, read)?;
                }
                Some(c @ b'}') => {
                    return Err(malformed(self.text, format!("Unexpected \"{}\" character.", char::from(c))));
                }
                Some(c) if c == self.delimiter => {
                    return Err(malformed(self.text, format!("Unexpected \"{}\" character.", char::from(c))));
                }
                Some(_) => {
                    if nested == Some(true) || lens.len() > depth + 1 {
                        return Err(malformed(self.text, "Unexpected array element."));
                    }
                    nested = Some(false);
                    values.push(self.element(read)?);
                }
            }
            count += 1;
            self.blanks();
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    break;
                }
                Some(c) if c == self.delimiter => self.at += 1,
                None => return Err(malformed(self.text, "Unexpected end of input.")),
                Some(b'{') => return Err(malformed(self.text, "Unexpected \"{\" character.")),
                Some(_) => return Err(malformed(self.text, "Unexpected array element.")),
            }
        }
        match lens[depth] {
            None => lens[depth] = Some(count),
            Some(n) if n != count => return Err(uneven(self.text)),
            Some(_) => {}
        }
        Ok(())
    }

    fn element(&mut self, read: &mut impl FnMut(&str) -> Result<Datum, SqlError>) -> Result<Datum, SqlError> {
        let mut s = String::new();
        let mut quoted = false;
        // Blanks at the end of an unquoted element do not count.
        let mut keep = 0;
        loop {
            let Some(c) = self.text[self.at..].chars().next() else {
                return Err(malformed(self.text, "Unexpected end of input."));
            };
            match c {
                '"' if !quoted && s.is_empty() => {
                    quoted = true;
                    self.at += 1;
                    loop {
                        let Some(c) = self.text[self.at..].chars().next() else {
                            return Err(malformed(self.text, "Unexpected end of input."));
                        };
                        self.at += c.len_utf8();
                        match c {
                            '"' => break,
                            '\\' => {
                                let Some(c) = self.text[self.at..].chars().next() else {
                                    return Err(malformed(self.text, "Unexpected end of input."));
                                };
                                self.at += c.len_utf8();
                                s.push(c);
                            }
                            c => s.push(c),
                        }
                    }
                    self.blanks();
                    match self.peek() {
                        Some(b'}') => {}
                        Some(c) if c == self.delimiter => {}
                        None => return Err(malformed(self.text, "Unexpected end of input.")),
                        Some(_) => return Err(malformed(self.text, "Unexpected array element.")),
                    }
                    break;
                }
                '"' => return Err(malformed(self.text, "Unexpected array element.")),
                '{' => return Err(malformed(self.text, "Unexpected \"{\" character.")),
                '}' => break,
                c if u32::from(c) == u32::from(self.delimiter) => break,
                '\\' => {
                    self.at += 1;
                    let Some(c) = self.text[self.at..].chars().next() else {
                        return Err(malformed(self.text, "Unexpected end of input."));
                    };
                    self.at += c.len_utf8();
                    s.push(c);
                    keep = s.len();
                }
                c => {
                    self.at += c.len_utf8();
                    s.push(c);
                    if !is_space(c) {
                        keep = s.len();
                    }
                }
            }
        }
        if !quoted {
            s.truncate(keep);
            if s.eq_ignore_ascii_case("null") {
                return Ok(Datum::Null);
            }
        }
        read(&s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::types::oids;

    fn round(s: &str) -> String {
        let a = match ArrayValue::parse(s, oids::TEXT, b',', |e| Ok(Datum::text(e))) {
            Ok(a) => a,
            Err(e) => return e.fields().detail.clone().unwrap_or_else(|| e.to_string()),
        };
        let mut out = Vec::new();
        a.write(b',', &mut out, |v, o| {
            o.extend_from_slice(v.as_str().unwrap().as_bytes());
            Ok(())
        })
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_form_round_trips() {
        for s in ["{}", "{a,b}", "{{a,b},{c,d}}", "{NULL,\"null\",\"\"}", "[0:1]={x,y}", "{\"a b\",\"c\\\"d\",\"e\\\\f\"}"] {
            assert_eq!(round(s), s);
        }
        assert_eq!(round(" { a , b c } "), "{a,\"b c\"}");
        assert_eq!(round("{a,{b}}"), "Unexpected \"{\" character.");
        assert_eq!(round("{{a},{b,c}}"), "Multidimensional arrays must have sub-arrays with matching dimensions.");
        assert_eq!(round("x"), "Array value must start with \"{\" or dimension information.");
        assert_eq!(round("{a"), "Unexpected end of input.");
    }

    #[test]
    fn subscripts_and_slices() {
        let a = ArrayValue::one_dim(oids::INT4, (1..=4).map(Datum::Int4).collect());
        assert!(matches!(a.get(&[2]), Some(Datum::Int4(2))));
        assert!(a.get(&[5]).is_none());
        assert_eq!(a.slice(&[(Some(2), Some(9))]).values.len(), 3);
        let mut grown = a.clone();
        grown.set(&[6], Datum::Int4(9)).unwrap();
        assert_eq!(grown.values.len(), 6);
        grown.set(&[-1], Datum::Int4(9)).unwrap();
        assert_eq!((grown.values.len(), grown.dims[0]), (8, Dim { len: 8, lower: -1 }));
        for beyond in [i32::MAX, i32::MIN] {
            assert_eq!(grown.set(&[beyond], Datum::Null).unwrap_err().state(), SqlState::PROGRAM_LIMIT_EXCEEDED);
            assert_eq!(grown.set_slice(&[(Some(beyond), Some(beyond))], &a).unwrap_err().state(), SqlState::PROGRAM_LIMIT_EXCEEDED);
        }
        grown.set_slice(&[(Some(8), Some(9))], &a).unwrap();
        assert_eq!((grown.values.len(), grown.dims[0]), (11, Dim { len: 11, lower: -1 }));
    }
}
