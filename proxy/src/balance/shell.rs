//! The core as the data plane has it: with the time, behind one lock that is held for a choice.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use proto::Time;
use router::{Instance, ServiceRoutes};

use super::{
    Admission, Balancer, Chance, Change, Considered, Fresh, NoChoice, Outcome, Pool, RateTable,
    Report, Saturation, Ticket,
};
use crate::error::Error;
use crate::metrics::Instances;

/// How often the loop is measured while it is not saturated: once in so many calls.
const MEASURED: u32 = 64;
/// Keys of rate limits that are told apart at a time.
const RATED: usize = 8_192;

/// The choice among instances. A handle.
#[derive(Clone)]
pub(crate) struct Balance(Arc<Inner>);

struct Inner {
    core: Mutex<Balancer>,
    start: Instant,
    loop_: Mutex<(Saturation, Chance)>,
    /// Made with the first limit: most nodes have none.
    rates: OnceLock<Mutex<RateTable>>,
    seed: u64,
    throws: AtomicU64,
    saturated: AtomicBool,
    measuring: AtomicBool,
    calls: AtomicU32,
    /// Where it is counted how often instances were put out and came back.
    counted: Instances,
}

/// A call at an instance; counted until dropped.
pub(crate) struct AtInstance {
    balance: Balance,
    ticket: Option<Ticket>,
}

impl Balance {
    /// At most `limit` calls at one instance.
    pub(crate) fn new(limit: u32, counted: Instances) -> Self {
        let seed = std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), 7);
        Self(Arc::new(Inner {
            core: Mutex::new(Balancer::new(seed, limit)),
            start: Instant::now(),
            loop_: Mutex::new((Saturation::default(), Chance::new(!seed))),
            rates: OnceLock::new(),
            seed,
            throws: AtomicU64::new(seed),
            saturated: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            calls: AtomicU32::new(0),
            counted,
        }))
    }

    fn now(&self) -> Time {
        let passed = self.0.start.elapsed();
        Time::from_micros(passed.as_secs() * 1_000_000 + u64::from(passed.subsec_micros()))
    }

    /// Looks into the table of rate limits.
    pub(crate) fn rates<T>(&self, look: impl FnOnce(&mut RateTable, Time) -> T) -> T {
        let now = self.now();
        let rates = self.0.rates.get_or_init(|| Mutex::new(RateTable::new(RATED, self.0.seed)));
        look(&mut rates.lock(), now)
    }

    /// A number for one call, even among all.
    pub(crate) fn chance(&self) -> u64 {
        // SplitMix64 without its end, which `mix` is.
        let next = self.0.throws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        proto::rule::mix(next)
    }

    /// An instance of `pool`: see [`Balancer::choose`].
    pub(crate) fn choose<'a>(
        &self,
        pool: &Pool<'a, impl Fn(&Instance) -> bool>,
        first: bool,
    ) -> Result<(&'a Instance, AtInstance), NoChoice> {
        let now = self.now();
        let (instance, ticket) = self.0.core.lock().choose(pool, first, now)?;
        Ok((instance, AtInstance { balance: self.clone(), ticket: Some(ticket) }))
    }

    /// What is said of the candidates of `pool` if `chosen` takes the call; nothing of a service
    /// that was not called from here yet.
    pub(crate) fn explain(
        &self,
        pool: &Pool<'_, impl Fn(&Instance) -> bool>,
        chosen: Option<u64>,
    ) -> Vec<Considered> {
        let (now, name) = (self.now(), pool.table().name.as_str());
        let mut core = self.0.core.lock();
        if core.knows(name) {
            core.keep_in_step(pool.table(), now);
        }
        core.explain(pool, chosen, now)
    }

    /// What changed last among the instances of a service, the latest first, and the time now.
    pub(crate) fn changes(&self, service: &str) -> (Vec<Change>, Time) {
        let now = self.now();
        (self.0.core.lock().changes(service), now)
    }

    /// The instance with this key, chosen by another node; `table` says what is known of its
    /// service, and is asked only when the instance is new.
    pub(crate) fn take(
        &self,
        key: u64,
        table: impl FnOnce(&mut dyn FnMut(&ServiceRoutes)),
    ) -> Result<AtInstance, NoChoice> {
        let now = self.now();
        let mut taken = self.0.core.lock().take(key, now);
        if taken == Err(NoChoice::None) {
            table(&mut |table| self.0.core.lock().keep_in_step(table, now));
            taken = self.0.core.lock().take(key, now);
        }
        Ok(AtInstance { balance: self.clone(), ticket: Some(taken?) })
    }

    /// Measures now and then how long work waits on the loop this runs on.
    pub(crate) fn measure(&self) {
        let saturated = self.0.saturated.load(Ordering::Relaxed);
        let calls = self.0.calls.fetch_add(1, Ordering::Relaxed);
        if !saturated && !calls.is_multiple_of(MEASURED) {
            return;
        }
        if self.0.measuring.swap(true, Ordering::Relaxed) {
            return;
        }
        let balance = self.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            // Back after everything that is ready now has had its turn.
            tokio::task::yield_now().await;
            let mut measured = balance.0.loop_.lock();
            measured.0.round(began.elapsed());
            balance.0.saturated.store(measured.0.is_saturated(), Ordering::Relaxed);
            balance.0.measuring.store(false, Ordering::Relaxed);
        });
    }

    /// Whether a call with so much time left is carried by this node.
    ///
    /// # Errors
    /// [`Error::Saturated`] if not.
    pub(crate) fn admit(&self, left: impl FnOnce() -> Option<Duration>) -> Result<(), Error> {
        if !self.0.saturated.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut measured = self.0.loop_.lock();
        let (saturation, chance) = &mut *measured;
        match saturation.admit(left(), chance) {
            Admission::Carried => Ok(()),
            Admission::Late | Admission::Shed => {
                Err(Error::Saturated { wait: saturation.standing() })
            }
        }
    }
}

impl AtInstance {
    /// Takes note of what became of the call; gives the load of the instance as it is here.
    pub(crate) fn settle(&mut self, outcome: Outcome, report: Option<Report>) -> Report {
        let now = self.balance.now();
        let ticket = self.ticket.as_mut().expect("the ticket is there until the drop");
        let mut core = self.balance.0.core.lock();
        let load = core.settle(ticket, outcome, report, now);
        let fresh = core.fresh();
        drop(core);
        if fresh != Fresh::default() {
            self.balance.0.counted.count(fresh);
        }
        load
    }

    /// Whether the call finds out if the instance is back.
    pub(crate) fn is_probe(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::is_probe)
    }

    /// Whether the service may have one further attempt now; if so, that is one less.
    pub(crate) fn may_try_again(&self) -> bool {
        let ticket = self.ticket.as_ref().expect("the ticket is there until the drop");
        self.balance.0.core.lock().may_try_again(ticket)
    }

    /// After how long a second instance may be asked as well.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        let ticket = self.ticket.as_ref().expect("the ticket is there until the drop");
        self.balance.0.core.lock().hedge_after(ticket)
    }
}

impl Drop for AtInstance {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            // The end of a call whose outcome is known tells no time.
            let now = if ticket.is_settled() { ticket.began() } else { self.balance.now() };
            self.balance.0.core.lock().leave(ticket, now);
        }
    }
}
