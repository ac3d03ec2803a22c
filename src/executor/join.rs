//! Joins.

use std::sync::Arc;

use hashbrown::HashTable;

use super::eval::{Exec, Row};
use super::hash::{hash_values, row_bytes, same_rows};
use super::node::Node;
use super::plan::{HashJoin, JoinKind, NestLoop, PlanNode, PlanOp};
use super::spill::{Part, PartReader, Store};
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

fn wrong_plan() -> SqlError {
    SqlError::internal("a node got another node's plan")
}

/// For each left row the right side again.
pub(super) struct NestLoopNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    row: Row,
    inner: Row,
    have: bool,
    matched: bool,
    first: bool,
    count: u32,
}

impl NestLoopNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self { plan, left, right, row: Row::new(), inner: Row::new(), have: false, matched: false, first: true, count: 0 }
    }

    /// The next left row, and the right side made ready for it.
    fn advance(&mut self, x: &mut Exec<'_>, j: &NestLoop) -> Result<bool, SqlError> {
        if !self.left.next(x, &mut self.row)? {
            return Ok(false);
        }
        self.have = true;
        self.matched = false;
        for (slot, column) in &j.params {
            let mut v = self.row.get(*column).cloned().unwrap_or_default();
            super::large::unpack_in_place(x.session.engine.ctx(), &mut v)?;
            if let Some(s) = x.state.exec.get_mut(*slot) {
                *s = v;
            }
        }
        if self.first {
            self.first = false;
        } else {
            self.right.rescan(x)?;
        }
        Ok(true)
    }
}

impl Node for NestLoopNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::NestLoop(j) = &plan.op else { return Err(wrong_plan()) };
        loop {
            if !self.have && !self.advance(x, j)? {
                return Ok(false);
            }
            self.count = self.count.wrapping_add(1);
            if self.count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            // One match is enough: do not ask again.
            let done = self.matched && (j.single || matches!(j.kind, JoinKind::Semi | JoinKind::Anti));
            if !done && self.right.next(x, &mut self.inner)? {
                out.clear();
                out.extend_from_slice(&self.row);
                out.append(&mut self.inner);
                let holds = match &j.condition {
                    Some(c) => c.holds(x, out)?,
                    None => true,
                };
                if holds {
                    self.matched = true;
                    match j.kind {
                        JoinKind::Anti => {}
                        JoinKind::Semi => {
                            out.truncate(self.row.len());
                            return Ok(true);
                        }
                        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => return Ok(true),
                    }
                }
                continue;
            }
            self.have = false;
            let unmatched = !self.matched;
            match j.kind {
                JoinKind::Left if unmatched => {
                    out.clear();
                    out.extend_from_slice(&self.row);
                    out.resize(plan.width, Datum::Null);
                    return Ok(true);
                }
                JoinKind::Anti if unmatched => {
                    out.clear();
                    out.extend_from_slice(&self.row);
                    return Ok(true);
                }
                JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full | JoinKind::Semi | JoinKind::Anti => {}
            }
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.have = false;
        self.left.rescan(x)
    }
}

/// Build side rows: key values, then the row.
#[derive(Default)]
struct Built {
    rows: Vec<(Box<[Datum]>, Row)>,
    matched: Vec<bool>,
    table: HashTable<u32>,
    /// Next row with the same hash bucket entry, by row.
    chain: Vec<u32>,
    /// Bytes it takes, roughly.
    bytes: usize,
}

const NONE: u32 = u32::MAX;

impl Built {
    fn insert(&mut self, hash: u64, keys: Box<[Datum]>, row: Row) -> Result<(), SqlError> {
        let n = u32::try_from(self.rows.len())
            .map_err(|_| SqlError::new(crate::sqlstate::SqlState::PROGRAM_LIMIT_EXCEEDED, "too many rows in a hash join"))?;
        self.bytes += row_bytes(&keys) + row_bytes(&row) + 32;
        self.rows.push((keys, row));
        self.chain.push(NONE);
        self.matched.push(false);
        let Self { rows, table, chain, .. } = self;
        let Some((keys, _)) = rows.last() else { return Err(wrong_plan()) };
        let entry = table.entry(
            hash,
            |other| rows.get(*other as usize).is_some_and(|(k, _)| same_rows(k, keys)),
            |other| rows.get(*other as usize).map_or(0, |(k, _)| hash_values(k.iter())),
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(mut e) => {
                // Newest first; the order within a key does not matter.
                if let Some(slot) = chain.last_mut() {
                    *slot = *e.get();
                }
                *e.get_mut() = n;
            }
            hashbrown::hash_table::Entry::Vacant(e) => {
                e.insert(n);
            }
        }
        Ok(())
    }

    fn find(&self, hash: u64, keys: &[Datum]) -> u32 {
        self.table.find(hash, |n| self.rows.get(*n as usize).is_some_and(|(k, _)| same_rows(k, keys))).copied().unwrap_or(NONE)
    }
}

/// Most batches one join is split into.
const MAX_BATCHES: usize = 1 << 16;

/// What does not fit: both sides split by hash, one batch at a time in memory.
///
/// Doubling their number moves a row to a later batch or leaves it where it is, so that batches done with never get another row.
/// PostgreSQL: nodeHash.c, `ExecHashIncreaseNumBatches`. A batch that doubling does not make smaller, because one key has most of its rows, is
/// joined in pieces: so many right rows as fit, with all left rows of the batch, which are kept for the next piece.
#[derive(Default)]
struct Batches {
    count: usize,
    /// Number at the start, for EXPLAIN.
    original: usize,
    current: usize,
    /// Doubling helps: most rows of the current batch have not one hash.
    grow: bool,
    /// Right rows of the first batch that wait for the next piece, while they are being read from the child.
    over: Part,
    /// Right rows of the current batch that wait for the next piece, and how many.
    rest: Option<(PartReader, u64)>,
    /// Left rows of the current batch for the next piece, each with whether it has had a match.
    again: Option<(Store, Part)>,
    store: Option<Store>,
    inner: Vec<Part>,
    outer: Vec<Part>,
}

impl Batches {
    fn new() -> Self {
        let one = || vec![Part::default()];
        Self { count: 1, original: 1, inner: one(), outer: one(), grow: true, ..Self::default() }
    }

    fn of(&self, hash: u64) -> usize {
        // Bits the hash table looks at neither for its buckets nor for its tags.
        usize::try_from(hash >> 32 & 0x00ff_ffff).unwrap_or(0) & (self.count - 1)
    }

    /// Bytes a part gathers before it writes: all of them together stay small.
    fn block(&self, memory: usize) -> usize {
        (memory / 8 / self.count).clamp(1 << 10, 64 << 10)
    }

    fn push(&mut self, x: &Exec<'_>, outer: bool, batch: usize, row: &[Datum], memory: usize) -> Result<(), SqlError> {
        let block = self.block(memory);
        if self.store.is_none() {
            self.store = Some(Store::new(x)?);
        }
        let parts = if outer { &mut self.outer } else { &mut self.inner };
        match (&mut self.store, parts.get_mut(batch)) {
            (Some(store), Some(part)) => store.push(part, row, block),
            _ => Err(wrong_plan()),
        }
    }

    /// Twice as many; rows of the table that now belong to a later batch go there.
    fn double(&mut self, x: &Exec<'_>, built: &mut Built, memory: usize) -> Result<(), SqlError> {
        if self.count >= MAX_BATCHES {
            self.grow = false;
            return Ok(());
        }
        self.count *= 2;
        self.inner.resize_with(self.count, Part::default);
        self.outer.resize_with(self.count, Part::default);
        let before = built.rows.len();
        for (keys, row) in std::mem::take(built).rows {
            let hash = hash_values(keys.iter());
            let batch = self.of(hash);
            if batch == self.current {
                built.insert(hash, keys, row)?;
            } else {
                self.push(x, false, batch, &row, memory)?;
            }
        }
        // Half of them stay if their hashes differ.
        if built.rows.len() * 4 > before * 3 || built.rows.is_empty() {
            self.grow = false;
        }
        Ok(())
    }

    /// Keeps a left row for the next piece.
    fn keep(&mut self, x: &Exec<'_>, row: &mut Row, matched: bool) -> Result<(), SqlError> {
        let (store, part) = match &mut self.again {
            Some(again) => again,
            none => none.insert((Store::new(x)?, Part::default())),
        };
        row.push(Datum::Bool(matched));
        store.push(part, row, 64 << 10)
    }

    /// Are there right rows of this batch for another piece?
    fn has_rest(&self) -> bool {
        self.rest.as_ref().is_some_and(|(_, rows)| *rows > 0)
    }
}

/// Left rows of a batch after the first, or of a piece after a batch's first.
enum Probe {
    Batch(PartReader),
    Again(Store, PartReader),
}

/// Rows with a NULL key of a side whose rows all appear: they match nothing.
#[derive(Default)]
struct Loose {
    rows: Vec<Row>,
    bytes: usize,
    store: Option<(Store, Part)>,
    reader: Option<(Store, PartReader)>,
}

impl Loose {
    fn push(&mut self, x: &Exec<'_>, row: Row, memory: usize) -> Result<(), SqlError> {
        if self.bytes <= memory / 4 {
            self.bytes += row_bytes(&row);
            self.rows.push(row);
            return Ok(());
        }
        if self.store.is_none() {
            self.store = Some((Store::new(x)?, Part::default()));
        }
        match &mut self.store {
            Some((store, part)) => store.push(part, &row, 64 << 10),
            None => Err(wrong_plan()),
        }
    }

    /// Row `at`; after those in memory those in the file, in turn.
    fn next(&mut self, at: usize) -> Result<Option<Row>, SqlError> {
        if let Some(row) = self.rows.get(at) {
            return Ok(Some(row.clone()));
        }
        if let Some((store, part)) = self.store.take() {
            self.reader = Some((store, Store::read(part)));
        }
        match &mut self.reader {
            Some((store, reader)) => store.next(reader),
            None => Ok(None),
        }
    }
}

/// Where a hash join is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Reading left rows of the current batch.
    Probe,
    /// Right rows of the current batch that nobody matched, from this one.
    Rest(usize),
    /// Right rows with a NULL key, from this one.
    Loose(usize),
    /// At the end.
    Done,
}

/// Right side into a hash table, in batches if it is larger than the memory for it.
pub(super) struct HashJoinNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    built: Option<Built>,
    batches: Batches,
    loose: Loose,
    probe: Option<Probe>,
    row: Row,
    keys: Vec<Datum>,
    /// Keys of the right row at hand.
    right_keys: Vec<Datum>,
    /// Candidate at hand for the current left row.
    at: u32,
    have: bool,
    matched: bool,
    phase: Phase,
    count: u32,
    memory: usize,
}

impl HashJoinNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self {
            plan,
            left,
            right,
            built: None,
            batches: Batches::new(),
            loose: Loose::default(),
            probe: None,
            row: Row::new(),
            keys: Vec::new(),
            right_keys: Vec::new(),
            at: NONE,
            have: false,
            matched: false,
            phase: Phase::Probe,
            count: 0,
            memory: 0,
        }
    }

    fn tick(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.count = self.count.wrapping_add(1);
        if self.count & 1023 == 0 { x.session.check_cancel() } else { Ok(()) }
    }

    /// Puts a right row where it belongs: into the table, or into a later batch. What it was in can be used for the next if it does not stay.
    fn place(&mut self, x: &mut Exec<'_>, j: &HashJoin, built: &mut Built, row: &mut Row) -> Result<(), SqlError> {
        let mut keys = std::mem::take(&mut self.right_keys);
        keys.clear();
        for k in &j.right_keys {
            keys.push(k.eval(x, row)?);
        }
        let placed = self.place_with(x, j, built, &keys, row);
        self.right_keys = keys;
        placed
    }

    fn place_with(&mut self, x: &mut Exec<'_>, j: &HashJoin, built: &mut Built, keys: &[Datum], row: &mut Row) -> Result<(), SqlError> {
        if keys.iter().any(Datum::is_null) {
            return match j.kind {
                JoinKind::Right | JoinKind::Full => self.loose.push(x, std::mem::take(row), self.memory),
                JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti => Ok(()),
            };
        }
        let hash = hash_values(keys);
        let batch = self.batches.of(hash);
        if batch != self.batches.current {
            return self.batches.push(x, false, batch, row, self.memory);
        }
        if self.is_full(built) {
            let Some(store) = &mut self.batches.store else { return Err(wrong_plan()) };
            return store.push(&mut self.batches.over, row, 64 << 10);
        }
        built.insert(hash, keys.into(), std::mem::take(row))?;
        if built.bytes > self.memory && self.batches.grow {
            self.batches.double(x, built, self.memory)?;
        }
        Ok(())
    }

    /// The table takes no more, and more batches do not help.
    fn is_full(&self, built: &Built) -> bool {
        built.bytes > self.memory && !self.batches.grow && !built.rows.is_empty() && self.batches.store.is_some()
    }

    /// Tells EXPLAIN ANALYZE about the table at hand.
    fn note(&self, x: &mut Exec<'_>, built: &Built) {
        let (batches, original) = (self.batches.count as u64, self.batches.original as u64);
        let disk = self.batches.store.as_ref().map_or(0, Store::bytes);
        x.note(self.plan.id, |s| {
            s.batches = (batches, original);
            s.buckets = s.buckets.max((built.rows.len() as u64).next_power_of_two().max(1024));
            s.memory = s.memory.max(built.bytes as u64 + s.buckets * 8);
            s.disk = disk;
        });
    }

    fn build(&mut self, x: &mut Exec<'_>, j: &HashJoin) -> Result<Built, SqlError> {
        self.memory = super::hash::memory(x);
        let mut built = Built::default();
        let mut row = Row::new();
        while self.right.next(x, &mut row)? {
            self.tick(x)?;
            self.place(x, j, &mut built, &mut row)?;
        }
        let over = std::mem::take(&mut self.batches.over);
        if over.rows > 0 {
            let rows = over.rows;
            self.batches.rest = Some((Store::read(over), rows));
        }
        self.note(x, &built);
        Ok(built)
    }

    /// Loads the next piece or batch that can yield a row; false after the last.
    fn advance(&mut self, x: &mut Exec<'_>, j: &HashJoin) -> Result<bool, SqlError> {
        loop {
            let rest = self.batches.rest.take().filter(|(_, rows)| *rows > 0);
            let again = self.batches.again.take();
            let (mut reader, mut inner, outer, probe) = match rest {
                Some((reader, inner)) => {
                    let (store, part) = match again {
                        Some(again) => again,
                        None => (Store::new(x)?, Part::default()),
                    };
                    (reader, inner, part.rows, Probe::Again(store, Store::read(part)))
                }
                None => {
                    self.batches.current += 1;
                    let current = self.batches.current;
                    if current >= self.batches.count {
                        return Ok(false);
                    }
                    self.batches.grow = self.batches.count < MAX_BATCHES;
                    let inner = self.batches.inner.get_mut(current).map(std::mem::take).unwrap_or_default();
                    let outer = self.batches.outer.get_mut(current).map(std::mem::take).unwrap_or_default();
                    let (inner_rows, outer_rows) = (inner.rows, outer.rows);
                    (Store::read(inner), inner_rows, outer_rows, Probe::Batch(Store::read(outer)))
                }
            };
            let useful = match j.kind {
                JoinKind::Inner | JoinKind::Semi => inner > 0 && outer > 0,
                JoinKind::Left | JoinKind::Anti => outer > 0,
                JoinKind::Right => inner > 0,
                JoinKind::Full => inner > 0 || outer > 0,
            };
            if !useful {
                continue;
            }
            let mut built = Built::default();
            while inner > 0 && !self.is_full(&built) {
                self.tick(x)?;
                let row = match &self.batches.store {
                    Some(store) => store.next(&mut reader)?,
                    None => None,
                };
                let Some(mut row) = row else { return Err(wrong_plan()) };
                inner -= 1;
                self.place(x, j, &mut built, &mut row)?;
            }
            self.batches.rest = Some((reader, inner));
            self.note(x, &built);
            self.built = Some(built);
            self.probe = Some(probe);
            return Ok(true);
        }
    }

    /// The next left row of the current batch.
    fn next_left(&mut self, x: &mut Exec<'_>) -> Result<bool, SqlError> {
        self.matched = false;
        let row = match (&mut self.probe, &self.batches.store) {
            (None, _) => return self.left.next(x, &mut self.row),
            (Some(Probe::Batch(reader)), Some(store)) => store.next(reader)?,
            (Some(Probe::Again(store, reader)), _) => match store.next(reader)? {
                Some(mut row) => {
                    self.matched = matches!(row.pop(), Some(Datum::Bool(true)));
                    Some(row)
                }
                None => None,
            },
            (Some(Probe::Batch(_)), None) => None,
        };
        let found = row.is_some();
        self.row = row.unwrap_or_default();
        Ok(found)
    }

    /// A right row without a match.
    fn unmatched(&self, row: &[Datum], out: &mut Row) {
        out.clear();
        out.resize(self.plan.width - row.len(), Datum::Null);
        out.extend_from_slice(row);
    }
}

impl Node for HashJoinNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::HashJoin(j) = &plan.op else { return Err(wrong_plan()) };
        if self.built.is_none() {
            let built = self.build(x, j)?;
            self.built = Some(built);
        }
        let all_right = matches!(j.kind, JoinKind::Right | JoinKind::Full);
        loop {
            match self.phase {
                Phase::Probe => {}
                Phase::Rest(at) => {
                    let Some(built) = &self.built else { return Err(wrong_plan()) };
                    let found = (at..built.rows.len()).find(|n| !built.matched.get(*n).copied().unwrap_or(true));
                    if let Some((n, (_, row))) = found.and_then(|n| built.rows.get(n).map(|r| (n, r))) {
                        self.unmatched(row, out);
                        self.phase = Phase::Rest(n + 1);
                        return Ok(true);
                    }
                    self.phase = if self.advance(x, j)? { Phase::Probe } else { Phase::Loose(0) };
                    continue;
                }
                Phase::Loose(at) => {
                    self.tick(x)?;
                    match self.loose.next(at)? {
                        Some(row) => {
                            self.unmatched(&row, out);
                            self.phase = Phase::Loose(at + 1);
                            return Ok(true);
                        }
                        None => self.phase = Phase::Done,
                    }
                    continue;
                }
                Phase::Done => {
                    out.clear();
                    return Ok(false);
                }
            }
            let Some(built) = &self.built else { return Err(wrong_plan()) };
            if !self.have {
                // Nothing to find in an empty table.
                let empty = built.rows.is_empty() && self.batches.count == 1;
                if empty && matches!(j.kind, JoinKind::Inner | JoinKind::Semi | JoinKind::Right) {
                    self.phase = Phase::Loose(0);
                    continue;
                }
                if !self.next_left(x)? {
                    self.phase = if all_right {
                        Phase::Rest(0)
                    } else if self.advance(x, j)? {
                        Phase::Probe
                    } else {
                        Phase::Done
                    };
                    continue;
                }
                self.tick(x)?;
                self.keys.clear();
                for k in &j.left_keys {
                    let v = k.eval(x, &self.row)?;
                    self.keys.push(v);
                }
                if self.keys.iter().any(Datum::is_null) {
                    self.at = NONE;
                } else {
                    let hash = hash_values(self.keys.iter());
                    let batch = self.batches.of(hash);
                    if batch != self.batches.current {
                        let row = std::mem::take(&mut self.row);
                        self.batches.push(x, true, batch, &row, self.memory)?;
                        self.row = row;
                        continue;
                    }
                    let Some(built) = &self.built else { return Err(wrong_plan()) };
                    self.at = built.find(hash, &self.keys);
                }
                self.have = true;
            }
            let Some(built) = &mut self.built else { return Err(wrong_plan()) };
            while self.at != NONE {
                let n = self.at as usize;
                self.at = built.chain.get(n).copied().unwrap_or(NONE);
                let Some((_, inner)) = built.rows.get(n) else { continue };
                out.clear();
                out.extend_from_slice(&self.row);
                out.extend_from_slice(inner);
                let holds = match &j.condition {
                    Some(c) => c.holds(x, out)?,
                    None => true,
                };
                if !holds {
                    continue;
                }
                self.matched = true;
                if let Some(m) = built.matched.get_mut(n) {
                    *m = true;
                }
                match j.kind {
                    JoinKind::Semi => {
                        self.have = false;
                        out.truncate(self.row.len());
                        return Ok(true);
                    }
                    JoinKind::Anti => {
                        self.at = NONE;
                    }
                    JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => return Ok(true),
                }
            }
            self.have = false;
            if self.batches.has_rest() {
                if !self.matched || j.kind != JoinKind::Anti {
                    self.batches.keep(x, &mut self.row, self.matched)?;
                }
                continue;
            }
            if !self.matched {
                match j.kind {
                    JoinKind::Left | JoinKind::Full => {
                        out.clear();
                        out.extend_from_slice(&self.row);
                        out.resize(plan.width, Datum::Null);
                        return Ok(true);
                    }
                    JoinKind::Anti => {
                        out.clear();
                        out.extend_from_slice(&self.row);
                        return Ok(true);
                    }
                    JoinKind::Inner | JoinKind::Right | JoinKind::Semi => {}
                }
            }
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.have = false;
        self.phase = Phase::Probe;
        self.probe = None;
        let PlanOp::HashJoin(j) = &self.plan.op else { return Err(wrong_plan()) };
        let spilled = self.batches.store.is_some() || self.batches.count > 1 || self.loose.store.is_some() || self.loose.reader.is_some();
        if j.right.correlated || spilled {
            self.right.rescan(x)?;
            self.built = None;
            self.batches = Batches::new();
            self.loose = Loose::default();
        } else if let Some(b) = &mut self.built {
            b.matched.iter_mut().for_each(|m| *m = false);
        }
        self.left.rescan(x)
    }
}
