//! Whether a standby has the pages of its primary: at the same LSN the same bytes, hints masked.
//!
//! Both sides answer with LSN and digest of each page, in packs. Where they differ the page is asked for again on its own: first on the
//! primary, then, once the standby has replayed that LSN, there. Pages of a primary at work are thus judged at one LSN, without stopping anything.
//! Only what changes faster than two round trips is left, and counted.

use std::collections::BTreeSet;

use afterimage_wal::ids::{Fork, Lsn};
use sha2::{Digest as _, Sha256};

use super::client::{Client, ClientError};
use super::repair::from_hex;
use crate::access::{btree, heap, sequence};
use crate::engine::Engine;
use crate::sqlstate::SqlError;
use crate::storage::{Page, PageTag, StorageError};

/// Pages in one answer.
const PACK: u32 = 512;
/// A page that keeps changing is asked for so often.
const TRIES: u32 = 50;
/// Bytes of an encoded digest.
const DIGEST_BYTES: usize = 17;

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// The file ends before.
    Nothing,
    /// A page that does not verify.
    Damaged,
    /// A page: its LSN, and a digest of all but hints.
    Page(Lsn, u64),
}

/// Hides what may differ between a page and its replica.
fn mask(page: &mut Page, fork: Fork) {
    if fork != Fork::Main {
        // A map: bits all over, no hints.
        page.bytes_mut()[8..12].fill(0);
        page.bytes_mut()[24..32].fill(0);
    } else if page.special().is_empty() {
        if sequence::mask_page(page) {
            return heap::tuple::mask_space(page);
        }
        heap::tuple::mask_page(page);
    } else {
        btree::mask_page(page);
    }
}

impl Digest {
    /// Of a page of this node.
    ///
    /// # Errors
    /// I/O.
    pub fn of(engine: &Engine, tag: PageTag) -> Result<Self, SqlError> {
        let files = engine.files();
        // Each node removes what was dropped in its own time.
        if files.is_dropped(tag.rel) || files.n_blocks(tag.rel, tag.fork)? <= tag.block {
            return Ok(Self::Nothing);
        }
        let mut page = Box::<Page>::default();
        match engine.pool().read(tag.rel, tag.fork, tag.block) {
            Ok(buffer) => page.bytes_mut().copy_from_slice(buffer.read().bytes()),
            Err(StorageError::BadPage { .. }) => return Ok(Self::Damaged),
            Err(StorageError::MissingBlock { .. }) => return Ok(Self::Nothing),
            // Dropped meanwhile.
            Err(_) if !files.has_file(tag.rel, tag.fork)? => return Ok(Self::Nothing),
            Err(error) => return Err(error.into()),
        }
        let lsn = page.lsn();
        mask(&mut page, tag.fork);
        let hash: [u8; 32] = Sha256::digest(page.bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        Ok(Self::Page(lsn, u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }

    /// Appends it.
    pub fn encode(self, out: &mut Vec<u8>) {
        let (kind, lsn, hash) = match self {
            Self::Nothing => (0, 0, 0),
            Self::Damaged => (1, 0, 0),
            Self::Page(lsn, hash) => (2, lsn.as_u64(), hash),
        };
        out.push(kind);
        out.extend_from_slice(&u64::to_be_bytes(lsn));
        out.extend_from_slice(&u64::to_be_bytes(hash));
    }

    fn decode(bytes: &[u8; DIGEST_BYTES]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (lsn, hash) = (u64::from_be_bytes(*rest.first_chunk()?), u64::from_be_bytes(*rest.last_chunk()?));
        match kind {
            0 => Some(Self::Nothing),
            1 => Some(Self::Damaged),
            2 => Some(Self::Page(Lsn::from_u64(lsn), hash)),
            _ => None,
        }
    }
}

/// Files of relations whose pages are logged, with their blocks: no free space maps, nothing unlogged, nothing dropped.
///
/// # Errors
/// I/O.
pub fn files(engine: &Engine) -> Result<Vec<(String, u32)>, SqlError> {
    let files = engine.files();
    let found = files.relations()?;
    let unlogged: BTreeSet<_> = found.iter().filter(|(_, fork)| *fork == Fork::Init).map(|(rel, _)| *rel).collect();
    let mut paths = Vec::new();
    for (rel, fork) in found {
        if matches!(fork, Fork::Main | Fork::Vm) && !unlogged.contains(&rel) && !files.is_dropped(rel) {
            paths.push((files.relative_path(rel, fork, 0), files.n_blocks(rel, fork)?.get()));
        }
    }
    Ok(paths)
}

/// Failures of a comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One of the connections.
    #[error("{side}: {source}")]
    Client {
        /// Which.
        side: &'static str,
        /// What.
        #[source]
        source: ClientError,
    },
    /// An answer that makes no sense.
    #[error("{0}: unexpected answer")]
    Unexpected(&'static str),
    /// Two clusters.
    #[error("the servers do not belong to the same cluster: their system identifiers differ")]
    OtherSystem,
    /// The second one is no standby.
    #[error("the server given as standby is not in recovery")]
    NoStandby,
    /// Replay stands still.
    #[error("the standby does not replay WAL up to {upto}: {why}")]
    Behind {
        /// Position of the primary.
        upto: Lsn,
        /// What it says.
        why: String,
    },
}

/// What a comparison came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files looked at.
    pub files: u64,
    /// Pages looked at.
    pub pages: u64,
    /// Pages that differ or are damaged.
    pub different: u64,
    /// Pages that changed too fast to be judged.
    pub unsettled: u64,
}

/// Told what happens.
pub trait Watch {
    /// There are so many pages more to look at.
    fn todo(&mut self, pages: u64);
    /// So many were looked at.
    fn done(&mut self, pages: u64);
    /// A page that differs.
    fn found(&mut self, what: &str);
}

const PRIMARY: &str = "primary";
const STANDBY: &str = "standby";

struct Side<'a> {
    name: &'static str,
    client: &'a mut Client,
}

impl Side<'_> {
    async fn value(&mut self, query: &str) -> Result<Option<String>, CompareError> {
        let sets = self.client.query(query).await.map_err(|source| CompareError::Client { side: self.name, source })?;
        Ok(sets.last().and_then(|set| set.text(0, 0)).map(str::to_owned))
    }

    async fn digests(&mut self, path: &str, first: u32, count: u32) -> Result<Vec<Digest>, CompareError> {
        let value = self.value(&format!("SELECT pg_catalog.afterimage_page_digests('{path}', {first}, {count})")).await?;
        let bytes = value.as_deref().and_then(|text| text.strip_prefix("\\x")).and_then(from_hex);
        let bytes = bytes.ok_or(CompareError::Unexpected(self.name))?;
        let (entries, rest) = bytes.as_chunks::<DIGEST_BYTES>();
        let digests: Option<Vec<Digest>> = entries.iter().map(Digest::decode).collect();
        digests.filter(|d| rest.is_empty() && u32::try_from(d.len()) == Ok(count)).ok_or(CompareError::Unexpected(self.name))
    }

    async fn files(&mut self) -> Result<Vec<(String, u32)>, CompareError> {
        let query = "SELECT path, blocks FROM pg_catalog.afterimage_relation_files()";
        let sets = self.client.query(query).await.map_err(|source| CompareError::Client { side: self.name, source })?;
        let set = sets.last().ok_or(CompareError::Unexpected(self.name))?;
        let row = |i| Some((set.text(i, 0)?.to_owned(), set.text(i, 1)?.parse().ok()?));
        (0..set.rows.len()).map(|i| row(i).ok_or(CompareError::Unexpected(self.name))).collect()
    }

    /// Where the WAL of what was seen here ends.
    async fn position(&mut self) -> Result<Lsn, CompareError> {
        let value = self.value("SELECT lsn FROM pg_catalog.afterimage_wal_position()").await?;
        value.and_then(|text| text.parse().ok()).ok_or(CompareError::Unexpected(self.name))
    }
}

struct Comparison<'a> {
    primary: Side<'a>,
    standby: Side<'a>,
    /// The standby has replayed so far.
    replayed: Lsn,
}

/// Compares all pages of two nodes.
///
/// # Errors
/// [`CompareError`].
pub async fn run(primary: &mut Client, standby: &mut Client, watch: &mut dyn Watch) -> Result<Outcome, CompareError> {
    let mut both = Comparison {
        primary: Side { name: PRIMARY, client: primary },
        standby: Side { name: STANDBY, client: standby },
        replayed: Lsn::INVALID,
    };
    let identity = "SET bytea_output = 'hex'; SET statement_timeout = 0; SELECT system_identifier FROM pg_catalog.pg_control_system()";
    if both.primary.value(identity).await? != both.standby.value(identity).await? {
        return Err(CompareError::OtherSystem);
    }
    if both.standby.value("SELECT pg_catalog.pg_is_in_recovery()").await?.as_deref() != Some("t") {
        return Err(CompareError::NoStandby);
    }
    let files = both.primary.files().await?;
    watch.todo(files.iter().map(|(_, blocks)| u64::from(*blocks)).sum());
    let mut outcome = Outcome::default();
    for (path, blocks) in &files {
        outcome.files += 1;
        let mut first = 0;
        while first < *blocks {
            let count = (*blocks - first).min(PACK);
            both.pack(path, first, count, &mut outcome, watch).await?;
            first += count;
            watch.done(u64::from(count));
        }
    }
    Ok(outcome)
}

impl Comparison<'_> {
    async fn pack(&mut self, path: &str, first: u32, count: u32, outcome: &mut Outcome, watch: &mut dyn Watch) -> Result<(), CompareError> {
        let ours = self.primary.digests(path, first, count).await?;
        let newest = ours.iter().filter_map(|d| if let Digest::Page(lsn, _) = d { Some(*lsn) } else { None }).max();
        self.wait_for(newest.unwrap_or(Lsn::INVALID)).await?;
        let theirs = self.standby.digests(path, first, count).await?;
        for (block, (a, b)) in (first..).zip(ours.into_iter().zip(theirs)) {
            outcome.pages += 1;
            if a == b && matches!(a, Digest::Page(..)) {
                continue;
            }
            match self.judge(path, block).await? {
                Verdict::Same => {}
                Verdict::Unsettled => outcome.unsettled += 1,
                Verdict::Different(what) => {
                    outcome.different += 1;
                    let name = self.name_of(path).await?;
                    watch.found(&format!("block {block} of relation {path}{name}: {what}"));
                }
            }
        }
        Ok(())
    }

    /// A page on its own, asked for until both answers are of one moment.
    async fn judge(&mut self, path: &str, block: u32) -> Result<Verdict, CompareError> {
        let one = |digests: Vec<Digest>, side| digests.first().copied().ok_or(CompareError::Unexpected(side));
        for attempt in 0..TRIES {
            let ours = one(self.primary.digests(path, block, 1).await?, PRIMARY)?;
            let upto = match ours {
                Digest::Page(lsn, _) => lsn,
                Digest::Nothing | Digest::Damaged => self.primary.position().await?,
            };
            self.wait_for(upto).await?;
            let theirs = one(self.standby.digests(path, block, 1).await?, STANDBY)?;
            match (ours, theirs) {
                (Digest::Nothing, Digest::Nothing) => return Ok(Verdict::Same),
                (Digest::Page(a, x), Digest::Page(b, y)) if a == b => {
                    return Ok(if x == y { Verdict::Same } else { Verdict::Different(format!("contents differ, LSN {a} on both")) });
                }
                (Digest::Page(a, _), Digest::Page(b, _)) if a > b => {
                    return Ok(Verdict::Different(format!("LSN {a} on the primary, stale at {b} on the standby")));
                }
                // The primary went on meanwhile.
                (Digest::Page(..), Digest::Page(..)) => {}
                (Digest::Damaged, Digest::Damaged) => return Ok(Verdict::Different("damaged on both".to_owned())),
                (Digest::Damaged, _) => return Ok(Verdict::Different("damaged on the primary".to_owned())),
                (_, Digest::Damaged) => return Ok(Verdict::Different("damaged on the standby".to_owned())),
                // A file that shrank, grew or went meanwhile; if it stays so, it is a difference.
                (Digest::Page(..), Digest::Nothing) if attempt + 1 == TRIES => {
                    return Ok(Verdict::Different("missing on the standby".to_owned()));
                }
                (Digest::Nothing, Digest::Page(..)) if attempt + 1 == TRIES => {
                    return Ok(Verdict::Different("missing on the primary".to_owned()));
                }
                (Digest::Page(..), Digest::Nothing) | (Digest::Nothing, Digest::Page(..)) => {
                    let upto = self.primary.position().await?;
                    self.wait_for(upto).await?;
                }
            }
        }
        Ok(Verdict::Unsettled)
    }

    /// Until the standby has replayed so far.
    async fn wait_for(&mut self, upto: Lsn) -> Result<(), CompareError> {
        if upto <= self.replayed {
            return Ok(());
        }
        let query = format!("WAIT FOR LSN '{upto}' WITH (MODE 'standby_replay', TIMEOUT '60s', NO_THROW)");
        match self.standby.value(&query).await?.as_deref() {
            Some("success") => {
                self.replayed = upto;
                Ok(())
            }
            said => Err(CompareError::Behind { upto, why: said.unwrap_or("nothing").to_owned() }),
        }
    }

    /// The relation's name, if it is of the database the primary's connection is to.
    async fn name_of(&mut self, path: &str) -> Result<String, CompareError> {
        let main = path.strip_suffix("_vm").unwrap_or(path);
        let query =
            format!("SELECT oid::pg_catalog.regclass FROM pg_catalog.pg_class WHERE pg_catalog.pg_relation_filepath(oid) = '{main}'");
        Ok(self.primary.value(&query).await?.map(|name| format!(" (\"{name}\")")).unwrap_or_default())
    }
}

enum Verdict {
    Same,
    Different(String),
    Unsettled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_read_back_or_refused() {
        for digest in [Digest::Nothing, Digest::Damaged, Digest::Page(Lsn::from_u64(7 << 33 | 5), u64::MAX - 3)] {
            let mut bytes = Vec::new();
            digest.encode(&mut bytes);
            assert_eq!(Digest::decode(bytes.first_chunk().unwrap()), Some(digest));
        }
        assert_eq!(Digest::decode(&[3; DIGEST_BYTES]), None);
    }
}
