//! The connection under the HTTP server, so that a scripted fault can do what no well-behaved server does: close
//! in the middle of a body, close without an answer, or never stop sending.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Accepts connections until the org stops.
pub(super) struct WireListener {
    tcp: TcpListener,
    stop: CancellationToken,
}

impl WireListener {
    pub(super) fn new(tcp: TcpListener, stop: CancellationToken) -> Self {
        Self { tcp, stop }
    }
}

impl Listener for WireListener {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.tcp.accept().await {
                Ok((stream, peer)) => {
                    // A small answer must not wait for the client's acknowledgement: benches measure the daemon.
                    let _ = stream.set_nodelay(true);
                    let stopped = Box::pin(self.stop.clone().cancelled_owned());
                    let next_drop = Box::pin(tokio::time::sleep(Duration::ZERO));
                    return (Wire { stream, stopped, next_drop, control: WireControl::default() }, peer);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When the next byte of an answer that trickles may leave.
    next_drop: Pin<Box<Sleep>>,
    control: WireControl,
}

/// A handler's grip on the connection it answers.
#[derive(Debug, Clone, Default)]
pub(super) struct WireControl(Arc<Mutex<Mode>>);

#[derive(Debug, Clone, Copy, Default)]
enum Mode {
    /// What is written is sent.
    #[default]
    Whole,
    /// The head is sent and `left` bytes after it; then the connection breaks. `matched` counts how much of the empty
    /// line that ends the head has gone by.
    Cut { matched: usize, left: usize },
    /// The answer is replaced by one that never ends; `sent_head` bytes of its head are out.
    Endless { sent_head: usize },
    /// The same, but what follows the head comes a byte at a time.
    Drip { sent_head: usize },
}

/// The empty line between head and body.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The head of the answer that never ends: no length, so the client can only find out by reading. It has a date, which
/// need not be right: without one a reader of the log would not even look at the body.
const ENDLESS_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
                              date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n[";

/// The pause between two bytes of an answer that trickles: far below every time-out between two reads.
pub(super) const DRIP: Duration = Duration::from_millis(50);

/// What follows it for ever.
const ENDLESS_FILL: &[u8] = &[b' '; 16 * 1024];

impl WireControl {
    /// Breaks the connection before another byte of the answer leaves.
    pub(super) fn cut_now(&self) {
        self.set(Mode::Cut { matched: HEAD_END.len(), left: 0 });
    }

    /// Sends the head and `bytes` of the body, then breaks the connection.
    pub(super) fn cut_body_after(&self, bytes: usize) {
        self.set(Mode::Cut { matched: 0, left: bytes });
    }

    /// Sends a body without end in place of the answer.
    pub(super) fn never_end(&self) {
        self.set(Mode::Endless { sent_head: 0 });
    }

    /// Lets a body without end trickle in place of the answer.
    pub(super) fn drip(&self) {
        self.set(Mode::Drip { sent_head: 0 });
    }

    fn set(&self, mode: Mode) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    fn mode(&self) -> Mode {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected<IncomingStream<'_, WireListener>> for WireControl {
    fn connect_info(stream: IncomingStream<'_, WireListener>) -> Self {
        stream.io().control.clone()
    }
}

impl Wire {
    fn check_stopped(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.stopped.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            Poll::Pending => Ok(()),
        }
    }

    fn poll_write_cut(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
        mut matched: usize,
        mut left: usize,
    ) -> Poll<io::Result<usize>> {
        let allowed = pass(buf, &mut { matched }, &mut { left });
        if allowed == 0 && !buf.is_empty() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe)));
        }
        let permitted = buf.get(..allowed).unwrap_or_default();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, permitted))?;
        pass(permitted.get(..written).unwrap_or_default(), &mut matched, &mut left);
        self.control.set(Mode::Cut { matched, left });
        Poll::Ready(Ok(written))
    }

    /// Writes the endless answer for as long as the socket takes it; it is over only when the client hangs up.
    fn poll_endless(&mut self, cx: &mut Context<'_>, mut sent_head: usize) -> Poll<io::Result<()>> {
        loop {
            let head = ENDLESS_HEAD.get(sent_head..).unwrap_or_default();
            let next = if head.is_empty() { ENDLESS_FILL } else { head };
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, next))?;
            if !head.is_empty() {
                sent_head += written;
                self.control.set(Mode::Endless { sent_head });
            }
        }
    }

    /// The same, slowly.
    fn poll_drip(&mut self, cx: &mut Context<'_>, mut sent_head: usize) -> Poll<io::Result<()>> {
        loop {
            let head = ENDLESS_HEAD.get(sent_head..).unwrap_or_default();
            if !head.is_empty() {
                sent_head += ready!(Pin::new(&mut self.stream).poll_write(cx, head))?;
                self.control.set(Mode::Drip { sent_head });
                continue;
            }
            ready!(self.next_drop.as_mut().poll(cx));
            ready!(Pin::new(&mut self.stream).poll_write(cx, b" "))?;
            self.next_drop.as_mut().reset(Instant::now() + DRIP);
        }
    }
}

/// How many leading bytes of `buf` may pass, moving the state past them.
fn pass(buf: &[u8], matched: &mut usize, left: &mut usize) -> usize {
    let mut count = 0;
    for byte in buf {
        if *matched < HEAD_END.len() {
            *matched = match HEAD_END.get(*matched) {
                Some(expected) if expected == byte => *matched + 1,
                _ if *byte == b'\r' => 1,
                _ => 0,
            };
        } else if *left > 0 {
            *left -= 1;
        } else {
            break;
        }
        count += 1;
    }
    count
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_stopped(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_stopped(cx)?;
        match self.control.mode() {
            Mode::Whole => Pin::new(&mut self.stream).poll_write(cx, buf),
            Mode::Cut { matched, left } => self.poll_write_cut(cx, buf, matched, left),
            Mode::Endless { .. } | Mode::Drip { .. } => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.control.mode(), Mode::Whole) {
            self.check_stopped(cx)?;
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &buf[..]);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_stopped(cx)?;
        match self.control.mode() {
            Mode::Endless { sent_head } => self.poll_endless(cx, sent_head),
            Mode::Drip { sent_head } => self.poll_drip(cx, sent_head),
            _ => Pin::new(&mut self.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_lets_the_head_and_the_counted_bytes_pass_wherever_the_writes_are_split() {
        let answer = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n0123456789";
        for split in 0..answer.len() {
            let (mut matched, mut left) = (0, 4);
            let (first, second) = answer.split_at(split);
            let passed = pass(first, &mut matched, &mut left) + pass(second, &mut matched, &mut left);
            assert_eq!(&answer[answer.len() - 10..passed], b"0123", "split at {split}");
        }
    }
}
