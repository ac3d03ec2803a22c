//! `afterimage basebackup`, and `pg_basebackup` when called by that name: clones a running node into a directory.
//!
//! Plain format: the tar stream is unpacked as it arrives, while a second connection streams the WAL written meanwhile.
//! On any failure what was made is removed again. PostgreSQL: bin/pg_basebackup/pg_basebackup.c.

use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;
use std::time::Instant;

use afterimage_wal::ids::{Lsn, SegNo, TimelineId};
use afterimage_wal::segment;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Parser;
use tokio::sync::watch;

use crate::replication::client::{Client, Event, ResultSet};
use crate::replication::conninfo::ConnInfo;
use crate::replication::message::{ServerMessage, StandbyMessage};
use crate::replication::timestamp_now;

/// Options, as pg_basebackup's.
#[derive(Parser, Clone, Debug)]
#[command(name = "pg_basebackup", disable_help_flag = true, disable_version_flag = true, about = "takes a base backup of a running server")]
pub struct Options {
    /// receive base backup into directory
    #[arg(short = 'D', long = "pgdata", value_name = "DIRECTORY")]
    pub pgdata: PathBuf,
    /// output format (plain)
    #[arg(short = 'F', long = "format", default_value = "p")]
    pub format: String,
    /// maximum transfer rate to transfer data directory (in kB/s, or use suffix "k" or "M")
    #[arg(short = 'r', long = "max-rate")]
    pub max_rate: Option<String>,
    /// write configuration for replication
    #[arg(short = 'R', long = "write-recovery-conf")]
    pub write_recovery_conf: bool,
    /// include required WAL files with specified method
    #[arg(short = 'X', long = "wal-method", default_value = "stream", value_name = "none|fetch|stream")]
    pub wal_method: String,
    /// relocate tablespace in OLDDIR to NEWDIR
    #[arg(short = 'T', long = "tablespace-mapping", value_name = "OLDDIR=NEWDIR")]
    pub tablespace_mapping: Vec<String>,
    /// location for the write-ahead log directory
    #[arg(long = "waldir", value_name = "WALDIR")]
    pub wal_dir: Option<PathBuf>,
    /// prevent creation of temporary replication slot
    #[arg(long = "no-slot")]
    pub no_slot: bool,
    /// set fast or spread checkpointing
    #[arg(short = 'c', long = "checkpoint", default_value = "spread", value_name = "fast|spread")]
    pub checkpoint: String,
    /// create replication slot
    #[arg(short = 'C', long = "create-slot")]
    pub create_slot: bool,
    /// set backup label
    #[arg(short = 'l', long = "label", default_value = "pg_basebackup base backup")]
    pub label: String,
    /// do not clean up after errors
    #[arg(short = 'n', long = "no-clean")]
    pub no_clean: bool,
    /// do not wait for changes to be written safely to disk
    #[arg(short = 'N', long = "no-sync")]
    pub no_sync: bool,
    /// show progress information
    #[arg(short = 'P', long = "progress")]
    pub progress: bool,
    /// replication slot to use
    #[arg(short = 'S', long = "slot")]
    pub slot: Option<String>,
    /// output verbose messages
    #[arg(short = 'v', long = "verbose")]
    pub verbose: bool,
    /// use algorithm for manifest checksums
    #[arg(long = "manifest-checksums", default_value = "CRC32C")]
    pub manifest_checksums: String,
    /// suppress generation of backup manifest
    #[arg(long = "no-manifest")]
    pub no_manifest: bool,
    /// do not verify checksums
    #[arg(long = "no-verify-checksums")]
    pub no_verify_checksums: bool,
    /// connection string
    #[arg(short = 'd', long = "dbname")]
    pub dbname: Option<String>,
    /// database server host or socket directory
    #[arg(short = 'h', long = "host")]
    pub host: Option<String>,
    /// database server port number
    #[arg(short = 'p', long = "port")]
    pub port: Option<String>,
    /// connect as specified database user
    #[arg(short = 'U', long = "username")]
    pub username: Option<String>,
    /// never prompt for password
    #[arg(short = 'w', long = "no-password")]
    pub no_password: bool,
    /// show this help, then exit
    #[arg(short = '?', long = "help", action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

/// What a backup took.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Bytes of the archive.
    pub bytes: u64,
    /// Start position.
    pub start: Lsn,
    /// End position.
    pub end: Lsn,
}

/// Takes the backup.
///
/// # Errors
/// With the text pg_basebackup prints after `error: `.
pub async fn run(options: &Options) -> anyhow::Result<Summary> {
    if !matches!(options.format.as_str(), "p" | "plain") {
        bail!("only the plain format is supported; use the stock pg_basebackup for tar");
    }
    if !matches!(options.wal_method.as_str(), "none" | "n" | "fetch" | "f" | "stream" | "s") {
        bail!("invalid wal-method option \"{}\", must be \"fetch\", \"stream\", or \"none\"", options.wal_method);
    }
    if !matches!(options.checkpoint.as_str(), "fast" | "spread") {
        bail!("invalid checkpoint argument \"{}\", must be \"fast\" or \"spread\"", options.checkpoint);
    }
    if options.no_slot && options.slot.is_some() {
        bail!("cannot specify both --no-slot and --slot");
    }
    if let Some(dir) = &options.wal_dir
        && !dir.is_absolute()
    {
        bail!("WAL directory location must be an absolute path");
    }
    let mapping = options.tablespace_mapping.iter().map(|text| parse_mapping(text)).collect::<anyhow::Result<Vec<_>>>()?;
    if options.create_slot && options.slot.is_none() {
        bail!("--create-slot needs a slot to be specified using --slot");
    }
    let mut info = ConnInfo::parse(options.dbname.as_deref().unwrap_or(""))?;
    for (key, value) in [("host", &options.host), ("port", &options.port), ("user", &options.username)] {
        if let Some(value) = value {
            info.set(key, value.clone())?;
        }
    }
    let made = prepare_directory(&options.pgdata)?;
    let outcome = Backup { options, info, mapping }.take().await;
    if outcome.is_err() && !options.no_clean {
        match made {
            Made::Directory => fs::remove_dir_all(&options.pgdata)
                .unwrap_or_else(|e| eprintln!("pg_basebackup: could not remove \"{}\": {e}", options.pgdata.display())),
            Made::Nothing => {
                for entry in fs::read_dir(&options.pgdata).into_iter().flatten().flatten() {
                    let path = entry.path();
                    drop(if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) });
                }
            }
        }
    }
    outcome
}

enum Made {
    Directory,
    Nothing,
}

fn prepare_directory(dir: &Path) -> anyhow::Result<Made> {
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!("directory \"{}\" exists but is not empty", dir.display());
            }
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            Ok(Made::Nothing)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).with_context(|| format!("could not create directory \"{}\"", dir.display()))?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            Ok(Made::Directory)
        }
        Err(error) => Err(error).with_context(|| format!("could not access directory \"{}\"", dir.display())),
    }
}

struct Backup<'a> {
    options: &'a Options,
    info: ConnInfo,
    /// Tablespaces: where they lie on the server, and where they go.
    mapping: Vec<(String, String)>,
}

/// `OLDDIR=NEWDIR`, `\\=` standing for an equals sign in a name.
fn parse_mapping(text: &str) -> anyhow::Result<(String, String)> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'=') => parts.last_mut().context("part")?.extend(chars.next()),
            '=' if parts.len() == 2 => bail!("multiple \"=\" signs in tablespace mapping"),
            '=' => parts.push(String::new()),
            c => parts.last_mut().context("part")?.push(c),
        }
    }
    let [old, new] = parts.as_slice() else {
        bail!("invalid tablespace mapping format \"{text}\", must be \"OLDDIR=NEWDIR\"");
    };
    if old.is_empty() || new.is_empty() {
        bail!("invalid tablespace mapping format \"{text}\", must be \"OLDDIR=NEWDIR\"");
    }
    for (dir, which) in [(old, "old"), (new, "new")] {
        if !dir.starts_with('/') {
            bail!("{which} directory is not an absolute path in tablespace mapping: {dir}");
        }
    }
    Ok((old.trim_end_matches('/').to_owned(), new.trim_end_matches('/').to_owned()))
}

/// An archive being unpacked on a thread of its own.
struct Unpacking {
    sender: std_mpsc::SyncSender<Bytes>,
    thread: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Unpacking {
    fn start(target: PathBuf, mapping: Vec<(String, String)>) -> Self {
        let (sender, receiver) = std_mpsc::sync_channel::<Bytes>(64);
        let reader = ChannelReader { receiver, current: Bytes::new() };
        Self { sender, thread: tokio::task::spawn_blocking(move || unpack(reader, &target, &mapping)) }
    }

    async fn finish(self) -> anyhow::Result<()> {
        drop(self.sender);
        self.thread.await.context("unpacking")?
    }
}

fn first_position(set: Option<&ResultSet>) -> anyhow::Result<(Lsn, TimelineId)> {
    let set = set.context("server returned no position")?;
    let lsn = set.text(0, 0).and_then(|t| t.parse().ok()).context("could not parse write-ahead log location")?;
    let tli = set.text(0, 1).and_then(|t| t.parse().ok()).map(TimelineId::new).context("could not parse timeline")?;
    Ok((lsn, tli))
}

impl Backup<'_> {
    fn say(&self, text: std::fmt::Arguments<'_>) {
        if self.options.verbose {
            eprintln!("pg_basebackup: {text}");
        }
    }

    async fn take(&self) -> anyhow::Result<Summary> {
        let options = self.options;
        let mut client = Client::connect(&self.info, true, "pg_basebackup").await?;
        let size = client.query("SHOW wal_segment_size").await?;
        let segment_bytes = size.first().and_then(|s| s.text(0, 0)).and_then(parse_megabytes).context("could not read wal_segment_size")?;
        self.say(format_args!("initiating base backup, waiting for checkpoint to complete"));
        let streaming = options.wal_method.starts_with('s');
        let mut wal_client = None;
        let mut slot = options.slot.clone();
        if streaming {
            let mut second = Client::connect(&self.info, true, "pg_basebackup").await?;
            if slot.is_none() && !options.no_slot {
                let name = format!("pg_basebackup_{}", second.backend_pid());
                second.query(&format!("CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY PHYSICAL (RESERVE_WAL)")).await?;
                slot = Some(name);
            } else if let Some(name) = slot.as_ref().filter(|_| options.create_slot) {
                second.query(&format!("CREATE_REPLICATION_SLOT \"{name}\" PHYSICAL (RESERVE_WAL)")).await?;
            }
            wal_client = Some(second);
        }
        client.send(&self.command()).await?;
        let mut sets: Vec<ResultSet> = Vec::new();
        loop {
            match client.event().await? {
                Event::Columns(columns) => sets.push(ResultSet { columns, rows: Vec::new() }),
                Event::Row(row) => sets.last_mut().context("row before columns")?.rows.push(row),
                Event::Complete(_) | Event::Notice(_) => {}
                Event::CopyOut => break,
                other @ Event::CopyBoth | other @ Event::Data(_) | other @ Event::CopyDone | other @ Event::Ready => {
                    bail!("unexpected message from server: {other:?}")
                }
            }
        }
        let (start, tli) = first_position(sets.first())?;
        let sizes = sets.get(1).map(|s| (0..s.rows.len()).filter_map(|row| s.text(row, 2)?.parse::<u64>().ok()).sum());
        let total_kb: u64 = sizes.unwrap_or(0);
        self.say(format_args!("checkpoint completed"));
        self.say(format_args!("write-ahead log start point: {start} on timeline {tli}"));

        let wal_dir = options.pgdata.join("pg_wal");
        if let Some(elsewhere) = &options.wal_dir {
            prepare_directory(elsewhere)?;
            std::os::unix::fs::symlink(elsewhere, &wal_dir)
                .with_context(|| format!("could not create symbolic link \"{}\"", wal_dir.display()))?;
        }
        let (end_sender, end_receiver) = watch::channel(Lsn::INVALID);
        let wal_task = match wal_client {
            Some(second) => {
                self.say(format_args!("starting background WAL receiver"));
                fs::create_dir_all(wal_dir.join("archive_status"))?;
                let writer = WalFiles { dir: wal_dir.clone(), tli, segment_bytes, open: None };
                Some(tokio::spawn(stream_wal(second, slot.clone(), start, writer, end_receiver)))
            }
            None => None,
        };

        let (bytes, manifest) = self.receive_archive(&mut client, total_kb).await?;
        let mut sets: Vec<ResultSet> = Vec::new();
        loop {
            match client.event().await? {
                Event::Columns(columns) => sets.push(ResultSet { columns, rows: Vec::new() }),
                Event::Row(row) => sets.last_mut().context("row before columns")?.rows.push(row),
                Event::Ready => break,
                Event::Complete(_) | Event::Notice(_) => {}
                other @ Event::CopyOut | other @ Event::CopyBoth | other @ Event::Data(_) | other @ Event::CopyDone => {
                    bail!("unexpected message from server: {other:?}")
                }
            }
        }
        let (end, _) = first_position(sets.first())?;
        self.say(format_args!("write-ahead log end point: {end}"));
        if let Some(task) = wal_task {
            self.say(format_args!("waiting for background process to finish streaming ..."));
            end_sender.send_replace(end);
            task.await.context("WAL receiver")??;
        }
        client.close().await;
        if options.write_recovery_conf {
            self.write_recovery_conf()?;
        }
        if let Some(manifest) = manifest {
            write_private(&options.pgdata.join("backup_manifest"), &manifest)?;
        }
        if !options.no_sync {
            self.say(format_args!("syncing data to disk ..."));
            let dir = options.pgdata.clone();
            tokio::task::spawn_blocking(move || sync_tree(&dir)).await??;
        }
        self.say(format_args!("base backup completed"));
        Ok(Summary { bytes, start, end })
    }

    fn command(&self) -> String {
        let options = self.options;
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let mut parts = vec![format!("LABEL {}", quote(&options.label))];
        if options.progress {
            parts.push("PROGRESS".to_owned());
        }
        if options.wal_method.starts_with('f') {
            parts.push("WAL".to_owned());
        }
        parts.push(format!("CHECKPOINT {}", quote(&options.checkpoint)));
        if let Some(rate) = &options.max_rate {
            let kilobytes = match rate.strip_suffix('M') {
                Some(megabytes) => megabytes.parse::<u64>().map_or(rate.clone(), |m| (m * 1024).to_string()),
                None => rate.trim_end_matches('k').to_owned(),
            };
            parts.push(format!("MAX_RATE {kilobytes}"));
        }
        parts.push("WAIT 0".to_owned());
        if options.no_verify_checksums {
            parts.push("VERIFY_CHECKSUMS 0".to_owned());
        }
        if !options.no_manifest {
            parts.push("MANIFEST 'yes'".to_owned());
            parts.push(format!("MANIFEST_CHECKSUMS {}", quote(&options.manifest_checksums)));
        }
        format!("BASE_BACKUP ({})", parts.join(", "))
    }

    /// Unpacks the archive on a thread of its own as its bytes arrive. Returns its size and the manifest.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    async fn receive_archive(&self, client: &mut Client, total_kb: u64) -> anyhow::Result<(u64, Option<Vec<u8>>)> {
        let bar = if self.options.progress {
            let style = indicatif::ProgressStyle::with_template("{bytes}/{total_bytes} ({percent}%) {bar:30} {bytes_per_sec} eta {eta}")?;
            indicatif::ProgressBar::new(total_kb * 1024).with_style(style)
        } else {
            indicatif::ProgressBar::hidden()
        };
        let mut unpacking: Option<Unpacking> = None;
        let began = Instant::now();
        let mut bytes = 0_u64;
        let mut manifest: Option<Vec<u8>> = None;
        loop {
            match client.event().await? {
                Event::Data(data) => match data.first() {
                    Some(b'd') => {
                        let payload = data.slice(1..);
                        match &mut manifest {
                            Some(text) => text.extend_from_slice(&payload),
                            None => {
                                bytes += payload.len() as u64;
                                bar.set_position(bytes);
                                let current = unpacking.as_ref().context("archive contents before an archive")?;
                                let refused = tokio::task::block_in_place(|| current.sender.send(payload).is_err());
                                if refused && let Some(current) = unpacking.take() {
                                    current.finish().await?;
                                    bail!("unpacking ended early");
                                }
                            }
                        }
                    }
                    Some(b'm') => manifest = Some(Vec::new()),
                    Some(b'n') => {
                        if let Some(before) = unpacking.take() {
                            before.finish().await?;
                        }
                        let mut texts = data[1..].split(|b| *b == 0).map(String::from_utf8_lossy);
                        let (_name, location) = (texts.next(), texts.next().unwrap_or_default());
                        let target = if location.is_empty() { self.options.pgdata.clone() } else { self.tablespace_dir(&location)? };
                        unpacking = Some(Unpacking::start(target, self.mapping.clone()));
                    }
                    Some(b'p') => {}
                    other => bail!("unexpected payload type {other:?}"),
                },
                Event::CopyDone => break,
                Event::Notice(_) => {}
                other => bail!("unexpected message from server: {other:?}"),
            }
        }
        if let Some(last) = unpacking.take() {
            last.finish().await?;
        }
        bar.finish_and_clear();
        self.say(format_args!("{bytes} bytes in {:.3} s", began.elapsed().as_secs_f64()));
        Ok((bytes, manifest))
    }

    /// Where a tablespace goes: an empty or new directory.
    fn tablespace_dir(&self, location: &str) -> anyhow::Result<PathBuf> {
        let dir = PathBuf::from(mapped(&self.mapping, location));
        prepare_directory(&dir)?;
        Ok(dir)
    }

    fn write_recovery_conf(&self) -> anyhow::Result<()> {
        let dir = &self.options.pgdata;
        let info = self.info.for_standby();
        let mut lines = format!("primary_conninfo = '{}'\n", info.to_text().replace('\'', "''"));
        if let Some(slot) = &self.options.slot {
            lines.push_str(&format!("primary_slot_name = '{slot}'\n"));
        }
        let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join("postgresql.auto.conf"))?;
        file.write_all(lines.as_bytes())?;
        write_private(&dir.join("standby.signal"), b"")
    }
}

fn write_private(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
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

/// Where a tablespace of the server goes here.
fn mapped<'a>(mapping: &'a [(String, String)], location: &'a str) -> &'a str {
    mapping.iter().find(|(old, _)| old == location).map_or(location, |(_, new)| new)
}

/// Unpacks below `target`; a member that would land elsewhere is refused.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
fn unpack(reader: impl Read, target: &Path, mapping: &[(String, String)]) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if path.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
            bail!("archive member \"{}\" lies outside the directory", path.display());
        }
        let to = target.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                fs::create_dir_all(&to)?;
                fs::set_permissions(&to, fs::Permissions::from_mode(entry.header().mode()? & 0o777))?;
            }
            tar::EntryType::Regular => {
                let mode = entry.header().mode()? & 0o777;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(mode)
                    .open(&to)
                    .with_context(|| format!("could not create file \"{}\"", to.display()))?;
                io::copy(&mut entry, &mut file).with_context(|| format!("could not write to file \"{}\"", to.display()))?;
            }
            tar::EntryType::Symlink if path.starts_with("pg_tblspc") => {
                let location = entry.link_name()?.context("link without target")?;
                std::os::unix::fs::symlink(mapped(mapping, &location.to_string_lossy()), &to)
                    .with_context(|| format!("could not create symbolic link \"{}\"", to.display()))?;
            }
            other => bail!("archive member \"{}\" of unexpected type {other:?}", path.display()),
        }
    }
    Ok(())
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

/// Writes streamed WAL into segment files of full size.
struct WalFiles {
    dir: PathBuf,
    tli: TimelineId,
    segment_bytes: u32,
    open: Option<(u64, fs::File)>,
}

impl WalFiles {
    fn write(&mut self, mut lsn: Lsn, mut data: &[u8]) -> anyhow::Result<()> {
        let size = u64::from(self.segment_bytes);
        while !data.is_empty() {
            let (segno, offset) = (lsn.as_u64() / size, lsn.as_u64() % size);
            if self.open.as_ref().is_none_or(|(open, _)| *open != segno) {
                let path = self.dir.join(segment::file_name(self.tli, SegNo::new(segno), self.segment_bytes));
                let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)
                    .with_context(|| format!("could not write to file \"{}\"", path.display()))?;
                self.open = Some((segno, file));
            }
            let Some((_, file)) = &self.open else { bail!("no segment open") };
            let n = usize::try_from(size - offset)?.min(data.len());
            file.write_all_at(&data[..n], offset)?;
            data = &data[n..];
            lsn = Lsn::from_u64(lsn.as_u64() + n as u64);
        }
        Ok(())
    }
}

/// Streams from the segment that holds `start` until the end position is known and reached.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
async fn stream_wal(
    mut client: Client,
    slot: Option<String>,
    start: Lsn,
    mut files: WalFiles,
    mut end: watch::Receiver<Lsn>,
) -> anyhow::Result<()> {
    let size = u64::from(files.segment_bytes);
    let mut at = Lsn::from_u64(start.as_u64() / size * size);
    let slot = slot.map(|s| format!("SLOT \"{s}\" ")).unwrap_or_default();
    client.send(&format!("START_REPLICATION {slot}{at} TIMELINE {}", files.tli)).await?;
    loop {
        match client.event().await? {
            Event::CopyBoth => break,
            Event::Notice(_) => {}
            other => bail!("could not send replication command \"START_REPLICATION\": {other:?}"),
        }
    }
    let mut status_due = tokio::time::interval(std::time::Duration::from_secs(10));
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
                            files.write(start, data)?;
                            at = Lsn::from_u64(start.as_u64() + data.len() as u64);
                        }
                        ServerMessage::Keepalive { reply_requested, .. } => reply = reply_requested,
                        ServerMessage::Compressed { .. } => bail!("compressed WAL was not asked for"),
                    }
                    if reply {
                        status(&mut client, at).await?;
                    }
                }
                Event::CopyDone | Event::Complete(_) => bail!("replication stream was terminated before stop point"),
                Event::Columns(_) | Event::Row(_) | Event::CopyOut | Event::CopyBoth | Event::Notice(_) | Event::Ready => {}
            },
            _ = status_due.tick() => status(&mut client, at).await?,
            changed = end.changed() => changed.context("backup ended")?,
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
