//! An instance of the simulated world: some workers, a queue before them, and what ails it.

use proxy::balance::Chance;

use crate::world::{MILLI, Micros};

/// What an instance does at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    /// It works; a call takes this many times as long as it should.
    Works(f64),
    /// It takes calls and fails this share of them, soon.
    Fails(f64),
    /// It takes no call.
    Refuses,
}

/// What ails an instance in the course of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// Nothing.
    Well,
    /// It is this many times as slow, for ever.
    Slow(f64),
    /// From then until then it is in another mood.
    Spell(Micros, Micros, Mood),
    /// It refuses and works in turns of this length, until then.
    Flaps(Micros, Micros),
    /// It is not there before.
    Born(Micros),
}

#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) fate: Fate,
    pub(crate) group: u32,
    workers: Vec<Micros>,
    /// The mean time of a call.
    work: Micros,
    /// Calls it has, running and waiting.
    pub(crate) in_flight: u32,
    pub(crate) limit: u32,
    /// Attempts that reached it.
    pub(crate) taken: u64,
}

/// What becomes of a call that an instance took.
pub(crate) struct Fortune {
    pub(crate) ends: Micros,
    pub(crate) failed: bool,
}

impl Instance {
    pub(crate) fn new(fate: Fate, group: u32, workers: usize, work: Micros, limit: u32) -> Self {
        Self { fate, group, workers: vec![0; workers], work, in_flight: 0, limit, taken: 0 }
    }

    pub(crate) fn mood(&self, now: Micros) -> Mood {
        match self.fate {
            Fate::Well | Fate::Born(_) => Mood::Works(1.0),
            Fate::Slow(times) => Mood::Works(times),
            Fate::Spell(from, to, mood) if (from..to).contains(&now) => mood,
            Fate::Spell(..) => Mood::Works(1.0),
            Fate::Flaps(turn, until) if now < until && (now / turn) % 2 == 1 => Mood::Refuses,
            Fate::Flaps(..) => Mood::Works(1.0),
        }
    }

    /// What a call that comes now waits for its end.
    pub(crate) fn wait(&self, now: Micros) -> Micros {
        let Mood::Works(times) = self.mood(now) else { return Micros::MAX };
        let free = self.workers.iter().min().expect("an instance has workers");
        free.saturating_sub(now) + (self.work as f64 * times) as Micros
    }

    /// A call comes in; `None`: it is refused, unseen.
    pub(crate) fn take(&mut self, now: Micros, chance: &mut Chance) -> Option<Fortune> {
        let (times, fails) = match self.mood(now) {
            Mood::Works(times) => (times, 0.0),
            Mood::Fails(share) => (1.0, share),
            Mood::Refuses => return None,
        };
        self.taken += 1;
        self.in_flight += 1;
        if uniform(chance) < fails {
            return Some(Fortune { ends: now + 2 * MILLI, failed: true });
        }
        // Half of the work is the same for all calls, half is exponential.
        let drawn = 0.5 - 0.5 * (1.0 - uniform(chance)).ln();
        let work = (self.work as f64 * times * drawn) as Micros;
        let worker = self.workers.iter_mut().min().expect("an instance has workers");
        *worker = (*worker).max(now) + work;
        Some(Fortune { ends: *worker, failed: false })
    }
}

/// 0 to below 1.
pub(crate) fn uniform(chance: &mut Chance) -> f64 {
    (chance.draw() >> 11) as f64 / (1_u64 << 53) as f64
}
