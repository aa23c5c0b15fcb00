//! Why an instance was chosen, or not: one value for `why`, errors and metrics.

use proto::Time;
use router::Instance;

use super::balancer::Balancer;
use super::breaker::{State, Why};
use super::draw::{Pool, Ready, SCAN};

/// What is said of one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It takes the call.
    Chosen,
    /// It could, and the wait to expect is longer, or chance drew others.
    Busier,
    /// It is out until then.
    Out {
        /// Until when.
        until: Time,
        /// Why.
        why: Why,
    },
    /// One call is finding out whether it is back.
    HalfOpen {
        /// Why it was out.
        why: Why,
    },
    /// The next call to it finds out whether it is back.
    ProbeDue {
        /// Why it was out.
        why: Why,
    },
    /// It has as many calls as it may.
    LimitReached,
    /// Nearer ones take this part of the calls.
    OtherLocality {
        /// Its locality.
        group: u32,
        /// The part of the calls for nearer localities that spills over to this one, 0 to 1.
        spilled: f32,
    },
    /// It is new or came back, and takes part in this share of the draws.
    SlowStart {
        /// 0.1 to 1.
        share: f32,
    },
}

/// One candidate with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Considered {
    /// The key of the instance.
    pub key: u64,
    /// What is said of it.
    pub verdict: Verdict,
    /// The wait to expect, microseconds: the latency, for each call before this one, and more if
    /// calls fail. The least wins.
    pub wait: f32,
    /// How long calls take there, network included, microseconds; 0: none was measured.
    pub latency: f32,
    /// The share of calls that succeed, smoothed, 0 to 1.
    pub success: f32,
    /// Failures since the last success.
    pub failures: u32,
    /// Calls that this node allows there at a time.
    pub limit: u32,
    /// Calls there from this node.
    pub in_flight: u32,
    /// Calls there from others, as far as it was reported lately.
    pub others: f32,
}

impl Balancer {
    pub(super) fn verdicts(
        &self,
        service: u32,
        pool: &Pool<'_, impl Fn(&Instance) -> bool>,
        chosen: Option<u64>,
        now: Time,
    ) -> Vec<Considered> {
        let known = &self.services[service as usize];
        if known.slots.len() != pool.table().instances.len() {
            // Not looked at since the table changed.
            return Vec::new();
        }
        let taken = pool.all().find(|at| Some(pool.table().instances[*at].key.0) == chosen);
        let nearest = pool.all().next().map(|at| pool.table().instances[at].group);
        let all = pool
            .all()
            .take(SCAN)
            .chain(taken.filter(|at| pool.all().take(SCAN).all(|other| other != *at)));
        all.map(|at| {
            let slot = self.slot_of(service, at);
            let group = pool.table().instances[at].group;
            let share = slot.share(now);
            let verdict = match (slot.breaker.state(), self.ready(service, at, now)) {
                _ if taken == Some(at) => Verdict::Chosen,
                (State::Out { why, .. }, Ready::Probe) => Verdict::ProbeDue { why },
                (State::Out { until, why, .. }, Ready::Out) => Verdict::Out { until, why },
                (State::Probing { why }, Ready::Out) => Verdict::HalfOpen { why },
                (_, Ready::Full) => Verdict::LimitReached,
                _ if nearest.is_some_and(|nearest| group > nearest) => {
                    let nearer = known.groups.iter().take_while(|other| other.id < group);
                    let spilled = nearer.map(|group| group.spill.share()).product();
                    Verdict::OtherLocality { group, spilled }
                }
                _ if share < 1.0 => Verdict::SlowStart { share },
                _ => Verdict::Busier,
            };
            Considered {
                key: slot.key,
                verdict,
                wait: slot.cost(known.typical, now),
                latency: slot.latency.seen(known.typical, now),
                success: slot.success(now),
                failures: slot.consecutive,
                limit: self.limit,
                in_flight: slot.in_flight,
                others: slot.others(now),
            }
        })
        .collect()
    }
}
