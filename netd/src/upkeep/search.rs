//! Where to look for the rest of the network, and when: a table of places that lead nowhere yet.
//!
//! A network that fell apart is one again when any two nodes of its parts have met. So the more
//! nodes can be reached, the rarer each of them looks: together they knock at a place about as
//! often, however many they are.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The first wait after a place led nowhere; doubled each time …
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// … up to this at first, so that a partition is over seconds after it has healed …
const LONGEST_RETRY: Duration = Duration::from_millis(600);
/// … and up to this once a place has led nowhere for [`PATIENCE`].
const RARE_RETRY: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(600);
/// As many nodes as can be reached before each looks rarer.
const FEW: usize = 16;
/// Places looked at at once by a node that has links; one that has none looks everywhere.
const MAX_LOOKS: usize = 8;

/// The places that are looked for. `P` is what names one.
#[derive(Debug)]
pub(super) struct Search<P> {
    places: BTreeMap<P, Place>,
}

/// How it stands with one place.
#[derive(Clone, Copy, Debug)]
struct Place {
    failures: u32,
    since: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Looking,
}

/// What a node has, as far as searching goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// It has no link at all.
    pub(super) alone: bool,
    /// Nodes it can reach.
    pub(super) reachable: usize,
}

impl<P: Ord + Clone> Search<P> {
    pub(super) fn new() -> Self {
        Self { places: BTreeMap::new() }
    }

    /// Where to look now, and when to ask again. `missing` are the places that lead nowhere; what
    /// is not among them is forgotten. `chance` gives numbers from 0 up to 1.
    pub(super) fn review(
        &mut self,
        missing: &[P],
        standing: Standing,
        now: Instant,
        mut chance: impl FnMut() -> f64,
    ) -> (Vec<P>, Option<Instant>) {
        self.places.retain(|name, place| place.state == State::Looking || missing.contains(name));
        for name in missing {
            // Who lost a node is not alone with that: not all must knock at its door at once.
            let first = if standing.alone { 0.0 } else { chance() };
            let until = now + longest(standing).mul_f64(first);
            let fresh = Place { failures: 0, since: now, state: State::Waiting { until } };
            self.places.entry(name.clone()).or_insert(fresh);
        }
        let mut looks = self.places.values().filter(|place| place.state == State::Looking).count();
        let mut due: Vec<(Instant, P)> = Vec::new();
        for (name, place) in &mut self.places {
            if let State::Waiting { until } = &mut place.state {
                if standing.alone {
                    // A wait that was chosen in company is too long for one who is alone.
                    *until = (*until).min(now + wait(place.failures, place.since, standing, now));
                }
                if *until <= now {
                    due.push((*until, name.clone()));
                }
            }
        }
        // Who waits longest comes first.
        due.sort_unstable();
        let mut begin = Vec::new();
        for (_, name) in due {
            if (looks < MAX_LOOKS || standing.alone)
                && let Some(place) = self.places.get_mut(&name)
            {
                looks += 1;
                place.state = State::Looking;
                begin.push(name);
            }
        }
        // What is due and had no room waits for a look to end, which asks again.
        let waits = self.places.values().filter_map(|place| match place.state {
            State::Waiting { until } => Some(until),
            State::Looking => None,
        });
        (begin, waits.filter(|until| *until > now).min())
    }

    /// A look has ended. One that found somebody is tried again no sooner than one that did not:
    /// what was found may not be reachable for long.
    pub(super) fn ended(&mut self, name: &P, standing: Standing, now: Instant, chance: f64) {
        if let Some(place) = self.places.get_mut(name) {
            // Jitter: nodes that lost the same peer must not come back as one.
            let wait = wait(place.failures, place.since, standing, now);
            let until = now + wait.mul_f64(0.75 + 0.5 * chance);
            place.failures = place.failures.saturating_add(1);
            place.state = State::Waiting { until };
        }
    }
}

fn wait(failures: u32, since: Instant, standing: Standing, now: Instant) -> Duration {
    let longest = if now.duration_since(since) < PATIENCE {
        longest(standing)
    } else {
        RARE_RETRY.max(longest(standing))
    };
    FIRST_RETRY.saturating_mul(1 << failures.min(16)).min(longest)
}

fn longest(standing: Standing) -> Duration {
    LONGEST_RETRY.mul_f64((standing.reachable as f64 / FEW as f64).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Standing = Standing { alone: true, reachable: 1 };
    const LINKED: Standing = Standing { alone: false, reachable: 2 };

    #[test]
    fn alone_everything_is_tried_at_once_and_then_ever_rarer_within_bounds() {
        let mut search = Search::new();
        let places: Vec<u8> = (0..64).collect();
        let mut now = Instant::now();
        let (begin, next) = search.review(&places, ALONE, now, || 0.5);
        assert_eq!((begin, next), (places.clone(), None));
        let mut waits = Vec::new();
        for _ in 0..5 {
            search.ended(&7, ALONE, now, 0.5);
            let (begin, next) = search.review(&places, ALONE, now, || 0.5);
            assert!(begin.is_empty(), "it has just led nowhere");
            waits.push(next.unwrap() - now);
            now = next.unwrap();
            assert_eq!(search.review(&places, ALONE, now, || 0.5).0, [7]);
        }
        let millis = |n| Duration::from_millis(n);
        assert_eq!(waits, [250, 500, 600, 600, 600].map(millis));
        now += PATIENCE;
        search.ended(&7, ALONE, now, 1.0);
        let next = search.review(&places, ALONE, now, || 0.5).1.unwrap();
        assert!(next - now > RARE_RETRY / 20, "patience is over");
    }

    #[test]
    fn in_company_a_place_that_is_lost_is_looked_for_too_until_it_leads_somewhere() {
        let mut search = Search::new();
        let now = Instant::now();
        let (begin, next) = search.review(&["seed"], LINKED, now, || 0.5);
        assert!(begin.is_empty(), "not everybody at the moment of the loss");
        let due = next.unwrap();
        assert_eq!(due - now, LONGEST_RETRY / 2);
        assert_eq!(search.review(&["seed"], LINKED, due, || 0.5).0, ["seed"]);
        search.ended(&"seed", LINKED, due, 0.5);
        assert!(search.review(&["seed"], LINKED, due, || 0.5).1.is_some());
        assert_eq!(search.review(&[], LINKED, due, || 0.5), (vec![], None));
    }

    #[test]
    fn in_company_few_looks_are_under_way_and_who_waits_longest_is_next() {
        let mut search = Search::new();
        let places: Vec<usize> = (0..3 * MAX_LOOKS).collect();
        let now = Instant::now();
        search.review(&places, LINKED, now, || 0.0);
        let begun: Vec<_> = places[..MAX_LOOKS].to_vec();
        for name in &begun {
            search.ended(name, LINKED, now, 0.5);
        }
        let later = now + LONGEST_RETRY;
        assert_eq!(
            search.review(&places, LINKED, later, || 0.0).0,
            places[MAX_LOOKS..2 * MAX_LOOKS]
        );
    }

    #[test]
    fn the_more_nodes_look_the_rarer_each_of_them() {
        let of = |reachable| longest(Standing { alone: false, reachable });
        assert_eq!(of(2), LONGEST_RETRY);
        assert_eq!(of(160), LONGEST_RETRY * 10);
    }
}
