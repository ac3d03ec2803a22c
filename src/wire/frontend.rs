//! Messages a client sends.

use bytes::{Buf, Bytes, BytesMut};

use crate::sqlstate::{SqlError, SqlState};

/// Bytes that are no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    /// The length field is impossible.
    #[error("invalid message length")]
    Length,
    /// The body is shorter or longer than its fields.
    #[error("invalid message format")]
    Format,
    /// A string is not terminated.
    #[error("invalid string in message")]
    String,
    /// A string is not UTF-8.
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    Encoding,
    /// No such message.
    #[error("invalid frontend message type {0}")]
    Type(u8),
    /// The first packet is none we know.
    #[error("invalid length of startup packet")]
    Startup,
}

impl From<WireError> for SqlError {
    fn from(e: WireError) -> Self {
        match e {
            WireError::Encoding => Self::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, e.to_string()),
            WireError::Length | WireError::Format | WireError::String | WireError::Type(_) | WireError::Startup => {
                Self::new(SqlState::PROTOCOL_VIOLATION, e.to_string()).fatal()
            }
        }
    }
}

/// The first packet of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    /// A session, with its parameters in order.
    Session {
        /// Protocol major version.
        major: u16,
        /// Protocol minor version.
        minor: u16,
        /// `user`, `database`, `options`, settings.
        params: Vec<(String, String)>,
    },
    /// Cancel what another session runs.
    Cancel {
        /// Its process id.
        pid: i32,
        /// Its secret.
        secret: i32,
    },
    /// Asks for TLS.
    Ssl,
    /// Asks for GSSAPI encryption.
    Gss,
}

/// Longest startup packet, as PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`.
pub const MAX_STARTUP_BYTES: usize = 10_000;
const CANCEL: u32 = (1234 << 16) | 5678;
const SSL: u32 = (1234 << 16) | 5679;
const GSS: u32 = (1234 << 16) | 5680;
/// Longest message before authentication (a password or SASL response).
pub const MAX_AUTH_BYTES: usize = 65_535;
/// Longest message afterwards, as PostgreSQL's `MaxAllocSize`.
pub const MAX_MESSAGE_BYTES: usize = 0x3fff_ffff;

impl Startup {
    /// Takes one startup packet from `buf`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`WireError::Startup`] for a packet of impossible length or form.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, WireError> {
        if buf.len() < 4 {
            return Ok(None);
        }
        let len = usize::try_from(u32::from_be_bytes([buf[0], buf[1], buf[2], buf[3]])).map_err(|_| WireError::Startup)?;
        if !(8..=MAX_STARTUP_BYTES).contains(&len) {
            return Err(WireError::Startup);
        }
        if buf.len() < len {
            return Ok(None);
        }
        let mut body = buf.split_to(len).freeze();
        body.advance(4);
        let code = body.get_u32();
        match code {
            CANCEL if body.len() == 8 => return Ok(Some(Self::Cancel { pid: body.get_i32(), secret: body.get_i32() })),
            SSL if body.is_empty() => return Ok(Some(Self::Ssl)),
            GSS if body.is_empty() => return Ok(Some(Self::Gss)),
            CANCEL | SSL | GSS => return Err(WireError::Startup),
            _ => {}
        }
        let mut params = Vec::new();
        let mut fields = Fields(body);
        while fields.0.first().is_some_and(|b| *b != 0) {
            let name = fields.string().map_err(|_| WireError::Startup)?;
            let value = fields.string().map_err(|_| WireError::Startup)?;
            params.push((name, value));
        }
        if fields.0.len() != 1 {
            return Err(WireError::Startup);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a u32")]
        let (major, minor) = ((code >> 16) as u16, code as u16);
        Ok(Some(Self::Session { major, minor, params }))
    }
}

/// What Close and Describe name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseTarget {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

/// A message of a running session.
#[derive(Debug, PartialEq, Eq)]
pub enum Frontend {
    /// `Q`.
    Query(String),
    /// `P`.
    Parse {
        /// Statement name, empty for the unnamed one.
        name: String,
        /// Text.
        query: String,
        /// Parameter types, 0 for "infer".
        types: Vec<u32>,
    },
    /// `B`.
    Bind {
        /// Portal name.
        portal: String,
        /// Statement name.
        statement: String,
        /// Formats of the parameters: none, one for all, or one each.
        param_formats: Vec<i16>,
        /// Values; `None` is NULL.
        params: Vec<Option<Bytes>>,
        /// Formats of the results: none, one for all, or one each.
        result_formats: Vec<i16>,
    },
    /// `D`.
    Describe(CloseTarget),
    /// `E`.
    Execute {
        /// Portal name.
        portal: String,
        /// Most rows to return; 0 is all.
        max_rows: u32,
    },
    /// `C`.
    Close(CloseTarget),
    /// `H`.
    Flush,
    /// `S`.
    Sync,
    /// `d`.
    CopyData(Bytes),
    /// `c`.
    CopyDone,
    /// `f`.
    CopyFail(String),
    /// `F`.
    FunctionCall,
    /// `p`: password, SASL response: the bytes as they are.
    Password(Bytes),
    /// `X`.
    Terminate,
}

impl Frontend {
    /// Takes one message from `buf`; `None` if more bytes are needed. A message longer than `max` is refused before it is read.
    ///
    /// # Errors
    /// [`WireError`]; after `Length` and `Type` the stream cannot be followed any more.
    pub fn decode(buf: &mut BytesMut, max: usize) -> Result<Option<Self>, WireError> {
        if buf.len() < 5 {
            return Ok(None);
        }
        let kind = buf[0];
        if !matches!(kind, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' | b'd' | b'c' | b'f' | b'F' | b'p' | b'X') {
            return Err(WireError::Type(kind));
        }
        let len = usize::try_from(u32::from_be_bytes([buf[1], buf[2], buf[3], buf[4]])).map_err(|_| WireError::Length)?;
        if len < 4 || len > max {
            return Err(WireError::Length);
        }
        if buf.len() < len + 1 {
            // Grow once for a long message instead of doubling through it, but never by more than what could plausibly arrive soon.
            buf.reserve((len + 1 - buf.len()).min(1 << 20));
            return Ok(None);
        }
        let mut body = buf.split_to(len + 1).freeze();
        body.advance(5);
        let mut f = Fields(body);
        let message = match kind {
            b'Q' => Self::Query(f.string()?),
            b'P' => {
                let (name, query) = (f.string()?, f.string()?);
                let n = f.count()?;
                let mut types = Vec::with_capacity(n);
                for _ in 0..n {
                    types.push(f.u32()?);
                }
                Self::Parse { name, query, types }
            }
            b'B' => {
                let (portal, statement) = (f.string()?, f.string()?);
                let n = f.count()?;
                let mut param_formats = Vec::with_capacity(n);
                for _ in 0..n {
                    param_formats.push(f.i16()?);
                }
                let n = f.count()?;
                let mut params = Vec::with_capacity(n);
                for _ in 0..n {
                    params.push(match f.u32()? {
                        u32::MAX => None,
                        len => Some(f.bytes(usize::try_from(len).map_err(|_| WireError::Format)?)?),
                    });
                }
                let n = f.count()?;
                let mut result_formats = Vec::with_capacity(n);
                for _ in 0..n {
                    result_formats.push(f.i16()?);
                }
                Self::Bind { portal, statement, param_formats, params, result_formats }
            }
            b'D' => Self::Describe(f.target()?),
            b'C' => Self::Close(f.target()?),
            b'E' => {
                let portal = f.string()?;
                // A negative count means all, as in PostgreSQL.
                let max_rows = f.u32()?;
                Self::Execute { portal, max_rows: if max_rows > i32::MAX.unsigned_abs() { 0 } else { max_rows } }
            }
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'd' => Self::CopyData(std::mem::take(&mut f.0)),
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail(f.string()?),
            b'p' => Self::Password(std::mem::take(&mut f.0)),
            b'X' => Self::Terminate,
            _ => {
                f.0.clear();
                Self::FunctionCall
            }
        };
        if f.0.is_empty() { Ok(Some(message)) } else { Err(WireError::Format) }
    }
}

/// Fields of a message body, consumed from the front.
struct Fields(Bytes);

impl Fields {
    fn string(&mut self) -> Result<String, WireError> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(WireError::String)?;
        let text = std::str::from_utf8(&self.0[..end]).map_err(|_| WireError::Encoding)?.to_owned();
        self.0.advance(end + 1);
        Ok(text)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.0.try_get_u32().map_err(|_| WireError::Format)
    }

    fn i16(&mut self) -> Result<i16, WireError> {
        self.0.try_get_i16().map_err(|_| WireError::Format)
    }

    fn count(&mut self) -> Result<usize, WireError> {
        self.0.try_get_u16().map(usize::from).map_err(|_| WireError::Format)
    }

    fn bytes(&mut self, len: usize) -> Result<Bytes, WireError> {
        if len > self.0.len() {
            return Err(WireError::Format);
        }
        Ok(self.0.split_to(len))
    }

    fn target(&mut self) -> Result<CloseTarget, WireError> {
        let kind = self.0.try_get_u8().map_err(|_| WireError::Format)?;
        match kind {
            b'S' => Ok(CloseTarget::Statement(self.string()?)),
            b'P' => Ok(CloseTarget::Portal(self.string()?)),
            _ => Err(WireError::Format),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> BytesMut {
        let mut b = BytesMut::new();
        b.put_u8(kind);
        b.put_u32(u32::try_from(body.len() + 4).unwrap());
        b.put_slice(body);
        b
    }

    #[test]
    fn parse_bind_execute_decode() {
        let mut b = message(b'P', b"s\0select $1\0\0\x01\0\0\0\x17");
        b.extend(message(b'B', b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\0"));
        b.extend(message(b'E', b"\0\0\0\0\x05"));
        b.extend(message(b'S', b""));
        let mut next = || Frontend::decode(&mut b, MAX_MESSAGE_BYTES).unwrap();
        assert_eq!(next(), Some(Frontend::Parse { name: "s".into(), query: "select $1".into(), types: vec![23] }));
        assert_eq!(
            next(),
            Some(Frontend::Bind {
                portal: String::new(),
                statement: "s".into(),
                param_formats: vec![1],
                params: vec![Some(Bytes::from_static(&[0, 0, 0, 7])), None],
                result_formats: vec![],
            })
        );
        assert_eq!(next(), Some(Frontend::Execute { portal: String::new(), max_rows: 5 }));
        assert_eq!(next(), Some(Frontend::Sync));
        assert_eq!(next(), None);
    }

    #[test]
    fn every_truncation_waits_for_more() {
        let whole = message(b'P', b"s\0select $1\0\0\x01\0\0\0\x17");
        for end in 0..whole.len() {
            let mut cut = BytesMut::from(&whole[..end]);
            assert_eq!(Frontend::decode(&mut cut, MAX_MESSAGE_BYTES), Ok(None), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut b = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frontend::decode(&mut b, 1000) {}
            let mut b = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Startup::decode(&mut b) {}
        }
    }
}
