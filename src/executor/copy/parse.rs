//! Bytes to fields. Takes input in pieces that end anywhere; a piece of a line waits for its rest.

use memchr::{memchr2, memchr3};

use super::options::{Format, Options};
use crate::sqlstate::{SqlError, SqlState};

/// The fields of a row, one behind the other in one buffer that is used for every row.
#[derive(Debug, Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`, and whether it is NULL.
    ends: Vec<(usize, bool)>,
}

impl Fields {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// What was put into `bytes` since the last one is a field.
    fn end(&mut self, null: bool) {
        if null {
            self.bytes.truncate(self.ends.last().map_or(0, |(end, _)| *end));
        }
        self.ends.push((self.bytes.len(), null));
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// One: its bytes, or NULL.
    pub(super) fn get(&self, i: usize) -> Option<Option<&[u8]>> {
        let (end, null) = *self.ends.get(i)?;
        let start = i.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |(end, _)| *end);
        Some(if null { None } else { self.bytes.get(start..end) })
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|i| self.get(i).flatten())
    }
}

/// What begins a binary copy.
pub(super) const BINARY_SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Cuts input into rows.
#[derive(Debug)]
pub(super) struct RowReader {
    format: Format,
    delimiter: u8,
    null: Vec<u8>,
    quote: u8,
    escape: u8,
    pending: Vec<u8>,
    /// Where in `pending` the next row begins.
    start: usize,
    /// Up to where `pending` is known to hold no end of that row's line, and whether a quote is open there.
    scanned: usize,
    in_quote: bool,
    /// After an escape character inside quotes.
    escaped: bool,
    binary_begun: bool,
    /// `\.` or the binary trailer was read.
    pub(super) ended: bool,
    /// Lines read so far.
    pub(super) line: u64,
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

impl RowReader {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            format: options.format,
            delimiter: options.delimiter,
            null: options.null.clone(),
            quote: options.quote,
            escape: options.escape,
            pending: Vec::new(),
            start: 0,
            scanned: 0,
            in_quote: false,
            escaped: false,
            binary_begun: false,
            ended: false,
            line: 0,
        }
    }

    /// Adds input.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !self.ended {
            // What was read is dropped once per piece, not once per row.
            self.pending.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
            self.pending.extend_from_slice(bytes);
        }
    }

    /// The next row's fields; `None`: more input is needed. With `last`, what is left without an end of line is a row too.
    ///
    /// `fields` is cleared and filled; `quoted` tells for each field whether it was quoted (CSV).
    pub(super) fn next(&mut self, last: bool, fields: &mut Fields, quoted: &mut Vec<bool>) -> Result<bool, SqlError> {
        fields.clear();
        quoted.clear();
        if self.format == Format::Binary {
            return self.next_binary(last, fields);
        }
        let Some((line_end, next)) = self.line_end(last)? else { return Ok(false) };
        self.line += 1;
        let line = self.start..line_end;
        self.consume(next);
        let line = self.pending.get(line).unwrap_or_default();
        if line == b"\\." {
            self.end();
            return Ok(false);
        }
        match self.format {
            Format::Csv => self.split_csv(line, fields, quoted)?,
            Format::Text | Format::Binary => self.split_text(line, fields),
        }
        Ok(true)
    }

    /// Takes no more input.
    fn end(&mut self) {
        self.ended = true;
        self.pending.clear();
        self.consume(0);
    }

    /// The next row begins at `at`.
    fn consume(&mut self, at: usize) {
        self.start = at;
        self.scanned = at;
        self.in_quote = false;
        self.escaped = false;
    }

    /// Where the first line ends, and where the next begins.
    fn line_end(&mut self, last: bool) -> Result<Option<(usize, usize)>, SqlError> {
        if self.ended {
            return Ok(None);
        }
        let found = if self.format == Format::Csv { self.csv_line_end(last) } else { self.text_line_end(last) };
        if found.is_none() && last && self.start < self.pending.len() {
            if self.in_quote {
                return Err(bad("unterminated CSV quoted field"));
            }
            let end = self.pending.len();
            return Ok(Some((end, end)));
        }
        Ok(found)
    }

    fn text_line_end(&mut self, last: bool) -> Option<(usize, usize)> {
        let mut i = self.scanned;
        loop {
            let Some(found) = self.pending.get(i..).and_then(|rest| memchr3(b'\n', b'\r', b'\\', rest)) else {
                i = self.pending.len();
                break;
            };
            i += found;
            if self.pending.get(i) != Some(&b'\\') {
                match self.end_at(i, last) {
                    Some(end) => return Some(end),
                    None => break,
                }
            }
            // The byte behind a backslash is data, even an end of line.
            if i + 1 >= self.pending.len() {
                break;
            }
            i += 2;
        }
        self.scanned = i.min(self.pending.len());
        None
    }

    fn csv_line_end(&mut self, last: bool) -> Option<(usize, usize)> {
        let mut i = self.scanned;
        while let Some(&b) = self.pending.get(i) {
            // As PostgreSQL: an escape that is not the quote itself shields what follows inside quotes.
            if self.in_quote && b == self.escape && self.escape != self.quote {
                self.escaped = !self.escaped;
            } else if b == self.quote && !self.escaped {
                self.in_quote = !self.in_quote;
            } else {
                self.escaped = false;
            }
            if !self.in_quote && matches!(b, b'\n' | b'\r') {
                match self.end_at(i, last) {
                    Some(end) => return Some(end),
                    None => break,
                }
            }
            i += 1;
        }
        self.scanned = i.min(self.pending.len());
        None
    }

    /// The end of line at `i`, and where the next line begins; `None`: that needs one more byte.
    fn end_at(&self, i: usize, last: bool) -> Option<(usize, usize)> {
        match (self.pending.get(i), self.pending.get(i + 1)) {
            (Some(b'\r'), Some(b'\n')) => Some((i, i + 2)),
            (Some(b'\r'), None) if !last => None,
            _ => Some((i, i + 1)),
        }
    }

    /// PostgreSQL: `CopyReadAttributesText`.
    fn split_text(&self, line: &[u8], fields: &mut Fields) {
        let mut start = 0;
        loop {
            let mut i = start;
            loop {
                let rest = line.get(i..).unwrap_or_default();
                let plain = memchr2(self.delimiter, b'\\', rest).unwrap_or(rest.len());
                fields.bytes.extend_from_slice(&rest[..plain]);
                i += plain;
                if line.get(i) != Some(&b'\\') {
                    break;
                }
                let Some(&c) = line.get(i + 1) else {
                    fields.bytes.push(b'\\');
                    i += 1;
                    continue;
                };
                i += 2;
                fields.bytes.push(match c {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    b'0'..=b'7' => {
                        let mut n = u32::from(c - b'0');
                        for _ in 0..2 {
                            match line.get(i) {
                                Some(&d @ b'0'..=b'7') => {
                                    n = n * 8 + u32::from(d - b'0');
                                    i += 1;
                                }
                                _ => break,
                            }
                        }
                        u8::try_from(n & 0xff).unwrap_or(0)
                    }
                    b'x' => {
                        let mut n = None;
                        for _ in 0..2 {
                            match line.get(i).and_then(|&d| char::from(d).to_digit(16)) {
                                Some(d) => {
                                    n = Some(n.unwrap_or(0) * 16 + d);
                                    i += 1;
                                }
                                None => break,
                            }
                        }
                        n.and_then(|n| u8::try_from(n).ok()).unwrap_or(b'x')
                    }
                    other => other,
                });
            }
            fields.end(line.get(start..i).unwrap_or_default() == self.null.as_slice());
            if i >= line.len() {
                return;
            }
            start = i + 1;
        }
    }

    /// PostgreSQL: `CopyReadAttributesCSV`.
    fn split_csv(&self, line: &[u8], fields: &mut Fields, quoted: &mut Vec<bool>) -> Result<(), SqlError> {
        let mut i = 0;
        loop {
            let start = i;
            let (mut in_quote, mut saw_quote) = (false, false);
            loop {
                let Some(&b) = line.get(i) else {
                    if in_quote {
                        return Err(bad("unterminated CSV quoted field"));
                    }
                    break;
                };
                if in_quote {
                    i += 1;
                    if b == self.escape
                        && let Some(&c) = line.get(i)
                        && (c == self.escape || c == self.quote)
                    {
                        fields.bytes.push(c);
                        i += 1;
                    } else if b == self.quote {
                        in_quote = false;
                    } else {
                        fields.bytes.push(b);
                    }
                } else if b == self.delimiter {
                    break;
                } else {
                    i += 1;
                    if b == self.quote {
                        in_quote = true;
                        saw_quote = true;
                    } else {
                        fields.bytes.push(b);
                    }
                }
            }
            let raw = line.get(start..i).unwrap_or_default();
            fields.end(!saw_quote && raw == self.null.as_slice());
            quoted.push(saw_quote);
            if i >= line.len() {
                return Ok(());
            }
            i += 1;
        }
    }

    fn next_binary(&mut self, last: bool, fields: &mut Fields) -> Result<bool, SqlError> {
        if self.ended {
            return Ok(false);
        }
        let mut at = self.start;
        let mut cut = Cutter { bytes: &self.pending, at: &mut at };
        if !self.binary_begun {
            let Some(signature) = cut.take(BINARY_SIGNATURE.len()) else { return short(last, "COPY file signature not recognized") };
            if signature != BINARY_SIGNATURE {
                return Err(bad("COPY file signature not recognized"));
            }
            let Some(flags) = cut.int4() else { return short(last, "invalid COPY file header (missing flags)") };
            if flags & (1 << 16) != 0 {
                return Err(bad("invalid COPY file header (WITH OIDS)"));
            }
            if flags & !0xffff != 0 {
                return Err(bad("unrecognized critical flags in COPY file header"));
            }
            let Some(extension) = cut.int4() else { return short(last, "invalid COPY file header (missing length)") };
            let extension = usize::try_from(extension).map_err(|_| bad("invalid COPY file header (wrong length)"))?;
            if cut.take(extension).is_none() {
                return short(last, "invalid COPY file header (wrong length)");
            }
            self.binary_begun = true;
            self.start = at;
            self.scanned = at;
            cut = Cutter { bytes: &self.pending, at: &mut at };
        }
        let Some(count) = cut.int2() else {
            // PostgreSQL's own writers end with a trailer; its protocol 2 clients need not.
            return if last && self.start < self.pending.len() { Err(bad("unexpected EOF in COPY data")) } else { Ok(false) };
        };
        if count == -1 {
            if at < self.pending.len() {
                return Err(bad("received copy data after EOF marker"));
            }
            self.end();
            return Ok(false);
        }
        for _ in 0..count {
            let Some(length) = cut.int4() else { return short(last, "unexpected EOF in COPY data") };
            if length == -1 {
                fields.end(true);
                continue;
            }
            let length = usize::try_from(length).map_err(|_| bad("invalid field size"))?;
            let Some(bytes) = cut.take(length) else { return short(last, "unexpected EOF in COPY data") };
            fields.bytes.extend_from_slice(bytes);
            fields.end(false);
        }
        self.line += 1;
        self.consume(at);
        Ok(true)
    }
}

/// More input is needed; an error if there is none.
fn short(last: bool, message: &str) -> Result<bool, SqlError> {
    if last { Err(bad(message)) } else { Ok(false) }
}

struct Cutter<'a> {
    bytes: &'a [u8],
    at: &'a mut usize,
}

impl<'a> Cutter<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(n)?;
        let part = self.bytes.get(*self.at..end)?;
        *self.at = end;
        Some(part)
    }

    fn int2(&mut self) -> Option<i16> {
        self.take(2)?.try_into().ok().map(i16::from_be_bytes)
    }

    fn int4(&mut self) -> Option<i32> {
        self.take(4)?.try_into().ok().map(i32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Header;
    use super::*;

    fn options(format: Format) -> Options {
        let csv = format == Format::Csv;
        Options {
            format,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { Vec::new() } else { b"\\N".to_vec() },
            freeze: false,
            header: Header::Off,
            quote: b'"',
            escape: b'"',
            force_quote: Vec::new(),
            force_not_null: Vec::new(),
            force_null: Vec::new(),
        }
    }

    /// All rows of `input` given in pieces of `step` bytes.
    fn rows(format: Format, input: &[u8], step: usize) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let mut reader = RowReader::new(&options(format));
        let (mut fields, mut quoted, mut out) = (Fields::default(), Vec::new(), Vec::new());
        let mut take = |reader: &mut RowReader, last| -> Result<(), SqlError> {
            while reader.next(last, &mut fields, &mut quoted)? {
                out.push(fields.iter().map(|f| f.map(|b| String::from_utf8(b.to_vec()).unwrap())).collect());
            }
            Ok(())
        };
        for piece in input.chunks(step) {
            reader.push(piece);
            take(&mut reader, false)?;
        }
        take(&mut reader, true)?;
        Ok(out)
    }

    #[test]
    fn no_bytes_make_it_panic_and_pieces_do_not_matter() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let likely = b"\\\t\n\r,\"N.0x1ab\xff\0";
        for seed in 0..3000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let input: Vec<u8> = (0..rng.random_range(0..60))
                .map(|_| if rng.random_bool(0.8) { likely[rng.random_range(0..likely.len())] } else { rng.random() })
                .collect();
            for format in [Format::Text, Format::Csv, Format::Binary] {
                let read = |step: usize| -> Result<Vec<Vec<Option<Vec<u8>>>>, String> {
                    let mut reader = RowReader::new(&options(format));
                    let (mut fields, mut quoted, mut out) = (Fields::default(), Vec::new(), Vec::new());
                    let mut take = |reader: &mut RowReader, last| -> Result<(), String> {
                        while reader.next(last, &mut fields, &mut quoted).map_err(|e| e.to_string())? {
                            out.push(fields.iter().map(|f| f.map(<[u8]>::to_vec)).collect());
                        }
                        Ok(())
                    };
                    for piece in input.chunks(step) {
                        reader.push(piece);
                        take(&mut reader, false)?;
                    }
                    take(&mut reader, true)?;
                    Ok(out)
                };
                assert_eq!(read(usize::MAX).is_ok(), read(1).is_ok(), "seed {seed}, {format:?}: {input:?}");
                if let (Ok(whole), Ok(bytes)) = (read(usize::MAX), read(1)) {
                    assert_eq!(whole, bytes, "seed {seed}, {format:?}: {input:?}");
                }
            }
        }
    }

    fn some(list: &[&str]) -> Vec<Option<String>> {
        list.iter().map(|s| if *s == "NULL" { None } else { Some((*s).to_owned()) }).collect()
    }

    #[test]
    fn text_rows_read_the_same_however_the_input_is_cut() {
        let input = b"1\tone\\ttab\t\\N\n2\t\\x41\\102\\n\t\\\\N\r\n3\t\t";
        for step in 1..input.len() {
            assert_eq!(
                rows(Format::Text, input, step).unwrap(),
                [some(&["1", "one\ttab", "NULL"]), some(&["2", "AB\n", "\\N"]), some(&["3", "", ""])],
            );
        }
    }

    #[test]
    fn ends_of_line_of_all_kinds_read_the_same_however_the_input_is_cut() {
        let input = b"a\tb\rc\\\nd\te\r\nf\\\\\t\\N\r";
        for step in 1..=input.len() {
            assert_eq!(
                rows(Format::Text, input, step).unwrap(),
                [some(&["a", "b"]), some(&["c\nd", "e"]), some(&["f\\", "NULL"])],
                "{step}"
            );
        }
    }

    #[test]
    fn the_end_mark_ends_text() {
        assert_eq!(rows(Format::Text, b"1\n\\.\n2\n", 3).unwrap(), [some(&["1"])]);
    }

    #[test]
    fn csv_rows_read_the_same_however_the_input_is_cut() {
        let input = b"1,\"a,\"\"b\"\"\nc\",\n2,\"\",x\n";
        for step in 1..input.len() {
            assert_eq!(rows(Format::Csv, input, step).unwrap(), [some(&["1", "a,\"b\"\nc", "NULL"]), some(&["2", "", "x"])],);
        }
        assert_eq!(rows(Format::Csv, b"\"a", 1).unwrap_err().to_string(), "unterminated CSV quoted field");
    }

    #[test]
    fn binary_rows_read_the_same_however_the_input_is_cut() {
        let mut input = BINARY_SIGNATURE.to_vec();
        input.extend([0_u8; 8]);
        input.extend([0, 2, 0, 0, 0, 1, b'x', 0xff, 0xff, 0xff, 0xff]);
        input.extend([0xff, 0xff]);
        for step in 1..input.len() {
            assert_eq!(rows(Format::Binary, &input, step).unwrap(), [some(&["x", "NULL"])]);
        }
        assert!(rows(Format::Binary, &input[..22], 5).is_err());
        assert!(rows(Format::Binary, b"nonsense and more", 5).is_err());
    }
}
