//! A decision with its reasons: made only when somebody asks.

use std::fmt::{self, Write as _};

use proto::{Cost, NodeId, UnixTime};

use super::decide::{Decision, RequestView, idle, obstacle};
use crate::routes::{Instance, Lookup, Mismatch, Query, Routes, UNREACHABLE};

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
    /// Every instance with its verdict, nearest first.
    pub candidates: Vec<Candidate>,
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
            mismatch: None,
        };
        let found = self.service(service).or_else(|| self.waiting(service));
        let Some(found) = found else { return explained };
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
        match decision.lookup {
            Lookup::Found(found) => explained.narrowed = found.narrowed_by(),
            Lookup::NoMatch(found) => explained.mismatch = Some(found.mismatch(decision.query)),
            Lookup::Unknown => explained.mismatch = Some(found.mismatch(decision.query)),
            Lookup::Unreachable(_) => {}
        }
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
        instance: one.id.to_string(),
        address: one.address.to_string(),
        node: one.node,
        cost: one.cost,
        verdict,
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

impl Explanation {
    /// As one JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = Json::default();
        out.object(|out| {
            out.text("service", &self.service);
            out.text("asked", &self.asked);
            if let Some((revision, author)) = self.rules {
                out.raw("revision", &revision.to_string());
                out.text("author", &author.to_string());
            }
            out.list("rules", &self.looked_at, |out, one| {
                out.text("rule", &one.rule);
                out.raw("matches", if one.obstacle.is_none() { "true" } else { "false" });
                one.obstacle.iter().for_each(|why| out.text("why", why));
            });
            self.subset.iter().for_each(|subset| out.text("subset", subset));
            out.raw("diverted", if self.diverted { "true" } else { "false" });
            out.list("narrowed", &self.narrowed, |out, one| out.text("by", one));
            out.list("candidates", &self.candidates, |out, one| {
                out.text("instance", &one.instance);
                out.text("address", &one.address);
                out.text("node", &one.node.to_string());
                if one.cost.is_finite() {
                    out.raw("cost_us", &one.cost.as_micros().to_string());
                }
                let chosen = matches!(one.verdict, Verdict::Nearest);
                out.raw("nearest", if chosen { "true" } else { "false" });
                out.text("verdict", &one.verdict.to_string());
            });
            self.mismatch.iter().for_each(|why| out.text("none", &why.to_string()));
        });
        out.0
    }
}

/// JSON, written from front to back.
#[derive(Default)]
struct Json(String);

impl Json {
    fn object(&mut self, write: impl FnOnce(&mut Self)) {
        self.comma();
        self.0.push('{');
        write(self);
        self.0.push('}');
    }

    fn comma(&mut self) {
        if self.0.ends_with(['}', '"', ']']) || self.0.ends_with(|c: char| c.is_alphanumeric()) {
            self.0.push(',');
        }
    }

    fn key(&mut self, key: &str) {
        self.comma();
        self.string(key);
        self.0.push(':');
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push_str(value);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }

    fn list<T>(&mut self, key: &str, all: &[T], write: impl Fn(&mut Self, &T)) {
        self.key(key);
        self.0.push('[');
        all.iter().for_each(|one| self.object(|out| write(out, one)));
        self.0.push(']');
    }

    fn string(&mut self, text: &str) {
        self.0.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                c if c.is_control() => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }
}
