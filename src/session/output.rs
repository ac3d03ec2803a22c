//! Result rows on their way to the wire.

use bytes::BufMut as _;

use super::stream::{Connection, OUTPUT_BYTES};
use crate::executor::{ColumnDesc, RowSink};
use crate::sql::types::{Datum, IoSettings, binary_send, text_out};
use crate::sqlstate::{SqlError, SqlState};
use crate::wire::{Column, CopyKind};

/// Writes rows into the connection's buffer, and the buffer to the socket when it grows long.
pub(super) struct RowWriter<'a> {
    pub(super) conn: &'a mut Connection,
    pub(super) columns: &'a [ColumnDesc],
    pub(super) formats: &'a [i16],
    pub(super) io: &'a IoSettings,
    pub(super) scratch: Vec<u8>,
    pub(super) rows: u64,
    pub(super) copying: bool,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(conn: &'a mut Connection, columns: &'a [ColumnDesc], formats: &'a [i16], io: &'a IoSettings) -> Self {
        Self { conn, columns, formats, io, scratch: Vec::new(), rows: 0, copying: false }
    }

    fn flush_if_long(&mut self) -> Result<(), SqlError> {
        if self.conn.out.buf.len() < OUTPUT_BYTES {
            return Ok(());
        }
        self.conn
            .flush_blocking()
            .map_err(|e| SqlError::new(SqlState::CONNECTION_FAILURE, format!("could not send data to client: {e}")).fatal())
    }
}

/// The format of column `i`: none given is text, one is for all.
pub(super) fn format_of(formats: &[i16], i: usize) -> i16 {
    match formats {
        [] => 0,
        [one] => *one,
        many => many.get(i).copied().unwrap_or(0),
    }
}

impl RowSink for RowWriter<'_> {
    fn row(&mut self, values: &[Datum]) -> Result<(), SqlError> {
        let out = &mut self.conn.out;
        let at = out.begin_row(values.len());
        for (i, value) in values.iter().enumerate() {
            if matches!(value, Datum::Null) {
                out.null();
                continue;
            }
            let type_oid = self.columns.get(i).map_or(25, |c| c.type_oid);
            self.scratch.clear();
            let written = if format_of(self.formats, i) == 0 {
                text_out(value, type_oid, &mut self.scratch, self.io)
            } else {
                binary_send(value, type_oid, &mut self.scratch)
            };
            if let Err(e) = written {
                out.cancel_row(at);
                return Err(e);
            }
            out.buf.put_u32(u32::try_from(self.scratch.len()).unwrap_or(u32::MAX));
            out.buf.put_slice(&self.scratch);
        }
        out.end_row(at);
        self.rows += 1;
        self.flush_if_long()
    }

    fn copy_out_begin(&mut self, binary: bool, columns: usize) -> Result<(), SqlError> {
        self.copying = true;
        self.conn.out.copy_response(CopyKind::Out, binary, columns);
        Ok(())
    }

    fn copy_data(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        self.conn.out.copy_data(bytes);
        self.flush_if_long()
    }
}

/// RowDescription of these columns.
pub(super) fn describe(conn: &mut Connection, columns: &[ColumnDesc], formats: &[i16]) {
    conn.out.row_description(columns.iter().enumerate().map(|(i, c)| Column {
        name: &c.name,
        table: c.table,
        attribute: c.attnum,
        type_oid: c.type_oid,
        type_len: c.type_len,
        typmod: c.typmod,
        format: format_of(formats, i),
    }));
}
