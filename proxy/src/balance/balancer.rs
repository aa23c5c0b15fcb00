//! The facade of the core: every instance that this node calls, by service.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::FixedState;
use proto::{ServiceName, Time};
use router::{Instance, ServiceRoutes};

use super::chance::Chance;
use super::draw::Pool;
use super::instance::Slot;
use super::recent::{Change, Fresh, What};
use super::service::Service;
use super::verdict::Considered;

/// Services that are remembered.
const MAX_SERVICES: usize = 1 << 14;
/// Instances that are remembered, 30 MB of them. Beyond it services without calls are forgotten,
/// the longest unused first. One service may have as many as the router has of it.
const MAX_SLOTS: usize = 1 << 18;

/// The choice among the instances of every service, on one node.
///
/// Invariant: a slot with calls in flight is never given to another instance, so the place in a
/// [`Ticket`] stays good until the ticket is given back.
#[derive(Debug)]
pub struct Balancer {
    pub(super) slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<u64, u32, FixedState>,
    pub(super) services: Vec<Service>,
    free_services: Vec<u32>,
    by_name: HashMap<ServiceName, u32, FixedState>,
    pub(super) chance: Chance,
    /// Calls at one instance at a time, from this node.
    pub(super) limit: u32,
    /// What changed since [`Balancer::fresh`] was called last.
    fresh: Fresh,
}

/// A call at an instance, from the choice until [`Balancer::leave`].
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) slot: u32,
    pub(super) began: Time,
    /// The breaker waits for what becomes of it.
    pub(super) probe: bool,
    /// Its outcome is known.
    pub(super) settled: bool,
}

impl Ticket {
    /// When the call was given to the instance.
    #[must_use]
    pub fn began(&self) -> Time {
        self.began
    }

    /// Whether its outcome is known: [`Balancer::leave`] then does not look at the time.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether it decides if the instance comes back.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// Why there is no instance for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChoice {
    /// None fits.
    None,
    /// Those that fit have this many calls from this node, which is the limit.
    Full(u32),
}

impl Balancer {
    /// A balancer that knows nothing, with at most `limit` calls at one instance.
    #[must_use]
    pub fn new(seed: u64, limit: u32) -> Self {
        let hasher = FixedState::with_seed(Chance::new(seed).draw());
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::with_hasher(hasher.clone()),
            services: Vec::new(),
            free_services: Vec::new(),
            by_name: HashMap::with_hasher(hasher),
            chance: Chance::new(seed),
            limit,
            fresh: Fresh::default(),
        }
    }

    /// An instance of `pool` for a call; a `first` attempt earns the service further ones. The call
    /// counts at the instance until its ticket is given back.
    ///
    /// # Errors
    /// [`NoChoice`] when there is none.
    pub fn choose<'a>(
        &mut self,
        pool: &Pool<'a, impl Fn(&Instance) -> bool>,
        first: bool,
        now: Time,
    ) -> Result<(&'a Instance, Ticket), NoChoice> {
        let service = self.in_step(pool.table(), now);
        self.services[service as usize].used = now;
        if first {
            self.services[service as usize].budget.call(now);
        }
        let (at, probe) = self.draw(service, pool, now)?;
        let slot = self.services[service as usize].slots[at];
        Ok((&pool.table().instances[at], self.enter(slot, probe, now)))
    }

    /// A call that was chosen elsewhere, at the instance with this key.
    ///
    /// # Errors
    /// [`NoChoice::None`] for an instance that is not known: see [`Balancer::keep_in_step`].
    pub fn take(&mut self, key: u64, now: Time) -> Result<Ticket, NoChoice> {
        let Some(&slot) = self.by_key.get(&key) else { return Err(NoChoice::None) };
        if self.slots[slot as usize].in_flight >= self.limit {
            return Err(NoChoice::Full(self.limit));
        }
        Ok(self.enter(slot, false, now))
    }

    /// Learns the instances of a service.
    pub fn keep_in_step(&mut self, table: &ServiceRoutes, now: Time) {
        self.in_step(table, now);
    }

    /// Takes one further attempt out of the budget of the service; `false`: there is none, and the
    /// call fails with the error it has.
    pub fn may_try_again(&mut self, ticket: &Ticket) -> bool {
        let service = self.slots[ticket.slot as usize].service;
        self.services[service as usize].budget.spend()
    }

    /// After how long without an answer a second instance may be asked as well, if the call is
    /// idempotent; `None` as long as too little is known of the service.
    #[must_use]
    pub fn hedge_after(&self, ticket: &Ticket) -> Option<Duration> {
        let service = self.slots[ticket.slot as usize].service;
        self.services[service as usize].p95.value()
    }

    /// The share of the calls meant for the locality `group` of a service that goes on to the next.
    #[must_use]
    pub fn spill(&self, service: &ServiceName, group: u32) -> f32 {
        let service = self.by_name.get(service).map(|at| &self.services[*at as usize]);
        let group = service.and_then(|service| service.groups.iter().find(|g| g.id == group));
        group.map_or(0.0, |group| group.spill.share())
    }

    /// What is said of every candidate of `pool` if `chosen` takes the call (nearest first, at most
    /// [`super::draw::SCAN`]). Computed when asked; changes nothing.
    #[must_use]
    pub fn explain(
        &self,
        pool: &Pool<'_, impl Fn(&Instance) -> bool>,
        chosen: Option<u64>,
        now: Time,
    ) -> Vec<Considered> {
        let service = self.by_name.get(&pool.table().name);
        service.map_or_else(Vec::new, |service| self.verdicts(*service, pool, chosen, now))
    }

    /// What changed last among the instances of a service, the latest first; at most eight.
    #[must_use]
    pub fn changes(&self, service: &str) -> Vec<Change> {
        let service = self.by_name.get(service).map(|at| &self.services[*at as usize]);
        service.map_or_else(Vec::new, |service| service.recent.latest().collect())
    }

    /// Whether calls of the service went through here.
    pub(super) fn knows(&self, service: &str) -> bool {
        self.by_name.contains_key(service)
    }

    /// How much changed since this was called last.
    pub fn fresh(&mut self) -> Fresh {
        std::mem::take(&mut self.fresh)
    }

    /// Takes note of a change.
    pub(super) fn note(&mut self, service: u32, key: u64, what: What, now: Time) {
        self.services[service as usize].recent.note(key, what, now);
        self.fresh.count(what);
    }

    fn enter(&mut self, at: u32, probe: bool, now: Time) -> Ticket {
        let slot = &mut self.slots[at as usize];
        slot.enter(now);
        self.services[slot.service as usize].in_flight += 1;
        if probe {
            slot.breaker.begin_probe();
        }
        Ticket { slot: at, began: now, probe, settled: false }
    }

    /// Forgets what a slot held, once neither a table nor a call needs it.
    pub(super) fn release(&mut self, at: u32) {
        let slot = &self.slots[at as usize];
        if !slot.listed && slot.in_flight == 0 {
            self.free.push(at);
        }
    }

    /// The place of the service, with a slot for each instance of `table`. When nothing changed
    /// that is one lookup: of the first instance, whose slot knows its service.
    fn in_step(&mut self, table: &ServiceRoutes, now: Time) -> u32 {
        let first = table.instances.first();
        let known = first.and_then(|instance| self.by_key.get(&instance.key.0));
        if let Some(slot) = known {
            let at = self.slots[*slot as usize].service;
            let service = &self.services[at as usize];
            if service.changed == table.changed && service.slots.len() == table.instances.len() {
                return at;
            }
        }
        self.bring_in_step(table, now)
    }

    #[cold]
    fn bring_in_step(&mut self, table: &ServiceRoutes, now: Time) -> u32 {
        let at = match self.by_name.get(&table.name) {
            Some(at) => *at,
            None => {
                self.make_room(table.instances.len());
                let service = Service::new(table.name.clone(), now);
                let at = match self.free_services.pop() {
                    Some(at) => {
                        self.services[at as usize] = service;
                        at
                    }
                    None => {
                        self.services.push(service);
                        self.services.len() as u32 - 1
                    }
                };
                self.by_name.insert(table.name.clone(), at);
                at
            }
        };
        let service = &mut self.services[at as usize];
        // What was there when the node first looked is not new, only unknown.
        let begun = !service.slots.is_empty();
        let before = std::mem::take(&mut service.slots);
        for slot in &before {
            self.slots[*slot as usize].listed = false;
        }
        let mut slots = Vec::with_capacity(table.instances.len());
        for instance in table.instances.iter() {
            if begun && !self.by_key.contains_key(&instance.key.0) {
                self.note(at, instance.key.0, What::Came, now);
            }
            let slot = self.slot(instance, at, begun, now);
            self.slots[slot as usize].listed = true;
            self.slots[slot as usize].group = instance.group;
            slots.push(slot);
        }
        for slot in before {
            if !self.slots[slot as usize].listed {
                let key = self.slots[slot as usize].key;
                if self.by_key.get(&key) == Some(&slot) {
                    self.by_key.remove(&key);
                }
                self.note(at, key, What::Went, now);
                self.release(slot);
            }
        }
        let service = &mut self.services[at as usize];
        service.slots = slots;
        service.changed = table.changed;
        service.regroup(table);
        self.recount(at);
        at
    }

    /// The slot of an instance: the one it has, or a new one.
    fn slot(&mut self, instance: &Instance, service: u32, begun: bool, now: Time) -> u32 {
        let key = instance.key.0;
        if let Some(slot) = self.by_key.get(&key) {
            return *slot;
        }
        let mut slot = Slot::new(key, service, instance.group, now);
        if begun {
            slot.warm_up(now);
        }
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.by_key.insert(key, at);
        at
    }

    /// How many instances are out; by counting, after the table changed.
    fn recount(&mut self, at: u32) {
        let service = &mut self.services[at as usize];
        (service.ejected, service.refusing) = (0, 0);
        for slot in &service.slots[..service.members as usize] {
            match self.slots[*slot as usize].breaker.why() {
                Some(why) if why.is_ejection() => service.ejected += 1,
                Some(_) => service.refusing += 1,
                None => {}
            }
        }
    }

    /// Forgets services without calls, the longest unused first, until there is room for another
    /// one with `wanted` instances.
    fn make_room(&mut self, wanted: usize) {
        let is_room = |this: &Self| {
            this.slots.len() - this.free.len() + wanted <= MAX_SLOTS
                && this.by_name.len() < MAX_SERVICES
        };
        if is_room(self) {
            return;
        }
        let mut by_use: Vec<(Time, ServiceName)> =
            self.services.iter().map(|service| (service.used, service.name.clone())).collect();
        by_use.sort_unstable();
        for (_, name) in by_use {
            if is_room(self) {
                return;
            }
            let Some(&at) = self.by_name.get(&name) else { continue };
            if self.services[at as usize].in_flight > 0 {
                continue;
            }
            for slot in std::mem::take(&mut self.services[at as usize].slots) {
                self.slots[slot as usize].listed = false;
                self.by_key.remove(&self.slots[slot as usize].key);
                self.release(slot);
            }
            self.by_name.remove(&name);
            self.free_services.push(at);
        }
    }
}
