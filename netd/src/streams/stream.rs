//! One stream: stores what is published to its topics, and gives it to its consumers.
//!
//! It lives in a thread of its own, where waiting for the disk holds up nobody else. In each turn it stores all that
//! waits with one write, tells the publishers that asked, hears what consumers say, and gives them what they asked for.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use proto::publish::{Headers, MAX_HEADERS, Message};
use proto::topic::Topic;
use proxy::Broker;
use proxy::broker::{Item, Mailbox, Overflow, Subscription};
use tokio_util::sync::CancellationToken;

use super::api::{Refusal, Stored};
use super::held::Held;
use super::ids::{Ids, MAX_ID, MAX_IDS};
use super::log::{Entry, Log};
use super::saved::Saved;
use super::{Counts, Fate, interests};
use crate::config::stream::Stream as Config;

/// Messages that one write stores, at most.
const BATCH: usize = 2048;
/// How long a publisher on this node waits for a disk that is too slow.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often what is too old is looked for, and how far consumers have come is saved.
const TIDY: u64 = 500_000;
/// Bytes left for what is put beside the headers of a message when it is given to a consumer.
const SPARE: usize = 1024;
/// Messages read at a time while ids are learned.
const READ: usize = 1024;
/// Bytes read at a time.
pub(super) const READ_BYTES: usize = 1 << 20;

/// One stream.
pub(super) struct Stream {
    pub(super) config: Config,
    pub(super) broker: Broker,
    pub(super) log: Log,
    pub(super) saved: Saved,
    pub(super) consumers: BTreeMap<String, Held>,
    pub(super) counts: Counts,
    /// When it was made.
    pub(super) created: u64,
    ids: Ids,
    /// The last write failed, and was told.
    failing: bool,
    tidied: u64,
    messages: Mailbox,
    questions: Mailbox,
    _subscriptions: Vec<Subscription>,
}

/// What becomes of one message of a batch.
enum Fit {
    /// It is stored as the batch's n-th.
    New(usize),
    /// It was stored before.
    Known(u64),
    /// It is not stored.
    Refused(Refusal),
}

impl Stream {
    /// Opens what is on disk below `dir`, and takes part in the network.
    ///
    /// # Errors
    /// Where files cannot be read or made, or this node has as many subscriptions as it may.
    pub(super) fn open(
        config: Config,
        broker: Broker,
        dir: &Path,
        counts: Counts,
    ) -> io::Result<Self> {
        let dir = dir.join(&config.name);
        let mut log = Log::open(&dir.join("log"), config.bounds())?;
        let saved = Saved::open(dir.join("consumers"))?;
        let created = created(&dir)?;
        let (all, wrong) = saved.read()?;
        for why in wrong {
            tracing::warn!(stream = %config.name, why, "a consumer begins anew");
        }
        let mut consumers = BTreeMap::new();
        for (name, made, progress) in all {
            match Held::new(made, progress, true) {
                Ok(held) => drop(consumers.insert(name, held)),
                Err(refusal) => {
                    let why = refusal.description;
                    tracing::warn!(stream = %config.name, consumer = name, why, "a consumer cannot be");
                }
            }
        }
        let ids = remembered(&mut log, now())?;
        let messages = Mailbox::new(Overflow::Block(PATIENCE));
        let questions = Mailbox::new(Overflow::DropNewest);
        let mut subscriptions = Vec::new();
        for interest in interests::of_messages(&config) {
            subscriptions.push(broker.subscribe(&messages, 0, interest).map_err(io::Error::other)?);
        }
        for interest in interests::of_questions(&config.name).map_err(io::Error::other)? {
            subscriptions
                .push(broker.subscribe(&questions, 0, interest).map_err(io::Error::other)?);
        }
        let mut stream = Self {
            config,
            broker,
            log,
            saved,
            consumers,
            counts,
            created,
            ids,
            failing: false,
            tidied: 0,
            messages,
            questions,
            _subscriptions: subscriptions,
        };
        stream.tidy(now());
        Ok(stream)
    }

    /// Stores and gives until `stop`; then what consumers have done is on the disk.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let more = self.deliver().await;
            let wakes = if more { 0 } else { self.wakes() };
            let wait = Duration::from_micros(wakes.saturating_sub(now()));
            let (messages, questions) = (self.messages.clone(), self.questions.clone());
            tokio::select! {
                () = stop.cancelled() => break,
                items = messages.take(BATCH) => self.store(items.unwrap_or_default()).await,
                items = questions.take(BATCH) => self.answer(items.unwrap_or_default()).await,
                () = tokio::time::sleep(wait) => {}
            }
            self.tidy(now());
        }
        self.save(true);
    }

    /// When something is to be done though nobody says anything.
    fn wakes(&self) -> u64 {
        let of_consumers = self.consumers.values().filter_map(Held::wakes).min();
        (self.tidied + TIDY).min(of_consumers.unwrap_or(u64::MAX))
    }

    /// Stores all of these with one write, and tells those who asked.
    async fn store(&mut self, items: Vec<Item>) {
        let now = now();
        self.ids.forget(now);
        let (mut entries, mut fates, mut fresh) = (Vec::new(), Vec::new(), BTreeMap::new());
        let next = self.log.numbers().1 + 1;
        for Item { message, .. } in items {
            let fit = match self.look(&message, next + entries.len() as u64, &fresh) {
                Ok(Some(number)) => Fit::Known(number),
                Ok(None) => {
                    if let Some(id) = id_of(&message.headers) {
                        fresh.insert(Bytes::copy_from_slice(id), next + entries.len() as u64);
                    }
                    entries.push(Entry {
                        topic: message.topic.clone(),
                        headers: message.headers.clone(),
                        payload: message.payload.clone(),
                    });
                    Fit::New(entries.len() - 1)
                }
                Err(refusal) => Fit::Refused(refusal),
            };
            fates.push((message.reply.clone(), fit));
        }
        let count = entries.len();
        let stored = if entries.is_empty() { Ok(0) } else { self.log.append(entries, now) };
        self.told(&stored);
        if stored.is_ok() {
            self.counts.add(&self.config.name, Fate::Stored, count as u64);
            let mut fresh: Vec<_> = fresh.into_iter().collect();
            fresh.sort_by_key(|&(_, number)| number);
            for (id, number) in fresh {
                self.ids.insert(id, number, now);
            }
        }
        for (reply, fit) in fates {
            let answer = self.acknowledged(fit, &stored);
            let Some(reply) = reply else { continue };
            let payload = serde_json::to_vec(&answer).unwrap_or_default();
            let headers = Headers::default();
            self.say(reply, None, headers, payload.into()).await;
        }
        if self.log.bytes() > self.config.bounds().bytes {
            self.trim(now);
        }
    }

    /// Whether a message can be stored as `number`; or the number that it was stored under before.
    fn look(
        &self,
        message: &Message,
        number: u64,
        fresh: &BTreeMap<Bytes, u64>,
    ) -> Result<Option<u64>, Refusal> {
        let size = message.headers.bytes().len() + message.payload.len();
        if message.headers.bytes().len() > MAX_HEADERS - SPARE
            || size as u64 > self.config.bounds().bytes
        {
            return Err(Refusal::new(400, 10_054, "message size exceeds maximum allowed"));
        }
        for (name, value) in message.headers.iter() {
            let text = std::str::from_utf8(value).unwrap_or_default();
            match name {
                "Nats-Expected-Stream" if text != self.config.name => {
                    return Err(Refusal::new(400, 10_060, "expected stream does not match"));
                }
                "Nats-Expected-Last-Sequence" if text.parse() != Ok(number - 1) => {
                    let why = format!("wrong last sequence: {}", number - 1);
                    return Err(Refusal::new(400, 10_071, why));
                }
                "Nats-Expected-Last-Msg-Id" => {
                    let newest = fresh.iter().max_by_key(|&(_, number)| number);
                    let last = newest.map(|(id, _)| id).or_else(|| self.ids.last());
                    if last.map(|id| &id[..]) != Some(value) {
                        return Err(Refusal::new(400, 10_070, "wrong last msg ID"));
                    }
                }
                "Nats-Msg-Id" if value.len() > MAX_ID => {
                    let why = format!("an id of a message has at most {MAX_ID} bytes");
                    return Err(Refusal::bad(why));
                }
                "Nats-Expected-Last-Subject-Sequence" | "Nats-Rollup" | "Nats-TTL" => {
                    // Not done, it must not seem to be.
                    return Err(Refusal::bad(format!("{name} is not offered")));
                }
                _ => {}
            }
        }
        let known = |id: &[u8]| self.ids.number(id).or_else(|| fresh.get(id).copied());
        Ok(id_of(&message.headers).and_then(known))
    }

    fn acknowledged(&self, fit: Fit, stored: &io::Result<u64>) -> Stored<'_> {
        let mut answer = Stored { stream: &self.config.name, ..Stored::default() };
        let fate = match (fit, stored) {
            (Fit::New(place), Ok(first)) => {
                answer.seq = first + place as u64;
                return answer;
            }
            // What it was stored with may just have failed: it is known by a number that is not there.
            (Fit::Known(number), Ok(_)) => {
                (answer.seq, answer.duplicate) = (number, true);
                Fate::Duplicate
            }
            (Fit::Known(number), Err(_)) if number <= self.log.numbers().1 => {
                (answer.seq, answer.duplicate) = (number, true);
                Fate::Duplicate
            }
            (Fit::New(_) | Fit::Known(_), Err(error)) => {
                let why = if is_full(error) {
                    "insufficient storage resources available".to_owned()
                } else {
                    error.to_string()
                };
                answer.error = Some(Refusal::new(503, 10_077, why));
                Fate::Refused
            }
            (Fit::Refused(refusal), _) => {
                answer.error = Some(refusal);
                Fate::Refused
            }
        };
        self.counts.add(&self.config.name, fate, 1);
        answer
    }

    /// Says once that the disk refuses, and once that it does so no more.
    fn told(&mut self, stored: &io::Result<u64>) {
        let stream = &self.config.name;
        match stored {
            Err(error) if !self.failing => {
                tracing::error!(%stream, %error, "messages cannot be stored: they are refused");
            }
            Ok(_) if self.failing => tracing::info!(%stream, "messages are stored again"),
            Ok(_) | Err(_) => {}
        }
        self.failing = stored.is_err();
    }

    /// Publishes a message of the stream's own; gives how many want it.
    pub(super) async fn say(
        &self,
        topic: Topic,
        reply: Option<Topic>,
        headers: Headers,
        payload: Bytes,
    ) -> usize {
        let message = Message { namespace: "".into(), topic, reply, headers, payload };
        // It was published before with as many bytes.
        self.broker.publish(message, None).await.unwrap_or(0)
    }

    /// What is due now and then.
    fn tidy(&mut self, now: u64) {
        for damage in self.log.take_damage() {
            let (file, (from, to)) = (damage.file.display().to_string(), damage.lost);
            tracing::error!(
                stream = %self.config.name, file, at = damage.at, from, to,
                "messages on the disk are damaged and lost; those around them are kept"
            );
            self.counts.add(&self.config.name, Fate::Lost, to - from + 1);
        }
        if now < self.tidied + TIDY {
            return;
        }
        self.tidied = now;
        self.trim(now);
        self.save(false);
        self.consumers.retain(|_, held| !held.is_over(now));
        let (first, last) = self.log.numbers();
        self.counts.holds(&self.config.name, last + 1 - first, self.log.bytes());
    }

    fn trim(&mut self, now: u64) {
        match self.log.trim(now) {
            Ok(0) => {}
            Ok(_) => {
                let first = self.log.numbers().0;
                self.consumers.values_mut().for_each(|held| held.consumer.forget(first));
            }
            Err(error) => {
                let stream = &self.config.name;
                tracing::warn!(%stream, %error, "old messages cannot be removed");
            }
        }
    }

    /// Writes down how far consumers have come, of those that have since.
    pub(super) fn save(&mut self, durable: bool) {
        for (name, held) in &mut self.consumers {
            if let Err(error) = held.save(name, &self.saved, durable) {
                let stream = &self.config.name;
                tracing::warn!(%stream, consumer = name, %error, "how far it has come is not written down");
            }
        }
    }
}

/// When a stream was made; written down when it is.
fn created(dir: &Path) -> io::Result<u64> {
    let path = dir.join("made");
    let said = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    if let Some(said) = said {
        return Ok(said);
    }
    let now = now();
    tunnel::durable::replace(&path, now.to_string().as_bytes())?;
    Ok(now)
}

/// Ids of what was stored of late.
fn remembered(log: &mut Log, now: u64) -> io::Result<Ids> {
    let mut ids = Ids::default();
    let since = log.since(now.saturating_sub(super::ids::WINDOW.as_micros() as u64))?;
    let mut from = since.max((log.numbers().1 + 1).saturating_sub(MAX_IDS as u64));
    loop {
        let records = log.read(from, READ, READ_BYTES)?;
        let Some(last) = records.last() else { return Ok(ids) };
        from = last.number + 1;
        for record in &records {
            if let Some(id) = id_of(&record.headers) {
                ids.insert(Bytes::copy_from_slice(id), record.number, record.time);
            }
        }
    }
}

fn id_of(headers: &Headers) -> Option<&[u8]> {
    headers.iter().find(|(name, _)| *name == "Nats-Msg-Id").map(|(_, value)| value)
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Microseconds since 1970, UTC.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
