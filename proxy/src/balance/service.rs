//! What is known of one service, kept in step with the table that is published.

use proto::{ServiceName, Time};
use router::ServiceRoutes;
use smallvec::SmallVec;

use super::budget::RetryBudget;
use super::instance::Outcomes;
use super::latency::P95;
use super::locality::Spill;
use super::recent::Recent;

/// The latency a service is believed to have before it has shown one, in microseconds.
const UNKNOWN: f32 = 1_000.0;
/// One part of the new in the smoothed latency.
const TYPICAL_PART: f32 = 1.0 / 32.0;
/// Localities that are told apart; what is farther counts as the last of them. There are ten.
pub(super) const MAX_GROUPS: usize = 16;
/// Below a third of its instances a service is in panic: judgements are set aside, for the rest
/// would be overrun by the calls of all.
const PANIC: u32 = 3;

/// One service, as calls from here see it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: ServiceName,
    /// Calls at its instances, those that left the table included.
    pub(super) in_flight: u32,
    /// The generation of the table that this is in step with.
    pub(super) changed: u64,
    /// Places of the slots, in the order of the table's instances; unreachable ones too.
    pub(super) slots: Vec<u32>,
    pub(super) groups: SmallVec<[Group; 4]>,
    /// Instances that can be reached, and those of them that are out by judgement or by fact.
    pub(super) members: u32,
    pub(super) ejected: u32,
    pub(super) refusing: u32,
    /// Smoothed latency, microseconds.
    pub(super) typical: f32,
    /// Smoothed wait that was expected of the instances chosen, microseconds.
    pub(super) usual: f32,
    pub(super) p95: P95,
    pub(super) budget: RetryBudget,
    pub(super) outcomes: Outcomes,
    /// Changes with each success: two failures with the same number have none between them.
    pub(super) run: u32,
    pub(super) used: Time,
    pub(super) recent: Recent,
}

/// The instances of one locality: a range of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) id: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) spill: Spill,
}

impl Service {
    pub(super) fn new(name: ServiceName, now: Time) -> Self {
        Self {
            name,
            in_flight: 0,
            changed: u64::MAX,
            slots: Vec::new(),
            groups: SmallVec::new(),
            members: 0,
            ejected: 0,
            refusing: 0,
            typical: UNKNOWN,
            usual: UNKNOWN,
            p95: P95::default(),
            budget: RetryBudget::new(now),
            outcomes: Outcomes::default(),
            run: 1,
            used: now,
            recent: Recent::default(),
        }
    }

    /// Whether too few are left.
    pub(super) fn is_in_panic(&self) -> bool {
        let healthy = self.members.saturating_sub(self.ejected + self.refusing);
        healthy * PANIC < self.members
    }

    /// Whether one more may be ejected: never more than half of all, whatever the reason they are
    /// out, and so never the last.
    pub(super) fn may_eject(&self) -> bool {
        (self.ejected + self.refusing + 1) * 2 <= self.members
    }

    /// Takes note of a latency.
    pub(super) fn observe(&mut self, micros: f32) {
        self.typical += (micros - self.typical) * TYPICAL_PART;
    }

    /// Takes note of the wait that is expected of an instance that was chosen.
    pub(super) fn chose(&mut self, cost: f32) {
        self.usual += (cost - self.usual) * TYPICAL_PART;
    }

    /// The localities of `table`, each with the share it had.
    pub(super) fn regroup(&mut self, table: &ServiceRoutes) {
        let before = std::mem::take(&mut self.groups);
        let reachable = table.reachable();
        let mut start = 0;
        while start < reachable.len() {
            let id = reachable[start].group;
            let last = self.groups.len() + 1 == MAX_GROUPS;
            let length = reachable[start..].partition_point(|next| last || next.group == id);
            let spill = before.iter().find(|group| group.id == id);
            self.groups.push(Group {
                id,
                start: start as u32,
                end: (start + length) as u32,
                spill: spill.map_or_else(Spill::default, |group| group.spill),
            });
            start += length;
        }
        self.members = reachable.len() as u32;
    }

    pub(super) fn group_mut(&mut self, id: u32) -> Option<&mut Group> {
        self.groups.iter_mut().find(|group| group.id == id)
    }
}
