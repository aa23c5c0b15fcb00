//! What programs ask of streams and are answered, as clients of NATS write it (the JetStream API, version 1).
//!
//! Asked at `$JS.API.…` with JSON, answered with JSON at the address that the question names. Times are RFC 3339,
//! durations nanoseconds, payloads and header blocks base64. What is not known here is left out of questions and not
//! looked at.

use std::time::Duration;

use proto::topic::TopicPattern;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::consumer::{AckPolicy, Policy, Position};

/// What every answer names its shape by, before the shape's own name.
const TYPE: &str = "io.nats.jetstream.api.v1.";

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// As HTTP has it.
    pub code: u16,
    /// As clients of NATS know it.
    pub err_code: u16,
    /// In words.
    pub description: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: u16, err_code: u16, description: impl Into<String>) -> Self {
        Self { code, err_code, description: description.into() }
    }

    /// What was asked cannot be understood.
    pub fn bad(why: impl std::fmt::Display) -> Self {
        Self::new(400, 10_025, why.to_string())
    }

    /// No consumer has this name.
    pub fn no_consumer() -> Self {
        Self::new(404, 10_014, "consumer not found")
    }

    /// There is no such message.
    pub fn no_message() -> Self {
        Self::new(404, 10_037, "no message found")
    }
}

/// An answer: a shape, or a refusal in its place.
pub fn answer<T: Serialize>(shape: &str, answer: Result<T, Refusal>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Answer<T> {
        r#type: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Refusal>,
        #[serde(flatten)]
        body: Option<T>,
    }
    let (error, body) = match answer {
        Ok(body) => (None, Some(body)),
        Err(refusal) => (Some(refusal), None),
    };
    // Text, numbers and lists of them can be written.
    serde_json::to_vec(&Answer { r#type: format!("{TYPE}{shape}_response"), error, body })
        .unwrap_or_default()
}

/// Says that a message is stored.
#[derive(Debug, Default, Serialize)]
pub struct Stored<'a> {
    /// In which stream.
    pub stream: &'a str,
    /// Under which number; 0 where it is not.
    pub seq: u64,
    /// It was stored before, under this number.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// Why it is not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Refusal>,
}

/// What a stream is.
#[derive(Debug, Serialize)]
pub struct StreamConfig {
    /// Its name.
    pub name: String,
    /// What it keeps.
    pub subjects: Vec<String>,
    /// When messages go: by the bounds below alone.
    pub retention: &'static str,
    /// Bounds; -1 for none.
    pub max_consumers: i64,
    /// Messages.
    pub max_msgs: i64,
    /// Bytes.
    pub max_bytes: i64,
    /// Nanoseconds; 0 for none.
    pub max_age: u64,
    /// Messages of one topic.
    pub max_msgs_per_subject: i64,
    /// Bytes of one message.
    pub max_msg_size: i64,
    /// What gives way.
    pub discard: &'static str,
    /// Where it is kept.
    pub storage: &'static str,
    /// On how many nodes.
    pub num_replicas: u32,
    /// For how long a message's id is remembered, in nanoseconds.
    pub duplicate_window: u64,
}

/// How a stream stands.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct StreamState {
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub first_ts: String,
    pub last_seq: u64,
    pub last_ts: String,
    pub consumer_count: usize,
}

/// A stream.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct StreamInfo {
    pub config: StreamConfig,
    pub created: String,
    pub state: StreamState,
    pub ts: String,
}

/// Where in its list an answer begins, and how long that is.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct Paged<T> {
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
    #[serde(flatten)]
    pub page: T,
}

/// Names and infos of lists.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in NATS, where an empty list is null")]
pub enum List {
    Streams(Vec<Value>),
    Consumers(Vec<Value>),
}

/// Something was done.
#[derive(Debug, Serialize)]
pub struct Done {
    /// It was.
    pub success: bool,
    /// Messages that are gone by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<u64>,
}

/// A stored message.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// It.
    pub message: KeptMessage,
}

/// Of a stored message.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct KeptMessage {
    pub subject: String,
    pub seq: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hdrs: String,
    pub data: String,
    pub time: String,
}

/// Which stored message is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct Get {
    pub seq: u64,
    pub last_by_subj: Option<String>,
    pub next_by_subj: Option<String>,
}

/// Which part of a list is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Page {
    /// So many are left out first.
    pub offset: usize,
    /// Streams that keep such a topic.
    pub subject: Option<String>,
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deliver {
    /// With what is kept.
    #[default]
    All,
    /// With the last message.
    Last,
    /// With the next one.
    New,
    /// With this number.
    ByStartSequence,
    /// With what was stored at this time.
    ByStartTime,
    /// With the last message of each topic, which is not offered.
    LastPerSubject,
}

/// What a consumer is, as its program asks for it and as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct ConsumerConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub deliver_policy: Deliver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<String>,
    pub ack_policy: AckPolicy,
    pub ack_wait: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<u64>,
    pub max_deliver: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_subject: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    pub replay_policy: String,
    pub max_waiting: i64,
    pub max_ack_pending: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_threshold: Option<u64>,
    /// Messages are sent to it, which is not offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_subject: Option<String>,
    pub headers_only: bool,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub metadata: Value,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            durable_name: None,
            name: None,
            description: None,
            deliver_policy: Deliver::All,
            opt_start_seq: None,
            opt_start_time: None,
            ack_policy: AckPolicy::None,
            ack_wait: 0,
            backoff: Vec::new(),
            max_deliver: 0,
            filter_subject: None,
            filter_subjects: Vec::new(),
            replay_policy: "instant".to_owned(),
            max_waiting: 0,
            max_ack_pending: 0,
            inactive_threshold: None,
            deliver_subject: None,
            headers_only: false,
            metadata: Value::Null,
        }
    }
}

/// How long a message may take, unless said.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How many may be on the way, unless said.
const PENDING: usize = 1000;
/// How many questions for more may wait, unless said and at most.
pub const MAX_WAITING: usize = 512;
/// Patterns of one consumer.
const MAX_FILTERS: usize = 64;
/// Steps of one list of waits.
const MAX_STEPS: usize = 64;

impl ConsumerConfig {
    /// Checks it, and says what was left open.
    ///
    /// # Errors
    /// [`Refusal`], where something is asked for that is not offered or cannot be.
    pub fn settle(&mut self) -> Result<(Policy, Vec<TopicPattern>), Refusal> {
        if self.deliver_subject.is_some() {
            let why = "consumers are asked for messages here: make a pull consumer, without deliver_subject";
            return Err(Refusal::new(400, 10_025, why));
        }
        if self.deliver_policy == Deliver::LastPerSubject {
            return Err(Refusal::bad("deliver_policy last_per_subject is not offered"));
        }
        if self.replay_policy != "instant" {
            return Err(Refusal::bad("replay_policy is instant: time is not played again"));
        }
        if self.headers_only {
            return Err(Refusal::bad("headers_only is not offered"));
        }
        if self.backoff.len() > MAX_STEPS {
            return Err(Refusal::bad(format!("backoff has at most {MAX_STEPS} steps")));
        }
        let texts = self.filter_subject.iter().filter(|text| !text.is_empty());
        let texts: Vec<&String> = texts.chain(&self.filter_subjects).collect();
        if texts.len() > MAX_FILTERS {
            return Err(Refusal::bad(format!("a consumer has at most {MAX_FILTERS} filters")));
        }
        let pattern = |text: &&String| TopicPattern::new((*text).clone());
        let filters: Result<Vec<_>, _> = texts.iter().map(pattern).collect();
        let filters = filters.map_err(Refusal::bad)?;
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if self.ack_wait == 0 {
            self.ack_wait = ns(ACK_WAIT);
        }
        if self.max_deliver <= 0 {
            self.max_deliver = -1;
        }
        let most = super::consumer::MAX_PENDING;
        let pending = usize::try_from(self.max_ack_pending).unwrap_or(most).min(most);
        let pending = if pending == 0 { PENDING } else { pending };
        self.max_ack_pending = i64::try_from(pending).unwrap_or(i64::MAX);
        let waiting = usize::try_from(self.max_waiting).unwrap_or(0);
        let waiting = if waiting == 0 { MAX_WAITING } else { waiting.min(MAX_WAITING) };
        self.max_waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        let policy = Policy {
            ack: self.ack_policy,
            wait: Duration::from_nanos(self.ack_wait),
            backoff: self.backoff.iter().map(|&ns| Duration::from_nanos(ns)).collect(),
            most: u32::try_from(self.max_deliver).ok(),
            pending,
        };
        Ok((policy, filters))
    }
}

/// A consumer that is asked for.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct CreateConsumer {
    pub config: ConsumerConfig,
    /// `create`: only where there is none; `update`: only where there is.
    pub action: String,
}

/// A consumer.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct ConsumerInfo {
    pub stream_name: String,
    pub name: String,
    pub created: String,
    pub config: ConsumerConfig,
    pub delivered: Position,
    pub ack_floor: Position,
    pub num_ack_pending: usize,
    pub num_redelivered: usize,
    pub num_waiting: usize,
    pub num_pending: u64,
    pub ts: String,
}

/// How many messages are asked for.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "named as in NATS")]
pub struct Next {
    pub batch: usize,
    pub max_bytes: usize,
    pub expires: u64,
    pub no_wait: bool,
    pub idle_heartbeat: u64,
}

impl Next {
    /// From a payload: nothing, a number, or JSON.
    ///
    /// # Errors
    /// [`Refusal`], where it is none of these.
    pub fn read(payload: &[u8]) -> Result<Self, Refusal> {
        let text = payload.trim_ascii();
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let mut next = match (text, number) {
            (b"", _) => Self::default(),
            (_, Some(batch)) => Self { batch, ..Self::default() },
            (text, None) => serde_json::from_slice(text).map_err(Refusal::bad)?,
        };
        next.batch = next.batch.max(1);
        Ok(next)
    }
}

/// What a payload asks for; nothing at all is a question of its own.
///
/// # Errors
/// [`Refusal`], where it is no such JSON.
pub fn read<T: Default + for<'a> Deserialize<'a>>(payload: &[u8]) -> Result<T, Refusal> {
    if payload.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(payload).map_err(Refusal::bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_shaped_as_clients_expect() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let done = answer("stream_purge", Ok(Done { success: true, purged: Some(2) }));
        assert_eq!(
            text(done),
            r#"{"type":"io.nats.jetstream.api.v1.stream_purge_response","success":true,"purged":2}"#
        );
        let none = text(answer::<Done>("consumer_info", Err(Refusal::no_consumer())));
        assert!(none.contains(r#""error":{"code":404,"err_code":10014,"#), "{none}");
        let stored = Stored { stream: "orders", seq: 3, ..Stored::default() };
        assert_eq!(serde_json::to_string(&stored).unwrap(), r#"{"stream":"orders","seq":3}"#);
    }

    #[test]
    fn questions_for_more_have_three_forms() {
        let batch = |text: &str| Next::read(text.as_bytes()).map(|next| next.batch);
        assert_eq!((batch(""), batch(" 7 "), batch("{\"batch\":3}")), (Ok(1), Ok(7), Ok(3)));
        assert_eq!(batch("{\"batch\":0,\"unknown\":1}"), Ok(1));
        assert!(batch("{\"batch\":-1}").is_err() && batch("seven").is_err());
    }

    #[test]
    fn what_is_left_open_is_settled_and_what_is_not_offered_refused() {
        let config = |text: &str| serde_json::from_str::<ConsumerConfig>(text).unwrap();
        let mut open = config(r#"{"ack_policy":"explicit","filter_subject":"a.*"}"#);
        let (policy, filters) = open.settle().unwrap();
        assert_eq!((policy.wait, policy.most, policy.pending), (ACK_WAIT, None, PENDING));
        assert_eq!((filters.len(), open.max_ack_pending, open.max_deliver), (1, 1000, -1));
        for (text, why) in [
            (r#"{"deliver_subject":"x"}"#, "pull consumer"),
            (r#"{"deliver_policy":"last_per_subject"}"#, "not offered"),
            (r#"{"replay_policy":"original"}"#, "instant"),
            (r#"{"filter_subject":"a..b"}"#, "character"),
        ] {
            let refused = config(text).settle().unwrap_err();
            assert!(refused.description.contains(why), "{refused:?}");
        }
    }
}
