//! Aggregation: one group, sorted groups, or a hash table of groups.

use std::sync::Arc;

use hashbrown::HashTable;

use super::eval::{Exec, Row};
use super::hash::{hash_values, row_bytes, same_rows, same_value};
use super::node::Node;
use super::plan::{AggCall, AggStrategy, Aggregate, PlanNode, PlanOp, SortColumn};
use super::sort::{Sorted, Sorter};
use super::spill::Aside;
use crate::sql::functions::{Accumulator, Call};
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

fn wrong_plan() -> SqlError {
    SqlError::internal("a node got another node's plan")
}

/// One aggregate's state in one group.
enum AggState {
    /// Takes rows as they come.
    Direct(Box<dyn Accumulator>),
    /// DISTINCT or ORDER BY: arguments are gathered and sorted first.
    Gathered(Sorter, Count),
    /// As that, but of many groups at a time: the arguments of all are sorted together ([`Together`]).
    Shared(Count),
}

/// Rows gathered for an aggregate, those whose last argument is not NULL.
type Count = u64;

/// What calls with DISTINCT or ORDER BY gather for many groups: by call, each row with its group's number at the end, sorted by that first.
/// A sorter for each group would take `work_mem` for each.
struct Together(Vec<Option<Sorter>>);

impl Together {
    fn new(x: &Exec<'_>, a: &Aggregate) -> Self {
        let sorter = |call: &AggCall| {
            let group = SortColumn { column: call.args.len(), desc: false, nulls_first: false };
            Sorter::new(x, std::iter::once(group).chain(order_of(call).iter().copied()).collect())
        };
        Self(a.calls.iter().map(|c| is_gathered(c).then(|| sorter(c))).collect())
    }

    fn finish(self, x: &Exec<'_>) -> Result<Vec<Option<Grouped>>, SqlError> {
        let sorters = self.0.into_iter();
        sorters.map(|s| s.map(|s| Ok(Grouped { rows: s.finish(x)?, ahead: None })).transpose()).collect()
    }
}

/// The sorted arguments of many groups, to be asked for in the order of the groups' numbers.
struct Grouped {
    rows: Sorted,
    ahead: Option<Row>,
}

impl Grouped {
    fn next(&mut self, group: i64) -> Result<Option<Row>, SqlError> {
        let row = match self.ahead.take() {
            Some(row) => Some(row),
            None => self.rows.next()?,
        };
        if let Some(row) = &row
            && !matches!(row.last(), Some(Datum::Int8(n)) if *n == group)
        {
            self.ahead = Some(row.clone());
            return Ok(None);
        }
        Ok(row)
    }
}

struct Group {
    keys: Row,
    states: Vec<AggState>,
    set: usize,
    /// Rises in the order the groups are given out.
    number: i64,
}

impl Group {
    /// Of many: number `at` of a grouping set.
    fn one_of_many(a: &Aggregate, keys: Row, set: usize, at: usize) -> Self {
        let states = a.calls.iter().map(|c| if is_gathered(c) { AggState::Shared(0) } else { AggState::Direct((c.new)(&c.types)) });
        // There are at most 4096 sets.
        let number = i64::try_from(set << 48 | at).unwrap_or(i64::MAX);
        Self { keys, states: states.collect(), set, number }
    }

    /// The only one at this time.
    fn alone(x: &Exec<'_>, a: &Aggregate, keys: Row) -> Self {
        let state = |c: &AggCall| match is_gathered(c) {
            true => AggState::Gathered(Sorter::new(x, order_of(c)), 0),
            false => AggState::Direct((c.new)(&c.types)),
        };
        Self { keys, states: a.calls.iter().map(state).collect(), set: 0, number: 0 }
    }
}

fn is_gathered(call: &AggCall) -> bool {
    call.distinct || !call.order.is_empty()
}

/// The order in which an aggregate takes its arguments.
fn order_of(call: &AggCall) -> Arc<[SortColumn]> {
    let mut order: Vec<SortColumn> = call.order.to_vec();
    if call.distinct {
        for column in 0..call.arg_count {
            if !order.iter().any(|o| o.column == column) {
                order.push(SortColumn { column, desc: false, nulls_first: false });
            }
        }
    }
    order.into()
}

/// Takes a row into a group; the bytes of memory that took.
fn accumulate(
    x: &mut Exec<'_>,
    a: &Aggregate,
    group: &mut Group,
    row: &[Datum],
    args: &mut Vec<Datum>,
    mut together: Option<&mut Together>,
) -> Result<usize, SqlError> {
    let mut grown = 0;
    for (at, (call, state)) in a.calls.iter().zip(&mut group.states).enumerate() {
        if let Some(f) = &call.filter
            && !f.holds(x, row)?
        {
            continue;
        }
        args.clear();
        for arg in &call.args {
            let v = arg.eval(x, row)?;
            args.push(v);
        }
        let counts =
            |args: &[Datum]| Count::from(call.arg_count.checked_sub(1).and_then(|last| args.get(last)).is_some_and(|v| !v.is_null()));
        match state {
            AggState::Direct(acc) => {
                let before = acc.heap_bytes();
                acc.add(&mut Call { ctx: x.session, types: &call.types }, args)?;
                grown += acc.heap_bytes().saturating_sub(before);
            }
            AggState::Gathered(sorter, count) => {
                *count += counts(args);
                sorter.push(x, args.clone())?;
            }
            AggState::Shared(count) => {
                *count += counts(args);
                let mut row = args.clone();
                row.push(Datum::Int8(group.number));
                match together.as_mut().and_then(|t| t.0.get_mut(at)) {
                    Some(Some(sorter)) => sorter.push(x, row)?,
                    _ => return Err(wrong_plan()),
                }
            }
        }
    }
    Ok(grown)
}

/// The result of a call whose arguments were gathered.
fn finish_gathered(
    x: &mut Exec<'_>,
    call: &AggCall,
    count: Count,
    mut next: impl FnMut() -> Result<Option<Row>, SqlError>,
) -> Result<Datum, SqlError> {
    let mut acc = (call.new)(&call.types);
    acc.expect(count);
    let mut last: Option<Row> = None;
    let mut at = 0u32;
    while let Some(mut row) = next()? {
        at = at.wrapping_add(1);
        if at & 1023 == 0 {
            x.session.check_cancel()?;
        }
        row.truncate(call.arg_count);
        if call.distinct && last.as_ref().is_some_and(|l| same_rows(l, &row)) {
            continue;
        }
        acc.add(&mut Call { ctx: x.session, types: &call.types }, &row)?;
        last = call.distinct.then_some(row);
    }
    acc.finish(&mut Call { ctx: x.session, types: &call.types })
}

/// Aggregation.
pub(super) struct AggregateNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    row: Row,
    args: Vec<Datum>,
    groups: Option<std::vec::IntoIter<Group>>,
    /// By call, of these groups.
    gathered: Vec<Option<Grouped>>,
    /// Sorted input: the group at hand, and whether the input is used up.
    current: Option<Group>,
    done: bool,
    aside: Aside,
}

impl AggregateNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self {
            plan,
            child,
            row: Row::new(),
            args: Vec::new(),
            groups: None,
            gathered: Vec::new(),
            current: None,
            done: false,
            aside: Aside::default(),
        }
    }

    /// Reads the input, or the next of its parts that were set aside, into groups. Once they fill the memory, rows of other groups are set
    /// aside by hash and read again after these groups are done with.
    ///
    /// PostgreSQL: nodeAgg.c, "Spilling To Disk".
    fn hash(&mut self, x: &mut Exec<'_>, a: &Aggregate) -> Result<Vec<Group>, SqlError> {
        let memory = super::hash::memory(x);
        let mut groups: Vec<Group> = Vec::new();
        let mut table: HashTable<usize> = HashTable::new();
        let mut keys = Row::new();
        let mut count = 0u32;
        let mut bytes = 0usize;
        let one = [vec![true; a.keys.len()]];
        let sets: &[Vec<bool>] = a.sets.as_deref().unwrap_or(&one);
        let mut any = false;
        let mut masked = Row::new();
        let again = self.aside.reading();
        let mut together = Together::new(x, a);
        loop {
            // A row set aside ends with the number of the grouping set it is for.
            let mut only = None;
            if again {
                match self.aside.next_row()? {
                    Some(mut row) => {
                        only = match row.pop() {
                            Some(Datum::Int4(n)) => usize::try_from(n).ok(),
                            _ => return Err(wrong_plan()),
                        };
                        self.row = row;
                    }
                    None => break,
                }
            } else if !self.child.next(x, &mut self.row)? {
                break;
            }
            any = true;
            count = count.wrapping_add(1);
            if count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            keys.clear();
            for k in &a.keys {
                let v = k.eval(x, &self.row)?;
                keys.push(v);
            }
            for (number, set) in sets.iter().enumerate().filter(|(n, _)| only.is_none_or(|o| o == *n)) {
                masked.clear();
                masked.extend(keys.iter().zip(set).map(|(v, used)| if *used { v.clone() } else { Datum::Null }));
                let hash = hash_values(masked.iter()) ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let found = table.find(hash, |g| groups.get(*g).is_some_and(|g| g.set == number && same_rows(&g.keys, &masked))).copied();
                let at = match found {
                    Some(at) => at,
                    None if bytes > memory && groups.len() > sets.len() && self.aside.can_split() => {
                        let mut row = self.row.clone();
                        row.push(Datum::Int4(i32::try_from(number).unwrap_or(0)));
                        self.aside.push(x, hash, &row, memory)?;
                        continue;
                    }
                    None => {
                        let at = groups.len();
                        bytes += row_bytes(&masked) + 48 + 80 * a.calls.len();
                        groups.push(Group::one_of_many(a, masked.clone(), number, at));
                        table.insert_unique(hash, at, |g| {
                            groups.get(*g).map_or(0, |g| hash_values(g.keys.iter()) ^ (g.set as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
                        });
                        at
                    }
                };
                if let Some(g) = groups.get_mut(at) {
                    bytes += accumulate(x, a, g, &self.row, &mut self.args, Some(&mut together))?;
                }
            }
        }
        if !any && !again {
            // An empty grouping set has a row even so.
            for (number, set) in sets.iter().enumerate() {
                if a.sets.is_some() && set.iter().all(|u| !u) {
                    groups.push(Group::one_of_many(a, vec![Datum::Null; a.keys.len()], number, 0));
                }
            }
        }
        if a.sets.is_some() {
            groups.sort_by_key(|g| g.set);
        }
        self.aside.note(x, self.plan.id, bytes);
        self.gathered = together.finish(x)?;
        Ok(groups)
    }

    /// The next finished group of sorted input.
    fn next_sorted(&mut self, x: &mut Exec<'_>, a: &Aggregate) -> Result<Option<Group>, SqlError> {
        if self.done {
            return Ok(self.current.take());
        }
        loop {
            if !self.child.next(x, &mut self.row)? {
                self.done = true;
                return Ok(self.current.take());
            }
            let keys = a.keys.iter().map(|k| k.eval(x, &self.row)).collect::<Result<Row, _>>()?;
            let same = self.current.as_ref().is_some_and(|g| g.keys.iter().zip(&keys).all(|(a, b)| same_value(a, b)));
            let finished = if same {
                None
            } else {
                let group = Group::alone(x, a, keys);
                self.current.replace(group)
            };
            if let Some(g) = &mut self.current {
                accumulate(x, a, g, &self.row, &mut self.args, None)?;
            }
            if finished.is_some() {
                return Ok(finished);
            }
        }
    }

    fn emit(&mut self, x: &mut Exec<'_>, a: &Aggregate, group: Group, out: &mut Row) -> Result<bool, SqlError> {
        out.clear();
        out.extend(group.keys);
        for (at, (call, state)) in a.calls.iter().zip(group.states).enumerate() {
            out.push(match state {
                AggState::Direct(acc) => acc.finish(&mut Call { ctx: x.session, types: &call.types })?,
                AggState::Gathered(sorter, count) => {
                    let mut rows = sorter.finish(x)?;
                    finish_gathered(x, call, count, || rows.next())?
                }
                AggState::Shared(count) => {
                    let rows = self.gathered.get_mut(at).and_then(Option::as_mut).ok_or_else(wrong_plan)?;
                    finish_gathered(x, call, count, || rows.next(group.number))?
                }
            });
        }
        if a.sets.is_some() {
            out.push(Datum::Int4(i32::try_from(group.set).unwrap_or(0)));
        }
        match &a.having {
            Some(h) => h.holds(x, out),
            None => Ok(true),
        }
    }
}

impl Node for AggregateNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::Aggregate(a) = &plan.op else { return Err(wrong_plan()) };
        match a.strategy {
            AggStrategy::Plain => {
                if self.done {
                    return Ok(false);
                }
                self.done = true;
                let mut group = Group::alone(x, a, Row::new());
                let mut count = 0u32;
                while self.child.next(x, &mut self.row)? {
                    count = count.wrapping_add(1);
                    if count & 1023 == 0 {
                        x.session.check_cancel()?;
                    }
                    accumulate(x, a, &mut group, &self.row, &mut self.args, None)?;
                }
                self.emit(x, a, group, out)
            }
            AggStrategy::Hashed => {
                if self.groups.is_none() {
                    let groups = self.hash(x, a)?;
                    self.groups = Some(groups.into_iter());
                }
                loop {
                    let Some(group) = self.groups.as_mut().and_then(Iterator::next) else {
                        if !self.aside.open_next() {
                            return Ok(false);
                        }
                        let groups = self.hash(x, a)?;
                        self.groups = Some(groups.into_iter());
                        continue;
                    };
                    if self.emit(x, a, group, out)? {
                        return Ok(true);
                    }
                }
            }
            AggStrategy::Sorted => loop {
                let Some(group) = self.next_sorted(x, a)? else { return Ok(false) };
                if self.emit(x, a, group, out)? {
                    return Ok(true);
                }
            },
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.groups = None;
        self.aside = Aside::default();
        self.current = None;
        self.done = false;
        self.child.rescan(x)
    }
}
