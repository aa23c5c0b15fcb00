//! What the data plane counts.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::balance::Fresh;
use crate::error::Error;
use crate::explain::State;
use crate::udp::carry::Counters;

/// How a call reached this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Face {
    Http1,
    Http2,
    Grpc,
    Mucp,
    Link,
    /// Bytes over TCP.
    Tcp,
    /// The same, from another node.
    LinkTcp,
    /// Packets over UDP.
    Udp,
    /// The same, from another node.
    LinkUdp,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// The service answered, whatever it said.
    Answered,
    NoService,
    Unavailable,
    Deadline,
    Overloaded,
    Rejected,
    Broken,
    Cancelled,
}

const FACES: [Face; 9] = [
    Face::Http1,
    Face::Http2,
    Face::Grpc,
    Face::Mucp,
    Face::Link,
    Face::Tcp,
    Face::LinkTcp,
    Face::Udp,
    Face::LinkUdp,
];
const OUTCOMES: [Outcome; 8] = [
    Outcome::Answered,
    Outcome::NoService,
    Outcome::Unavailable,
    Outcome::Deadline,
    Outcome::Overloaded,
    Outcome::Rejected,
    Outcome::Broken,
    Outcome::Cancelled,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    face: Face,
    outcome: Outcome,
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Turned {
    /// Its first bytes are no protocol of this port.
    Unknown,
    /// It said nothing in time.
    Silent,
    /// The program that made it may not use this port.
    NotOwner,
    /// It knew no token, and held no key, of those that this port asks for.
    NoLogin,
    /// The system gave no socket: out of descriptors or memory.
    Exhausted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TurnedLabels {
    reason: Turned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: State,
}

/// Counters by the word that an explanation has for what is counted. A handle.
#[derive(Clone)]
struct ByState {
    family: Family<StateLabels, Counter>,
    each: [Counter; State::ALL.len()],
}

impl ByState {
    /// Of these states; others are not shown.
    fn of(states: &[State]) -> Self {
        let family = Family::<StateLabels, Counter>::default();
        // Shown from the beginning: a rate of what was never there is no number.
        let each = State::ALL.map(|state| match states.contains(&state) {
            true => family.get_or_create(&StateLabels { state }).clone(),
            false => Counter::default(),
        });
        Self { family, each }
    }

    fn add(&self, state: State, count: u32) {
        self.each[state as usize].inc_by(u64::from(count));
    }
}

/// How often instances were put out and came back. A handle.
#[derive(Clone)]
pub(crate) struct Instances(ByState);

impl Instances {
    fn new() -> Self {
        Self(ByState::of(&[State::Ejected, State::Refusing, State::SlowStart]))
    }

    pub(crate) fn count(&self, fresh: Fresh) {
        self.0.add(State::Ejected, fresh.ejected);
        self.0.add(State::Refusing, fresh.refusing);
        self.0.add(State::SlowStart, fresh.back);
    }
}

/// What an instance was that took a call, before it did.
const TOOK: [State; 4] =
    [State::Nearest, State::OtherLocality, State::NotPreferred, State::ProbeDue];
/// Why there was none: [`Error::state`].
const NONE: [State; 6] = [
    State::Unknown,
    State::Lacks,
    State::Unreachable,
    State::Protocol,
    State::OtherRoute,
    State::LimitReached,
];

/// Counters of one proxy; the hot ones are looked up once.
pub(crate) struct Metrics {
    calls: Family<CallLabels, Counter>,
    each: [[Counter; OUTCOMES.len()]; FACES.len()],
    seconds: Histogram,
    turned: Family<TurnedLabels, Counter>,
    retries: Counter,
    hedges: Counter,
    mirrored: Counter,
    mirror_missed: Counter,
    denied: Counter,
    pub(crate) packets_lost: Counter,
    pub(crate) instances: Instances,
    chosen: ByState,
    no_instance: ByState,
    pub(crate) up: Counter,
    pub(crate) down: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) flows: Gauge,
    pub(crate) connections: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let calls = Family::<CallLabels, Counter>::default();
        let one = |face, outcome| calls.get_or_create(&CallLabels { face, outcome }).clone();
        let each = FACES.map(|face| OUTCOMES.map(|outcome| one(face, outcome)));
        // 50 µs to 13 s, by doubling and doubling again.
        let buckets = (0..10).map(|n| 50e-6 * 4_f64.powi(n));
        Self {
            each,
            calls,
            seconds: Histogram::new(buckets),
            turned: Family::default(),
            retries: Counter::default(),
            hedges: Counter::default(),
            mirrored: Counter::default(),
            mirror_missed: Counter::default(),
            denied: Counter::default(),
            packets_lost: Counter::default(),
            instances: Instances::new(),
            chosen: ByState::of(&TOOK),
            no_instance: ByState::of(&NONE),
            up: Counter::default(),
            down: Counter::default(),
            in_flight: Gauge::default(),
            flows: Gauge::default(),
            connections: Gauge::default(),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("proxy");
        let help = "Calls carried to their end, by face and outcome";
        registry.register("calls", help, self.calls.clone());
        let help = "Connections turned away, by reason";
        registry.register("turned_away", help, self.turned.clone());
        registry.register("retries", "Calls tried at a further instance", self.retries.clone());
        let help = "Calls for which a second instance was asked beside a slow first";
        registry.register("hedges", help, self.hedges.clone());
        let help = "Copies of calls sent elsewhere by a rule";
        registry.register("mirrored", help, self.mirrored.clone());
        let help = "Calls of which no copy was sent, for their body was long or not there yet";
        registry.register("mirror_missed", help, self.mirror_missed.clone());
        let help = "Further attempts not made, for the budget of the service was used up";
        registry.register("retries_denied", help, self.denied.clone());
        let help = "UDP packets dropped here: no room in a queue or socket, or no instance";
        registry.register("packets_lost", help, self.packets_lost.clone());
        let help =
            "Instances put out by failed calls, found to take none, and back to begin slowly";
        registry.register("instances", help, self.instances.0.family.clone());
        let help = "Attempts of calls, by what the instance was that took them";
        registry.register("chosen", help, self.chosen.family.clone());
        let help = "Calls for which there was no instance, by why";
        registry.register("no_instance", help, self.no_instance.family.clone());
        registry.register("in_flight", "Calls being carried now", self.in_flight.clone());
        registry.register(
            "flows",
            "Flows of UDP packets, of programs here and of other nodes",
            self.flows.clone(),
        );
        registry.register("connections", "Connections of programs", self.connections.clone());
        registry.register_with_unit(
            "call_duration",
            "From the head of a call to its end",
            Unit::Seconds,
            self.seconds.clone(),
        );
        let up = "Body bytes from callers to services";
        registry.register_with_unit("request_body", up, Unit::Bytes, self.up.clone());
        let down = "Body bytes from services to callers";
        registry.register_with_unit("response_body", down, Unit::Bytes, self.down.clone());
    }

    pub(crate) fn call(&self, face: Face, outcome: Outcome, took: Duration) {
        self.each[face as usize][outcome as usize].inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// An instance takes a call; in this state it was found.
    pub(crate) fn chosen(&self, state: State) {
        self.chosen.add(state, 1);
    }

    /// None does.
    pub(crate) fn no_instance(&self, why: &Error) {
        if let Some(state) = why.state() {
            self.no_instance.add(state, 1);
        }
    }

    pub(crate) fn retry(&self) {
        self.retries.inc();
    }

    /// What packets are counted in.
    pub(crate) fn packets(&self) -> Counters<'_> {
        Counters { up: &self.up, down: &self.down, lost: &self.packets_lost }
    }

    pub(crate) fn mirrored(&self) {
        self.mirrored.inc();
    }

    pub(crate) fn mirror_missed(&self) {
        self.mirror_missed.inc();
    }

    pub(crate) fn hedge(&self) {
        self.hedges.inc();
    }

    pub(crate) fn denied(&self) {
        self.denied.inc();
    }

    pub(crate) fn turned(&self, reason: Turned) {
        self.turned.get_or_create(&TurnedLabels { reason }).inc();
    }
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        match error.code() {
            1203 | 1002 => Self::NoService,
            1003 | 1004 | 1013 => Self::Unavailable,
            1005 => Self::Deadline,
            1305 | 1306 => Self::Overloaded,
            1307 => Self::Rejected,
            1008..=1011 | 1015 => Self::Rejected,
            1014 => Self::Cancelled,
            _ => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counted_is_shown() {
        let metrics = Metrics::new();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.call(Face::Link, Outcome::from(&Error::Draining), Duration::from_millis(1));
        metrics.turned(Turned::Silent);
        metrics.instances.count(Fresh { ejected: 2, ..Fresh::default() });
        metrics.chosen(State::OtherLocality);
        metrics.no_instance(&Error::NoPath("shop".into()));
        metrics.no_instance(&Error::Draining);
        metrics.up.inc_by(5);
        metrics.down.inc_by(7);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "proxy_calls_total{face=\"Link\",outcome=\"Unavailable\"} 1",
            "proxy_turned_away_total{reason=\"Silent\"} 1",
            "proxy_instances_total{state=\"ejected\"} 2",
            "proxy_chosen_total{state=\"other-locality\"} 1",
            "proxy_no_instance_total{state=\"unreachable\"} 1",
            "proxy_no_instance_total{state=\"limit-reached\"} 0",
            "proxy_request_body_bytes_total 5",
            "proxy_response_body_bytes_total 7",
            "proxy_call_duration_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
