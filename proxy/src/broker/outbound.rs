//! What goes to another node: a bounded queue and one ordered stream for each lane.
//!
//! A stream is opened with the first message and ended when none has come for a while. A payload
//! longer than a chunk is sent in parts, between which messages of other topics go; those of its
//! own topic wait for its end.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::NodeId;
use proto::open::{Open, OpenKind};
use proto::publish::{self, CHUNK, Head, Known, Message, SLOTS};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tunnel::{SendHalf, StreamError};

use super::{Broker, Fate, stream_of};

/// Messages that wait for one stream.
const MAX_ITEMS: usize = 10_000;
/// Bytes that wait for one stream. A queue that is empty takes any message.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long a publisher, or who passes on, waits for room; then messages are dropped until there
/// is some.
const PATIENCE: Duration = Duration::from_millis(250);
/// A stream on which nothing was sent for so long is ended.
const IDLE: Duration = Duration::from_secs(30);
/// Messages and bytes of one write.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 256 * 1024;

/// One message for one node.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) head: Head,
    pub(super) message: Arc<Message>,
    /// How often it was to go another way before.
    pub(super) tries: u8,
}

/// The queues there are, by node and lane.
#[derive(Default)]
pub(super) struct Outbounds(
    Mutex<HashMap<(NodeId, u8), Arc<Outbound>, foldhash::fast::RandomState>>,
);

impl Outbounds {
    fn forget(&self, key: (NodeId, u8), outbound: &Arc<Outbound>) {
        let mut all = self.0.lock();
        if all.get(&key).is_some_and(|held| Arc::ptr_eq(held, outbound)) {
            all.remove(&key);
        }
    }
}

/// The queue of one stream.
#[derive(Default)]
struct Outbound {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Outgoing>,
    bytes: usize,
    /// Somebody has waited in vain since there was room last.
    stalled: bool,
    /// Its task has ended; a new one takes its place.
    over: bool,
}

impl Broker {
    /// Has a message sent to `node`, in order with those of its lane before it.
    pub(super) async fn enqueue(&self, node: NodeId, mut outgoing: Outgoing) {
        let lane = stream_of(&outgoing.message.topic);
        let mut until = None;
        loop {
            let outbound = self.outbound(node, lane);
            let emptied = outbound.emptied.notified();
            match outbound.push(outgoing) {
                Pushed::Yes => return,
                Pushed::Over(back) => {
                    outgoing = back;
                    continue;
                }
                Pushed::Stalled => return self.0.counts.add(Fate::DroppedLink),
                Pushed::Full(back) => outgoing = back,
            }
            let until = *until.get_or_insert_with(|| tokio::time::Instant::now() + PATIENCE);
            if tokio::time::timeout_at(until, emptied).await.is_err() {
                outbound.state.lock().stalled = true;
            }
        }
    }

    /// The queue of a stream, with a task that empties it.
    fn outbound(&self, node: NodeId, lane: u8) -> Arc<Outbound> {
        let mut all = self.0.outbounds.0.lock();
        if let Some(found) = all.get(&(node, lane)).filter(|found| !found.state.lock().over) {
            return Arc::clone(found);
        }
        let outbound = Arc::new(Outbound::default());
        all.insert((node, lane), Arc::clone(&outbound));
        let data = self.0.data.get().cloned().unwrap_or_else(Handle::current);
        data.spawn(run(self.clone(), node, lane, Arc::clone(&outbound)));
        outbound
    }
}

enum Pushed {
    Yes,
    Full(Outgoing),
    Stalled,
    Over(Outgoing),
}

impl Outbound {
    fn push(&self, outgoing: Outgoing) -> Pushed {
        let mut state = self.state.lock();
        if state.over {
            return Pushed::Over(outgoing);
        }
        let weight = outgoing.message.weight();
        let full = state.items.len() >= MAX_ITEMS || state.bytes + weight > MAX_BYTES;
        if full && !state.items.is_empty() {
            return if state.stalled { Pushed::Stalled } else { Pushed::Full(outgoing) };
        }
        state.bytes += weight;
        state.items.push_back(outgoing);
        drop(state);
        self.filled.notify_one();
        Pushed::Yes
    }

    /// What was taken and is sent, or dropped.
    fn done(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes -= bytes;
        state.stalled = false;
        drop(state);
        self.emptied.notify_waiters();
    }

    /// Ends it unless something has come in this moment; nothing is put in after that.
    fn end_if_empty(&self) -> bool {
        let mut state = self.state.lock();
        state.over = state.items.is_empty();
        state.over
    }

    /// What is still there when the task ends; nothing is put in after that.
    fn end(&self) -> VecDeque<Outgoing> {
        let mut state = self.state.lock();
        state.over = true;
        let left = std::mem::take(&mut state.items);
        drop(state);
        self.emptied.notify_waiters();
        left
    }
}

/// Empties a queue until nothing comes for a while, or the node cannot be reached.
async fn run(broker: Broker, node: NodeId, lane: u8, outbound: Arc<Outbound>) {
    let mut writer = Writer::new(&outbound);
    let open = Open { instance: Bytes::copy_from_slice(&[lane]), ..Open::new(OpenKind::Topics) };
    let mut left = VecDeque::new();
    match broker.0.tunnel.open(node, &open).await {
        Ok(mut stream) => {
            let ended = writer.write_all(&mut stream.send, &broker).await;
            match ended {
                Ok(()) => stream.send.finish(),
                Err(error) => tracing::debug!(peer = %node.short(), %error, "topics not carried"),
            }
            left = std::mem::take(&mut writer.behind);
        }
        Err(error) => tracing::debug!(peer = %node.short(), %error, "topics not carried"),
    }
    left.extend(outbound.end());
    broker.0.outbounds.forget((node, lane), &outbound);
    if !left.is_empty() {
        broker.0.planner.lock().failed(node, broker.0.now());
    }
    for outgoing in left {
        broker.send_otherwise(node, outgoing).await;
    }
}

/// A payload that is sent in parts.
struct Long {
    slot: u8,
    message: Arc<Message>,
    sent: usize,
}

struct Writer<'a> {
    outbound: &'a Outbound,
    known: Known,
    long: Vec<Long>,
    /// Taken out of the queue, and waiting for the end of a long message.
    behind: VecDeque<Outgoing>,
}

impl<'a> Writer<'a> {
    fn new(outbound: &'a Outbound) -> Self {
        Self { outbound, known: Known::default(), long: Vec::new(), behind: VecDeque::new() }
    }

    async fn write_all(&mut self, to: &mut SendHalf, broker: &Broker) -> Result<(), StreamError> {
        loop {
            let filled = self.outbound.filled.notified();
            let (mut chunks, count, weight) = self.batch();
            if !chunks.is_empty() {
                let written = to.write(&mut chunks).await;
                // Given back also where it failed: it is nobody's any more.
                self.outbound.done(weight);
                let fate = if written.is_ok() { Fate::Sent } else { Fate::DroppedUnreachable };
                broker.0.counts.add_by(fate, count);
                written?;
                continue;
            }
            tokio::select! {
                () = filled => {}
                () = tokio::time::sleep(IDLE) => {
                    if self.outbound.end_if_empty() {
                        return Ok(());
                    }
                }
                code = to.stopped() => return Err(StreamError::Reset(code)),
            }
        }
    }

    /// What to write next: messages that are whole, and a part of each long one. Gives the bytes,
    /// how many messages were begun, and the weight of those that are done.
    fn batch(&mut self) -> (Vec<Bytes>, usize, usize) {
        let (mut chunks, mut count, mut weight, mut bytes) = (Vec::new(), 0, 0, 0);
        while count < BATCH && bytes < BATCH_BYTES {
            let Some(outgoing) = self.next() else { break };
            let Outgoing { head, message, .. } = outgoing;
            count += 1;
            if message.payload.len() > CHUNK {
                let used = |slot: &u8| self.long.iter().any(|long| long.slot == *slot);
                let slot = (0..SLOTS).find(|slot| !used(slot)).expect("next() sees to it");
                chunks.push(publish::begin(slot, message.payload.len(), &head, &mut self.known));
                self.long.push(Long { slot, message, sent: 0 });
                continue;
            }
            let first = publish::whole(&head, &message.payload, &mut self.known);
            bytes += first.len() + message.payload.len();
            weight += message.weight();
            chunks.push(first);
            chunks.extend((!message.payload.is_empty()).then(|| message.payload.clone()));
        }
        for long in &mut self.long {
            let end = (long.sent + CHUNK).min(long.message.payload.len());
            chunks.push(publish::part(long.slot, end - long.sent));
            chunks.push(long.message.payload.slice(long.sent..end));
            long.sent = end;
        }
        self.long.retain(|long| {
            let done = long.sent == long.message.payload.len();
            weight += if done { long.message.weight() } else { 0 };
            !done
        });
        (chunks, count, weight)
    }

    /// The next message whose topic is not in the middle of a long one.
    fn next(&mut self) -> Option<Outgoing> {
        let is_free = |one: &Outgoing, long: &[Long], before: &[&Outgoing]| {
            let topic = &one.message.topic;
            let waits = long.iter().any(|long| long.message.topic == *topic)
                || before.iter().any(|before| before.message.topic == *topic);
            let room = one.message.payload.len() <= CHUNK || long.len() < usize::from(SLOTS);
            !waits && room
        };
        let mut before = Vec::new();
        let mut found = None;
        for (at, one) in self.behind.iter().enumerate() {
            if is_free(one, &self.long, &before) {
                found = Some(at);
                break;
            }
            before.push(one);
        }
        if let Some(at) = found {
            return self.behind.remove(at);
        }
        loop {
            if self.behind.len() >= BATCH {
                return None;
            }
            let one = self.outbound.state.lock().items.pop_front()?;
            let before: Vec<&Outgoing> = self.behind.iter().collect();
            if is_free(&one, &self.long, &before) {
                return Some(one);
            }
            self.behind.push_back(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::Topic;
    use proto::publish::{Delivery, Frame, Headers, Reader};
    use proto::time::Epoch;

    use super::*;
    use crate::broker::head;

    fn outgoing(topic: &str, bytes: usize) -> Outgoing {
        let message = Arc::new(Message {
            namespace: "".into(),
            topic: Topic::new(topic.to_owned()).unwrap(),
            reply: None,
            headers: Headers::default(),
            payload: Bytes::from(vec![7; bytes]),
        });
        let head = head(&message, None, Epoch(1), 0, Delivery::default(), Vec::new());
        Outgoing { head, message, tries: 0 }
    }

    #[test]
    fn small_messages_pass_a_long_one_of_another_topic_and_not_of_their_own() {
        let outbound = Outbound::default();
        for (topic, bytes) in [("big", 3 * CHUNK), ("big", 1), ("small", 1), ("big", 2)] {
            assert!(matches!(outbound.push(outgoing(topic, bytes)), Pushed::Yes));
        }
        let (mut writer, mut reader) = (Writer::new(&outbound), Reader::default());
        let (mut done, mut order) = (0, Vec::new());
        loop {
            let (chunks, _, weight) = writer.batch();
            if chunks.is_empty() {
                break;
            }
            done += weight;
            chunks.iter().for_each(|chunk| reader.push(chunk));
            while let Some(frame) = reader.next().unwrap() {
                order.push(match frame {
                    Frame::Whole(head, payload) => format!("{} {}", head.topic, payload.len()),
                    Frame::Begin { .. } => "begin".to_owned(),
                    Frame::Part { .. } => "part".to_owned(),
                });
            }
        }
        assert_eq!(order, ["begin", "small 1", "part", "part", "part", "big 1", "big 2"]);
        assert_eq!(outbound.state.lock().bytes, done);
    }

    #[test]
    fn a_queue_is_bounded_and_an_empty_one_takes_any_message() {
        let outbound = Outbound::default();
        let push = |bytes| outbound.push(outgoing("a", bytes));
        assert!(matches!(push(MAX_BYTES + 1), Pushed::Yes));
        assert!(matches!(push(1), Pushed::Full(_)));
        outbound.state.lock().stalled = true;
        assert!(matches!(push(1), Pushed::Stalled));
        assert!(!outbound.end_if_empty());
        assert_eq!(outbound.end().len(), 1);
        assert!(matches!(push(1), Pushed::Over(_)));
    }
}
