//! What one lookup asks for.

use std::fmt;

use proto::selector::Requirement;
use proto::{LabelSet, Selector};

/// What is required, and what narrows the choice where that leaves something. Made for each
/// lookup from what its caller says and what a rule adds; copies nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    caller: Option<&'a Selector>,
    rule: Option<&'a Selector>,
    /// Preferred as a whole, before all single preferences.
    subset: Option<&'a Selector>,
    /// Places of instances that are preferred before all else.
    divert: Option<(u32, u32)>,
}

/// One thing that narrows the choice, where something is left then.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Places(u32, u32),
    All(&'a Selector),
    One(&'a Requirement),
}

impl<'a> Query<'a> {
    /// What a caller asks, and no rule.
    #[must_use]
    pub fn of(caller: &'a Selector) -> Self {
        Self { caller: (!caller.is_empty()).then_some(caller), ..Self::default() }
    }

    /// With what a rule adds: `selector` like the caller's own.
    #[must_use]
    pub fn and(self, selector: &'a Selector) -> Self {
        Self { rule: (!selector.is_empty()).then_some(selector), ..self }
    }

    /// Those that hold all of `subset` are preferred before what is preferred otherwise.
    #[must_use]
    pub fn within(self, subset: &'a Selector) -> Self {
        Self { subset: (!subset.is_empty()).then_some(subset), ..self }
    }

    /// The instances at these places, from and before, are preferred before all else.
    #[must_use]
    pub fn at(self, places: (u32, u32)) -> Self {
        Self { divert: Some(places), ..self }
    }

    /// What must hold.
    pub(super) fn required(&self) -> impl Iterator<Item = &'a Requirement> + use<'a> {
        self.caller.into_iter().chain(self.rule).flat_map(Selector::required)
    }

    /// The first requirement that these labels do not hold.
    pub(crate) fn lacks(&self, labels: &LabelSet) -> Option<&'a Requirement> {
        self.required().find(|one| !one.accepts(labels.get(one.key())))
    }

    /// What narrows, the most important first; never more than 32.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step<'a>> + use<'a> {
        let divert = self.divert.map(|(from, to)| Step::Places(from, to));
        let subset = self.subset.map(Step::All);
        let preferred = self.caller.into_iter().chain(self.rule).flat_map(Selector::preferred);
        divert.into_iter().chain(subset).chain(preferred.map(Step::One))
    }

    /// Whether anything may narrow the choice.
    pub(super) fn narrows(&self) -> bool {
        self.divert.is_some()
            || self.subset.is_some()
            || self.caller.into_iter().chain(self.rule).any(|all| all.preferred().next().is_some())
    }
}

impl<'a> From<&'a Selector> for Query<'a> {
    fn from(caller: &'a Selector) -> Self {
        Self::of(caller)
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Places(..) => f.write_str("the node it is diverted to"),
            Self::All(all) => write!(f, "{all}"),
            Self::One(one) => write!(f, "{one}"),
        }
    }
}
