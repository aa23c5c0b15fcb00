//! Two ends of one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proto::PublicKey;
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::pipe::{Line, Receiver, Sender};
use crate::close::{Close, Gone};
use crate::config::Limits;
use crate::transport::Stats;

/// What fits into a packet of every path (RFC 9000 §14).
const MAX_DATAGRAM: usize = 1200;
/// Streams and datagrams that wait to be accepted.
const QUEUE: usize = 4096;
/// The round trip it reports: nothing takes any time.
const RTT: Duration = Duration::from_micros(10);
/// Streams a stranger may open.
const STRANGER_STREAMS: u32 = 1;

/// Who closed a connection, by the index of the end, and why.
pub(super) type Closed = Option<(usize, Close)>;

#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<End>);

#[derive(Debug)]
struct End {
    /// 0 dialled, 1 was dialled.
    index: usize,
    remote: SocketAddr,
    peer: PublicKey,
    binding: [u8; proto::join::BINDING],
    silent: [Arc<AtomicBool>; 2],
    line: Arc<Line>,
    /// Streams this end may open, and those the other may.
    ours: Arc<Semaphore>,
    theirs: Arc<Semaphore>,
    granted: AtomicU64,
    streams_out: mpsc::Sender<(Sender, Receiver)>,
    streams_in: Mutex<mpsc::Receiver<(Sender, Receiver)>>,
    datagrams_out: mpsc::Sender<Bytes>,
    datagrams_in: Mutex<mpsc::Receiver<Bytes>>,
    received: AtomicU64,
    sent: AtomicU64,
}

/// The two ends of a new connection: the dialler's, and that of whom it dialled.
pub(super) fn pair(
    near: (SocketAddr, PublicKey),
    far: (SocketAddr, PublicKey),
    silent: [Arc<AtomicBool>; 2],
) -> (Connection, Connection) {
    let (near_streams, to_near) = mpsc::channel(QUEUE);
    let (far_streams, to_far) = mpsc::channel(QUEUE);
    let (near_datagrams, datagrams_near) = mpsc::channel(QUEUE);
    let (far_datagrams, datagrams_far) = mpsc::channel(QUEUE);
    let line = Arc::new(Line::default());
    let binding = crate::identity::random();
    let near_may = Arc::new(Semaphore::new(STRANGER_STREAMS as usize));
    let far_may = Arc::new(Semaphore::new(0));
    let near_end = End {
        index: 0,
        remote: far.0,
        peer: far.1,
        binding,
        silent: silent.clone(),
        line: Arc::clone(&line),
        ours: Arc::clone(&near_may),
        theirs: Arc::clone(&far_may),
        granted: AtomicU64::new(0),
        streams_out: far_streams,
        streams_in: Mutex::new(to_near),
        datagrams_out: far_datagrams,
        datagrams_in: Mutex::new(datagrams_near),
        received: AtomicU64::new(0),
        sent: AtomicU64::new(0),
    };
    let far_end = End {
        index: 1,
        remote: near.0,
        peer: near.1,
        binding,
        silent,
        line,
        ours: far_may,
        theirs: near_may,
        granted: AtomicU64::new(u64::from(STRANGER_STREAMS)),
        streams_out: near_streams,
        streams_in: Mutex::new(to_far),
        datagrams_out: near_datagrams,
        datagrams_in: Mutex::new(datagrams_far),
        received: AtomicU64::new(0),
        sent: AtomicU64::new(0),
    };
    (Connection(Arc::new(near_end)), Connection(Arc::new(far_end)))
}

impl Connection {
    pub(crate) fn peer(&self) -> PublicKey {
        self.0.peer
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    pub(crate) fn binding(&self) -> [u8; proto::join::BINDING] {
        self.0.binding
    }

    pub(crate) async fn open(&self) -> Result<(Sender, Receiver), Gone> {
        let end = &*self.0;
        let permit = tokio::select! {
            permit = Arc::clone(&end.ours).acquire_owned() => permit.map_err(|_| Gone::Failed)?,
            gone = self.closed() => return Err(gone),
        };
        let stream = end.line.number();
        let (send, recv) = end.line.pipe(end.index, stream);
        let (back, answer) = end.line.pipe(1 - end.index, stream);
        // A stream counts until the one who accepted it has let go of both halves.
        let far = (back, recv.counted(permit));
        if let Some(gone) = self.gone() {
            return Err(gone);
        }
        end.streams_out.send(far).await.map_err(|_| Gone::Failed)?;
        Ok((send, answer))
    }

    pub(crate) async fn accept(&self) -> Result<(Sender, Receiver), Gone> {
        let mut streams = self.0.streams_in.lock().await;
        tokio::select! {
            biased;
            gone = self.closed() => Err(gone),
            stream = streams.recv() => stream.ok_or(Gone::Failed),
        }
    }

    pub(crate) fn allow_streams(&self, streams: u32) {
        let before = self.0.granted.fetch_max(u64::from(streams), Ordering::Relaxed);
        let more = u64::from(streams).saturating_sub(before);
        self.0.theirs.add_permits(usize::try_from(more).unwrap_or(0));
    }

    #[expect(
        clippy::unused_self,
        reason = "the same shape as QUIC; a pipe has its window for good"
    )]
    pub(crate) fn allow_bytes(&self, _limits: &Limits) {}

    pub(crate) fn send_datagram(&self, bytes: Bytes) {
        self.0.sent.fetch_add(1, Ordering::Relaxed);
        if !self.0.silent.iter().any(|silent| silent.load(Ordering::Relaxed)) {
            // A full queue loses datagrams, as a network does.
            let _ = self.0.datagrams_out.try_send(bytes);
        }
    }

    pub(crate) fn send_packet(&self, bytes: Bytes) -> bool {
        self.send_datagram(bytes);
        true
    }

    pub(crate) fn max_datagram(&self) -> usize {
        MAX_DATAGRAM
    }

    pub(crate) fn probe(&self, bytes: Bytes) {
        self.send_datagram(bytes);
    }

    pub(crate) async fn datagram(&self) -> Result<Bytes, Gone> {
        let mut datagrams = self.0.datagrams_in.lock().await;
        let datagram = tokio::select! {
            biased;
            gone = self.closed() => return Err(gone),
            datagram = datagrams.recv() => datagram.ok_or(Gone::Failed)?,
        };
        self.0.received.fetch_add(1, Ordering::Relaxed);
        Ok(datagram)
    }

    pub(crate) fn close(&self, close: Close) {
        self.0.line.close(self.0.index, close);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.gone().is_some()
    }

    pub(crate) async fn closed(&self) -> Gone {
        let mut closed = self.0.line.subscribe();
        // The sender is held by this end, so it is not dropped.
        let _ = closed.wait_for(Option::is_some).await;
        self.gone().unwrap_or(Gone::Failed)
    }

    #[expect(clippy::unused_self, reason = "the same shape as QUIC; nothing takes any time")]
    pub(crate) fn rtt(&self) -> Duration {
        RTT
    }

    pub(crate) fn stats(&self) -> Stats {
        let packets_in = self.0.received.load(Ordering::Relaxed);
        let packets_out = self.0.sent.load(Ordering::Relaxed);
        Stats { packets_in, packets_out, rtt: RTT, ..Stats::default() }
    }

    fn gone(&self) -> Option<Gone> {
        seen_from(self.0.index, self.0.line.closed())
    }
}

/// How a connection ended, for the end `index`.
pub(super) fn seen_from(index: usize, closed: Closed) -> Option<Gone> {
    closed.map(|(by, close)| if by == index { Gone::Here(close) } else { Gone::ByPeer(close) })
}
