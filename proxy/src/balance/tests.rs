//! The rules of the choice, one by one; the whole is in the simulation (`tests/tests/choice`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::record::Protocol;
use proto::{Cost, LabelSet, NodeId, Selector, Time};
use router::{Instance, InstanceKey, Lookup, ServiceRoutes};

use super::*;

const LIMIT: u32 = 100;

fn instance(key: u64, group: u32) -> Instance {
    Instance {
        key: InstanceKey(key),
        id: key.to_string().into(),
        node: NodeId::from_bytes([1; 32]),
        here: group == 0,
        address: "10.0.0.1:1".into(),
        protocol: Protocol::Grpc,
        version: "latest".into(),
        labels: LabelSet::default(),
        metadata: LabelSet::default(),
        cost: Cost::from_micros(group),
        group,
    }
}

/// A balancer with one service, at a moment.
struct Bench {
    balancer: Balancer,
    table: ServiceRoutes,
    now: Time,
}

impl Bench {
    /// Instances by key, each in its group.
    fn new(groups: &[u32]) -> Self {
        let now = Time::from_micros(1_000_000);
        let mut bench = Self { balancer: Balancer::new(1, LIMIT), table: table(1, groups), now };
        bench.balancer.keep_in_step(&bench.table, now);
        bench
    }

    fn choose(&mut self) -> (u64, Ticket) {
        let any = Selector::default();
        let Lookup::Found(candidates) = self.table.lookup(&any) else { panic!("found") };
        let pool = Pool::new(&candidates, |_: &Instance| true);
        let (chosen, ticket) = self.balancer.choose(&pool, true, self.now).unwrap();
        (chosen.key.0, ticket)
    }

    /// Where `calls` go, each answered at once.
    fn shares(&mut self, calls: u32) -> BTreeMap<u64, u32> {
        let mut shares = BTreeMap::new();
        for _ in 0..calls {
            let (key, ticket) = self.choose();
            *shares.entry(key).or_default() += 1;
            self.pass(1);
            self.end(ticket, Outcome::Answered);
        }
        shares
    }

    fn end(&mut self, mut ticket: Ticket, outcome: Outcome) {
        self.balancer.settle(&mut ticket, outcome, None, self.now);
        self.balancer.leave(ticket, self.now);
    }

    /// A call at this instance, with this outcome.
    fn call(&mut self, key: u64, outcome: Outcome) {
        let ticket = self.balancer.take(key, self.now).unwrap();
        self.pass(1);
        self.end(ticket, outcome);
    }

    fn fail(&mut self, key: u64) {
        for _ in 0..5 {
            self.call(key, Outcome::Failed);
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    fn verdict(&self, key: u64, chosen: Option<u64>) -> Verdict {
        let any = Selector::default();
        let Lookup::Found(candidates) = self.table.lookup(&any) else { panic!("found") };
        let pool = Pool::new(&candidates, |_: &Instance| true);
        let all = self.balancer.explain(&pool, chosen, self.now);
        all.iter().find(|one| one.key == key).unwrap().verdict
    }
}

fn table(changed: u64, groups: &[u32]) -> ServiceRoutes {
    let all = (0..).zip(groups).map(|(key, group)| instance(key, *group)).collect();
    ServiceRoutes::new("shop".parse().unwrap(), changed, all, Arc::from([]))
}

#[test]
fn equal_instances_get_equal_shares() {
    let mut bench = Bench::new(&[1; 10]);
    let shares = bench.shares(10_000);
    assert!(shares.values().all(|share| (800..1_200).contains(share)), "{shares:?}");
}

#[test]
fn an_instance_that_hangs_is_left_before_it_answers() {
    let mut bench = Bench::new(&[1; 4]);
    bench.shares(100);
    let _hangs = bench.balancer.take(2, bench.now).unwrap();
    bench.pass(1_000);
    assert_eq!(bench.shares(100).get(&2), None);
}

#[test]
fn one_that_refused_is_out_then_one_call_at_a_time_finds_out_and_it_comes_back_slowly() {
    let mut bench = Bench::new(&[1; 4]);
    bench.call(3, Outcome::Refused);
    assert!(matches!(bench.verdict(3, None), Verdict::Out { why: Why::Refused, .. }));
    assert_eq!(bench.shares(200).get(&3), None);
    bench.pass(600);
    assert_eq!(bench.verdict(3, None), Verdict::ProbeDue { why: Why::Refused });
    let (mut probe, mut others) = (None, Vec::new());
    for _ in 0..50 {
        let (key, ticket) = bench.choose();
        if key == 3 {
            assert!(ticket.is_probe() && probe.replace(ticket).is_none(), "one at a time");
        } else {
            others.push(ticket);
        }
    }
    assert_eq!(bench.verdict(3, None), Verdict::HalfOpen { why: Why::Refused });
    others.into_iter().for_each(|ticket| bench.end(ticket, Outcome::Answered));
    bench.end(probe.unwrap(), Outcome::Answered);
    assert!(matches!(bench.verdict(3, None), Verdict::SlowStart { share } if share < 0.2));
    let first = bench.shares(1_000).get(&3).copied().unwrap_or_default();
    assert!((1..120).contains(&first), "{first}");
    bench.pass(10_000);
    let later = bench.shares(1_000)[&3];
    assert!(later > 150, "{later}");
}

#[test]
fn a_probe_that_is_given_up_makes_room_for_another_and_one_that_fails_makes_it_longer() {
    let mut bench = Bench::new(&[1]);
    bench.call(0, Outcome::Refused);
    bench.pass(600);
    let (_, probe) = bench.choose();
    assert!(probe.is_probe());
    bench.balancer.leave(probe, bench.now);
    let (_, probe) = bench.choose();
    assert!(probe.is_probe());
    bench.end(probe, Outcome::Refused);
    bench.pass(600);
    assert!(matches!(bench.verdict(0, None), Verdict::Out { .. }), "twice as long");
    bench.pass(600);
    assert!(matches!(bench.verdict(0, None), Verdict::ProbeDue { .. }));
}

#[test]
fn never_more_than_half_are_ejected_and_the_last_never() {
    let mut bench = Bench::new(&[1; 5]);
    for key in 0..5 {
        bench.fail(key);
    }
    let out = (0..5).filter(|key| matches!(bench.verdict(*key, None), Verdict::Out { .. }));
    assert_eq!(out.count(), 2);
    let mut alone = Bench::new(&[1]);
    alone.fail(0);
    assert_eq!(alone.verdict(0, Some(0)), Verdict::Chosen);
    assert_eq!(alone.verdict(0, None), Verdict::Busier);
}

#[test]
fn with_too_few_left_judgements_are_set_aside_and_facts_are_not() {
    let mut bench = Bench::new(&[1; 6]);
    bench.fail(0);
    bench.fail(1);
    for key in 2..5 {
        bench.call(key, Outcome::Refused);
    }
    let shares = bench.shares(300);
    assert!(shares.keys().any(|key| *key < 2), "{shares:?}");
    assert!((2..5).all(|key| !shares.contains_key(&key)), "{shares:?}");
}

#[test]
fn when_all_refuse_calls_are_still_tried() {
    let mut bench = Bench::new(&[1, 2]);
    bench.call(0, Outcome::Refused);
    bench.call(1, Outcome::Refused);
    let (key, ticket) = bench.choose();
    assert_eq!(key, 0, "at the nearest");
    bench.end(ticket, Outcome::Answered);
    assert!(matches!(bench.verdict(0, None), Verdict::SlowStart { .. }), "and it is back");
}

#[test]
fn a_full_instance_takes_no_more_and_all_full_is_said() {
    let mut bench = Bench::new(&[1, 1]);
    let held: Vec<_> = (0..2 * LIMIT).map(|_| bench.choose()).collect();
    assert_eq!(held.iter().filter(|(key, _)| *key == 0).count(), LIMIT as usize);
    assert_eq!(bench.verdict(0, None), Verdict::LimitReached);
    let any = Selector::default();
    let Lookup::Found(candidates) = bench.table.lookup(&any) else { panic!("found") };
    let pool = Pool::new(&candidates, |_: &Instance| true);
    let full = bench.balancer.choose(&pool, true, bench.now);
    assert_eq!(full.err(), Some(NoChoice::Full(LIMIT)));
}

#[test]
fn farther_ones_wait_until_the_nearest_are_out() {
    let mut bench = Bench::new(&[1, 1, 4]);
    assert_eq!(bench.shares(200).get(&2), None);
    assert!(matches!(bench.verdict(2, None), Verdict::OtherLocality { group: 4, .. }));
    bench.call(0, Outcome::Refused);
    bench.call(1, Outcome::Refused);
    assert_eq!(bench.shares(200).get(&2), Some(&200));
}

#[test]
fn what_was_known_of_an_instance_survives_a_new_table_and_a_new_one_begins_slowly() {
    let mut bench = Bench::new(&[1; 3]);
    bench.call(2, Outcome::Refused);
    let held = bench.balancer.take(1, bench.now).unwrap();
    // 1 leaves with a call in flight, 3 is new.
    let all = [0, 2, 3].map(|key| instance(key, 1)).to_vec();
    bench.table = ServiceRoutes::new("shop".parse().unwrap(), 2, all, Arc::from([]));
    bench.shares(1);
    assert!(matches!(bench.verdict(2, None), Verdict::Out { .. }));
    assert!(matches!(bench.verdict(3, None), Verdict::SlowStart { .. }));
    assert_eq!(bench.balancer.take(1, bench.now), Err(NoChoice::None));
    bench.end(held, Outcome::Answered);
    let shares = bench.shares(100);
    assert!(!shares.contains_key(&1) && !shares.contains_key(&2), "{shares:?}");
}

#[test]
fn a_deadline_that_is_shorter_than_calls_take_is_no_failure_of_the_instance() {
    let mut bench = Bench::new(&[1, 1]);
    for _ in 0..200 {
        let ticket = bench.balancer.take(0, bench.now).unwrap();
        bench.pass(50);
        bench.end(ticket, Outcome::Answered);
    }
    for _ in 0..20 {
        bench.call(0, Outcome::TimedOut);
    }
    assert_eq!(bench.verdict(0, None), Verdict::Busier);
    for _ in 0..5 {
        let ticket = bench.balancer.take(0, bench.now).unwrap();
        bench.pass(500);
        bench.end(ticket, Outcome::TimedOut);
    }
    assert!(matches!(bench.verdict(0, None), Verdict::Out { .. }));
}

#[test]
fn what_changed_last_among_the_instances_is_remembered_and_counted_once() {
    let mut bench = Bench::new(&[1; 4]);
    bench.shares(20);
    assert_eq!(bench.balancer.changes("shop"), [], "what was there at first is no news");
    bench.fail(2);
    let out = bench.balancer.changes("shop")[0];
    let What::Out { why, failures } = out.what else { panic!("{out:?}") };
    assert!(out.key == 2 && why.is_ejection() && (3..=5).contains(&failures), "{out:?}");
    assert_eq!(bench.balancer.fresh(), Fresh { ejected: 1, ..Fresh::default() });
    assert_eq!(bench.balancer.fresh(), Fresh::default(), "counted once");
    bench.pass(3_000);
    while bench.balancer.changes("shop")[0].what != What::Back {
        bench.shares(1);
    }
    assert_eq!(bench.balancer.fresh().back, 1);
    bench.balancer.keep_in_step(&table(2, &[1; 5]), bench.now);
    bench.balancer.keep_in_step(&table(3, &[1; 2]), bench.now);
    let last: Vec<_> = bench.balancer.changes("shop").iter().map(|one| one.what).collect();
    assert_eq!(last[..4], [What::Went, What::Went, What::Went, What::Came]);
    assert_eq!(bench.balancer.changes("nobody"), []);
}
