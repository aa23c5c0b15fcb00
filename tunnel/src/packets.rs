//! Packets of a stream: datagrams that belong to it and go beside it, where losing one is better than
//! having others wait for it.
//!
//! ```text
//! +------+----------------------+---------+
//! | kind | stream id (varint)   | payload |   one QUIC datagram (RFC 9221); kind 3
//! +------+----------------------+---------+
//! ```
//!
//! Both ends know a stream by the same number, so nothing is negotiated. What arrives for a stream that
//! is not listened for is dropped, as is what arrives faster than it is taken.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use proto::varint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::link::Shared;

/// The kind of datagram.
pub(crate) const PACKET: u8 = 3;
/// Packets of one stream that wait to be taken.
const WAITING: usize = 256;
/// Bytes of kind and number, at most.
const HEAD: usize = 9;

/// Bytes of one link's packets that wait to be taken.
const ROOM: usize = 4 << 20;

/// Who listens for packets, by stream.
#[derive(Debug)]
pub(crate) struct Listeners {
    by_stream: Mutex<HashMap<u64, mpsc::Sender<Waiting>>>,
    room: Arc<Semaphore>,
}

/// A packet, and the room that it takes.
type Waiting = (Bytes, OwnedSemaphorePermit);

impl Default for Listeners {
    fn default() -> Self {
        Self { by_stream: Mutex::default(), room: Arc::new(Semaphore::new(ROOM)) }
    }
}

impl Listeners {
    /// Gives a datagram, without its kind, to whoever listens; whether it was taken.
    pub(crate) fn arrived(&self, mut datagram: Bytes) -> bool {
        let mut rest = &datagram[..];
        let Some(stream) = varint::take(&mut rest) else { return false };
        datagram.advance(datagram.len() - rest.len());
        if let Some(listener) = self.by_stream.lock().get(&stream)
            && let Ok(size) = u32::try_from(datagram.len())
            && let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(size)
        {
            return listener.try_send((datagram, room)).is_ok();
        }
        false
    }
}

/// What became of a packet that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// There was no room: it is lost.
    Lost,
    /// It does not fit into a datagram.
    TooLong,
}

/// The packets of one stream, both ways, for as long as this is held.
#[derive(Debug)]
pub struct Packets {
    link: Arc<Shared>,
    stream: u64,
    come: mpsc::Receiver<Waiting>,
}

impl Packets {
    /// Those of `stream` on this link.
    pub(crate) fn new(link: Arc<Shared>, stream: u64) -> Self {
        let (listener, come) = mpsc::channel(WAITING);
        link.packets.by_stream.lock().insert(stream, listener);
        Self { link, stream, come }
    }

    /// The largest payload that can be sent now, in bytes; it changes with the path.
    #[must_use]
    pub fn max(&self) -> usize {
        self.link.connection.max_datagram().saturating_sub(HEAD)
    }

    /// Sends a packet, which may be lost on the way.
    pub fn send(&self, payload: &[u8]) -> Sent {
        if payload.len() > self.max() {
            return Sent::TooLong;
        }
        let mut datagram = BytesMut::with_capacity(HEAD + payload.len());
        datagram.put_u8(PACKET);
        varint::put(&mut datagram, self.stream);
        datagram.put_slice(payload);
        let sent = self.link.connection.send_packet(datagram.freeze());
        if sent { Sent::Yes } else { Sent::Lost }
    }

    /// The next packet. Safe to cancel; pending for ever once the link is gone, as the stream tells that.
    pub async fn recv(&mut self) -> Bytes {
        match self.come.recv().await {
            Some((packet, _room)) => packet,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.link.packets.by_stream.lock().remove(&self.stream);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_packet_reaches_its_stream_alone_and_too_many_are_lost() {
        let listeners = Listeners::default();
        let (four, mut of_four) = mpsc::channel(2);
        let (eight, mut of_eight) = mpsc::channel(2);
        listeners.by_stream.lock().extend([(4, four), (800, eight)]);
        let taken = [&b"\x04a"[..], b"\x04b", b"\x04c", b"\x43\x20d", b"\x05x", b""]
            .map(|payload| listeners.arrived(Bytes::copy_from_slice(payload)));
        assert_eq!(taken, [true, true, false, true, false, false]);
        let taken = |come: &mut mpsc::Receiver<Waiting>| -> Vec<Bytes> {
            std::iter::from_fn(|| come.try_recv().ok()).map(|(packet, _)| packet).collect()
        };
        assert_eq!(taken(&mut of_four), ["a", "b"]);
        assert_eq!(taken(&mut of_eight), ["d"]);
    }

    proptest! {
        #[test]
        fn any_datagram_is_given_to_somebody_or_dropped(datagram: Vec<u8>) {
            let listeners = Listeners::default();
            let (four, mut of_four) = mpsc::channel(1);
            listeners.by_stream.lock().insert(4, four);
            listeners.arrived(Bytes::from(datagram.clone()));
            if let Ok((packet, _)) = of_four.try_recv() {
                prop_assert!(datagram.ends_with(&packet) && packet.len() < datagram.len());
            }
        }
    }
}
