//! Topics: publish, fan out, relay, deliver.
//!
//! ```text
//! publisher   publish      local subscribers by `local`; other nodes by router's Planner
//!             outbound     one queue and one ordered stream a node and lane; long payloads are cut
//! next node   inbound      taken once and in order (router's Taken), passed on to those named
//!             mailbox      the bounded queue of a subscriber, with its policy when it is full
//! ```
//!
//! A message is delivered at most once. Nobody waits for a subscriber on another node, and for one
//! on this node no longer than its policy says; each message that is not delivered is counted.

mod inbound;
mod local;
mod mailbox;
mod outbound;
mod replies;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use proto::publish::{Delivery, Head, MAX_PAYLOAD, Message, Onward};
use proto::record::Interest;
use proto::topic::{QueueGroup, Topic};
use proto::{Epoch, NodeId, Time};
use router::topics::{Leg, Planner, Taken};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tunnel::Tunnel;

pub use self::local::{Subscription, TooMany};
pub use self::mailbox::{Closed, Item, Mailbox, Overflow};

pub(crate) use self::local::{MAX_INTERESTS, interest};

use self::local::Local;
use self::outbound::{Outbounds, Outgoing};
use self::replies::Replies;
use crate::routes::Published;

/// The header in which a message that a stream gives to who asked says the topic it was published to.
pub const STREAM_TOPIC: &str = "Micro-Stream-Topic";
/// The headers of a message that says what became of a question, in place of an answer: a number as HTTP has
/// them, and what it means. Clients of NATS read both in the first line of headers.
pub const STATUS: &str = "Status";
/// See [`STATUS`].
pub const DESCRIPTION: &str = "Description";
/// What the queue group begins with in which a stream takes what it keeps; its name follows.
pub const STREAM_GROUP: &str = "_stream.";
/// What the address begins with at which a stream hears what became of a message.
pub(crate) const ACKNOWLEDGE: &[u8] = b"$JS.ACK.";

/// Streams of topics to one node, each with its own order.
const STREAMS: u8 = 4;
/// How long a message that came from another node is kept from others by a subscriber that is full.
const RELAYED_PATIENCE: Duration = Duration::from_millis(10);
/// How often a message is sent another way because the chosen one did not work.
const TRIES: u8 = 3;

/// What became of a message, or a part of it, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Fate {
    /// Published on this node.
    Published,
    /// Put into the queue of a subscriber here.
    Delivered,
    /// Handed to the stream to another node.
    Sent,
    /// Came from another node.
    Received,
    /// A subscriber's queue was full.
    DroppedFull,
    /// The queue to another node was full.
    DroppedLink,
    /// Another node could not be reached.
    DroppedUnreachable,
    /// It came from where it was not expected, or too late to be in order.
    DroppedRefused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FateLabels {
    fate: Fate,
}

/// What is counted.
#[derive(Clone, Default)]
pub(crate) struct Counts(Family<FateLabels, Counter>);

impl Counts {
    pub(crate) fn add(&self, fate: Fate) {
        self.add_by(fate, 1);
    }

    pub(crate) fn add_by(&self, fate: Fate, count: usize) {
        self.0.get_or_create(&FateLabels { fate }).inc_by(count as u64);
    }
}

/// The topics of one node. Cheap to clone: a handle.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

struct Shared {
    me: NodeId,
    routes: Arc<Published>,
    tunnel: Tunnel,
    began: Instant,
    local: Mutex<Local>,
    planner: Mutex<Planner>,
    taken: Mutex<Taken>,
    outbounds: Outbounds,
    replies: Mutex<Replies>,
    inbounds: inbound::Inbounds,
    changed: Notify,
    counts: Counts,
    /// The event loop of the data plane, where streams are written.
    data: OnceLock<Handle>,
}

/// Why a message is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// More than [`MAX_PAYLOAD`] bytes.
    #[error("a message has at most {MAX_PAYLOAD} bytes")]
    TooLarge,
}

impl Broker {
    pub(crate) fn new(me: NodeId, routes: Arc<Published>, tunnel: Tunnel) -> Self {
        Self(Arc::new(Shared {
            me,
            routes,
            tunnel,
            began: Instant::now(),
            local: Mutex::default(),
            planner: Mutex::default(),
            taken: Mutex::default(),
            outbounds: Outbounds::default(),
            replies: Mutex::default(),
            inbounds: inbound::Inbounds::default(),
            changed: Notify::new(),
            counts: Counts::default(),
            data: OnceLock::new(),
        }))
    }

    /// Has streams written in the event loop this is called in.
    pub(crate) fn lives_here(&self) {
        let _ = self.0.data.set(Handle::current());
    }

    pub(crate) fn metrics(&self, registry: &mut Registry) {
        let help = "Messages of topics, by what became of them";
        registry.sub_registry_with_prefix("topic").register(
            "messages",
            help,
            self.0.counts.0.clone(),
        );
    }

    /// Publishes a message to whoever wants it now; gives how many that are: subscribers here, and
    /// nodes. Waits for subscribers here whose policy says so. `except` is a mailbox that does not
    /// get it: that of a client that asked not to hear itself.
    ///
    /// # Errors
    /// [`PublishError`], when nobody got it.
    pub async fn publish(
        &self,
        message: Message,
        except: Option<&Mailbox>,
    ) -> Result<usize, PublishError> {
        if message.payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLarge);
        }
        let shared = &self.0;
        shared.counts.add(Fate::Published);
        let message = Arc::new(message);
        let (here, groups) = shared.local.lock().wanted(&message, None, except);
        let legs = {
            let routes = shared.routes.load();
            let also = shared.origin(&routes, &message);
            let now = shared.now();
            let (namespace, topic) = (&message.namespace, &message.topic);
            shared.planner.lock().plan(&routes, namespace, topic, &groups, also, now)
        };
        let beyond =
            |leg: &Leg| leg.onward.len() + usize::from(leg.delivery != Delivery::default());
        let count = here.len() + legs.iter().map(beyond).sum::<usize>();
        self.send(legs, &message, 0).await;
        shared.deliver(here, &message, Duration::MAX).await;
        Ok(count)
    }

    /// Puts a message of this node into the queues of its legs.
    async fn send(&self, legs: Vec<Leg>, message: &Arc<Message>, tries: u8) {
        let epoch = self.0.epoch();
        for Leg { to, way, delivery, onward } in legs {
            let head = head(message, None, epoch, way, delivery, onward);
            let outgoing = Outgoing { head, message: Arc::clone(message), tries };
            self.enqueue(to, outgoing).await;
        }
    }

    /// What could not be handed to `node`, which gets nothing of it: others may.
    async fn send_otherwise(&self, node: NodeId, outgoing: Outgoing) {
        let Outgoing { head, message, tries } = outgoing;
        if head.origin.is_some() || tries >= TRIES {
            return self.0.counts.add(Fate::DroppedUnreachable);
        }
        if head.to.plain {
            self.0.counts.add(Fate::DroppedUnreachable);
        }
        let onward = head.onward.into_iter().map(|onward| (onward.node, onward.to));
        let mut targets: BTreeMap<NodeId, Delivery> = onward.collect();
        let legs = {
            let (routes, now) = (self.0.routes.load(), self.0.now());
            let mut planner = self.0.planner.lock();
            for group in head.to.groups {
                let (namespace, topic) = (&message.namespace, &message.topic);
                match planner.instead(&routes, namespace, topic, &group, now) {
                    Some(other) => targets.entry(other).or_default().groups.push(group),
                    None => self.0.counts.add(Fate::DroppedUnreachable),
                }
            }
            planner.legs(&routes, &message.topic, targets, now)
        };
        tracing::debug!(peer = %node.short(), topic = %message.topic, "sent another way");
        Box::pin(self.send(legs, &message, tries + 1)).await;
    }

    /// The stream that keeps what is published to a topic, where one of the network does.
    #[must_use]
    pub fn keeper(&self, topic: &Topic) -> Option<String> {
        let routes = self.0.routes.load();
        let mut found = None;
        routes.topics().matches("", topic, |wanted| {
            let groups = wanted.iter().filter_map(|wants| wants.group.as_ref());
            let mut streams = groups.filter_map(|group| group.as_str().strip_prefix(STREAM_GROUP));
            found = found.take().or_else(|| streams.next().map(ToOwned::to_owned));
        });
        found
    }

    /// Waits until what programs here want has changed, and gives what has: how many subscribers
    /// each of these has now. For one task: what was given is not given again.
    pub async fn changes(&self) -> Vec<(Interest, u32)> {
        loop {
            let changed = self.0.changed.notified();
            let changes = self.0.local.lock().take_changes();
            if !changes.is_empty() {
                return changes;
            }
            changed.await;
        }
    }
}

impl Shared {
    fn now(&self) -> Time {
        let micros = self.began.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Where an answer goes besides those of whom it is known that they wait for it. Once that is known of who
    /// asked, it decides: who has gone since waits no more.
    fn origin(&self, routes: &router::Routes, message: &Message) -> Option<NodeId> {
        let (namespace, topic) = (&message.namespace, &message.topic);
        let origin = self.replies.lock().origin(namespace, topic)?;
        let mut known = false;
        routes.topics().matches(namespace, topic, |wanted| {
            known = known || wanted.iter().any(|wants| wants.node == origin);
        });
        if known {
            self.replies.lock().forget(namespace, topic);
            return None;
        }
        Some(origin)
    }

    /// Which life of this node others know.
    fn epoch(&self) -> Epoch {
        self.routes.load().node(&self.me).map_or(Epoch(0), |node| node.epoch)
    }

    /// Puts a message into the queues of subscribers here, waiting at most `patience` for those
    /// that would have it waited for.
    async fn deliver(&self, to: Vec<(Mailbox, u64)>, message: &Arc<Message>, patience: Duration) {
        for (mailbox, tag) in to {
            let item = Item { tag, message: Arc::clone(message) };
            let dropped = mailbox.put(item, patience).await;
            self.counts.add_by(Fate::DroppedFull, dropped);
            if dropped == 0 || mailbox.drops_oldest() {
                self.counts.add(Fate::Delivered);
            }
        }
    }
}

fn head(
    message: &Message,
    origin: Option<NodeId>,
    epoch: Epoch,
    way: u64,
    to: Delivery,
    onward: Vec<Onward>,
) -> Head {
    Head {
        origin,
        epoch,
        way,
        to,
        onward,
        namespace: Arc::clone(&message.namespace),
        topic: message.topic.clone(),
        reply: message.reply.clone(),
        headers: message.headers.clone(),
    }
}

/// The stream that messages of a topic go by.
fn stream_of(topic: &Topic) -> u8 {
    topic.lane(router::topics::LANES) % STREAMS
}

/// The groups of a delivery that have a member here.
fn is_for(to: &Delivery, group: Option<&QueueGroup>) -> bool {
    group.map_or(to.plain, |group| to.groups.contains(group))
}
