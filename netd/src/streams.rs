//! Streams: topics whose messages a node keeps, and gives to consumers until they have acknowledged them.
//!
//! ```text
//! publisher   topic ──▶ stream  store, fsync ──▶ {"stream":"orders","seq":17} to who asked for an answer
//! consumer    asks $JS.API.CONSUMER.MSG.NEXT… ──▶ deliver ──▶ message ──▶ +ACK to $JS.ACK…
//!
//! segment ─ log               messages on disk                consumer ─ pull    who is given what, pure
//! saved                       consumers on disk               ids                what was stored of late
//! stream ─ held ─ ask         one stream: its turns           interests ─ api    topics and shapes of questions
//! roster                      its consumers, by name
//! directory                   what nodes are asked of all streams
//! remote                      a stream that a server of NATS keeps: handed on as it is
//! ```
//!
//! Questions and answers are those of JetStream, so that the libraries of NATS, in any language and on any node, have
//! durable topics without knowing of a stream of ours. They travel as topics do.

pub mod api;
mod ask;
pub mod consumer;
mod directory;
mod held;
pub mod ids;
pub mod interests;
pub mod log;
mod pull;
mod remote;
mod roster;
pub mod saved;
pub mod segment;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use proxy::{Broker, Published};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use self::directory::ask;
use self::stream::Stream;
use crate::bridge;
use crate::config;
use crate::error::Problem;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Fate {
    /// It is on the disk.
    Stored,
    /// Handed to the server that keeps it.
    Handed,
    /// It was, already.
    Duplicate,
    /// It is not stored, and its publisher is told.
    Refused,
    /// Given to a consumer.
    Delivered,
    /// Given again.
    Redelivered,
    /// Found damaged on the disk.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    stream: String,
    fate: Fate,
}

/// What is counted of all streams.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    messages: Family<Labels, Counter>,
    kept: Family<[(&'static str, String); 1], Gauge>,
    size: Family<[(&'static str, String); 1], Gauge>,
}

impl Counts {
    /// Adds the families.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("stream");
        let help = "Messages of streams, by what became of them";
        registry.register("messages", help, self.messages.clone());
        registry.register("kept_messages", "Messages that a stream keeps", self.kept.clone());
        let help = "What a stream keeps";
        registry.register_with_unit("kept", help, Unit::Bytes, self.size.clone());
    }

    fn add(&self, stream: &str, fate: Fate, count: u64) {
        if count > 0 {
            let labels = Labels { stream: stream.to_owned(), fate };
            self.messages.get_or_create(&labels).inc_by(count);
        }
    }

    fn holds(&self, stream: &str, messages: u64, bytes: u64) {
        let labels = [("stream", stream.to_owned())];
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.kept.get_or_create(&labels).set(gauge(messages));
        self.size.get_or_create(&labels).set(gauge(bytes));
    }
}

/// What the streams of a node use of it.
pub struct Parts {
    /// The topics of the network.
    pub broker: Broker,
    /// Who wants what.
    pub routes: Arc<Published>,
    /// Where they are kept.
    pub dir: PathBuf,
    /// What is counted.
    pub counts: Counts,
    /// What is counted of the servers that keep some.
    pub bridged: bridge::Counts,
}

/// The streams of a node that runs.
#[derive(Debug)]
pub struct Running(Vec<oneshot::Receiver<()>>);

impl Running {
    /// Waits until all have ended, which they do when the node takes nothing more of programs.
    pub async fn ended(self) {
        for stream in self.0 {
            // One that is gone has ended too.
            let _ = stream.await;
        }
    }
}

/// Starts the streams of a node, each in a thread of its own; they go on until the node takes nothing more
/// of programs.
///
/// # Errors
/// M5004 for one that cannot be opened.
pub fn start(
    streams: &[config::stream::Stream],
    bridges: &[config::bridge::Bridge],
    parts: Parts,
    accepting: &CancellationToken,
) -> Result<Running, Problem> {
    let mut running = Vec::new();
    for config in streams {
        let named = |bridge: &&config::bridge::Bridge| Some(&bridge.name) == config.bridge.as_ref();
        if let Some(bridge) = bridges.iter().find(named) {
            let remote = remote::Remote {
                config: config.clone(),
                bridge: bridge.clone(),
                broker: parts.broker.clone(),
                counts: parts.counts.clone(),
                bridged: parts.bridged.clone(),
            };
            tokio::spawn(accepting.clone().run_until_cancelled_owned(remote.run()));
            continue;
        }
        let (name, broker) = (config.name.clone(), parts.broker.clone());
        let failed = |error: &dyn std::fmt::Display| {
            let what = format!("the stream {name} cannot be opened");
            Problem::new("M5004", crate::error::Exit::Failed, what)
                .why(format!("{}: {error}", parts.dir.join(&name).display()))
                .attempt(
                    "micro config path",
                    "remove [broker.stream] there, or make room on the disk",
                )
        };
        let opened = Stream::open(config.clone(), broker, &parts.dir, parts.counts.clone());
        let stream = opened.map_err(|error| failed(&error))?;
        let (runtime, stop) = (tokio::runtime::Handle::current(), accepting.clone());
        let (ended, end) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("stream {name}"));
        let spawned = thread.spawn(move || {
            runtime.block_on(stream.run(stop));
            // Nobody waits for it where the node did not come up.
            let _ = ended.send(());
        });
        spawned.map_err(|error| failed(&error))?;
        running.push(end);
    }
    if !streams.is_empty() {
        directory::start(parts.broker, parts.routes, accepting)
            .map_err(|error| Problem::machine("streams cannot be asked for", &error))?;
    }
    Ok(Running(running))
}
