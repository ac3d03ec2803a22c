//! A base backup over several connections, between our own nodes: the connection that asked for it walks the data directory, and the files of relations
//! go over whichever connection has nothing to do.
//!
//! `BASE_BACKUP (STREAMS, ...)` answers with a third column in the first result, a name; `BASE_BACKUP_PART 'name'` on any other replication connection is a tar
//! archive of some of the files. All parts have ended before the backup does, so that its end position covers every page in them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};

use super::super::manifest::Manifest;
use super::archive::Source;

/// One such backup.
pub struct Shared {
    /// Name in commands.
    pub name: String,
    /// How files are read.
    pub source: Source,
    /// Whether there is a manifest, and whether it encodes every path.
    pub manifest: Option<bool>,
    /// What is left to send.
    pub files: Files,
}

/// The files of a backup, found by one and sent by several.
#[derive(Default)]
pub struct Files {
    /// Rank 62, a leaf.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Path, and the archive's name for it.
    files: VecDeque<(PathBuf, String)>,
    /// All files were found.
    walked: bool,
    /// Parts under way.
    working: usize,
    /// Entries of the manifest, of parts that ended.
    entries: Vec<Manifest>,
    failed: bool,
}

/// A part under way; unless it ends well the backup fails.
pub struct Part<'a> {
    files: &'a Files,
    ended: bool,
}

impl Files {
    /// Found a file.
    pub fn push(&self, path: PathBuf, name: String) {
        self.state.lock().files.push_back((path, name));
        self.changed.notify_one();
    }

    /// No more files come.
    pub fn walked(&self) {
        self.state.lock().walked = true;
        self.changed.notify_all();
    }

    /// The next file; waits for one while they are being found.
    pub fn take(&self) -> Option<(PathBuf, String)> {
        let mut state = self.state.lock();
        loop {
            if state.failed {
                return None;
            }
            if let Some(file) = state.files.pop_front() {
                return Some(file);
            }
            if state.walked {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Begins a part.
    pub fn part(&self) -> Part<'_> {
        self.state.lock().working += 1;
        Part { files: self, ended: false }
    }

    /// Waits for all parts. The entries of their files, or `None` if one failed.
    pub fn finish(&self) -> Option<Vec<Manifest>> {
        let mut state = self.state.lock();
        while state.working > 0 && !state.failed {
            self.changed.wait(&mut state);
        }
        (!state.failed).then(|| std::mem::take(&mut state.entries))
    }

    /// The backup ends, well or not: nobody waits for files any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.failed |= !state.walked || state.working > 0;
        state.walked = true;
        self.changed.notify_all();
    }
}

impl Part<'_> {
    /// All of it is sent.
    pub fn end(mut self, entries: Option<Manifest>) {
        self.ended = true;
        self.files.state.lock().entries.extend(entries);
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let mut state = self.files.state.lock();
        state.working -= 1;
        state.failed |= !self.ended;
        self.files.changed.notify_all();
    }
}

/// Those that run, by name.
#[derive(Default)]
pub struct ParallelBackups {
    /// Rank 62, a leaf.
    running: Mutex<Vec<Weak<Shared>>>,
}

impl ParallelBackups {
    /// Others may find it from now on, as long as it lives.
    pub fn enter(&self, backup: &Arc<Shared>) {
        let mut running = self.running.lock();
        running.retain(|known| known.strong_count() > 0);
        running.push(Arc::downgrade(backup));
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Shared>> {
        self.running.lock().iter().filter_map(Weak::upgrade).find(|known| known.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_does_not_end_fails_the_backup() {
        let files = Files::default();
        files.push("a".into(), "a".to_owned());
        let part = files.part();
        assert_eq!(files.take(), Some(("a".into(), "a".to_owned())));
        files.walked();
        assert_eq!(files.take(), None);
        part.end(Some(Manifest::new(false)));
        assert_eq!(files.finish().map(|entries| entries.len()), Some(1));
        drop(files.part());
        assert!(files.finish().is_none());
    }

    #[test]
    fn nobody_waits_for_a_backup_that_was_given_up() {
        let files = Files::default();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| files.take());
            let part = files.part();
            files.close();
            assert_eq!(waits.join().unwrap(), None);
            part.end(None);
        });
        assert!(files.finish().is_none());
    }
}
