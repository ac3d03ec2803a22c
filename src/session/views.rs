//! The rows of `pg_stat_activity`, `pg_settings` and the like.

use std::sync::{Arc, Weak};

use afterimage_wal::RelId;

use super::registry::SessionState;
use super::server::Server;
use crate::config::{Kind, Settings, Source, TABLE, Value, flag};
use crate::sql::catalog::load::{CatalogReader as _, by};
use crate::sql::catalog::relation::{DEFAULT_TABLESPACE, FIRST_NORMAL_OID};
use crate::sql::catalog::schema::{pg_class, pg_database};
use crate::sql::catalog::{Relation, VirtualCx, VirtualTable};
use crate::sql::types::{ArrayValue, Datum, Inet, Oid, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::cancel::Conflict;
use crate::txn::{LockTag, Locked, Mark, ProcId};

type Emit<'a> = &'a mut dyn FnMut(&[Datum]) -> Result<(), SqlError>;

struct View {
    server: Weak<Server>,
    rows: fn(&Server, &mut VirtualCx<'_>, Emit<'_>) -> Result<(), SqlError>,
}

impl VirtualTable for View {
    fn rows(&self, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
        match self.server.upgrade() {
            Some(server) => (self.rows)(&server, cx, emit),
            None => Ok(()),
        }
    }
}

/// The views of this layer, by name.
pub(super) fn providers(server: &Arc<Server>) -> Vec<(&'static str, Arc<dyn VirtualTable>)> {
    let view = |rows| Arc::new(View { server: Arc::downgrade(server), rows }) as Arc<dyn VirtualTable>;
    vec![
        ("pg_stat_activity", view(stat_activity)),
        ("pg_locks", view(locks)),
        ("pg_prepared_xacts", view(prepared_xacts)),
        ("pg_stat_database", view(stat_database)),
        ("pg_stat_database_conflicts", view(stat_database_conflicts)),
        ("pg_settings", view(settings)),
        ("pg_file_settings", view(file_settings)),
        ("pg_stat_ssl", view(stat_ssl)),
        ("pg_stat_gssapi", view(stat_gssapi)),
        ("pg_stat_all_tables", view(|s, cx, emit| stat_tables(s, cx, emit, &|_| true))),
        ("pg_stat_user_tables", view(|s, cx, emit| stat_tables(s, cx, emit, &|r| !is_system_schema(r)))),
        ("pg_stat_sys_tables", view(|s, cx, emit| stat_tables(s, cx, emit, &is_system_schema))),
        ("pg_stat_progress_vacuum", view(stat_progress_vacuum)),
        ("pg_stat_all_indexes", view(|s, cx, emit| stat_indexes(s, cx, emit, &|_| true))),
        ("pg_stat_user_indexes", view(|s, cx, emit| stat_indexes(s, cx, emit, &|r| !is_system_schema(r)))),
        ("pg_stat_sys_indexes", view(|s, cx, emit| stat_indexes(s, cx, emit, &is_system_schema))),
    ]
}

fn text(value: &str) -> Datum {
    Datum::text(value)
}

fn optional(value: Option<&str>) -> Datum {
    value.map_or(Datum::Null, Datum::text)
}

fn time(value: Option<i64>) -> Datum {
    value.map_or(Datum::Null, Datum::TimestampTz)
}

/// A 64-bit xid as the 32-bit type shows it.
fn xid(value: u64) -> Datum {
    #[expect(clippy::cast_possible_truncation, reason = "the type has 32 bits; PostgreSQL shows the low ones too")]
    Datum::Oid(value as u32)
}

/// Role `pg_read_all_stats`.
const PG_READ_ALL_STATS: Oid = 3375;

fn stat_activity(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let services = server.services_even_if_stopping();
    let me = cx.catalog.user();
    let reads_all = cx.catalog.has_privileges_of(me, PG_READ_ALL_STATS)?;
    for entry in server.registry.list() {
        let activity = entry.activity.lock().clone();
        if activity.state == SessionState::Starting {
            continue;
        }
        let theirs = activity.user.as_ref().map_or(0, |(oid, _)| *oid);
        let allowed = reads_all || cx.catalog.has_privileges_of(me, theirs)?;
        let proc = services.and_then(|s| s.engine.ctx().txns.procs().into_iter().find(|p| p.id() == ProcId(entry.pid)));
        let waits = services.and_then(|s| s.engine.ctx().txns.locks().waiting_for(ProcId(entry.pid)));
        let committing = proc.as_ref().and_then(|p| p.committing());
        let flushed = services.map(|s| s.engine.wal().flushed());
        let (wait_type, wait) = match (waits, committing, activity.state) {
            (Some(what @ ("SyncRep" | "SafeSnapshot")), ..) => (text("IPC"), text(what)),
            (Some(what), ..) => (text("Lock"), text(what)),
            (None, Some(lsn), _) if flushed >= Some(lsn) => (text("IPC"), text("SyncRep")),
            (None, Some(_), _) => (text("IO"), text("WALSync")),
            (None, None, SessionState::Active) => (Datum::Null, Datum::Null),
            (None, None, SessionState::Streaming) => (text("Activity"), text("WalSenderMain")),
            (None, None, _) => (text("Client"), text("ClientRead")),
        };
        let hidden = |value: Datum| if allowed { value } else { Datum::Null };
        emit(&[
            activity.database.as_ref().map_or(Datum::Null, |(oid, _)| Datum::Oid(*oid)),
            activity.database.as_ref().map_or(Datum::Null, |(_, name)| text(name)),
            Datum::Int4(entry.pid),
            Datum::Null,
            activity.user.as_ref().map_or(Datum::Null, |(oid, _)| Datum::Oid(*oid)),
            activity.user.as_ref().map_or(Datum::Null, |(_, name)| text(name)),
            text(&activity.application),
            hidden(
                entry
                    .client
                    .map_or(Datum::Null, |(addr, _)| Datum::Inet(Arc::new(Inet { addr, prefix: if addr.is_ipv4() { 32 } else { 128 } }))),
            ),
            Datum::Null,
            hidden(entry.client.map_or(Datum::Int4(-1), |(_, port)| Datum::Int4(i32::from(port)))),
            hidden(Datum::TimestampTz(entry.backend_start)),
            hidden(time(activity.xact_start)),
            hidden(time(activity.query_start)),
            hidden(time(activity.state_change)),
            hidden(wait_type),
            hidden(wait),
            hidden(optional(activity.state.name())),
            proc.as_ref().and_then(|p| p.xid()).map_or(Datum::Null, |x| xid(x.as_u64())),
            services
                .zip(proc.as_ref().and_then(|p| p.oldest_snapshot()))
                .map_or(Datum::Null, |(services, lsn)| xid(services.engine.ctx().txns.oldest_running_at(lsn).as_u64())),
            Datum::Null,
            if allowed { text(&activity.query) } else { text("<insufficient privilege>") },
            hidden(text(match (activity.replication, activity.autovacuum) {
                (true, _) => "walsender",
                (false, true) => "autovacuum worker",
                (false, false) => "client backend",
            })),
        ])?;
    }
    for (pid, kind, wait) in services.map(|s| s.replication.workers()).unwrap_or_default() {
        let mut row = vec![Datum::Null; 22];
        row[2] = Datum::Int4(pid);
        row[6] = text("");
        if reads_all {
            row[10] = Datum::TimestampTz(server.started);
            row[14] = text("Activity");
            row[15] = text(wait);
            row[21] = text(kind);
        }
        row[20] = text(if reads_all { "" } else { "<insufficient privilege>" });
        emit(&row)?;
    }
    Ok(())
}

fn is_system_schema(relation: &Relation) -> bool {
    matches!(&*relation.namespace_name, "pg_catalog" | "information_schema") || relation.namespace_name.starts_with("pg_toast")
}

/// The tables whose use is counted and that a view wants.
fn counted_tables(cx: &mut VirtualCx<'_>, wanted: &dyn Fn(&Relation) -> bool) -> Result<Vec<Arc<Relation>>, SqlError> {
    let mut oids = Vec::new();
    for row in cx.catalog.reader()?.rows(&pg_class::DEF, 0, &[])? {
        if matches!(row.char(pg_class::relkind)?, b'r' | b't' | b'm') {
            oids.push(row.oid(pg_class::oid)?);
        }
    }
    let mut tables = Vec::new();
    for oid in oids {
        tables.extend(cx.catalog.relation(oid)?.filter(|r| wanted(r)));
    }
    Ok(tables)
}

fn stat_tables(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>, wanted: &dyn Fn(&Relation) -> bool) -> Result<(), SqlError> {
    let Some(services) = server.services_even_if_stopping() else { return Ok(()) };
    let stats = services.engine.ctx().txns.table_stats();
    for relation in counted_tables(cx, wanted)? {
        let t = relation.rel_handle().and_then(|h| stats.get(h.stats_key())).unwrap_or_default();
        let n = |v: u64| Datum::Int8(i64::try_from(v).unwrap_or(i64::MAX));
        let when = |v: u64| time(i64::try_from(v).ok().filter(|v| *v > 0));
        let by_index = |v: u64| if relation.indexes.is_empty() { Datum::Null } else { n(v) };
        emit(&[
            Datum::Oid(relation.oid),
            text(&relation.namespace_name),
            text(&relation.name),
            n(t.seq_scan),
            n(t.seq_tup_read),
            by_index(t.idx_scan),
            by_index(t.idx_tup_fetch),
            n(t.n_tup_ins),
            n(t.n_tup_upd),
            n(t.n_tup_del),
            n(t.n_tup_hot_upd),
            n(t.n_live_tup),
            n(t.n_dead_tup),
            n(t.n_mod_since_analyze),
            n(t.n_ins_since_vacuum),
            when(t.last_vacuum),
            when(t.last_autovacuum),
            when(t.last_analyze),
            when(t.last_autoanalyze),
            n(t.vacuum_count),
            n(t.autovacuum_count),
            n(t.analyze_count),
            n(t.autoanalyze_count),
        ])?;
    }
    Ok(())
}

fn stat_indexes(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>, wanted: &dyn Fn(&Relation) -> bool) -> Result<(), SqlError> {
    let Some(services) = server.services_even_if_stopping() else { return Ok(()) };
    let stats = services.engine.ctx().txns.table_stats();
    for relation in counted_tables(cx, wanted)? {
        for index in &relation.indexes {
            let t = stats.get(relation.index_handle(index).stats_key()).unwrap_or_default();
            let n = |v: u64| Datum::Int8(i64::try_from(v).unwrap_or(i64::MAX));
            emit(&[
                Datum::Oid(relation.oid),
                Datum::Oid(index.oid),
                text(&relation.namespace_name),
                text(&relation.name),
                text(&index.name),
                n(t.idx_scan),
                n(t.idx_tup_fetch),
                n(t.idx_tup_fetch),
            ])?;
        }
    }
    Ok(())
}

fn stat_progress_vacuum(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let Some(services) = server.services_even_if_stopping() else { return Ok(()) };
    for (proc, p) in services.engine.ctx().txns.table_stats().vacuums() {
        let entry = server.registry.find(proc.0);
        let database = entry.and_then(|e| e.activity.lock().database.clone());
        let n = |v: u64| Datum::Int8(i64::try_from(v).unwrap_or(i64::MAX));
        // Numbers of another database's tables mean nothing here.
        let relation = if p.table.0 == 0 || database.as_ref().is_some_and(|d| d.0 == cx.catalog.database()) { p.table.1 } else { 0 };
        emit(&[
            Datum::Int4(proc.0),
            database.as_ref().map_or(Datum::Null, |d| Datum::Oid(d.0)),
            database.as_ref().map_or(Datum::Null, |d| text(&d.1)),
            Datum::Oid(relation),
            text(p.phase),
            n(u64::from(p.blocks)),
            n(u64::from(p.scanned)),
            n(u64::from(p.vacuumed)),
            n(u64::from(p.index_passes)),
            n(p.max_dead),
            n(p.dead),
        ])?;
    }
    Ok(())
}

/// OID and name of every database.
fn databases(cx: &mut VirtualCx<'_>) -> Result<Vec<(u32, Datum)>, SqlError> {
    let mut found = Vec::new();
    for row in cx.catalog.reader()?.rows(&pg_database::DEF, 0, &[])? {
        found.push((row.oid(pg_database::oid)?, text(row.str(pg_database::datname)?)));
    }
    Ok(found)
}

/// Who is connected and what replay cancelled; the rest is not counted by database.
fn stat_database(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let Some(services) = server.services_even_if_stopping() else { return Ok(()) };
    let conflicts = services.engine.ctx().txns.conflicts();
    let connected: Vec<u32> = server.registry.list().iter().filter_map(|e| e.activity.lock().database.as_ref().map(|d| d.0)).collect();
    for (oid, name) in databases(cx)? {
        let mut row = vec![Datum::Null; 28];
        row[0] = Datum::Oid(oid);
        row[1] = name;
        row[2] = Datum::Int4(i32::try_from(connected.iter().filter(|db| **db == oid).count()).unwrap_or(i32::MAX));
        let (files, bytes) = crate::executor::temporary_files_of(oid);
        for (column, count) in [(12, conflicts.sum(oid)), (13, files), (14, bytes)] {
            row[column] = Datum::Int8(i64::try_from(count).unwrap_or(i64::MAX));
        }
        emit(&row)?;
    }
    Ok(())
}

fn stat_database_conflicts(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let Some(services) = server.services_even_if_stopping() else { return Ok(()) };
    let conflicts = services.engine.ctx().txns.conflicts();
    for (oid, name) in databases(cx)? {
        let count = |kind| Datum::Int8(i64::try_from(conflicts.get(oid, kind)).unwrap_or(i64::MAX));
        let [tablespace, lock, snapshot, pin, deadlock] =
            [Conflict::Tablespace, Conflict::Lock, Conflict::Snapshot, Conflict::BufferPin, Conflict::Deadlock].map(count);
        emit(&[Datum::Oid(oid), name, tablespace, lock, snapshot, pin, deadlock])?;
    }
    Ok(())
}

fn prepared_xacts(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let Some(services) = server.services_even_if_stopping() else { return Ok(()) };
    for p in services.engine.ctx().txns.prepared() {
        let owner = cx.catalog.role(p.state.owner)?.map_or(Datum::Null, |r| text(&r.name));
        let database = cx.catalog.database_by_oid(p.state.database)?.map_or(Datum::Null, |d| text(&d.name));
        emit(&[xid(p.xid.as_u64()), text(&p.state.gid), Datum::TimestampTz(p.state.time), owner, database])?;
    }
    Ok(())
}

fn labels(list: &[&str]) -> Datum {
    Datum::Array(Arc::new(ArrayValue::one_dim(oids::TEXT, list.iter().map(|l| text(l)).collect())))
}

fn settings(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let base = server.config.current();
    let boot = Settings::default();
    for def in TABLE.iter().filter(|d| !d.has(flag::NO_SHOW_ALL)) {
        let shown = match cx.session.setting(def.name) {
            Ok(shown) => shown.unwrap_or_default(),
            // Not this user's to see.
            Err(e) if e.state() == SqlState::INSUFFICIENT_PRIVILEGE => continue,
            Err(e) => return Err(e),
        };
        // SHOW's form has units; the view's has not.
        let raw = Value::parse(def, &shown).map_or_else(|_| shown.clone(), |v| v.raw(def));
        let server_wide = base.value(def.id).raw(def);
        let source = if raw == server_wide { base.source(def.id) } else { Source::Session };
        let (min, max) = match def.kind {
            Kind::Int { min, max } => (text(&min.to_string()), text(&max.to_string())),
            Kind::Real { min, max } => (text(&Value::Real(min).raw(def)), text(&Value::Real(max).raw(def))),
            Kind::Bool | Kind::Enum(_) | Kind::Str => (Datum::Null, Datum::Null),
        };
        let place = base.place(def.id).filter(|_| source == Source::File);
        emit(&[
            text(def.name),
            text(&raw),
            optional(def.unit.name()),
            text(def.group),
            text(def.doc),
            Datum::Null,
            text(def.context.name()),
            text(def.kind_name()),
            text(source.name()),
            min,
            max,
            if let Kind::Enum(list) = def.kind { labels(list) } else { Datum::Null },
            text(&boot.value(def.id).raw(def)),
            text(&server_wide),
            optional(place.map(|(file, _)| file)),
            place.map_or(Datum::Null, |(_, line)| Datum::Int4(i32::try_from(line).unwrap_or(i32::MAX))),
            Datum::Bool(server.config.is_pending_restart(def.id)),
        ])?;
    }
    Ok(())
}

fn file_settings(server: &Server, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let auto = server.config.data_dir().join("postgresql.auto.conf");
    let mut entries = Vec::new();
    for file in [server.config.config_file(), &auto] {
        match crate::config::parse_file(file) {
            Ok(found) => entries.extend(found),
            Err(e) => emit(&[
                text(&file.display().to_string()),
                Datum::Null,
                Datum::Null,
                Datum::Null,
                Datum::Null,
                Datum::Bool(false),
                text(&e.to_string()),
            ])?,
        }
    }
    for (i, entry) in entries.iter().enumerate() {
        let overridden = entries[i + 1..].iter().any(|later| later.name.eq_ignore_ascii_case(&entry.name));
        let problem = match crate::config::lookup(&entry.name) {
            None if entry.name.contains('.') => None,
            None => Some("unrecognized configuration parameter".to_owned()),
            Some(setting) => Value::parse(setting.def(), &entry.value).err().map(|e| e.to_string()),
        };
        let int = |n: u64| Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX));
        emit(&[
            text(&entry.file),
            int(u64::from(entry.line)),
            int(u64::try_from(i).unwrap_or(0) + 1),
            text(&entry.name),
            text(&entry.value),
            Datum::Bool(!overridden && problem.is_none()),
            optional(problem.as_deref()),
        ])?;
    }
    Ok(())
}

fn stat_ssl(server: &Server, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for entry in server.registry.list() {
        let none = || Datum::Null;
        emit(&[Datum::Int4(entry.pid), Datum::Bool(false), none(), none(), none(), none(), none(), none()])?;
    }
    Ok(())
}

fn stat_gssapi(server: &Server, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for entry in server.registry.list() {
        emit(&[Datum::Int4(entry.pid), Datum::Bool(false), Datum::Null, Datum::Bool(false)])?;
    }
    Ok(())
}

/// A prepared transaction has no session.
fn pid(proc: ProcId) -> Datum {
    if proc.0 > 0 { Datum::Int4(proc.0) } else { Datum::Null }
}

fn virtual_transaction(proc: ProcId, number: u64) -> Datum {
    text(&if proc.0 > 0 { format!("{}/{number}", proc.0) } else { format!("-1/{number}") })
}

/// The relation whose file this is; rows are locked by file. Files of other databases are not known here.
fn relation_of(cx: &VirtualCx<'_>, file: RelId) -> Result<Oid, SqlError> {
    if file.db != cx.catalog.database() || file.rel < FIRST_NORMAL_OID {
        return Ok(file.rel);
    }
    let stored = if file.spc == DEFAULT_TABLESPACE { 0 } else { file.spc };
    let key = [Datum::Oid(stored), Datum::Oid(file.rel)];
    let found = cx.catalog.reader()?.rows(&pg_class::DEF, by::CLASS_TABLESPACE_FILE, &key)?;
    found.first().map_or(Ok(file.rel), |row| row.oid(pg_class::oid))
}

/// The columns of `pg_locks` that say what is locked: from `locktype` to `objsubid`.
fn lock_tag(tag: &LockTag) -> [Datum; 10] {
    let mut row: [Datum; 10] = std::array::from_fn(|_| Datum::Null);
    match *tag {
        LockTag::Relation { db, rel } => {
            (row[0], row[1], row[2]) = (text("relation"), Datum::Oid(db), Datum::Oid(rel));
        }
        LockTag::Object { db, class, object } => {
            (row[0], row[1]) = (text("object"), Datum::Oid(db));
            (row[7], row[8], row[9]) = (Datum::Oid(class), Datum::Oid(object), Datum::Int2(0));
        }
        LockTag::Tuple { rel, block, offset }
        | LockTag::TupleQueue { rel, block, offset }
        | LockTag::Speculative { rel, block, offset } => {
            let kind = if matches!(tag, LockTag::Speculative { .. }) { "spectoken" } else { "tuple" };
            (row[0], row[1], row[2]) = (text(kind), Datum::Oid(rel.db), Datum::Oid(rel.rel));
            row[3] = Datum::Int4(block.get().cast_signed());
            row[4] = Datum::Int2(offset.cast_signed());
        }
        LockTag::Advisory { db, key1, key2, two_keys } => {
            (row[0], row[1]) = (text("advisory"), Datum::Oid(db));
            (row[7], row[8], row[9]) = (Datum::Oid(key1), Datum::Oid(key2), Datum::Int2(if two_keys { 2 } else { 1 }));
        }
    }
    row
}

fn locks(server: &Server, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let Some(services) = server.services_even_if_stopping() else { return Ok(()) };
    let locks = services.engine.ctx().txns.locks().list();
    let numbers: std::collections::HashMap<ProcId, u64> = locks.iter().map(|l| (l.proc, l.transaction)).collect();
    let mut advisory = std::collections::HashSet::new();
    for lock in locks {
        // What the session and its transaction hold is one.
        if let Locked::Tag(tag @ LockTag::Advisory { .. }) = lock.what
            && lock.granted
            && !advisory.insert((tag, lock.proc, lock.mode))
        {
            continue;
        }
        // Row locks that are held are not shown, as in PostgreSQL: there may be millions.
        if lock.granted && matches!(lock.what, Locked::Tag(LockTag::Tuple { .. })) {
            continue;
        }
        let mut row: Vec<Datum> = match lock.what {
            Locked::Tag(tag) => match tag.as_replayed_relation() {
                None => {
                    let mut row = lock_tag(&tag);
                    if let LockTag::Tuple { rel, .. } | LockTag::TupleQueue { rel, .. } = tag {
                        row[2] = Datum::Oid(relation_of(cx, rel)?);
                    }
                    row.into()
                }
                // Who locks a table on a standby holds its relation as well.
                Some(_) if lock.granted && lock.proc != ProcId::NOBODY => continue,
                Some((db, rel)) => lock_tag(&LockTag::Relation { db, rel }).into(),
            },
            Locked::Xid(transaction) => {
                let mut row = vec![Datum::Null; 10];
                (row[0], row[6]) = (text("transactionid"), xid(transaction.as_u64()));
                row
            }
            Locked::Virtual(proc, number) => {
                let mut row = vec![Datum::Null; 10];
                (row[0], row[5]) = (text("virtualxid"), virtual_transaction(proc, u64::from(number)));
                row
            }
        };
        row.extend([
            virtual_transaction(lock.proc, lock.transaction),
            pid(if lock.proc == ProcId::NOBODY && lock.transaction == 0 { ProcId::STARTUP } else { lock.proc }),
            text(lock.mode.name()),
            Datum::Bool(lock.granted),
            Datum::Bool(false),
            lock.waiting_since.map_or(Datum::Null, Datum::TimestampTz),
        ]);
        emit(&row)?;
    }
    for marked in services.engine.ctx().txns.serializable().list() {
        let tag = match marked.mark {
            Mark::Relation(rel) => LockTag::Relation { db: rel.db, rel: rel.rel },
            Mark::Page(rel, block) | Mark::Row(rel, block, _) => {
                let offset = if let Mark::Row(_, _, offset) = marked.mark { offset } else { 0 };
                LockTag::Tuple { rel, block, offset }
            }
        };
        let mut row: Vec<Datum> = lock_tag(&tag).into();
        let (Mark::Relation(file) | Mark::Page(file, _) | Mark::Row(file, ..)) = marked.mark;
        row[2] = Datum::Oid(relation_of(cx, file)?);
        if matches!(marked.mark, Mark::Page(..)) {
            (row[0], row[4]) = (text("page"), Datum::Null);
        }
        row.extend([
            virtual_transaction(marked.proc, numbers.get(&marked.proc).copied().unwrap_or_default()),
            pid(marked.proc),
            text("SIReadLock"),
            Datum::Bool(true),
            Datum::Bool(false),
            Datum::Null,
        ]);
        emit(&row)?;
    }
    Ok(())
}
