//! What an outcome changes.

use proto::Time;

use super::balancer::{Balancer, Ticket};
use super::breaker::{State, Why};
use super::latency::micros;
use super::recent::What;

/// What became of a call at an instance, once it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Answered,
    /// It answered that it cannot, or was lost in the middle.
    Failed,
    /// It certainly has not seen the call.
    Refused,
    /// It refused for having too much to do.
    Busy,
    /// It did not answer within the caller's deadline. A failure only if that was longer than calls
    /// take: callers without patience must not make an instance look bad.
    TimedOut,
}

/// The load of an instance, as its own node tells it with an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Calls at the instance, of all callers.
    pub in_flight: u32,
    /// How many it may have.
    pub limit: u32,
}

impl From<proto::exchange::Load> for Report {
    fn from(load: proto::exchange::Load) -> Self {
        Self { in_flight: load.in_flight, limit: load.limit }
    }
}

impl From<Report> for proto::exchange::Load {
    fn from(report: Report) -> Self {
        Self { in_flight: report.in_flight, limit: report.limit }
    }
}

impl Balancer {
    /// Takes note of what became of a call; gives the load of the instance as this node counts it.
    pub fn settle(
        &mut self,
        ticket: &mut Ticket,
        outcome: Outcome,
        report: Option<Report>,
        now: Time,
    ) -> Report {
        let slot = &mut self.slots[ticket.slot as usize];
        let own = Report { in_flight: slot.in_flight, limit: self.limit };
        if ticket.settled {
            return own;
        }
        ticket.settled = true;
        slot.heard(now);
        let probe = std::mem::take(&mut ticket.probe);
        let took = now.since(ticket.began);
        let service = &mut self.services[slot.service as usize];
        if let Some(report) = report {
            slot.report(report, took, now);
        }
        let failed = outcome == Outcome::TimedOut && service.p95.value().is_some_and(|p| took > p);
        match outcome {
            Outcome::TimedOut if !failed => slot.latency.at_least(took, service.typical, now),
            Outcome::Answered => {
                slot.latency.observe(took, service.typical, now);
                slot.succeeded(now);
                slot.outcomes.count(false, now);
                service.observe(micros(took));
                service.p95.observe(took);
                service.outcomes.count(false, now);
                service.budget.success();
                service.run = service.run.wrapping_add(1);
                let told = report.unwrap_or(own);
                if let Some(group) = service.group_mut(slot.group) {
                    group.spill.observe(told.in_flight as f32 / told.limit.max(1) as f32, now);
                }
                self.succeeded(ticket.slot, probe, ticket.began, now);
            }
            Outcome::Failed | Outcome::TimedOut => {
                slot.latency.at_least(took, service.typical, now);
                slot.failed(now);
                slot.outcomes.count(true, now);
                service.outcomes.count(true, now);
                let of_others = slot.outcomes.share_of_others(&service.outcomes);
                let why = if slot.consecutive >= in_a_row(of_others) {
                    Some(Why::Consecutive)
                } else {
                    let worse = slot.outcomes.are_far_worse(&service.outcomes);
                    worse.then_some(Why::SuccessRate)
                };
                self.failed(ticket.slot, probe, why, now);
            }
            Outcome::Refused => {
                slot.failed(now);
                self.failed(ticket.slot, probe, Some(Why::Refused), now);
            }
            Outcome::Busy => {
                if report.is_none() {
                    slot.busy(now);
                }
                if probe {
                    // It is there, and says so.
                    self.succeeded(ticket.slot, probe, ticket.began, now);
                }
            }
        }
        own
    }

    /// Gives a ticket back: one call less. Without an outcome the caller gave the call up.
    pub fn leave(&mut self, ticket: Ticket, now: Time) {
        let slot = &mut self.slots[ticket.slot as usize];
        slot.in_flight -= 1;
        let service = &mut self.services[slot.service as usize];
        service.in_flight -= 1;
        if !ticket.settled {
            slot.heard(now);
            // Longer than this it would have taken; an instance that never answers is found out.
            slot.latency.at_least(now.since(ticket.began), service.typical, now);
        }
        if ticket.probe {
            slot.breaker.lose_probe(now);
        }
        self.release(ticket.slot);
    }

    fn succeeded(&mut self, at: u32, probe: bool, began: Time, now: Time) {
        let slot = &mut self.slots[at as usize];
        let back = match slot.breaker.state() {
            State::Closed => return,
            // A call that was on its way before says nothing about now.
            State::Out { since, .. } => began >= since,
            State::Probing { .. } => probe,
        };
        if !back {
            return;
        }
        let why = slot.breaker.why();
        slot.breaker.close(now);
        slot.outcomes.clear();
        slot.warm_up(now);
        let (at, key) = (slot.service, slot.key);
        let service = &mut self.services[at as usize];
        if slot.listed {
            count(service, why, -1);
        }
        self.note(at, key, What::Back, now);
    }

    fn failed(&mut self, at: u32, probe: bool, why: Option<Why>, now: Time) {
        let slot = &mut self.slots[at as usize];
        let service = &mut self.services[slot.service as usize];
        if slot.run != service.run {
            slot.run = service.run;
            service.budget.further_failure(service.members);
        }
        let before = slot.breaker.why();
        let open = match slot.breaker.state() {
            State::Closed => why.filter(|why| !why.is_ejection() || service.may_eject()),
            State::Probing { why: before } if probe => Some(why.unwrap_or(before)),
            State::Probing { .. } | State::Out { .. } => None,
        };
        let Some(why) = open else { return };
        let spread = (self.chance.draw() >> 40) as f32 / (1_u32 << 24) as f32;
        slot.breaker.open(why, spread, now);
        if slot.listed {
            count(service, before, -1);
            count(service, Some(why), 1);
        }
        let (at, key, failures) = (slot.service, slot.key, slot.consecutive);
        self.note(at, key, What::Out { why, failures }, now);
    }
}

/// Counts one instance more or less that is out for this reason.
fn count(service: &mut super::service::Service, why: Option<Why>, by: i32) {
    let counter = match why {
        Some(why) if why.is_ejection() => &mut service.ejected,
        Some(_) => &mut service.refusing,
        None => return,
    };
    *counter = counter.saturating_add_signed(by);
}

/// Failures in a row that eject an instance, by the share of the others' calls that fail: so many
/// that chance makes them once in ten thousand. Five at most, Envoy's number, and before it is known.
fn in_a_row(of_others: Option<f32>) -> u32 {
    match of_others {
        Some(share) if share < 0.05 => 3,
        Some(share) if share < 0.1 => 4,
        Some(_) | None => 5,
    }
}
