//! EXPLAIN: a plan as PostgreSQL prints it.

use serde_json::{Map, Value, json};

use super::eval::{ExecState, NodeStats};
use super::plan::{NodeText, PlanNode, PlanOp, PlannedStmt, TextValue};
use super::portal::Explain;

/// A node's inputs.
pub fn children(node: &PlanNode) -> Vec<&PlanNode> {
    match &node.op {
        PlanOp::Result { .. }
        | PlanOp::SeqScan(_)
        | PlanOp::IndexScan(_)
        | PlanOp::VirtualScan(_)
        | PlanOp::TidScan(..)
        | PlanOp::Values(_)
        | PlanOp::Function(_)
        | PlanOp::WorkingScan(_)
        | PlanOp::CteScan(_) => Vec::new(),
        PlanOp::Gate(c, _)
        | PlanOp::ProjectSet(c, _)
        | PlanOp::Filter(c, _)
        | PlanOp::Project(c, _)
        | PlanOp::Materialize(c)
        | PlanOp::Sort(c, _)
        | PlanOp::Unique(c, _)
        | PlanOp::HashUnique(c)
        | PlanOp::LockRows(c, _) => vec![c],
        PlanOp::Append(list) => list.iter().map(|c| &**c).collect(),
        PlanOp::NestLoop(j) => vec![&j.left, &j.right],
        PlanOp::HashJoin(j) => vec![&j.left, &j.right],
        PlanOp::MergeJoin(j) => vec![&j.left, &j.right],
        PlanOp::Limit(l) => vec![&l.child],
        PlanOp::Aggregate(a) => vec![&a.child],
        PlanOp::Window(w) => vec![&w.child],
        PlanOp::SetOp(s) => vec![&s.left, &s.right],
        PlanOp::RecursiveUnion { left, right, .. } => vec![left, right],
        PlanOp::Modify(m) => vec![&m.child],
    }
}

/// One node to print: what PostgreSQL would show as one node.
struct Shown<'p> {
    text: NodeText,
    node: &'p PlanNode,
    /// The node whose hash table or sort is told of here.
    memory: Option<(usize, Table)>,
    children: Vec<(Option<String>, Shown<'p>)>,
}

/// What takes memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    /// A hash join's.
    Join,
    /// Of groups.
    Groups,
    /// A sort.
    Sort,
}

fn kb(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

/// Nodes that only compute or filter are part of the node below, as in PostgreSQL.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these nodes matter here")]
fn shown(node: &PlanNode) -> Shown<'_> {
    let text = node.explain.as_deref().cloned().unwrap_or_default();
    match &node.op {
        PlanOp::Project(child, _) => {
            let mut below = shown(child);
            if !text.output.is_empty() {
                below.text.output = text.output;
            }
            return below;
        }
        PlanOp::Filter(child, _) => {
            let mut below = shown(child);
            for p in text.props {
                match below.text.props.iter_mut().find(|q| q.0 == p.0) {
                    Some((_, TextValue::Text(old))) => {
                        if let TextValue::Text(new) = &p.1 {
                            *old = format!("({old} AND {new})");
                        }
                    }
                    _ => below.text.props.push(p),
                }
            }
            return below;
        }
        _ => {}
    }
    let memory = match &node.op {
        PlanOp::Aggregate(a) if a.strategy == super::plan::AggStrategy::Hashed => Some((node.id, Table::Groups)),
        PlanOp::HashUnique(_) => Some((node.id, Table::Groups)),
        PlanOp::Sort(..) => Some((node.id, Table::Sort)),
        _ => None,
    };
    let mut out = Shown { text, node, memory, children: Vec::new() };
    let handed_on =
        matches!(node.op, PlanOp::Sort(..) | PlanOp::Materialize(_) | PlanOp::Limit(_) | PlanOp::Unique(..) | PlanOp::LockRows(..));
    if let Some(index) = out.text.bitmap.take() {
        let props = out.text.props.iter().filter(|p| p.0 == "Recheck Cond").map(|p| ("Index Cond", p.1.clone())).collect();
        let text = NodeText { node_type: "Bitmap Index Scan".into(), relation: Some(index), props, ..NodeText::default() };
        out.children.push((None, Shown { text, node, memory: None, children: Vec::new() }));
    }
    for c in children(node) {
        let mut child = shown(c);
        // A hash join's build side stands under a Hash node.
        if let PlanOp::HashJoin(j) = &node.op
            && std::ptr::eq(c, &*j.right)
        {
            child = Shown {
                text: NodeText { node_type: "Hash".into(), output: child.text.output.clone(), ..NodeText::default() },
                node: c,
                memory: Some((node.id, Table::Join)),
                children: vec![(None, child)],
            };
        }
        // What hands its rows on as they are has the same output.
        if handed_on && out.text.output.is_empty() {
            out.text.output.clone_from(&child.text.output);
        }
        out.children.push((None, child));
    }
    out
}

fn ms(d: std::time::Duration) -> f64 {
    d.as_secs_f64() * 1000.0
}

fn stats_of(state: Option<&ExecState>, id: usize) -> Option<NodeStats> {
    state.and_then(|s| s.stats.as_ref()).and_then(|s| s.get(id)).copied()
}

#[expect(clippy::cast_precision_loss, reason = "printed averages")]
fn actual(s: &NodeStats, timing: bool) -> String {
    if s.loops == 0 {
        return " (never executed)".to_owned();
    }
    let loops = s.loops as f64;
    let rows = (s.rows as f64 / loops).round();
    if timing {
        format!(" (actual time={:.3}..{:.3} rows={rows:.0} loops={})", ms(s.startup) / loops, ms(s.total) / loops, s.loops)
    } else {
        format!(" (actual rows={rows:.0} loops={})", s.loops)
    }
}

fn head(s: &Shown<'_>, verbose: bool) -> String {
    let t = &s.text;
    let mut line = if t.node_type.is_empty() { "Result".to_owned() } else { t.node_type.clone() };
    if t.backward {
        line.push_str(" Backward");
    }
    if let Some(i) = &t.index {
        line.push_str(&format!(" using {i}"));
    }
    let schema = t.schema.as_deref().filter(|_| verbose).map_or_else(String::new, |s| format!("{s}."));
    match (&t.relation, &t.alias) {
        (Some(r), Some(a)) if a != r => {
            line.push_str(&format!(" on {schema}{r} {a}"));
        }
        (Some(r), _) => {
            line.push_str(&format!(" on {schema}{r}"));
        }
        (None, Some(a)) => {
            line.push_str(&format!(" on \"{a}\""));
        }
        (None, None) => {}
    }
    line
}

fn text_node(e: &Explain, state: Option<&ExecState>, s: &Shown<'_>, indent: usize, root: bool, out: &mut Vec<String>) {
    let mut line = " ".repeat(indent);
    if !root {
        line.push_str("->  ");
    }
    line.push_str(&head(s, e.verbose));
    if e.costs {
        line.push_str(&format!(
            "  (cost={:.2}..{:.2} rows={:.0} width={})",
            s.node.startup_cost, s.node.total_cost, s.node.rows, s.node.row_bytes
        ));
    }
    let stats = stats_of(state, s.node.id);
    if let Some(st) = &stats {
        line.push_str(&actual(st, e.timing));
    }
    out.push(line);
    let inner = indent + if root { 2 } else { 6 };
    let pad = " ".repeat(inner);
    if e.verbose && !s.text.output.is_empty() {
        out.push(format!("{pad}Output: {}", s.text.output.join(", ")));
    }
    if e.verbose && s.text.inner_unique == Some(true) {
        out.push(format!("{pad}Inner Unique: true"));
    }
    for (label, value) in &s.text.props {
        match value {
            TextValue::Text(v) => out.push(format!("{pad}{label}: {v}")),
            TextValue::List(v) => out.push(format!("{pad}{label}: {}", v.join(", "))),
        }
    }
    if let Some((id, table)) = s.memory
        && let Some(st) = stats_of(state, id).filter(|s| s.batches.0 > 0 || s.sort_method.is_some())
    {
        let (batches, original) = st.batches;
        out.push(match table {
            Table::Join if batches != original => {
                format!("{pad}Buckets: {}  Batches: {batches} (originally {original})  Memory Usage: {}kB", st.buckets, kb(st.memory))
            }
            Table::Join => format!("{pad}Buckets: {}  Batches: {batches}  Memory Usage: {}kB", st.buckets, kb(st.memory)),
            Table::Groups if st.disk > 0 => {
                format!("{pad}Batches: {batches}  Memory Usage: {}kB  Disk Usage: {}kB", kb(st.memory), kb(st.disk))
            }
            Table::Groups => format!("{pad}Batches: {batches}  Memory Usage: {}kB", kb(st.memory)),
            Table::Sort if st.disk > 0 => format!("{pad}Sort Method: {}  Disk: {}kB", st.sort_method.unwrap_or_default(), kb(st.disk)),
            Table::Sort => format!("{pad}Sort Method: {}  Memory: {}kB", st.sort_method.unwrap_or_default(), kb(st.memory)),
        });
    }
    if let Some(st) = stats
        && st.removed > 0
        && st.loops > 0
    {
        let label = if s.text.join_type.is_some() { "Rows Removed by Join Filter" } else { "Rows Removed by Filter" };
        out.push(format!("{pad}{label}: {}", st.removed / st.loops));
    }
    if let (PlanOp::IndexScan(scan), Some(st)) = (&s.node.op, stats)
        && scan.index_only.is_some()
        && s.text.index.is_some()
    {
        out.push(format!("{pad}Heap Fetches: {}", st.heap_fetches));
    }
    for (name, child) in &s.children {
        if let Some(name) = name {
            out.push(format!("{pad}{name}"));
            text_node(e, state, child, inner + 2, false, out);
        } else {
            text_node(e, state, child, inner, false, out);
        }
    }
}

fn whole(stmt: &PlannedStmt) -> Shown<'_> {
    let mut root = shown(&stmt.root);
    let mut extra = Vec::new();
    for cte in &stmt.ctes {
        extra.push((Some(format!("CTE {}", cte.name)), shown(&cte.plan)));
    }
    for (i, s) in stmt.subplans.iter().enumerate() {
        let word = if s.args.is_empty() && s.cacheable && !matches!(s.kind, super::plan::SubplanKind::Quantified(_)) {
            "InitPlan"
        } else {
            "SubPlan"
        };
        extra.push((Some(format!("{word} {}", i + 1)), shown(&s.plan)));
    }
    extra.append(&mut root.children);
    // Initialisation first, then the inputs, then subplans, as PostgreSQL lists them.
    let (before, after): (Vec<_>, Vec<_>) = extra.into_iter().partition(|(n, _)| n.as_ref().is_none_or(|n| !n.starts_with("SubPlan")));
    root.children = before.into_iter().chain(after).collect();
    root
}

/// The lines of EXPLAIN's text form.
pub fn text(e: &Explain, stmt: &PlannedStmt, state: Option<&ExecState>, execution: Option<std::time::Duration>) -> Vec<String> {
    let mut out = Vec::new();
    text_node(e, state, &whole(stmt), 0, true, &mut out);
    if e.summary {
        out.push(format!("Planning Time: {:.3} ms", ms(e.planning)));
        if let Some(d) = execution {
            out.push(format!("Execution Time: {:.3} ms", ms(d)));
        }
    }
    out
}

fn round(v: f64, digits: i32) -> Value {
    let scale = 10f64.powi(digits);
    json!((v * scale).round() / scale)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "printed numbers")]
fn json_node(e: &Explain, state: Option<&ExecState>, s: &Shown<'_>, relationship: Option<&str>, subplan: Option<&str>) -> Value {
    let t = &s.text;
    let mut m = Map::new();
    let (node_type, operation) = match t.node_type.as_str() {
        "Insert" | "Update" | "Delete" | "Merge" => ("ModifyTable", Some(t.node_type.as_str())),
        "HashAggregate" | "GroupAggregate" => ("Aggregate", None),
        n if n.starts_with("Nested Loop") => ("Nested Loop", None),
        n if n.starts_with("Hash") && n.ends_with("Join") => ("Hash Join", None),
        n if n.starts_with("Merge") && n.ends_with("Join") => ("Merge Join", None),
        n if n.starts_with("HashSetOp") => ("SetOp", None),
        "" => ("Result", None),
        n => (n, None),
    };
    m.insert("Node Type".into(), json!(node_type));
    if let Some(o) = operation {
        m.insert("Operation".into(), json!(o));
    }
    if let Some(w) = t.strategy {
        m.insert("Strategy".into(), json!(w));
        if node_type == "Aggregate" {
            m.insert("Partial Mode".into(), json!("Simple"));
        }
    }
    if let Some(r) = relationship {
        m.insert("Parent Relationship".into(), json!(r));
    }
    if let Some(n) = subplan {
        m.insert("Subplan Name".into(), json!(n));
    }
    m.insert("Parallel Aware".into(), json!(false));
    m.insert("Async Capable".into(), json!(false));
    if t.index.is_some() {
        m.insert("Scan Direction".into(), json!(if t.backward { "Backward" } else { "Forward" }));
    }
    if let Some(i) = &t.index {
        m.insert("Index Name".into(), json!(i));
    }
    if let Some(j) = t.join_type {
        m.insert("Join Type".into(), json!(j));
    }
    if let Some(r) = &t.relation {
        let label = match node_type {
            "Bitmap Index Scan" => "Index Name",
            "CTE Scan" | "WorkTable Scan" => "CTE Name",
            "Function Scan" => "Function Name",
            _ => "Relation Name",
        };
        m.insert(label.into(), json!(r));
        if e.verbose
            && let Some(s) = &t.schema
        {
            m.insert("Schema".into(), json!(s));
        }
    }
    if let Some(a) = &t.alias {
        m.insert("Alias".into(), json!(a));
    }
    if e.costs {
        m.insert("Startup Cost".into(), round(s.node.startup_cost, 2));
        m.insert("Total Cost".into(), round(s.node.total_cost, 2));
        m.insert("Plan Rows".into(), json!(s.node.rows as i64));
        m.insert("Plan Width".into(), json!(s.node.row_bytes));
    }
    if let Some(st) = stats_of(state, s.node.id) {
        let loops = st.loops.max(1) as f64;
        if e.timing {
            m.insert("Actual Startup Time".into(), round(ms(st.startup) / loops, 3));
            m.insert("Actual Total Time".into(), round(ms(st.total) / loops, 3));
        }
        m.insert("Actual Rows".into(), json!((st.rows as f64 / loops).round() as i64));
        m.insert("Actual Loops".into(), json!(st.loops));
    }
    if e.verbose && !t.output.is_empty() {
        m.insert("Output".into(), json!(t.output));
    }
    if let Some(unique) = t.inner_unique {
        m.insert("Inner Unique".into(), json!(unique));
    }
    for (label, value) in &t.props {
        m.insert(
            (*label).into(),
            match value {
                TextValue::Text(v) => json!(v),
                TextValue::List(v) => json!(v),
            },
        );
    }
    if let (PlanOp::IndexScan(scan), Some(st)) = (&s.node.op, stats_of(state, s.node.id))
        && scan.index_only.is_some()
        && t.index.is_some()
    {
        m.insert("Heap Fetches".into(), json!(st.heap_fetches));
    }
    if let Some((id, table)) = s.memory
        && let Some(st) = stats_of(state, id).filter(|s| s.batches.0 > 0 || s.sort_method.is_some())
    {
        match table {
            Table::Join => {
                m.insert("Hash Buckets".into(), json!(st.buckets));
                m.insert("Original Hash Buckets".into(), json!(st.buckets));
                m.insert("Hash Batches".into(), json!(st.batches.0));
                m.insert("Original Hash Batches".into(), json!(st.batches.1));
                m.insert("Peak Memory Usage".into(), json!(kb(st.memory)));
            }
            Table::Groups => {
                m.insert("HashAgg Batches".into(), json!(st.batches.0));
                m.insert("Peak Memory Usage".into(), json!(kb(st.memory)));
                m.insert("Disk Usage".into(), json!(kb(st.disk)));
            }
            Table::Sort => {
                m.insert("Sort Method".into(), json!(st.sort_method));
                m.insert("Sort Space Used".into(), json!(kb(if st.disk > 0 { st.disk } else { st.memory })));
                m.insert("Sort Space Type".into(), json!(if st.disk > 0 { "Disk" } else { "Memory" }));
            }
        }
    }
    if !s.children.is_empty() {
        let mut plans = Vec::new();
        let mut plain = 0;
        for (name, child) in &s.children {
            let relationship = match name {
                Some(n) if n.starts_with("SubPlan") => "SubPlan",
                Some(_) => "InitPlan",
                None => {
                    plain += 1;
                    if node_type == "Append" {
                        "Member"
                    } else if plain == 1 {
                        "Outer"
                    } else {
                        "Inner"
                    }
                }
            };
            plans.push(json_node(e, state, child, Some(relationship), name.as_deref()));
        }
        m.insert("Plans".into(), Value::Array(plans));
    }
    Value::Object(m)
}

/// EXPLAIN (FORMAT JSON).
pub fn to_json(e: &Explain, stmt: &PlannedStmt, state: Option<&ExecState>, execution: Option<std::time::Duration>) -> String {
    let mut top = Map::new();
    top.insert("Plan".into(), json_node(e, state, &whole(stmt), None, None));
    if e.summary {
        top.insert("Planning Time".into(), round(ms(e.planning), 3));
        if e.analyze {
            top.insert("Triggers".into(), json!([]));
        }
        if let Some(d) = execution {
            top.insert("Execution Time".into(), round(ms(d), 3));
        }
    }
    serde_json::to_string_pretty(&Value::Array(vec![Value::Object(top)])).unwrap_or_default()
}
