//! The WAL that is written while a backup runs, by a connection of its own.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, SegNo, TimelineId};
use afterimage_wal::segment;
use anyhow::{Context as _, bail};
use tokio::sync::watch;

use super::run::Modes;
use super::tarball;
use crate::control::supervisor::sleep_until;
use crate::replication::base_backup::Compression;
use crate::replication::base_backup::encoder::Encoder;
use crate::replication::client::{Client, ClientError, Event};
use crate::replication::message::{ServerMessage, StandbyMessage};
use crate::replication::timestamp_now;

/// Takes streamed WAL in order.
pub(super) enum Sink {
    /// Segment files of full size in a `pg_wal`.
    Files(Files),
    /// Members of `pg_wal.tar`.
    Tar(Box<Tar>),
}

pub(super) struct Files {
    dir: PathBuf,
    modes: Modes,
    tli: TimelineId,
    segment_bytes: u32,
    open: Option<(u64, fs::File)>,
}

pub(super) struct Tar {
    out: Encoder<fs::File>,
    tli: TimelineId,
    segment_bytes: u32,
    /// Bytes of the segment begun.
    written: u64,
    sync: bool,
}

impl Sink {
    /// Into files below `dir`.
    pub(super) fn files(dir: &Path, modes: Modes, tli: TimelineId, segment_bytes: u32) -> anyhow::Result<Self> {
        let status = dir.join("archive_status");
        let mut maker = fs::DirBuilder::new();
        maker
            .recursive(true)
            .mode(modes.directory())
            .create(&status)
            .with_context(|| format!("could not create directory \"{}\"", status.display()))?;
        Ok(Self::Files(Files { dir: dir.to_owned(), modes, tli, segment_bytes, open: None }))
    }

    /// Into a tar file in `dir`, compressed with gzip if the other archives are; as PostgreSQL, not with other methods.
    pub(super) fn tar(
        dir: &Path,
        modes: Modes,
        compression: Compression,
        (tli, segment_bytes): (TimelineId, u32),
        sync: bool,
    ) -> anyhow::Result<Self> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only gzip")]
        let compression = match compression {
            gzip @ Compression::Gzip(_) => gzip,
            _ => Compression::None,
        };
        let path = dir.join(format!("pg_wal.tar{}", compression.suffix()));
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(modes.file()).open(&path);
        let file = file.with_context(|| format!("could not create file \"{}\"", path.display()))?;
        Ok(Self::Tar(Box::new(Tar { out: Encoder::new(compression, file)?, tli, segment_bytes, written: 0, sync })))
    }

    fn tli(&self) -> TimelineId {
        match self {
            Self::Files(files) => files.tli,
            Self::Tar(tar) => tar.tli,
        }
    }

    fn segment_bytes(&self) -> u64 {
        u64::from(match self {
            Self::Files(files) => files.segment_bytes,
            Self::Tar(tar) => tar.segment_bytes,
        })
    }

    /// A timeline history file, which is archived already.
    fn history(&mut self, name: &str, contents: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Files(files) => {
                let path = files.dir.join(name);
                let made = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(files.modes.file()).open(&path);
                made.and_then(|mut file| file.write_all(contents))
                    .with_context(|| format!("could not write to file \"{}\"", path.display()))?;
                files.done(name)
            }
            Self::Tar(tar) => tarball::put_file(&mut tar.out, name, contents),
        }
    }

    fn write(&mut self, lsn: Lsn, data: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Files(files) => files.write(lsn, data),
            Self::Tar(tar) => tar.write(lsn, data),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Files(_) => Ok(()),
            Self::Tar(tar) => {
                let Tar { mut out, segment_bytes, written, sync, .. } = *tar;
                if written > 0 {
                    io::copy(&mut io::repeat(0).take(u64::from(segment_bytes) - written), &mut out)?;
                }
                tarball::put_end(&mut out)?;
                let file = out.finish()?;
                if sync {
                    file.sync_all()?;
                }
                Ok(())
            }
        }
    }
}

impl Files {
    fn write(&mut self, mut lsn: Lsn, mut data: &[u8]) -> anyhow::Result<()> {
        let size = u64::from(self.segment_bytes);
        while !data.is_empty() {
            let (segno, offset) = (lsn.as_u64() / size, lsn.as_u64() % size);
            let name = segment::file_name(self.tli, SegNo::new(segno), self.segment_bytes);
            if self.open.as_ref().is_none_or(|(open, _)| *open != segno) {
                let path = self.dir.join(&name);
                let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(self.modes.file()).open(&path)?;
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)
                    .with_context(|| format!("could not write to file \"{}\"", path.display()))?;
                self.open = Some((segno, file));
            }
            let Some((_, file)) = &self.open else { bail!("no segment open") };
            let n = usize::try_from(size - offset)?.min(data.len());
            file.write_all_at(&data[..n], offset).with_context(|| format!("could not write to file \"{name}\""))?;
            if offset + n as u64 == size {
                self.done(&name)?;
            }
            data = &data[n..];
            lsn = Lsn::from_u64(lsn.as_u64() + n as u64);
        }
        Ok(())
    }

    /// The server archives it, so that the copy need not.
    fn done(&self, name: &str) -> anyhow::Result<()> {
        let path = self.dir.join("archive_status").join(format!("{name}.done"));
        let made = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(self.modes.file()).open(&path);
        made.map(drop).with_context(|| format!("could not create file \"{}\"", path.display()))
    }
}

impl Tar {
    /// Streams come in order and begin with a segment, so members can be written as they come.
    fn write(&mut self, mut lsn: Lsn, mut data: &[u8]) -> anyhow::Result<()> {
        let size = u64::from(self.segment_bytes);
        while !data.is_empty() {
            let (segno, offset) = (lsn.as_u64() / size, lsn.as_u64() % size);
            if offset != self.written {
                bail!("received write-ahead log record for offset {offset}, expected {}", self.written);
            }
            if offset == 0 {
                tarball::put_header(&mut self.out, &segment::file_name(self.tli, SegNo::new(segno), self.segment_bytes), size)?;
            }
            let n = usize::try_from(size - offset)?.min(data.len());
            self.out.write_all(&data[..n])?;
            self.written = (offset + n as u64) % size;
            data = &data[n..];
            lsn = Lsn::from_u64(lsn.as_u64() + n as u64);
        }
        Ok(())
    }
}

/// Streams from the segment that holds `start` until the end position is known and reached.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
pub(super) async fn stream(
    mut client: Client,
    slot: Option<String>,
    start: Lsn,
    mut sink: Sink,
    mut end: watch::Receiver<Lsn>,
    interval: Duration,
) -> anyhow::Result<()> {
    let (tli, size) = (sink.tli(), sink.segment_bytes());
    if tli > TimelineId::new(1) {
        let answer = client.query(&format!("TIMELINE_HISTORY {tli}")).await?;
        let contents = answer.first().and_then(|set| set.text(0, 1)).context("server returned no timeline history")?;
        sink.history(&History::file_name(tli), contents.as_bytes())?;
    }
    let mut at = Lsn::from_u64(start.as_u64() / size * size);
    let slot = slot.map(|s| format!("SLOT \"{s}\" ")).unwrap_or_default();
    client.send(&format!("START_REPLICATION {slot}{at} TIMELINE {tli}")).await?;
    loop {
        match client.event().await.map_err(|e| anyhow::anyhow!("could not send replication command \"START_REPLICATION\": {e}"))? {
            Event::CopyBoth => break,
            Event::Notice(_) => {}
            other => bail!("could not send replication command \"START_REPLICATION\": {other:?}"),
        }
    }
    let next = || (!interval.is_zero()).then(|| tokio::time::Instant::now() + interval);
    let mut status_due = next();
    loop {
        let wanted = *end.borrow_and_update();
        if wanted != Lsn::INVALID && at >= wanted {
            break;
        }
        tokio::select! {
            event = client.event() => match event? {
                Event::Data(bytes) => {
                    let mut reply = false;
                    match ServerMessage::decode(&bytes)? {
                        ServerMessage::XLogData { start, data, .. } => {
                            sink.write(start, data)?;
                            at = Lsn::from_u64(start.as_u64() + data.len() as u64);
                        }
                        ServerMessage::Keepalive { reply_requested, .. } => reply = reply_requested,
                        ServerMessage::Compressed { .. } => bail!("compressed WAL was not asked for"),
                        ServerMessage::Bound { .. } => bail!("a bound was not asked for"),
                    }
                    if reply {
                        status(&mut client, at).await?;
                    }
                }
                Event::CopyDone | Event::Complete(_) => bail!("replication stream was terminated before stop point"),
                Event::Columns(_) | Event::Row(_) | Event::CopyOut | Event::CopyBoth | Event::Notice(_) | Event::Ready => {}
            },
            () = sleep_until(status_due) => {
                status(&mut client, at).await?;
                status_due = next();
            }
            changed = end.changed() => changed.context("backup ended")?,
        }
    }
    sink.finish()?;
    // The slot moves up to here before the server hears of the end.
    status(&mut client, at).await?;
    client.send_copy_done().await?;
    loop {
        match client.event().await {
            Ok(Event::Ready) | Err(ClientError::Closed) => break,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
    }
    client.close().await;
    Ok(())
}

async fn status(client: &mut Client, at: Lsn) -> anyhow::Result<()> {
    let message =
        StandbyMessage::Status { written: at, flushed: at, applied: Lsn::INVALID, sent_at: timestamp_now(), reply_requested: false };
    client.send_copy_data(|b| message.encode(b)).await?;
    Ok(())
}
