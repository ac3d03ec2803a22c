//! Sessions that say given things in a given order, on PostgreSQL 15 and on us: the anomalies by which isolation levels are told apart, and
//! others worth telling. What each level must give is written down here, and PostgreSQL has to give it too.
//!
//! The anomalies are those of Berenson et al. and of Adya's thesis, most of them in the form of Martin Kleppmann's Hermitage.

use std::fmt::Write as _;

use super::concurrent::Side;
use super::support::node::PATIENCE;
use super::{Outcome, run};

/// The levels, weakest first.
const LEVELS: [&str; 3] = ["read committed", "repeatable read", "serializable"];

/// What sessions `a`, `b` and `c` say, one line each, and what comes of it at each level: answers with rows, errors, who had to wait, and
/// what the table holds in the end. `begin` is at the level told of.
struct Anomaly {
    name: &'static str,
    steps: &'static str,
    outcome: [&'static str; 3],
}

const ANOMALIES: &[Anomaly] = &[
    Anomaly {
        name: "dirty write (G0)",
        steps: "a: begin
                b: begin
                a: update t set v = 11 where id = 1
                b: update t set v = 12 where id = 1
                a: update t set v = 21 where id = 2
                a: commit
                b: update t set v = 22 where id = 2
                b: commit",
        outcome: [
            "b waits. in the end 1|12 2|22",
            "b waits. b 40001 could not serialize access due to concurrent update. b 25P02. in the end 1|11 2|21",
            "b waits. b 40001 could not serialize access due to concurrent update. b 25P02. in the end 1|11 2|21",
        ],
    },
    Anomaly {
        name: "dirty read (G1a)",
        steps: "a: begin
                b: begin
                a: update t set v = 101 where id = 1
                b: select * from t order by id
                a: rollback
                b: select * from t order by id
                b: commit",
        outcome: [
            "b 1|10 2|20. b 1|10 2|20. in the end 1|10 2|20",
            "b 1|10 2|20. b 1|10 2|20. in the end 1|10 2|20",
            "b 1|10 2|20. b 1|10 2|20. in the end 1|10 2|20",
        ],
    },
    Anomaly {
        name: "intermediate read (G1b)",
        steps: "a: begin
                b: begin
                a: update t set v = 101 where id = 1
                b: select * from t order by id
                a: update t set v = 11 where id = 1
                a: commit
                b: select * from t order by id
                b: commit",
        outcome: [
            "b 1|10 2|20. b 1|11 2|20. in the end 1|11 2|20",
            "b 1|10 2|20. b 1|10 2|20. in the end 1|11 2|20",
            "b 1|10 2|20. b 1|10 2|20. in the end 1|11 2|20",
        ],
    },
    Anomaly {
        name: "circular information flow (G1c)",
        steps: "a: begin
                b: begin
                a: update t set v = 11 where id = 1
                b: update t set v = 22 where id = 2
                a: select * from t where id = 2
                b: select * from t where id = 1
                a: commit
                b: commit",
        outcome: [
            "a 2|20. b 1|10. in the end 1|11 2|22",
            "a 2|20. b 1|10. in the end 1|11 2|22",
            "a 2|20. b 1|10. b 40001 could not serialize access due to read/write dependencies among transactions. in the end 1|11 2|20",
        ],
    },
    Anomaly {
        name: "observed transaction vanishes (OTV)",
        steps: "a: begin
                b: begin
                c: begin
                a: update t set v = 11 where id = 1
                a: update t set v = 19 where id = 2
                b: update t set v = 12 where id = 1
                a: commit
                c: select * from t where id = 1
                b: update t set v = 18 where id = 2
                c: select * from t where id = 2
                b: commit
                c: select * from t order by id
                c: commit",
        outcome: [
            "b waits. c 1|11. c 2|19. c 1|12 2|18. in the end 1|12 2|18",
            "b waits. b 40001 could not serialize access due to concurrent update. c 1|11. b 25P02. c 2|19. c 1|11 2|19. in the end 1|11 2|19",
            "b waits. b 40001 could not serialize access due to concurrent update. c 1|11. b 25P02. c 2|19. c 1|11 2|19. in the end 1|11 2|19",
        ],
    },
    Anomaly {
        name: "phantom (PMP)",
        steps: "a: begin
                b: begin
                a: select * from t where v = 30
                b: insert into t values (3, 30)
                b: commit
                a: select * from t where v % 3 = 0
                a: commit",
        outcome: [
            "a none. a 3|30. in the end 1|10 2|20 3|30",
            "a none. a none. in the end 1|10 2|20 3|30",
            "a none. a none. in the end 1|10 2|20 3|30",
        ],
    },
    Anomaly {
        name: "phantom, met by a change (PMP for writes)",
        steps: "a: begin
                b: begin
                a: update t set v = v + 10
                b: select * from t where v = 20
                b: delete from t where v = 20
                a: commit
                b: select * from t where v = 20
                b: commit",
        outcome: [
            "b 2|20. b waits. b 1|20. in the end 1|20 2|30",
            "b 2|20. b waits. b 40001 could not serialize access due to concurrent update. b 25P02. in the end 1|20 2|30",
            "b 2|20. b waits. b 40001 could not serialize access due to concurrent update. b 25P02. in the end 1|20 2|30",
        ],
    },
    Anomaly {
        name: "lost update (P4)",
        steps: "a: begin
                b: begin
                a: select * from t where id = 1
                b: select * from t where id = 1
                a: update t set v = 11 where id = 1
                b: update t set v = 12 where id = 1
                a: commit
                b: commit",
        outcome: [
            "a 1|10. b 1|10. b waits. in the end 1|12 2|20",
            "a 1|10. b 1|10. b waits. b 40001 could not serialize access due to concurrent update. in the end 1|11 2|20",
            "a 1|10. b 1|10. b waits. b 40001 could not serialize access due to concurrent update. in the end 1|11 2|20",
        ],
    },
    Anomaly {
        name: "read skew (G-single)",
        steps: "a: begin
                b: begin
                a: select * from t where id = 1
                b: select * from t order by id
                b: update t set v = 12 where id = 1
                b: update t set v = 18 where id = 2
                b: commit
                a: select * from t where id = 2
                a: commit",
        outcome: [
            "a 1|10. b 1|10 2|20. a 2|18. in the end 1|12 2|18",
            "a 1|10. b 1|10 2|20. a 2|20. in the end 1|12 2|18",
            "a 1|10. b 1|10 2|20. a 2|20. in the end 1|12 2|18",
        ],
    },
    Anomaly {
        name: "read skew over a condition (G-single, dependencies)",
        steps: "a: begin
                b: begin
                a: select * from t where v % 5 = 0 order by id
                b: update t set v = 12 where v = 10
                b: commit
                a: select * from t where v % 3 = 0 order by id
                a: commit",
        outcome: [
            "a 1|10 2|20. a 1|12. in the end 1|12 2|20",
            "a 1|10 2|20. a none. in the end 1|12 2|20",
            "a 1|10 2|20. a none. in the end 1|12 2|20",
        ],
    },
    Anomaly {
        name: "read skew, met by a change (G-single, write)",
        steps: "a: begin
                b: begin
                a: select * from t where id = 1
                b: select * from t order by id
                b: update t set v = 12 where id = 1
                b: update t set v = 18 where id = 2
                b: commit
                a: delete from t where v = 20
                a: rollback",
        outcome: [
            "a 1|10. b 1|10 2|20. in the end 1|12 2|18",
            "a 1|10. b 1|10 2|20. a 40001 could not serialize access due to concurrent update. in the end 1|12 2|18",
            "a 1|10. b 1|10 2|20. a 40001 could not serialize access due to concurrent update. in the end 1|12 2|18",
        ],
    },
    Anomaly {
        name: "write skew (G2-item)",
        steps: "a: begin
                b: begin
                a: select * from t order by id
                b: select * from t order by id
                a: update t set v = 11 where id = 1
                b: update t set v = 21 where id = 2
                a: commit
                b: commit",
        outcome: [
            "a 1|10 2|20. b 1|10 2|20. in the end 1|11 2|21",
            "a 1|10 2|20. b 1|10 2|20. in the end 1|11 2|21",
            "a 1|10 2|20. b 1|10 2|20. b 40001 could not serialize access due to read/write dependencies among transactions. \
             in the end 1|11 2|20",
        ],
    },
    Anomaly {
        name: "write skew over a condition (G2)",
        steps: "a: begin
                b: begin
                a: select * from t where v % 3 = 0
                b: select * from t where v % 3 = 0
                a: insert into t values (3, 30)
                b: insert into t values (4, 42)
                a: commit
                b: commit",
        outcome: [
            "a none. b none. in the end 1|10 2|20 3|30 4|42",
            "a none. b none. in the end 1|10 2|20 3|30 4|42",
            "a none. b none. b 40001 could not serialize access due to read/write dependencies among transactions. \
             in the end 1|10 2|20 3|30",
        ],
    },
    Anomaly {
        name: "write skew over two edges (G2, two anti-dependencies)",
        steps: "a: begin
                a: select * from t order by id
                b: begin
                b: update t set v = v + 5 where id = 2
                b: commit
                c: begin
                c: select * from t order by id
                c: commit
                a: update t set v = 0 where id = 1
                a: rollback",
        outcome: [
            "a 1|10 2|20. c 1|10 2|25. in the end 1|10 2|25",
            "a 1|10 2|20. c 1|10 2|25. in the end 1|10 2|25",
            "a 1|10 2|20. c 1|10 2|25. a 40001 could not serialize access due to read/write dependencies among transactions. \
             in the end 1|10 2|25",
        ],
    },
    // Fekete, O'Neil, O'Neil: what `c` saw is in no serial order of the two others; without `c` all is well.
    Anomaly {
        name: "read-only transaction anomaly",
        steps: "a: begin
                b: begin
                a: select * from t order by id
                b: update t set v = v + 20 where id = 2
                b: commit
                c: begin read only
                c: select * from t order by id
                c: commit
                a: update t set v = v - 11 where id = 1
                a: commit",
        outcome: [
            "a 1|10 2|20. c 1|10 2|40. in the end 1|-1 2|40",
            "a 1|10 2|20. c 1|10 2|40. in the end 1|-1 2|40",
            "a 1|10 2|20. c 1|10 2|40. a 40001 could not serialize access due to read/write dependencies among transactions. \
             in the end 1|10 2|40",
        ],
    },
    Anomaly {
        name: "the same with a reader that waits for a safe snapshot",
        steps: "a: begin
                b: begin
                a: select * from t order by id
                b: update t set v = v + 20 where id = 2
                b: commit
                c: begin read only deferrable
                c: select * from t order by id
                a: update t set v = v - 11 where id = 1
                a: commit
                c: commit",
        outcome: [
            "a 1|10 2|20. c 1|10 2|40. in the end 1|-1 2|40",
            "a 1|10 2|20. c 1|10 2|40. in the end 1|-1 2|40",
            "a 1|10 2|20. c waits. c 1|-1 2|40. in the end 1|-1 2|40",
        ],
    },
];

/// Other stories: statements before them, what is said, what comes of it.
struct Story {
    name: &'static str,
    before: &'static str,
    steps: &'static str,
    outcome: &'static str,
}

const STORIES: &[Story] = &[
    Story {
        name: "an index made after a snapshot, of rows that changed on their page",
        before: "",
        steps: "a: begin isolation level repeatable read
                a: select 1
                a: prepare q(int) as select * from t where v = $1
                b: update t set v = v + 1 where id = 1
                b: create index t_v on t (v)
                a: set enable_seqscan = off
                a: execute q(10)
                a: execute q(11)
                a: select * from t where v = 10
                a: select * from t where v = 11
                b: set enable_seqscan = off
                b: select * from t where v = 11
                b: update t set v = v + 1 where id = 2
                a: select * from t where v = 20
                a: commit
                a: execute q(10)
                a: execute q(11)
                a: begin isolation level serializable
                a: select * from t where v = 21
                b: begin
                b: update t set v = 31 where id = 1
                b: create index t_w on t (id, v)
                b: select * from t where id = 1 and v = 31
                b: commit
                a: select * from t where id = 1 and v = 11
                a: select * from t where id = 1 and v = 31
                a: commit
                a: select * from t where id = 1 and v = 31",
        outcome: "a 1. a 1|10. a none. a 1|10. a none. b 1|11. a 2|20. a none. a 1|11. a 2|21. b 1|31. a 1|11. a none. a 1|31. \
                  in the end 1|31 2|21",
    },
    Story {
        name: "VACUUM FULL and CLUSTER keep what older snapshots see",
        before: "alter table t add w text; alter table t alter w set storage external; update t set w = repeat(id::text, 5000); \
                 create index t_v on t (v); create unique index t_twice on t ((v * 2)); create index t_part on t (id) where v > 5",
        steps: "a: begin isolation level repeatable read
                a: select 1
                b: update t set v = v + 1, w = repeat('x', 6000) where id = 1
                b: update t set v = v + 1 where id = 1
                b: delete from t where id = 2
                b: insert into t values (3, 30, 'new'), (2, 25, repeat('y', 7000))
                b: vacuum full t
                a: savepoint s
                a: select id, v, length(w), md5(w) from t order by id
                a: set enable_seqscan = off
                a: select v from t where id = 2
                a: select id from t where v = 10
                a: select id from t where v * 2 = 40
                a: select v from t where id = 1 and v > 5
                a: select count(*) from t where v in (11, 12, 25, 30)
                a: rollback to s
                b: update t set v = v + 1
                b: vacuum full t
                b: cluster t using t_v
                a: select id, v, length(w), md5(w) from t order by v desc
                a: select count(*) from t where v in (11, 12, 13, 25, 26, 30, 31)
                a: select v from t where id = 1 for key share
                a: savepoint s
                a: update t set v = 0 where id = 1
                a: rollback to s
                a: delete from t where id = 2
                a: rollback to s
                a: select v from t where id = 1 for update
                a: rollback
                b: select id, v, length(w), left(w, 1) from t order by id
                b: vacuum full t
                b: alter table t drop w",
        outcome: "a 1. a 1|10|5000|0bf9edfe605a79ba7a8bea72b894729f 2|20|5000|7ba07bf88fd0aa9f847054a1bbaaab58. a 20. a 1. a 2. a 10. a 0. \
                  a 2|20|5000|7ba07bf88fd0aa9f847054a1bbaaab58 1|10|5000|0bf9edfe605a79ba7a8bea72b894729f. a 0. a 10. \
                  a 40001 could not serialize access due to concurrent update. a 40001 could not serialize access due to concurrent delete. \
                  a 40001 could not serialize access due to concurrent update. b 1|13|6000|x 2|26|7000|y 3|31|3|n. in the end 1|13 2|26 3|31",
    },
    Story {
        name: "VACUUM FULL beside SERIALIZABLE transactions",
        before: "",
        steps: "a: begin isolation level serializable
                a: select 1
                c: begin isolation level serializable
                c: select v from t where id = 2
                b: update t set v = 11 where id = 1
                b: insert into t values (3, 30)
                c: commit
                b: vacuum full t
                a: savepoint s
                a: select * from t order by id
                a: rollback to s
                b: update t set v = 12 where id = 1
                b: vacuum full t
                a: select v from t where id = 1
                a: delete from t where id = 1
                a: rollback",
        outcome: "a 1. c 20. a 1|10 2|20. a 10. a 40001 could not serialize access due to concurrent update. in the end 1|12 2|20 3|30",
    },
    Story {
        name: "CLUSTER of rows its own transaction wrote",
        before: "create index t_v on t (v desc)",
        steps: "a: begin isolation level repeatable read
                a: select 1
                b: begin
                b: insert into t values (4, 40), (6, 60)
                b: update t set v = 11 where id = 1
                b: delete from t where id in (2, 6)
                b: savepoint s
                b: insert into t values (5, 50)
                b: update t set v = 12 where id = 1
                b: delete from t where id = 4
                b: rollback to s
                b: savepoint r
                b: cluster t using t_v
                b: select * from t order by id
                b: update t set v = v + 1 where id = 4
                b: rollback to r
                b: select * from t order by id
                b: cluster t using t_v
                b: declare k cursor for select * from t order by id
                b: update t set v = v + 100 where id = 1
                b: insert into t values (2, 22)
                b: fetch all from k
                b: insert into t values (2, 23)
                b: rollback
                b: begin
                b: update t set v = v + 1
                b: cluster t using t_pkey
                b: update t set v = v + 1 where id = 1
                b: commit
                a: select * from t order by id
                a: update t set v = 0 where id = 2
                a: rollback
                b: cluster t
                b: select * from t order by id",
        outcome: "a 1. b 1|11 4|40. b 1|11 4|40. b 1|11 4|40. b 23505 duplicate key value violates unique constraint \"t_pkey\". a 1|10 2|20. \
                  a 40001 could not serialize access due to concurrent update. b 1|12 2|21. in the end 1|12 2|21",
    },
    Story {
        name: "snapshots of several ages, and a chain of versions on one page",
        before: "alter table t set (fillfactor = 50)",
        steps: "a: begin isolation level repeatable read
                a: select 1
                b: update t set v = 11 where id = 1
                b: update t set v = 12 where id = 1
                c: begin isolation level repeatable read
                c: select 1
                b: update t set v = 13 where id = 1
                b: delete from t where id = 1
                b: insert into t values (1, 14)
                b: vacuum full t
                a: select * from t order by id
                c: savepoint s
                c: select * from t order by id
                c: rollback to s
                a: commit
                b: vacuum full t
                b: cluster t using t_pkey
                c: select * from t order by id
                c: update t set v = 0 where id = 1
                c: rollback
                b: vacuum t
                b: vacuum full t
                b: select * from t order by id",
        outcome: "a 1. c 1. a 1|10 2|20. c 1|12 2|20. c 1|12 2|20. c 40001 could not serialize access due to concurrent update. b 1|14 2|20. \
                  in the end 1|14 2|20",
    },
    Story {
        name: "a query that waits behind ALTER TABLE is planned after it",
        before: "",
        steps: "a: begin
                a: alter table t add column w int default 7
                b: select * from t order by id
                a: commit
                a: begin
                a: alter table t add column x int default 8
                b: select x, w from t where id = 1
                a: commit
                a: begin
                a: alter table t drop column w
                b: select w from t where id = 1
                a: commit
                a: begin
                a: alter table t rename to u
                b: select * from t
                a: rollback
                b: select * from t order by id",
        outcome: "b waits. b 1|10|7 2|20|7. b waits. b 8|7. b waits. b 42703 column \"w\" does not exist. b waits. b 1|10|8 2|20|8. \
                  b 1|10|8 2|20|8. in the end 1|10|8 2|20|8",
    },
    Story {
        name: "changes that wait behind ALTER TABLE are planned after it",
        before: "",
        steps: "a: begin
                a: alter table t add column w int not null default 7
                b: insert into t values (3, 30) returning *
                a: commit
                a: begin
                a: alter table t alter column w set default 9
                b: insert into t values (4, 40) returning w
                a: commit
                a: begin
                a: alter table t drop column w
                b: update t set w = 1 where id = 1
                a: commit
                a: begin
                a: drop table t
                b: delete from t where id = 1
                a: rollback",
        outcome: "b waits. b 3|30|7. b waits. b 9. b waits. b 42703 column \"w\" of relation \"t\" does not exist. b waits. \
                  in the end 2|20 3|30 4|40",
    },
    Story {
        name: "REPEATABLE READ has its snapshot before it waits for a table",
        before: "",
        steps: "a: begin
                a: lock table t
                a: update t set v = 11 where id = 1
                b: begin isolation level repeatable read
                b: select * from t order by id
                a: commit
                b: commit
                b: select * from t order by id",
        outcome: "b waits. b 1|10 2|20. b 1|11 2|20. in the end 1|11 2|20",
    },
    Story {
        name: "READ COMMITTED has it after",
        before: "",
        steps: "a: begin
                a: lock table t
                a: update t set v = 11 where id = 1
                b: begin
                b: select * from t order by id
                a: commit
                b: commit",
        outcome: "b waits. b 1|11 2|20. in the end 1|11 2|20",
    },
    Story {
        name: "a prepared statement whose columns change",
        before: "",
        steps: "b: prepare q as select * from t order by id
                b: execute q
                a: begin
                a: alter table t add column w int default 7
                b: execute q
                a: commit
                b: deallocate q
                b: prepare q as select id, v from t order by id
                a: begin
                a: alter table t drop column w
                b: execute q
                a: commit",
        outcome: "b 1|10 2|20. b waits. b 0A000 cached plan must not change result type. b waits. b 1|10 2|20. in the end 1|10 2|20",
    },
    Story {
        name: "a PL/pgSQL function whose table changes",
        before: "create or replace function first() returns text language plpgsql as \
                 $$ declare r record; begin select * into r from t where id = 1; return r; end $$",
        steps: "b: select first()
                a: begin
                a: alter table t add column w int default 7
                b: select first()
                a: commit
                a: alter table t drop column w
                b: select first()",
        outcome: "b (1,10). b waits. b (1,10,7). b (1,10). in the end 1|10 2|20",
    },
    Story {
        name: "FOR UPDATE waits for the table as a locker of rows",
        before: "",
        steps: "a: begin
                a: lock table t in exclusive mode
                b: select * from t where id = 1
                b: select * from t where id = 1 for update
                a: commit",
        outcome: "b 1|10. b waits. b 1|10. in the end 1|10 2|20",
    },
];

/// Stories whose outcome is whatever PostgreSQL's is.
const SAME: &[(&str, &str)] = &[
    (
        "SET TRANSACTION, when it is too late",
        "a: begin
         a: set transaction isolation level serializable, read only, deferrable
         a: show transaction_isolation
         a: show transaction_read_only
         a: show transaction_deferrable
         a: select count(*) from t
         a: set transaction isolation level serializable
         a: set transaction isolation level repeatable read
         a: rollback
         a: begin
         a: select count(*) from t
         a: set transaction isolation level read committed
         a: set transaction isolation level serializable
         a: rollback
         a: begin
         a: update t set v = 0
         a: set transaction isolation level repeatable read
         a: rollback
         a: begin
         a: create table made (i int)
         a: set transaction isolation level repeatable read
         a: rollback
         a: begin
         a: lock table t
         a: set transaction isolation level repeatable read
         a: rollback
         a: begin
         a: savepoint s
         a: set transaction isolation level repeatable read
         a: rollback
         a: begin
         a: savepoint s
         a: set transaction deferrable
         a: rollback
         a: begin
         a: select 1
         a: set transaction deferrable
         a: rollback
         a: begin read only
         a: select 1
         a: set transaction read only
         a: set transaction read write
         a: rollback
         a: begin read only
         a: set transaction read write
         a: insert into t values (3, 30)
         a: rollback
         a: begin
         a: savepoint s
         a: set transaction read only
         a: insert into t values (3, 30)
         a: rollback to s
         a: show transaction_read_only
         a: insert into t values (3, 30)
         a: set transaction read only
         a: release s
         a: show transaction_read_only
         a: insert into t values (4, 40)
         a: set transaction read only
         a: savepoint s
         a: set transaction read write
         a: rollback
         a: set transaction isolation level serializable
         a: show transaction_isolation
         a: begin isolation level serializable
         a: commit and chain
         a: show transaction_isolation
         a: rollback and chain
         a: show transaction_isolation
         a: commit
         a: commit
         a: rollback
         a: set session characteristics as transaction isolation level repeatable read, read only
         a: begin
         a: show transaction_isolation
         a: show transaction_read_only
         a: commit
         a: show default_transaction_isolation
         a: set session characteristics as transaction isolation level read committed, read write",
    ),
    (
        "savepoints",
        "a: savepoint s
         a: release s
         a: rollback to s
         a: begin
         a: savepoint s
         a: insert into t values (3, 30)
         a: savepoint s
         a: insert into t values (4, 40)
         a: rollback to s
         a: select * from t order by id
         a: release s
         a: rollback to s
         a: select * from t order by id
         a: release nope
         a: release s
         a: rollback to s
         a: insert into t values (5, 50)
         a: release s
         a: commit",
    ),
    (
        "advisory locks in all their forms",
        "a: select pg_advisory_lock(1)
         a: select pg_advisory_lock(1)
         a: select pg_advisory_lock(1, 2)
         a: select pg_advisory_lock_shared(3)
         a: select pg_advisory_lock_shared(-4, 5)
         a: select pg_advisory_lock(9223372036854775807)
         a: select pg_advisory_lock(-1)
         a: select locktype, classid, objid, objsubid, mode, granted from pg_locks where locktype = 'advisory' order by 2, 3, 4, 5
         b: select pg_try_advisory_lock(1)
         b: select pg_try_advisory_lock(0, 1)
         b: select pg_try_advisory_lock_shared(3)
         b: select pg_try_advisory_lock(3)
         b: select pg_try_advisory_lock_shared(-4, 5)
         b: select pg_try_advisory_xact_lock(1, 2)
         b: select pg_try_advisory_xact_lock_shared(1, 2)
         b: select pg_advisory_unlock_shared(3)
         b: select pg_advisory_unlock(3)
         b: select pg_advisory_unlock_shared(-4, 5)
         b: begin
         b: select pg_advisory_lock(77)
         b: select pg_advisory_xact_lock(78)
         b: select pg_advisory_xact_lock_shared(79)
         b: select pg_advisory_xact_lock(7, 8)
         b: select pg_advisory_xact_lock_shared(7, 9)
         b: savepoint s
         b: select pg_advisory_lock(80)
         b: select pg_advisory_xact_lock(81)
         b: rollback to s
         b: select classid, objid, objsubid, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2, 3, 4
         b: rollback
         b: select classid, objid, objsubid, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2, 3, 4
         b: select pg_advisory_lock(1)
         a: select pg_advisory_unlock(1)
         a: select pg_advisory_unlock(1)
         a: select pg_advisory_unlock(1)
         a: select pg_advisory_unlock_shared(1, 2)
         a: select pg_advisory_unlock_all()
         a: select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
         b: select pg_advisory_unlock_all()
         b: select count(*) from pg_locks where locktype = 'advisory'
         a: begin
         a: select pg_advisory_xact_lock(5)
         b: begin
         b: select pg_advisory_xact_lock(6)
         b: select pg_advisory_xact_lock_shared(5)
         a: commit
         b: commit
         a: select pg_advisory_lock(null)
         a: select pg_try_advisory_lock(null, 1)",
    ),
    (
        "LOCK TABLE",
        "a: lock table t
         a: begin
         a: lock t in access share mode
         a: lock table t in row share mode nowait
         a: lock table only t in share update exclusive mode
         b: begin
         b: lock table t in share mode nowait
         b: rollback
         b: begin
         b: lock table t in row exclusive mode
         a: lock table t in access exclusive mode nowait
         a: rollback
         b: commit
         a: begin
         a: lock table nope
         a: rollback
         a: begin
         a: lock table t_pkey
         a: rollback
         a: begin
         a: lock table pg_class in access share mode
         a: rollback
         a: begin read only
         a: lock table t in access share mode
         a: lock table t in row share mode
         a: lock table t in row exclusive mode
         a: lock table t in share mode
         a: rollback
         a: begin
         a: savepoint s
         a: lock table t
         b: select * from t order by id
         a: rollback to s
         a: commit",
    ),
    (
        "rights to lock",
        "a: drop role if exists locker
         a: create role locker
         a: grant select on t to locker
         a: set role locker
         a: begin
         a: lock table t in access share mode
         a: lock table t in row share mode
         a: rollback
         a: begin
         a: lock table t in row exclusive mode
         a: rollback
         a: reset role
         a: revoke select on t from locker
         a: grant insert on t to locker
         a: set role locker
         a: begin
         a: lock table t in row exclusive mode
         a: lock table t in access share mode
         a: rollback
         a: begin
         a: lock table t in share mode
         a: rollback
         a: reset role
         a: grant delete on t to locker
         a: set role locker
         a: begin
         a: lock table t in access exclusive mode
         a: rollback
         a: begin
         a: lock table t in access share mode
         a: rollback
         a: reset role
         a: revoke all on t from locker
         a: drop role locker",
    ),
    (
        "two-phase commit",
        "a: begin
         a: insert into t values (3, 30)
         a: prepare transaction 'one'
         a: select gid, owner, database from pg_prepared_xacts
         b: select * from t order by id
         a: commit prepared 'one'
         a: commit prepared 'one'
         a: rollback prepared 'one'
         a: begin
         a: select pg_advisory_lock(1)
         a: prepare transaction 'two'
         a: commit prepared 'two'
         a: begin
         a: select pg_advisory_xact_lock(1)
         a: prepare transaction 'two'
         a: rollback
         a: select pg_advisory_unlock_all()
         a: begin
         a: select pg_advisory_xact_lock(1)
         a: prepare transaction 'two'
         b: select pg_try_advisory_lock(1)
         b: begin
         b: rollback prepared 'two'
         b: rollback
         b: rollback prepared 'two'
         b: select pg_try_advisory_lock(1)
         b: select pg_advisory_unlock(1)
         a: begin
         a: create temp table tt (i int) on commit drop
         a: prepare transaction 'three'
         a: begin
         a: declare c cursor for select * from t
         a: prepare transaction 'three'
         a: commit prepared 'three'
         a: begin
         a: select pg_export_snapshot() is not null
         a: prepare transaction 'four'
         a: prepare transaction 'five'
         a: begin
         a: select 1 / 0
         a: prepare transaction 'six'
         a: select count(*) from pg_prepared_xacts
         a: begin
         a: prepare transaction ''
         a: rollback prepared ''
         a: begin
         a: savepoint s
         a: update t set v = v + 1
         a: release s
         a: savepoint r
         a: delete from t
         a: rollback to r
         a: prepare transaction 'seven'
         b: select * from t order by id
         b: select * from t where id = 1 for update nowait
         b: lock table t in share mode nowait
         b: commit prepared 'seven'
         a: begin isolation level repeatable read
         a: select 1
         a: prepare transaction 'eight'
         a: rollback prepared 'eight'",
    ),
    (
        "stopping others",
        "a: select pg_cancel_backend(0)
         a: select pg_terminate_backend(0)
         a: select pg_terminate_backend(0, -1)
         a: select pg_terminate_backend(1, 10)
         a: select pg_cancel_backend(pg_backend_pid())
         a: begin
         a: select pg_cancel_backend(pg_backend_pid())
         a: rollback",
    ),
    (
        "a row that was changed meanwhile, and by the statement itself",
        "a: create table w (id text primary key, v int)
         a: insert into w values ('a', 600), ('b', 600)
         a: create function bump(int) returns bool language sql as 'update w set v = v + 1 where id = ''a''; select true'
         a: begin
         a: update w set v = v - 200 where id = 'a'
         b: with x as (update w set v = v + 1100 where id = 'a' returning *) update w y set v = x.v + 100 from x returning *
         a: commit
         b: select * from w order by id
         a: begin
         a: update w set v = 400 where id = 'a'
         b: with x as (update w set v = v + 1100 where id = 'a' returning *, bump(1)) update w y set v = x.v + 100 from x returning *
         a: commit
         b: select * from w order by id
         a: begin
         a: update w set v = 300 where id = 'a'
         b: with x as (update w set v = v + 1100 where id = 'a' returning *, bump(1)) delete from w using x returning *
         a: commit
         b: select * from w order by id
         a: begin
         a: update w set v = 200 where id = 'a'
         b: merge into w using (values ('a'), ('a')) s(id) on w.id = s.id when matched then update set v = w.v + 1
         a: commit
         a: begin
         a: update w set v = 100 where id = 'a'
         b: with x as (update w set v = v + 1100 where id = 'a' returning *) delete from w using x returning *
         a: commit
         b: select * from w order by id
         a: drop table w
         a: drop function bump(int)",
    ),
    (
        "a row that has moved from where it is looked for",
        "a: begin
         a: update t set v = v + 1 where id = 1
         b: update t set v = v + 10 where ctid = '(0,1)' returning id
         a: commit
         a: begin
         a: update t set v = v + 1 where id = 2
         b: select * from t where ctid = '(0,2)' for update
         a: rollback",
    ),
    (
        "a row to be locked that was changed since the statement began",
        "a: create function touch(int) returns int language sql volatile as 'update t set v = v + 1 where id = $1; select $1'
         a: select * from t where touch(id) = id for update
         a: select * from t order by id
         a: begin
         a: declare k cursor for select * from t order by id for share
         a: update t set v = 5 where id = 1
         a: fetch all from k
         a: commit
         a: drop function touch(int)",
    ),
    (
        "foreign keys of transactions that keep their snapshot",
        "a: create table p (id int primary key)
         a: create table c (id int primary key, p int references p on delete cascade)
         a: create table d (id int primary key, p int references p on delete set null)
         a: create table e (id int primary key, p int references p)
         a: begin isolation level repeatable read
         a: select count(*) from p
         b: insert into p values (1), (2), (3), (4)
         b: insert into c values (1, 1)
         a: insert into c values (2, 2)
         a: rollback
         a: begin isolation level repeatable read
         a: select count(*) from c
         b: insert into c values (3, 1)
         a: delete from p where id = 1
         a: rollback
         a: begin isolation level serializable
         a: select count(*) from c
         b: insert into c values (4, 2)
         a: delete from p where id = 2
         a: rollback
         a: begin isolation level serializable
         a: select count(*) from d
         b: insert into d values (1, 3)
         a: delete from p where id = 3
         a: commit
         a: begin isolation level repeatable read
         a: select count(*) from e
         b: insert into e values (1, 4)
         a: delete from p where id = 4
         a: rollback
         a: begin isolation level repeatable read
         a: select count(*) from p
         b: begin
         b: delete from c where id = 1
         b: delete from c where id = 3
         b: delete from p where id = 1
         a: insert into c values (5, 1)
         b: commit
         a: rollback
         a: select * from c order by id
         a: select * from d order by id
         a: drop table c, d, e, p",
    ),
    (
        "constraints put off, and savepoints",
        "a: create table p (id int primary key)
         a: create table d (id int primary key, v int, p int references p deferrable initially deferred)
         a: create table k (id int primary key, v int, k int unique deferrable initially deferred)
         a: create table log (t text)
         a: create function note() returns trigger language plpgsql as 'begin insert into log values (new.id::text); return null; end'
         a: create constraint trigger noted after insert on k deferrable initially deferred for each row execute function note()
         a: begin
         a: insert into d values (1, 1, 777)
         a: update d set v = 2 where id = 1
         a: commit
         a: begin
         a: insert into d values (1, 1, 777)
         a: savepoint s
         a: update d set v = 3
         a: rollback to s
         a: update d set p = null
         a: commit
         a: begin
         a: insert into d values (2, 1, 777)
         a: savepoint s
         a: set constraints all immediate
         a: rollback to s
         a: commit
         a: begin
         a: savepoint s
         a: set constraints all immediate
         a: savepoint s2
         a: set constraints d_p_fkey deferred
         a: insert into d values (3, 1, 777)
         a: rollback to s2
         a: insert into d values (4, 1, 777)
         a: rollback to s
         a: insert into d values (5, 1, 777)
         a: delete from d where id = 5
         a: commit
         a: begin
         a: insert into k values (1, 1, 1), (2, 2, 1)
         a: savepoint s
         a: set constraints all immediate
         a: rollback to s
         a: commit
         a: begin
         a: insert into k values (1, 1, 1), (2, 2, 1)
         a: update k set v = 5
         a: commit
         a: begin
         a: insert into k values (1, 1, 1)
         a: savepoint s
         a: set constraints all immediate
         a: select * from log
         a: rollback to s
         a: select * from log
         a: alter table k add column x int
         a: rollback to s
         a: release s
         a: commit
         a: select * from log
         a: begin
         a: savepoint s
         a: insert into k values (2, 1, 2)
         a: rollback to s
         a: alter table k add column x int
         a: commit
         a: select * from k
         a: select * from d order by id
         a: drop table p, d, k, log
         a: drop function note()",
    ),
    (
        "pg_locks of one transaction",
        "a: begin
         a: select locktype, relation::regclass, mode, granted from pg_locks where pid = pg_backend_pid() and locktype <> 'relation'
         a: insert into t values (3, 30)
         a: select * from t where id = 1 for update
         a: lock table t in share row exclusive mode
         a: select locktype, relation::regclass, mode, granted from pg_locks where pid = pg_backend_pid() \
            and (relation is null or relation = 't'::regclass) order by 1, 2, 3
         a: commit
         a: select locktype, mode, granted from pg_locks where pid = pg_backend_pid() and locktype <> 'relation'",
    ),
];

/// Every pair of lock modes: who gets what another holds.
fn lock_modes() -> String {
    const MODES: [&str; 8] = [
        "access share",
        "row share",
        "row exclusive",
        "share update exclusive",
        "share",
        "share row exclusive",
        "exclusive",
        "access exclusive",
    ];
    let mut steps = String::new();
    for held in MODES {
        for wanted in MODES {
            write!(
                steps,
                "a: begin\na: lock table t in {held} mode\nb: begin\nb: lock table t in {wanted} mode nowait\nb: rollback\na: rollback\n"
            )
            .expect("a string");
        }
    }
    steps
}

/// What CREATE INDEX, REINDEX and DROP INDEX CONCURRENTLY leave when they fail, in each of their phases: on PostgreSQL, and the same here. `FLAGS` asks
/// for the indexes of `t`; `CANCEL` cancels `a`, `ONCE <what is true of pg_index and pg_class>` waits: what was left to do may just be beginning to wait.
const UNFINISHED: &[(&str, &str)] = &[
    (
        "CREATE UNIQUE INDEX CONCURRENTLY meets duplicates that were there",
        "a: insert into t values (3, 10)
         a: create unique index concurrently uq on t (v)
         a: FLAGS
         b: insert into t values (4, 20), (5, 20)
         b: insert into t values (6, 60) on conflict (v) do nothing
         b: insert into t values (7, 10) on conflict do nothing
         b: alter table t add constraint c unique using index uq
         b: alter table t cluster on uq
         b: cluster t using uq
         b: create table u2 (v int references t (v))
         b: reindex table concurrently t
         b: vacuum t
         b: reindex index uq
         b: reindex index concurrently uq
         b: FLAGS
         b: delete from t where id > 2
         b: drop index concurrently uq_ccnew
         b: reindex index uq
         b: FLAGS
         b: insert into t values (8, 20)",
    ),
    (
        "CREATE UNIQUE INDEX CONCURRENTLY meets a duplicate that came while it was built",
        "b: begin
         b: insert into t values (3, 30)
         a: create unique index concurrently uq on t (v)
         c: begin
         c: insert into t values (4, 10)
         b: commit
         b: ONCE indisready and relname = 'uq'
         c: commit
         a: FLAGS
         b: insert into t values (5, 20)
         b: insert into t values (6, 60)
         b: insert into t values (7, 60) on conflict (v) do nothing
         b: insert into t values (7, 60) on conflict do nothing
         b: update t set v = 20 where id = 6
         b: explain (costs off) select * from t where v = 20
         b: reindex table concurrently t
         b: vacuum t
         b: FLAGS
         b: truncate t
         b: FLAGS
         b: insert into t values (1, 1), (2, 1)",
    ),
    (
        "CREATE INDEX CONCURRENTLY is cancelled before it is built",
        "b: begin
         b: insert into t values (3, 30)
         a: create index concurrently uq on t (v)
         c: CANCEL
         a: FLAGS
         b: commit
         a: create index concurrently uq on t (v)
         a: create index concurrently if not exists uq on t (v)
         a: vacuum full t
         a: FLAGS
         a: drop index uq
         b: begin
         b: insert into t values (4, 30)
         a: create unique index concurrently uq on t (v)
         c: CANCEL
         a: FLAGS
         b: commit
         a: vacuum full t
         a: FLAGS
         a: cluster t using t_pkey
         a: FLAGS
         a: alter table t alter v type bigint
         a: FLAGS",
    ),
    (
        "CREATE INDEX CONCURRENTLY is cancelled before it is looked through",
        "b: begin
         b: insert into t values (3, 30)
         a: create index concurrently uq on t (v)
         c: begin
         c: insert into t values (4, 10)
         b: commit
         b: ONCE indisready and relname = 'uq'
         b: CANCEL
         a: FLAGS
         c: commit
         a: alter table t alter v type bigint
         a: FLAGS",
    ),
    (
        "CREATE INDEX CONCURRENTLY is cancelled while it waits for an old snapshot",
        "c: begin isolation level repeatable read
         c: select * from t order by id
         a: create unique index concurrently uq on t (v)
         b: ONCE indisready and relname = 'uq'
         b: CANCEL
         a: FLAGS
         b: insert into t values (3, 10)
         c: select * from t where v = 10
         c: commit
         a: reindex index concurrently uq
         a: FLAGS",
    ),
    (
        "REINDEX CONCURRENTLY is cancelled in each phase",
        "a: create unique index uq on t (v)
         b: begin
         b: insert into t values (3, 30)
         a: reindex index concurrently uq
         c: CANCEL
         a: FLAGS
         b: commit
         a: drop index uq_ccnew
         b: begin
         b: insert into t values (7, 70)
         a: reindex index concurrently uq
         c: begin
         c: insert into t values (4, 40)
         b: commit
         b: ONCE indisready and relname = 'uq_ccnew'
         b: CANCEL
         a: FLAGS
         c: commit
         b: insert into t values (5, 10)
         a: drop index concurrently uq_ccnew
         c: begin
         c: select * from t order by id
         a: reindex index concurrently uq
         b: ONCE relname = 'uq_ccold'
         b: CANCEL
         a: FLAGS
         b: insert into t values (5, 10) on conflict do nothing
         c: commit
         a: drop index uq_ccold
         c: begin
         c: select * from t order by id
         a: reindex index concurrently uq
         b: ONCE relname = 'uq_ccold'
         b: begin
         b: select count(*) from t
         c: commit
         c: ONCE not indislive and relname = 'uq_ccold'
         c: CANCEL
         a: FLAGS
         b: commit
         b: insert into t values (6, 10)
         a: drop index concurrently uq_ccold
         a: FLAGS",
    ),
    (
        "DROP INDEX CONCURRENTLY is cancelled in each phase",
        "a: create unique index uq on t (v)
         a: alter table t cluster on uq
         a: FLAGS
         c: begin
         c: select * from t order by id
         a: drop index concurrently uq
         b: ONCE not indisvalid and relname = 'uq'
         b: CANCEL
         a: FLAGS
         b: insert into t values (3, 10)
         b: insert into t values (3, 10) on conflict (v) do nothing
         a: drop index concurrently uq
         b: begin
         b: select count(*) from t
         c: commit
         c: ONCE not indislive and relname = 'uq'
         c: CANCEL
         a: FLAGS
         b: insert into t values (3, 10)
         b: commit
         a: reindex table t
         a: vacuum t
         a: FLAGS
         a: reindex index uq
         a: delete from t where id = 3
         a: reindex index uq
         a: FLAGS
         a: drop index concurrently uq
         a: FLAGS",
    ),
];

/// A step of such a story as it is said.
fn spelled(steps: &str) -> String {
    const FLAGS: &str = "select relname, indisunique, indisvalid, indisready, indislive, indisclustered from pg_index \
                         join pg_class c on c.oid = indexrelid where indrelid = 't'::regclass order by 1";
    const CANCEL: &str = "select pg_cancel_backend(pid) from pg_stat_activity where query like '% concurrently %' and state = 'active' \
                          and pid <> pg_backend_pid()";
    let mut out = String::new();
    for line in steps.lines() {
        let line = line.replace("FLAGS", FLAGS).replace("CANCEL", CANCEL);
        match line.split_once("ONCE ") {
            Some((who, what)) => writeln!(
                out,
                "{who}do 'begin loop exit when exists (select from pg_index join pg_class c on c.oid = indexrelid where {}); end loop; end'",
                what.replace('\'', "''")
            ),
            None => writeln!(out, "{line}"),
        }
        .expect("a string");
    }
    out
}

fn shown(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Rows(rows, _) if rows.is_empty() => None,
        Outcome::Rows(rows, _) => {
            let row = |r: &Vec<Option<String>>| r.iter().map(|c| c.as_deref().unwrap_or("null")).collect::<Vec<_>>().join("|");
            Some(rows.iter().map(row).collect::<Vec<_>>().join(" "))
        }
        Outcome::Error(state, _) if state == "25P02" => Some(state.clone()),
        Outcome::Error(state, message) => Some(format!("{state} {message}")),
    }
}

/// Notes what those who wait were told, who spoke last first: it may have let others go.
async fn listen(side: &mut Side, waiting: &mut Vec<(usize, bool)>, told: &mut String) {
    for (n, asks) in waiting.clone().into_iter().rev() {
        let Some(outcome) = side.settle(n).await else { continue };
        waiting.retain(|w| w.0 != n);
        let name = &"abc"[n..=n];
        match shown(&outcome) {
            Some(shown) => write!(told, "{name} {shown}. "),
            None if asks => write!(told, "{name} none. "),
            None => Ok(()),
        }
        .expect("a string");
    }
}

/// How a story ends that does not.
const STUCK: &str = "and nobody says any more";

/// Tells a story on one server; what came of it, as far as it went.
async fn tell(conninfo: &str, level: &str, before: &str, steps: &str) -> String {
    let mut told = String::new();
    match tokio::time::timeout(PATIENCE, tell_to_the_end(conninfo, level, before, steps, &mut told)).await {
        Ok(()) => told,
        Err(_) => told + STUCK,
    }
}

async fn tell_to_the_end(conninfo: &str, level: &str, before: &str, steps: &str, told: &mut String) {
    let mut side = Side::open(conninfo, 3).await;
    let setup = "drop table if exists t, u; create table t (id int primary key, v int); insert into t values (1, 10), (2, 20)";
    side.watch.batch_execute(setup).await.expect("a table");
    if !before.is_empty() {
        side.watch.batch_execute(before).await.expect("what comes before");
    }
    let mut waiting: Vec<(usize, bool)> = Vec::new();
    for line in steps.lines() {
        let (who, sql) = line.trim().split_once(": ").expect("who, and what");
        let n = "abc".find(who).expect("one of three");
        // What it waited for may be over, and it may not have heard yet.
        while waiting.iter().any(|w| w.0 == n) {
            listen(&mut side, &mut waiting, told).await;
        }
        let sql = match sql.strip_prefix("begin") {
            Some(rest) if !level.is_empty() => format!("begin isolation level {level}{rest}"),
            _ => sql.to_owned(),
        };
        let asks = ["select", "execute", "show"].iter().any(|verb| sql.starts_with(verb)) || sql.contains("returning");
        side.begin(n, &sql);
        waiting.push((n, asks));
        listen(&mut side, &mut waiting, told).await;
        if waiting.last().is_some_and(|w| w.0 == n) {
            write!(told, "{who} waits. ").expect("a string");
        }
    }
    while !waiting.is_empty() {
        listen(&mut side, &mut waiting, told).await;
    }
    let end = run(&side.watch, "select * from t order by id", true).await;
    write!(told, "in the end {}", shown(&end).unwrap_or_else(|| "nothing".into())).expect("a string");
}

/// Tells all stories on both servers; what came out otherwise than written.
pub(crate) fn compare(theirs: &str, ours: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut different = String::new();
    let mut check = |name: &str, level: &str, before: &str, steps: &str, expected: &str| {
        for (server, conninfo) in [("PostgreSQL", theirs), ("Afterimage", ours)] {
            let told = runtime.block_on(tell(conninfo, level, before, steps));
            if told != expected {
                write!(different, "--- {name}, {level}, on {server}\nexpected: {expected}\ngot:      {told}\n").expect("a string");
            }
        }
    };
    for anomaly in ANOMALIES {
        for (level, outcome) in LEVELS.into_iter().zip(anomaly.outcome) {
            check(anomaly.name, level, "", anomaly.steps, outcome);
        }
    }
    for story in STORIES {
        check(story.name, "", story.before, story.steps, story.outcome);
    }
    let modes = lock_modes();
    let unfinished: Vec<(&str, String)> = UNFINISHED.iter().map(|(name, steps)| (*name, spelled(steps))).collect();
    let unfinished = unfinished.iter().map(|(name, steps)| (*name, steps.as_str()));
    for (name, steps) in SAME.iter().copied().chain([("lock modes", modes.as_str())]).chain(unfinished) {
        let [expected, got] = [theirs, ours].map(|conninfo| runtime.block_on(tell(conninfo, "", "", steps)));
        if expected != got || expected.ends_with(STUCK) {
            let at = expected.split(". ").zip(got.split(". ")).take_while(|(a, b)| a == b).count();
            let rest = |told: &str| told.split(". ").skip(at.saturating_sub(2)).take(6).collect::<Vec<_>>().join(". ");
            write!(different, "--- {name}\nexpected: ... {}\ngot:      ... {}\n", rest(&expected), rest(&got)).expect("a string");
        }
    }
    different
}
