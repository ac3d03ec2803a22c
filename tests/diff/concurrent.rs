//! Two sessions in each other's way: the same random statements in the same order on PostgreSQL 15 and on us. At each step the same session
//! waits, and what it gets in the end is the same.
//!
//! With two sessions at most one waits for another, or both for each other; so what happens is determined, save for who gives up in a
//! deadlock. Therefore nobody looks for deadlocks here: who began to wait last is cancelled. SERIALIZABLE is left out: which of several
//! transactions fails is each server's own choice.
//!
//! Long runs find one difference that is meant: a referencing row updated twice in a transaction, its key left alone, makes PostgreSQL look for
//! the key again and lock the referenced table ROW SHARE (`RI_FKey_fk_upd_check_required`). Here the first event follows the row.

use std::fmt::Write as _;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::{Outcome, connect, run};

/// Rows of each table at the start.
const ROWS: u32 = 5;

/// A server with its sessions.
pub(crate) struct Side {
    pub(crate) watch: Client,
    sessions: Vec<Arc<Client>>,
    pids: Vec<i32>,
    running: Vec<Option<JoinHandle<Outcome>>>,
}

impl Side {
    pub(crate) async fn open(conninfo: &str, sessions: usize) -> Self {
        let watch = connect(conninfo).await;
        let mut side = Self { watch, sessions: Vec::new(), pids: Vec::new(), running: Vec::new() };
        for _ in 0..sessions {
            let session = connect(conninfo).await;
            let row = session.query_one("select pg_backend_pid()", &[]).await.expect("a pid");
            side.pids.push(row.get(0));
            session.batch_execute("set deadlock_timeout = '1h'; set client_min_messages = error").await.expect("settings");
            side.sessions.push(Arc::new(session));
            side.running.push(None);
        }
        side
    }

    pub(crate) fn begin(&mut self, n: usize, sql: &str) {
        let (session, sql) = (Arc::clone(&self.sessions[n]), sql.to_owned());
        self.running[n] = Some(tokio::spawn(async move { run(&session, &sql, true).await }));
    }

    /// Waits until the session's statement ended, or waits for another's.
    pub(crate) async fn settle(&mut self, n: usize) -> Option<Outcome> {
        loop {
            if self.running[n].as_ref().is_none_or(JoinHandle::is_finished) {
                let task = self.running[n].take()?;
                let outcome = task.await.expect("joined");
                if matches!(outcome, Outcome::Error(..)) {
                    // PostgreSQL tells of an error first and lets go of the locks then.
                    self.wait_for_abort(n).await;
                }
                return Some(outcome);
            }
            let question = "select pg_isolation_test_session_is_blocked($1, $2)";
            let row = self.watch.query_one(question, &[&self.pids[n], &self.pids]).await.expect("an answer");
            if row.get(0) {
                return None;
            }
        }
    }

    async fn wait_for_abort(&self, n: usize) {
        let question = "select state <> 'active' from pg_stat_activity where pid = $1";
        while !self.watch.query_one(question, &[&self.pids[n]]).await.expect("an answer").get::<_, bool>(0) {}
    }

    async fn cancel(&self, n: usize) {
        self.watch.execute("select pg_cancel_backend($1)", &[&self.pids[n]]).await.expect("a cancel");
        // The wait is over when nothing blocks it any more, or when it ended.
    }
}

/// What one session may say next.
#[derive(Default)]
struct Speaker {
    in_block: bool,
    failed: bool,
    savepoints: u32,
}

impl Speaker {
    fn next(&mut self, rng: &mut StdRng, alone: bool) -> String {
        if self.failed {
            if self.savepoints > 0 && rng.random_bool(0.6) {
                let to = rng.random_range(1..=self.savepoints);
                self.savepoints = to;
                self.failed = false;
                return format!("rollback to s{to}");
            }
            *self = Self::default();
            return "rollback".into();
        }
        if !self.in_block {
            if rng.random_bool(0.8) {
                self.in_block = true;
                let level = ["read committed", "repeatable read"].choose(rng).copied().unwrap_or_default();
                return format!("begin isolation level {level}");
            }
            if rng.random_bool(0.15) {
                return format!("vacuum full {}", ["p", "c", "d"].choose(rng).copied().unwrap_or_default());
            }
        } else {
            match rng.random_range(0..100) {
                0..=13 => {
                    *self = Self::default();
                    return if rng.random_bool(0.75) { "commit" } else { "rollback" }.into();
                }
                14..=20 => {
                    self.savepoints += 1;
                    return format!("savepoint s{}", self.savepoints);
                }
                21..=24 if self.savepoints > 0 => {
                    let to = rng.random_range(1..=self.savepoints);
                    self.savepoints = to;
                    return format!("rollback to s{to}");
                }
                25..=26 if self.savepoints > 0 => {
                    let to = rng.random_range(1..=self.savepoints);
                    self.savepoints = to - 1;
                    return format!("release s{to}");
                }
                _ => {}
            }
        }
        statement(rng, alone)
    }

    fn heard(&mut self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Error(..)) && self.in_block {
            self.failed = true;
        }
    }
}

/// A statement, `alone`: of one whom nobody waits for. It is about one row, or a table as a whole: whose outcome does not depend on the order rows are met in.
fn statement(rng: &mut StdRng, alone: bool) -> String {
    let t = ["p", "p", "c", "c", "d"].choose(rng).copied().unwrap_or_default();
    let id = rng.random_range(1..=ROWS + 3);
    let other = rng.random_range(1..=ROWS + 3);
    let v = rng.random_range(0..100);
    match rng.random_range(0..115) {
        100..=101 => {
            format!(
                "with x as (update {t} set v = v + 1 where id = {id} returning *) update {t} a set v = x.v + 100 from x where a.id = {other}"
            )
        }
        102 => format!("with x as (update {t} set v = v + 1 where id = {id} returning *) delete from {t} a using x where a.id = {other}"),
        103 => {
            format!("with x as (delete from {t} where id = {id} returning *) update {t} a set v = x.v + 100 from x where a.id = {other}")
        }
        104..=106 => format!(
            "merge into {t} using (values ({id}, {v})) s(id, v) on {t}.id = s.id when matched and {t}.v % 2 = 0 then update set v = s.v \
             when matched then delete when not matched then insert values (s.id, s.v, s.v % 8)"
        ),
        107 => format!(
            "merge into {t} using (values ({id}, {v}), ({other}, {v})) s(id, v) on {t}.id = {id} when matched then update set v = {t}.v + s.v"
        ),
        108..=109 => format!("update {t} set v = v + 1 where ctid = (select ctid from {t} where id = {id}) returning v"),
        110 => format!("select a.id, a.v, b.v from {t} a join p b on b.id = a.id where a.id = {id} for update of a"),
        112..=114 => format!("cluster {t} using {t}_pkey"),
        111 => format!("select a.id, a.v, b.v from {t} a left join p b on b.id = a.v where a.id = {id} for share of a"),
        0..=17 => format!("select * from {t} order by 1, 2, 3"),
        18..=29 => {
            let strength = ["update", "no key update", "share", "key share"].choose(rng).copied().unwrap_or_default();
            let wait = ["", "", "", " nowait", " skip locked"].choose(rng).copied().unwrap_or_default();
            format!("select * from {t} where id = {id} for {strength}{wait}")
        }
        30..=45 => format!("update {t} set v = v + {v} where id = {id}"),
        46..=50 => format!("update {t} set v = v + 1 where id = {id} and v % 2 = {} returning *", v % 2),
        51..=54 => format!("update p set id = {other} where id = {id}"),
        55..=57 => format!("update c set p = {other} where id = {id}"),
        58..=63 => format!("delete from {t} where id = {id}"),
        64..=69 => format!("insert into p values ({id}, {v}, {other}) returning id"),
        70..=72 => format!("insert into c values ({id}, {v}, {other})"),
        73..=74 => format!("insert into d values ({id}, {v}, {other})"),
        75..=78 => format!("insert into {t} values ({id}, {v}, {other}) on conflict do nothing"),
        79..=84 => format!("insert into {t} values ({id}, {v}, {other}) on conflict (id) do update set v = {t}.v + excluded.v returning *"),
        85..=86 => {
            let modes =
                ["access share", "row share", "row exclusive", "share update exclusive", "share", "share row exclusive", "exclusive"];
            let mode = modes.choose(rng).copied().unwrap_or_default();
            // PostgreSQL 15 refuses where somebody waits, even if he waits for the asker; 17 and we do not.
            let nowait = if alone && rng.random_bool(0.3) { " nowait" } else { "" };
            format!("lock table {t} in {mode} mode{nowait}")
        }
        87..=88 => format!("select pg_advisory_xact_lock{}({})", if rng.random_bool(0.5) { "_shared" } else { "" }, id % 3),
        89..=90 => format!("select pg_try_advisory_xact_lock({})", id % 3),
        91 => format!("create index if not exists {t}_v on {t} (v)"),
        92 => format!("drop index if exists {t}_v"),
        93 => format!("alter table {t} add column if not exists extra int default {v}"),
        94 => format!("alter table {t} drop column if exists extra"),
        95 => ["truncate c", "truncate d", "set constraints all immediate", "set constraints all deferred"]
            .choose(rng)
            .copied()
            .unwrap_or_default()
            .into(),
        96 => format!("select count(*), sum(v) from {t}"),
        97 => "alter table c drop constraint if exists more; alter table c add constraint more check (v >= -1)".into(),
        98 => format!("update {t} set v = 1 / (v - v) where id = {id}"),
        _ => "select nosuch from p".into(),
    }
}

/// One run on both servers; the report of what differs, empty if nothing does.
pub(crate) fn compare(seed: u64, steps: u64, theirs: &str, ours: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut sides = [Side::open(theirs, 2).await, Side::open(ours, 2).await];
        for side in &sides {
            let sql = format!(
                "drop table if exists d, c, p; create table p (id int primary key, v int not null, u int unique); \
                 create table c (id int primary key, v int not null, p int references p on update cascade on delete set null); \
                 create table d (id int primary key, v int not null, p int references p on delete cascade deferrable initially deferred); \
                 insert into d select g, g, g from generate_series(1, 2) g; \
                 insert into p select g, g, g from generate_series(1, {ROWS}) g; insert into c select g, g, g from generate_series(1, {ROWS}) g"
            );
            side.watch.batch_execute(&sql).await.expect("tables");
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let mut speakers = [Speaker::default(), Speaker::default()];
        let mut waits: Vec<usize> = Vec::new();
        let mut history: Vec<String> = Vec::new();
        let (mut waited, mut errors) = (0, 0);
        for step in 0..steps {
            let free: Vec<usize> = (0..2).filter(|n| !waits.contains(n)).collect();
            match free.choose(&mut rng) {
                Some(&n) => {
                    let sql = speakers[n].next(&mut rng, waits.is_empty());
                    history.push(format!("{n}: {sql}"));
                    for side in &mut sides {
                        side.begin(n, &sql);
                    }
                    waits.push(n);
                }
                None => {
                    // Each waits for the other.
                    let n = *waits.last().expect("both wait");
                    history.push(format!("{n}: (cancelled)"));
                    for side in &mut sides {
                        side.cancel(n).await;
                        let task = side.running[n].take().expect("it waits");
                        let outcome = task.await.expect("joined");
                        side.running[n] = Some(tokio::spawn(async move { outcome }));
                    }
                }
            }
            // The one that just spoke first: it may have let the other go.
            for n in waits.clone().into_iter().rev() {
                let expected = sides[0].settle(n).await;
                let got = sides[1].settle(n).await;
                if expected != got {
                    let mut report = format!("--- seed {seed}, step {step}, session {n}\nexpected: {expected:?}got: {got:?}\n");
                    let from = history.len().saturating_sub(40);
                    write!(report, "--- before it\n{}\n", history[from..].join("\n")).expect("a string");
                    return report;
                }
                match expected {
                    Some(outcome) => {
                        errors += u64::from(matches!(outcome, Outcome::Error(..)));
                        speakers[n].heard(&outcome);
                        waits.retain(|w| *w != n);
                    }
                    None => waited += 1,
                }
            }
        }
        println!("seed {seed}: {steps} steps, {waited} waits, {errors} errors");
        String::new()
    })
}
