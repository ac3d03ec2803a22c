//! What lies in a data directory, and how a rewind treats it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use afterimage_wal::ids::{Fork, RelId};

use super::super::base_backup::archive::{EMPTY_DIRS, SKIPPED_FILES, is_temporary, relation_file};
use super::error::RewindError;
use super::marker;
use crate::control::pid_file::PID_FILE;
use crate::storage::PAGE_SIZE;

/// Blocks in one file of a relation (1 GB).
pub const SEGMENT_BLOCKS: u32 = (1 << 30) / PAGE_SIZE_U32;
const PAGE_SIZE_U32: u32 = 8192;
const _: () = assert!(PAGE_SIZE_U32 as usize == PAGE_SIZE);

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file of this size.
    File(u64),
    /// A directory, or a link to one.
    Directory,
}

/// Everything below a data directory, by relative path: a directory comes before what is in it.
pub type Listing = BTreeMap<String, Entry>;

/// How a file is brought over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Block by block: the pages of a relation's fork, from this segment of it.
    Pages {
        /// Relation.
        rel: RelId,
        /// Fork.
        fork: Fork,
        /// Number of the 1 GB file.
        segment: u32,
    },
    /// As a whole.
    Whole,
    /// Not at all: it belongs to one node's run. The target's is removed.
    Skipped,
    /// By the steps that write it: WAL, the control file, what this rewind needs itself.
    Own,
}

/// Classifies the files of a listing: a path's class may depend on its neighbours.
pub fn classify(path: &str, listing: &Listing) -> Class {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    if path == crate::control::supervisor::REWIND_MARKER || path == "global/pg_control" || path == PID_FILE {
        return Class::Own;
    }
    if path.starts_with("pg_wal/") {
        return Class::Own;
    }
    if dir.split('/').any(|d| EMPTY_DIRS.contains(&d) || d.starts_with("pgsql_tmp")) {
        return Class::Skipped;
    }
    if SKIPPED_FILES.contains(&name)
        || name == marker::FILE
        || name.starts_with("pgsql_tmp")
        || name.starts_with("pg_internal.init")
        || is_temporary(name)
    {
        return Class::Skipped;
    }
    match relation_file(dir, name) {
        None => Class::Whole,
        // Of an unlogged relation only the init fork means anything after recovery.
        Some((rel, fork, _)) if fork != Fork::Init && listing.contains_key(&format!("{dir}/{}_init", rel.rel)) => Class::Skipped,
        Some((rel, fork, segment)) => Class::Pages { rel, fork, segment },
    }
}

/// Lists a local data directory. What vanishes meanwhile is left out; links to directories are followed.
///
/// # Errors
/// I/O.
pub fn list_local(root: &Path) -> Result<Listing, RewindError> {
    let mut listing = Listing::new();
    let mut pending = vec![String::new()];
    while let Some(dir) = pending.pop() {
        let path = root.join(&dir);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !dir.is_empty() => continue,
            Err(source) => return Err(RewindError::Io { what: "open directory", path, source }),
        };
        for entry in entries {
            let entry = entry.map_err(RewindError::io("read directory", &path))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let relative = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let Ok(meta) = fs::metadata(entry.path()) else { continue };
            if meta.is_dir() {
                listing.insert(relative.clone(), Entry::Directory);
                pending.push(relative);
            } else if meta.is_file() {
                listing.insert(relative, Entry::File(meta.size()));
            }
        }
    }
    Ok(listing)
}

/// Syncs every file and directory below `dir`.
///
/// # Errors
/// I/O.
pub fn sync_tree(dir: &Path) -> Result<(), RewindError> {
    for entry in fs::read_dir(dir).map_err(RewindError::io("open directory", dir))? {
        let path = entry.map_err(RewindError::io("read directory", dir))?.path();
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.is_dir() {
            sync_tree(&path)?;
        } else if meta.is_file() {
            fs::File::open(&path).and_then(|f| f.sync_all()).map_err(RewindError::io("fsync file", &path))?;
        }
    }
    fs::File::open(dir).and_then(|f| f.sync_all()).map_err(RewindError::io("fsync file", dir))
}

/// One bit per block of a file.
#[derive(Clone, Debug, Default)]
pub struct BlockSet {
    words: Vec<u64>,
    count: u64,
}

impl BlockSet {
    /// Blocks `0..n`.
    pub fn all(n: u32) -> Self {
        let mut set = Self::default();
        (0..n).for_each(|b| set.insert(b));
        set
    }

    /// Adds a block.
    pub fn insert(&mut self, block: u32) {
        let (word, bit) = (usize::try_from(block / 64).unwrap_or(usize::MAX), 1_u64 << (block % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        if self.words[word] & bit == 0 {
            self.words[word] |= bit;
            self.count += 1;
        }
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn contains(&self, block: u32) -> bool {
        let word = self.words.get(usize::try_from(block / 64).unwrap_or(usize::MAX));
        word.is_some_and(|w| w & (1 << (block % 64)) != 0)
    }

    /// Runs of neighbours, each of at most `longest` blocks: first block and length.
    pub fn runs(&self, longest: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let end = u32::try_from(self.words.len()).unwrap_or(u32::MAX / 64).saturating_mul(64);
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < end && !self.contains(at) {
                // Whole empty words at once.
                at = if at % 64 == 0 && self.words.get(usize::try_from(at / 64).ok()?) == Some(&0) { at + 64 } else { at + 1 };
            }
            if at >= end {
                return None;
            }
            let first = at;
            while at < end && at - first < longest && self.contains(at) {
                at += 1;
            }
            Some((first, at - first))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_set_and_nothing_else() {
        let mut set = BlockSet::default();
        for b in [0, 1, 2, 63, 64, 65, 300, 1000, 1001] {
            set.insert(b);
            set.insert(b);
        }
        assert_eq!(set.len(), 9);
        assert_eq!(set.runs(128).collect::<Vec<_>>(), [(0, 3), (63, 3), (300, 1), (1000, 2)]);
        assert_eq!(set.runs(2).collect::<Vec<_>>(), [(0, 2), (2, 1), (63, 2), (65, 1), (300, 1), (1000, 2)]);
        assert_eq!(BlockSet::all(130).runs(128).collect::<Vec<_>>(), [(0, 128), (128, 2)]);
        assert_eq!(BlockSet::default().runs(1).count(), 0);
    }

    #[test]
    fn files_of_one_nodes_run_do_not_travel() {
        let mut listing = Listing::new();
        listing.insert("base/5/16400_init".to_owned(), Entry::File(0));
        let class = |path: &str| classify(path, &listing);
        for path in
            ["pg_dblwr", "postmaster.opts", "pg_replslot/a/state", "pg_stat_tmp/x", "base/5/16400", "base/5/t3_16500", "backup_label"]
        {
            assert_eq!(class(path), Class::Skipped, "{path}");
        }
        for path in ["postgresql.conf", "pg_xact/0000", "base/5/PG_VERSION", "standby.signal", "log/x"] {
            assert_eq!(class(path), Class::Whole, "{path}");
        }
        for path in ["pg_wal/000000010000000000000001", "global/pg_control", "postmaster.pid", marker::FILE] {
            assert_eq!(class(path), Class::Own, "{path}");
        }
        let rel = RelId { spc: 1663, db: 5, rel: 16384 };
        assert_eq!(class("base/5/16384_vm.2"), Class::Pages { rel, fork: Fork::Vm, segment: 2 });
        assert_eq!(class("base/5/16400_init"), Class::Pages { rel: RelId { rel: 16400, ..rel }, fork: Fork::Init, segment: 0 });
    }
}
