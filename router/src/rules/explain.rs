//! A decision with its reasons: made only when somebody asks.

use std::fmt;

use proto::{Cost, NodeId, UnixTime};

use super::decide::{Decision, RequestView, idle, obstacle};
use crate::routes::{Instance, InstanceKey, Lookup, Mismatch, Query, Routes, UNREACHABLE};

/// Candidates that are listed; of larger services the nearest.
const LISTED: usize = 1000;

/// Why a call goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// What the caller asked for.
    pub asked: String,
    /// The revision of the rules and the node that wrote them.
    pub rules: Option<(u64, NodeId)>,
    /// The rules that were looked at, in turn; the last is the one that decided, if one did.
    pub looked_at: Vec<Passed>,
    /// The subset that was chosen.
    pub subset: Option<String>,
    /// It is diverted.
    pub diverted: bool,
    /// What narrowed the choice beyond what is required, in turn.
    pub narrowed: Vec<String>,
    /// Every instance with its verdict, nearest first; of larger services the nearest thousand.
    pub candidates: Vec<Candidate>,
    /// Instances of the service.
    pub exist: usize,
    /// Why there is none.
    pub mismatch: Option<Mismatch>,
}

/// A rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Its name.
    pub rule: String,
    /// Why it is not for this call; `None` for the one that decided.
    pub obstacle: Option<&'static str>,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The same in every publication.
    pub key: InstanceKey,
    /// Its id.
    pub instance: String,
    /// Its address.
    pub address: String,
    /// The id of its node.
    pub node: NodeId,
    /// What the path to it costs.
    pub cost: Cost,
    /// What was found.
    pub verdict: Verdict,
}

/// What was found of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One of the nearest: the choice is between these.
    Nearest,
    /// It would do; others are nearer.
    Farther,
    /// It would do; others are preferred.
    NotPreferred,
    /// It does not hold this, with the value it has instead, if it has one.
    Lacks(String, Option<String>),
    /// There is no path to its node.
    Unreachable,
}

impl Routes {
    /// Why a call to `service` goes where it goes. The same as [`Routes::decide`] would say, with
    /// the reasons; looks at everything, so it is for people.
    #[must_use]
    pub fn explain(&self, service: &str, request: &RequestView<'_>, now: UnixTime) -> Explanation {
        let decision = self.decide(service, request, now);
        let mut explained = Explanation {
            service: service.to_owned(),
            asked: request.selector.to_string(),
            rules: None,
            looked_at: Vec::new(),
            subset: decision.subset.map(|subset| subset.name.clone()),
            diverted: decision.diverted,
            narrowed: Vec::new(),
            candidates: Vec::new(),
            exist: 0,
            mismatch: None,
        };
        let found = self.service(service).or_else(|| self.waiting(service));
        let Some(found) = found else { return explained };
        explained.exist = found.instances.len();
        if let Some(rules) = found.rules() {
            explained.rules = Some((rules.set.revision, rules.author));
            for (rule, ready) in rules.set.rules.iter().zip(&rules.ready) {
                let header = |at: usize| request.headers.get(&rule.when.headers[at].name);
                let query = Query::of(request.selector).and(&rule.then.select);
                let obstacle = obstacle(rule, request, header)
                    .or_else(|| idle(rule, ready, found, query, now));
                explained.looked_at.push(Passed { rule: rule.name.clone(), obstacle });
                if obstacle.is_none() {
                    break;
                }
            }
        }
        if let Lookup::Found(found) = decision.lookup {
            explained.narrowed = found.narrowed_by();
        }
        let unknown = matches!(decision.lookup, Lookup::Unknown);
        explained.mismatch =
            decision.mismatch().or_else(|| unknown.then(|| found.mismatch(decision.query)));
        let listed = found.instances.iter().take(LISTED);
        explained.candidates = listed.map(|one| candidate(one, &decision)).collect();
        explained
    }
}

fn candidate(one: &Instance, decision: &Decision<'_>) -> Candidate {
    let lacks = decision.query.lacks(&one.labels);
    let verdict = match (lacks, decision.lookup) {
        (Some(lack), _) => {
            Verdict::Lacks(lack.to_string(), one.labels.get(lack.key()).map(str::to_owned))
        }
        (None, _) if one.group == UNREACHABLE => Verdict::Unreachable,
        (None, Lookup::Found(found)) if found.nearest().any(|near| near.key == one.key) => {
            Verdict::Nearest
        }
        (None, Lookup::Found(found)) if found.prefers(one) => Verdict::Farther,
        (None, _) => Verdict::NotPreferred,
    };
    Candidate {
        key: one.key,
        instance: one.id.to_string(),
        address: one.address.to_string(),
        node: one.node,
        cost: one.cost,
        verdict,
    }
}

impl Decision<'_> {
    /// Why no instance fits what the caller and the rule ask together; `None` where one does, or
    /// the service is not known.
    #[must_use]
    pub fn mismatch(&self) -> Option<Mismatch> {
        match self.lookup {
            Lookup::NoMatch(found) => Some(found.mismatch(self.query)),
            Lookup::Unknown | Lookup::Unreachable(_) | Lookup::Found(_) => None,
        }
    }
}

impl Verdict {
    /// Whether the instance holds what is required, and can be reached.
    #[must_use]
    pub fn fits(&self) -> bool {
        match self {
            Self::Nearest | Self::Farther | Self::NotPreferred => true,
            Self::Lacks(..) | Self::Unreachable => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nearest => f.write_str("in: one of the nearest"),
            Self::Farther => f.write_str("in: others are nearer"),
            Self::NotPreferred => f.write_str("in: others are preferred"),
            Self::Lacks(wanted, None) => write!(f, "out: not {wanted}"),
            Self::Lacks(wanted, Some(found)) => write!(f, "out: not {wanted}, but {found}"),
            Self::Unreachable => f.write_str("out: no path to its node"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.asked.is_empty() { "" } else { "?" };
        writeln!(f, "{}{mark}{}", self.service, self.asked)?;
        for one in &self.candidates {
            let cost = one.cost.as_micros();
            writeln!(f, "  {} {} {cost}us  {}", one.node, one.address, one.verdict)?;
        }
        if let Some(mismatch) = &self.mismatch {
            writeln!(f, "none      {mismatch}")?;
        }
        match self.rules {
            None => writeln!(f, "rules     none for {}", self.service)?,
            Some((revision, author)) => writeln!(f, "rules     revision {revision} of {author}")?,
        }
        for passed in &self.looked_at {
            match passed.obstacle {
                Some(why) => writeln!(f, "  {} not for this call: {why}", passed.rule)?,
                None => writeln!(f, "  {} decides", passed.rule)?,
            }
        }
        if let Some(subset) = &self.subset {
            writeln!(f, "subset    {subset}")?;
        }
        if self.diverted {
            writeln!(f, "diverted")?;
        }
        for narrowed in &self.narrowed {
            writeln!(f, "prefers   {narrowed}")?;
        }
        Ok(())
    }
}
