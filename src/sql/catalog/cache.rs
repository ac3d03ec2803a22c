//! Descriptors shared by all sessions, and what makes them stale.
//!
//! An entry knows the snapshot it was read at. A commit record's invalidations note, before the commit becomes visible,
//! the LSN from which each object looks different. An entry read at `loaded` serves a snapshot at `now` if the object's last
//! change is not after the earlier of the two. So readers at different positions (commit levels, a standby's old snapshots)
//! each get what their snapshot says, without locks between them.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use afterimage_wal::{Lsn, Oid};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::builtin::Builtin;
use super::function::UserFunction;
use super::handle::{Database, Role};
use super::relation::Relation;

/// Kinds of cached things: the class of an invalidation.
pub mod class {
    use afterimage_wal::Oid;

    /// A relation's descriptor (object: its OID).
    pub const RELATION: Oid = 1259;
    /// Names of relations (object: 0).
    pub const RELATION_NAMES: Oid = 2663;
    /// Schemas (object: 0).
    pub const NAMESPACE: Oid = 2615;
    /// Functions (object: 0).
    pub const FUNCTION: Oid = 1255;
    /// Roles and memberships; shared.
    pub const ROLE: Oid = 1260;
    /// Databases; shared.
    pub const DATABASE: Oid = 1262;
}

/// Changes remembered one by one; more than this and the oldest knowledge becomes "everything before that".
const REMEMBERED: usize = 4096;

/// Since when objects look different.
#[derive(Default)]
pub(super) struct Invalidations {
    /// Newest of all. Written after `map`, so whoever reads a small value here may have missed only what is not visible
    /// to it yet.
    newest: AtomicU64,
    /// Rank 60; leaf, nothing is waited for while held.
    map: RwLock<InvalidationMap>,
}

#[derive(Default)]
struct InvalidationMap {
    /// Everything may have changed at or before this.
    floor: u64,
    by_class: FxHashMap<Oid, u64>,
    by_object: FxHashMap<(Oid, Oid), u64>,
}

impl Invalidations {
    /// Notes that `object` of `class` (0: all) looks different from `lsn` on.
    pub(super) fn note(&self, class: Oid, object: Oid, lsn: Lsn) {
        let lsn = lsn.as_u64();
        {
            let mut map = self.map.write();
            if class == 0 {
                map.floor = map.floor.max(lsn);
            } else if object == 0 {
                let entry = map.by_class.entry(class).or_default();
                *entry = lsn.max(*entry);
            } else {
                if map.by_object.len() >= REMEMBERED {
                    map.floor = map.by_object.values().copied().fold(map.floor, u64::max);
                    map.by_object.clear();
                }
                let entry = map.by_object.entry((class, object)).or_default();
                *entry = lsn.max(*entry);
            }
        }
        self.newest.fetch_max(lsn, Ordering::Release);
    }

    /// The newest change of anything.
    pub(super) fn newest(&self) -> Lsn {
        Lsn::from_u64(self.newest.load(Ordering::Acquire))
    }

    /// True if the object may look different at `loaded` and at `now`.
    fn differs(&self, class: Oid, object: Oid, loaded: Lsn, now: Lsn) -> bool {
        let since = loaded.min(now).as_u64();
        if self.newest.load(Ordering::Acquire) <= since {
            return false;
        }
        let map = self.map.read();
        map.floor > since
            || map.by_class.get(&class).is_some_and(|&l| l > since)
            || map.by_object.get(&(class, object)).is_some_and(|&l| l > since)
    }
}

/// One map of descriptors. A missing thing is remembered too.
pub(super) struct Cache<K, V> {
    class: Oid,
    /// Rank 60; leaf.
    map: RwLock<FxHashMap<K, (Option<V>, Lsn)>>,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    pub(super) fn new(class: Oid) -> Self {
        Self { class, map: RwLock::default() }
    }

    /// What is known of `key` (which describes `object`) for a snapshot at `now`.
    pub(super) fn get<Q>(&self, invalidations: &Invalidations, key: &Q, object: Oid, now: Lsn) -> Option<Option<V>>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let map = self.map.read();
        let (value, loaded) = map.get(key)?;
        if invalidations.differs(self.class, object, *loaded, now) {
            return None;
        }
        Some(value.clone())
    }

    /// Keeps what was read at `loaded`, unless something newer is there.
    pub(super) fn put(&self, key: K, value: Option<V>, loaded: Lsn) {
        let mut map = self.map.write();
        match map.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut old) => {
                if old.get().1 <= loaded {
                    old.insert((value, loaded));
                }
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert((value, loaded));
            }
        }
    }
}

/// What is shared about one database.
pub(super) struct DatabaseCache {
    pub(super) builtin: Builtin,
    pub(super) invalidations: Invalidations,
    pub(super) relations: Cache<Oid, Arc<Relation>>,
    pub(super) names: Cache<(Oid, Arc<str>), Oid>,
    pub(super) index_tables: Cache<Oid, Oid>,
    pub(super) namespace_names: Cache<Oid, Arc<str>>,
    pub(super) namespaces: Cache<Arc<str>, Oid>,
    pub(super) functions: Cache<Arc<str>, Arc<[UserFunction]>>,
}

impl DatabaseCache {
    pub(super) fn new(builtin: Builtin) -> Self {
        Self {
            builtin,
            invalidations: Invalidations::default(),
            relations: Cache::new(class::RELATION),
            names: Cache::new(class::RELATION_NAMES),
            index_tables: Cache::new(class::RELATION_NAMES),
            namespace_names: Cache::new(class::NAMESPACE),
            namespaces: Cache::new(class::NAMESPACE),
            functions: Cache::new(class::FUNCTION),
        }
    }
}

/// What is shared by all databases.
pub(super) struct SharedCache {
    pub(super) invalidations: Invalidations,
    pub(super) roles: Cache<Oid, Arc<Role>>,
    pub(super) role_names: Cache<Arc<str>, Oid>,
    pub(super) memberships: Cache<Oid, Arc<[Oid]>>,
    pub(super) databases: Cache<Oid, Arc<Database>>,
    pub(super) database_names: Cache<Arc<str>, Oid>,
}

impl Default for SharedCache {
    fn default() -> Self {
        Self {
            invalidations: Invalidations::default(),
            roles: Cache::new(class::ROLE),
            role_names: Cache::new(class::ROLE),
            memberships: Cache::new(class::ROLE),
            databases: Cache::new(class::DATABASE),
            database_names: Cache::new(class::DATABASE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(n: u64) -> Lsn {
        Lsn::from_u64(n)
    }

    #[test]
    fn an_entry_serves_snapshots_on_its_side_of_a_change() {
        let inval = Invalidations::default();
        let cache: Cache<Oid, u32> = Cache::new(class::RELATION);
        cache.put(7, Some(1), lsn(100));
        inval.note(class::RELATION, 7, lsn(200));
        assert_eq!(cache.get(&inval, &7, 7, lsn(150)), None, "only the last change is known: there may be one before 150");
        assert_eq!(cache.get(&inval, &7, 7, lsn(200)), None);
        cache.put(7, Some(2), lsn(200));
        assert_eq!(cache.get(&inval, &7, 7, lsn(250)), Some(Some(2)));
        assert_eq!(cache.get(&inval, &7, 7, lsn(199)), None);
        cache.put(7, Some(1), lsn(199));
        assert_eq!(cache.get(&inval, &7, 7, lsn(250)), Some(Some(2)), "an older reading does not replace a newer one");
    }

    #[test]
    fn a_change_of_a_class_touches_all_its_objects_and_no_others() {
        let inval = Invalidations::default();
        let cache: Cache<Oid, u32> = Cache::new(class::NAMESPACE);
        cache.put(7, None, lsn(100));
        inval.note(class::RELATION, 7, lsn(200));
        assert_eq!(cache.get(&inval, &7, 7, lsn(300)), Some(None));
        inval.note(class::NAMESPACE, 0, lsn(200));
        assert_eq!(cache.get(&inval, &7, 7, lsn(300)), None);
    }

    #[test]
    fn forgetting_single_changes_forgets_no_change() {
        let inval = Invalidations::default();
        let cache: Cache<Oid, u32> = Cache::new(class::RELATION);
        cache.put(1, Some(1), lsn(10));
        inval.note(class::RELATION, 1, lsn(20));
        for i in 0..u32::try_from(REMEMBERED).unwrap() + 10 {
            inval.note(class::RELATION, 100 + i, lsn(30));
        }
        assert_eq!(cache.get(&inval, &1, 1, lsn(40)), None);
        assert!(inval.map.read().by_object.len() <= REMEMBERED);
    }
}
