//! A stream that a server of NATS keeps: what is published goes there to be stored, what is asked goes there to be answered.
//!
//! The server speaks what programs speak ([`super`]), so nothing is translated: this hands on questions with an address of
//! its own, and answers with the asker's. While there is no connection the stream is not of the network: who publishes
//! hears that nobody keeps the topic, and nothing is acknowledged that is not stored.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use proto::publish::{Headers, MAX_PAYLOAD, Message};
use proto::topic::Topic;
use proxy::Broker;
use proxy::broker::{DESCRIPTION, Item, Mailbox, Overflow, STATUS, STREAM_TOPIC, Subscription};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::api::Next;
use super::interests::{self, API, Question};
use super::{Counts, Fate};
use crate::bridge::client::{self, Standing};
use crate::bridge::names::Replies;
use crate::bridge::words;
use crate::config::bridge::Bridge;
use crate::config::stream::Stream;
use crate::error::Problem;

/// Messages handed on in one turn.
const BATCH: usize = 256;
/// How long a publisher on this node waits for a server that is too slow.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the server may take to make the stream, and between two attempts.
const MAKE: Duration = Duration::from_secs(5);
/// Questions for more messages that wait at a time.
const MAX_PULLS: usize = 4096;
/// How long a question waits unless it says so, and how long after its end its answer is still taken.
const WAITS: Duration = Duration::from_secs(600);
const SLACK: Duration = Duration::from_secs(5);

/// One such stream.
pub(super) struct Remote {
    pub(super) config: Stream,
    pub(super) bridge: Bridge,
    pub(super) broker: Broker,
    pub(super) counts: Counts,
    pub(super) bridged: crate::bridge::Counts,
}

/// What one connection is used with.
struct Link {
    broker: Broker,
    client: Client,
    /// Who asked what, by number.
    asked: Mutex<Replies>,
    pulls: Arc<Semaphore>,
    stream: String,
    counts: Counts,
}

impl Remote {
    /// Hands on until this is dropped, or its bridge cannot be.
    pub(super) async fn run(self) {
        if let Err(problem) = self.live().await {
            tracing::warn!("{problem}");
        }
    }

    async fn live(&self) -> Result<(), Problem> {
        let (client, mut standing) = client::start(&self.bridge, &self.bridged).await?;
        let inbox = inbox();
        let refused = |why: String| crate::bridge::refused(&self.bridge, why);
        let answers = client.subscribe(format!("{inbox}.*")).await;
        let mut answers = answers.map_err(|error| refused(error.to_string()))?;
        let link = Arc::new(Link {
            broker: self.broker.clone(),
            client,
            asked: Mutex::new(Replies::below(&inbox)),
            pulls: Arc::new(Semaphore::new(MAX_PULLS)),
            stream: self.config.name.clone(),
            counts: self.counts.clone(),
        });
        let (stream, bridge) = (&self.config.name, &self.bridge.name);
        let mut told = None;
        loop {
            let settled = standing.wait_for(|now| now.connected || now.over).await;
            if settled.map_or(true, |now| now.over) {
                return Err(refused("its client has ended".to_owned()));
            }
            if let Err(why) = self.make(&link.client).await {
                if told.as_ref() != Some(&why) {
                    tracing::warn!(%stream, %bridge, why, "the server does not keep the stream");
                }
                told = Some(why);
                tokio::time::sleep(MAKE).await;
                continue;
            }
            told = None;
            tracing::info!(%stream, %bridge, "the stream is kept by a server of NATS");
            link.hand_on(&self.config, &mut answers, &mut standing).await?;
            tracing::warn!(%stream, %bridge, "the stream has lost its server");
        }
    }

    /// Makes the stream where there is none; one that is there is taken as it is.
    async fn make(&self, client: &Client) -> Result<(), String> {
        let name = &self.config.name;
        let known = ask(client, format!("{API}STREAM.INFO.{name}"), Value::Null).await?;
        if known["error"].is_null() {
            return Ok(());
        }
        let nanos =
            self.config.max_age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let subjects: Vec<String> = self.config.topics.iter().map(ToString::to_string).collect();
        let wanted = json!({
            "name": name, "subjects": subjects, "retention": "limits", "discard": "old",
            "storage": "file", "num_replicas": 1, "max_consumers": -1, "max_msgs": -1,
            "max_msgs_per_subject": -1, "max_msg_size": -1, "max_age": nanos,
            "max_bytes": self.config.max_size,
        });
        let made = ask(client, format!("{API}STREAM.CREATE.{name}"), wanted).await?;
        match made["error"]["description"].as_str() {
            None => Ok(()),
            Some(why) => Err(why.to_owned()),
        }
    }
}

async fn ask(client: &Client, subject: String, body: Value) -> Result<Value, String> {
    let payload = if body.is_null() { String::new() } else { body.to_string() };
    let asked = tokio::time::timeout(MAKE, client.request(subject, payload.into())).await;
    let answer = asked.map_err(|_| "it does not answer".to_owned())?;
    let answer = answer.map_err(|error| format!("it has no JetStream: {error}"))?;
    serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())
}

fn inbox() -> String {
    format!("_INBOX.{}", proto::id::base32().encode(&tunnel::identity::random::<15>()))
}

impl Link {
    /// Hands on while there is a connection.
    async fn hand_on(
        self: &Arc<Self>,
        config: &Stream,
        answers: &mut Subscriber,
        standing: &mut watch::Receiver<Standing>,
    ) -> Result<(), Problem> {
        let messages = Mailbox::new(Overflow::Block(PATIENCE));
        let questions = Mailbox::new(Overflow::DropNewest);
        let _held = self.take_part(config, &messages, &questions)?;
        loop {
            tokio::select! {
                biased;
                () = client::gone(standing) => return Ok(()),
                items = messages.take(BATCH) => {
                    for item in items.unwrap_or_default() {
                        self.store(&item).await;
                    }
                }
                items = questions.take(BATCH) => {
                    for item in items.unwrap_or_default() {
                        self.question(item).await;
                    }
                }
                answer = answers.next() => {
                    let Some(answer) = answer else { return Ok(()) };
                    self.answer(answer).await;
                }
            }
        }
    }

    fn take_part(
        &self,
        config: &Stream,
        messages: &Mailbox,
        questions: &Mailbox,
    ) -> Result<Vec<Subscription>, Problem> {
        let failed = |why: &dyn std::fmt::Display| {
            Problem::machine("a stream cannot be of the network", why)
        };
        let asked = interests::of_questions(&config.name).map_err(|why| failed(&why))?;
        let kept = interests::of_messages(config).into_iter().map(|one| (messages, one));
        let all = kept.chain(asked.into_iter().map(|one| (questions, one)));
        all.map(|(mailbox, interest)| {
            self.broker.subscribe(mailbox, 0, interest).map_err(|why| failed(&why))
        })
        .collect()
    }

    /// A message to be stored; who asked hears of it from the server.
    async fn store(&self, item: &Item) {
        let fate = if self.send(&item.message).await { Fate::Handed } else { Fate::Refused };
        self.counts.add(&self.stream, fate, 1);
    }

    /// Sends a message under its own name; its answer comes to the inbox.
    async fn send(&self, message: &Message) -> bool {
        let Some(headers) = words::to_nats(&message.headers, None) else { return false };
        let size = message.payload.len() + message.headers.bytes().len() + 1024;
        if size > self.client.max_payload() {
            return false;
        }
        let reply = message.reply.as_ref().map(|reply| self.asked.lock().put(reply.as_str()));
        let (subject, payload) = (message.topic.to_string(), message.payload.clone());
        let sent = match reply {
            Some(reply) if headers.is_empty() => {
                self.client.publish_with_reply(subject, reply, payload).await
            }
            Some(reply) => {
                self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await
            }
            None if headers.is_empty() => self.client.publish(subject, payload).await,
            None => self.client.publish_with_headers(subject, headers, payload).await,
        };
        sent.is_ok()
    }

    async fn question(self: &Arc<Self>, item: Item) {
        let message = item.message;
        let pulls = matches!(interests::question(message.topic.as_str()), Some(Question::Next(_)));
        if !pulls {
            self.send(&message).await;
            return;
        }
        let Ok(place) = Arc::clone(&self.pulls).try_acquire_owned() else { return };
        let link = Arc::clone(self);
        tokio::spawn(async move {
            link.pull(&message).await;
            drop(place);
        });
    }

    /// A question for more messages: each comes under the name it was published to, so this has an address of its own.
    async fn pull(&self, message: &Message) {
        let Some(reply) = message.reply.clone() else { return };
        let next = Next::read(&message.payload).unwrap_or_default();
        let waits = if next.expires == 0 { WAITS } else { Duration::from_nanos(next.expires) };
        let until = tokio::time::Instant::now() + waits.min(WAITS) + SLACK;
        let inbox = inbox();
        let Ok(mut come) = self.client.subscribe(inbox.clone()).await else { return };
        let (subject, payload) = (message.topic.to_string(), message.payload.clone());
        if self.client.publish_with_reply(subject, inbox, payload).await.is_err() {
            return;
        }
        let mut left = next.batch.max(1);
        while left > 0 {
            let Ok(Some(answer)) = tokio::time::timeout_at(until, come.next()).await else {
                return;
            };
            let over = answer.status.is_some_and(|status| status.as_u16() != 100);
            if answer.status.is_none() {
                left -= 1;
            }
            // Who asked and has gone is not waited for: the server takes the message back in time.
            if !self.give(reply.clone(), &answer).await || over {
                return;
            }
        }
    }

    async fn answer(&self, answer: async_nats::Message) {
        let to = self.asked.lock().get(answer.subject.as_str()).map(str::to_owned);
        if let Some(to) = to.and_then(|to| Topic::new(to).ok()) {
            self.give(to, &answer).await;
        }
    }

    /// Publishes an answer in the network; false where nobody waits for it.
    async fn give(&self, to: Topic, answer: &async_nats::Message) -> bool {
        let reply = answer.reply.as_ref().and_then(|reply| Topic::new(reply.to_string()).ok());
        let headers = words::to_network(answer.headers.as_ref(), None);
        let code = answer.status.map(|status| status.as_u16().to_string());
        let mut own: Vec<(&str, &[u8])> = Vec::new();
        if let Some(code) = &code {
            own.push((STATUS, code.as_bytes()));
            own.push((DESCRIPTION, answer.description.as_deref().unwrap_or_default().as_bytes()));
        } else if reply.is_some() {
            own.push((STREAM_TOPIC, answer.subject.as_str().as_bytes()));
        }
        let headers =
            headers.and_then(|headers| Headers::of(own.into_iter().chain(headers.iter())).ok());
        let Some(headers) = headers.filter(|_| answer.payload.len() <= MAX_PAYLOAD) else {
            return true;
        };
        let payload = answer.payload.clone();
        let message = Message { namespace: "".into(), topic: to, reply, headers, payload };
        let delivered = self.broker.publish(message, None).await.unwrap_or(0) > 0;
        if delivered && code.is_none() && answer.reply.is_some() {
            self.counts.add(&self.stream, Fate::Delivered, 1);
        }
        delivered
    }
}
