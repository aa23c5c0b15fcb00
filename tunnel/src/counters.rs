//! What the tunnel counts: typed families, their doc comments the help texts.

use std::fmt::{Error, Write as _};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::{counter, family, gauge};
use prometheus_client::registry::{Registry, Unit};

use crate::close::{Close, Gone};
use crate::conduct::Reason;

/// One number that many tasks add to.
#[derive(Clone, Debug, Default)]
pub struct Counter(counter::Counter);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.inc();
    }

    /// Adds `more`.
    pub fn add_by(&self, more: u64) {
        self.0.inc_by(more);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// Shows it.
    pub(crate) fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.0.clone());
    }
}

/// One number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(gauge::Gauge);

impl Gauge {
    /// Adds one.
    pub fn add(&self) {
        self.0.inc();
    }

    /// Takes one away.
    pub fn sub(&self) {
        self.0.dec();
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// One number for each value of a label.
#[derive(Clone, Debug)]
pub struct Family<L: Label>(family::Family<L::Set, counter::Counter>);

/// A value of a label, from a set that is known when the program is built.
pub trait Label: Copy {
    /// How it is written.
    type Set: Clone
        + std::fmt::Debug
        + Eq
        + std::hash::Hash
        + EncodeLabelSet
        + Send
        + Sync
        + 'static;

    /// With the name of the label.
    fn set(self) -> Self::Set;
}

impl<L: Label> Default for Family<L> {
    fn default() -> Self {
        Self(family::Family::default())
    }
}

impl<L: Label> Family<L> {
    /// Adds one.
    pub fn add(&self, label: L) {
        self.add_by(label, 1);
    }

    /// Adds `more`.
    pub fn add_by(&self, label: L, more: u64) {
        self.0.get_or_create(&label.set()).inc_by(more);
    }

    /// The number.
    #[must_use]
    pub fn get(&self, label: L) -> u64 {
        self.0.get_or_create(&label.set()).get()
    }
}

macro_rules! label {
    ($kind:ty, $set:ident { $name:ident }) => {
        #[doc = concat!("The label of [`", stringify!($kind), "`].")]
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $set {
            $name: $kind,
        }

        impl Label for $kind {
            type Set = $set;

            fn set(self) -> $set {
                $set { $name: self }
            }
        }
    };
}

/// What became of a connection that somebody wanted to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Handshake {
    /// Both ends have proven their keys.
    Proven,
    /// It was asked to prove its address first.
    Retried,
    /// It was turned away: too many from where it comes.
    Crowded,
    /// It was turned away: too many altogether, or the node is stopping.
    Full,
    /// It was not what this protocol begins with, or ended early.
    Failed,
    /// It was not done in time.
    Slow,
}

/// What a record of a neighbour was to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Taken {
    /// Something new.
    News,
    /// Known already.
    Known,
    /// Older than what is known.
    Stale,
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End(Gone);

impl From<Gone> for End {
    fn from(gone: Gone) -> Self {
        // What other releases may say is one value, or they could make as many as they like.
        Self(match gone {
            Gone::ByPeer(Close::Other(_)) => Gone::ByPeer(Close::Other(0)),
            Gone::Here(Close::Other(_)) => Gone::Here(Close::Other(0)),
            known @ (Gone::ByPeer(_)
            | Gone::Here(_)
            | Gone::Silent
            | Gone::Restarted
            | Gone::Failed) => known,
        })
    }
}

/// Which end gave the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum By {
    Here,
    Peer,
    /// Nobody did: it was found out.
    Nobody,
}

/// The labels of [`End`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndLabels {
    by: By,
    reason: End,
}

impl Label for End {
    type Set = EndLabels;

    fn set(self) -> EndLabels {
        let by = match self.0 {
            Gone::Here(_) => By::Here,
            Gone::ByPeer(_) => By::Peer,
            Gone::Silent | Gone::Restarted | Gone::Failed => By::Nobody,
        };
        EndLabels { by, reason: self }
    }
}

impl EncodeLabelValue for End {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        match self.0 {
            Gone::ByPeer(Close::Other(_)) | Gone::Here(Close::Other(_)) => {
                encoder.write_str("Other")
            }
            Gone::ByPeer(close) | Gone::Here(close) => write!(encoder, "{close:?}"),
            gone @ (Gone::Silent | Gone::Restarted | Gone::Failed) => write!(encoder, "{gone:?}"),
        }
    }
}

label!(Handshake, HandshakeLabel { outcome });
label!(Taken, TakenLabel { outcome });
label!(Reason, ReasonLabel { reason });

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident $(<$label:ty>)? $(in $unit:ident)?,)*) => {
        /// Counts since the tunnel began, and gauges.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $help])+ pub $name: $kind $(<$label>)?,)* }

        impl Counters {
            /// Shows all of them, below `tunnel`.
            pub fn register(&self, registry: &mut Registry) {
                let registry = registry.sub_registry_with_prefix("tunnel");
                $(counters!(@one registry, self.$name, stringify!($name), help(&[$($help),+]) $(, $unit)?);)*
            }
        }
    };
    (@one $registry:ident, $metric:expr, $name:expr, $help:expr) => {
        $registry.register($name, $help, $metric.0.clone())
    };
    (@one $registry:ident, $metric:expr, $name:expr, $help:expr, $unit:ident) => {
        $registry.register_with_unit($name, $help, Unit::$unit, $metric.0.clone())
    };
}

/// A help text of the lines of a doc comment; the registry ends it with a full stop.
fn help(lines: &[&str]) -> String {
    let joined = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    joined.trim_end_matches('.').to_owned()
}

counters! {
    /// Connections that others wanted to make, by what became of them.
    handshakes: Family<Handshake>,
    /// Connections now that have not proven membership.
    strangers: Gauge,
    /// Strangers turned away after the handshake, by reason.
    strangers_refused: Family<End>,
    /// Links that came up.
    links_up: Counter,
    /// Links that ended, by who gave the reason and by reason.
    links_down: Family<End>,
    /// Links that are up now.
    links: Gauge,
    /// Times a link was suspected: nothing was heard on it.
    suspected: Counter,
    /// Times a suspected link recovered.
    recovered: Counter,
    /// Dials begun.
    dials: Counter,
    /// Dials that failed.
    dials_failed: Counter,
    /// Calls refused here for their node had no usable link.
    opens_refused: Counter,
    /// Packets of flows dropped on arrival: their flow is over, or takes them too slowly.
    packets_lost: Counter,
    /// Streams opened.
    streams_opened: Counter,
    /// Streams accepted.
    streams_accepted: Counter,
    /// Streams reset for nobody here could take them.
    streams_refused: Counter,
    /// Bytes received on links, headers of QUIC included.
    received: Counter in Bytes,
    /// Bytes sent on links, headers of QUIC included.
    sent: Counter in Bytes,
    /// Bytes of control streams received.
    control_received: Counter in Bytes,
    /// Bytes of control streams sent.
    control_sent: Counter in Bytes,
    /// Records of neighbours that were believed, by what they were to this node.
    records_received: Family<Taken>,
    /// Records sent to neighbours.
    records_sent: Counter,
    /// Records of neighbours that were turned away, by reason.
    records_rejected: Family<Reason>,
    /// Neighbours read slower than they speak now, for much of what they say is of no use.
    neighbours_slowed: Gauge,
    /// Times a neighbour began to be read slower.
    slowdowns: Counter,
    /// Frames for a neighbour dropped for its queue was full; digests bring them back.
    frames_dropped: Counter,
    /// Grants given to new members.
    joins_granted: Counter,
    /// Requests to join that were refused.
    joins_refused: Counter,
    /// Grants renewed.
    renewals: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counted_is_shown_with_its_help_and_labels_of_a_known_set() {
        let counters = Counters::default();
        let mut registry = Registry::default();
        counters.register(&mut registry);
        counters.handshakes.add(Handshake::Crowded);
        counters.records_rejected.add_by(Reason::Forged, 7);
        counters.received.add_by(5);
        for code in [0x900, 0x901] {
            counters.links_down.add(Gone::ByPeer(Close::Other(code)).into());
        }
        counters.links_down.add(Gone::Here(Close::Idle).into());
        counters.links_down.add(Gone::Silent.into());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "# HELP tunnel_records_rejected Records of neighbours that were turned away, by reason.",
            "tunnel_handshakes_total{outcome=\"Crowded\"} 1",
            "tunnel_records_rejected_total{reason=\"Forged\"} 7",
            "tunnel_received_bytes_total 5",
            "tunnel_links_down_total{by=\"Peer\",reason=\"Other\"} 2",
            "tunnel_links_down_total{by=\"Here\",reason=\"Idle\"} 1",
            "tunnel_links_down_total{by=\"Nobody\",reason=\"Silent\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
