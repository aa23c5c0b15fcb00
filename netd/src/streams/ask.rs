//! What a stream is asked, and what its consumers say.

use bytes::Bytes;
use data_encoding::BASE64;
use proto::publish::{Headers, Message};
use proto::stored::Record;
use proto::topic::{Topic, TopicPattern};
use proxy::broker::Item;

use super::api::{
    self, Done, Get, Kept, KeptMessage, MAX_WAITING, Next, Refusal, StreamConfig, StreamInfo,
    StreamState,
};
use super::consumer::Word;
use super::held::Held;
use super::interests::{Question, question};
use super::pull::{Pull, Status};
use super::roster::MAX_CONSUMERS;
use super::stream::{READ_BYTES, Stream, now};

/// Names, and infos, in one answer.
const PAGE: (usize, usize) = (1024, 256);
/// Messages looked at together while one is searched for.
const LOOK: u64 = 256;

impl Stream {
    /// Hears all of these, and answers those that ask.
    pub(super) async fn answer(&mut self, items: Vec<Item>) {
        let mut confirmed = Vec::new();
        for Item { message, .. } in items {
            let Some(question) = question(message.topic.as_str()) else {
                if let Some(reply) = message.reply.clone() {
                    let why = Refusal::new(501, 10_025, "not offered");
                    self.reply(reply, api::answer::<Done>("error", Err(why))).await;
                }
                continue;
            };
            if let Question::Said { consumer, number } = question {
                self.hear(consumer, number, &message).await;
                confirmed.extend(message.reply.clone().filter(|_| !asks_for_more(&message)));
            } else if let Question::Next(consumer) = question {
                self.next(consumer, &message).await;
            } else {
                let answer = self.question(question, &message.payload).await;
                if let Some(reply) = message.reply.clone() {
                    self.reply(reply, answer).await;
                }
            }
        }
        if !confirmed.is_empty() {
            // Who is told that it is heard need not expect the message again.
            self.save(true);
            for reply in confirmed {
                self.reply(reply, Vec::new()).await;
            }
        }
    }

    async fn reply(&self, reply: Topic, payload: Vec<u8>) {
        self.say(reply, None, Headers::default(), payload.into()).await;
    }

    async fn question(&mut self, question: Question<'_>, payload: &[u8]) -> Vec<u8> {
        match question {
            Question::Info => api::answer("stream_info", self.info()),
            Question::Create => api::answer("stream_create", self.is_made(payload)),
            Question::Update => api::answer("stream_update", self.is_made(payload)),
            Question::Delete => {
                let why = "this stream is in the configuration of its node, and is removed there";
                api::answer::<Done>("stream_delete", Err(Refusal::bad(why)))
            }
            Question::Purge => api::answer("stream_purge", self.purge(payload)),
            Question::Get => api::answer("stream_msg_get", self.get(payload)),
            Question::CreateConsumer(name) => {
                api::answer("consumer_create", self.create(name, payload))
            }
            Question::Consumer(name) => {
                let held = self.consumers.get(name).ok_or_else(Refusal::no_consumer);
                api::answer("consumer_info", held.map(|held| self.consumer_info(name, held)))
            }
            Question::DeleteConsumer(name) => {
                api::answer("consumer_delete", self.delete(name).await)
            }
            Question::Consumers { names: true } => api::answer(
                "consumer_names",
                self.consumers(payload, PAGE.0, |_, name, _| name.into()),
            ),
            Question::Consumers { names: false } => {
                let info = |stream: &Self, name: &str, held: &Held| {
                    serde_json::to_value(stream.consumer_info(name, held)).unwrap_or_default()
                };
                api::answer("consumer_list", self.consumers(payload, PAGE.1, info))
            }
            // Answered elsewhere.
            Question::Next(_) | Question::Said { .. } => Vec::new(),
        }
    }

    fn info(&mut self) -> Result<StreamInfo, Refusal> {
        let (first, last) = self.log.numbers();
        let mut time = |number: u64| {
            let read = self.log.read(number, 1, 0).ok();
            let record = read.and_then(|records| records.into_iter().next());
            record.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |record| moment(record.time))
        };
        let (first_ts, last_ts) = (time(first), time(last));
        let state = StreamState {
            messages: last + 1 - first,
            bytes: self.log.bytes(),
            first_seq: first,
            first_ts,
            last_seq: last,
            last_ts,
            consumer_count: self.consumers.len(),
        };
        Ok(StreamInfo {
            config: self.shape(),
            created: moment(self.created),
            state,
            ts: moment(now()),
        })
    }

    fn shape(&self) -> StreamConfig {
        let bounds = self.config.bounds();
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        StreamConfig {
            name: self.config.name.clone(),
            subjects: self.config.topics.iter().map(ToString::to_string).collect(),
            retention: "limits",
            max_consumers: MAX_CONSUMERS as i64,
            max_msgs: -1,
            max_bytes: i64::try_from(bounds.bytes).unwrap_or(i64::MAX),
            max_age: bounds.age.map_or(0, nanos),
            max_msgs_per_subject: -1,
            max_msg_size: -1,
            discard: "old",
            storage: "file",
            num_replicas: 1,
            duplicate_window: nanos(super::ids::WINDOW),
        }
    }

    /// A program that makes the stream it needs finds that it is there, if it keeps what is asked for.
    fn is_made(&mut self, payload: &[u8]) -> Result<StreamInfo, Refusal> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Asked {
            subjects: Vec<String>,
        }
        let asked: Asked = api::read(payload)?;
        let kept = |subject: &String| {
            self.config.topics.iter().any(|topic| covers(topic.as_str(), subject))
        };
        if !asked.subjects.iter().all(kept) {
            let why =
                "stream name already in use with a different configuration: its node's decides";
            return Err(Refusal::new(400, 10_058, why));
        }
        self.info()
    }

    fn purge(&mut self, payload: &[u8]) -> Result<Done, Refusal> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Asked {
            filter: Option<String>,
            seq: u64,
            keep: u64,
        }
        let asked: Asked = api::read(payload)?;
        if asked.filter.is_some_and(|filter| !filter.is_empty()) || asked.seq > 0 || asked.keep > 0
        {
            return Err(Refusal::bad(
                "a stream is purged whole: filter, seq and keep are not offered",
            ));
        }
        let purged = self.log.purge().map_err(failed)?;
        let first = self.log.numbers().0;
        self.consumers.values_mut().for_each(|held| held.consumer.forget(first));
        Ok(Done { success: true, purged: Some(purged) })
    }

    fn get(&mut self, payload: &[u8]) -> Result<Kept, Refusal> {
        let get: Get = api::read(payload)?;
        let pattern = |text: &String| TopicPattern::new(text.clone()).map_err(Refusal::bad);
        let found = match (get.last_by_subj.as_ref().map(pattern), get.next_by_subj.as_ref()) {
            (Some(last), _) => self.last_of(&last?)?,
            (None, Some(next)) => self.next_of(get.seq, &pattern(next)?)?,
            (None, None) => {
                let read = self.log.read(get.seq, 1, 0).map_err(failed)?;
                read.into_iter().find(|record| record.number == get.seq && get.seq > 0)
            }
        };
        let record = found.ok_or_else(Refusal::no_message)?;
        let hdrs = match record.headers.is_empty() {
            true => String::new(),
            false => BASE64.encode(&proxy::nats::header_block(&record.headers)),
        };
        let message = KeptMessage {
            subject: record.topic.to_string(),
            seq: record.number,
            hdrs,
            data: BASE64.encode(&record.payload),
            time: moment(record.time),
        };
        Ok(Kept { message })
    }

    fn next_of(&mut self, from: u64, pattern: &TopicPattern) -> Result<Option<Record>, Refusal> {
        let mut from = from;
        loop {
            let read = self.log.read(from, LOOK as usize, READ_BYTES).map_err(failed)?;
            let Some(last) = read.last() else { return Ok(None) };
            from = last.number + 1;
            if let Some(found) = read.into_iter().find(|record| pattern.matches(&record.topic)) {
                return Ok(Some(found));
            }
        }
    }

    fn last_of(&mut self, pattern: &TopicPattern) -> Result<Option<Record>, Refusal> {
        let (first, last) = self.log.numbers();
        let mut end = last + 1;
        while end > first {
            let begin = end.saturating_sub(LOOK).max(first);
            let (mut from, mut found) = (begin, None);
            while from < end {
                let read = self.log.read(from, LOOK as usize, READ_BYTES).map_err(failed)?;
                let Some(record) = read.last() else { break };
                from = record.number + 1;
                let fits = |record: &Record| record.number < end && pattern.matches(&record.topic);
                found = read.into_iter().rfind(fits).or(found);
            }
            if found.is_some() {
                return Ok(found);
            }
            end = begin;
        }
        Ok(None)
    }

    async fn next(&mut self, name: &str, message: &Message) {
        let Some(reply) = message.reply.clone() else { return };
        let next = Next::read(&message.payload);
        let Some(held) = self.consumers.get_mut(name) else {
            // As when nobody hears: its program makes it again.
            return self.reply_status(reply, ("503", "")).await;
        };
        match next {
            Err(refusal) => self.reply_status(reply, ("400", &refusal.description)).await,
            Ok(next) => {
                let pull = Pull::new(reply, &next, now());
                let most = usize::try_from(held.made.config.max_waiting).unwrap_or(MAX_WAITING);
                if held.pulls.len() < most {
                    held.ask(pull);
                } else {
                    self.tell(&pull, Status::TooMany, None).await;
                }
            }
        }
    }

    async fn reply_status(&self, reply: Topic, (code, words): (&str, &str)) {
        let words = words.replace(['\r', '\n'], " ");
        let pairs = [
            (proxy::broker::STATUS, code.as_bytes()),
            (proxy::broker::DESCRIPTION, words.as_bytes()),
        ];
        let headers = Headers::of(pairs).unwrap_or_default();
        self.say(reply, None, headers, Bytes::new()).await;
    }

    /// What a consumer says of a message.
    async fn hear(&mut self, name: &str, number: u64, message: &Message) {
        let Some(held) = self.consumers.get_mut(name) else { return };
        let Some(word) = word(&message.payload) else { return };
        held.consumer.hear(number, word, now());
        if asks_for_more(message)
            && let Some(reply) = message.reply.clone()
            && let Ok(next) = Next::read(&message.payload["+NXT".len()..])
        {
            held.ask(Pull::new(reply, &next, now()));
        }
    }
}

fn asks_for_more(message: &Message) -> bool {
    message.payload.starts_with(b"+NXT")
}

/// What a payload says of a message; `None` where it says what is not known.
fn word(payload: &[u8]) -> Option<Word> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Again {
        delay: u64,
    }
    match payload {
        b"" | b"+ACK" => Some(Word::Ack),
        b"+WPI" => Some(Word::Progress),
        _ if payload.starts_with(b"+NXT") => Some(Word::Ack),
        _ if payload.starts_with(b"+TERM") => Some(Word::Term),
        _ => {
            let again: Again = api::read(payload.strip_prefix(b"-NAK")?).unwrap_or_default();
            let delay = std::time::Duration::from_nanos(again.delay);
            Some(Word::Nak((again.delay > 0).then_some(delay)))
        }
    }
}

pub(super) fn failed(error: std::io::Error) -> Refusal {
    Refusal::new(503, 10_077, error.to_string())
}

/// A moment, as answers have it.
pub(super) fn moment(micros: u64) -> String {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// Whether each topic of the one pattern is one of the other.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(part)) if part != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            (_, _) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_nats() {
        let delay = |seconds| Some(Word::Nak(Some(std::time::Duration::from_secs(seconds))));
        for (text, said) in [
            ("", Some(Word::Ack)),
            ("+ACK", Some(Word::Ack)),
            ("+NXT", Some(Word::Ack)),
            ("-NAK", Some(Word::Nak(None))),
            ("-NAK {\"delay\": 2000000000}", delay(2)),
            ("+WPI", Some(Word::Progress)),
            ("+TERM", Some(Word::Term)),
            ("+TERM no use", Some(Word::Term)),
            ("ok", None),
        ] {
            assert_eq!(word(text.as_bytes()), said, "{text}");
        }
    }

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        for (wide, narrow) in [("a.>", "a.b"), ("a.>", "a.*.c"), ("a.*", "a.*"), (">", "a.>")] {
            assert!(covers(wide, narrow) && (wide == narrow || !covers(narrow, wide)));
        }
        for (one, other) in [("a.*", "a.>"), ("a", "a.b"), ("a.b", "a"), ("a.*", "b.*")] {
            assert!(!covers(one, other), "{one} {other}");
        }
    }
}
