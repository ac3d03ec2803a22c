//! The catalog of a running server: caches and providers, one for all sessions.

use std::sync::{Arc, Weak};

use afterimage_wal::{Lsn, Oid};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::builtin::{Builtin, Providers};
use super::cache::{DatabaseCache, SharedCache};
use super::handle::{CatalogHandle, View, Viewer};
use super::virtual_table::VirtualTable;
use crate::access::AccessCtx;
use crate::txn::{CommitLevel, Invalidation, Proc, Transaction};

/// Descriptors shared by all sessions of a server.
pub struct Catalog {
    ctx: AccessCtx,
    providers: Providers,
    shared: Arc<SharedCache>,
    /// By database; made when first asked for. Rank 59; nothing is waited for while held.
    databases: RwLock<FxHashMap<Oid, Arc<DatabaseCache>>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").finish_non_exhaustive()
    }
}

impl Catalog {
    /// The catalog over an engine. Listens to commit records from now on: make it before the first session.
    pub fn new(ctx: AccessCtx) -> Arc<Self> {
        let this = Arc::new(Self { ctx, providers: Providers::new(), shared: Arc::default(), databases: RwLock::default() });
        let weak: Weak<Self> = Arc::downgrade(&this);
        this.ctx.txns.on_invalidations(move |lsn, list| {
            if let Some(catalog) = weak.upgrade() {
                catalog.invalidate(lsn, list);
            }
        });
        this
    }

    /// Sets the provider of a virtual relation (`pg_stat_activity`, ...); `false` if no system relation of that name is
    /// open to providers.
    pub fn register_virtual(&self, name: &str, provider: Arc<dyn VirtualTable>) -> bool {
        self.providers.register(name, provider)
    }

    /// What access functions get.
    pub fn ctx(&self) -> &AccessCtx {
        &self.ctx
    }

    /// Lookups as `txn` sees them now. Make a new one when the transaction goes on to its next command.
    pub fn handle(self: &Arc<Self>, viewer: Viewer, txn: &Transaction) -> CatalogHandle {
        let view = View {
            proc: txn.proc().clone(),
            level: txn.options().level,
            cid: txn.cid(),
            own: txn.own().cloned(),
            own_ddl: !txn.invalidations().is_empty(),
        };
        CatalogHandle::new(self.clone(), self.database(viewer.database), viewer, view)
    }

    /// As [`Self::handle`], for a session that looked through `before` so far: what that knows and still holds is taken over.
    pub fn handle_after(self: &Arc<Self>, before: &CatalogHandle, viewer: Viewer, txn: &Transaction) -> CatalogHandle {
        let handle = self.handle(viewer, txn);
        handle.go_on_from(before);
        handle
    }

    /// Lookups of committed state, outside a transaction: authentication, statistics.
    pub fn handle_outside(self: &Arc<Self>, viewer: Viewer, proc: &Arc<Proc>) -> CatalogHandle {
        let view = View { proc: proc.clone(), level: CommitLevel::On, cid: 0, own: None, own_ddl: false };
        CatalogHandle::new(self.clone(), self.database(viewer.database), viewer, view)
    }

    pub(super) fn shared(&self) -> &SharedCache {
        &self.shared
    }

    fn database(&self, oid: Oid) -> Arc<DatabaseCache> {
        if let Some(cache) = self.databases.read().get(&oid) {
            return cache.clone();
        }
        let fresh = Arc::new(DatabaseCache::new(Builtin::new(oid, &self.providers)));
        self.databases.write().entry(oid).or_insert(fresh).clone()
    }

    /// Newest catalog change that concerns `database`.
    pub fn newest_change(&self, database: Oid) -> Lsn {
        let shared = self.shared.invalidations.newest();
        self.databases.read().get(&database).map_or(shared, |db| db.invalidations.newest().max(shared))
    }

    fn invalidate(&self, lsn: Lsn, list: &[Invalidation]) {
        for item in list {
            if item.database == 0 {
                self.shared.invalidations.note(item.class, item.object, lsn);
            } else if let Some(db) = self.databases.read().get(&item.database).cloned() {
                db.invalidations.note(item.class, item.object, lsn);
            }
        }
    }
}
