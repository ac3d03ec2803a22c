//! One client's socket and its two buffers.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::registry::SessionEntry;
use crate::txn::CancelReason;
use crate::wire::Writer;
use crate::wire::frontend::{Frontend, WireError};

/// A socket of either family. Clones are the same socket: what tells the client of something while a statement runs has one.
#[derive(Clone, Debug)]
pub(super) struct Stream(Arc<Socket>);

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same on either.
macro_rules! on {
    ($stream:expr, $s:ident => $call:expr) => {
        match &*$stream.0 {
            Socket::Tcp($s) => $call,
            Socket::Unix($s) => $call,
        }
    };
}

impl Stream {
    pub(super) fn tcp(s: TcpStream) -> Self {
        Self(Arc::new(Socket::Tcp(s)))
    }

    pub(super) fn unix(s: UnixStream) -> Self {
        Self(Arc::new(Socket::Unix(s)))
    }

    /// Writes what the socket takes now.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        on!(self, s => s.try_write(bytes))
    }

    async fn writable(&self) -> io::Result<()> {
        on!(self, s => s.writable().await)
    }

    /// Reads what is there now. A read that leaves room has emptied the socket: the runtime is told so, or it would have the next one tried in vain.
    fn try_read(&self, into: &mut BytesMut) -> io::Result<usize> {
        let room = into.capacity() - into.len();
        let mut got = None;
        let tried = on!(self, s => s.try_io(Interest::READABLE, || {
            let n = s.try_read_buf(into)?;
            got = Some(n);
            if n > 0 && n < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
        }));
        got.map_or(tried, Ok)
    }

    /// Reads what is there, at least something; 0: the client closed its end. Cancel-safe.
    async fn read(&self, into: &mut BytesMut) -> io::Result<usize> {
        loop {
            on!(self, s => s.readable().await)?;
            match self.try_read(into) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                done => return done,
            }
        }
    }

    /// Waits until the socket takes bytes, or its session is to end.
    async fn writable_for(&self, session: &SessionEntry) -> io::Result<()> {
        loop {
            if session.cancel.reason().is_some_and(CancelReason::ends_session) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            tokio::select! {
                ready = self.writable() => return ready,
                () = session.wake.notified() => {}
            }
        }
    }

    /// Writes a whole message from inside synchronous code, ahead of what the connection still holds back.
    pub(super) fn write_at_once(&self, session: &SessionEntry, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    crate::txn::blocking(|| tokio::runtime::Handle::current().block_on(self.writable_for(session)))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The client's address; `None` for a Unix socket.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match &*self.0 {
            Socket::Tcp(s) => s.peer_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Address and port of this end.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        match &*self.0 {
            Socket::Tcp(s) => s.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// User id of the process at the other end of a Unix socket.
    pub(super) fn peer_uid(&self) -> Option<u32> {
        match &*self.0 {
            Socket::Tcp(_) => None,
            Socket::Unix(s) => s.peer_cred().ok().map(|c| c.uid()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(on!(self, s => s.poll_read_ready(cx)))?;
            match on!(self, s => s.try_read(buf.initialize_unfilled())) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(on!(self, s => s.poll_write_ready(cx)))?;
            match self.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = on!(self, s => socket2::SockRef::from(s).shutdown(std::net::Shutdown::Write));
        Poll::Ready(match done {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}

/// Why no message came.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The client closed its end, or the socket failed.
    Closed,
    /// What it sent is no message.
    Wire(WireError),
}

/// How much a read asks for at least.
const READ_BYTES: usize = 8 * 1024;
/// Output held back until the next Sync; beyond it the socket is written to in between.
pub(super) const OUTPUT_BYTES: usize = 64 * 1024;
/// A buffer that grew beyond this is given back when it is empty, so that an idle session is small.
const KEEP_BYTES: usize = 64 * 1024;

/// A client's socket with what was read and not decoded, and what was encoded and not written.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) input: BytesMut,
    pub(super) out: Writer,
    /// Bytes of `out` that are written already.
    sent: usize,
    /// The session, once there is one: a call to end it also ends a wait for a client that does not read.
    pub(super) session: Option<Arc<SessionEntry>>,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), out: Writer::default(), sent: 0, session: None }
    }

    /// A message that is already here.
    pub(super) fn decode(&mut self, max: usize) -> Result<Option<Frontend>, ReadError> {
        Frontend::decode(&mut self.input, max).map_err(ReadError::Wire)
    }

    /// Waits for more bytes. Cancel-safe.
    pub(super) async fn fill(&mut self) -> Result<(), ReadError> {
        self.input.reserve(READ_BYTES);
        match self.stream.read(&mut self.input).await {
            Ok(0) | Err(_) => Err(ReadError::Closed),
            Ok(_) => Ok(()),
        }
    }

    /// The next message. Cancel-safe.
    pub(super) async fn next(&mut self, max: usize) -> Result<Frontend, ReadError> {
        loop {
            if let Some(message) = self.decode(max)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Writes everything: one system call if the socket takes it.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.try_flush()? {
            self.writable().await?;
        }
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        match &self.session {
            Some(session) => self.stream.writable_for(session).await,
            None => self.stream.writable().await,
        }
    }

    /// Writes what the socket takes; true if nothing is left.
    fn try_flush(&mut self) -> io::Result<bool> {
        while self.sent < self.out.buf.len() {
            match self.stream.try_write(&self.out.buf[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.sent = 0;
        self.out.buf.clear();
        if self.out.buf.capacity() > KEEP_BYTES * 4 {
            self.out.buf = BytesMut::new();
        }
        Ok(true)
    }

    /// Writes everything from inside synchronous code, which may block this thread: for results longer than [`OUTPUT_BYTES`].
    pub(super) fn flush_blocking(&mut self) -> io::Result<()> {
        if self.try_flush()? {
            return Ok(());
        }
        crate::txn::blocking(|| {
            let runtime = tokio::runtime::Handle::current();
            while !self.try_flush()? {
                runtime.block_on(self.writable())?;
            }
            Ok(())
        })
    }

    /// Gives memory back before an idle wait.
    pub(super) fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > KEEP_BYTES {
            self.input = BytesMut::new();
        }
    }
}
