//! One bridge, as long as it lives: connected, away, and connected again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use parking_lot::Mutex;
use proto::publish::{MAX_PAYLOAD, Message};
use proto::record::Interest;
use proto::topic::{QueueGroup, Topic, TopicPattern};
use proxy::broker::{Item, Mailbox, Overflow, Subscription};
use proxy::{Broker, Published};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::client::{self, Standing, gone};
use super::mark::{self, Place, Stop};
use super::names::{Names, Replies};
use super::{Counts, Fate, Toward, words};
use crate::config::bridge::{Bridge, Carried};
use crate::error::{Exit, Problem};

/// Messages taken out of the mailbox at once.
const BATCH: usize = 128;
/// The tag of answers in the mailbox.
const ANSWER: u64 = 0;
/// The tag of all else there.
const SHARED: u64 = 1;

/// One bridge.
pub(super) struct Carrier {
    pub bridge: Bridge,
    pub broker: Broker,
    pub routes: Arc<Published>,
    /// The network that this node is of.
    pub here: Place,
    pub counts: Counts,
}

/// What both directions need.
struct Shared {
    name: String,
    broker: Broker,
    here: Place,
    /// The cluster of NATS, known once a server has said who it is.
    there: ArcSwap<Place>,
    names: Names,
    counts: Counts,
    /// Who asked in the network, as NATS knows it.
    asked_here: Mutex<Replies>,
    /// Who asked on NATS, as the network knows it.
    asked_there: Mutex<Replies>,
}

/// A bridge that cannot be, for people.
pub(crate) fn refused(bridge: &Bridge, why: String) -> Problem {
    Problem::new("M5003", Exit::Config, format!("the bridge {} cannot be", bridge.name))
        .why(why)
        .attempt("micro config check", "")
}

impl Carrier {
    /// Carries until this is dropped, or the bridge cannot be.
    pub(super) async fn run(self) {
        if let Err(problem) = self.live().await {
            tracing::warn!("{problem}");
        }
    }

    async fn live(&self) -> Result<(), Problem> {
        let (client, mut standing) = client::start(&self.bridge, &self.counts).await?;
        let name = &self.bridge.name;
        self.counts.is_connected(name, false);
        // Named by nobody else, on neither side: answers come to this bridge alone.
        let inbox = proto::id::base32().encode(&tunnel::identity::random::<15>());
        let inbox = format!("_INBOX.{inbox}");
        let shared = Arc::new(Shared {
            name: name.clone(),
            broker: self.broker.clone(),
            here: self.here.clone(),
            there: ArcSwap::from_pointee(Place::nats("")),
            names: Names::of(&self.bridge),
            counts: self.counts.clone(),
            asked_here: Mutex::new(Replies::below(&inbox)),
            asked_there: Mutex::new(Replies::below(&inbox)),
        });
        let mut outward = Outward::new(Arc::clone(&shared));
        let (mut inward, mut lost_at) = (None, Instant::now());
        loop {
            self.wait_connected(&mut standing).await?;
            let Some(there) = self.who(&client, &mut standing).await? else { continue };
            let moved = **shared.there.load() != there;
            shared.there.store(Arc::new(there.clone()));
            let dropped = outward.resume(self, moved);
            if inward.is_none() {
                let subscribers = self.subscribe(&client, &inbox).await?;
                // Lost meanwhile, it is subscribed again with the next connection.
                tokio::select! {
                    _ = client.flush() => {}
                    () = gone(&mut standing) => {}
                }
                let task = tokio::spawn(Arc::clone(&shared).inward(client.clone(), subscribers));
                inward = Some(AbortOnDropHandle::new(task));
            }
            self.counts.is_connected(name, true);
            let (gap, waited) = (lost_at.elapsed(), outward.waiting());
            let again = standing.borrow().connects > 1;
            self.tell(&there, again.then_some(gap), waited, dropped);

            outward.carry(&client, &mut standing).await;

            lost_at = Instant::now();
            outward.count_dropped();
            self.counts.is_connected(name, false);
            self.counts.lost(name);
            tracing::warn!(bridge = %name, cluster = %there, "the bridge has lost its server");
            outward.give_place_to_others(self);
        }
    }

    fn tell(&self, there: &Place, gap: Option<Duration>, waited: usize, dropped: u64) {
        let bridge = &self.bridge.name;
        match gap {
            None => tracing::info!(%bridge, cluster = %there, "the bridge is connected"),
            Some(gap) => {
                let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(%bridge, cluster = %there, gap_ms, waited, dropped, "the bridge is connected again");
            }
        }
    }

    /// Waits for a connection; what stands in its way is told once.
    async fn wait_connected(
        &self,
        standing: &mut watch::Receiver<Standing>,
    ) -> Result<(), Problem> {
        let mut told = None;
        loop {
            let now = standing.borrow_and_update().clone();
            if now.over {
                return Err(refused(&self.bridge, "its client has ended".to_owned()));
            }
            if now.connected {
                return Ok(());
            }
            if now.trouble.is_some() && now.trouble != told {
                let why = now.trouble.as_deref().unwrap_or_default();
                tracing::warn!(bridge = %self.bridge.name, why, "the bridge has no server yet");
                told = now.trouble;
            }
            if standing.changed().await.is_err() {
                return Err(refused(&self.bridge, "its client has ended".to_owned()));
            }
        }
    }

    /// Which cluster the server is of; `None` where it is gone again.
    async fn who(
        &self,
        client: &Client,
        standing: &mut watch::Receiver<Standing>,
    ) -> Result<Option<Place>, Problem> {
        // Answered by the connection itself: what it says of its server is from then on the new one's.
        tokio::select! {
            flushed = client.flush() => if flushed.is_err() { return Ok(None) },
            () = gone(standing) => return Ok(None),
        }
        let info = client.server_info();
        let said = info.cluster.as_deref().filter(|cluster| !cluster.is_empty());
        let there = Place::nats(said.unwrap_or(&info.server_id));
        let node = info.server_id.parse().ok();
        let ours = node.is_some_and(|node| self.routes.load().node(&node).is_some());
        if ours || there == self.here {
            return Err(self.itself(&info.server_name));
        }
        if !info.headers {
            let why =
                format!("{} takes no headers, and messages could go in a circle", info.server_name);
            return Err(refused(&self.bridge, why));
        }
        Ok(Some(match &self.bridge.cluster {
            // A network of nodes is known by its id, whatever somebody calls it.
            Some(called) if !there.as_str().starts_with("net:") => Place::nats(called),
            Some(_) | None => there,
        }))
    }

    fn itself(&self, node: &str) -> Problem {
        let what = format!("the bridge {} leads back into its own network", self.bridge.name);
        let why = format!(
            "{} is the port for NATS of the node {node}: what is published there is a topic already",
            self.bridge.urls.join(", ")
        );
        let file =
            format!("set broker.bridge.{}.url to a server of NATS, or remove it", self.bridge.name);
        Problem::new("M5003", Exit::Config, what).why(why).attempt("micro config path", &file)
    }

    /// Subscribes on NATS: in one queue group with all bridges of this network, or in the one that is
    /// shared; and to answers.
    async fn subscribe(
        &self,
        client: &Client,
        inbox: &str,
    ) -> Result<SelectAll<Subscriber>, Problem> {
        let names = Names::of(&self.bridge);
        let failed = |why: &dyn std::fmt::Display| refused(&self.bridge, why.to_string());
        let group = format!("micro.{}", self.here);
        let mut all = SelectAll::new();
        for Carried { pattern, queue } in &self.bridge.subscribe {
            let too_long = || refused(&self.bridge, format!("{pattern} is too long on NATS"));
            let subject = names.on_nats(pattern).ok_or_else(too_long)?.to_string();
            let group = queue.as_ref().map_or_else(|| group.clone(), |q| q.as_str().to_owned());
            let subscribed = client.queue_subscribe(subject, group).await;
            all.push(subscribed.map_err(|why| failed(&why))?);
        }
        let answers = client.subscribe(format!("{inbox}.*")).await;
        all.push(answers.map_err(|why| failed(&why))?);
        Ok(all)
    }
}

/// From the network to NATS.
struct Outward {
    shared: Arc<Shared>,
    mailbox: Mailbox,
    /// Taken out of it, and not sent.
    left: VecDeque<Item>,
    held: Vec<(Interest, Subscription)>,
    /// Of what the mailbox has dropped, how many are counted.
    counted: u64,
}

impl Outward {
    fn new(shared: Arc<Shared>) -> Self {
        let mailbox = Mailbox::new(Overflow::DropOldest);
        Self { shared, mailbox, left: VecDeque::new(), held: Vec::new(), counted: 0 }
    }

    fn waiting(&self) -> usize {
        self.left.len() + self.mailbox.waiting()
    }

    /// Takes part in the network again. Where the cluster is another than before, others may have
    /// carried what waits, and it is dropped. Gives how many messages were dropped since the loss.
    fn resume(&mut self, carrier: &Carrier, moved: bool) -> u64 {
        let mut dropped = self.count_dropped();
        let (name, toward) = (&self.shared.name, Toward::Nats);
        if moved {
            self.held.clear();
            let waited = (self.mailbox.take_waiting().len() + self.left.len()) as u64;
            self.left.clear();
            self.shared.counts.add(name, toward, Fate::Dropped, waited);
            dropped += waited;
        }
        for (interest, tag) in self.wanted(carrier) {
            if self.held.iter().any(|(held, _)| *held == interest) {
                continue;
            }
            match self.shared.broker.subscribe(&self.mailbox, tag, interest.clone()) {
                Ok(subscription) => self.held.push((interest, subscription)),
                Err(refusal) => {
                    tracing::warn!(bridge = %name, pattern = %interest.pattern, %refusal, "not carried");
                }
            }
        }
        dropped
    }

    /// Counts what the mailbox has dropped since it was asked last.
    fn count_dropped(&mut self) -> u64 {
        let all = self.mailbox.dropped();
        let dropped = all - std::mem::replace(&mut self.counted, all);
        self.shared.counts.add(&self.shared.name, Toward::Nats, Fate::Dropped, dropped);
        dropped
    }

    /// What this bridge wants to hear of in the network.
    fn wanted(&self, carrier: &Carrier) -> Vec<(Interest, u64)> {
        let there = self.shared.there.load();
        let group = QueueGroup::new(format!("_bridge.{there}")).ok();
        let of = |pattern: TopicPattern, group: Option<QueueGroup>| Interest {
            namespace: Arc::from(""),
            pattern,
            group,
        };
        let shared = carrier.bridge.publish.iter().filter_map(|Carried { pattern, queue }| {
            let pattern = self.shared.names.in_network(pattern)?;
            Some((of(pattern, queue.clone().or_else(|| group.clone())), SHARED))
        });
        let answers = self.shared.asked_there.lock().pattern();
        shared.chain(answers.map(|pattern| (of(pattern, None), ANSWER))).collect()
    }

    /// Leaves the groups that have other members: they can do what this bridge cannot now. Alone, it
    /// stays and keeps what comes.
    fn give_place_to_others(&mut self, carrier: &Carrier) {
        let routes = carrier.routes.load();
        self.held.retain(|(interest, _)| {
            let wanted = routes.topics().get(&interest.namespace, &interest.pattern);
            let others = wanted.is_some_and(|wanted| {
                let same = wanted.iter().filter(|one| one.group == interest.group);
                same.into_iter().any(|one| one.node != routes.me() || one.count > 1)
            });
            interest.group.is_none() || !others
        });
    }

    /// Carries while there is a connection.
    async fn carry(&mut self, client: &Client, standing: &mut watch::Receiver<Standing>) {
        loop {
            self.count_dropped();
            while let Some(item) = self.left.pop_front() {
                let Some(sent) = self.shared.outward(client, &item) else { continue };
                tokio::select! {
                    biased;
                    () = gone(standing) => return self.left.push_front(item),
                    () = sent => {}
                }
            }
            tokio::select! {
                biased;
                () = gone(standing) => return,
                taken = self.mailbox.take(BATCH) => match taken {
                    Ok(items) => self.left.extend(items),
                    // Never for this policy.
                    Err(_closed) => return,
                },
            }
        }
    }
}

impl Shared {
    fn count(&self, toward: Toward, fate: Fate) {
        self.counts.add(&self.name, toward, fate, 1);
    }

    /// A message of the network, on its way to NATS; `None`, and counted, where it does not go there.
    fn outward<'a>(
        &'a self,
        client: &'a Client,
        item: &Item,
    ) -> Option<impl Future<Output = ()> + 'a> {
        let (toward, message) = (Toward::Nats, &item.message);
        let prepared = if item.tag == ANSWER {
            let address = self.asked_there.lock().get(message.topic.as_str()).map(str::to_owned);
            address.ok_or(Fate::Refused).map(|address| (address, None, Fate::Answered))
        } else {
            self.to_nats(message).map(|(subject, mark)| (subject, Some(mark), Fate::Carried))
        };
        let prepared = prepared.and_then(|(subject, mark, fate)| {
            let headers = words::to_nats(&message.headers, mark.as_deref()).ok_or(Fate::Refused)?;
            let size = message.payload.len() + message.headers.bytes().len();
            // With what headers are written with beside their text.
            let fits = size + 1024 <= client.max_payload() || size == 0;
            if fits { Ok((subject, headers, fate)) } else { Err(Fate::TooLarge) }
        });
        let (subject, headers, fate) = match prepared {
            Ok(prepared) => prepared,
            Err(fate) => {
                self.count(toward, fate);
                return None;
            }
        };
        let reply = message.reply.as_ref().map(|reply| self.asked_here.lock().put(reply.as_str()));
        let payload = message.payload.clone();
        Some(async move {
            let sent = match reply {
                Some(reply) if headers.is_empty() => {
                    client.publish_with_reply(subject, reply, payload).await
                }
                Some(reply) => {
                    client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
                None if headers.is_empty() => client.publish(subject, payload).await,
                None => client.publish_with_headers(subject, headers, payload).await,
            };
            self.count(toward, if sent.is_ok() { fate } else { Fate::Refused });
        })
    }

    fn to_nats(&self, message: &Message) -> Result<(String, String), Fate> {
        let subject = self.names.subject(&message.topic).ok_or(Fate::Refused)?;
        let marks = words::marks(&message.headers);
        let mark = mark::onward(marks, &self.here, &self.there.load()).map_err(fate)?;
        Ok((subject.to_string(), mark))
    }

    /// Takes what comes from NATS until this is dropped. The client is held: it is the connection.
    async fn inward(self: Arc<Self>, _client: Client, mut from: SelectAll<Subscriber>) {
        while let Some(message) = from.next().await {
            if message.status.is_some() {
                // The word of a server (nobody listens there), and no message.
                continue;
            }
            let fate = match self.to_network(&message) {
                Err(fate) => fate,
                Ok((message, fate)) => match self.broker.publish(message, None).await {
                    Ok(_receivers) => fate,
                    Err(_too_large) => Fate::TooLarge,
                },
            };
            self.count(Toward::Network, fate);
        }
    }

    fn to_network(&self, message: &async_nats::Message) -> Result<(Message, Fate), Fate> {
        if message.payload.len() > MAX_PAYLOAD {
            return Err(Fate::TooLarge);
        }
        let headers = message.headers.as_ref();
        let asked = self.asked_here.lock().get(message.subject.as_str()).map(str::to_owned);
        let is_answer = self.asked_here.lock().is_below(message.subject.as_str());
        let (topic, mark, fate) = match asked {
            Some(address) => (Topic::new(address).ok(), None, Fate::Answered),
            None if is_answer => (None, None, Fate::Refused),
            None => {
                let marks = words::marks_of(headers);
                let mark = mark::onward(marks, &self.there.load(), &self.here).map_err(fate)?;
                (self.names.topic(message.subject.as_str()), Some(mark), Fate::Carried)
            }
        };
        let topic = topic.ok_or(Fate::Refused)?;
        let headers = words::to_network(headers, mark.as_deref()).ok_or(Fate::Refused)?;
        let reply = message.reply.as_ref().map(|reply| self.asked_there.lock().put(reply.as_str()));
        let reply = reply.map(Topic::new).transpose().map_err(|_| Fate::Refused)?;
        let payload = message.payload.clone();
        Ok((Message { namespace: Arc::from(""), topic, reply, headers, payload }, fate))
    }
}

fn fate(stop: Stop) -> Fate {
    match stop {
        Stop::Been | Stop::Far => Fate::Been,
        Stop::Unreadable => Fate::Refused,
    }
}
