//! One consumer of a stream as its node has it, with those who wait for messages of it.

use std::collections::VecDeque;
use std::io;

use proto::publish::Headers;
use proto::stored::Record;
use proto::topic::{Topic, TopicPattern};
use proxy::broker::{DESCRIPTION, STATUS, STREAM_TOPIC};

use super::api::Refusal;
use super::consumer::{Consumer, Progress};
use super::pull::{Pull, Status, Turn};
use super::saved::{Made, Saved};
use super::stream::{READ_BYTES, Stream, now};
use super::{Fate, interests};

/// Messages that one consumer is given in one turn of the stream.
const TURN: usize = 1024;
/// Messages read at a time.
const READ: usize = 256;
/// How long a consumer that is not durable is kept without a question, unless said: microseconds.
const IDLE: u64 = 5_000_000;

/// One consumer.
pub(super) struct Held {
    pub(super) made: Made,
    pub(super) consumer: Consumer,
    pub(super) pulls: VecDeque<Pull>,
    filters: Vec<TopicPattern>,
    /// It outlives the node.
    pub(super) durable: bool,
    /// When it was asked for something last.
    asked: u64,
    /// What is on the disk.
    kept: Option<Progress>,
}

impl Held {
    pub(super) fn new(mut made: Made, progress: Progress, durable: bool) -> Result<Self, Refusal> {
        let (policy, filters) = made.config.settle()?;
        let consumer = Consumer::new(policy, progress);
        let (pulls, asked) = (VecDeque::new(), now());
        Ok(Self { made, consumer, pulls, filters, durable, asked, kept: None })
    }

    /// Takes what its program has changed of it.
    pub(super) fn change(&mut self, mut made: Made) -> Result<(), Refusal> {
        let (policy, filters) = made.config.settle()?;
        (self.made, self.consumer.policy, self.filters) = (made, policy, filters);
        Ok(())
    }

    pub(super) fn ask(&mut self, pull: Pull) {
        self.asked = now();
        self.pulls.push_back(pull);
    }

    fn wants(&self, topic: &Topic) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(topic))
    }

    /// When something is due for those who wait.
    pub(super) fn wakes(&self) -> Option<u64> {
        let pulls = self.pulls.iter().map(Pull::wakes).min()?;
        Some(self.consumer.due_at().map_or(pulls, |due| due.min(pulls)))
    }

    /// Whether nobody has asked for so long that it is gone.
    pub(super) fn is_over(&self, now: u64) -> bool {
        let patience = self.made.config.inactive_threshold.map(|ns| ns / 1000);
        let patience = if self.durable { patience } else { Some(patience.unwrap_or(IDLE)) };
        let idle = |patience: u64| patience > 0 && self.asked + patience < now;
        self.pulls.is_empty() && patience.is_some_and(idle)
    }

    /// Writes down how far it has come, if it has.
    pub(super) fn save(&mut self, name: &str, saved: &Saved, durable: bool) -> io::Result<()> {
        let progress = self.consumer.progress();
        if !self.durable || self.kept.as_ref() == Some(progress) {
            return Ok(());
        }
        saved.progress(name, progress, durable)?;
        self.kept = Some(progress.clone());
        Ok(())
    }

    /// The next messages: one that is due again, or some that were not given yet.
    fn next(&mut self, stream: &mut Stream, now: u64) -> io::Result<Vec<Record>> {
        while let Some(number) = self.consumer.due(now) {
            let read = stream.log.read(number, 1, 0)?;
            match read.into_iter().next() {
                Some(record) if record.number == number => return Ok(vec![record]),
                Some(_) | None => self.consumer.lost(number),
            }
        }
        if !self.consumer.has_room() {
            return Ok(Vec::new());
        }
        stream.log.read(self.consumer.next(), READ, READ_BYTES)
    }

    /// Gives a message to the first who takes it; false where nobody does.
    async fn give(&mut self, name: &str, record: &Record, stream: &Stream, now: u64) -> bool {
        while let Some(pull) = self.pulls.front() {
            if let Turn::Ends(status) = pull.takes(record.payload.len()) {
                stream.end(&mut self.pulls, status).await;
                continue;
            }
            let again = record.number < self.consumer.next();
            let (consumer_seq, count) = self.consumer.give(record.number, now);
            let left = (stream.log.numbers().1 + 1).saturating_sub(self.consumer.next());
            let address = interests::acknowledge(
                &stream.config.name,
                name,
                count,
                (record.number, consumer_seq),
                record.time,
                left,
            );
            let (topic, reply) = (pull.reply.clone(), Topic::new(address).ok());
            let headers = with_topic(record);
            let wanted = stream.say(topic, reply, headers, record.payload.clone()).await;
            if wanted == 0 {
                // Who asked has gone.
                self.consumer.take_back(record.number, now);
                self.pulls.pop_front();
                continue;
            }
            let fate = if again { Fate::Redelivered } else { Fate::Delivered };
            stream.counts.add(&stream.config.name, fate, 1);
            if let Some(pull) = self.pulls.front_mut()
                && pull.got(record.payload.len(), now)
            {
                self.pulls.pop_front();
            }
            return true;
        }
        false
    }
}

impl Stream {
    /// Gives consumers what they ask for; true where there is more to give at once.
    pub(super) async fn deliver(&mut self) -> bool {
        let mut consumers = std::mem::take(&mut self.consumers);
        let mut more = false;
        for (name, held) in &mut consumers {
            if held.pulls.is_empty() {
                continue;
            }
            match self.deliver_to(name, held).await {
                Ok(true) => more = true,
                Ok(false) => self.tell_idle(held).await,
                Err(error) => {
                    let stream = &self.config.name;
                    tracing::warn!(%stream, consumer = name, %error, "messages cannot be read");
                    self.tell_idle(held).await;
                }
            }
        }
        self.consumers = consumers;
        more
    }

    /// True where its turn is over, and not what there is for it.
    async fn deliver_to(&mut self, name: &str, held: &mut Held) -> io::Result<bool> {
        let now = now();
        let mut looked = 0;
        while looked < TURN {
            let records = held.next(self, now)?;
            if records.is_empty() || held.pulls.is_empty() {
                return Ok(false);
            }
            for record in records {
                let fresh = record.number >= held.consumer.next();
                if fresh && !held.consumer.has_room() {
                    break;
                }
                looked += 1;
                if !held.wants(&record.topic) {
                    held.consumer.skip(record.number + 1);
                    if !fresh {
                        // It was given before its consumer was changed.
                        held.consumer.lost(record.number);
                    }
                } else if !held.give(name, &record, self, now).await {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn tell_idle(&self, held: &mut Held) {
        let now = now();
        let mut left = VecDeque::new();
        while let Some(mut pull) = held.pulls.pop_front() {
            let told = pull.idle(now);
            if let Some(status) = told {
                let wanted = self.tell(&pull, status, Some(held)).await;
                if status != Status::Idle || wanted == 0 {
                    continue;
                }
            }
            left.push_back(pull);
        }
        held.pulls = left;
    }

    /// Ends the first of those who wait.
    pub(super) async fn end(&self, pulls: &mut VecDeque<Pull>, status: Status) {
        if let Some(pull) = pulls.pop_front() {
            self.tell(&pull, status, None).await;
        }
    }

    pub(super) async fn tell(&self, pull: &Pull, status: Status, held: Option<&Held>) -> usize {
        let (left, bytes) = (pull.left.to_string(), pull.bytes_left().to_string());
        let mut pairs = vec![(STATUS, status.code()), (DESCRIPTION, status.words())];
        let given = held.map(|held| held.consumer.progress().delivered);
        let (of_consumer, of_stream) = given.map_or_else(Default::default, |given| {
            (given.consumer_seq.to_string(), given.stream_seq.to_string())
        });
        match status {
            Status::Idle => {
                pairs.push(("Nats-Last-Consumer", &of_consumer));
                pairs.push(("Nats-Last-Stream", &of_stream));
            }
            Status::TimedOut | Status::TooLarge | Status::Deleted => {
                pairs.push(("Nats-Pending-Messages", &left));
                pairs.push(("Nats-Pending-Bytes", &bytes));
            }
            Status::NoMessages | Status::TooMany => {}
        }
        let pairs = pairs.iter().map(|&(name, value)| (name, value.as_bytes()));
        let headers = Headers::of(pairs).unwrap_or_default();
        self.say(pull.reply.clone(), None, headers, bytes::Bytes::new()).await
    }

    /// How many messages are before a consumer, at most: those that its filters leave out are among them.
    pub(super) fn ahead(&self, held: &Held) -> u64 {
        (self.log.numbers().1 + 1).saturating_sub(held.consumer.next().max(self.log.numbers().0))
    }
}

/// The headers of a stored message, with its topic before them: it is sent to the address of who asked.
fn with_topic(record: &Record) -> Headers {
    let topic = (STREAM_TOPIC, &record.topic.bytes()[..]);
    // Room for it was left when the message was stored.
    Headers::of(std::iter::once(topic).chain(record.headers.iter())).unwrap_or_default()
}
