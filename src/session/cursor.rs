//! Cursors: DECLARE, FETCH, MOVE, CLOSE.
//!
//! A cursor that is only read forward is a portal that runs on. One that may go back keeps the rows it has given in a [`TupleStore`]: from the start
//! if SCROLL was asked for; else from the first step back, for which the query is read again under the snapshot it had. WITH HOLD
//! puts all rows there at commit.
//!
//! PostgreSQL: commands/portalcmds.c, `DoPortalRunFetch` in tcop/pquery.c.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{self, DeclareCursorStmt, FetchDirection, LockClauseStrength};

use super::client::Session;
use super::extended::PortalEntry;
use super::output::{RowWriter, describe};
use super::query::{duplicate_portal, unknown_cursor};
use crate::executor::{PortalStatus, RawStmt, RowSink, SessionContext, TupleStore};
use crate::sql;
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};

/// Whether a cursor goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scroll {
    /// No.
    #[default]
    No,
    /// It was not asked for, and comes cheap.
    Cheap,
    /// It was asked for.
    Asked,
}

/// Where a cursor is.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    scroll: Scroll,
    /// WITH HOLD.
    hold: bool,
    /// Number of the row it is on; 0 is before the first.
    at: u64,
    /// It is behind the last row, which is `at - 1`.
    ended: bool,
    /// The rows it has given, those before `base` excepted.
    store: Option<TupleStore>,
    base: u64,
}

/// Bits of `DeclareCursorStmt.options`.
mod option {
    pub(super) const SCROLL: i32 = 0x2;
    pub(super) const NO_SCROLL: i32 = 0x4;
    pub(super) const INSENSITIVE: i32 = 0x8;
    pub(super) const HOLD: i32 = 0x20;
}

/// Rows read ahead into the store at once.
const CHUNK: u64 = 1024;

fn forward_only() -> SqlError {
    SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
        .hint("Declare it with SCROLL option to enable backward scan.")
}

/// `FOR UPDATE` and its kin, if the query has one.
fn locking(d: &DeclareCursorStmt) -> Option<&'static str> {
    let Some(NodeEnum::SelectStmt(select)) = d.query.as_ref().and_then(|q| q.node.as_ref()) else { return None };
    let Some(NodeEnum::LockingClause(clause)) = select.locking_clause.first().and_then(|n| n.node.as_ref()) else { return None };
    Some(match clause.strength() {
        LockClauseStrength::LcsForkeyshare => "FOR KEY SHARE",
        LockClauseStrength::LcsForshare => "FOR SHARE",
        LockClauseStrength::LcsFornokeyupdate => "FOR NO KEY UPDATE",
        LockClauseStrength::LcsForupdate | LockClauseStrength::LcsNone | LockClauseStrength::Undefined => "FOR UPDATE",
    })
}

/// What PostgreSQL refuses. `transformDeclareCursorStmt`.
fn check(d: &DeclareCursorStmt) -> Result<(), SqlError> {
    let has = |bit: i32| d.options & bit != 0;
    if has(option::SCROLL) && has(option::NO_SCROLL) {
        return Err(SqlError::new(SqlState::INVALID_CURSOR_DEFINITION, "cannot specify both SCROLL and NO SCROLL"));
    }
    let Some(clause) = locking(d) else { return Ok(()) };
    let refused = |message: String, detail: &str| Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message).detail(detail.to_owned()));
    if has(option::HOLD) {
        return refused(format!("DECLARE CURSOR WITH HOLD ... {clause} is not supported"), "Holdable cursors must be READ ONLY.");
    }
    if has(option::SCROLL) {
        return refused(format!("DECLARE SCROLL CURSOR ... {clause} is not supported"), "Scrollable cursors must be READ ONLY.");
    }
    if has(option::INSENSITIVE) {
        let message = format!("DECLARE INSENSITIVE CURSOR ... {clause} is not valid");
        return Err(SqlError::new(SqlState::INVALID_CURSOR_DEFINITION, message).detail("Insensitive cursors must be READ ONLY."));
    }
    Ok(())
}

impl PortalEntry {
    /// A cursor WITH HOLD whose transaction is still open.
    pub(super) fn is_to_hold(&self) -> bool {
        self.cursor.hold && !self.outlives_transaction
    }

    /// Reads on until there are `upto` rows, if there are that many.
    fn read_to(&mut self, ctx: &mut SessionContext, upto: u64) -> Result<(), SqlError> {
        let (Some(portal), Some(store)) = (self.portal.as_mut(), self.cursor.store.as_mut()) else { return Ok(()) };
        while !self.done {
            let have = self.cursor.base + store.len();
            if have >= upto {
                break;
            }
            let status = portal.run(ctx, (upto - have).min(CHUNK), store)?;
            self.done = matches!(status, PortalStatus::Complete(_));
            store.spill(ctx)?;
        }
        Ok(())
    }

    /// Row `n`, the first being 1, if there is one.
    fn row(&mut self, ctx: &mut SessionContext, n: u64) -> Result<Option<&[Datum]>, SqlError> {
        self.read_to(ctx, n)?;
        let Some(place) = n.checked_sub(self.cursor.base + 1) else { return Ok(None) };
        match &mut self.cursor.store {
            Some(store) => store.get(place),
            None => Ok(None),
        }
    }

    /// From here on rows that were given can be given again.
    fn make_scrollable(&mut self, ctx: &mut SessionContext) -> Result<(), SqlError> {
        if self.cursor.scroll == Scroll::No {
            return Err(forward_only());
        }
        if self.cursor.store.is_none() {
            if let Some(portal) = &mut self.portal {
                portal.rewind(ctx)?;
            }
            self.done = false;
            self.cursor.store = Some(TupleStore::default());
        }
        Ok(())
    }

    /// Takes all that a cursor WITH HOLD has still to give.
    fn hold(&mut self, ctx: &mut SessionContext) -> Result<(), SqlError> {
        if self.cursor.store.is_none() {
            if self.cursor.scroll == Scroll::No {
                // What was given is not asked for again.
                self.cursor.base = if self.cursor.ended { self.cursor.at - 1 } else { self.cursor.at };
                self.cursor.store = Some(TupleStore::default());
            } else {
                self.make_scrollable(ctx)?;
            }
        }
        self.read_to(ctx, u64::MAX)?;
        if let Some(portal) = &mut self.portal {
            portal.release();
        }
        self.outlives_transaction = true;
        Ok(())
    }
}

/// Where FETCH sends rows; MOVE only counts them.
struct Out<'a> {
    sink: Option<RowWriter<'a>>,
    rows: u64,
}

impl Out<'_> {
    fn row(&mut self, row: &[Datum]) -> Result<(), SqlError> {
        self.rows += 1;
        self.sink.as_mut().map_or(Ok(()), |sink| sink.row(row))
    }
}

impl RowSink for Out<'_> {
    fn row(&mut self, values: &[Datum]) -> Result<(), SqlError> {
        Out::row(self, values)
    }

    fn copy_out_begin(&mut self, _binary: bool, _columns: usize) -> Result<(), SqlError> {
        Err(SqlError::internal("COPY inside a cursor"))
    }

    fn copy_data(&mut self, _bytes: &[u8]) -> Result<(), SqlError> {
        Err(SqlError::internal("COPY inside a cursor"))
    }
}

impl Session {
    pub(super) fn declare_cursor(&mut self, statement: &RawStmt) -> Result<String, SqlError> {
        let NodeEnum::DeclareCursorStmt(d) = &*statement.node else { return Err(SqlError::internal("not a DECLARE")) };
        check(d)?;
        let hold = d.options & option::HOLD != 0;
        if !hold && !self.block.is_block() {
            return Err(SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, "DECLARE CURSOR can only be used in transaction blocks"));
        }
        if self.portals.contains_key(&d.portalname) {
            return Err(duplicate_portal(&d.portalname));
        }
        let Some(node) = d.query.as_ref().and_then(|q| q.node.clone()) else {
            return Err(SqlError::internal("DECLARE without a query"));
        };
        let prepared = sql::prepare(&mut self.ctx, statement.with_node(node), &[])?;
        let mut portal = sql::open_portal(&mut self.ctx, prepared, Vec::new())?;
        portal.begin(&mut self.ctx)?;
        let scroll = if d.options & option::SCROLL != 0 {
            Scroll::Asked
        } else if d.options & option::NO_SCROLL == 0 && locking(d).is_none() && portal.scrolls() {
            Scroll::Cheap
        } else {
            Scroll::No
        };
        let store = (scroll == Scroll::Asked).then(TupleStore::default);
        let cursor = Cursor { scroll, hold, store, ..Cursor::default() };
        self.portals.insert(d.portalname.clone(), PortalEntry::cursor(portal, cursor));
        Ok("DECLARE CURSOR".into())
    }

    pub(super) fn close_cursor(&mut self, name: Option<String>) -> Result<String, SqlError> {
        match name {
            None => {
                self.portals.clear();
                Ok("CLOSE CURSOR ALL".into())
            }
            Some(name) => match self.portals.remove(&name) {
                Some(_) => Ok("CLOSE CURSOR".into()),
                None => Err(unknown_cursor(&name)),
            },
        }
    }

    /// Cursors WITH HOLD get what outlives the transaction.
    pub(super) fn hold_cursors(&mut self) -> Result<(), SqlError> {
        self.portals.values_mut().filter(|entry| entry.is_to_hold()).try_for_each(|entry| entry.hold(&mut self.ctx))
    }

    /// FETCH and MOVE. With `described`, the formats, the rows are described first (simple protocol).
    pub(super) fn fetch(&mut self, statement: &RawStmt, described: Option<&[i16]>) -> Result<String, SqlError> {
        let NodeEnum::FetchStmt(f) = &*statement.node else { return Err(SqlError::internal("not a FETCH")) };
        let mut entry = self.portals.remove(&f.portalname).ok_or_else(|| unknown_cursor(&f.portalname))?;
        let result = self.fetch_from(&mut entry, f, described);
        if result.is_ok() {
            self.portals.insert(f.portalname.clone(), entry);
        }
        result
    }

    fn fetch_from(&mut self, entry: &mut PortalEntry, f: &protobuf::FetchStmt, described: Option<&[i16]>) -> Result<String, SqlError> {
        let what = if f.ismove { "MOVE" } else { "FETCH" };
        let Some(portal) = entry.portal.as_ref() else { return Ok(format!("{what} 0")) };
        let prepared = Arc::clone(&portal.prepared);
        let columns = prepared.columns.as_deref().unwrap_or(&[]);
        if let (Some(formats), false) = (described, f.ismove) {
            describe(&mut self.conn, columns, formats);
        }
        let io = self.ctx.io.clone();
        let formats = entry.formats.clone();
        let sink = (!f.ismove).then(|| RowWriter::new(&mut self.conn, columns, &formats, &io));
        let mut out = Out { sink, rows: 0 };
        let (ctx, n) = (&mut self.ctx, f.how_many);
        match (f.direction(), n) {
            (FetchDirection::FetchForward | FetchDirection::Undefined, 1..) | (FetchDirection::FetchBackward, ..=-1) => {
                forward(entry, ctx, n.unsigned_abs(), &mut out)?;
            }
            (FetchDirection::FetchForward | FetchDirection::Undefined, ..=-1) | (FetchDirection::FetchBackward, 1..) => {
                backward(entry, ctx, n.unsigned_abs(), &mut out)?;
            }
            (
                FetchDirection::FetchForward | FetchDirection::Undefined | FetchDirection::FetchBackward | FetchDirection::FetchRelative,
                0,
            ) => {
                again(entry, ctx, &mut out)?;
            }
            (FetchDirection::FetchRelative, _) => {
                let behind = entry.cursor.at.saturating_add_signed(n);
                if n < 0 {
                    entry.make_scrollable(ctx)?;
                }
                go_to(entry, ctx, behind, &mut out)?;
            }
            (FetchDirection::FetchAbsolute, 0..) => go_to(entry, ctx, n.unsigned_abs(), &mut out)?,
            (FetchDirection::FetchAbsolute, _) => {
                entry.make_scrollable(ctx)?;
                entry.read_to(ctx, u64::MAX)?;
                let rows = entry.cursor.store.as_ref().map_or(0, TupleStore::len);
                go_to(entry, ctx, (rows + 1).saturating_sub(n.unsigned_abs()), &mut out)?;
            }
        }
        Ok(format!("{what} {}", out.rows))
    }
}

/// The next `count` rows.
fn forward(entry: &mut PortalEntry, ctx: &mut SessionContext, count: u64, out: &mut Out<'_>) -> Result<(), SqlError> {
    // FETCH ALL is the largest number there is.
    let all = count >= i64::MAX.unsigned_abs();
    if entry.cursor.store.is_none() {
        let Some(portal) = entry.portal.as_mut().filter(|_| !entry.done) else {
            if !entry.cursor.ended {
                (entry.cursor.ended, entry.cursor.at) = (true, entry.cursor.at + 1);
            }
            return Ok(());
        };
        let status = portal.run(ctx, if all { 0 } else { count }, out)?;
        entry.done = matches!(status, PortalStatus::Complete(_));
        entry.cursor.at += out.rows;
        if entry.done && !entry.cursor.ended && (all || out.rows < count) {
            (entry.cursor.ended, entry.cursor.at) = (true, entry.cursor.at + 1);
        }
        return Ok(());
    }
    let mut left = count;
    while left > 0 && !entry.cursor.ended {
        let next = entry.cursor.at + 1;
        entry.read_to(ctx, next.saturating_add(left.min(CHUNK) - 1))?;
        match entry.row(ctx, next)? {
            Some(row) => out.row(row)?,
            None => entry.cursor.ended = true,
        }
        entry.cursor.at = next;
        left -= 1;
    }
    Ok(())
}

/// The `count` rows before.
fn backward(entry: &mut PortalEntry, ctx: &mut SessionContext, count: u64, out: &mut Out<'_>) -> Result<(), SqlError> {
    entry.make_scrollable(ctx)?;
    let mut left = count;
    while left > 0 && entry.cursor.at > 0 {
        let before = entry.cursor.at - 1;
        (entry.cursor.at, entry.cursor.ended) = (before, false);
        if let Some(row) = entry.row(ctx, before)? {
            out.row(row)?;
        }
        left -= 1;
    }
    Ok(())
}

/// The row it is on.
fn again(entry: &mut PortalEntry, ctx: &mut SessionContext, out: &mut Out<'_>) -> Result<(), SqlError> {
    let at = entry.cursor.at;
    if at == 0 || entry.cursor.ended {
        return Ok(());
    }
    if out.sink.is_none() {
        out.rows = 1;
        return Ok(());
    }
    entry.make_scrollable(ctx)?;
    match entry.row(ctx, at)? {
        Some(row) => out.row(row),
        None => Ok(()),
    }
}

/// Row `n`; 0 is before the first.
fn go_to(entry: &mut PortalEntry, ctx: &mut SessionContext, n: u64, out: &mut Out<'_>) -> Result<(), SqlError> {
    if (entry.cursor.store.is_none() || entry.cursor.scroll == Scroll::No) && n > entry.cursor.at {
        // Forward, for which nothing need be kept.
        let skip = n - entry.cursor.at - 1;
        if skip > 0 {
            forward(entry, ctx, skip, &mut Out { sink: None, rows: 0 })?;
        }
        return forward(entry, ctx, 1, out);
    }
    if n == 0 && entry.cursor.at == 0 {
        return Ok(());
    }
    entry.make_scrollable(ctx)?;
    let found = match entry.row(ctx, n)? {
        Some(row) => {
            out.row(row)?;
            true
        }
        None => false,
    };
    entry.cursor.ended = !found && n > 0;
    entry.cursor.at = n;
    if entry.cursor.ended {
        entry.cursor.at = entry.cursor.base + entry.cursor.store.as_ref().map_or(0, TupleStore::len) + 1;
    }
    Ok(())
}
