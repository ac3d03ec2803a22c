//! Takes the backup: the dialogue with the server, and what becomes of each archive.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use afterimage_wal::ids::{Lsn, TimelineId};
use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::options::{Destination, Options, WalMethod};
use super::progress::Progress;
use super::unpack::{mapped, unpack};
use super::{tarball, wal};
use crate::replication::base_backup::Compression;
use crate::replication::base_backup::encoder::{Encoder, decoder};
use crate::replication::client::{Client, ClientError, Event, ResultSet};
use crate::replication::conninfo::ConnInfo;
use crate::sqlstate::SqlState;

const MANIFEST: &str = "backup_manifest";

/// What a backup took.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Bytes of the archives.
    pub bytes: u64,
    /// Start position.
    pub start: Lsn,
    /// End position.
    pub end: Lsn,
}

/// Why there is no backup.
#[derive(Debug)]
pub enum BackupError {
    /// The server found damaged pages. What was copied stays.
    Checksum,
    /// Everything else, with the text that comes after `error: `.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for BackupError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Takes the backup.
///
/// # Errors
/// [`BackupError`]; what was made is removed again, unless it is to stay.
pub async fn run(options: &Options) -> Result<Summary, BackupError> {
    let mut made = Made::default();
    let (mut client, info) = connect(options).await?;
    let mode = client.query("SHOW data_directory_mode").await?;
    let mode = mode.first().and_then(|s| s.text(0, 0)).and_then(|text| u32::from_str_radix(text, 8).ok());
    made.modes = Modes { group: mode.is_some_and(|mode| mode & 0o040 != 0) };
    let (busy, mut idle) = mpsc::channel(1);
    let outcome = Backup { options, info, modes: made.modes, busy }.take(client, &mut made).await;
    // After a failure others may still write what they were given: nothing is removed under their hands.
    while idle.recv().await.is_some() {}
    match &outcome {
        Ok(_) | Err(BackupError::Checksum) => {}
        Err(BackupError::Other(_)) if options.clean => made.remove(),
        Err(_) => made.tell(),
    }
    outcome
}

/// Whether the group may read what is made, as on the server.
#[derive(Clone, Copy, Default)]
pub(super) struct Modes {
    group: bool,
}

impl Modes {
    pub(super) fn directory(self) -> u32 {
        if self.group { 0o750 } else { 0o700 }
    }

    pub(super) fn file(self) -> u32 {
        if self.group { 0o640 } else { 0o600 }
    }
}

/// Directories that were made, or found empty, for this backup.
#[derive(Default)]
struct Made {
    modes: Modes,
    /// What it is in messages, where, and whether it was made.
    directories: Vec<(&'static str, PathBuf, bool)>,
    tablespaces: bool,
}

impl Made {
    /// An empty or new directory.
    fn prepare(&mut self, what: &'static str, dir: &Path) -> anyhow::Result<()> {
        let made = match fs::read_dir(dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    bail!("directory \"{}\" exists but is not empty", dir.display());
                }
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dir).with_context(|| format!("could not create directory \"{}\"", dir.display()))?;
                fs::set_permissions(dir, fs::Permissions::from_mode(self.modes.directory()))?;
                true
            }
            Err(error) => return Err(error).with_context(|| format!("could not access directory \"{}\"", dir.display())),
        };
        if what.is_empty() {
            self.tablespaces = true;
        } else {
            self.directories.push((what, dir.to_owned(), made));
        }
        Ok(())
    }

    fn remove(&self) {
        for (what, dir, made) in &self.directories {
            let shown = dir.display();
            let done = if *made {
                say(format_args!("removing {what} directory \"{shown}\""));
                fs::remove_dir_all(dir)
            } else {
                say(format_args!("removing contents of {what} directory \"{shown}\""));
                empty(dir)
            };
            if let Err(error) = done {
                eprintln!("pg_basebackup: error: failed to remove {what} directory: {error}");
            }
        }
        self.tell_of_tablespaces();
    }

    fn tell(&self) {
        for (what, dir, _) in &self.directories {
            say(format_args!("{what} directory \"{}\" not removed at user's request", dir.display()));
        }
        self.tell_of_tablespaces();
    }

    fn tell_of_tablespaces(&self) {
        if self.tablespaces {
            say(format_args!("changes to tablespace directories will not be undone"));
        }
    }
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }?;
    }
    Ok(())
}

fn say(text: std::fmt::Arguments<'_>) {
    eprintln!("pg_basebackup: {text}");
}

struct Backup<'a> {
    options: &'a Options,
    /// Where to connect, with a password that was asked for.
    info: ConnInfo,
    modes: Modes,
    /// Whoever writes files holds a copy.
    busy: mpsc::Sender<()>,
}

/// The WAL's stream: who tells it where the backup ends, and how it ended.
type Streaming = (watch::Sender<Lsn>, JoinSet<anyhow::Result<()>>);

/// An archive being dealt with on a thread of its own.
struct Unpacking {
    sender: std_mpsc::SyncSender<Bytes>,
    thread: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Unpacking {
    fn start(busy: mpsc::Sender<()>, job: impl FnOnce(ChannelReader) -> anyhow::Result<()> + Send + 'static) -> Self {
        let (sender, receiver) = std_mpsc::sync_channel::<Bytes>(64);
        let reader = ChannelReader { receiver, current: Bytes::new() };
        let thread = tokio::task::spawn_blocking(move || {
            let _busy = busy;
            job(reader)
        });
        Self { sender, thread }
    }

    async fn finish(self) -> anyhow::Result<()> {
        drop(self.sender);
        self.thread.await.context("writing an archive")?
    }
}

struct ChannelReader {
    receiver: std_mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.recv() {
                Ok(bytes) => self.current = bytes,
                Err(std_mpsc::RecvError) => return Ok(0),
            }
        }
        let n = out.len().min(self.current.len());
        out[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

fn first_position(set: Option<&ResultSet>) -> anyhow::Result<(Lsn, TimelineId)> {
    let set = set.filter(|set| !set.rows.is_empty()).context("server returned no position")?;
    let lsn = set.text(0, 0).and_then(|t| t.parse().ok()).context("could not parse write-ahead log location")?;
    let tli = set.text(0, 1).and_then(|t| t.parse().ok()).map(TimelineId::new).context("could not parse timeline")?;
    Ok((lsn, tli))
}

/// Results up to a copy, or to the end of the command. True if a copy begins.
async fn results(client: &mut Client) -> Result<(Vec<ResultSet>, bool), ClientError> {
    let mut sets: Vec<ResultSet> = Vec::new();
    let mut failure = None;
    loop {
        match client.event().await {
            Ok(Event::Columns(columns)) => sets.push(ResultSet { columns, rows: Vec::new() }),
            Ok(Event::Row(row)) => match sets.last_mut() {
                Some(set) => set.rows.push(row),
                None => return Err(ClientError::Protocol("a row before columns".to_owned())),
            },
            Ok(Event::Notice(text)) => eprintln!("{text}"),
            Ok(Event::Complete(_)) => {}
            Ok(Event::CopyOut) => return Ok((sets, true)),
            Ok(Event::Ready) => return failure.map_or(Ok((sets, false)), Err),
            Ok(other @ (Event::CopyBoth | Event::Data(_) | Event::CopyDone)) => return Err(ClientError::Protocol(format!("{other:?}"))),
            Err(error @ ClientError::Server { .. }) => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
}

impl Backup<'_> {
    fn say(&self, text: std::fmt::Arguments<'_>) {
        if self.options.verbose {
            say(text);
        }
    }

    async fn take(&self, mut client: Client, made: &mut Made) -> Result<Summary, BackupError> {
        let options = self.options;
        if let Destination::Plain(dir) | Destination::Tar(dir) = &options.destination {
            made.prepare("data", dir)?;
        }
        if let Some(dir) = &options.wal_dir {
            made.prepare("WAL", dir)?;
        }
        let size = client.query("SHOW wal_segment_size").await?;
        let segment_bytes = size.first().and_then(|s| s.text(0, 0)).and_then(parse_megabytes).context("could not read wal_segment_size")?;
        self.say(format_args!("initiating base backup, waiting for checkpoint to complete"));
        client.send(&self.command()).await?;
        let (sets, copying) = results(&mut client).await.map_err(|e| anyhow::anyhow!("could not initiate base backup: {e}"))?;
        if !copying {
            return Err(anyhow::anyhow!("could not get COPY data stream").into());
        }
        let (start, tli) = first_position(sets.first())?;
        self.say(format_args!("checkpoint completed"));
        self.say(format_args!("write-ahead log start point: {start} on timeline {tli}"));
        let header = sets.get(1).context("no data returned from server")?;
        let total_kb = (0..header.rows.len()).filter_map(|row| header.text(row, 2)?.parse::<u64>().ok()).sum();
        let locations: Vec<&str> = (0..header.rows.len()).filter_map(|row| header.text(row, 1)).collect();
        match &options.destination {
            Destination::Stdout if header.rows.len() > 1 => {
                let text = format!("can only write single tablespace to stdout, database has {}", header.rows.len());
                return Err(anyhow::Error::msg(text).into());
            }
            Destination::Plain(_) => {
                for location in &locations {
                    made.prepare("", Path::new(mapped(&options.tablespace_mapping, location)))?;
                }
            }
            Destination::Tar(_) | Destination::Stdout | Destination::Target(..) => {}
        }
        let progress = Arc::new(Progress::new(options.progress, options.verbose, total_kb, header.rows.len()));
        let mut streaming = self.start_streaming(start, tli, segment_bytes).await?;
        // Ended when dropped.
        let mut parts = JoinSet::new();
        if let Some(name) = sets.first().and_then(|set| set.text(0, 2)) {
            for _ in 1..options.jobs {
                parts.spawn(part(self.info.clone(), name.to_owned(), options.clone(), self.busy.clone(), Arc::clone(&progress)));
            }
        }

        let (bytes, manifest) = tokio::select! {
            received = self.receive(&mut client, &progress) => received.map_err(judged)?,
            failed = failed_early(&mut parts) => return Err(judged(failed)),
            ended = ended_early(&mut streaming) => {
                say(format_args!("error: {ended}"));
                return Err(anyhow::anyhow!("background process terminated unexpectedly").into());
            }
        };
        while let Some(part) = parts.join_next().await {
            part.context("a part of the backup")?.map_err(judged)?;
        }
        let (sets, _) = results(&mut client).await.map_err(|e| judged(anyhow::Error::new(e).context("backup failed")))?;
        let (end, _) = first_position(sets.first()).context("no write-ahead log end position returned from server")?;
        progress.finish();
        if options.wal != WalMethod::None {
            self.say(format_args!("write-ahead log end point: {end}"));
        }
        if let Some((told, mut task)) = streaming {
            self.say(format_args!("waiting for background process to finish streaming ..."));
            told.send_replace(end);
            task.join_next().await.context("WAL receiver")?.context("WAL receiver")??;
        }
        client.close().await;
        self.settle(manifest).await?;
        self.say(format_args!("base backup completed"));
        Ok(Summary { bytes, start, end })
    }

    /// Opens the second connection and starts to stream WAL, if that is how it comes.
    async fn start_streaming(&self, start: Lsn, tli: TimelineId, segment_bytes: u32) -> anyhow::Result<Option<Streaming>> {
        let options = self.options;
        let sink = match &options.destination {
            Destination::Plain(dir) => {
                let wal_dir = dir.join("pg_wal");
                if let Some(elsewhere) = &options.wal_dir {
                    std::os::unix::fs::symlink(elsewhere, &wal_dir)
                        .with_context(|| format!("could not create symbolic link \"{}\"", wal_dir.display()))?;
                }
                if options.wal != WalMethod::Stream {
                    return Ok(None);
                }
                wal::Sink::files(&wal_dir, self.modes, tli, segment_bytes)?
            }
            Destination::Tar(dir) if options.wal == WalMethod::Stream => {
                wal::Sink::tar(dir, self.modes, options.compression, (tli, segment_bytes), options.sync)?
            }
            Destination::Tar(_) | Destination::Stdout | Destination::Target(..) => return Ok(None),
        };
        self.say(format_args!("starting background WAL receiver"));
        let mut second = Client::connect(&self.info, true, "pg_basebackup").await?;
        let mut slot = options.slot.clone();
        if slot.is_none() && options.temporary_slot {
            let name = format!("pg_basebackup_{}", second.backend_pid());
            second.query(&format!("CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY PHYSICAL (RESERVE_WAL)")).await?;
            self.say(format_args!("created temporary replication slot \"{name}\""));
            slot = Some(name);
        } else if let Some(name) = slot.as_ref().filter(|_| options.create_slot) {
            second.query(&format!("CREATE_REPLICATION_SLOT \"{name}\" PHYSICAL (RESERVE_WAL)")).await?;
            self.say(format_args!("created replication slot \"{name}\""));
        }
        let (told, end) = watch::channel(Lsn::INVALID);
        let (busy, interval) = (self.busy.clone(), options.status_interval);
        // Ended when dropped.
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _busy = busy;
            wal::stream(second, slot, start, sink, end, interval).await
        });
        Ok(Some((told, task)))
    }

    fn command(&self) -> String {
        let options = self.options;
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let mut parts = vec![format!("LABEL {}", quote(&options.label))];
        if options.estimate_size {
            parts.push("PROGRESS".to_owned());
        }
        if options.wal == WalMethod::Fetch {
            parts.push("WAL".to_owned());
        }
        if options.fast_checkpoint {
            parts.push("CHECKPOINT 'fast'".to_owned());
        }
        if options.wal != WalMethod::None {
            parts.push("WAIT 0".to_owned());
        }
        if let Some(rate) = options.max_rate {
            parts.push(format!("MAX_RATE {rate}"));
        }
        if !matches!(options.destination, Destination::Plain(_)) {
            parts.push("TABLESPACE_MAP".to_owned());
        }
        if !options.verify_checksums {
            parts.push("VERIFY_CHECKSUMS 0".to_owned());
        }
        if options.manifest {
            parts.push(format!("MANIFEST '{}'", if options.manifest_force_encode { "force-encode" } else { "yes" }));
            if let Some(kind) = &options.manifest_checksums {
                parts.push(format!("MANIFEST_CHECKSUMS {}", quote(kind)));
            }
        }
        if let Destination::Target(name, detail) = &options.destination {
            parts.push(format!("TARGET {}", quote(name)));
            parts.extend(detail.iter().map(|detail| format!("TARGET_DETAIL {}", quote(detail))));
        }
        if options.jobs > 1 {
            parts.push("STREAMS".to_owned());
        }
        if let Some((method, detail)) = &options.server_compression {
            parts.push(format!("COMPRESSION {}", quote(method)));
            parts.extend(detail.iter().map(|detail| format!("COMPRESSION_DETAIL {}", quote(detail))));
        }
        format!("BASE_BACKUP ({})", parts.join(", "))
    }

    /// What is done with an archive, and where the manifest goes that has to be put into it.
    fn job(&self, name: &str, location: &str, progress: &Arc<Progress>) -> anyhow::Result<(Unpacking, Option<std_mpsc::Sender<Vec<u8>>>)> {
        if name.contains(['/', '\\']) || name.starts_with('.') {
            bail!("invalid archive name: \"{name}\"");
        }
        let options = self.options;
        let (name, progress) = (name.to_owned(), Arc::clone(progress));
        let recovery = (location.is_empty() && options.write_recovery_conf).then(|| self.recovery_settings());
        Ok(match &options.destination {
            Destination::Plain(dir) => {
                let mapping = options.tablespace_mapping.clone();
                let target = if location.is_empty() { dir.clone() } else { mapped(&mapping, location).into() };
                let job = move |from: ChannelReader| unpack(decoder(&name, from)?, &target, &mapping, |path| progress.file(path));
                (Unpacking::start(self.busy.clone(), job), None)
            }
            Destination::Tar(dir) => {
                let path = dir.join(format!("{name}{}", options.compression.suffix()));
                let (compression, sync, mode) = (options.compression, options.sync, self.modes.file());
                progress.file(&path);
                let job = move |from: ChannelReader| {
                    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
                    let file = file.with_context(|| format!("could not create file \"{}\"", path.display()))?;
                    let file = write_tar(&name, from, file, compression, Additions { recovery, manifest: None })
                        .with_context(|| format!("could not write to file \"{}\"", path.display()))?;
                    if sync {
                        file.sync_all().with_context(|| format!("could not fsync file \"{}\"", path.display()))?;
                    }
                    Ok(())
                };
                (Unpacking::start(self.busy.clone(), job), None)
            }
            Destination::Stdout => {
                if options.manifest && Compression::of_name(&name) != Compression::None {
                    bail!(
                        "cannot inject manifest into a compressed tar file\npg_basebackup: hint: Use client-side compression, send the output to a directory rather than standard output, or use --no-manifest."
                    );
                }
                let compression = options.compression;
                let (sender, manifest) = std_mpsc::channel::<Vec<u8>>();
                let additions = Additions { recovery, manifest: options.manifest.then_some(manifest) };
                let job = move |from: ChannelReader| write_tar(&name, from, io::stdout().lock(), compression, additions).map(drop);
                (Unpacking::start(self.busy.clone(), job), options.manifest.then_some(sender))
            }
            Destination::Target(..) => bail!("unexpected payload data"),
        })
    }

    /// Hands the archives' bytes to threads as they arrive. Returns how many there were, and the manifest.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    async fn receive(&self, client: &mut Client, progress: &Arc<Progress>) -> anyhow::Result<(u64, Option<Vec<u8>>)> {
        let mut current: Option<Unpacking> = None;
        let mut manifest_goes = None;
        let mut bytes = 0_u64;
        let mut manifest: Option<Vec<u8>> = None;
        loop {
            match client.event().await.context("could not read COPY data")? {
                Event::Data(mut data) => {
                    if data.is_empty() {
                        bail!("empty COPY message");
                    }
                    let kind = data.get_u8();
                    if kind == b'm' {
                        manifest = Some(Vec::new());
                        continue;
                    }
                    match (kind, &mut manifest) {
                        (b'd', Some(text)) => text.extend_from_slice(&data),
                        (b'd', None) => {
                            bytes += data.len() as u64;
                            let thread = current.as_ref().context("unexpected payload data")?;
                            let refused = tokio::task::block_in_place(|| thread.sender.send(data).is_err());
                            if refused && let Some(thread) = current.take() {
                                thread.finish().await?;
                                bail!("the archive ended early");
                            }
                        }
                        (b'n', Some(_)) => bail!("archives must precede manifest"),
                        (b'n', None) => {
                            if let Some(before) = current.take() {
                                before.finish().await?;
                            }
                            progress.next_archive();
                            let mut texts = data.split(|b| *b == 0).map(String::from_utf8_lossy);
                            let (name, location) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
                            if !matches!(self.options.destination, Destination::Target(..)) {
                                let (thread, manifest) = self.job(&name, &location, progress)?;
                                (current, manifest_goes) = (Some(thread), manifest);
                            }
                        }
                        (b'p', _) if data.len() == 8 => progress.set(data.get_u64()),
                        (kind, _) => bail!("malformed COPY message of type {kind}, length {}", data.len() + 1),
                    }
                }
                Event::CopyDone => break,
                Event::Notice(text) => eprintln!("{text}"),
                other => bail!("unexpected message from server: {other:?}"),
            }
        }
        if let Some(goes) = manifest_goes {
            // A thread that failed says why when it is waited for.
            drop(goes.send(manifest.take().unwrap_or_default()));
        }
        if let Some(last) = current.take() {
            last.finish().await?;
        }
        Ok((bytes, manifest))
    }

    fn recovery_settings(&self) -> String {
        let info = self.info.for_standby();
        let mut lines = format!("primary_conninfo = '{}'\n", info.to_text().replace('\'', "''"));
        if let Some(slot) = &self.options.slot {
            lines.push_str(&format!("primary_slot_name = '{slot}'\n"));
        }
        lines
    }

    /// Puts what belongs to a standby in place, and last of all the manifest: without it the backup is not complete.
    async fn settle(&self, manifest: Option<Vec<u8>>) -> anyhow::Result<()> {
        let options = self.options;
        let (Destination::Plain(dir) | Destination::Tar(dir)) = &options.destination else { return Ok(()) };
        if options.write_recovery_conf && matches!(options.destination, Destination::Plain(_)) {
            let mut file =
                fs::OpenOptions::new().append(true).create(true).mode(self.modes.file()).open(dir.join("postgresql.auto.conf"))?;
            file.write_all(self.recovery_settings().as_bytes())?;
            write_file(&dir.join("standby.signal"), self.modes, b"")?;
        }
        let temporary = dir.join(format!("{MANIFEST}.tmp"));
        if let Some(manifest) = &manifest {
            write_file(&temporary, self.modes, manifest)?;
        }
        if options.sync {
            self.say(format_args!("syncing data to disk ..."));
            let dir = dir.clone();
            tokio::task::spawn_blocking(move || sync_tree(&dir)).await??;
        }
        if manifest.is_some() {
            self.say(format_args!("renaming {MANIFEST}.tmp to {MANIFEST}"));
            let disk = afterimage_wal::disk::RealDisk;
            afterimage_wal::disk::durable_rename(&disk, &temporary, &dir.join(MANIFEST))
                .with_context(|| format!("could not rename file \"{}\"", temporary.display()))?;
        }
        Ok(())
    }
}

/// Receives files over a connection of its own until there are no more. PostgreSQL's servers do not know this command, and are not asked.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
async fn part(info: ConnInfo, name: String, options: Options, busy: mpsc::Sender<()>, progress: Arc<Progress>) -> anyhow::Result<()> {
    let Destination::Plain(dir) = options.destination.clone() else { return Ok(()) };
    let mut client = Client::connect(&info, true, "pg_basebackup").await?;
    client.send(&format!("BASE_BACKUP_PART '{name}'")).await?;
    match results(&mut client).await {
        Ok((_, true)) => {}
        Ok((_, false)) => bail!("could not get COPY data stream"),
        // The others were faster: nothing is left to send.
        Err(error) if error.code() == Some(SqlState::UNDEFINED_OBJECT.0) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let unpacking = Unpacking::start(busy, move |from| unpack(from, &dir, &options.tablespace_mapping, |path| progress.file(path)));
    loop {
        match client.event().await.context("could not read COPY data")? {
            Event::Data(mut data) if data.first() == Some(&b'd') => {
                data.advance(1);
                if tokio::task::block_in_place(|| unpacking.sender.send(data).is_err()) {
                    unpacking.finish().await?;
                    bail!("the archive ended early");
                }
            }
            Event::CopyDone => break,
            Event::Notice(text) => eprintln!("{text}"),
            other => bail!("unexpected message from server: {other:?}"),
        }
    }
    unpacking.finish().await?;
    results(&mut client).await?;
    client.close().await;
    Ok(())
}

/// Why a part of the backup failed, if one does.
async fn failed_early(parts: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    loop {
        match parts.join_next().await {
            None => std::future::pending::<()>().await,
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return error,
            Some(Err(error)) => return error.into(),
        }
    }
}

/// How the WAL's stream ended before it was told to.
async fn ended_early(streaming: &mut Option<Streaming>) -> String {
    match streaming {
        None => std::future::pending().await,
        Some((_told, task)) => match task.join_next().await {
            Some(Ok(Ok(()))) | None => "the stream of WAL ended".to_owned(),
            Some(Ok(Err(e))) => format!("{e:#}"),
            Some(Err(e)) => e.to_string(),
        },
    }
}

/// What is put into an archive kept as tar.
#[derive(Default)]
struct Additions {
    recovery: Option<String>,
    manifest: Option<std_mpsc::Receiver<Vec<u8>>>,
}

/// Keeps an archive as tar: as it comes, or with members put in.
fn write_tar<W: Write>(name: &str, mut from: ChannelReader, out: W, compression: Compression, additions: Additions) -> anyhow::Result<W> {
    let Additions { recovery, manifest } = additions;
    if recovery.is_none() && manifest.is_none() {
        let mut out = Encoder::new(compression, out)?;
        io::copy(&mut from, &mut out)?;
        return Ok(out.finish()?);
    }
    // Compressed by the server and to be added to: it is compressed again the same way.
    let compression = if compression == Compression::None { Compression::of_name(name) } else { compression };
    let mut out = Encoder::new(compression, out)?;
    tarball::rewrite(decoder(name, from)?, &mut out, recovery.as_deref(), || {
        let text = manifest.map(|manifest| manifest.recv()).transpose().context("the backup ended without a manifest")?;
        Ok(text.into_iter().map(|text| (MANIFEST.to_owned(), text)).collect())
    })?;
    Ok(out.finish()?)
}

/// Connects, asking for a password where one is needed.
async fn connect(options: &Options) -> anyhow::Result<(Client, ConnInfo)> {
    let mut info = options.info.clone();
    if options.prompt == Some(true) {
        info.set("password", ask_password()?)?;
    }
    match Client::connect(&info, true, "pg_basebackup").await {
        Err(ClientError::Authentication(_)) if options.prompt.is_none() && info.get("password").is_none() => {
            info.set("password", ask_password()?)?;
            Ok((Client::connect(&info, true, "pg_basebackup").await?, info))
        }
        connected => Ok((connected?, info)),
    }
}

/// Reads a password from the terminal, unseen.
fn ask_password() -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let mut terminal = fs::OpenOptions::new().read(true).write(true).open("/dev/tty").context("fe_sendauth: no password supplied")?;
    terminal.write_all(b"Password: ")?;
    let before = tcgetattr(&terminal)?;
    let mut unseen = before.clone();
    unseen.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &unseen)?;
    let mut line = String::new();
    let read = io::BufRead::read_line(&mut io::BufReader::new(&terminal), &mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    terminal.write_all(b"\n")?;
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Damage that the server found is told from other failures.
fn judged(error: anyhow::Error) -> BackupError {
    let is_damage = error.downcast_ref::<ClientError>().is_some_and(|client| client.code() == Some(SqlState::DATA_CORRUPTED.0));
    if is_damage { BackupError::Checksum } else { BackupError::Other(error) }
}

fn write_file(path: &Path, modes: Modes, contents: &[u8]) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(modes.file()).open(path)?;
    file.write_all(contents)?;
    Ok(())
}

fn parse_megabytes(text: &str) -> Option<u32> {
    let (number, factor) = match (text.strip_suffix("MB"), text.strip_suffix("GB")) {
        (Some(n), _) => (n, 1 << 20),
        (None, Some(n)) => (n, 1 << 30),
        (None, None) => (text, 1),
    };
    number.trim().parse::<u32>().ok()?.checked_mul(factor)
}

fn sync_tree(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            fs::File::open(&path)?.sync_all()?;
        }
    }
    Ok(fs::File::open(dir)?.sync_all()?)
}
