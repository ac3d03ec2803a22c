//! A TCP proxy between two nodes: it can send connections elsewhere, cut them, and flip bits on their way to the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: AtomicU16,
    cuts: watch::Sender<u64>,
    /// How many bytes from the server pass before the next flip; the bit within that byte in the low three bits. 0: none.
    flip: AtomicU64,
    flipped: watch::Sender<u64>,
}

impl Proxy {
    pub(super) async fn new(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            cuts: watch::Sender::new(0),
            flip: AtomicU64::new(0),
            flipped: watch::Sender::new(0),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let mut cuts = shared.cuts.subscribe();
                    cuts.mark_unchanged();
                    // A target that is not there ends the connection, as without a proxy.
                    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.target.load(Ordering::Relaxed))).await else { return };
                    tokio::select! {
                        () = pump(client, server, &shared) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { port, shared }
    }

    pub(super) fn conninfo(&self, name: &str) -> String {
        format!("host=127.0.0.1 port={} user=test application_name={name}", self.port)
    }

    /// Sends new connections to another port, and ends those there are.
    pub(super) fn retarget(&self, port: u16) {
        self.shared.target.store(port, Ordering::Relaxed);
        self.shared.cuts.send_modify(|n| *n += 1);
    }

    /// Flips one bit of the byte that comes from the server after `bytes` others; returns once it is done.
    pub(super) async fn flip(&self, bytes: u64, bit: u8) {
        let mut flipped = self.shared.flipped.subscribe();
        let before = *flipped.borrow_and_update();
        self.shared.flip.store((bytes + 1) << 3 | u64::from(bit & 7), Ordering::Relaxed);
        flipped.wait_for(|n| *n > before).await.unwrap();
    }
}

async fn pump(mut client: TcpStream, mut server: TcpStream, shared: &Shared) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut buf = vec![0; 16 << 10];
        while let Ok(n @ 1..) = from_server.read(&mut buf).await {
            let armed = shared.flip.load(Ordering::Relaxed);
            let left = armed >> 3;
            if left > n as u64 {
                shared.flip.fetch_sub((n as u64) << 3, Ordering::Relaxed);
            } else if left > 0 {
                buf[usize::try_from(left - 1).unwrap()] ^= 1 << (armed & 7);
                shared.flip.store(0, Ordering::Relaxed);
                shared.flipped.send_modify(|n| *n += 1);
            }
            if to_client.write_all(&buf[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = up => {}
        () = down => {}
    }
}
