//! A TCP relay on loopback that counts what goes through it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context as _;

/// A relay. Dropped, it takes no more connections.
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    from_server: AtomicU64,
    from_client: AtomicU64,
    closed: AtomicBool,
}

impl Relay {
    /// One that leads to a port.
    pub(crate) fn new(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("a port for a relay")?;
        let port = listener.local_addr()?.port();
        let counts = Arc::<Counts>::default();
        let counting = Arc::clone(&counts);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if counting.closed.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", target))) else { continue };
                // A connection that cannot be relayed ends, as one to a server that is down.
                drop(relay(&counting, &client, &server));
            }
        });
        Ok(Self { port, counts })
    }

    /// Bytes so far, from the server and from its clients.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.counts.from_server.load(Ordering::Relaxed), self.counts.from_client.load(Ordering::Relaxed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.counts.closed.store(true, Ordering::Relaxed);
        // Its thread wakes to see it.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn relay(counts: &Arc<Counts>, client: &TcpStream, server: &TcpStream) -> std::io::Result<()> {
    for (from, to, down) in [(server, client, true), (client, server, false)] {
        let (mut from, mut to, counts) = (from.try_clone()?, to.try_clone()?, Arc::clone(counts));
        to.set_nodelay(true)?;
        std::thread::spawn(move || {
            let mut buf = vec![0; 256 << 10];
            while let Ok(n @ 1..) = from.read(&mut buf) {
                let count = if down { &counts.from_server } else { &counts.from_client };
                count.fetch_add(n as u64, Ordering::Relaxed);
                if to.write_all(&buf[..n]).is_err() {
                    break;
                }
            }
            drop(to.shutdown(Shutdown::Both));
            drop(from.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}
