//! Timeline history: which timelines led to the current one, and where each ended.
//!
//! A file `pg_wal/0000000N.history` has PostgreSQL's lines, `parent<TAB>switch LSN<TAB>reason`, and a fourth column `start=<id>`: the
//! start id in force at the end of that timeline. PostgreSQL's own readers ignore it. Timeline 1 has no file.
//!
//! PostgreSQL: access/transam/timeline.c.

use crate::disk::{self, Disk};
use crate::error::WalError;
use crate::ids::{Lsn, StartId, TimelineId};
use std::io;
use std::path::Path;

/// A timeline that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Which.
    pub tli: TimelineId,
    /// Where the next one forked: exclusive end of this one.
    pub switch_lsn: Lsn,
    /// Why, for people.
    pub reason: String,
    /// Start id in force there; [`StartId::NONE`] if the file does not say.
    pub start_id: StartId,
}

/// The timelines that lead to one, oldest first, with where each ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    tli: TimelineId,
    ancestors: Vec<Ancestor>,
}

impl History {
    /// Of the first timeline: no ancestors.
    pub fn first() -> Self {
        Self::alone(TimelineId::FIRST)
    }

    /// Of a timeline whose ancestors are not known or not needed.
    pub fn alone(tli: TimelineId) -> Self {
        Self { tli, ancestors: Vec::new() }
    }

    /// The timeline it leads to.
    pub fn tli(&self) -> TimelineId {
        self.tli
    }

    /// The timelines before it, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// The history of a timeline that forks from this one at `switch_lsn`.
    #[must_use]
    pub fn child(&self, new_tli: TimelineId, switch_lsn: Lsn, reason: &str, start_id: StartId) -> Self {
        let mut ancestors = self.ancestors.clone();
        let reason = reason.replace(['\t', '\n', '\r'], " ");
        ancestors.push(Ancestor { tli: self.tli, switch_lsn, reason, start_id });
        Self { tli: new_tli, ancestors }
    }

    /// The timeline that the byte at `lsn` belongs to.
    pub fn tli_at(&self, lsn: Lsn) -> TimelineId {
        self.ancestors.iter().find(|a| lsn < a.switch_lsn).map_or(self.tli, |a| a.tli)
    }

    /// The timeline that the bytes ending at `lsn` belong to.
    pub fn tli_of_end(&self, lsn: Lsn) -> TimelineId {
        self.ancestors.iter().find(|a| lsn <= a.switch_lsn).map_or(self.tli, |a| a.tli)
    }

    /// True if `tli` is this timeline or one that led to it.
    pub fn contains(&self, tli: TimelineId) -> bool {
        tli == self.tli || self.ancestors.iter().any(|a| a.tli == tli)
    }

    /// Where `tli` begins; the start of WAL for the oldest. `None` if it is not part of this history.
    pub fn begin_of(&self, tli: TimelineId) -> Option<Lsn> {
        let mut begin = Lsn::INVALID;
        for a in &self.ancestors {
            if a.tli == tli {
                return Some(begin);
            }
            begin = a.switch_lsn;
        }
        (tli == self.tli).then_some(begin)
    }

    /// Where `tli` ends; [`Lsn::MAX`] for the current one. `None` if it is not part of this history.
    pub fn end_of(&self, tli: TimelineId) -> Option<Lsn> {
        if tli == self.tli {
            return Some(Lsn::MAX);
        }
        self.ancestors.iter().find(|a| a.tli == tli).map(|a| a.switch_lsn)
    }

    /// The timeline that follows `tli` here.
    pub fn next_after(&self, tli: TimelineId) -> Option<TimelineId> {
        let i = self.ancestors.iter().position(|a| a.tli == tli)?;
        Some(self.ancestors.get(i + 1).map_or(self.tli, |a| a.tli))
    }

    /// The history of a timeline that led to this one, or this one's own.
    pub fn up_to(&self, tli: TimelineId) -> Option<Self> {
        if tli == self.tli {
            return Some(self.clone());
        }
        let i = self.ancestors.iter().position(|a| a.tli == tli)?;
        Some(Self { tli, ancestors: self.ancestors[..i].to_vec() })
    }

    /// The last timeline both share, and where the first of them left it. `None` if they share none.
    pub fn common_ancestor(&self, other: &Self) -> Option<(TimelineId, Lsn)> {
        let ours = self.ancestors.iter().map(|a| (a.tli, a.switch_lsn)).chain([(self.tli, Lsn::MAX)]);
        let theirs = other.ancestors.iter().map(|a| (a.tli, a.switch_lsn)).chain([(other.tli, Lsn::MAX)]);
        let mut common = None;
        for ((a, a_end), (b, b_end)) in ours.zip(theirs) {
            if a != b {
                break;
            }
            common = Some((a, a_end.min(b_end)));
            if a_end != b_end {
                break;
            }
        }
        common
    }

    /// Name of a timeline's history file.
    pub fn file_name(tli: TimelineId) -> String {
        format!("{:08X}.history", tli.get())
    }

    /// The timeline whose history file has this name.
    pub fn parse_file_name(name: &str) -> Option<TimelineId> {
        let hex = name.strip_suffix(".history")?;
        let ok = hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        if ok { u32::from_str_radix(hex, 16).ok().map(TimelineId::new) } else { None }
    }

    /// Contents of the history file.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for a in &self.ancestors {
            text += &format!("{}\t{}\t{}\tstart={}\n", a.tli, a.switch_lsn, a.reason, a.start_id);
        }
        text
    }

    /// From the contents of the history file of `tli`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(tli: TimelineId, text: &str) -> Result<Self, &'static str> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for line in text.lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut columns = line.split(['\t', ' ']).filter(|c| !c.is_empty());
            let parent: u32 = columns.next().and_then(|c| c.parse().ok()).ok_or("a line does not begin with a timeline id")?;
            let switch_lsn: Lsn = columns.next().and_then(|c| c.parse().ok()).ok_or("a line has no write-ahead log location")?;
            let parent = TimelineId::new(parent);
            if let Some(last) = ancestors.last() {
                if parent <= last.tli {
                    return Err("timeline ids are not in increasing order");
                }
                if switch_lsn < last.switch_lsn {
                    return Err("write-ahead log locations are not in increasing order");
                }
            }
            let mut rest = line.splitn(3, '\t').nth(2).unwrap_or("");
            let mut start_id = StartId::NONE;
            if let Some((reason, id)) = rest.rsplit_once("\tstart=") {
                let id = u64::from_str_radix(id.trim_end(), 16).map_err(|_| "a start id is not a hexadecimal number")?;
                start_id = StartId::new(id);
                rest = reason;
            }
            ancestors.push(Ancestor { tli: parent, switch_lsn, reason: rest.to_owned(), start_id });
        }
        if ancestors.last().is_some_and(|a| a.tli >= tli) {
            return Err("timeline ids are not below that of the file");
        }
        Ok(Self { tli, ancestors })
    }

    /// Reads the history of `tli` from `dir`. Timeline 1 needs no file; `None` if another has none.
    ///
    /// # Errors
    /// [`WalError::Io`], [`WalError::BadFile`].
    pub fn read(disk: &dyn Disk, dir: &Path, tli: TimelineId) -> Result<Option<Self>, WalError> {
        if tli == TimelineId::FIRST {
            return Ok(Some(Self::first()));
        }
        let path = dir.join(Self::file_name(tli));
        let bytes = match disk::read_all(disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(WalError::io("read", path, e)),
        };
        let text = str::from_utf8(&bytes).map_err(|_| WalError::BadFile { path: path.clone(), what: "history is not text" })?;
        Self::parse(tli, text).map(Some).map_err(|what| WalError::BadFile { path, what })
    }

    /// Writes the history file durably. Timeline 1 has none.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
        if self.tli == TimelineId::FIRST {
            return Ok(());
        }
        let path = dir.join(Self::file_name(self.tli));
        disk::durable_replace(disk, &path, self.to_text().as_bytes()).map_err(|e| WalError::io("write", path, e))
    }

    /// The highest timeline that has a history file in `dir`, from `from` on.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn newest(disk: &dyn Disk, dir: &Path, from: TimelineId) -> Result<TimelineId, WalError> {
        let names = disk.list(dir).map_err(|e| WalError::io("list", dir, e))?;
        Ok(names.iter().filter_map(|n| Self::parse_file_name(n)).fold(from, TimelineId::max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(n: u32) -> TimelineId {
        TimelineId::new(n)
    }

    #[test]
    fn history_reads_what_it_writes_and_what_postgresql_writes() {
        let h = History::first().child(t(2), Lsn::new(0x500_0148), "no recovery target specified", StartId::new(0xabc)).child(
            t(4),
            Lsn::new(0x700_0000),
            "two\twords",
            StartId::NONE,
        );
        assert_eq!(History::parse(t(4), &h.to_text()), Ok(h.clone()));
        let pg = "1\t0/5000148\tno recovery target specified\n\n2\t0/7000000\tat restore point \"x\"\n";
        let p = History::parse(t(3), pg).unwrap();
        assert_eq!(p.ancestors()[1].reason, "at restore point \"x\"");
        assert_eq!(p.tli_at(Lsn::new(0x500_0148)), t(2));
        assert_eq!(p.tli_of_end(Lsn::new(0x500_0148)), t(1));
        assert_eq!(p.begin_of(t(2)), Some(Lsn::new(0x500_0148)));
        assert_eq!(p.end_of(t(2)), Some(Lsn::new(0x700_0000)));
        assert_eq!(p.next_after(t(2)), Some(t(3)));
        for bad in ["x\t0/1\n", "1\t\n", "2\t0/1\n1\t0/2\n", "1\t0/9\n2\t0/1\n", "3\t0/1\n"] {
            assert!(History::parse(t(3), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn common_ancestor_is_where_the_first_of_two_left() {
        let one = History::first();
        let two = one.child(t(2), Lsn::new(100), "", StartId::NONE);
        let three = two.child(t(3), Lsn::new(200), "", StartId::NONE);
        let other = one.child(t(4), Lsn::new(150), "", StartId::NONE);
        assert_eq!(one.common_ancestor(&two), Some((t(1), Lsn::new(100))));
        assert_eq!(three.common_ancestor(&two), Some((t(2), Lsn::new(200))));
        assert_eq!(three.common_ancestor(&other), Some((t(1), Lsn::new(100))));
        assert_eq!(two.common_ancestor(&two), Some((t(2), Lsn::MAX)));
    }
}
