//! Who chooses: the balancer of production, or what it is compared with.

use proto::Time;
use proxy::balance::{Balancer, Chance, Outcome, Pool, Report, Ticket};
use router::{Candidates, Instance, InstanceKey};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    RoundRobin,
    Random,
    /// Knows every queue and every ailment, and sends each call where it waits least.
    Oracle,
}

/// The choice of one caller.
pub(crate) enum Policy {
    Ours(Box<Balancer>),
    RoundRobin(usize),
    Random(Chance),
    Oracle(usize),
}

/// A call at an instance, to be told how it ended.
pub(crate) struct At {
    pub(crate) key: u64,
    ticket: Option<Ticket>,
}

impl Policy {
    pub(crate) fn new(kind: Kind, seed: u64, limit: u32) -> Self {
        match kind {
            Kind::Ours => Self::Ours(Box::new(Balancer::new(seed, limit))),
            Kind::RoundRobin => Self::RoundRobin(seed as usize % 1_000),
            Kind::Random => Self::Random(Chance::new(seed)),
            Kind::Oracle => Self::Oracle(seed as usize % 1_000),
        }
    }

    pub(crate) fn choose(
        &mut self,
        candidates: &Candidates<'_>,
        tried: &[u64],
        instances: &[crate::instance::Instance],
        now: Time,
    ) -> Option<At> {
        let all = candidates.service().reachable();
        let at = match self {
            Self::Ours(balancer) => {
                let pool = Pool::new(candidates, |i: &Instance| !tried.contains(&i.key.0));
                let (found, ticket) = balancer.choose(&pool, tried.is_empty(), now).ok()?;
                return Some(At { key: found.key.0, ticket: Some(ticket) });
            }
            Self::RoundRobin(next) => {
                let fresh = |_: &usize| {
                    *next += 1;
                    !tried.contains(&all[*next % all.len()].key.0)
                };
                (0..all.len()).find(fresh);
                *next % all.len()
            }
            Self::Random(chance) => {
                let mut drawn = std::iter::repeat_with(|| chance.draw() as usize % all.len());
                drawn.find(|at| !tried.contains(&all[*at].key.0))?
            }
            Self::Oracle(next) => {
                *next += 1;
                let wait = |at: &usize| {
                    let instance = &instances[all[*at].key.0 as usize];
                    (instance.wait(now.as_micros()), (*at + *next) % all.len())
                };
                (0..all.len()).min_by_key(wait)?
            }
        };
        let InstanceKey(key) = all[at].key;
        Some(At { key, ticket: None })
    }

    /// Whether a call that failed at `at` may be tried again. The others get what ours would get by
    /// an ordinary rule: always, up to the number of attempts.
    pub(crate) fn may_try_again(&mut self, at: &At) -> bool {
        match (self, &at.ticket) {
            (Self::Ours(balancer), Some(ticket)) => balancer.may_try_again(ticket),
            _ => true,
        }
    }

    pub(crate) fn ended(&mut self, mut at: At, outcome: Outcome, report: Report, now: Time) {
        if let (Self::Ours(balancer), Some(mut ticket)) = (self, at.ticket.take()) {
            let told = matches!(outcome, Outcome::Answered | Outcome::Failed).then_some(report);
            balancer.settle(&mut ticket, outcome, told, now);
            balancer.leave(ticket, now);
        }
    }
}
