//! The shared plan cache: statement text with its literals lifted out, to a plan.
//!
//! A simple query carries its values in its text, so that the same statement arrives in ever new texts. `lift` takes the numbers and strings
//! out of a text without parsing it; what is left, with the settings and the role that parsing and binding depend on, is the key. The second time
//! a key is seen the statement is parsed, literals that stand where only their value matters become parameters (`movable`), and its plan is
//! kept for all sessions. The other literals (LIMIT 0, `ORDER BY 1`, `'x'::regclass`, what a partial index's condition may be judged by) stay in
//! the key by their text.
//!
//! The extended protocol's texts have parameters instead: they are the key whole, with the types their clients declared.
//!
//! A plan is used only under the catalog version and search path it was made under ([`crate::executor::portal::PlanVersion`]); a transaction
//! with DDL of its own sees no cached plan at all. Whatever is out of the ordinary (a value that does not fit its type, several statements,
//! escapes) goes the long way, which also words the errors.

use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pg_query::NodeEnum;
use pg_query::protobuf::{self, AExprKind, BoolExprType, Node, a_const};
use rustc_hash::{FxHashMap, FxHasher};

use super::types::{self, Datum, Oid, oids};
use crate::executor::portal::Body;
use crate::executor::{Prepared, RawStmt, SessionContext, StmtKind};
use crate::sql::catalog::relation::FIRST_NORMAL_OID;
use crate::sqlstate::{Reach, SqlError, SqlState};

/// Longest text that is looked up.
const MAX_TEXT: usize = 4096;
/// Most literals that are lifted.
const MAX_LITERALS: usize = 64;
/// Locks, each with its part of the cache.
const SHARDS: usize = 16;
/// Texts a shard keeps; the longest unused half goes when there are more.
const MAX_TEXTS: usize = 128;
/// Plans one text keeps for different values of the literals that stay.
const MAX_VARIANTS: usize = 8;

/// A plan, and the values of its parameters.
type Bound = (Arc<Prepared>, Vec<Datum>);

/// Plans of all sessions. Locks are leaves: nothing is waited for, and no other lock taken, while one is held.
pub struct PlanCache {
    shards: [Mutex<FxHashMap<Key, Arc<Text>>>; SHARDS],
    clock: AtomicU64,
}

impl std::fmt::Debug for PlanCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanCache").finish_non_exhaustive()
    }
}

impl Default for PlanCache {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), clock: AtomicU64::new(0) }
    }
}

/// What parsing and binding depend on, and the text without its literals.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    context: Arc<str>,
    text: Box<str>,
}

/// One text.
struct Text {
    used: AtomicU64,
    state: Mutex<State>,
}

enum State {
    /// Seen once.
    Seen,
    /// No plan can be kept, as long as the catalogs are as they were in this version.
    Never(Option<u64>),
    /// Known: which literals stay in the key, and the plans by their values.
    Known(Arc<[bool]>, FxHashMap<Box<str>, Plan>),
}

#[derive(Clone)]
struct Plan {
    prepared: Arc<Prepared>,
    /// For each parameter: its literal, and whether the sign before that belongs to it.
    params: Arc<[(usize, bool)]>,
}

/// A literal of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Literal<'t> {
    /// A whole number that fits `int4`.
    Int4(i32),
    /// One that does not, but fits `int8`.
    Int8(i64),
    /// The inside of a plain string, quotes still doubled.
    Text(&'t str),
}

/// A text without its literals.
struct Lifted<'t> {
    text: String,
    literals: Vec<(Literal<'t>, usize, &'t str)>,
}

/// What the cache says about a text.
pub enum Lookup {
    /// Run this.
    Hit(Arc<Prepared>, Vec<Datum>),
    /// Unknown, but seen before: parse it and [`PlanCache::learn`] or [`PlanCache::keep`] it.
    Learn,
    /// Nothing.
    Miss,
}

impl PlanCache {
    /// Looks a query text up. `context` names the settings and the role it runs under.
    pub fn look_up(&self, session: &SessionContext, context: &Arc<str>, text: &str) -> Lookup {
        match lift(text) {
            Some(lifted) => self.find(session, context, &lifted),
            None => Lookup::Miss,
        }
    }

    /// Looks a text with parameters up, as Parse of the extended protocol brings it. What [`Lookup::Learn`] asks for is [`Self::keep`].
    pub fn look_up_parsed(&self, session: &SessionContext, context: &Arc<str>, text: &str, types: &[Oid]) -> Lookup {
        match with_types(text, types) {
            Some(whole) => self.find(session, context, &whole),
            None => Lookup::Miss,
        }
    }

    /// Keeps the plan of a text with parameters.
    pub fn keep(&self, session: &SessionContext, context: &Arc<str>, text: &str, types: &[Oid], prepared: &Arc<Prepared>) {
        let Some(whole) = with_types(text, types) else { return };
        let key = Key { context: context.clone(), text: whole.text.into() };
        let Some(entry) = self.shard(&key).lock().get(&key).cloned() else { return };
        *entry.state.lock() = if worth_keeping(prepared) {
            let plan = Plan { prepared: prepared.clone(), params: Arc::new([]) };
            State::Known(Arc::new([]), std::iter::once((Box::default(), plan)).collect())
        } else {
            State::Never(session.catalog.version())
        };
    }

    fn find(&self, session: &SessionContext, context: &Arc<str>, lifted: &Lifted<'_>) -> Lookup {
        let version = session.catalog.version();
        if version.is_none() {
            return Lookup::Miss;
        }
        let key = Key { context: context.clone(), text: lifted.text.as_str().into() };
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let entry = {
            let mut shard = self.shard(&key).lock();
            match shard.get(&key) {
                Some(entry) => entry.clone(),
                None => {
                    if shard.len() >= MAX_TEXTS {
                        shed(&mut shard);
                    }
                    shard.insert(key, Arc::new(Text { used: AtomicU64::new(now), state: Mutex::new(State::Seen) }));
                    return Lookup::Miss;
                }
            }
        };
        entry.used.store(now, Ordering::Relaxed);
        let plan = match &*entry.state.lock() {
            State::Seen => return Lookup::Learn,
            State::Never(then) if *then == version => return Lookup::Miss,
            State::Never(_) => return Lookup::Learn,
            State::Known(stay, plans) => match plans.get(&*fixed(lifted, stay)) {
                Some(plan) => plan.clone(),
                None => return Lookup::Learn,
            },
        };
        if !matches!(&plan.prepared.body, Body::Plan(cell) if cell.is_current(session)) {
            return Lookup::Learn;
        }
        match values(session, &plan, lifted) {
            Some(values) => Lookup::Hit(plan.prepared, values),
            None => Lookup::Miss,
        }
    }

    /// Makes the plan of a text that [`Self::look_up`] wants to know, from its one statement. `None`: run the statement as it is.
    ///
    /// # Errors
    /// A table's lock cannot be had; what is wrong with the statement itself is said when it is run.
    pub fn learn(
        &self,
        session: &mut SessionContext,
        context: &Arc<str>,
        text: &str,
        statement: &RawStmt,
    ) -> Result<Option<Bound>, SqlError> {
        let Some(lifted) = lift(text) else { return Ok(None) };
        let key = Key { context: context.clone(), text: lifted.text.as_str().into() };
        let Some(entry) = self.shard(&key).lock().get(&key).cloned() else { return Ok(None) };
        let Some((plan, stay)) = generalise(session, statement, &lifted)? else {
            *entry.state.lock() = State::Never(session.catalog.version());
            return Ok(None);
        };
        let Some(values) = values(session, &plan, &lifted) else { return Ok(None) };
        let by = fixed(&lifted, &stay);
        match &mut *entry.state.lock() {
            State::Known(known, plans) if **known == *stay => {
                if plans.len() >= MAX_VARIANTS {
                    plans.clear();
                }
                plans.insert(by, plan.clone());
            }
            other @ State::Seen | other @ State::Never(_) | other @ State::Known(..) => {
                *other = State::Known(stay, std::iter::once((by, plan.clone())).collect())
            }
        }
        Ok(Some((plan.prepared, values)))
    }

    fn shard(&self, key: &Key) -> &Mutex<FxHashMap<Key, Arc<Text>>> {
        let mut hasher = FxHasher::default();
        key.text.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() >> 48).unwrap_or(0) % SHARDS;
        self.shards.get(at).unwrap_or(&self.shards[0])
    }
}

/// Drops the half that was not used for longest.
fn shed(shard: &mut FxHashMap<Key, Arc<Text>>) {
    let mut used: Vec<u64> = shard.values().map(|t| t.used.load(Ordering::Relaxed)).collect();
    let middle = used.len() / 2;
    let (_, median, _) = used.select_nth_unstable(middle);
    let median = *median;
    shard.retain(|_, t| t.used.load(Ordering::Relaxed) > median);
}

/// The literals that stay in the key, as text.
fn fixed(lifted: &Lifted<'_>, stay: &[bool]) -> Box<str> {
    let mut out = String::new();
    for ((_, _, source), stays) in lifted.literals.iter().zip(stay) {
        if *stays {
            out.push_str(source);
            out.push('\0');
        }
    }
    out.into()
}

/// The plan's parameters from a text's literals; `None` when one does not fit.
fn values(session: &SessionContext, plan: &Plan, lifted: &Lifted<'_>) -> Option<Vec<Datum>> {
    let mut out = Vec::with_capacity(plan.params.len());
    for ((literal, negative), ty) in plan.params.iter().zip(&plan.prepared.param_types) {
        let (literal, ..) = lifted.literals.get(*literal)?;
        out.push(match (literal, *ty) {
            (Literal::Int4(v), oids::INT4) => Datum::Int4(if *negative { -v } else { *v }),
            (Literal::Int8(v), oids::INT8) => Datum::Int8(if *negative { -v } else { *v }),
            (Literal::Text(s), ty) => {
                let text = if s.contains('\'') { std::borrow::Cow::Owned(s.replace("''", "'")) } else { std::borrow::Cow::Borrowed(*s) };
                types::text_in(ty, -1, &text, session.io()).ok()?
            }
            (Literal::Int4(_) | Literal::Int8(_), _) => return None,
        });
    }
    Some(out)
}

/// Takes the literals out of a text; `None` for a text the cache has nothing to do with.
fn lift(text: &str) -> Option<Lifted<'_>> {
    let bytes = text.as_bytes();
    let verb = bytes.iter().find(|b| !b.is_ascii_whitespace())?.to_ascii_lowercase();
    // SELECT, INSERT, UPDATE, DELETE, WITH, VALUES.
    if text.len() > MAX_TEXT || !matches!(verb, b's' | b'i' | b'u' | b'd' | b'w' | b'v') {
        return None;
    }
    let mut out = Lifted { text: String::with_capacity(text.len()), literals: Vec::new() };
    let mut done = 0usize;
    let mut i = 0usize;
    while let Some(&b) = bytes.get(i) {
        match b {
            b'\'' => {
                let mut end = i + 1;
                loop {
                    match (bytes.get(end)?, bytes.get(end + 1)) {
                        (b'\'', Some(b'\'')) => end += 2,
                        (b'\'', _) => break,
                        _ => end += 1,
                    }
                }
                out.text.push_str(text.get(done..i)?);
                out.text.push_str("'?");
                out.literals.push((Literal::Text(text.get(i + 1..end)?), i, text.get(i..=end)?));
                i = end + 1;
                done = i;
            }
            b'"' => {
                i += 1 + text.get(i + 1..)?.find('"')? + 1;
            }
            b'0'..=b'9' => {
                let mut end = i;
                while bytes.get(end).is_some_and(u8::is_ascii_digit) {
                    end += 1;
                }
                let digits = text.get(i..end)?;
                let followed = bytes.get(end).is_some_and(|c| matches!(c, b'.' | b'_') || c.is_ascii_alphabetic() || *c >= 0x80);
                let value = digits.parse::<i64>().ok();
                let literal = match value {
                    // The sign decides which type these have.
                    Some(2_147_483_648) | None => None,
                    Some(v) => Some(i32::try_from(v).map_or(Literal::Int8(v), Literal::Int4)),
                };
                match literal.filter(|_| !followed) {
                    Some(literal) => {
                        out.text.push_str(text.get(done..i)?);
                        out.text.push_str(if matches!(literal, Literal::Int4(_)) { "?i" } else { "?j" });
                        out.literals.push((literal, i, digits));
                        i = end;
                        done = i;
                    }
                    None => {
                        while bytes.get(end).is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_') || *c >= 0x80) {
                            end += 1;
                        }
                        i = end;
                    }
                }
            }
            b'$' | b'?' | b'\\' => return None,
            b'-' if bytes.get(i + 1) == Some(&b'-') => return None,
            b'/' if bytes.get(i + 1) == Some(&b'*') => return None,
            b';' => {
                if bytes.get(i + 1..)?.iter().any(|c| !c.is_ascii_whitespace()) {
                    return None;
                }
                i += 1;
            }
            b'.' if bytes.get(i + 1).is_some_and(u8::is_ascii_digit) => {
                i += 1;
                while bytes.get(i).is_some_and(|c| c.is_ascii_alphanumeric()) {
                    i += 1;
                }
            }
            c if c.is_ascii_alphabetic() || c == b'_' || c >= 0x80 => {
                let start = i;
                while bytes.get(i).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_' || *c == b'$' || *c >= 0x80) {
                    i += 1;
                }
                // E'', B'', X'', N'', U&''.
                if bytes.get(i) == Some(&b'\'') && i == start + 1 {
                    return None;
                }
                if bytes.get(i) == Some(&b'&') && i == start + 1 {
                    return None;
                }
            }
            _ => i += 1,
        }
    }
    out.text.push_str(text.get(done..)?);
    (out.literals.len() <= MAX_LITERALS).then_some(out)
}

/// A text whole, after the types that its client declared; `None` for a text the cache has nothing to do with.
fn with_types<'t>(text: &'t str, types: &[Oid]) -> Option<Lifted<'t>> {
    if text.len() > MAX_TEXT || (text.contains('\'') && timely(text)) {
        return None;
    }
    let mut whole = String::with_capacity(text.len() + 8 * types.len() + 1);
    for oid in types {
        write!(whole, "{oid},").ok()?;
    }
    // No text of `lift` begins so.
    whole.push('\0');
    whole.push_str(text);
    Some(Lifted { text: whole, literals: Vec::new() })
}

/// Literals that mean the time at which the statement is bound.
fn timely(text: &str) -> bool {
    ["now", "today", "tomorrow", "yesterday"].iter().any(|w| contains_ignoring_case(text, w))
}

fn contains_ignoring_case(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|w| w.eq_ignore_ascii_case(word.as_bytes()))
}

/// A statement's plan, and which of the text's literals stay in the key.
type General = (Plan, Arc<[bool]>);

/// The statement's plan with the literals that may vary as parameters, and which literals stay.
fn generalise(session: &mut SessionContext, statement: &RawStmt, lifted: &Lifted<'_>) -> Result<Option<General>, SqlError> {
    if !matches!(statement.kind(), StmtKind::Select | StmtKind::Modify) {
        return Ok(None);
    }
    let mut node = (*statement.node).clone();
    let mut moved = Moved { lifted, params: Vec::new(), types: Vec::new() };
    moved.statement(&mut node);
    let Moved { mut params, types, .. } = moved;
    let mut general = None;
    if !params.is_empty() {
        general = prepared(session, statement.with_node(node), &types)?.filter(|p| !has_partial_index(session, p));
    }
    let prepared = match general {
        Some(general) => general,
        // There are none, or the values matter to the plan, or to whether the statement is right at all.
        None => {
            params.clear();
            let Some(plain) = prepared(session, statement.clone(), &[])? else { return Ok(None) };
            plain
        }
    };
    let mut stay = vec![true; lifted.literals.len()];
    for (literal, _) in &params {
        if let Some(s) = stay.get_mut(*literal) {
            *s = false;
        }
    }
    if lifted.literals.iter().zip(&stay).any(|((_, _, source), stays)| *stays && timely(source)) {
        return Ok(None);
    }
    Ok(Some((Plan { prepared, params: params.into() }, stay.into())))
}

/// The statement prepared, if it can be and the plan may be kept.
fn prepared(session: &mut SessionContext, statement: RawStmt, types: &[Oid]) -> Result<Option<Arc<Prepared>>, SqlError> {
    match super::prepare(session, statement, types) {
        Ok(prepared) => Ok(Some(prepared).filter(worth_keeping)),
        // A wait for a lock ended so: nothing to do with the statement, and not to be tried again.
        Err(e) if e.fields().reach != Reach::Statement => Err(e),
        Err(e) if matches!(e.state(), SqlState::LOCK_NOT_AVAILABLE | SqlState::DEADLOCK_DETECTED | SqlState::QUERY_CANCELED) => Err(e),
        Err(_) => Ok(None),
    }
}

/// Only plans that outlive their statement.
fn worth_keeping(prepared: &Arc<Prepared>) -> bool {
    matches!(&prepared.body, Body::Plan(cell) if cell.is_lasting())
}

/// Does the plan read a relation with a partial index, whose use the values decide?
fn has_partial_index(session: &mut SessionContext, prepared: &Prepared) -> bool {
    let Body::Plan(cell) = &prepared.body else { return true };
    cell.plan()
        .relations
        .iter()
        .filter(|(oid, _)| *oid >= FIRST_NORMAL_OID)
        .any(|(oid, _)| session.catalog.relation(*oid).ok().flatten().is_none_or(|r| r.indexes.iter().any(|i| i.predicate.is_some())))
}

/// Turns literals into parameters.
struct Moved<'l, 't> {
    lifted: &'l Lifted<'t>,
    params: Vec<(usize, bool)>,
    types: Vec<Oid>,
}

impl Moved<'_, '_> {
    /// The places where a literal's value matters to nothing but the rows: comparisons with a column in WHERE, rows of INSERT, what UPDATE
    /// assigns or adds to a column.
    fn statement(&mut self, node: &mut NodeEnum) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "other statements keep their literals")]
        match node {
            NodeEnum::SelectStmt(s) => self.condition(&mut s.where_clause),
            NodeEnum::UpdateStmt(s) => {
                self.condition(&mut s.where_clause);
                for target in &mut s.target_list {
                    if let Some(NodeEnum::ResTarget(t)) = &mut target.node
                        && let Some(value) = &mut t.val
                    {
                        self.assigned(value);
                    }
                }
            }
            NodeEnum::DeleteStmt(s) => self.condition(&mut s.where_clause),
            NodeEnum::InsertStmt(s) => {
                if s.on_conflict_clause.is_some() {
                    return;
                }
                if let Some(NodeEnum::SelectStmt(select)) = s.select_stmt.as_mut().and_then(|n| n.node.as_mut()) {
                    for list in &mut select.values_lists {
                        if let Some(NodeEnum::List(list)) = &mut list.node {
                            list.items.iter_mut().for_each(|item| self.literal(item));
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn condition(&mut self, node: &mut Option<Box<Node>>) {
        if let Some(node) = node {
            self.test(node);
        }
    }

    fn test(&mut self, node: &mut Node) {
        match &mut node.node {
            Some(NodeEnum::BoolExpr(b)) if BoolExprType::try_from(b.boolop) == Ok(BoolExprType::AndExpr) => {
                b.args.iter_mut().for_each(|a| self.test(a));
            }
            Some(NodeEnum::AExpr(e)) => {
                let kind = AExprKind::try_from(e.kind);
                let comparison = matches!(kind, Ok(AExprKind::AexprOp)) && is_operator(&e.name, &["=", "<", ">", "<=", ">=", "<>"]);
                let between = matches!(kind, Ok(AExprKind::AexprBetween));
                let column = |n: &Option<Box<Node>>| matches!(n.as_ref().and_then(|n| n.node.as_ref()), Some(NodeEnum::ColumnRef(_)));
                if comparison {
                    match (column(&e.lexpr), column(&e.rexpr)) {
                        (true, false) => e.rexpr.iter_mut().for_each(|n| self.literal(n)),
                        (false, true) => e.lexpr.iter_mut().for_each(|n| self.literal(n)),
                        _ => {}
                    }
                } else if between
                    && column(&e.lexpr)
                    && let Some(NodeEnum::List(l)) = e.rexpr.as_mut().and_then(|n| n.node.as_mut())
                {
                    l.items.iter_mut().for_each(|n| self.literal(n));
                }
            }
            _ => {}
        }
    }

    /// `value`, `column + value`, `column - value`.
    fn assigned(&mut self, node: &mut Node) {
        match &mut node.node {
            Some(NodeEnum::AExpr(e))
                if AExprKind::try_from(e.kind) == Ok(AExprKind::AexprOp)
                    && is_operator(&e.name, &["+", "-"])
                    && matches!(e.lexpr.as_ref().and_then(|n| n.node.as_ref()), Some(NodeEnum::ColumnRef(_))) =>
            {
                // A string beside an operator gets its type from there, and that is not always the column's.
                if let Some(n) = &mut e.rexpr
                    && matches!(&n.node, Some(NodeEnum::AConst(c)) if matches!(c.val, Some(a_const::Val::Ival(_))))
                {
                    self.literal(n);
                }
            }
            _ => self.literal(node),
        }
    }

    fn literal(&mut self, node: &mut Node) {
        let Some(NodeEnum::AConst(c)) = &node.node else { return };
        if c.isnull {
            return;
        }
        let at = c.location;
        // A zero is left out of the message.
        let number = match &c.val {
            Some(a_const::Val::Ival(n)) => Some(n.ival),
            None => Some(0),
            Some(_) => None,
        };
        let found = self.lifted.literals.iter().enumerate().find_map(|(i, (literal, start, _))| {
            let start = i32::try_from(*start).ok()?;
            match (literal, &c.val) {
                (Literal::Text(_), Some(a_const::Val::Sval(_))) if start == at => Some((i, false)),
                (Literal::Int4(v), _) if start == at && number == Some(*v) => Some((i, false)),
                (Literal::Int4(v), _) if start > at && number.is_some_and(|n| n < 0 && -n == *v) => Some((i, true)),
                (Literal::Int8(v), Some(a_const::Val::Fval(f))) if start == at && f.fval.parse() == Ok(*v) => Some((i, false)),
                _ => None,
            }
        });
        // Of equal negative numbers the first that is not taken yet, and none further off than its sign.
        let Some((literal, negative)) = found.filter(|(i, negative)| {
            !self.params.iter().any(|p| p.0 == *i)
                && (!negative || self.lifted.literals.get(*i).is_some_and(|l| i32::try_from(l.1).is_ok_and(|s| s - at <= 2)))
        }) else {
            return;
        };
        let ty = match self.lifted.literals.get(literal) {
            Some((Literal::Int4(_), ..)) => oids::INT4,
            Some((Literal::Int8(_), ..)) => oids::INT8,
            Some((Literal::Text(_), ..)) => 0,
            None => return,
        };
        self.params.push((literal, negative));
        self.types.push(ty);
        let number = i32::try_from(self.params.len()).unwrap_or(i32::MAX);
        let location = c.location;
        node.node = Some(NodeEnum::ParamRef(protobuf::ParamRef { number, location }));
    }
}

fn is_operator(name: &[Node], of: &[&str]) -> bool {
    matches!(name, [Node { node: Some(NodeEnum::String(s)) }] if of.contains(&s.sval.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{Literal, lift};

    fn lifted(text: &str) -> Option<(String, Vec<String>)> {
        lift(text).map(|l| (l.text, l.literals.iter().map(|(_, _, source)| (*source).to_owned()).collect()))
    }

    #[test]
    fn literals_leave_the_text() {
        let (text, literals) = lifted("select a from t where b = 12 and c = 'it''s' and d < 3000000000;").unwrap();
        assert_eq!(text, "select a from t where b = ?i and c = '? and d < ?j;");
        assert_eq!(literals, ["12", "'it''s'", "3000000000"]);
        let l = lift("select -5, a1, t2.b3, 1.5, .5, 1e3, 0").unwrap();
        assert_eq!(l.text, "select -?i, a1, t2.b3, 1.5, .5, 1e3, ?i");
        assert_eq!(l.literals[0].0, Literal::Int4(5));
    }

    #[test]
    fn what_is_not_plain_is_left_alone() {
        for text in [
            "select $1",
            "select E'a'",
            "select x'ff'",
            "select U&'a'",
            "select $$a$$",
            "select 1; select 2",
            "select 1 -- one",
            "select /* 1 */ 1",
            "select 'unterminated",
            "begin",
            "",
        ] {
            assert!(lifted(text).is_none(), "{text}");
        }
        // Numbers whose type the sign decides stay.
        assert_eq!(lifted("select 2147483648, \"a'1\"").unwrap().1, Vec::<String>::new());
    }
}
