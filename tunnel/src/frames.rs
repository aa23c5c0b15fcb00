//! The control stream of a link, read and written once both ends are proven.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::BytesMut;
use proto::LinkId;
use proto::frame::{Frame, MAX_FRAME};
use smallvec::{SmallVec, smallvec};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::close::{Close, Gone};
use crate::conduct::Reason;
use crate::control::Event;
use crate::counters::Counters;
use crate::endpoint::Endpoint;
use crate::greet::{self, READ};
use crate::link::Shared;
use crate::stream::StreamError;
use crate::transport::{Receiver, Sender};

/// Bytes of frames written at once.
const WRITE: usize = 64 * 1024;
/// Bytes of frames that wait for one neighbour, about. Beyond it frames are dropped and counted; what
/// they said comes back with the next digest.
const QUEUED: usize = 8 << 20;
/// From here on the router is asked to keep back what there is more to tell …
const FULL: usize = 1 << 20;
/// … until no more than this waits.
const LITTLE: usize = 256 << 10;
/// Bytes of frames of one neighbour that were read and that the router has not dealt with. Beyond it
/// the control stream is not read, so the neighbour waits and nothing piles up. Room for two of the
/// largest frames; with what a record counts for, half of what may be of no use at once.
pub(crate) const UNHANDLED: usize = 512 << 10;
/// What a frame counts for at least, so that this bounds their number as well.
const SMALLEST: usize = 4 * 1024;
/// What a record takes beside its bytes, about.
const RECORD: usize = 256;

/// A frame that came, and its share of what may wait for the router: given back when dropped.
#[derive(Debug)]
pub struct Received {
    /// What came.
    pub frame: Frame,
    /// Bytes it took on the wire.
    pub size: usize,
    shares: SmallVec<[OwnedSemaphorePermit; 1]>,
}

/// Records that are checked together at most.
const TOGETHER: usize = 512;

impl Received {
    /// A frame that came from nowhere: for tests of those who take them.
    #[doc(hidden)]
    #[must_use]
    pub fn of(frame: Frame, size: usize) -> Self {
        let share = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned();
        Self { frame, size, shares: share.into_iter().collect() }
    }

    /// Adds the records of the frame that came next, for they cost less together; gives it back where
    /// one of the two holds something else, or both are too many.
    ///
    /// # Errors
    /// The other frame.
    pub fn join(&mut self, other: Self) -> Result<(), Self> {
        match (&mut self.frame, other) {
            (Frame::Records(ours), Self { frame: Frame::Records(theirs), size, shares })
                if ours.len() + theirs.len() <= TOGETHER =>
            {
                ours.extend(theirs);
                self.size += size;
                self.shares.extend(shares);
                Ok(())
            }
            (_, other) => Err(other),
        }
    }
}

/// The frames that wait for one neighbour.
#[derive(Debug)]
pub(crate) struct Queue {
    frames: mpsc::Sender<(Frame, usize)>,
    level: Arc<Level>,
}

/// The other end of a [`Queue`].
#[derive(Debug)]
pub(crate) struct Queued {
    frames: mpsc::Receiver<(Frame, usize)>,
    level: Arc<Level>,
}

#[derive(Debug, Default)]
struct Level {
    bytes: AtomicUsize,
    /// The router was asked to keep back.
    full: AtomicBool,
}

/// A queue of so many frames.
pub(crate) fn queue(frames: usize) -> (Queue, Queued) {
    let (sender, receiver) = mpsc::channel(frames);
    let level = Arc::<Level>::default();
    (Queue { frames: sender, level: Arc::clone(&level) }, Queued { frames: receiver, level })
}

/// There is no room, or nobody writes any more.
#[derive(Debug)]
pub(crate) struct Dropped;

impl Queue {
    /// Adds a frame; true when with it there is enough for now.
    pub(crate) fn try_send(&self, frame: Frame) -> Result<bool, Dropped> {
        let (size, bytes) = (size(&frame), &self.level.bytes);
        // A frame too many now and then is no harm: nearly always one task sends.
        let before = bytes.load(Ordering::Relaxed);
        if before + size > QUEUED {
            return Err(Dropped);
        }
        bytes.fetch_add(size, Ordering::Relaxed);
        if self.frames.try_send((frame, size)).is_err() {
            bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(Dropped);
        }
        let full = before + size > FULL;
        Ok(full && !self.level.full.swap(true, Ordering::Relaxed))
    }
}

impl Queued {
    fn taken(&self, (frame, size): (Frame, usize)) -> Frame {
        self.level.bytes.fetch_sub(size, Ordering::Relaxed);
        frame
    }

    /// Whether the router may go on, who was asked to keep back.
    fn drained(&self) -> bool {
        self.level.bytes.load(Ordering::Relaxed) <= LITTLE
            && self.level.full.swap(false, Ordering::Relaxed)
    }
}

/// Bytes that a frame holds, about.
fn size(frame: &Frame) -> usize {
    const SMALL: usize = 64;
    let held: usize = match frame {
        Frame::Records(records) => records.iter().map(|record| record.bytes().len() + RECORD).sum(),
        Frame::Summary(summary) => {
            summary.origins.iter().map(|origin| (1 + origin.records.len()) * SMALL).sum()
        }
        Frame::Want(want) => want.records.len() * SMALL,
        Frame::Digest(digest) => digest.buckets.len() * 8,
        Frame::Hello(_) => proto::grant::MAX_CREDENTIAL,
        Frame::Bye => 0,
    };
    held + SMALL
}

/// Writes what is sent to the neighbour, in order, until the link is gone.
pub(crate) async fn write(
    mut send: Sender,
    mut queued: Queued,
    link: LinkId,
    endpoint: Arc<Endpoint>,
) {
    let counters = &endpoint.counters;
    let mut out = BytesMut::new();
    while let Some(frame) = queued.frames.recv().await {
        put(&queued.taken(frame), &mut out, counters);
        // What waits already goes along.
        while out.len() < WRITE
            && let Ok(frame) = queued.frames.try_recv()
        {
            put(&queued.taken(frame), &mut out, counters);
        }
        counters.control_sent.add_by(out.len() as u64);
        let mut chunks = [out.split().freeze()];
        if poll_fn(|cx| send.poll_write(cx, &mut chunks)).await.is_err() {
            // The link is gone, and its task says so; or the peer stopped reading, which its
            // reader notices as well.
            return;
        }
        if queued.drained() {
            endpoint.tell(Event::Drained(link)).await;
        }
    }
}

fn put(frame: &Frame, out: &mut BytesMut, counters: &Counters) {
    if let Frame::Records(records) = frame {
        counters.records_sent.add_by(records.len() as u64);
    }
    frame.encode(out);
}

/// Reads what the neighbour sends, until the link is gone. A neighbour that sends more than is of
/// use, or than the router keeps up with, is read slower: nothing piles up here, and nothing is
/// dropped.
pub(crate) async fn read(
    link: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    mut recv: Receiver,
    mut rest: BytesMut,
) {
    let broken = loop {
        link.turn(&endpoint).await;
        let before = rest.len();
        let decoded = Frame::decode(&mut rest, MAX_FRAME);
        let size = before - rest.len();
        let frame = match decoded {
            Ok(frame) => frame,
            Err(error) => {
                tracing::debug!(link = %link.id, peer = ?link.peer, %error, "broken frame");
                endpoint.counters.records_rejected.add(Reason::Unreadable);
                break Close::Protocol;
            }
        };
        if let Err(close) = link.pay(&endpoint, frame.as_ref(), size) {
            return endpoint.expel(&link, close);
        }
        if let Some(frame) = frame {
            if let Err(close) = take(&link, &endpoint, frame, size).await {
                break close;
            }
            continue;
        }
        match poll_fn(|cx| recv.poll_read(cx, READ)).await {
            Ok(Some(chunk)) => {
                endpoint.counters.control_received.add_by(chunk.len() as u64);
                rest.extend_from_slice(&chunk);
            }
            // The control stream ends with the link and not before.
            Ok(None) | Err(StreamError::Reset(_) | StreamError::Ended) => break Close::Protocol,
            // Its task knows why.
            Err(StreamError::Lost(_)) => return,
        }
    };
    link.close(broken);
}

async fn take(
    link: &Arc<Shared>,
    endpoint: &Endpoint,
    frame: Frame,
    size: usize,
) -> Result<(), Close> {
    match frame {
        Frame::Hello(hello) => {
            let key = link.connection.peer();
            let now = (endpoint.config.limits.wall)();
            let peer = greet::judge(&hello, endpoint.config.network, &key, now)?;
            if peer.epoch != link.epoch {
                return Err(Close::Protocol);
            }
            tracing::debug!(link = %link.id, peer = ?link.peer, "the grant was renewed");
            link.renew(peer.credential);
        }
        Frame::Bye => {
            link.drain(Close::Unwanted);
            if link.announce_down() {
                let gone = Gone::ByPeer(Close::Unwanted);
                endpoint.tell(Event::Down(link.id, gone)).await;
            }
        }
        frame @ (Frame::Records(_) | Frame::Digest(_) | Frame::Summary(_) | Frame::Want(_)) => {
            // On a link for calls nobody said that records are wanted.
            if !link.neighbour {
                return Err(Close::Protocol);
            }
            let share = share(&frame, size);
            let Ok(share) = Arc::clone(&link.unhandled).acquire_many_owned(share).await else {
                // It is never closed.
                return Ok(());
            };
            let received = Received { frame, size, shares: smallvec![share] };
            endpoint.tell(Event::Frame(link.id, received)).await;
        }
    }
    Ok(())
}

/// A frame's share of [`UNHANDLED`].
fn share(frame: &Frame, size: usize) -> u32 {
    let records = if let Frame::Records(records) = frame { records.len() } else { 0 };
    let share = size.max(records * RECORD).clamp(SMALLEST, UNHANDLED);
    u32::try_from(share).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_is_bounded_by_bytes_and_by_number_and_gives_room_back() {
        let want = |n| {
            let id = proto::RecordId {
                origin: proto::NodeId::from_bytes([1; 32]),
                kind: proto::record::Kind::SERVICE,
                key: bytes::Bytes::from_static(b"a"),
            };
            Frame::Want(proto::frame::Want { records: vec![id; n] })
        };
        let (queue, mut queued) = queue(1_000);
        let large = || want((1 << 20) / 64);
        let taken = (0..100).take_while(|_| queue.try_send(large()).is_ok()).count();
        assert_eq!(taken, 7, "eight of them and what they are wrapped in are too many");
        let first = queued.frames.recv().await.unwrap();
        queued.taken(first);
        assert!(queue.try_send(large()).is_ok() && queue.try_send(large()).is_err());
        let taken = (0..2_000).take_while(|_| queue.try_send(Frame::Bye).is_ok()).count();
        assert_eq!(taken, 1_000 - 7);
    }

    #[tokio::test]
    async fn a_queue_says_once_that_it_is_full_and_once_that_it_is_drained() {
        let (queue, mut queued) = queue(1_000);
        let digest = || Frame::Digest(proto::frame::Digest { buckets: vec![0; 32 * 1024] });
        let said: Vec<_> = (0..10).map(|_| queue.try_send(digest()).unwrap()).collect();
        assert_eq!(said.iter().position(|full| *full), Some(3));
        assert_eq!(said.iter().filter(|full| **full).count(), 1);
        let mut drained = Vec::new();
        while let Ok(frame) = queued.frames.try_recv() {
            queued.taken(frame);
            drained.push(queued.drained());
        }
        assert_eq!(drained.iter().filter(|drained| **drained).count(), 1);
        assert!(!queue.try_send(Frame::Bye).unwrap());
    }
}
