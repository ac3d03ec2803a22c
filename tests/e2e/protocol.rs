//! The extended protocol as drivers use it: binary values, portals, pipelining, COPY, authentication.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, pin_mut};
use tokio_postgres::types::Type;

use crate::client::{block_on, connect, describe, error, text, try_connect};
use crate::support::node::{Node, PATIENCE};

#[test]
fn values_travel_in_binary_both_ways() {
    let node = Node::start_new("binary", "");
    block_on(async {
        let c = connect(&node).await;
        c.batch_execute("create table v (a int2, b int4, c int8, d float4, e float8, f bool, g text, h varchar(9), i bytea, j timestamptz, k oid, l char(4), m int4[], n text[])").await.expect("created");
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_123_456);
        let insert =
            c.prepare("insert into v values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)").await.expect("prepared");
        assert_eq!(insert.params()[0], Type::INT2);
        assert_eq!(insert.params()[13], Type::TEXT_ARRAY);
        let none: Option<&str> = None;
        c.execute(
            &insert,
            &[
                &-5_i16,
                &7_i32,
                &i64::MIN,
                &1.5_f32,
                &-0.1_f64,
                &true,
                &"häß\u{1F600}",
                &"var",
                &vec![0_u8, 255, 1],
                &now,
                &99_u32,
                &"ab",
                &vec![Some(1), None, Some(3)],
                &vec!["a", "", "c,\"d"],
            ],
        )
        .await
        .expect("inserted");
        c.execute(
            &insert,
            &[
                &1_i16,
                &2_i32,
                &3_i64,
                &4_f32,
                &5_f64,
                &false,
                &none,
                &none,
                &vec![0_u8; 0],
                &now,
                &0_u32,
                &none,
                &Vec::<Option<i32>>::new(),
                &vec!["x"],
            ],
        )
        .await
        .expect("inserted");
        let rows = c.query("select * from v order by a", &[]).await.expect("rows");
        let r = &rows[0];
        assert_eq!(
            (r.get::<_, i16>(0), r.get::<_, i32>(1), r.get::<_, i64>(2), r.get::<_, f32>(3), r.get::<_, f64>(4)),
            (-5, 7, i64::MIN, 1.5, -0.1)
        );
        assert!(r.get::<_, bool>(5));
        assert_eq!((r.get::<_, &str>(6), r.get::<_, &str>(7), r.get::<_, &[u8]>(8)), ("häß\u{1F600}", "var", &[0, 255, 1][..]));
        assert_eq!(r.get::<_, SystemTime>(9), now);
        assert_eq!((r.get::<_, u32>(10), r.get::<_, &str>(11)), (99, "ab  "));
        assert_eq!(r.get::<_, Vec<Option<i32>>>(12), [Some(1), None, Some(3)]);
        assert_eq!(r.get::<_, Vec<String>>(13), ["a", "", "c,\"d"]);
        assert_eq!(rows[1].get::<_, Option<&str>>(6), None);
        let count: i64 = c.query_one("select count(*) from v where g = $1 or c < $2", &[&"nope", &0_i64]).await.expect("a row").get(0);
        assert_eq!(count, 1);
    });
}

#[test]
fn portals_give_rows_piece_by_piece() {
    let node = Node::start_new("portals", "");
    block_on(async {
        let mut c = connect(&node).await;
        let tx = c.transaction().await.expect("begun");
        let portal = tx.bind("select g, repeat('x', 100) from generate_series(1, 1000) g", &[]).await.expect("bound");
        let mut seen = 0;
        loop {
            let rows = tx.query_portal(&portal, 64).await.expect("rows");
            if rows.is_empty() {
                break;
            }
            assert!(rows.len() <= 64);
            for row in rows {
                seen += 1;
                assert_eq!(row.get::<_, i32>(0), seen);
            }
        }
        assert_eq!(seen, 1000);
        tx.commit().await.expect("committed");
    });
}

#[test]
fn requests_may_be_sent_before_the_answers_come() {
    let node = Node::start_new("pipeline", "");
    block_on(async {
        let c = connect(&node).await;
        c.batch_execute("create table p (id int primary key, v int)").await.expect("created");
        let insert = c.prepare("insert into p values ($1, $2)").await.expect("prepared");
        let select = c.prepare("select v from p where id = $1").await.expect("prepared");
        let all = (0..200_i32).map(|i| {
            let (c, insert) = (&c, &insert);
            async move { c.execute(insert, &[&i, &(i * 2)]).await }
        });
        for r in futures_util::future::join_all(all).await {
            assert_eq!(r.expect("inserted"), 1);
        }
        // One in the middle fails; the others are answered all the same.
        let all = (0..50_i32).map(|i| {
            let (c, insert, select) = (&c, &insert, &select);
            async move {
                if i == 25 {
                    let e = c.execute(insert, &[&1, &1]).await.expect_err("a duplicate");
                    assert!(describe(&e).starts_with("23505"));
                    -1
                } else {
                    c.query_one(select, &[&i]).await.expect("a row").get::<_, i32>(0)
                }
            }
        });
        let got = futures_util::future::join_all(all).await;
        for (i, v) in (0_i32..).zip(got) {
            assert_eq!(v, if i == 25 { -1 } else { i * 2 });
        }
    });
}

#[test]
fn copy_streams_both_ways() {
    let node = Node::start_new("copy", "");
    block_on(async {
        let c = connect(&node).await;
        c.batch_execute("create table c (id int primary key, v text)").await.expect("created");
        let sink = c.copy_in("copy c from stdin").await.expect("copy in");
        pin_mut!(sink);
        for i in 0..5000 {
            sink.send(Bytes::from(format!("{i}\tvalue {i}\n"))).await.expect("sent");
        }
        assert_eq!(sink.finish().await.expect("finished"), 5000);
        let out: Vec<Bytes> =
            c.copy_out("copy (select * from c order by id) to stdout").await.expect("copy out").try_collect().await.expect("read");
        let bytes: Vec<u8> = out.concat();
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 5000);
        assert!(bytes.ends_with(b"4999\tvalue 4999\n"));
        // Binary, there and back.
        let stream = c.copy_out("copy c to stdout (format binary)").await.expect("copy out");
        let chunks: Vec<Bytes> = stream.map(|r| r.expect("read")).collect().await;
        c.batch_execute("truncate c").await.expect("truncated");
        let sink = c.copy_in("copy c from stdin (format binary)").await.expect("copy in");
        pin_mut!(sink);
        for chunk in chunks {
            sink.send(chunk).await.expect("sent");
        }
        assert_eq!(sink.finish().await.expect("finished"), 5000);
        // Given up by the client: nothing stays.
        let sink = c.copy_in("copy c from stdin").await.expect("copy in");
        {
            pin_mut!(sink);
            sink.send(Bytes::from_static(b"9999999\tx\n")).await.expect("sent");
        }
        assert_eq!(text(&c, "select count(*), sum(id) from c").await, format!("5000|{}", 4999 * 5000 / 2));
    });
}

#[test]
fn passwords_are_asked_for_where_pg_hba_says_so() {
    let node = Node::start_new("auth", "");
    block_on(async {
        let c = connect(&node).await;
        text(&c, "create role scram login password 'secret'; create role nologin; set password_encryption = 'md5'; create role old login password 'legacy'").await;
    });
    let hba = node.data().join("pg_hba.conf");
    std::fs::write(
        &hba,
        "host all postgres 127.0.0.1/32 trust\nhost all old 127.0.0.1/32 md5\nhost all scram 127.0.0.1/32 scram-sha-256\nhost all nobody 127.0.0.1/32 reject\nlocal all all trust\n",
    )
    .expect("pg_hba.conf");
    node.reload();
    block_on(async {
        let login = |user: &str, password: &str| {
            let conninfo = format!("host=127.0.0.1 port={} user={user} password={password} dbname=postgres", node.port);
            async move {
                match try_connect(&conninfo).await {
                    Ok(c) => text(&c, "select current_user").await,
                    Err(e) => describe(&e),
                }
            }
        };
        // The server hears of the reload when it gets to it; until then it trusts everybody.
        let began = Instant::now();
        while login("scram", "wrong").await == "scram" {
            assert!(began.elapsed() < PATIENCE, "{}", node.log());
        }
        assert_eq!(login("scram", "secret").await, "scram");
        assert_eq!(login("scram", "wrong").await, "28P01 password authentication failed for user \"scram\"");
        assert_eq!(login("old", "legacy").await, "old");
        assert_eq!(login("old", "no").await, "28P01 password authentication failed for user \"old\"");
        assert!(login("nobody", "x").await.starts_with("28000 pg_hba.conf rejects connection"));
        assert!(login("missing", "x").await.starts_with("28000 no pg_hba.conf entry for host"));
        let c = connect(&node).await;
        assert_eq!(error(&c, "create role scram").await, "42710 role \"scram\" already exists");
        let missing =
            try_connect(&format!("host=127.0.0.1 port={} user=postgres dbname=nope", node.port)).await.err().map(|e| describe(&e));
        assert_eq!(missing.as_deref(), Some("3D000 database \"nope\" does not exist"));
        // The socket in the node's directory.
        let socket = try_connect(&format!("host={} port={} user=postgres dbname=postgres", node.home.path().display(), node.port))
            .await
            .expect("a connection");
        assert_eq!(text(&socket, "select 1").await, "1");
    });
}

#[test]
fn connections_are_limited_and_idle_ones_end() {
    let node = Node::start_new("limits", "max_connections = 8\nsuperuser_reserved_connections = 2");
    block_on(async {
        let admin = connect(&node).await;
        text(&admin, "create role user1 login").await;
        let conninfo = format!("host=127.0.0.1 port={} user=user1 dbname=postgres", node.port);
        let mut held = Vec::new();
        let refused = loop {
            match try_connect(&conninfo).await {
                Ok(c) => held.push(c),
                Err(e) => break describe(&e),
            }
            assert!(held.len() < 20, "nobody is refused");
        };
        assert_eq!(refused, "53300 remaining connection slots are reserved for non-replication superuser connections");
        assert_eq!(held.len(), 5);
        text(&admin, "set idle_in_transaction_session_timeout = '30ms'; begin; select 1").await;
        while !admin.is_closed() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn roles_and_databases_limit_their_connections_and_invalid_databases_take_none() {
    let node = Node::start_new("limits", "");
    block_on(async {
        let admin = connect(&node).await;
        text(&admin, "create role one login connection limit 1; create role two login; create role three login").await;
        for sql in ["create database d connection limit 1", "create database e"] {
            text(&admin, sql).await;
        }
        let conninfo = |user: &str, database: &str| format!("host=127.0.0.1 port={} user={user} dbname={database}", node.port);
        let refused = async |user: &str, database: &str| match try_connect(&conninfo(user, database)).await {
            Ok(_) => panic!("{user} gets into {database}"),
            Err(e) => describe(&e),
        };
        let _one = try_connect(&conninfo("one", "postgres")).await.expect("the first");
        assert_eq!(refused("one", "postgres").await, "53300 too many connections for role \"one\"");
        let _two = try_connect(&conninfo("two", "d")).await.expect("the first");
        assert_eq!(refused("three", "d").await, "53300 too many connections for database \"d\"");
        let _superuser = try_connect(&conninfo("postgres", "d")).await.expect("a superuser");

        text(&admin, "update pg_database set datconnlimit = -2 where datname = 'e'").await;
        assert_eq!(refused("postgres", "e").await, "55000 cannot connect to invalid database \"e\"");
        let said = error(&admin, "create database f template e").await;
        assert_eq!(said, "55000 cannot use invalid database \"e\" as template");
        let altering = connect(&node).await;
        assert_eq!(error(&altering, "alter database e connection limit 10").await, "55000 cannot alter invalid database \"e\"");
        text(&admin, "drop database e").await;
    });
}
