//! The WAL that recovery of a standby begins with, asked of its upstream before the engine opens.
//!
//! A backup made without WAL (`pg_basebackup -X none`) has not even the record of its checkpoint. The archive is asked first; what it does not
//! have is streamed from the redo point's segment to the checkpoint's. The bytes are as good as those of a copied file: recovery verifies them.

use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use afterimage_wal::control_file::ControlFile;
use afterimage_wal::disk::{RealDisk, durable_rename};
use afterimage_wal::ids::{Lsn, SegNo, TimelineId};
use afterimage_wal::segment;

use super::client::{Bounds, Client, ClientError, Event};
use super::conninfo::ConnInfo;
use super::location;
use super::message::{MessageError, ServerMessage};
use crate::config::{Config, Setting};
use crate::recovery::backup_label::{self, BackupLabel};
use crate::recovery::restore::{self, Commands};
use crate::recovery::start::STANDBY_SIGNAL;

/// More than any checkpoint record takes, segment header included.
const RECORD_ROOM_BYTES: u64 = 4096;
/// A segment that is not whole yet; not a name that recovery looks at.
const PARTIAL: &str = "pg_wal/first-segment";

/// Why the upstream's WAL is not here yet.
#[derive(Debug, thiserror::Error)]
enum FirstWalError {
    #[error("could not connect to the primary server: {0}")]
    Connect(#[source] ClientError),
    #[error("could not receive data from WAL stream: {0}")]
    Client(#[from] ClientError),
    #[error("invalid message received from primary: {0}")]
    Message(#[from] MessageError),
    #[error("could not write received WAL: {0}")]
    Io(#[from] std::io::Error),
    #[error("database system identifier differs between the primary and standby")]
    SystemId,
    #[error("primary server contains no WAL of timeline {tli} beyond {at}")]
    TooShort { tli: TimelineId, at: Lsn },
}

/// What is to be there.
struct Wanted {
    file: ControlFile,
    tli: TimelineId,
    redo: Lsn,
    checkpoint: Lsn,
}

impl Wanted {
    /// `None`: this is no standby, or what it begins with cannot be told; opening it says why.
    fn read(data_dir: &Path) -> Option<Self> {
        if !data_dir.join(STANDBY_SIGNAL).exists() {
            return None;
        }
        let file = ControlFile::read(&RealDisk, data_dir).ok()?;
        let label = std::fs::read_to_string(data_dir.join(backup_label::FILE)).ok();
        let (tli, redo, checkpoint) = match label {
            Some(text) => {
                let label = BackupLabel::parse(&text).ok()?;
                (label.tli, label.start_lsn, label.checkpoint_lsn)
            }
            None => (file.checkpoint_copy.tli, file.checkpoint_copy.redo, file.checkpoint),
        };
        Some(Self { file, tli, redo, checkpoint })
    }

    fn segments(&self) -> impl Iterator<Item = SegNo> + use<> {
        let bytes = self.file.segment_bytes;
        (SegNo::of(self.redo, bytes).get()..=SegNo::of(self.checkpoint, bytes).get()).map(SegNo::new)
    }

    /// The first segment that no file of `pg_wal` is, whatever the timeline.
    fn missing(&self, data_dir: &Path) -> Option<SegNo> {
        let names = std::fs::read_dir(data_dir.join("pg_wal")).ok()?;
        let here: Vec<SegNo> = names
            .filter_map(|entry| segment::parse_file_name(entry.ok()?.file_name().to_str()?, self.file.segment_bytes))
            .filter(|(tli, _)| *tli >= self.tli)
            .map(|(_, segno)| segno)
            .collect();
        self.segments().find(|segno| !here.contains(segno))
    }
}

/// Waits until the WAL that recovery begins with is here, however often the upstream must be asked. Returns at once if it is, or if this is no
/// standby of an upstream.
pub async fn fetch(config: Arc<Config>) {
    let data_dir = config.data_dir().to_owned();
    let Some(wanted) = Wanted::read(&data_dir) else { return };
    let mut last = String::new();
    let mut reloads = config.subscribe();
    while let Some(mut segno) = wanted.missing(&data_dir) {
        let settings = config.current();
        let conninfo = settings.str(Setting::PrimaryConninfo).to_owned();
        if conninfo.is_empty() {
            return;
        }
        let commands = Commands {
            restore: location::restore_command(&settings),
            archive_always: settings.str(Setting::ArchiveMode) == "always",
            ..Commands::default()
        };
        if !commands.restore.is_empty() {
            match from_archive(data_dir.clone(), commands, &wanted).await {
                // Recovery asks the archive again, and says what is wrong with it.
                None => return,
                Some(None) => continue,
                Some(Some(first)) => segno = first,
            }
        }
        match stream(&data_dir, &conninfo, settings.str(Setting::ClusterName), &wanted, segno).await {
            Ok(()) => {}
            Err(error) => {
                let text = error.to_string();
                if text != last {
                    tracing::error!(severity = "FATAL", "{text}");
                    last = text;
                }
                let wait = settings.duration(Setting::WalRetrieveRetryInterval).unwrap_or(Duration::from_secs(5));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = reloads.changed() => {}
                }
            }
        }
    }
}

/// Takes from the archive what it has. The first segment that it has not; `None`: it cannot be asked.
async fn from_archive(data_dir: PathBuf, commands: Commands, wanted: &Wanted) -> Option<Option<SegNo>> {
    let (tli, bytes, redo) = (wanted.tli, wanted.file.segment_bytes, wanted.redo);
    let segments: Vec<SegNo> = wanted.segments().collect();
    let asked = tokio::task::spawn_blocking(move || {
        let restart = restore::restart_file(redo, tli, bytes);
        for segno in segments {
            let name = segment::file_name(tli, segno, bytes);
            let here = data_dir.join("pg_wal").join(&name).exists();
            if !here && !restore::fetch_segment(&data_dir, &commands, &name, bytes, &restart, true)? {
                return Ok(Some(segno));
            }
        }
        Ok::<_, crate::recovery::RecoveryError>(None)
    });
    asked.await.ok()?.ok()
}

async fn stream(data_dir: &Path, conninfo: &str, cluster_name: &str, wanted: &Wanted, first: SegNo) -> Result<(), FirstWalError> {
    let info = ConnInfo::parse(conninfo).map_err(|e| FirstWalError::Connect(e.into()))?;
    let name = if cluster_name.is_empty() { "walreceiver" } else { cluster_name };
    let mut client = Client::connect_within(&info, true, name, Bounds::STREAM).await.map_err(FirstWalError::Connect)?;
    let identity = client.query("IDENTIFY_SYSTEM").await?;
    if identity.first().and_then(|set| set.text(0, 0)) != Some(wanted.file.system_id.to_string().as_str()) {
        return Err(FirstWalError::SystemId);
    }
    let bytes = wanted.file.segment_bytes;
    let start = first.start_lsn(bytes);
    let tli = wanted.tli;
    client.send(&format!("START_REPLICATION {start} TIMELINE {tli}")).await?;
    tracing::info!("started streaming WAL from primary at {start} on timeline {tli}");
    let mut files = Files { data_dir, tli, bytes, at: start, open: None };
    let enough = wanted.checkpoint.advance(RECORD_ROOM_BYTES);
    loop {
        match client.event().await? {
            Event::Data(message) => {
                let upto = match ServerMessage::decode(&message)? {
                    ServerMessage::XLogData { start, wal_end, data, .. } => {
                        files.append(start, data)?;
                        wal_end
                    }
                    ServerMessage::Keepalive { wal_end, .. } => wal_end,
                    // Nobody asked for these.
                    ServerMessage::Compressed { .. } => return Err(ClientError::Protocol("compressed WAL".to_owned()).into()),
                    ServerMessage::Bound { .. } => return Err(ClientError::Protocol("a bound".to_owned()).into()),
                };
                // What is missing to the end of a whole segment comes with the rest of the WAL.
                if files.at >= enough || (files.at >= upto && files.at > wanted.checkpoint) {
                    break;
                }
            }
            Event::CopyDone if files.at > wanted.checkpoint => break,
            Event::CopyDone | Event::Complete(_) | Event::Ready => return Err(FirstWalError::TooShort { tli, at: files.at }),
            Event::CopyBoth | Event::Notice(_) => {}
            other @ (Event::Columns(_) | Event::Row(_) | Event::CopyOut) => {
                return Err(ClientError::Protocol(format!("{other:?}")).into());
            }
        }
    }
    files.close()?;
    client.close().await;
    Ok(())
}

/// Segment files being written, one after the other. Each gets its name when it is complete and durable.
struct Files<'a> {
    data_dir: &'a Path,
    tli: TimelineId,
    bytes: u32,
    at: Lsn,
    open: Option<std::fs::File>,
}

impl Files<'_> {
    fn append(&mut self, start: Lsn, mut data: &[u8]) -> Result<(), FirstWalError> {
        if start != self.at {
            return Err(ClientError::Protocol(format!("WAL from {start} on where {} was expected", self.at)).into());
        }
        while !data.is_empty() {
            let file = match &mut self.open {
                Some(file) => file,
                None => self.open.insert(std::fs::File::create(self.data_dir.join(PARTIAL))?),
            };
            let end = SegNo::of(self.at, self.bytes).end_lsn(self.bytes);
            let room = usize::try_from(end.bytes_since(self.at).unwrap_or(0)).unwrap_or(usize::MAX);
            let (now, rest) = data.split_at(room.min(data.len()));
            file.write_all(now)?;
            self.at = self.at.advance(now.len() as u64);
            data = rest;
            if self.at == end {
                self.close()?;
            }
        }
        Ok(())
    }

    /// Fills the rest of the segment with zeros and gives it its name.
    fn close(&mut self) -> Result<(), FirstWalError> {
        let Some(mut file) = self.open.take() else { return Ok(()) };
        let mut left = u64::from(self.bytes).saturating_sub(file.stream_position()?);
        let zeros = vec![0; 64 << 10];
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all(&zeros[..now])?;
            left -= now as u64;
        }
        file.sync_all()?;
        let name = segment::file_name(self.tli, SegNo::of_end(self.at, self.bytes), self.bytes);
        durable_rename(&RealDisk, &self.data_dir.join(PARTIAL), &self.data_dir.join("pg_wal").join(name))?;
        Ok(())
    }
}
