//! Why a call goes where it goes: one value, made when somebody asks. `micro network why` prints it,
//! `Micro-Route` carries it back with an answer, and both are the same JSON.
//!
//! The router says what fits and what rules did (`router::Explanation`), the balancer what it saw of
//! the instances that fit. Here the two come together, with the names that people know.

mod route;
mod said;
mod state;

use std::time::Duration;

use proto::record::Protocol;
use router::{Instance, Lookup, RequestView, Routes};
use serde::{Deserialize, Serialize};

pub(crate) use self::route::Trace;
pub use self::route::{AtNode, Attempt, MAX_ROUTE, Route};
pub use self::state::State;

use crate::balance::{Considered, Pool, Verdict, What};
use crate::carry::{Form, delivers};
use crate::health::unhealthy;
use crate::proxy::{Proxy, Shared};
use crate::via::Via;

/// Why a call goes where it goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// What was asked of the instance.
    pub asked: String,
    /// The revision of the rules, where there are any.
    pub revision: Option<u64>,
    /// The id of the node that wrote them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author_name: String,
    /// The rules that were looked at, in turn; the last is the one that decided, if one did.
    pub rules: Vec<Passed>,
    /// The subset that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Whether it is diverted.
    pub diverted: bool,
    /// What narrowed the choice beyond what is required, in turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub narrowed: Vec<Narrowed>,
    /// Headers that looked as if they asked for something, and did not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<Ignored>,
    /// Every instance with its verdict, nearest first; of larger services the nearest.
    pub candidates: Vec<Candidate>,
    /// Instances of the service, listed or not.
    pub exist: u64,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none: Option<String>,
    /// The same in a word ([`State::name`]), as the metric `micro_proxy_no_instance_total` counts
    /// it; absent where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What changed last among the instances, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Changed>,
}

/// A rule that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passed {
    /// Its name.
    pub rule: String,
    /// Whether it decides.
    pub matches: bool,
    /// Why it is not for this call.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What narrowed the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Narrowed {
    /// What it was.
    pub by: String,
}

/// A header that did not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ignored {
    /// The header, in lower case.
    pub header: String,
    /// Why.
    pub why: String,
}

/// An instance with what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Candidate {
    /// The id it registered with.
    pub instance: String,
    /// Where it listens.
    pub address: String,
    /// The id of its node.
    pub node: String,
    /// The name of its node.
    pub node_name: String,
    /// What the path to its node costs, microseconds: the part of the network. Absent when there is
    /// no path.
    pub cost_us: Option<u64>,
    /// Whether the call goes to one of these.
    pub nearest: bool,
    /// The verdict in a word, for programs: [`State::name`]. Nodes of newer releases may know more.
    pub state: String,
    /// The verdict, for people; begins with `in`, `out` or `chosen`.
    pub verdict: String,
    /// What this node saw of it; absent where no call went there from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// What the caller's node saw of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// The wait to expect, microseconds: the least wins. The sum of the next two.
    pub wait_us: u64,
    /// The part of the network: what the path costs, where the wait is not even that long. What is
    /// published of a path lags behind, and what was measured is what counts.
    pub network_us: u64,
    /// The part of the wait that is not the network: work, queue, and failures to be expected.
    pub load_us: u64,
    /// How long calls take there, network included, microseconds, smoothed from above; absent while
    /// none was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Calls there from this node.
    pub in_flight: u32,
    /// Calls there from others, as far as it was reported lately.
    pub others: u32,
    /// The share of calls that succeed, in percent, smoothed.
    pub success_percent: u8,
}

/// What happened to an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changed {
    /// How long ago.
    pub ago_ms: u64,
    /// The name of its node; empty where it is gone.
    pub node_name: String,
    /// Where it listens; empty where it is gone.
    pub address: String,
    /// What, for people.
    pub what: String,
}

/// What is spoken in a call that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// gRPC.
    Grpc,
    /// HTTP, or it is not known.
    Http,
}

impl Proxy {
    /// Why a call to `service` would go where it would go. Nothing is sent, and nothing changes.
    #[must_use]
    pub fn explain(
        &self,
        routes: &Routes,
        service: &str,
        view: &RequestView<'_>,
        spoken: Spoken,
        via: Option<&Via>,
    ) -> Explanation {
        self.0.explain(routes, service, view, spoken, via, None)
    }
}

impl Shared {
    /// [`Proxy::explain`] of a call that went to the instance with the key `chosen`.
    pub(crate) fn explain(
        &self,
        routes: &Routes,
        service: &str,
        view: &RequestView<'_>,
        spoken: Spoken,
        via: Option<&Via>,
        chosen: Option<u64>,
    ) -> Explanation {
        let at = tunnel::config::wall();
        let told = routes.explain(service, view, at);
        let name = |id: &proto::NodeId| match routes.node(id) {
            Some(node) if !node.name.is_empty() => node.name.clone(),
            Some(_) | None => id.short(),
        };
        let table = routes.service(service);
        let instances = table.map_or(&[][..], |table| &table.instances);
        let form = match spoken {
            Spoken::Grpc => Form::Grpc,
            // What speaks nothing else is asked about in what it speaks.
            Spoken::Http
                if instances
                    .iter()
                    .all(|one| matches!(one.protocol, Protocol::Tcp | Protocol::Tls)) =>
            {
                Form::Bytes
            }
            Spoken::Http if instances.iter().all(|one| one.protocol == Protocol::Udp) => {
                Form::Packets
            }
            Spoken::Http if instances.iter().all(|one| one.protocol == Protocol::Mucp) => {
                Form::Grpc
            }
            Spoken::Http => Form::Http,
        };
        let spoken_by = |one: &Instance| delivers(one.protocol, form);
        let on_way = |one: &Instance| via.is_none_or(|via| via.takes(one, routes));
        let fits = |one: &Instance| spoken_by(one) && unhealthy(one).is_none() && on_way(one);
        let decision = routes.decide(service, view, at);
        let (mut seen, mut wider) = (Vec::new(), Vec::new());
        let (changes, now) = self.balance.changes(service);
        if let Lookup::Found(found) = decision.lookup {
            let spill = decision.spill().map(|spill| (spill.above, spill.below));
            let pool = Pool::new(&found, fits).sticking(decision.affinity).spilling(spill);
            seen = self.balance.explain(&pool, chosen);
            if let Some(all) = found.widened() {
                wider = self.balance.explain(&Pool::new(&all, fits), chosen);
            }
        }
        let of = |key: u64| seen.iter().find(|one| one.key == key);
        let also = |key: u64| of(key).or_else(|| wider.iter().find(|one| one.key == key));
        let mut candidates = Vec::with_capacity(told.candidates.len());
        let mut states = Vec::with_capacity(told.candidates.len());
        for (one, instance) in told.candidates.iter().zip(instances) {
            let verdict = of(one.key.0).map(|considered| considered.verdict);
            let taken = chosen == Some(one.key.0);
            let (state, verdict) = if taken {
                (State::Chosen, "chosen".to_owned())
            } else if one.verdict.fits() && !spoken_by(instance) {
                (State::Protocol, said::undelivered(instance.protocol, spoken))
            } else if let Some(why) = unhealthy(instance).filter(|_| one.verdict.fits()) {
                (State::Unhealthy, format!("out: not well, {why}"))
            } else if let Some(via) = via.filter(|_| one.verdict.fits() && !on_way(instance)) {
                (State::OtherRoute, format!("out: not by {}", via.said()))
            } else {
                said::verdict(&one.verdict, verdict.as_ref(), also(one.key.0), now)
            };
            states.push(state);
            candidates.push(Candidate {
                instance: one.instance.clone(),
                address: one.address.clone(),
                node: one.node.to_string(),
                node_name: name(&one.node),
                cost_us: one.cost.is_finite().then(|| u64::from(one.cost.as_micros())),
                nearest: false,
                state: String::new(),
                verdict,
                load: also(one.key.0).map(|seen| load(seen, one.cost.as_micros())),
            });
        }
        mark_nearest(&mut candidates, &mut states, instances);
        let reason = match decision.lookup {
            Lookup::Unknown => Some(State::Unknown),
            Lookup::NoMatch(_) => Some(State::Lacks),
            Lookup::Unreachable(_) => Some(State::Unreachable),
            Lookup::Found(_) => none_of(&states, via.is_some()),
        };
        let changed = changes.iter().map(|change| {
            let known = instances.iter().find(|one| one.key.0 == change.key);
            Changed {
                ago_ms: millis(now.since(change.at)),
                node_name: known.map(|one| name(&one.node)).unwrap_or_default(),
                address: known.map(|one| one.address.to_string()).unwrap_or_default(),
                what: said::change(change.what),
            }
        });
        Explanation {
            service: told.service,
            asked: told.asked,
            revision: told.rules.map(|(revision, _)| revision),
            author: told.rules.map(|(_, author)| author.to_string()).unwrap_or_default(),
            author_name: told.rules.map(|(_, author)| name(&author)).unwrap_or_default(),
            rules: told.looked_at.into_iter().map(passed).collect(),
            subset: told.subset,
            diverted: told.diverted,
            narrowed: told.narrowed.into_iter().map(|by| Narrowed { by }).collect(),
            ignored: Vec::new(),
            candidates,
            exist: told.exist as u64,
            reason: reason.map(|reason| reason.name().to_owned()),
            none: told.mismatch.map(|mismatch| mismatch.to_string()),
            changed: changed.collect(),
        }
    }
}

/// Marks those that the call goes to one of: the nearest that take it; where none does, the nearest
/// of all that fit, for one of them is asked all the same.
fn mark_nearest(candidates: &mut [Candidate], states: &mut [State], instances: &[Instance]) {
    let group = |states: &[State], which: fn(State) -> bool| {
        let mut all = states.iter().zip(instances);
        all.find(|(state, _)| which(**state)).map(|(_, of)| of.group)
    };
    let (which, group): (fn(State) -> bool, _) = match group(states, State::takes) {
        Some(group) => (State::takes, Some(group)),
        None => (State::is_asked, group(states, State::is_asked)),
    };
    for ((one, state), of) in candidates.iter_mut().zip(states).zip(instances) {
        one.nearest = which(*state) && Some(of.group) == group;
        if one.nearest && *state == State::Farther {
            // Those before it are out.
            *state = State::Nearest;
            "in: the nearest left".clone_into(&mut one.verdict);
        }
        state.name().clone_into(&mut one.state);
    }
}

/// Why a call goes to none of the instances that were found; `None` where it goes to one. Of a larger
/// service only the nearest are known.
fn none_of(states: &[State], by_route: bool) -> Option<State> {
    let asked = || states.iter().filter(|state| state.is_asked() || **state == State::NotPreferred);
    match asked().next() {
        None if states.is_empty() => None,
        None if by_route => Some(State::OtherRoute),
        None => Some(State::Protocol),
        Some(_) => {
            asked().all(|state| *state == State::LimitReached).then_some(State::LimitReached)
        }
    }
}

fn passed(one: router::rules::Passed) -> Passed {
    let why = one.obstacle.unwrap_or_default().to_owned();
    Passed { rule: one.rule, matches: one.obstacle.is_none(), why }
}

fn load(seen: &Considered, network: u32) -> Load {
    let whole = |micros: f32| if micros.is_finite() { micros.max(0.0) as u64 } else { u64::MAX };
    let wait_us = whole(seen.wait);
    let network_us = wait_us.min(u64::from(network));
    Load {
        wait_us,
        network_us,
        load_us: wait_us - network_us,
        latency_us: (seen.latency > 0.0).then(|| whole(seen.latency)),
        in_flight: seen.in_flight,
        others: seen.others.round() as u32,
        success_percent: (seen.success * 100.0).round() as u8,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
