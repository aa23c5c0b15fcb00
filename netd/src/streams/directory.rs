//! What nodes with streams are asked about all of them; one node answers.

use std::sync::Arc;
use std::time::Duration;

use proto::publish::{Headers, Message};
use proto::topic::Topic;
use proxy::broker::{Item, Mailbox, Overflow, Subscription, TooMany};
use proxy::{Broker, Published};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::api::{self, List, Page, Paged, Refusal};
use super::ask::covers;
use super::interests::{self, API, Known};

/// Questions answered at a time.
const BATCH: usize = 64;
/// Names, and infos, in one answer.
const PAGE: (usize, usize) = (1024, 256);
/// How long the stream of another node may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether two nodes keep a stream of one name.
const LOOK: Duration = Duration::from_secs(30);

/// Answers until the node takes nothing more of programs.
pub(super) fn start(
    broker: Broker,
    routes: Arc<Published>,
    accepting: &CancellationToken,
) -> Result<(), TooMany> {
    let mailbox = Mailbox::new(Overflow::DropNewest);
    let mut subscriptions = Vec::new();
    for interest in interests::of_all().map_err(|_| TooMany)? {
        subscriptions.push(broker.subscribe(&mailbox, 0, interest)?);
    }
    let directory = Directory { broker, routes, mailbox, _subscriptions: subscriptions };
    tokio::spawn(accepting.clone().run_until_cancelled_owned(directory.run()));
    Ok(())
}

struct Directory {
    broker: Broker,
    routes: Arc<Published>,
    mailbox: Mailbox,
    _subscriptions: Vec<Subscription>,
}

impl Directory {
    async fn run(self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = Vec::new();
        loop {
            tokio::select! {
                items = self.mailbox.take(BATCH) => {
                    let Ok(items) = items else { return };
                    for Item { message, .. } in items {
                        self.answer(&message).await;
                    }
                }
                _ = look.tick() => self.tell_doubles(&mut told),
            }
        }
    }

    /// Two nodes that keep a stream of one name have each a part of its messages.
    fn tell_doubles(&self, told: &mut Vec<String>) {
        let routes = self.routes.load();
        for (name, known) in interests::known(&routes) {
            let me = known.nodes.contains(&routes.me());
            if known.nodes.len() < 2 || !me || told.contains(&name) {
                continue;
            }
            let called = |node: &proto::NodeId| {
                routes.node(node).map_or_else(|| node.to_string(), |node| node.name.clone())
            };
            let nodes = known.nodes.iter().map(called).collect::<Vec<_>>().join(", ");
            tracing::error!(
                stream = name,
                nodes,
                "several nodes keep a stream of this name, each a part of its messages: rename all but one"
            );
            told.push(name);
        }
    }

    async fn answer(&self, message: &Message) {
        let Some(reply) = message.reply.clone() else { return };
        let known = interests::known(&self.routes.load());
        let payload = match message.topic.as_str().strip_prefix(API) {
            Some("INFO") => api::answer("account_info", Ok::<_, Refusal>(Account::of(known.len()))),
            Some("STREAM.NAMES") => {
                api::answer("stream_names", page(known, &message.payload, PAGE.0).map(named))
            }
            _ => {
                let answer = match page(known, &message.payload, PAGE.1) {
                    Ok(page) => Ok(self.infos(page).await),
                    Err(refusal) => Err(refusal),
                };
                api::answer("stream_list", answer)
            }
        };
        say(&self.broker, reply, None, payload).await;
    }

    async fn infos(&self, page: Paged<Vec<String>>) -> Paged<List> {
        let mut infos = Vec::new();
        for name in page.page {
            match ask(&self.broker, &format!("STREAM.INFO.{name}")).await {
                Some(info) => infos.push(info),
                // Of a node that cannot be reached now.
                None => tracing::debug!(stream = name, "a stream does not say how it is"),
            }
        }
        let Paged { total, offset, limit, .. } = page;
        Paged { total, offset, limit, page: List::Streams(infos) }
    }
}

/// Asks a stream, by what stands behind `$JS.API.` in the topic of the question; `None` where it does not answer.
pub async fn ask(broker: &Broker, question: &str) -> Option<Value> {
    let secret = tunnel::identity::random::<16>();
    let inbox = format!("_INBOX.{}", data_encoding::HEXLOWER.encode(&secret));
    let (topic, reply) = (Topic::new(format!("{API}{question}")).ok()?, Topic::new(inbox).ok()?);
    let mailbox = Mailbox::new(Overflow::DropNewest);
    let interest = proto::record::Interest {
        namespace: "".into(),
        pattern: reply.clone().into(),
        group: None,
    };
    let _subscription = broker.subscribe(&mailbox, 0, interest).ok()?;
    if say(broker, topic, Some(reply), Vec::new()).await == 0 {
        return None;
    }
    let answered = tokio::time::timeout(PATIENCE, mailbox.take(1)).await.ok()?.ok()?;
    serde_json::from_slice(&answered.first()?.message.payload).ok()
}

async fn say(broker: &Broker, topic: Topic, reply: Option<Topic>, payload: Vec<u8>) -> usize {
    let (namespace, headers) = ("".into(), Headers::default());
    let message = Message { namespace, topic, reply, headers, payload: payload.into() };
    broker.publish(message, None).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "an answer is not sent");
        0
    })
}

/// Names of the streams that are asked for.
fn page(
    known: std::collections::BTreeMap<String, Known>,
    payload: &[u8],
    limit: usize,
) -> Result<Paged<Vec<String>>, Refusal> {
    let Page { offset, subject } = api::read(payload)?;
    let keeps = |known: &Known| {
        let subject = subject.as_deref().filter(|subject| !subject.is_empty());
        subject.is_none_or(|subject| {
            let mut topics = known.topics.iter().map(proto::topic::TopicPattern::as_str);
            topics.any(|topic| covers(topic, subject) || covers(subject, topic))
        })
    };
    let names: Vec<String> =
        known.into_iter().filter(|(_, known)| keeps(known)).map(|(name, _)| name).collect();
    let total = names.len();
    let page = names.into_iter().skip(offset).take(limit).collect();
    Ok(Paged { total, offset, limit, page })
}

fn named(page: Paged<Vec<String>>) -> Paged<List> {
    let Paged { total, offset, limit, page } = page;
    Paged { total, offset, limit, page: List::Streams(page.into_iter().map(Value::from).collect()) }
}

/// What clients of NATS read of who they are: here nobody in particular.
#[derive(Serialize)]
struct Account {
    memory: u64,
    storage: u64,
    streams: usize,
    consumers: usize,
    limits: Limits,
    api: Api,
}

#[derive(Serialize)]
struct Limits {
    max_memory: i64,
    max_storage: i64,
    max_streams: i64,
    max_consumers: i64,
    max_ack_pending: i64,
    memory_max_stream_bytes: i64,
    storage_max_stream_bytes: i64,
    max_bytes_required: bool,
}

#[derive(Serialize)]
struct Api {
    total: u64,
    errors: u64,
}

impl Account {
    fn of(streams: usize) -> Self {
        Self {
            memory: 0,
            storage: 0,
            streams,
            consumers: 0,
            limits: Limits {
                max_memory: 0,
                max_storage: -1,
                max_streams: -1,
                max_consumers: -1,
                max_ack_pending: -1,
                memory_max_stream_bytes: -1,
                storage_max_stream_bytes: -1,
                max_bytes_required: false,
            },
            api: Api { total: 0, errors: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::topic::TopicPattern;

    use super::*;

    #[test]
    fn streams_are_found_by_what_they_keep() {
        let known = |topic: &str| Known {
            nodes: Vec::new(),
            topics: vec![TopicPattern::new(topic.to_owned()).unwrap()],
        };
        let all: std::collections::BTreeMap<_, _> = [("a", "orders.>"), ("b", "jobs.*")]
            .map(|(name, topic)| (name.into(), known(topic)))
            .into();
        let names = |payload: &str| {
            let page = page(all.clone(), payload.as_bytes(), 1).unwrap();
            (page.total, page.page)
        };
        assert_eq!(names(""), (2, vec!["a".to_owned()]));
        assert_eq!(names("{\"offset\":1}"), (2, vec!["b".to_owned()]));
        assert_eq!(names("{\"subject\":\"orders.new\"}"), (1, vec!["a".to_owned()]));
        assert_eq!(names("{\"subject\":\"jobs.>\"}"), (1, vec!["b".to_owned()]));
        assert_eq!(names("{\"subject\":\"none\"}"), (0, vec![]));
        assert!(page(all.clone(), b"x", 1).is_err());
    }
}
