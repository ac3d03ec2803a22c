//! What flows inside CopyData while WAL streams: XLogData, keepalive, standby status, hot standby feedback.
//!
//! PostgreSQL: "Streaming Replication Protocol". `Z` is ours: XLogData whose payload is zstd; only a standby that asked
//! for `compression 'zstd'` is sent it. So is `B`, for a standby that asked for `ahead`. Times are microseconds since 2000-01-01 UTC.

use afterimage_wal::ids::Lsn;
use bytes::{Buf, BufMut, BytesMut};

/// A CopyData payload that is not what it says it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// Unknown first byte.
    #[error("invalid replication message type {0}")]
    UnknownType(u8),
    /// Fewer bytes than the type needs.
    #[error("replication message '{kind}' of {got} bytes is too short")]
    TooShort {
        /// Message type.
        kind: char,
        /// Bytes received.
        got: usize,
    },
    /// A bound that is not what was sent: replay may not trust it.
    #[error("incorrect checksum in a replication message that confirms WAL: stored {stored:#010x}, computed {computed:#010x}")]
    BoundCrc {
        /// In the message.
        stored: u32,
        /// Of the message.
        computed: u32,
    },
}

/// From the server to the standby.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerMessage<'a> {
    /// `w`: WAL from `start` (inclusive); the server's WAL ends at `wal_end`.
    XLogData {
        /// First byte of `data`.
        start: Lsn,
        /// Current end of WAL on the server.
        wal_end: Lsn,
        /// Server's time at sending.
        sent_at: i64,
        /// WAL bytes.
        data: &'a [u8],
    },
    /// `Z`: as `w`, `raw_len` bytes once decompressed.
    Compressed {
        /// First byte of the decompressed data.
        start: Lsn,
        /// Current end of WAL on the server.
        wal_end: Lsn,
        /// Server's time at sending.
        sent_at: i64,
        /// Bytes after decompression.
        raw_len: u32,
        /// The next bytes of the zstd stream.
        data: &'a [u8],
    },
    /// `k`: where the server is; may ask for an answer.
    Keepalive {
        /// Current end of WAL on the server.
        wal_end: Lsn,
        /// Server's time at sending.
        sent_at: i64,
        /// The standby should report its positions at once.
        reply_requested: bool,
    },
    /// `B`: WAL sent ahead of the server's sync is durable there up to `durable`. Unlike WAL it says nothing about itself, so it has a checksum.
    Bound {
        /// Durable on the server; may be behind or ahead of what was sent.
        durable: Lsn,
        /// Server's time at sending.
        sent_at: i64,
    },
}

/// From the standby to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyMessage {
    /// `r`: positions, all exclusive ends.
    Status {
        /// Written to the standby's segment files.
        written: Lsn,
        /// Durable there.
        flushed: Lsn,
        /// Replayed there.
        applied: Lsn,
        /// Standby's time at sending.
        sent_at: i64,
        /// The server should answer with a keepalive.
        reply_requested: bool,
    },
    /// `h`: the oldest xids the standby's snapshots need.
    Feedback {
        /// Standby's time at sending.
        sent_at: i64,
        /// Oldest xid needed; 0 for none.
        xmin: u32,
        /// Its epoch.
        xmin_epoch: u32,
        /// Oldest xid needed of catalogs; 0 for none.
        catalog_xmin: u32,
        /// Its epoch.
        catalog_xmin_epoch: u32,
    },
    /// `H`: ours, beside `h`: the least commit LSN a snapshot of the standby reads at; INVALID for none.
    FeedbackLsn {
        /// Standby's time at sending.
        sent_at: i64,
        /// Removal horizon wanted.
        horizon: Lsn,
    },
}

/// Bytes before the WAL in `w`.
pub const XLOG_DATA_HEADER_BYTES: usize = 25;

/// Bytes of `B`.
pub const BOUND_BYTES: usize = 21;

/// Bytes before the payload in `Z`.
pub const COMPRESSED_HEADER_BYTES: usize = 29;

/// Writes the header of `w`; the WAL bytes follow.
pub fn put_xlog_data_header(out: &mut BytesMut, start: Lsn, wal_end: Lsn, sent_at: i64) {
    out.put_u8(b'w');
    out.put_u64(start.as_u64());
    out.put_u64(wal_end.as_u64());
    out.put_i64(sent_at);
}

/// Writes the header of `Z`; the compressed bytes follow.
pub fn put_compressed_header(out: &mut BytesMut, start: Lsn, wal_end: Lsn, sent_at: i64, raw_len: u32) {
    out.put_u8(b'Z');
    out.put_u64(start.as_u64());
    out.put_u64(wal_end.as_u64());
    out.put_i64(sent_at);
    out.put_u32(raw_len);
}

/// Writes `B`.
pub fn put_bound(out: &mut BytesMut, durable: Lsn, sent_at: i64) {
    let at = out.len();
    out.put_u8(b'B');
    out.put_u64(durable.as_u64());
    out.put_i64(sent_at);
    let crc = crc32c::crc32c(&out[at..]);
    out.put_u32(crc);
}

/// Writes `k`.
pub fn put_keepalive(out: &mut BytesMut, wal_end: Lsn, sent_at: i64, reply_requested: bool) {
    out.put_u8(b'k');
    out.put_u64(wal_end.as_u64());
    out.put_i64(sent_at);
    out.put_u8(u8::from(reply_requested));
}

impl<'a> ServerMessage<'a> {
    /// Decodes a CopyData payload.
    ///
    /// # Errors
    /// [`MessageError`] for an unknown type or missing bytes.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, MessageError> {
        let got = bytes.len();
        let Some(&kind) = bytes.first() else { return Err(MessageError::TooShort { kind: '?', got }) };
        let short = |need: usize| if got < need { Err(MessageError::TooShort { kind: char::from(kind), got }) } else { Ok(()) };
        bytes.advance(1);
        match kind {
            b'w' => {
                short(XLOG_DATA_HEADER_BYTES)?;
                let start = Lsn::from_u64(bytes.get_u64());
                let wal_end = Lsn::from_u64(bytes.get_u64());
                let sent_at = bytes.get_i64();
                Ok(Self::XLogData { start, wal_end, sent_at, data: bytes })
            }
            b'Z' => {
                short(COMPRESSED_HEADER_BYTES)?;
                let start = Lsn::from_u64(bytes.get_u64());
                let wal_end = Lsn::from_u64(bytes.get_u64());
                let sent_at = bytes.get_i64();
                let raw_len = bytes.get_u32();
                Ok(Self::Compressed { start, wal_end, sent_at, raw_len, data: bytes })
            }
            b'k' => {
                short(18)?;
                let wal_end = Lsn::from_u64(bytes.get_u64());
                let sent_at = bytes.get_i64();
                Ok(Self::Keepalive { wal_end, sent_at, reply_requested: bytes.get_u8() != 0 })
            }
            b'B' => {
                short(BOUND_BYTES)?;
                let computed = crc32c::crc32c_append(crc32c::crc32c(b"B"), &bytes[..BOUND_BYTES - 5]);
                let durable = Lsn::from_u64(bytes.get_u64());
                let sent_at = bytes.get_i64();
                let stored = bytes.get_u32();
                if stored == computed { Ok(Self::Bound { durable, sent_at }) } else { Err(MessageError::BoundCrc { stored, computed }) }
            }
            other => Err(MessageError::UnknownType(other)),
        }
    }
}

impl StandbyMessage {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        match *self {
            Self::Status { written, flushed, applied, sent_at, reply_requested } => {
                out.put_u8(b'r');
                out.put_u64(written.as_u64());
                out.put_u64(flushed.as_u64());
                out.put_u64(applied.as_u64());
                out.put_i64(sent_at);
                out.put_u8(u8::from(reply_requested));
            }
            Self::Feedback { sent_at, xmin, xmin_epoch, catalog_xmin, catalog_xmin_epoch } => {
                out.put_u8(b'h');
                out.put_i64(sent_at);
                for part in [xmin, xmin_epoch, catalog_xmin, catalog_xmin_epoch] {
                    out.put_u32(part);
                }
            }
            Self::FeedbackLsn { sent_at, horizon } => {
                out.put_u8(b'H');
                out.put_i64(sent_at);
                out.put_u64(horizon.as_u64());
            }
        }
    }

    /// Decodes a CopyData payload.
    ///
    /// # Errors
    /// [`MessageError`] for an unknown type or missing bytes.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, MessageError> {
        let got = bytes.len();
        let Some(&kind) = bytes.first() else { return Err(MessageError::TooShort { kind: '?', got }) };
        let short = |need: usize| if got < need { Err(MessageError::TooShort { kind: char::from(kind), got }) } else { Ok(()) };
        bytes.advance(1);
        match kind {
            b'r' => {
                short(34)?;
                let written = Lsn::from_u64(bytes.get_u64());
                let flushed = Lsn::from_u64(bytes.get_u64());
                let applied = Lsn::from_u64(bytes.get_u64());
                let sent_at = bytes.get_i64();
                Ok(Self::Status { written, flushed, applied, sent_at, reply_requested: bytes.get_u8() != 0 })
            }
            b'h' => {
                short(25)?;
                let sent_at = bytes.get_i64();
                let xmin = bytes.get_u32();
                let xmin_epoch = bytes.get_u32();
                let catalog_xmin = bytes.get_u32();
                let catalog_xmin_epoch = bytes.get_u32();
                Ok(Self::Feedback { sent_at, xmin, xmin_epoch, catalog_xmin, catalog_xmin_epoch })
            }
            b'H' => {
                short(17)?;
                let sent_at = bytes.get_i64();
                Ok(Self::FeedbackLsn { sent_at, horizon: Lsn::from_u64(bytes.get_u64()) })
            }
            other => Err(MessageError::UnknownType(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_truncation_is_an_error_not_a_panic() {
        let mut out = BytesMut::new();
        StandbyMessage::Status {
            written: Lsn::from_u64(1),
            flushed: Lsn::from_u64(2),
            applied: Lsn::from_u64(3),
            sent_at: 4,
            reply_requested: true,
        }
        .encode(&mut out);
        for len in 0..out.len() {
            assert!(StandbyMessage::decode(&out[..len]).is_err());
        }
        assert!(StandbyMessage::decode(&out).is_ok());
    }

    #[test]
    fn a_bound_has_these_bytes_and_no_flipped_bit_passes() {
        let mut out = BytesMut::new();
        put_bound(&mut out, Lsn::from_u64(0x16_B374_D848), 0x0102_0304_0506_0708);
        assert_eq!(out[..17], [b'B', 0, 0, 0, 0x16, 0xB3, 0x74, 0xD8, 0x48, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(out.len(), BOUND_BYTES);
        let sent = ServerMessage::Bound { durable: Lsn::from_u64(0x16_B374_D848), sent_at: 0x0102_0304_0506_0708 };
        assert_eq!(ServerMessage::decode(&out), Ok(sent));
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(ServerMessage::decode(&flipped), Ok(ServerMessage::Bound { .. })), "bit {bit}");
        }
        for len in 0..out.len() {
            assert!(ServerMessage::decode(&out[..len]).is_err());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(ServerMessage::decode(&bytes));
            drop(StandbyMessage::decode(&bytes));
        }
    }
}
