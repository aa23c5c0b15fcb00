//! What comes from another node: taken once and in order, delivered here, passed on where it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use proto::fault::Code;
use proto::publish::{Frame, Head, Message, Reader, SLOTS};
use proto::{Credential, DecodeError, NodeId};
use tunnel::{Arrival, RecvHalf};

use super::outbound::Outgoing;
use super::{Broker, Fate, RELAYED_PATIENCE, STREAMS, head};

/// Bytes read at once.
const READ: usize = 64 * 1024;
/// Bytes of long payloads that are being put together, of all nodes. Above it they are dropped.
const MAX_ASSEMBLED: usize = 256 * 1024 * 1024;
/// Messages handled before other tasks get their turn.
const TURN: usize = 32;

/// The streams that come in: of each node and lane the newest is read.
#[derive(Default)]
pub(super) struct Inbounds {
    newest: Mutex<HashMap<(NodeId, u8), u64, foldhash::fast::RandomState>>,
    numbered: std::sync::atomic::AtomicU64,
    assembled: AtomicUsize,
}

impl Inbounds {
    fn begin(&self, key: (NodeId, u8)) -> u64 {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed);
        self.newest.lock().insert(key, number);
        number
    }

    /// Whether no newer stream has come: what is left on an old one could be out of order.
    fn is_newest(&self, key: (NodeId, u8), number: u64) -> bool {
        self.newest.lock().get(&key) == Some(&number)
    }

    fn end(&self, key: (NodeId, u8), number: u64) {
        let mut newest = self.newest.lock();
        if newest.get(&key) == Some(&number) {
            newest.remove(&key);
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let take = |held: usize| held.checked_add(bytes).filter(|all| *all <= MAX_ASSEMBLED);
        self.assembled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.assembled.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Broker {
    /// Takes the messages of one stream until it ends.
    pub(crate) async fn arrived(&self, arrival: Arrival) {
        let Arrival { caller, grant, open, mut stream } = arrival;
        let lane = match open.instance[..] {
            [lane] if lane < STREAMS => lane,
            _ => return stream.recv.stop(Code::Protocol),
        };
        let key = (caller, lane);
        let number = self.0.inbounds.begin(key);
        let mut inbound = Inbound { broker: self, from: caller, grant, slots: Default::default() };
        let mut reader = Reader::default();
        let ended =
            inbound.read(&mut stream.recv, &mut reader, || self.0.inbounds.is_newest(key, number));
        if let Err(error) = ended.await {
            tracing::debug!(peer = %caller.short(), %error, "a stream of topics was not understood");
            stream.recv.stop(Code::Protocol);
        }
        self.0.inbounds.end(key, number);
    }
}

/// A long payload that has not come whole.
struct Assembling {
    head: Head,
    come: BytesMut,
    length: usize,
    /// There is no room for it: what comes of it is dropped.
    dropped: bool,
}

struct Inbound<'a> {
    broker: &'a Broker,
    from: NodeId,
    grant: Arc<Credential>,
    slots: [Option<Assembling>; SLOTS as usize],
}

impl Inbound<'_> {
    async fn read(
        &mut self,
        from: &mut RecvHalf,
        reader: &mut Reader,
        is_newest: impl Fn() -> bool,
    ) -> Result<(), DecodeError> {
        let mut handled = 0;
        while let Ok(Some(bytes)) = from.read(READ).await {
            reader.push(&bytes);
            while let Some(frame) = reader.next()? {
                if !is_newest() {
                    return Ok(());
                }
                if let Some((head, payload)) = self.frame(frame)? {
                    self.message(head, payload).await;
                }
                handled += 1;
                if handled % TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(())
    }

    /// The message that a frame completes.
    fn frame(&mut self, frame: Frame) -> Result<Option<(Head, Bytes)>, DecodeError> {
        let inbounds = &self.broker.0.inbounds;
        match frame {
            Frame::Whole(head, payload) => Ok(Some((head, payload))),
            Frame::Begin { slot, length, head } => {
                let slot = &mut self.slots[usize::from(slot)];
                if slot.is_some() {
                    return Err(DecodeError::Invalid("slot"));
                }
                let dropped = !inbounds.take(length);
                *slot = Some(Assembling { head, come: BytesMut::new(), length, dropped });
                Ok(None)
            }
            Frame::Part { slot, bytes } => {
                let slot = &mut self.slots[usize::from(slot)];
                let held = slot.as_mut().ok_or(DecodeError::Invalid("slot"))?;
                if held.dropped {
                    held.length = held.length.saturating_sub(bytes.len());
                    if held.length == 0 {
                        *slot = None;
                        self.broker.0.counts.add(Fate::DroppedFull);
                    }
                    return Ok(None);
                }
                held.come.extend_from_slice(&bytes);
                if held.come.len() > held.length {
                    return Err(DecodeError::TooLarge("payload"));
                }
                if held.come.len() < held.length {
                    return Ok(None);
                }
                let whole = slot.take().map(|held| (held.head, held.come.freeze()));
                inbounds.give_back(whole.as_ref().map_or(0, |(_, payload)| payload.len()));
                Ok(whole)
            }
        }
    }

    async fn message(&self, head: Head, payload: Bytes) {
        let (broker, shared) = (self.broker, &self.broker.0);
        let origin = head.origin.unwrap_or(self.from);
        let namespace = match &*head.namespace {
            "" => proto::name::DEFAULT_NAMESPACE,
            named => named,
        };
        let taken = {
            let (routes, now) = (shared.routes.load(), shared.now());
            shared.taken.lock().take(&routes, self.from, &head, now)
        };
        // Who passes on has asked this of the origin's own grant, and of its own now.
        if taken.is_err() || !self.grant.grant().may_call(namespace) {
            return shared.counts.add(Fate::DroppedRefused);
        }
        shared.counts.add(Fate::Received);
        let message = Arc::new(Message {
            namespace: head.namespace,
            topic: head.topic,
            reply: head.reply,
            headers: head.headers,
            payload,
        });
        if let Some(reply) = &message.reply {
            shared.replies.lock().remember(&message.namespace, reply, origin);
        }
        for onward in head.onward {
            let head =
                self::head(&message, Some(origin), head.epoch, onward.way, onward.to, Vec::new());
            let outgoing = Outgoing { head, message: Arc::clone(&message), tries: 0 };
            broker.enqueue(onward.node, outgoing).await;
        }
        let (here, _) = shared.local.lock().wanted(&message, Some(&head.to), None);
        shared.deliver(here, &message, RELAYED_PATIENCE).await;
    }
}

impl Drop for Inbound<'_> {
    fn drop(&mut self) {
        for held in self.slots.iter().flatten().filter(|held| !held.dropped) {
            self.broker.0.inbounds.give_back(held.length);
        }
    }
}
