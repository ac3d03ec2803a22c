//! The server's end of a replication connection, as the session hands it over.

use std::io;
use std::net::IpAddr;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::sqlstate::{SqlError, SqlState};
use crate::wire::Writer;
use crate::wire::backend::Column;

/// A socket of either family, with or without encryption.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// One authenticated `replication=true` connection.
pub struct Connection<'a> {
    /// Its socket.
    pub socket: &'a mut (dyn Socket + 'a),
    /// Bytes read and not yet decoded.
    pub incoming: &'a mut BytesMut,
    /// Messages not yet written.
    pub out: &'a mut Writer,
    /// Whether the role may make files on the server.
    pub may_write_files: bool,
    /// Session number.
    pub pid: i32,
    /// Role.
    pub user: &'a str,
    /// `application_name`.
    pub application_name: &'a str,
    /// Client address and port, unless it came through a Unix-domain socket.
    pub client: Option<(IpAddr, u16)>,
    /// When the session began, microseconds since 2000.
    pub backend_start: i64,
    /// Database, if it connected to one.
    pub database: Option<&'a str>,
}

impl std::fmt::Debug for Connection<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("pid", &self.pid).field("application_name", &self.application_name).finish_non_exhaustive()
    }
}

/// Types of result columns that replication commands use.
#[derive(Clone, Copy, Debug)]
pub enum ColumnType {
    /// text
    Text,
    /// int4
    Int4,
    /// int8
    Int8,
    /// oid
    Oid,
}

impl Connection<'_> {
    /// Writes what is pending.
    ///
    /// # Errors
    /// 08006 when the client is gone.
    pub async fn flush(&mut self) -> Result<(), SqlError> {
        let mut socket = &mut *self.socket;
        AsyncWriteExt::write_all_buf(&mut socket, &mut self.out.buf).await.map_err(|e| lost(&e))?;
        AsyncWriteExt::flush(&mut socket).await.map_err(|e| lost(&e))
    }

    /// Puts a result of text values and its `SELECT` tag.
    pub fn put_result(&mut self, columns: &[(&str, ColumnType)], rows: &[Vec<Option<String>>]) {
        self.put_rows(columns, rows);
        self.out.command_complete("SELECT");
    }

    /// Puts a result without the tag.
    pub fn put_rows(&mut self, columns: &[(&str, ColumnType)], rows: &[Vec<Option<String>>]) {
        self.out.row_description(columns.iter().map(|&(name, kind)| {
            let (type_oid, type_len) = match kind {
                ColumnType::Text => (25, -1),
                ColumnType::Int4 => (23, 4),
                ColumnType::Int8 => (20, 8),
                ColumnType::Oid => (26, 4),
            };
            Column { name, table: 0, attribute: 0, type_oid, type_len, typmod: -1, format: 0 }
        }));
        for row in rows {
            let at = self.out.begin_row(row.len());
            for value in row {
                match value {
                    None => self.out.null(),
                    Some(text) => {
                        let put: Result<(), std::convert::Infallible> = self.out.value(|b| {
                            b.extend_from_slice(text.as_bytes());
                            Ok(())
                        });
                        match put {
                            Ok(()) => {}
                            Err(never) => match never {},
                        }
                    }
                }
            }
            self.out.end_row(at);
        }
    }
}

/// The connection broke.
pub fn lost(error: &io::Error) -> SqlError {
    SqlError::new(SqlState::CONNECTION_FAILURE, format!("could not send data to client: {error}")).fatal()
}
