//! What an instance is for a call, in a word: the one vocabulary of `why`, `Micro-Route`, errors and
//! metrics.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use router::rules::Verdict as Fit;

use crate::balance::{Verdict, Why};

/// What an instance is for a call; of a call without one, why there is none. Few, so that each may
/// be the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It took the call.
    Chosen,
    /// One of the nearest: the choice is between these.
    Nearest,
    /// It would do; others are nearer.
    Farther,
    /// It would do, and takes what spills over from nearer ones.
    OtherLocality,
    /// It would do; others are preferred.
    NotPreferred,
    /// It begins with a part of its share.
    SlowStart,
    /// It is out: it took no call.
    Refusing,
    /// It is out: too many of its calls failed.
    Ejected,
    /// It is out, and one call is finding out whether it is back.
    HalfOpen,
    /// It is out, and the next call finds out whether it is back.
    ProbeDue,
    /// It has as many calls as it may.
    LimitReached,
    /// Its labels are not what is required.
    Lacks,
    /// Its node found it not to be well.
    Unhealthy,
    /// There is no path to its node.
    Unreachable,
    /// It does not speak what the call needs.
    Protocol,
    /// It is not by the router, gateway or network that is asked for.
    OtherRoute,
    /// There is no service of this name.
    Unknown,
}

impl State {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 17] = [
        Self::Chosen,
        Self::Nearest,
        Self::Farther,
        Self::OtherLocality,
        Self::NotPreferred,
        Self::SlowStart,
        Self::Refusing,
        Self::Ejected,
        Self::HalfOpen,
        Self::ProbeDue,
        Self::LimitReached,
        Self::Lacks,
        Self::Unhealthy,
        Self::Unreachable,
        Self::Protocol,
        Self::OtherRoute,
        Self::Unknown,
    ];

    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Nearest => "nearest",
            Self::Farther => "farther",
            Self::OtherLocality => "other-locality",
            Self::NotPreferred => "not-preferred",
            Self::SlowStart => "slow-start",
            Self::Refusing => "refusing",
            Self::Ejected => "ejected",
            Self::HalfOpen => "half-open",
            Self::ProbeDue => "probe-due",
            Self::LimitReached => "limit-reached",
            Self::Lacks => "lacks",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
            Self::Protocol => "protocol",
            Self::OtherRoute => "other-route",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it takes calls as others do.
    pub(super) fn takes(self) -> bool {
        match self {
            Self::Chosen
            | Self::Nearest
            | Self::Farther
            | Self::SlowStart
            | Self::OtherLocality => true,
            Self::NotPreferred
            | Self::Refusing
            | Self::Ejected
            | Self::HalfOpen
            | Self::ProbeDue
            | Self::LimitReached
            | Self::Lacks
            | Self::Unhealthy
            | Self::Unreachable
            | Self::Protocol
            | Self::OtherRoute
            | Self::Unknown => false,
        }
    }

    /// Whether it is asked where none takes calls.
    pub(super) fn is_asked(self) -> bool {
        let out = [Self::Refusing, Self::Ejected, Self::HalfOpen, Self::ProbeDue];
        self.takes() || out.contains(&self) || self == Self::LimitReached
    }

    /// By its labels and its path alone.
    pub(super) fn by_fit(fit: &Fit) -> Self {
        match fit {
            Fit::Nearest => Self::Nearest,
            Fit::Farther => Self::Farther,
            Fit::NotPreferred => Self::NotPreferred,
            Fit::Lacks(..) => Self::Lacks,
            Fit::Unreachable => Self::Unreachable,
        }
    }
}

impl From<&Verdict> for State {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Chosen => Self::Chosen,
            Verdict::Busier => Self::Nearest,
            Verdict::Out { why, .. } => Self::from(*why),
            Verdict::HalfOpen { .. } => Self::HalfOpen,
            Verdict::ProbeDue { .. } => Self::ProbeDue,
            Verdict::LimitReached => Self::LimitReached,
            Verdict::OtherLocality { .. } => Self::OtherLocality,
            Verdict::SlowStart { .. } => Self::SlowStart,
        }
    }
}

impl From<Why> for State {
    fn from(why: Why) -> Self {
        if why.is_ejection() { Self::Ejected } else { Self::Refusing }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl EncodeLabelValue for State {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_place_and_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> =
            State::ALL.iter().map(|one| one.name()).collect();
        assert_eq!(words.len(), State::ALL.len());
        for (at, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, at);
        }
    }
}
