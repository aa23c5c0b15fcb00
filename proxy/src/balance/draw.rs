//! Two random choices, in the nearest locality that can take the call.

use std::ops::Range;

use proto::Time;
use router::{Candidates, Instance, ServiceRoutes};

use super::balancer::{Balancer, NoChoice};
use super::breaker::State;
use super::service::Group;

/// Instances drawn before all of a locality are looked at. Of two draws that fail the third and
/// fourth rarely do, unless most are out.
const DRAWS: usize = 6;
/// When both of two drawn are this much worse than what is usually chosen, another is drawn: with a
/// tenth of all instances slow, one call in a hundred would go to one of two slow ones. Waits of well
/// ones differ by about as much.
const FAR_WORSE: f32 = 2.5;
/// Instances looked at when drawing finds none, and in an explanation.
pub(super) const SCAN: usize = 256;

/// The instances a call may go to: those of `candidates` that `fits` accepts.
///
/// The one place that knows how candidates lie in their table.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a, F> {
    candidates: Candidates<'a>,
    table: &'a ServiceRoutes,
    /// The locality of the nearest.
    nearest: u32,
    /// Calls of one number go to one instance, while it takes them.
    affinity: Option<u64>,
    /// Loads, in percent, from which on and below which calls spill over.
    spill: Option<(u8, u8)>,
    fits: F,
}

impl<'a, F: Fn(&Instance) -> bool> Pool<'a, F> {
    /// Those of `candidates` that `fits` accepts.
    pub fn new(candidates: &Candidates<'a>, fits: F) -> Self {
        let (table, nearest) = (candidates.service(), candidates.first().group);
        Self { candidates: *candidates, table, nearest, affinity: None, spill: None, fits }
    }

    /// With calls of this number going to the same instance.
    #[must_use]
    pub fn sticking(self, affinity: Option<u64>) -> Self {
        Self { affinity, ..self }
    }

    /// With these loads, in percent, as those above and below which more and fewer spill over.
    #[must_use]
    pub fn spilling(self, spill: Option<(u8, u8)>) -> Self {
        Self { spill, ..self }
    }

    /// Whether the instance at this place of the table is one of them.
    fn has(&self, at: usize) -> bool {
        self.candidates.has(at) && (self.fits)(&self.table.instances[at])
    }

    pub(super) fn table(&self) -> &'a ServiceRoutes {
        self.table
    }

    /// The first in `range` that fits, from a place that `chance` chooses evenly, going round.
    fn pick(&self, range: &Range<usize>, chance: u64) -> Option<usize> {
        let start = ((u128::from(chance) * range.len() as u128) >> 64) as usize + range.start;
        self.next(range, start)
    }

    /// The first that fits from `start` on, going round `range`.
    fn next(&self, range: &Range<usize>, start: usize) -> Option<usize> {
        let fits = |at: &usize| self.has(*at);
        (start..range.end).find(fits).or_else(|| (range.start..start.min(range.end)).find(fits))
    }

    /// Places of all that fit, nearest first.
    pub(super) fn all(&self) -> impl Iterator<Item = usize> {
        (0..self.table.reachable().len()).filter(|at| self.has(*at))
    }
}

/// Whether an instance takes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Yes,
    /// It is out, and this call may find out whether it is back.
    Probe,
    Out,
    Full,
}

impl Balancer {
    /// Which instance of `pool`, by its place in the table, and whether the call is a probe.
    pub(super) fn draw(
        &mut self,
        service: u32,
        pool: &Pool<'_, impl Fn(&Instance) -> bool>,
        now: Time,
    ) -> Result<(usize, bool), NoChoice> {
        if let Some(found) = pool.affinity.and_then(|key| self.stick(service, pool, key, now)) {
            return Ok(found);
        }
        // With the spill of each locality, then without: farther ones may have nothing that fits.
        for spills in [true, false] {
            let count = self.services[service as usize].groups.len();
            let mut spilled = false;
            for at in 0..count {
                let group = &mut self.services[service as usize].groups[at];
                if group.id < pool.nearest {
                    continue;
                }
                group.spill.set(pool.spill);
                let group = *group;
                let share = group.spill.share();
                if spills && share > 0.0 && at + 1 < count && self.chance.hits(share) {
                    spilled = true;
                    continue;
                }
                if let Some(found) = self.draw_in(service, &group, pool, now) {
                    return Ok(found);
                }
            }
            if !spilled {
                break;
            }
        }
        self.last_resort(service, pool)
    }

    /// Of those that take a call the one that `key` and its own key together like best (highest
    /// random weight, Thaler and Ravishankar 1998): when one goes, only its keys move.
    #[cold]
    fn stick(
        &self,
        service: u32,
        pool: &Pool<'_, impl Fn(&Instance) -> bool>,
        key: u64,
        now: Time,
    ) -> Option<(usize, bool)> {
        let ready = pool.all().take(SCAN).filter(|at| self.ready(service, *at, now) == Ready::Yes);
        let liking = |at: &usize| proto::rule::mix(key ^ pool.table.instances[*at].key.0);
        ready.max_by_key(liking).map(|at| (at, false))
    }

    fn draw_in(
        &mut self,
        service: u32,
        group: &Group,
        pool: &Pool<'_, impl Fn(&Instance) -> bool>,
        now: Time,
    ) -> Option<(usize, bool)> {
        let range = group.start as usize..group.end as usize;
        // The best so far, and how many were drawn that could take the call.
        let mut one: Option<usize> = None;
        let (mut least, mut drawn) = (f32::INFINITY, 0);
        for _ in 0..DRAWS {
            let chance = self.chance.draw();
            let mut at = pool.pick(&range, chance)?;
            if one == Some(at) {
                at = pool.next(&range, at + 1)?;
                if one == Some(at) {
                    break;
                }
            }
            match self.ready(service, at, now) {
                Ready::Yes => {}
                Ready::Probe => return Some((at, true)),
                Ready::Out | Ready::Full => continue,
            }
            let share = self.slot_of(service, at).share(now);
            if share < 1.0 && !self.chance.hits(share) {
                continue;
            }
            let known = &self.services[service as usize];
            let cost = self.slot_of(service, at).cost(known.typical, now);
            drawn += 1;
            if cost < least {
                (one, least) = (Some(at), cost);
            }
            if drawn >= 2 && least <= FAR_WORSE * known.usual {
                break;
            }
        }
        let Some(one) = one else { return self.scan(service, &range, pool, now) };
        self.services[service as usize].chose(least);
        Some((one, false))
    }

    /// The best of the locality, when drawing found none: from a random place, so that what lies
    /// behind the bound is found by another call.
    #[cold]
    fn scan(
        &mut self,
        service: u32,
        range: &Range<usize>,
        pool: &Pool<'_, impl Fn(&Instance) -> bool>,
        now: Time,
    ) -> Option<(usize, bool)> {
        let start = pool.pick(range, self.chance.draw())?;
        let round = (start..range.end).chain(range.start..start);
        let typical = self.services[service as usize].typical;
        let mut best: Option<(usize, f32)> = None;
        for at in round.filter(|at| pool.has(*at)).take(SCAN) {
            match self.ready(service, at, now) {
                Ready::Yes => {
                    let cost = self.slot_of(service, at).cost(typical, now);
                    if best.is_none_or(|(_, least)| cost < least) {
                        best = Some((at, cost));
                    }
                }
                Ready::Probe => return Some((at, true)),
                Ready::Out | Ready::Full => {}
            }
        }
        best.map(|(at, _)| (at, false))
    }

    /// None is ready: any of the nearest that is below our own limit, rather than an error. What it
    /// reported or refused may be over; if not, it says so.
    #[cold]
    fn last_resort(
        &mut self,
        service: u32,
        pool: &Pool<'_, impl Fn(&Instance) -> bool>,
    ) -> Result<(usize, bool), NoChoice> {
        let mut none = NoChoice::None;
        for at in 0..self.services[service as usize].groups.len() {
            let group = self.services[service as usize].groups[at];
            let range = group.start as usize..group.end as usize;
            let Some(start) = pool.pick(&range, self.chance.draw()) else { continue };
            let round = (start..range.end).chain(range.start..start);
            for at in round.filter(|at| pool.has(*at)).take(SCAN) {
                if self.slot_of(service, at).in_flight < self.limit {
                    return Ok((at, false));
                }
                none = NoChoice::Full(self.limit);
            }
        }
        Err(none)
    }

    pub(super) fn ready(&self, service: u32, at: usize, now: Time) -> Ready {
        let slot = self.slot_of(service, at);
        match slot.breaker.state() {
            State::Closed => {}
            State::Out { why, .. } | State::Probing { why }
                if why.is_ejection() && self.services[service as usize].is_in_panic() => {}
            State::Out { until, .. } if until <= now => return Ready::Probe,
            State::Out { .. } | State::Probing { .. } => return Ready::Out,
        }
        if slot.is_full(self.limit, now) { Ready::Full } else { Ready::Yes }
    }

    pub(super) fn slot_of(&self, service: u32, at: usize) -> &super::instance::Slot {
        &self.slots[self.services[service as usize].slots[at] as usize]
    }
}
