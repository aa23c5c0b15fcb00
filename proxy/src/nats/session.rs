//! What a client wants: its subscriptions, and what it publishes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::publish::Message;
use proto::topic::{QueueGroup, Topic, TopicPattern};
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;

use super::headers;
use super::login::Door;
use super::parse::{Command, ParseError, Parser};
use super::write::{Alive, Answer};
use crate::broker::{Broker, Mailbox, Overflow, Subscription};

/// How long a publisher on this node waits for a client that reads too slowly.
const PATIENCE: Duration = Duration::from_millis(10);
/// Subscriptions of one client.
const MAX_SUBSCRIPTIONS: usize = 65_536;
/// How long a client that is told to go may take, and how much of what it still says is read.
const LINGER: Duration = Duration::from_secs(1);
const DROPPED: u64 = 16 * 1024 * 1024;
/// Bytes asked of the socket at once.
const READ: usize = 32 * 1024;

/// What the client said of itself (`CONNECT`); the defaults are those of NATS. Whether it is pedantic
/// makes no difference: topics of a client that is not are looked at as closely.
#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Said {
    verbose: bool,
    echo: bool,
    headers: bool,
    no_responders: bool,
    tls_required: bool,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            verbose: false,
            echo: true,
            headers: false,
            no_responders: false,
            tls_required: false,
        }
    }
}

/// One client.
pub(super) struct Session {
    broker: Broker,
    said: Said,
    /// Until the client has come in; `None` also where everybody may.
    door: Option<Door>,
    refused: bool,
    mailbox: Mailbox,
    answers: mpsc::Sender<Answer>,
    alive: Arc<Alive>,
    /// By the name of the client's.
    subscriptions: HashMap<Bytes, u64, foldhash::fast::RandomState>,
    /// By our number, which is the tag of their messages.
    held: HashMap<u64, Subscription, foldhash::fast::RandomState>,
    numbered: u64,
}

/// The client has gone, or is told to go.
struct Over(Option<String>);

impl From<ParseError> for Over {
    fn from(error: ParseError) -> Self {
        Self(Some(error.to_string()))
    }
}

impl Session {
    pub(super) fn new(broker: Broker, answers: mpsc::Sender<Answer>, door: Option<Door>) -> Self {
        Self {
            broker,
            said: Said::default(),
            door,
            refused: false,
            mailbox: Mailbox::new(Overflow::Block(PATIENCE)),
            answers,
            alive: Arc::default(),
            subscriptions: HashMap::default(),
            held: HashMap::default(),
            numbered: 0,
        }
    }

    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub(super) fn alive(&self) -> Arc<Alive> {
        Arc::clone(&self.alive)
    }

    /// Whether it was told to go because it did not say who it is.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Does what the client says, until it goes or says what cannot be understood.
    pub(super) async fn run(&mut self, mut read: OwnedReadHalf) {
        if let Err(Over(Some(why))) = self.obey(&mut read).await {
            self.last_words(why, read).await;
        }
    }

    async fn obey(&mut self, read: &mut OwnedReadHalf) -> Result<(), Over> {
        let (mut parser, mut come) = (Parser::default(), BytesMut::with_capacity(READ));
        loop {
            if let Some(command) = parser.next(&mut come)? {
                self.command(command).await?;
                continue;
            }
            if self.door.is_some() && parser.missing(&come) > 0 {
                // Nothing is published by who has not come in: its payload is not waited for.
                return Err(self.refuse("Authorization Violation"));
            }
            come.reserve(parser.missing(&come).clamp(READ, 8 * READ));
            let some = read.read_buf(&mut come);
            let some = match &self.door {
                Some(door) => match tokio::time::timeout_at(door.until, some).await {
                    Ok(some) => some,
                    Err(_) => return Err(self.refuse("Authentication Timeout")),
                },
                None => some.await,
            };
            match some {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => self.alive.heard(),
            }
            self.forget_done();
        }
    }

    /// Says why this is over, and waits for the client to go. Closed with bytes unread, the
    /// connection would be reset and the words lost with it.
    async fn last_words(&mut self, why: String, read: OwnedReadHalf) {
        self.held.clear();
        if self.answers.send(Answer::Last(why)).await.is_err() {
            return;
        }
        let mut rest = read.take(DROPPED);
        let dropped = async { tokio::io::copy(&mut rest, &mut tokio::io::sink()).await };
        let _ = tokio::time::timeout(LINGER, dropped).await;
    }

    async fn answer(&self, answer: Answer) -> Result<(), Over> {
        self.answers.send(answer).await.map_err(|_| Over(None))
    }

    async fn ok(&self) -> Result<(), Over> {
        if self.said.verbose { self.answer(Answer::Ok).await } else { Ok(()) }
    }

    /// What is wrong and does not end the connection.
    async fn wrong(&self, what: impl Into<String>) -> Result<(), Over> {
        self.answer(Answer::Error(what.into())).await
    }

    fn refuse(&mut self, why: &str) -> Over {
        self.refused = true;
        Over(Some(why.to_owned()))
    }

    async fn command(&mut self, command: Command) -> Result<(), Over> {
        if let Some(door) = &self.door {
            let opened = matches!(&command, Command::Connect(json) if door.opens(json));
            if !opened {
                return Err(self.refuse("Authorization Violation"));
            }
            self.door = None;
        }
        match command {
            Command::Ping => self.answer(Answer::Pong).await,
            Command::Pong | Command::Nothing => Ok(()),
            Command::Connect(json) => {
                let said = serde_json::from_slice(&json);
                self.said = said.map_err(|_| Over(Some("Parser Error".into())))?;
                if self.said.tls_required {
                    return Err(Over(Some("Secure Connection - TLS not available".into())));
                }
                self.ok().await
            }
            Command::Publish { topic, reply, headers, payload } => {
                self.publish(topic, reply, &headers, payload).await
            }
            Command::Subscribe { pattern, group, sid } => {
                self.subscribe(&pattern, group, sid).await
            }
            Command::Unsubscribe { sid, most } => self.unsubscribe(&sid, most).await,
        }
    }

    async fn publish(
        &mut self,
        topic: Bytes,
        reply: Option<Bytes>,
        block: &[u8],
        payload: Bytes,
    ) -> Result<(), Over> {
        // In memory of their own: a message that waits must not keep all that came with it.
        let own = |text: &Bytes| Bytes::copy_from_slice(text);
        let Ok(topic) = Topic::new(own(&topic)) else {
            return self.wrong("Invalid Publish Subject").await;
        };
        let reply = match reply.map(|reply| Topic::new(own(&reply))).transpose() {
            Ok(reply) => reply,
            Err(_) => return self.wrong("Invalid Reply Subject").await,
        };
        let Ok(headers) = headers::read(block) else {
            return self.wrong("Invalid Headers").await;
        };
        let payload = Bytes::copy_from_slice(&payload);
        let asked = reply.clone().filter(|_| self.said.no_responders && self.said.headers);
        let message = Message { namespace: "".into(), topic, reply, headers, payload };
        let except = (!self.said.echo).then_some(&self.mailbox);
        match self.broker.publish(message, except).await {
            Ok(0) => {
                if let Some(reply) = asked {
                    self.nobody(&reply).await?;
                }
            }
            Ok(_) => {}
            Err(error) => return self.wrong(error.to_string()).await,
        }
        self.ok().await
    }

    /// Tells who asked that nobody will answer (status 503, an empty message).
    async fn nobody(&self, reply: &Topic) -> Result<(), Over> {
        let waits = |held: &Subscription| held.pattern().matches(reply);
        let named =
            self.subscriptions.iter().find(|(_, number)| self.held.get(number).is_some_and(waits));
        match named {
            Some((sid, _)) => {
                let (sid, topic) = (sid.clone(), reply.clone());
                self.answer(Answer::NoResponders { sid, topic }).await
            }
            None => Ok(()),
        }
    }

    async fn subscribe(
        &mut self,
        pattern: &Bytes,
        group: Option<Bytes>,
        sid: Bytes,
    ) -> Result<(), Over> {
        let own = |text: &Bytes| Bytes::copy_from_slice(text);
        let group = group.map(|group| QueueGroup::new(own(&group))).transpose();
        let (Ok(pattern), Ok(group)) = (TopicPattern::new(own(pattern)), group) else {
            return self.wrong("Invalid Subject").await;
        };
        if self.subscriptions.contains_key(&sid) {
            // As the servers of NATS do: the first one stays.
            return self.ok().await;
        }
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return self.wrong("maximum subscriptions exceeded").await;
        }
        self.numbered += 1;
        let number = self.numbered;
        self.alive.name(number, sid.clone());
        let interest = crate::broker::interest(pattern, group);
        match self.broker.subscribe(&self.mailbox, number, interest) {
            Ok(held) => {
                self.held.insert(number, held);
                self.subscriptions.insert(sid, number);
                self.ok().await
            }
            Err(_) => {
                self.alive.end(number);
                self.wrong("maximum subscriptions exceeded").await
            }
        }
    }

    async fn unsubscribe(&mut self, sid: &Bytes, most: Option<u64>) -> Result<(), Over> {
        if let Some(number) = self.subscriptions.get(sid).copied() {
            let over = match most.filter(|most| *most > 0) {
                Some(most) => self.alive.limit(number, most),
                None => {
                    self.alive.end(number);
                    true
                }
            };
            if over {
                self.subscriptions.remove(sid);
                self.held.remove(&number);
            }
        }
        self.ok().await
    }

    /// Ends the subscriptions that have had all their messages.
    fn forget_done(&mut self) {
        for (number, sid) in self.alive.take_done() {
            self.held.remove(&number);
            self.subscriptions.remove(&sid);
        }
    }
}

/// Pings that were not answered.
#[derive(Debug, Default)]
pub(super) struct Pings(AtomicU32);

impl Pings {
    /// One more is sent; gives how many are not answered.
    pub(super) fn sent(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Something was heard.
    pub(super) fn heard(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
