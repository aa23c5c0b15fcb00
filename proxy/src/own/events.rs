//! `events` of micro v3: messages that a stream of the network keeps.
//!
//! A program of micro v3 asks its node; the node asks the stream, wherever that is, as clients of NATS do. What is published
//! here can be read there, and the other way round. Which stream keeps a topic is known from its interest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use futures_util::stream::{self, BoxStream};
use prost::Message as _;
use proto::micro::events as pb;
use proto::publish::{Headers, Message};
use proto::topic::{BadTopic, Topic};
use serde_json::{Value, json};

use super::dispatch::{Call, decode, why};
use super::failure::{Failure, Kind};
use super::messages::Messages;
use super::reply::Reply;
use crate::broker::{Broker, Mailbox, Overflow, STATUS, STREAM_TOPIC, Subscription};

pub(super) const NAME: &str = "events";

/// The headers of an event beside its metadata: its id, and when it happened.
const ID: &str = "Micro-Event-Id";
const TIME: &str = "Micro-Event-Time";
/// How long a stream may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events asked for at a time, and for how long one question waits.
const BATCH: usize = 64;
const WAITS: Duration = Duration::from_secs(30);
/// How long more than that until the next question, should its answer be lost.
const SLACK: Duration = Duration::from_secs(5);
/// Events read at a time, unless said and at most.
const READ: (u64, u64) = (25, 1000);
/// Bytes of events in one answer.
const ANSWER: usize = 2 << 20;
/// Events given to one program that it has not acknowledged: more than a stream gives it at a time.
const MAX_GIVEN: usize = 4096;
/// How long the consumer of a program that is not in a group is kept without it.
const IDLE: Duration = Duration::from_secs(60);

/// Answers one call that has one message; `broker` is missing only before there is a proxy.
pub(super) fn call(broker: Option<&Broker>, call: &Call, message: Bytes) -> Reply {
    let Some(broker) = broker.cloned() else {
        return Reply::now::<pb::PublishResponse>(Err(failed(Kind::Unavailable, "not served")));
    };
    match call.method.as_str() {
        "Publish" => Reply::later(async move {
            let pb::PublishRequest { topic, metadata, payload, timestamp } = decode(NAME, message)?;
            publish(&broker, pb::Event { id: String::new(), topic, metadata, payload, timestamp })
                .await?;
            Ok(pb::PublishResponse {})
        }),
        "Write" => Reply::later(async move {
            let ask: pb::WriteRequest = decode(NAME, message)?;
            let event = ask.event.ok_or_else(|| failed(Kind::BadRequest, "Missing Event"))?;
            publish(&broker, event).await?;
            Ok(pb::WriteResponse {})
        }),
        "Read" => Reply::later(async move {
            let events = read(&broker, decode(NAME, message)?).await?;
            Ok(pb::ReadResponse { events })
        }),
        _ => Reply::now::<pb::PublishResponse>(Err(failed(Kind::NotImplemented, "not offered"))),
    }
}

fn failed(kind: Kind, why: impl ToString) -> Failure {
    Failure::new(NAME, kind, why.to_string())
}

/// The topic, and the stream that keeps it.
fn kept(broker: &Broker, topic: &str) -> Result<(Topic, String), Failure> {
    if topic.is_empty() {
        return Err(failed(Kind::BadRequest, "Missing Topic"));
    }
    let bad = |why: BadTopic| failed(Kind::BadRequest, format!("topic {topic:?}: {why}"));
    let topic = Topic::new(topic.to_owned()).map_err(bad)?;
    let Some(stream) = broker.keeper(&topic) else {
        let why = format!(
            "no stream keeps {topic}: write [broker.stream.NAME] with topics = [\"{topic}\"] into the \
             configuration of a node"
        );
        return Err(failed(Kind::NotFound, why));
    };
    Ok((topic, stream))
}

/// One who asks streams, at an address of its own.
struct Asker {
    broker: Broker,
    inbox: String,
    mailbox: Mailbox,
    asked: u64,
    _held: Subscription,
}

impl Asker {
    fn new(broker: &Broker) -> Result<Self, Failure> {
        let inbox = format!("_INBOX.{}", HEXLOWER.encode(&tunnel::identity::random::<16>()));
        let mailbox = Mailbox::new(Overflow::DropNewest);
        let pattern = proto::topic::TopicPattern::new(format!("{inbox}.*"));
        let pattern = pattern.map_err(|why| failed(Kind::Internal, why))?;
        let interest = crate::broker::interest(pattern, None);
        let held = broker.subscribe(&mailbox, 0, interest);
        let held = held.map_err(|why| failed(Kind::TooMany, why))?;
        Ok(Self { broker: broker.clone(), inbox, mailbox, asked: 0, _held: held })
    }

    async fn say(
        &mut self,
        topic: Topic,
        headers: Headers,
        payload: Bytes,
    ) -> Result<Topic, Failure> {
        self.asked += 1;
        let address = format!("{}.{}", self.inbox, self.asked);
        let reply = Topic::new(address).map_err(|why| failed(Kind::Internal, why))?;
        let message =
            Message { namespace: "".into(), topic, reply: Some(reply.clone()), headers, payload };
        let wanted = self.broker.publish(message, None).await;
        match wanted.map_err(|why| failed(Kind::TooLarge, why))? {
            0 => Err(failed(Kind::Unavailable, "the stream is not reached now")),
            _ => Ok(reply),
        }
    }

    /// Asks, and waits for the answer; earlier ones that come late are passed over.
    async fn ask(
        &mut self,
        topic: Topic,
        headers: Headers,
        payload: Bytes,
    ) -> Result<Value, Failure> {
        let reply = self.say(topic, headers, payload).await?;
        let answer = async {
            loop {
                let items = self.mailbox.take(1).await.ok()?;
                if let Some(item) = items.into_iter().find(|item| item.message.topic == reply) {
                    return Some(item.message);
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.ok().flatten();
        let answer = answer.ok_or_else(|| failed(Kind::Timeout, "the stream does not answer"))?;
        let answer: Value =
            serde_json::from_slice(&answer.payload).map_err(|why| failed(Kind::Internal, why))?;
        let error = &answer["error"];
        if error.is_null() {
            return Ok(answer);
        }
        let why = error["description"].as_str().unwrap_or("refused").to_owned();
        Err(failed(kind(error["code"].as_u64()), why))
    }

    async fn api(&mut self, question: String, body: Value) -> Result<Value, Failure> {
        let topic = Topic::new(format!("$JS.API.{question}"));
        let topic = topic.map_err(|why| failed(Kind::BadRequest, why))?;
        self.ask(topic, Headers::default(), body.to_string().into()).await
    }
}

fn kind(code: Option<u64>) -> Kind {
    match code {
        Some(404) => Kind::NotFound,
        Some(400) => Kind::BadRequest,
        _ => Kind::Unavailable,
    }
}

async fn publish(broker: &Broker, event: pb::Event) -> Result<(), Failure> {
    let (topic, _) = kept(broker, &event.topic)?;
    let id = match event.id.is_empty() {
        true => HEXLOWER.encode(&tunnel::identity::random::<16>()),
        false => event.id,
    };
    let time = if event.timestamp > 0 { event.timestamp } else { seconds() };
    let time = time.to_string();
    let own = [(ID, id.as_bytes()), (TIME, time.as_bytes())];
    let metadata = event.metadata.iter().map(|(name, value)| (&**name, value.as_bytes()));
    let headers = Headers::of(own.into_iter().chain(metadata));
    let headers = headers.map_err(|why| failed(Kind::BadRequest, format!("metadata: {why}")))?;
    // In memory of its own: the message it came in is larger.
    let payload = Bytes::copy_from_slice(&event.payload);
    Asker::new(broker)?.ask(topic, headers, payload).await.map(drop)
}

fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// An event, as it was published: by micro v3, or by whoever else.
fn event(topic: &str, headers: &Headers, payload: Bytes, number: &str, stored: i64) -> pb::Event {
    let mut event = pb::Event {
        id: number.to_owned(),
        topic: topic.to_owned(),
        metadata: BTreeMap::new(),
        payload,
        timestamp: stored,
    };
    for (name, value) in headers.iter() {
        let text = String::from_utf8_lossy(value).into_owned();
        match name {
            ID => event.id = text,
            TIME => event.timestamp = text.parse().unwrap_or(stored),
            STREAM_TOPIC => event.topic = text,
            _ => drop(event.metadata.insert(name.to_owned(), text)),
        }
    }
    event
}

async fn read(broker: &Broker, ask: pb::ReadRequest) -> Result<Vec<pb::Event>, Failure> {
    let (topic, stream) = kept(broker, &ask.topic)?;
    let limit = if ask.limit == 0 { READ.0 } else { ask.limit.min(READ.1) };
    let mut asker = Asker::new(broker)?;
    let (mut from, mut left_out, mut size, mut events) = (1, ask.offset, 0, Vec::new());
    while (events.len() as u64) < limit && size < ANSWER {
        let question = json!({ "seq": from, "next_by_subj": topic.as_str() });
        let found = match asker.api(format!("STREAM.MSG.GET.{stream}"), question).await {
            Ok(found) => found,
            Err(failure) if failure.is(Kind::NotFound) => break,
            Err(failure) => return Err(failure),
        };
        let message = &found["message"];
        let broken = || failed(Kind::Internal, "the stream's answer is not understood");
        let number = message["seq"].as_u64().ok_or_else(broken)?;
        from = number + 1;
        if left_out > 0 {
            left_out -= 1;
            continue;
        }
        let bytes = |name: &str| {
            BASE64
                .decode(message[name].as_str().unwrap_or_default().as_bytes())
                .map_err(|_| broken())
        };
        let headers = crate::nats::headers_of(&bytes("hdrs")?).map_err(|_| broken())?;
        let payload = bytes("data")?;
        size += payload.len();
        events.push(event(topic.as_str(), &headers, payload.into(), &number.to_string(), 0));
    }
    Ok(events)
}

/// Answers a call of `Consume`, whose stream goes both ways.
pub(super) fn consume(
    broker: Option<&Broker>,
    messages: Messages,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    let Some(broker) = broker.cloned() else {
        let none = Err(failed(Kind::Unavailable, "not served"));
        return Box::pin(stream::once(std::future::ready(none)));
    };
    let state = State::Begins(broker, Box::new(messages));
    Box::pin(stream::unfold(state, |state| async {
        let mut consuming = match state {
            State::Over => return None,
            State::Goes(consuming) => consuming,
            State::Begins(broker, messages) => match Consuming::begin(&broker, *messages).await {
                Ok(consuming) => Box::new(consuming),
                Err(failure) => return Some((Err(failure), State::Over)),
            },
        };
        match consuming.next().await {
            Ok(Some(event)) => Some((Ok(event), State::Goes(consuming))),
            Ok(None) => None,
            Err(failure) => Some((Err(failure), State::Over)),
        }
    }))
}

enum State {
    Begins(Broker, Box<Messages>),
    Goes(Box<Consuming>),
    Over,
}

/// A program that consumes.
struct Consuming {
    asker: Asker,
    messages: Messages,
    /// The program says no more.
    silent: bool,
    auto_ack: bool,
    question: Topic,
    /// Those of a batch that were not given to the program yet.
    come: VecDeque<std::sync::Arc<Message>>,
    /// By the id of an event, where its stream hears of it.
    given: HashMap<String, Topic>,
    /// To be acknowledged when the program asks for the next.
    last: Option<Topic>,
    /// How many the question that waits may still bring, and until when it is waited for.
    waits: usize,
    until: tokio::time::Instant,
}

impl Consuming {
    async fn begin(broker: &Broker, mut messages: Messages) -> Result<Self, Failure> {
        let first = messages.next().await.map_err(|broken| why(NAME, broken))?;
        let first = first.ok_or_else(|| failed(Kind::BadRequest, "the request has no message"))?;
        let ask: pb::ConsumeRequest = decode(NAME, first.message)?;
        let (topic, stream) = kept(broker, &ask.topic)?;
        let mut asker = Asker::new(broker)?;
        let name = name(&ask.group, &topic);
        let mut config = json!({
            "name": name,
            "ack_policy": "explicit",
            "filter_subject": topic.as_str(),
            // Of a limit of retries the first time is none; without one it comes until it is acknowledged.
            "max_deliver": if ask.retry_limit > 0 { ask.retry_limit.saturating_add(1) } else { -1 },
            "deliver_policy": "new",
        });
        if ask.ack_wait > 0 {
            config["ack_wait"] = json!(ask.ack_wait);
        }
        if ask.offset > 0 {
            let time = jiff::Timestamp::from_second(ask.offset);
            let time = time.map_err(|why| failed(Kind::BadRequest, format!("offset: {why}")))?;
            config["deliver_policy"] = json!("by_start_time");
            config["opt_start_time"] = json!(time.to_string());
        }
        if ask.group.is_empty() {
            config["inactive_threshold"] = json!(IDLE.as_nanos() as u64);
        } else {
            config["durable_name"] = json!(name);
        }
        let known = asker.api(format!("CONSUMER.INFO.{stream}.{name}"), Value::Null).await;
        match known {
            Ok(_) => {}
            Err(failure) if failure.is(Kind::NotFound) => {
                let body = json!({ "stream_name": stream, "config": config });
                asker.api(format!("CONSUMER.CREATE.{stream}.{name}"), body).await?;
            }
            Err(failure) => return Err(failure),
        }
        let question = Topic::new(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"));
        Ok(Self {
            asker,
            messages,
            silent: false,
            auto_ack: ask.auto_ack,
            question: question.map_err(|why| failed(Kind::BadRequest, why))?,
            come: VecDeque::new(),
            given: HashMap::new(),
            last: None,
            waits: 0,
            until: tokio::time::Instant::now(),
        })
    }

    /// The next event; `None` when the program has gone.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(last) = self.last.take() {
            acknowledge(self.asker.broker.clone(), last, b"+ACK").await;
        }
        loop {
            if let Some(message) = self.come.pop_front() {
                return Ok(Some(self.give(&message)));
            }
            if self.waits == 0 || tokio::time::Instant::now() >= self.until {
                self.ask().await?;
            }
            let mailbox = self.asker.mailbox.clone();
            tokio::select! {
                items = mailbox.take(BATCH) => {
                    let Ok(items) = items else { return Ok(None) };
                    for item in items {
                        self.take(item.message);
                    }
                }
                said = self.messages.next(), if !self.silent => match said {
                    Ok(Some(said)) => self.hear(decode(NAME, said.message)?).await,
                    // Half-closed: it acknowledges nothing more, and still takes what comes where it need not.
                    Ok(None) => self.silent = true,
                    Err(broken) => return Err(why(NAME, broken)),
                },
                () = tokio::time::sleep_until(self.until) => {}
            }
        }
    }

    async fn ask(&mut self) -> Result<(), Failure> {
        let body = json!({ "batch": BATCH, "expires": WAITS.as_nanos() as u64 });
        let headers = Headers::default();
        self.until = tokio::time::Instant::now() + WAITS + SLACK;
        match self.asker.say(self.question.clone(), headers, body.to_string().into()).await {
            Ok(_) => self.waits = BATCH,
            // The node of the stream is away: it is asked again in a while.
            Err(failure) if failure.is(Kind::Unavailable) => {
                (self.waits, self.until) = (1, tokio::time::Instant::now() + SLACK);
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn take(&mut self, message: std::sync::Arc<Message>) {
        let told = message.headers.iter().next().is_some_and(|(name, _)| name == STATUS);
        if told && message.reply.is_none() {
            // That the time of a question is over, or its consumer is gone: what is asked next tells.
            self.waits = 0;
            return;
        }
        self.waits = self.waits.saturating_sub(1);
        self.come.push_back(message);
    }

    fn give(&mut self, message: &Message) -> Bytes {
        let address = message.reply.as_ref().map_or("", Topic::as_str);
        let parts: Vec<&str> = address.split('.').collect();
        // $JS.ACK.stream.consumer.count.number.given.time.left
        let part = |place: usize| parts.get(place).copied().unwrap_or_default();
        let stored = part(7).parse::<i64>().unwrap_or(0) / 1_000_000_000;
        let payload = message.payload.clone();
        let event = event("", &message.headers, payload, part(5), stored);
        if let Some(reply) = message.reply.clone() {
            if self.auto_ack {
                self.last = Some(reply);
            } else {
                if self.given.len() >= MAX_GIVEN {
                    // What is not acknowledged comes again.
                    self.given.clear();
                }
                self.given.insert(event.id.clone(), reply);
            }
        }
        event.encode_to_vec().into()
    }

    async fn hear(&mut self, said: pb::AckRequest) {
        if let Some(address) = self.given.remove(&said.id) {
            let word: &[u8] = if said.success { b"+ACK" } else { b"-NAK" };
            acknowledge(self.asker.broker.clone(), address, word).await;
        }
    }
}

/// Tells a stream what became of an event. Lost, the event comes again.
async fn acknowledge(broker: Broker, topic: Topic, word: &'static [u8]) {
    let (namespace, headers) = ("".into(), Headers::default());
    let payload = Bytes::from_static(word);
    let message = Message { namespace, topic, reply: None, headers, payload };
    let _ = broker.publish(message, None).await;
}

/// The name of a consumer: that of the group with its topic, or one of its own.
fn name(group: &str, topic: &Topic) -> String {
    if group.is_empty() {
        return HEXLOWER.encode(&tunnel::identity::random::<8>());
    }
    let text = format!("{group} {topic}");
    let plain: String = group.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    // Two that look alike have two names.
    let sum = blake3::hash(text.as_bytes());
    format!("{plain}-{}", HEXLOWER.encode(&sum.as_bytes()[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_one_consumer_a_topic_and_who_is_in_none_has_its_own() {
        let topic = |text: &'static str| Topic::new(text).unwrap();
        assert_eq!(name("a b", &topic("x")), name("a b", &topic("x")));
        assert_ne!(name("a b", &topic("x")), name("ab", &topic("x")));
        assert_ne!(name("a b", &topic("x")), name("a b", &topic("y")));
        assert_ne!(name("", &topic("x")), name("", &topic("x")));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(name("ä.>* b/..", &topic("x")).chars().all(plain));
    }

    #[test]
    fn an_event_is_what_was_published_by_whomever() {
        let headers = Headers::of([
            (STREAM_TOPIC, &b"orders.new"[..]),
            (ID, b"i-1"),
            (TIME, b"17"),
            ("X-Case", b"Kept"),
        ])
        .unwrap();
        let one = event("", &headers, Bytes::from_static(b"hi"), "5", 9);
        assert_eq!((&*one.id, &*one.topic, one.timestamp), ("i-1", "orders.new", 17));
        assert_eq!(one.metadata, [("X-Case".to_owned(), "Kept".to_owned())].into());
        let other = event("orders.new", &Headers::default(), Bytes::new(), "5", 9);
        assert_eq!((&*other.id, &*other.topic, other.timestamp), ("5", "orders.new", 9));
    }
}
