//! COPY TO: rows to bytes.

use super::options::{Format, Header, Options};
use super::parse::BINARY_SIGNATURE;
use crate::executor::RowSink;
use crate::sql::types::{Datum, IoSettings, Oid, binary_send, text_out};
use crate::sqlstate::SqlError;

/// Bytes collected before they are sent as one message; clients read rows of any message size.
const MESSAGE_BYTES: usize = 8 * 1024;

/// Takes rows and sends them as COPY data.
pub(super) struct CopyWriter<'a> {
    pub(super) sink: &'a mut dyn RowSink,
    pub(super) options: Options,
    /// Name and type per column.
    pub(super) columns: Vec<(String, Oid)>,
    pub(super) io: IoSettings,
    pub(super) rows: u64,
    buffer: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> CopyWriter<'a> {
    pub(super) fn new(sink: &'a mut dyn RowSink, options: Options, columns: Vec<(String, Oid)>, io: IoSettings) -> Self {
        Self { sink, options, columns, io, rows: 0, buffer: Vec::new(), value: Vec::new() }
    }

    /// Sends what comes before the rows.
    pub(super) fn begin(&mut self) -> Result<(), SqlError> {
        self.sink.copy_out_begin(self.options.format == Format::Binary, self.columns.len())?;
        if self.options.format == Format::Binary {
            self.buffer.extend_from_slice(BINARY_SIGNATURE);
            self.buffer.extend_from_slice(&[0; 8]);
        }
        if self.options.header != Header::Off {
            let names: Vec<String> = self.columns.iter().map(|c| c.0.clone()).collect();
            for (i, name) in names.iter().enumerate() {
                if i > 0 {
                    self.buffer.push(self.options.delimiter);
                }
                self.text(name.as_bytes(), false, names.len() == 1);
            }
            self.buffer.push(b'\n');
        }
        Ok(())
    }

    /// Sends what comes after the rows.
    pub(super) fn end(&mut self) -> Result<(), SqlError> {
        if self.options.format == Format::Binary {
            self.buffer.extend_from_slice(&(-1_i16).to_be_bytes());
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), SqlError> {
        if !self.buffer.is_empty() {
            self.sink.copy_data(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn write_row(&mut self, values: &[Datum]) -> Result<(), SqlError> {
        if self.options.format == Format::Binary {
            let count = i16::try_from(values.len()).unwrap_or(i16::MAX);
            self.buffer.extend_from_slice(&count.to_be_bytes());
        }
        for (i, value) in values.iter().enumerate() {
            let type_oid = self.columns.get(i).map_or(25, |c| c.1);
            if self.options.format == Format::Binary {
                if value.is_null() {
                    self.buffer.extend_from_slice(&(-1_i32).to_be_bytes());
                    continue;
                }
                self.value.clear();
                binary_send(value, type_oid, &mut self.value)?;
                let length = i32::try_from(self.value.len()).unwrap_or(i32::MAX);
                self.buffer.extend_from_slice(&length.to_be_bytes());
                self.buffer.extend_from_slice(&self.value);
                continue;
            }
            if i > 0 {
                self.buffer.push(self.options.delimiter);
            }
            if value.is_null() {
                self.buffer.extend_from_slice(&self.options.null);
                continue;
            }
            self.value.clear();
            text_out(value, type_oid, &mut self.value, &self.io)?;
            let text = std::mem::take(&mut self.value);
            let name = self.columns.get(i).map_or("", |c| &c.0);
            let force = self.options.force_quote.iter().any(|f| f == "*" || f == name);
            self.text(&text, force, values.len() == 1);
            self.value = text;
        }
        if self.options.format != Format::Binary {
            self.buffer.push(b'\n');
        }
        Ok(())
    }

    /// One field in text or CSV form.
    fn text(&mut self, text: &[u8], force_quote: bool, only: bool) {
        if self.options.format == Format::Csv {
            return self.csv(text, force_quote, only);
        }
        for &b in text {
            let escape = match b {
                8 => b'b',
                12 => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                11 => b'v',
                b'\\' => b'\\',
                b if b == self.options.delimiter => b,
                b => {
                    self.buffer.push(b);
                    continue;
                }
            };
            self.buffer.push(b'\\');
            self.buffer.push(escape);
        }
    }

    fn csv(&mut self, text: &[u8], force_quote: bool, only: bool) {
        let Options { delimiter, quote, escape, .. } = self.options;
        let special = |b: &u8| *b == delimiter || *b == quote || *b == b'\n' || *b == b'\r';
        // A lone `\.` would read as the end of data.
        let quoted = force_quote || text == self.options.null.as_slice() || (only && text == b"\\.") || text.iter().any(special);
        if !quoted {
            self.buffer.extend_from_slice(text);
            return;
        }
        self.buffer.push(quote);
        for &b in text {
            if b == quote || b == escape {
                self.buffer.push(escape);
            }
            self.buffer.push(b);
        }
        self.buffer.push(quote);
    }
}

impl RowSink for CopyWriter<'_> {
    fn row(&mut self, values: &[Datum]) -> Result<(), SqlError> {
        self.write_row(values)?;
        self.rows += 1;
        // psql and others print message by message: keep whole rows in each.
        if self.buffer.len() >= MESSAGE_BYTES || self.rows == 1 { self.send() } else { Ok(()) }
    }

    fn copy_out_begin(&mut self, _binary: bool, _columns: usize) -> Result<(), SqlError> {
        Err(SqlError::internal("COPY inside COPY"))
    }

    fn copy_data(&mut self, _bytes: &[u8]) -> Result<(), SqlError> {
        Err(SqlError::internal("COPY inside COPY"))
    }
}
