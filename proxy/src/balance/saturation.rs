//! When this node itself has too much to do.

use std::time::Duration;

use super::chance::Chance;

/// Rounds that are looked at: the shortest of them counts, so one long task does not.
const ROUNDS: usize = 4;
/// From this standing wait on, calls that cannot meet their deadline are refused at once: whatever
/// they cost is lost. A busy node with some hundred calls in flight stays well below.
const LATE_FROM: Duration = Duration::from_millis(20);
/// From this standing wait on, others are refused too.
const SHED_FROM: Duration = Duration::from_millis(500);
/// Some calls always pass: they show that it is over.
const MOST: f32 = 0.9;

/// How long work waits for its turn on the event loop: the time of one round through everything that
/// is ready, which is what each step of a call waits.
#[derive(Clone, Debug, Default)]
pub struct Saturation {
    rounds: [Duration; ROUNDS],
    next: usize,
}

/// Whether a call is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Carried,
    /// No: its deadline has passed, or will have when its turn comes. These go first: of all that
    /// wait, they are the oldest by their own measure.
    Late,
    /// No: there is more than can be done.
    Shed,
}

impl Saturation {
    /// Takes note of how long one round took.
    pub fn round(&mut self, took: Duration) {
        self.rounds[self.next % ROUNDS] = took;
        self.next = (self.next + 1) % ROUNDS;
    }

    /// What work waits now, at least.
    #[must_use]
    pub fn standing(&self) -> Duration {
        self.rounds.iter().min().copied().unwrap_or_default()
    }

    /// Whether it is worth asking for each call.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.standing() >= LATE_FROM
    }

    /// Whether a call with so much time `left` is carried (`None`: it has no deadline).
    pub fn admit(&self, left: Option<Duration>, chance: &mut Chance) -> Admission {
        let standing = self.standing();
        if left.is_some_and(|left| left.is_zero()) {
            return Admission::Late;
        }
        if standing < LATE_FROM {
            return Admission::Carried;
        }
        if left.is_some_and(|left| left < standing) {
            return Admission::Late;
        }
        // What is above the bound is refused, as a share: at twice the bound every second.
        let above = 1.0 - SHED_FROM.as_secs_f32() / standing.as_secs_f32();
        if above > 0.0 && chance.hits(above.min(MOST)) {
            Admission::Shed
        } else {
            Admission::Carried
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(millis: u64) -> Saturation {
        let mut saturation = Saturation::default();
        for _ in 0..ROUNDS {
            saturation.round(Duration::from_millis(millis));
        }
        saturation
    }

    #[test]
    fn one_long_round_is_no_saturation() {
        let mut saturation = Saturation::default();
        saturation.round(Duration::from_secs(2));
        assert!(!saturation.is_saturated());
        let mut chance = Chance::new(1);
        assert_eq!(
            saturation.admit(Some(Duration::from_millis(1)), &mut chance),
            Admission::Carried
        );
        assert_eq!(saturation.admit(Some(Duration::ZERO), &mut chance), Admission::Late);
    }

    #[test]
    fn what_will_miss_its_deadline_goes_before_anything_else() {
        let (saturation, mut chance) = (standing(100), Chance::new(1));
        let ms = Duration::from_millis;
        assert_eq!(saturation.admit(Some(ms(50)), &mut chance), Admission::Late);
        for _ in 0..1_000 {
            assert_eq!(saturation.admit(Some(ms(150)), &mut chance), Admission::Carried);
            assert_eq!(saturation.admit(None, &mut chance), Admission::Carried);
        }
    }

    #[test]
    fn above_the_bound_the_share_refused_grows_and_some_pass() {
        let share = |millis| {
            let (saturation, mut chance) = (standing(millis), Chance::new(1));
            let shed =
                (0..10_000).filter(|_| saturation.admit(None, &mut chance) == Admission::Shed);
            shed.count()
        };
        assert_eq!(share(400), 0);
        assert!((4_500..5_500).contains(&share(1_000)), "{}", share(1_000));
        assert!((8_700..9_300).contains(&share(60_000)), "{}", share(60_000));
    }
}
