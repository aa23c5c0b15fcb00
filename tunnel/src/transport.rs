//! What a link stands on: QUIC, or memory for tests. The two are a closed set, so a call is
//! dispatched by a match and not through boxes.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use proto::PublicKey;
use proto::fault::Code;

use crate::close::{Close, Gone};
use crate::config::Limits;
use crate::memory;
use crate::quic;
use crate::stream::StreamError;

/// Carries connections between nodes.
#[derive(Debug)]
pub enum Transport {
    /// QUIC over UDP.
    Quic(quic::Quic),
    /// Queues within this process.
    Memory(memory::Memory),
}

impl From<quic::Quic> for Transport {
    fn from(quic: quic::Quic) -> Self {
        Self::Quic(quic)
    }
}

impl From<memory::Memory> for Transport {
    fn from(memory: memory::Memory) -> Self {
        Self::Memory(memory)
    }
}

/// One thing that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Quic(quic::Listener),
    Memory(memory::Listener),
}

/// Somebody who wants to connect; nothing is allocated for them beyond this.
#[expect(clippy::large_enum_variant, reason = "each lives for one step of the accept loop")]
#[derive(Debug)]
pub(crate) enum Knock {
    Quic(quic::Knock),
    Memory(memory::Knock),
}

/// A connection whose both ends have proven their keys.
#[derive(Clone, Debug)]
pub(crate) enum Connection {
    Quic(quic::Connection),
    Memory(memory::Connection),
}

/// The sending half of a stream.
#[derive(Debug)]
pub(crate) enum Sender {
    Quic(quic::Sender),
    Memory(memory::Sender),
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(crate) enum Receiver {
    Quic(quic::Receiver),
    Memory(memory::Receiver),
}

/// What a connection has carried and how well.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stats {
    /// Packets received: signs of life.
    pub(crate) packets_in: u64,
    /// Packets sent.
    pub(crate) packets_out: u64,
    /// Bytes received, headers of the transport included.
    pub(crate) bytes_in: u64,
    /// Bytes sent.
    pub(crate) bytes_out: u64,
    /// Packets sent that were lost.
    pub(crate) lost: u64,
    /// Smoothed round trip.
    pub(crate) rtt: Duration,
}

/// Does the same with whichever it is.
macro_rules! either {
    ($value:expr, $kind:ident, $inner:ident => $do:expr) => {
        match $value {
            $kind::Quic($inner) => $do,
            $kind::Memory($inner) => $do,
        }
    };
}

impl Transport {
    pub(crate) fn local_addresses(&self) -> Vec<SocketAddr> {
        either!(self, Transport, t => t.local_addresses())
    }

    pub(crate) fn listeners(&self) -> Vec<Listener> {
        match self {
            Self::Quic(t) => t.listeners().into_iter().map(Listener::Quic).collect(),
            Self::Memory(t) => vec![Listener::Memory(t.listener())],
        }
    }

    /// Connects to whoever answers at `address`.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connection, Gone> {
        match self {
            Self::Quic(t) => t.connect(address).await.map(Connection::Quic),
            Self::Memory(t) => t.connect(address).await.map(Connection::Memory),
        }
    }

    /// Ends everything at once, and waits until the other ends can know.
    pub(crate) async fn close(&self, close: Close) {
        either!(self, Transport, t => t.close(close).await);
    }
}

impl Listener {
    /// The next one who wants to connect; `None` when the transport is closed.
    pub(crate) async fn accept(&mut self) -> Option<Knock> {
        match self {
            Self::Quic(l) => l.accept().await.map(Knock::Quic),
            Self::Memory(l) => l.accept().await.map(Knock::Memory),
        }
    }
}

impl Knock {
    /// Where they seem to be.
    pub(crate) fn remote(&self) -> SocketAddr {
        either!(self, Knock, k => k.remote())
    }

    /// Whether they have proven to be where they seem to be (RFC 9000 §8.1).
    pub(crate) fn is_validated(&self) -> bool {
        either!(self, Knock, k => k.is_validated())
    }

    /// Asks them to prove it.
    pub(crate) fn retry(self) {
        either!(self, Knock, k => k.retry());
    }

    /// Turns them away.
    pub(crate) fn refuse(self) {
        either!(self, Knock, k => k.refuse());
    }

    /// Lets them prove their key.
    pub(crate) async fn admit(self) -> Result<Connection, Gone> {
        match self {
            Self::Quic(k) => k.admit().await.map(Connection::Quic),
            Self::Memory(k) => k.admit().await.map(Connection::Memory),
        }
    }
}

impl Connection {
    /// The key the other end has proven.
    pub(crate) fn peer(&self) -> PublicKey {
        either!(self, Connection, c => c.peer())
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        either!(self, Connection, c => c.remote())
    }

    /// Keying material that both ends of this connection, and nobody else, can derive.
    pub(crate) fn binding(&self) -> [u8; proto::join::BINDING] {
        either!(self, Connection, c => c.binding())
    }

    /// Opens a stream; waits while the other end allows no more.
    pub(crate) async fn open(&self) -> Result<(Sender, Receiver), Gone> {
        match self {
            Self::Quic(c) => c.open().await.map(|(s, r)| (Sender::Quic(s), Receiver::Quic(r))),
            Self::Memory(c) => {
                c.open().await.map(|(s, r)| (Sender::Memory(s), Receiver::Memory(r)))
            }
        }
    }

    /// The next stream the other end opened. Safe to cancel.
    pub(crate) async fn accept(&self) -> Result<(Sender, Receiver), Gone> {
        match self {
            Self::Quic(c) => c.accept().await.map(|(s, r)| (Sender::Quic(s), Receiver::Quic(r))),
            Self::Memory(c) => {
                c.accept().await.map(|(s, r)| (Sender::Memory(s), Receiver::Memory(r)))
            }
        }
    }

    /// Lets the other end open more than the one stream of a stranger.
    pub(crate) fn allow_streams(&self, streams: u32) {
        either!(self, Connection, c => c.allow_streams(streams));
    }

    /// Gives the other end the windows of a member.
    pub(crate) fn allow_bytes(&self, limits: &Limits) {
        either!(self, Connection, c => c.allow_bytes(limits));
    }

    /// Sends a datagram if there is room for it.
    pub(crate) fn send_datagram(&self, bytes: Bytes) {
        either!(self, Connection, c => c.send_datagram(bytes));
    }

    /// Sends a datagram if pings have room beside it; whether it was sent.
    pub(crate) fn send_packet(&self, bytes: Bytes) -> bool {
        either!(self, Connection, c => c.send_packet(bytes))
    }

    /// The largest datagram that fits now; 0 where the other end takes none.
    pub(crate) fn max_datagram(&self) -> usize {
        either!(self, Connection, c => c.max_datagram())
    }

    /// Sends a datagram even where the congestion window is full: a probe (RFC 9002 §7.5).
    pub(crate) fn probe(&self, bytes: Bytes) {
        either!(self, Connection, c => c.probe(bytes));
    }

    /// The next datagram. Safe to cancel.
    pub(crate) async fn datagram(&self) -> Result<Bytes, Gone> {
        either!(self, Connection, c => c.datagram().await)
    }

    pub(crate) fn close(&self, close: Close) {
        either!(self, Connection, c => c.close(close));
    }

    /// Waits until it is gone.
    pub(crate) async fn closed(&self) -> Gone {
        either!(self, Connection, c => c.closed().await)
    }

    /// Smoothed round trip.
    pub(crate) fn rtt(&self) -> Duration {
        either!(self, Connection, c => c.rtt())
    }

    pub(crate) fn stats(&self) -> Stats {
        either!(self, Connection, c => c.stats())
    }
}

impl Sender {
    /// The number of the stream, the same at both ends.
    pub(crate) fn id(&self) -> u64 {
        either!(self, Sender, s => s.id())
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), StreamError>> {
        either!(self, Sender, s => s.poll_write(cx, chunks))
    }

    pub(crate) fn finish(&mut self) {
        either!(self, Sender, s => s.finish());
    }

    pub(crate) fn reset(&mut self, code: Code) {
        either!(self, Sender, s => s.reset(code));
    }

    /// Waits until the other side wants nothing more.
    pub(crate) fn stopped(&self) -> Pin<Box<dyn Future<Output = Code> + Send + Sync>> {
        either!(self, Sender, s => s.stopped())
    }
}

impl Receiver {
    /// The number of the stream, the same at both ends.
    pub(crate) fn id(&self) -> u64 {
        either!(self, Receiver, r => r.id())
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        either!(self, Receiver, r => r.poll_read(cx, max))
    }

    pub(crate) fn stop(&mut self, code: Code) {
        either!(self, Receiver, r => r.stop(code));
    }
}
