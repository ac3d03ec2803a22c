//! What a statement may cost: how deeply it may nest, how much memory it takes.

use crate::client::{block_on, connect};
use crate::support::node::Node;

/// A statement that nests `n` levels in some way, and what it returns.
type Nested = (&'static str, fn(usize) -> String);

#[test]
fn statements_nest_as_deeply_as_postgresql_has_them_or_fail_with_54001() {
    let shapes: [Nested; 13] = [
        ("operators", |n| format!("select {}", vec!["1"; n].join("+"))),
        ("operators on columns", |n| format!("select {} from (values (1)) v(a)", vec!["a"; n].join("+"))),
        ("parentheses", |n| format!("select {}1{}", "(".repeat(n), ")".repeat(n))),
        ("not", |n| format!("select {}true", "not ".repeat(n))),
        ("case", |n| format!("select {}1{}", "case when true then ".repeat(n), " end".repeat(n))),
        ("calls", |n| format!("select {}1{}", "abs(".repeat(n), ")".repeat(n))),
        ("casts", |n| format!("select 1{}", "::int".repeat(n))),
        ("subselects", |n| format!("select {}1{}", "(select ".repeat(n), ")".repeat(n))),
        ("exists", |n| format!("select 1 where {}true{}", "exists (select 1 where ".repeat(n), ")".repeat(n))),
        ("escaped quotes before", |n| format!(r"select E'\'' is null, {}1{}", "(".repeat(n), ")".repeat(n))),
        ("list", |n| format!("select 5 in ({})", vec!["5"; n].join(","))),
        ("and, or", |n| format!("select {}", vec!["true and false"; n].join(" or "))),
        ("union", |n| format!("select count(*) from ({}) u", vec!["select 1, 2"; n].join(" union all "))),
    ];
    let node = Node::start_new("deep", "");
    let pids = node.server_pids();
    block_on(async {
        let c = connect(&node).await;
        for (name, text) in shapes {
            for n in [100, 1_000, 10_000, 100_000] {
                // Subqueries are planned level by level: enough is seen at a hundred, and beyond what is accepted.
                if n == 1_000 && matches!(name, "subselects" | "exists") {
                    continue;
                }
                match c.simple_query(&text(n)).await {
                    Ok(_) => {}
                    Err(e) => {
                        let e = e.as_db_error().unwrap_or_else(|| panic!("{name} of {n} levels ended the session: {e}"));
                        // The grammar's own stack ends at 10,000 open brackets, in PostgreSQL too.
                        assert!(
                            n >= 10_000 && (e.code().code() == "54001" || e.message().starts_with("memory exhausted")),
                            "{name} of {n} levels: {e}"
                        );
                        if e.code().code() == "54001" {
                            assert!(e.hint().is_some_and(|h| h.contains("max_stack_depth")), "{e:?}");
                        }
                    }
                }
            }
        }
    });
    assert_eq!(node.server_pids(), pids, "the server was restarted");
}
