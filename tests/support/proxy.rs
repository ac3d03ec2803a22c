//! A TCP proxy in front of a node, for what networks do to a stream: delay, stall half open, cut, flip bits, change whole messages.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::node::{Node, PATIENCE};

/// Sees a message from the server, kind and body; may give another body.
pub type Tamper = Box<dyn FnMut(u8, &[u8]) -> Option<Vec<u8>> + Send>;

/// A proxy. Dropping it cuts what goes through it.
pub struct Proxy {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// No new connections.
    closed: bool,
    /// Connections accepted; the last one's number.
    accepted: u64,
    /// Connections up to this number are no more.
    cut: u64,
    /// Nothing passes on connections up to this number, and neither end is told anything.
    stalled: u64,
    delay: Duration,
    /// Bytes from the server until the next flip, and the bit.
    flip: Option<(usize, u8)>,
    tamper: Option<Tamper>,
    sockets: Vec<TcpStream>,
}

impl Proxy {
    /// A proxy that leads to `node`.
    pub fn new(node: &Node) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on loopback");
        let port = listener.local_addr().expect("its address").port();
        let (shared, target) = (Arc::<Shared>::default(), node.port);
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if serving.state.lock().closed {
                    return;
                }
                // A server that is not there ends the connection, as without a proxy.
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", target))) else { continue };
                connect(&serving, &client, &server).expect("threads and sockets for a connection");
            }
        });
        Self { port, shared }
    }

    /// How a standby connects through it.
    pub fn conninfo(&self, application_name: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres application_name={application_name}", self.port)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock());
        self.shared.changed.notify_all();
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.shared.state.lock().accepted
    }

    /// Ends all connections there are.
    pub fn cut(&self) {
        self.change(|state| {
            state.cut = state.accepted;
            for socket in state.sockets.drain(..) {
                drop(socket.shutdown(Shutdown::Both));
            }
        });
    }

    /// From now on nothing passes on the connections there are; new ones are as ever.
    pub fn stall_present(&self) {
        self.change(|state| state.stalled = state.accepted);
    }

    /// From now on nothing passes on any connection. New ones are accepted.
    pub fn stall_all(&self) {
        self.change(|state| state.stalled = u64::MAX);
    }

    /// What was held back passes, late.
    pub fn release(&self) {
        self.change(|state| state.stalled = 0);
    }

    /// From now on bytes take this long, each way.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Flips one bit of the byte that comes from a server after `bytes` others.
    pub fn flip(&self, bytes: usize, bit: u8) {
        self.change(|state| state.flip = Some((bytes, bit & 7)));
    }

    /// Whether the last flip asked for is yet to come.
    pub fn is_flip_pending(&self) -> bool {
        self.shared.state.lock().flip.is_some()
    }

    /// Connections made from now on have their messages from the server looked at.
    pub fn tamper(&self, tamper: Option<Tamper>) {
        self.change(|state| state.tamper = tamper);
    }

    /// Waits until it has accepted more than `before` connections.
    pub fn wait_for_more_than(&self, before: u64) {
        let began = Instant::now();
        let mut state = self.shared.state.lock();
        while state.accepted <= before {
            assert!(!self.shared.changed.wait_for(&mut state, PATIENCE).timed_out() && began.elapsed() < PATIENCE, "nobody connects");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| state.closed = true);
        self.cut();
        // The listener wakes to find that it is closed.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn connect(shared: &Arc<Shared>, client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (number, framed) = {
        let mut state = shared.state.lock();
        state.accepted += 1;
        state.sockets.extend([client.try_clone()?, server.try_clone()?]);
        (state.accepted, state.tamper.is_some())
    };
    shared.changed.notify_all();
    for (from, to, is_down) in [(client, server, false), (server, client, true)] {
        // At most 4 MB are on their way.
        let (put, take) = sync_channel(256);
        let (from, to, shared) = (from.try_clone()?, to.try_clone()?, Arc::clone(shared));
        std::thread::spawn(move || read(from, &put));
        std::thread::spawn(move || write(&shared, number, (is_down, framed), to, &take));
    }
    Ok(())
}

fn read(mut from: TcpStream, put: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buf = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        if put.send((Instant::now(), buf[..n].to_vec())).is_err() {
            return;
        }
    }
}

/// Writes what was read, in order, late if it has to be; then ends that direction.
fn write(shared: &Shared, number: u64, (is_down, framed): (bool, bool), mut to: TcpStream, take: &Receiver<(Instant, Vec<u8>)>) {
    let mut partial = Vec::new();
    loop {
        let next = take.recv();
        let mut state = shared.state.lock();
        loop {
            if state.cut >= number {
                return;
            }
            let left = next.as_ref().ok().and_then(|(came, _)| (*came + state.delay).checked_duration_since(Instant::now()));
            match left.filter(|left| !left.is_zero()) {
                _ if state.stalled >= number => shared.changed.wait(&mut state),
                Some(left) => drop(shared.changed.wait_for(&mut state, left)),
                None => break,
            }
        }
        let Ok((_, mut bytes)) = next else {
            drop(to.shutdown(Shutdown::Write));
            return;
        };
        if is_down && framed {
            partial.extend_from_slice(&bytes);
            bytes = messages(&mut partial, &mut state.tamper);
        }
        if is_down {
            flip(&mut state, &mut bytes);
        }
        drop(state);
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// The whole messages in `partial`, as they are to go on.
fn messages(partial: &mut Vec<u8>, tamper: &mut Option<Tamper>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(header) = partial.first_chunk::<5>() {
        let [kind, a, b, c, d] = *header;
        let end = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
        if partial.len() < end {
            break;
        }
        match tamper.as_mut().and_then(|tamper| tamper(kind, &partial[5..end])) {
            None => out.extend_from_slice(&partial[..end]),
            Some(body) => {
                out.push(kind);
                out.extend_from_slice(&u32::try_from(body.len() + 4).expect("a message").to_be_bytes());
                out.extend_from_slice(&body);
            }
        }
        partial.drain(..end);
    }
    out
}

fn flip(state: &mut State, bytes: &mut [u8]) {
    match state.flip {
        Some((left, bit)) if left < bytes.len() => {
            bytes[left] ^= 1 << bit;
            state.flip = None;
        }
        Some((left, bit)) => state.flip = Some((left - bytes.len(), bit)),
        None => {}
    }
}
