//! Messages the server sends, appended to one output buffer that is written once per Sync.

use bytes::{BufMut, BytesMut};

use crate::sqlstate::{ErrorFields, Reach};

/// The state of the transaction block, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockStatus {
    /// Outside a transaction block.
    Idle,
    /// Inside one.
    InBlock,
    /// Inside a failed one.
    Failed,
}

impl BlockStatus {
    /// Its byte on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InBlock => b'T',
            Self::Failed => b'E',
        }
    }
}

/// One column of a RowDescription.
#[derive(Clone, Debug)]
pub struct Column<'a> {
    /// Name.
    pub name: &'a str,
    /// Table it comes from, or 0.
    pub table: u32,
    /// Its number there, or 0.
    pub attribute: i16,
    /// Type.
    pub type_oid: u32,
    /// Size of the type; negative for variable.
    pub type_len: i16,
    /// Type modifier; -1 for none.
    pub typmod: i32,
    /// 0 text, 1 binary.
    pub format: i16,
}

/// How a CopyInResponse, CopyOutResponse or CopyBothResponse begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    /// From the client.
    In,
    /// To the client.
    Out,
    /// Both ways (replication).
    Both,
}

/// Appends messages to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    /// The bytes to send.
    pub buf: BytesMut,
}

impl Writer {
    /// Appends a message of `kind` whose body `body` writes.
    pub fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        self.buf.put_u8(kind);
        let at = self.buf.len();
        self.buf.put_u32(0);
        body(&mut self.buf);
        self.end(at);
    }

    /// Fills in the length of the message whose length field is at `at`.
    fn end(&mut self, at: usize) {
        let len = u32::try_from(self.buf.len() - at).unwrap_or(u32::MAX);
        self.buf[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }

    /// Starts a DataRow of `columns` values; give its result to [`Self::end_row`].
    pub fn begin_row(&mut self, columns: usize) -> usize {
        self.buf.put_u8(b'D');
        let at = self.buf.len();
        self.buf.put_u32(0);
        self.buf.put_u16(u16::try_from(columns).unwrap_or(u16::MAX));
        at
    }

    /// A NULL value of the row begun.
    pub fn null(&mut self) {
        self.buf.put_i32(-1);
    }

    /// A value of the row begun, its bytes written by `f`.
    ///
    /// # Errors
    /// What `f` returns; the value is then left out and the row must be dropped with [`Self::cancel_row`].
    pub fn value<E>(&mut self, f: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<(), E> {
        let at = self.buf.len();
        self.buf.put_u32(0);
        f(&mut self.buf)?;
        let len = u32::try_from(self.buf.len() - at - 4).unwrap_or(u32::MAX);
        self.buf[at..at + 4].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }

    /// Ends the row begun.
    pub fn end_row(&mut self, at: usize) {
        self.end(at);
    }

    /// Takes back the row begun.
    pub fn cancel_row(&mut self, at: usize) {
        self.buf.truncate(at - 1);
    }

    /// RowDescription.
    pub fn row_description<'a>(&mut self, columns: impl ExactSizeIterator<Item = Column<'a>>) {
        self.message(b'T', |b| {
            b.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
            for c in columns {
                put_str(b, c.name);
                b.put_u32(c.table);
                b.put_i16(c.attribute);
                b.put_u32(c.type_oid);
                b.put_i16(c.type_len);
                b.put_i32(c.typmod);
                b.put_i16(c.format);
            }
        });
    }

    /// ParameterDescription.
    pub fn parameter_description(&mut self, types: &[u32]) {
        self.message(b't', |b| {
            b.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
            for t in types {
                b.put_u32(*t);
            }
        });
    }

    /// A message without a body: ParseComplete `1`, BindComplete `2`, CloseComplete `3`, NoData `n`, EmptyQueryResponse `I`,
    /// PortalSuspended `s`, CopyDone `c`.
    pub fn empty(&mut self, kind: u8) {
        self.buf.put_u8(kind);
        self.buf.put_u32(4);
    }

    /// CommandComplete.
    pub fn command_complete(&mut self, tag: &str) {
        self.message(b'C', |b| put_str(b, tag));
    }

    /// ReadyForQuery.
    pub fn ready(&mut self, status: BlockStatus) {
        self.message(b'Z', |b| b.put_u8(status.byte()));
    }

    /// ParameterStatus.
    pub fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |b| {
            put_str(b, name);
            put_str(b, value);
        });
    }

    /// BackendKeyData.
    pub fn key_data(&mut self, pid: i32, secret: i32) {
        self.message(b'K', |b| {
            b.put_i32(pid);
            b.put_i32(secret);
        });
    }

    /// An Authentication request with its body.
    pub fn authentication(&mut self, code: i32, body: &[u8]) {
        self.message(b'R', |b| {
            b.put_i32(code);
            b.put_slice(body);
        });
    }

    /// NegotiateProtocolVersion.
    pub fn negotiate_version(&mut self, minor: i32, unknown: &[&str]) {
        self.message(b'v', |b| {
            b.put_i32(minor);
            b.put_i32(i32::try_from(unknown.len()).unwrap_or(i32::MAX));
            for name in unknown {
                put_str(b, name);
            }
        });
    }

    /// CopyInResponse, CopyOutResponse, CopyBothResponse, all columns in one format.
    pub fn copy_response(&mut self, kind: CopyKind, binary: bool, columns: usize) {
        let code = match kind {
            CopyKind::In => b'G',
            CopyKind::Out => b'H',
            CopyKind::Both => b'W',
        };
        self.message(code, |b| {
            b.put_u8(u8::from(binary));
            let n = u16::try_from(columns).unwrap_or(u16::MAX);
            b.put_u16(n);
            for _ in 0..n {
                b.put_u16(u16::from(binary));
            }
        });
    }

    /// CopyData.
    pub fn copy_data(&mut self, data: &[u8]) {
        self.message(b'd', |b| b.put_slice(data));
    }

    /// NotificationResponse.
    pub fn notification(&mut self, pid: i32, channel: &str, payload: &str) {
        self.message(b'A', |b| {
            b.put_i32(pid);
            put_str(b, channel);
            put_str(b, payload);
        });
    }

    /// ErrorResponse.
    pub fn error(&mut self, fields: &ErrorFields) {
        let severity = match fields.reach {
            Reach::Statement => "ERROR",
            Reach::Session => "FATAL",
            Reach::Node => "PANIC",
        };
        self.fields(b'E', severity, fields);
    }

    /// NoticeResponse of a severity: WARNING, NOTICE, INFO, LOG, DEBUG.
    pub fn notice(&mut self, severity: &str, fields: &ErrorFields) {
        self.fields(b'N', severity, fields);
    }

    fn fields(&mut self, kind: u8, severity: &str, f: &ErrorFields) {
        self.message(kind, |b| {
            let mut put = |code: u8, text: &str| {
                b.put_u8(code);
                put_str(b, text);
            };
            put(b'S', severity);
            put(b'V', severity);
            put(b'C', f.state.0);
            put(b'M', &f.message);
            let optional = [
                (b'D', f.detail.as_deref()),
                (b'H', f.hint.as_deref()),
                (b'W', f.context.as_deref()),
                (b'q', f.internal_query.as_deref()),
                (b's', f.schema.as_deref()),
                (b't', f.table.as_deref()),
                (b'c', f.column.as_deref()),
                (b'n', f.constraint.as_deref()),
            ];
            for (code, text) in optional {
                if let Some(text) = text {
                    put(code, text);
                }
            }
            if let Some(position) = f.position {
                put(b'P', &position.to_string());
            }
            if let Some(position) = f.internal_position {
                put(b'p', &position.to_string());
            }
            b.put_u8(0);
        });
    }
}

/// A string with its terminator; a NUL inside, which the protocol cannot carry, ends it.
fn put_str(b: &mut BytesMut, text: &str) {
    let end = text.bytes().position(|c| c == 0).unwrap_or(text.len());
    b.put_slice(&text.as_bytes()[..end]);
    b.put_u8(0);
}
