//! Two engines in one process, with a real socket between them: clone, stream, promote, follow.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use afterimage_wal::{Fork, Lsn, RelId, Xid};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::connection::Connection;
use super::sender::{After, serve};
use super::services::Replication;
use crate::access::{RelHandle, heap};
use crate::cli::basebackup;
use crate::config::{Config, Setting};
use crate::engine::{CreateOptions, Engine, EngineOptions, ShutdownMode};
use crate::storage::PoolOptions;
use crate::txn::{CancelFlag, CommitLevel, ProcId, TransactionOptions};
use crate::wire::backend::BlockStatus;
use crate::wire::{Frontend, Startup, Writer};

mod proxy;
use proxy::Proxy;

const REL: RelId = RelId { spc: 1663, db: 5, rel: 16_384 };

struct TestNode {
    engine: Arc<Engine>,
    node: Arc<Replication>,
    port: u16,
}

fn lay(dir: &Path) {
    let engine =
        Engine::create(dir, CreateOptions { segment_bytes: 1 << 20, pool: PoolOptions { buffers: 64 }, ..CreateOptions::default() })
            .unwrap();
    engine.pool().create_database_dir(5, 1663, Xid::INVALID).unwrap();
    engine.pool().create_fork(REL, Fork::Main).unwrap();
    engine.shutdown(ShutdownMode::Fast).unwrap();
}

async fn open(dir: &Path, settings: &[(&str, &str)]) -> TestNode {
    let options = EngineOptions { pool: PoolOptions { buffers: 64 }, hold_wal: true, ..EngineOptions::default() };
    let engine = Engine::open(dir, options).unwrap();
    let config = Config::in_memory(dir, settings).unwrap();
    config.set_internal(Setting::WalSegmentSize, "1MB").unwrap();
    let node = Replication::start(Arc::clone(&engine), config).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = Arc::clone(&node);
    tokio::spawn(async move {
        static PID: AtomicI32 = AtomicI32::new(1000);
        while let Ok((socket, _)) = listener.accept().await {
            let (node, pid) = (Arc::clone(&served), PID.fetch_add(1, Ordering::Relaxed));
            tokio::spawn(async move {
                session(Arc::clone(&node), socket, pid).await;
                node.slots.end_session(pid);
            });
        }
    });
    TestNode { engine, node, port }
}

/// As much of a session as a replication client needs.
async fn session(node: Arc<Replication>, mut socket: tokio::net::TcpStream, pid: i32) {
    let (mut incoming, mut out) = (BytesMut::new(), Writer::default());
    let name = loop {
        if let Some(Startup::Session { params, .. }) = Startup::decode(&mut incoming).unwrap() {
            break params.iter().find(|(k, _)| k == "application_name").map(|(_, v)| v.clone()).unwrap_or_default();
        }
        if socket.read_buf(&mut incoming).await.unwrap() == 0 {
            return;
        }
    };
    out.authentication(0, &[]);
    out.key_data(pid, 0);
    out.parameter_status("server_version", "15.18 (Afterimage test)");
    loop {
        out.ready(BlockStatus::Idle);
        socket.write_all(&out.buf).await.unwrap();
        out.buf.clear();
        let text = loop {
            match Frontend::decode(&mut incoming, 1 << 20).unwrap() {
                Some(Frontend::Query(text)) => break text,
                Some(Frontend::Terminate) => return,
                Some(_) => {}
                None => {
                    if socket.read_buf(&mut incoming).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            }
        };
        let command = super::command::parse(&text).unwrap();
        let mut connection = Connection {
            socket: &mut socket,
            may_write_files: false,
            incoming: &mut incoming,
            out: &mut out,
            pid,
            user: "test",
            application_name: &name,
            client: None,
            backend_start: 0,
            database: None,
        };
        match serve(&node, &mut connection, command).await {
            Ok(After::Ready) => {}
            Ok(After::Close) => return,
            Err(error) => out.error(error.fields()),
        }
    }
}

impl TestNode {
    fn insert(&self, from: u32, upto: u32, level: CommitLevel) {
        static NEXT: AtomicI32 = AtomicI32::new(1);
        let proc = self.engine.txns().enter(ProcId(NEXT.fetch_add(1, Ordering::Relaxed)), CancelFlag::new());
        let mut txn = self.engine.txns().begin(&proc, TransactionOptions::default());
        for n in from..upto {
            let mut row = n.to_le_bytes().to_vec();
            row.resize(100, 7);
            heap::insert(self.engine.ctx(), &mut txn, &RelHandle::permanent(16_384, REL), &row).unwrap();
        }
        txn.commit(level).unwrap().wait().unwrap();
    }

    fn rows(&self) -> BTreeSet<u32> {
        static NEXT: AtomicI32 = AtomicI32::new(500);
        let proc = self.engine.txns().enter(ProcId(NEXT.fetch_add(1, Ordering::Relaxed)), CancelFlag::new());
        let mut txn = self.engine.txns().begin(&proc, TransactionOptions::default());
        let snapshot = txn.snapshot().unwrap();
        let mut scan = heap::HeapScan::new(self.engine.ctx(), &RelHandle::permanent(16_384, REL), &snapshot).unwrap();
        let mut found = BTreeSet::new();
        while let Some((_, row)) = scan.next(self.engine.ctx()).unwrap() {
            found.insert(u32::from_le_bytes(*row.first_chunk().unwrap()));
        }
        found
    }

    fn conninfo(&self, name: &str) -> String {
        format!("host=127.0.0.1 port={} user=test application_name={name}", self.port)
    }

    async fn clone_to(&self, dir: &Path) {
        let target = dir.display().to_string();
        let line = ["-D", &target, "-R", "-c", "fast", "-N", "-d", &self.conninfo("clone")].map(str::to_owned);
        let options = basebackup::Options::parse(&line).unwrap();
        basebackup::run(&options).await.unwrap();
    }

    async fn standby(&self, dir: &Path, name: &str) -> Self {
        self.clone_to(dir).await;
        open(dir, &[("primary_conninfo", &self.conninfo(name))]).await
    }

    async fn reaches(&self, lsn: Lsn) {
        let mut replayed = self.engine.subscribe_replayed();
        tokio::time::timeout(Duration::from_secs(30), replayed.wait_for(|at| *at >= lsn)).await.expect("replay stands still").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_streams_is_promoted_and_another_follows_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = |name: &str| home.path().join(name);
    lay(&dir("a"));
    let a = open(&dir("a"), &[]).await;
    a.insert(0, 500, CommitLevel::On);
    let b = a.standby(&dir("b"), "b").await;
    let c = a.standby(&dir("c"), "c").await;
    a.insert(500, 3000, CommitLevel::On);
    b.reaches(a.engine.wal().flushed()).await;
    c.reaches(a.engine.wal().flushed()).await;
    assert_eq!(b.rows(), (0..3000).collect());
    let sender = a.node.senders.list().into_iter().find(|s| s.application_name == "b").unwrap();
    assert!(sender.wire_bytes < sender.wal_bytes, "the stream is compressed: {sender:?}");

    b.node.promote().await.unwrap();
    assert_eq!(b.engine.wal().tli().get(), 2);
    b.insert(3000, 3100, CommitLevel::On);
    assert_eq!(b.rows(), (0..3100).collect());

    // c goes over to b, which is ahead by a timeline.
    c.engine.shutdown(ShutdownMode::Immediate).unwrap();
    c.node.stop_receiver().await;
    drop(c);
    let c = open(&dir("c"), &[("primary_conninfo", &b.conninfo("c"))]).await;
    c.reaches(b.engine.wal().flushed()).await;
    assert_eq!(c.rows(), (0..3100).collect());
    assert_eq!(c.engine.wal().tli().get(), 2);

    // a went on alone and may not follow.
    a.insert(9000, 9001, CommitLevel::On);
    a.engine.shutdown(ShutdownMode::Fast).unwrap();
    a.node.finish_senders().await;
    drop(a);
    std::fs::write(dir("a").join("standby.signal"), "").unwrap();
    let a = open(&dir("a"), &[("primary_conninfo", &b.conninfo("a"))]).await;
    let refused = tokio::time::timeout(Duration::from_secs(10), a.node.receiver.failure()).await.unwrap();
    assert!(refused.contains("forked off current database system timeline 1 before current recovery point"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cascade_follows_when_its_upstream_is_promoted_without_reconnecting() {
    let home = tempfile::tempdir().unwrap();
    let dir = |name: &str| home.path().join(name);
    lay(&dir("a"));
    let a = open(&dir("a"), &[]).await;
    a.insert(0, 10, CommitLevel::On);
    let b = a.standby(&dir("b"), "b").await;
    b.reaches(a.engine.wal().flushed()).await;
    let c = b.standby(&dir("c"), "c").await;
    a.insert(10, 20, CommitLevel::On);
    c.reaches(a.engine.wal().flushed()).await;
    let receiver = c.node.receiver.get().unwrap().pid;
    b.node.promote().await.unwrap();
    b.insert(20, 30, CommitLevel::On);
    c.reaches(b.engine.wal().flushed()).await;
    assert_eq!(c.rows(), (0..30).collect());
    assert_eq!(c.node.receiver.get().unwrap().pid, receiver);
    assert_eq!(c.node.receiver.get().unwrap().received_tli.get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_the_synchronous_standby() {
    let home = tempfile::tempdir().unwrap();
    let dir = |name: &str| home.path().join(name);
    lay(&dir("a"));
    {
        let a = open(&dir("a"), &[]).await;
        a.clone_to(&dir("b")).await;
        a.engine.shutdown(ShutdownMode::Fast).unwrap();
    }
    let a = Arc::new(open(&dir("a"), &[("synchronous_standby_names", "b")]).await);
    let waiting = tokio::task::spawn_blocking({
        let a = Arc::clone(&a);
        move || a.insert(0, 1, CommitLevel::On)
    });
    // A commit that asks for less is not held up, and shows that the other had its time.
    tokio::task::block_in_place(|| a.insert(1, 2, CommitLevel::Local));
    assert!(!waiting.is_finished());
    let b = open(&dir("b"), &[("primary_conninfo", &a.conninfo("b"))]).await;
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    b.reaches(a.engine.wal().flushed()).await;
    assert_eq!(b.rows(), (0..2).collect());
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The primary loses its tail (a disk that lied, a restored snapshot) and goes on under the same timeline: other bytes at LSNs that its
/// standby holds already. What the standby has not replayed it discards; otherwise it says so and follows no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wal_that_the_primary_lost_is_discarded_unless_it_was_replayed() {
    for unapplied in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let dir = |name: &str| home.path().join(name);
        lay(&dir("a"));
        let a = open(&dir("a"), &[]).await;
        let proxy = Proxy::new(a.port).await;
        a.clone_to(&dir("b")).await;
        let b = open(&dir("b"), &[("primary_conninfo", &proxy.conninfo("b"))]).await;
        a.insert(0, 100, CommitLevel::On);
        b.reaches(a.engine.wal().flushed()).await;
        copy_dir(&dir("a"), &dir("old"));
        if unapplied {
            b.engine.replay().unwrap().pause();
        }
        a.insert(100, 200, CommitLevel::On);
        let lost = a.engine.wal().flushed();
        b.node.wal_moved().wait_for(|lsn| *lsn >= lost).await.unwrap();
        if !unapplied {
            b.reaches(lost).await;
        }
        let old = open(&dir("old"), &[]).await;
        old.insert(500, 600, CommitLevel::On);
        proxy.retarget(old.port);
        if unapplied {
            let theirs = old.engine.wal().start_id();
            b.node.wal_moved().wait_for(|_| b.engine.wal().start_id() == theirs).await.unwrap();
            b.engine.replay().unwrap().resume();
            b.reaches(old.engine.wal().flushed()).await;
            assert_eq!(b.rows(), (0..100).chain(500..600).collect());
            // And so it does after a restart, which judges the WAL by its marks.
            b.node.stop_receiver().await;
            b.engine.shutdown(ShutdownMode::Immediate).unwrap();
            drop(b);
            let b = open(&dir("b"), &[("primary_conninfo", &proxy.conninfo("b"))]).await;
            old.insert(600, 700, CommitLevel::On);
            b.reaches(old.engine.wal().flushed()).await;
            assert_eq!(b.rows(), (0..100).chain(500..700).collect());
        } else {
            let refused =
                tokio::time::timeout(Duration::from_secs(10), b.node.receiver.failure_with("is not part of the primary's history"))
                    .await
                    .unwrap();
            assert!(refused.contains("Rewind this node"), "{refused}");
            assert_eq!(b.rows(), (0..200).collect());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_wrote_on_its_own_is_refused_under_the_same_timeline() {
    let home = tempfile::tempdir().unwrap();
    let dir = |name: &str| home.path().join(name);
    lay(&dir("a"));
    let a = open(&dir("a"), &[]).await;
    a.insert(0, 10, CommitLevel::On);
    a.clone_to(&dir("c")).await;
    std::fs::remove_file(dir("c").join("standby.signal")).unwrap();
    let c = open(&dir("c"), &[]).await;
    assert_eq!(c.engine.wal().tli(), a.engine.wal().tli());
    c.insert(10, 20, CommitLevel::On);
    c.engine.shutdown(ShutdownMode::Fast).unwrap();
    c.node.finish_senders().await;
    drop(c);
    a.insert(20, 2000, CommitLevel::On);
    std::fs::write(dir("c").join("standby.signal"), "").unwrap();
    let c = open(&dir("c"), &[("primary_conninfo", &a.conninfo("c"))]).await;
    let refused = tokio::time::timeout(Duration::from_secs(10), c.node.receiver.failure_with("is not in this server's history")).await;
    assert!(refused.unwrap().contains("start id"));
    assert_eq!(c.rows(), (0..20).collect());
}

/// Whatever bit is flipped on the way, nothing wrong is kept and the standby is equal again at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_in_a_plain_stream_are_found_and_healed() {
    let home = tempfile::tempdir().unwrap();
    let dir = |name: &str| home.path().join(name);
    lay(&dir("a"));
    let a = open(&dir("a"), &[]).await;
    let proxy = Proxy::new(a.port).await;
    a.clone_to(&dir("b")).await;
    let b = open(&dir("b"), &[("primary_conninfo", &proxy.conninfo("b")), ("wal_receiver_compression", "off")]).await;
    b.reaches(a.engine.wal().flushed()).await;
    let mut seed = 0x9E37_79B9_u64;
    let mut at = 0;
    for _ in 0..40 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let flip = proxy.flip((seed >> 33) % 9000, seed.to_le_bytes()[2]);
        tokio::pin!(flip);
        // The flip needs bytes to pass.
        while tokio::time::timeout(Duration::from_millis(1), &mut flip).await.is_err() {
            tokio::task::block_in_place(|| a.insert(at, at + 10, CommitLevel::On));
            at += 10;
        }
        let flipped = std::time::Instant::now();
        b.reaches(a.engine.wal().flushed()).await;
        assert!(flipped.elapsed() < Duration::from_secs(5), "{:?}", flipped.elapsed());
    }
    assert_eq!(b.rows(), a.rows());
    assert_eq!(b.rows(), (0..at).collect());
}
