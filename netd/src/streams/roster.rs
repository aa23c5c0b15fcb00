//! The consumers of a stream: made, changed, listed, removed.

use super::api::{self, ConsumerInfo, CreateConsumer, Deliver, Done, List, Page, Paged, Refusal};
use super::ask::{failed, moment};
use super::consumer::{Position, Progress};
use super::held::Held;
use super::pull::Status;
use super::saved::Made;
use super::stream::{Stream, now};
use crate::config::bridge::is_plain;

/// Consumers of one stream.
pub(super) const MAX_CONSUMERS: usize = 1024;

impl Stream {
    pub(super) fn create(
        &mut self,
        name: Option<&str>,
        payload: &[u8],
    ) -> Result<ConsumerInfo, Refusal> {
        let CreateConsumer { mut config, action } = api::read(payload)?;
        let said = config.durable_name.clone().or_else(|| config.name.clone());
        let name = name
            .map(ToOwned::to_owned)
            .or(said)
            .unwrap_or_else(|| data_encoding::HEXLOWER.encode(&tunnel::identity::random::<8>()));
        if !is_plain(&name) || name.contains('.') {
            let why = "a consumer has 1 to 63 letters, digits, '-' and '_'";
            return Err(Refusal::bad(why));
        }
        config.settle()?;
        let known = self.consumers.get(&name);
        let durable = config.durable_name.is_some();
        match (known, &*action) {
            (Some(held), _) if same(held, &config) => {
                return Ok(self.consumer_info(&name, held));
            }
            (Some(_), "create") => {
                return Err(Refusal::new(400, 10_148, "consumer already exists"));
            }
            (None, "update") => {
                return Err(Refusal::new(400, 10_149, "consumer does not exist"));
            }
            (Some(held), _) => {
                let before = &held.made.config;
                let moved = before.deliver_policy != config.deliver_policy
                    || before.opt_start_seq != config.opt_start_seq
                    || before.opt_start_time != config.opt_start_time
                    || before.ack_policy != config.ack_policy
                    || held.durable != durable;
                if moved {
                    let why = "where a consumer begins and how it acknowledges can not be updated";
                    return Err(Refusal::new(400, 10_012, why));
                }
                let made = Made { config, ..held.made.clone() };
                return self.keep(&name, made, held.durable);
            }
            (None, _) => {}
        }
        if self.consumers.len() >= MAX_CONSUMERS {
            return Err(Refusal::new(400, 10_026, "maximum consumers limit reached"));
        }
        let start = self.start(&config)?;
        self.keep(&name, Made { config, created: now(), start }, durable)
    }

    /// Makes a consumer, or changes the one of this name.
    fn keep(&mut self, name: &str, made: Made, durable: bool) -> Result<ConsumerInfo, Refusal> {
        if durable {
            self.saved.make(name, &made).map_err(failed)?;
        }
        match self.consumers.get_mut(name) {
            Some(held) => held.change(made)?,
            None => {
                let progress = Progress::at(made.start);
                self.consumers.insert(name.to_owned(), Held::new(made, progress, durable)?);
            }
        }
        let held = self.consumers.get(name).ok_or_else(Refusal::no_consumer)?;
        Ok(self.consumer_info(name, held))
    }

    /// The number of the first message that is for a new consumer.
    fn start(&mut self, config: &api::ConsumerConfig) -> Result<u64, Refusal> {
        let (first, last) = self.log.numbers();
        Ok(match config.deliver_policy {
            Deliver::All | Deliver::LastPerSubject => first,
            Deliver::Last => last.max(first),
            Deliver::New => last + 1,
            Deliver::ByStartSequence => config
                .opt_start_seq
                .ok_or_else(|| Refusal::bad("opt_start_seq is missing"))?
                .clamp(first, last + 1),
            Deliver::ByStartTime => {
                let text = config.opt_start_time.as_deref();
                let text = text.ok_or_else(|| Refusal::bad("opt_start_time is missing"))?;
                let time: jiff::Timestamp = text.parse().map_err(Refusal::bad)?;
                let micros = u64::try_from(time.as_microsecond()).unwrap_or(0);
                self.log.since(micros).map_err(failed)?
            }
        })
    }

    pub(super) async fn delete(&mut self, name: &str) -> Result<Done, Refusal> {
        let mut held = self.consumers.remove(name).ok_or_else(Refusal::no_consumer)?;
        self.saved.remove(name).map_err(failed)?;
        while !held.pulls.is_empty() {
            self.end(&mut held.pulls, Status::Deleted).await;
        }
        Ok(Done { success: true, purged: None })
    }

    pub(super) fn consumers(
        &self,
        payload: &[u8],
        limit: usize,
        show: impl Fn(&Self, &str, &Held) -> serde_json::Value,
    ) -> Result<Paged<List>, Refusal> {
        let Page { offset, .. } = api::read(payload)?;
        let some = self.consumers.iter().skip(offset).take(limit);
        let page = List::Consumers(some.map(|(name, held)| show(self, name, held)).collect());
        Ok(Paged { total: self.consumers.len(), offset, limit, page })
    }

    pub(super) fn consumer_info(&self, name: &str, held: &Held) -> ConsumerInfo {
        let consumer = &held.consumer;
        let floor = consumer.floor();
        ConsumerInfo {
            stream_name: self.config.name.clone(),
            name: name.to_owned(),
            created: moment(held.made.created),
            config: held.made.config.clone(),
            delivered: consumer.progress().delivered,
            ack_floor: Position { ..floor },
            num_ack_pending: consumer.pending(),
            num_redelivered: consumer.redelivered(),
            num_waiting: held.pulls.len(),
            num_pending: self.ahead(held),
            ts: moment(now()),
        }
    }
}

fn same(held: &Held, config: &api::ConsumerConfig) -> bool {
    held.made.config == *config
}
