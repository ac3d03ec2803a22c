//! The standby's side: bytes of a stream become WAL, each record verified before it counts.
//!
//! Bytes are taken in any portions. Whole records that verify are put into the segments and published; the bytes of an incomplete one are kept in
//! memory, so nothing unverified is ever in a file of this node. What is published here may be acknowledged once it is flushed.

use crate::error::WalError;
use crate::ids::{Lsn, SegNo, StartId, SystemId, TimelineId};
use crate::insert::{Inner, WalEnd};
use crate::reader::{Decoder, Source, StopReason, Unavailable};

/// State of receiving. Under `Inner::receive`.
#[derive(Debug)]
pub(crate) struct Receive {
    decoder: Decoder,
    tli: TimelineId,
    segment_bytes: u32,
    /// Bytes from the decoder's position on, of a record that is not complete.
    staged: Vec<u8>,
    /// No use in decoding before this much has come.
    need: Lsn,
}

/// Bytes in memory, as a source of records.
struct Bytes<'a> {
    start: Lsn,
    bytes: &'a [u8],
    tli: TimelineId,
    segment_bytes: u32,
}

impl Source for Bytes<'_> {
    fn bytes(&mut self, lsn: Lsn) -> Result<&[u8], Unavailable> {
        let skip = lsn.bytes_since(self.start).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let rest = self.bytes.get(skip..).unwrap_or(&[]);
        let room = SegNo::of(lsn, self.segment_bytes).end_lsn(self.segment_bytes).bytes_since(lsn).unwrap_or(0);
        let n = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
        if n == 0 { Err(Unavailable::NotYet) } else { Ok(&rest[..n]) }
    }

    fn timeline_fits(&self, _: SegNo, found: TimelineId) -> Result<(), TimelineId> {
        // The first segment of a timeline has its parent's header.
        if found <= self.tli { Ok(()) } else { Err(self.tli) }
    }
}

impl Receive {
    pub(crate) fn at(end: &WalEnd, segment_bytes: u32, system_id: SystemId) -> Self {
        let mut decoder = Decoder::new(segment_bytes, system_id, end.end);
        decoder.continue_from(end);
        Self { decoder, tli: end.tli, segment_bytes, staged: Vec::new(), need: Lsn::INVALID }
    }

    pub(crate) fn received(&self) -> Lsn {
        self.decoder.position().advance(self.staged.len() as u64)
    }

    pub(crate) fn last_crc(&self) -> u32 {
        self.decoder.last_crc()
    }

    pub(crate) fn drop_staged(&mut self) {
        self.staged = Vec::new();
        self.need = Lsn::INVALID;
    }

    pub(crate) fn set_tli(&mut self, tli: TimelineId) {
        self.tli = tli;
    }
}

impl Inner {
    pub(crate) fn append_received(&self, lsn: Lsn, bytes: &[u8]) -> Result<Lsn, WalError> {
        let mut receive = self.receive.lock();
        let verified = receive.decoder.position();
        let mut bytes = bytes;
        let mut lsn = lsn;
        if lsn < verified {
            let known = verified.as_u64() - lsn.as_u64();
            let known = usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len());
            self.compare(lsn, &bytes[..known])?;
            bytes = &bytes[known..];
            lsn = lsn.advance(known as u64);
            if bytes.is_empty() {
                return Ok(verified);
            }
            // The stream began again behind the last whole record.
            receive.drop_staged();
        }
        let expected = receive.received();
        if lsn != expected {
            if lsn != verified {
                return Err(WalError::Gap { at: lsn, expected });
            }
            receive.drop_staged();
        }
        let state = &mut *receive;
        let staged = !state.staged.is_empty();
        if staged {
            state.staged.extend_from_slice(bytes);
        }
        if verified.advance(if staged { state.staged.len() } else { bytes.len() } as u64) < state.need {
            return Ok(verified);
        }
        let all = if staged { std::mem::take(&mut state.staged) } else { Vec::new() };
        let view = if staged { &all[..] } else { bytes };
        let mut source = Bytes { start: verified, bytes: view, tli: state.tli, segment_bytes: state.segment_bytes };
        let before = state.decoder.clone_position();
        let stopped = loop {
            match state.decoder.advance(&mut source) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(reason) => break Some(reason),
            }
        };
        let good = state.decoder.position();
        let good_bytes = usize::try_from(good.as_u64() - verified.as_u64()).unwrap_or(view.len());
        if good_bytes > 0
            && let Err(e) = self.append_bytes(&view[..good_bytes], state.decoder.last_start(), state.decoder.start_id())
        {
            // Nothing was kept: the same bytes may come again.
            state.decoder.restore_position(before);
            state.drop_staged();
            return Err(e);
        }
        if let Some(what) = stopped {
            state.drop_staged();
            return Err(WalError::ReceivedDamage { at: good, what });
        }
        state.need = state.decoder.needs();
        if staged {
            state.staged = all;
            state.staged.drain(..good_bytes);
        } else {
            state.staged.extend_from_slice(&view[good_bytes..]);
        }
        Ok(good)
    }

    /// Bytes that are here already must be the same.
    fn compare(&self, mut lsn: Lsn, mut bytes: &[u8]) -> Result<(), WalError> {
        let mut buf = vec![0; 64 << 10];
        while !bytes.is_empty() {
            let want = bytes.len().min(buf.len());
            let n = match self.read_at(lsn, &mut buf[..want]) {
                // Nobody asked for WAL that is not here any more: a position that lost a bit, and what came with it would be lost in silence.
                Ok(0) | Err(WalError::SegmentGone { .. }) => return Err(WalError::Gap { at: lsn, expected: self.published() }),
                Ok(n) => n,
                Err(e) => return Err(e),
            };
            if let Some(i) = (0..n).find(|&i| buf[i] != bytes[i]) {
                return Err(WalError::Diverged { at: lsn.advance(i as u64) });
            }
            bytes = &bytes[n..];
            lsn = lsn.advance(n as u64);
        }
        Ok(())
    }
}

/// Verifies a stream without keeping it: for tools and base backups.
#[derive(Debug)]
pub struct StreamCheck {
    receive: Receive,
}

impl StreamCheck {
    /// Expects bytes from `end` on.
    pub fn new(end: &WalEnd, segment_bytes: u32, system_id: SystemId) -> Self {
        Self { receive: Receive::at(end, segment_bytes, system_id) }
    }

    /// Takes the next bytes; the end of the last record that verified.
    ///
    /// # Errors
    /// What was found instead of the next record.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Lsn, StopReason> {
        let state = &mut self.receive;
        state.staged.extend_from_slice(bytes);
        if state.received() < state.need {
            return Ok(state.decoder.position());
        }
        let start = state.decoder.position();
        let mut source = Bytes { start, bytes: &state.staged, tli: state.tli, segment_bytes: state.segment_bytes };
        while state.decoder.advance(&mut source)? {}
        state.need = state.decoder.needs();
        let done = state.decoder.position().as_u64() - start.as_u64();
        state.staged.drain(..usize::try_from(done).unwrap_or(0));
        Ok(state.decoder.position())
    }

    /// Start id in force at the end of the last record.
    pub fn start_id(&self) -> StartId {
        self.receive.decoder.start_id()
    }
}
