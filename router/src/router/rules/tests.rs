use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::record::Body;
use proto::rule::{Rule, RuleSet};
use proto::{LinkId, ServiceName, UnixTime, Verified};

use crate::kept::{CARRIERS, KeptSets};
use crate::testing::{Net, Toy, network, node, operator, router};
use crate::{Message, Refusal, Request};

fn s() -> ServiceName {
    "s".parse().unwrap()
}

fn rule(name: &str) -> Rule {
    Rule { name: name.into(), ..Rule::default() }
}

/// What stands in place of what `at` knows, written there.
fn next(net: &Net, at: usize, rules: Vec<Rule>) -> RuleSet {
    let held = net.routes[at].rules("s").map(|rules| Arc::clone(rules.set()));
    RuleSet::following(held.as_deref(), rules, net.routers[at].me(), UnixTime(7))
}

fn write(net: &mut Net, at: usize, rules: Vec<Rule>) -> Result<(), Refusal> {
    let set = next(net, at, rules);
    net.request(at, Request::Rule { service: s(), set })
}

/// Revision, names of the rules, and whose they are, as `at` knows them.
fn held(net: &Net, at: usize) -> Option<(u64, Vec<String>, proto::NodeId)> {
    let rules = net.routes[at].rules("s")?;
    let names = rules.set().rules.iter().map(|rule| rule.name.clone()).collect();
    Some((rules.set().revision, names, rules.author()))
}

fn carriers(net: &Net, at: usize) -> usize {
    net.routes[at].rules("s").map_or(0, |rules| rules.carriers().len())
}

/// Operators of all, and last one who is none; each linked with each, and the links.
fn clique(operators: u32) -> (Net, BTreeMap<(usize, usize), LinkId>) {
    let some = (0..operators).map(|n| router(Toy(n), 1, operator(Toy(n), "*")));
    let plain = Toy(operators);
    let last = router(plain, 1, node(plain, "*", 1 << 20));
    let mut net = Net::of(some.chain([last]).collect());
    let mut links = BTreeMap::new();
    for b in 1..=operators as usize {
        for a in 0..b {
            links.insert((a, b), net.link(a, b, 1_000));
        }
    }
    net.settle();
    (net, links)
}

fn cut(net: &mut Net, links: &mut BTreeMap<(usize, usize), LinkId>, at: usize) {
    let of = |(a, b): &(usize, usize)| *a == at || *b == at;
    links.extract_if(.., |ends, _| of(ends)).for_each(|(_, link)| net.unlink(link));
}

#[test]
fn rules_hold_when_their_author_stops_dies_or_is_lost() {
    for stops in [true, false] {
        let (mut net, mut links) = clique(5);
        write(&mut net, 0, vec![rule("x")]).unwrap();
        net.settle();
        let author = net.routers[0].me();
        assert!((CARRIERS..=CARRIERS + 1).contains(&carriers(&net, 5)), "few tell it");
        if stops {
            net.request(0, Request::Leave).unwrap();
        }
        cut(&mut net, &mut links, 0);
        net.settle();
        for at in 1..=5 {
            assert_eq!(held(&net, at), Some((1, vec!["x".into()], author)), "stops: {stops}");
        }
        // Who joins now is told as well.
        net.routers[0] = router(Toy(9), 1, node(Toy(9), "*", 1 << 20));
        net.link(0, 5, 1_000);
        net.settle();
        assert_eq!(held(&net, 0), Some((1, vec!["x".into()], author)));
        assert_eq!(carriers(&net, 0), CARRIERS);
    }
}

#[test]
fn who_stops_at_once_does_not_take_along_what_it_was_told_holds() {
    let (mut net, mut links) = clique(3);
    let author = net.routers[0].me();
    write(&mut net, 0, vec![rule("x")]).unwrap();
    net.request(0, Request::Leave).unwrap();
    net.settle();
    cut(&mut net, &mut links, 0);
    net.settle();
    for at in 1..=3 {
        assert_eq!(held(&net, at), Some((1, vec!["x".into()], author)));
    }
}

#[test]
fn the_last_that_may_carry_does_and_who_may_not_never_does() {
    let (mut net, mut links) = clique(3);
    write(&mut net, 0, vec![rule("x")]).unwrap();
    net.settle();
    for gone in [0, 1] {
        net.request(gone, Request::Leave).unwrap();
        cut(&mut net, &mut links, gone);
        net.settle();
        assert_eq!(held(&net, 3).map(|(revision, ..)| revision), Some(1), "without {gone}");
    }
    net.request(2, Request::Leave).unwrap();
    cut(&mut net, &mut links, 2);
    net.settle();
    assert_eq!(held(&net, 3), None);
    assert!(net.kept[3].is_empty());
}

#[test]
fn what_is_taken_away_stays_away_when_an_older_set_comes_back() {
    let (mut net, mut links) = clique(4);
    write(&mut net, 0, vec![rule("x")]).unwrap();
    net.settle();
    // A carrier is away while the rules are taken away, by one that then goes as well.
    let old: KeptSets = (*net.kept[1]).clone();
    assert_eq!(old[&s()].set.revision, 1);
    cut(&mut net, &mut links, 1);
    write(&mut net, 2, Vec::new()).unwrap();
    net.settle();
    net.request(2, Request::Leave).unwrap();
    cut(&mut net, &mut links, 2);
    net.run(Duration::from_secs(2 * 24 * 3600));
    net.routers[1] = router(Toy(1), 2, operator(Toy(1), "*"));
    for (service, kept) in old {
        let (set, told) = ((*kept.set).clone(), kept.told);
        net.request(1, Request::Restore { service, set, told }).unwrap();
    }
    assert_eq!(held(&net, 1).unwrap().0, 1, "it holds there until it hears better");
    net.link(1, 0, 1_000);
    net.settle();
    for at in [0, 1, 3, 4] {
        assert_eq!(held(&net, at), Some((2, Vec::new(), Toy(2).id())), "at {at}");
    }
    assert_eq!(net.kept[1][&s()].set.revision, 2);
}

#[test]
fn all_may_be_started_again_at_once() {
    let (mut net, _) = clique(4);
    write(&mut net, 0, vec![rule("x")]).unwrap();
    net.settle();
    let kept = net.kept.clone();
    assert!(kept[..4].iter().all(|kept| kept.len() == 1), "all that may keep it do");
    let told = kept.iter().filter(|kept| kept.get(&s()).is_some_and(|kept| kept.told)).count();
    assert!((CARRIERS..=CARRIERS + 1).contains(&told), "{told} tell it");
    // The author does not come back.
    let again = |n| router(Toy(n), 2, operator(Toy(n), "*"));
    let plain = router(Toy(4), 2, node(Toy(4), "*", 1 << 20));
    let mut net = Net::of((1..4).map(again).chain([plain]).collect());
    for at in 0..3 {
        for (service, kept) in (*kept[at + 1]).clone() {
            let (set, told) = ((*kept.set).clone(), kept.told);
            net.request(at, Request::Restore { service, set, told }).unwrap();
        }
        net.link(at, 3, 1_000);
    }
    net.settle();
    assert_eq!(held(&net, 3), Some((1, vec!["x".into()], Toy(0).id())));
}

#[test]
fn what_was_written_with_the_right_holds_when_the_author_loses_it() {
    let (mut net, _) = clique(3);
    write(&mut net, 0, vec![rule("x")]).unwrap();
    net.settle();
    net.request(0, Request::Describe(node(Toy(0), "*", 1 << 20))).unwrap();
    net.settle();
    for at in 0..4 {
        assert_eq!(held(&net, at), Some((1, vec!["x".into()], Toy(0).id())), "at {at}");
    }
    assert_eq!(write(&mut net, 0, Vec::new()), Err(Refusal::NotGranted));
    // What it writes all the same is neither believed nor carried.
    let author = Toy(0);
    let rules = vec![rule("lie")];
    let lie = RuleSet::following(Some(&next(&net, 0, Vec::new())), rules, author.id(), UnixTime(9));
    let version = proto::Version { epoch: proto::Epoch(1), seq: proto::Seq(999) };
    let lie = Verified::own(network(), &author, version, Body::Rules(s(), Arc::new(lie)));
    net.frame(1, LinkId(0), Message::records(vec![lie]));
    net.settle();
    assert_eq!(held(&net, 1).unwrap().0, 1);
    assert_eq!(net.kept[1][&s()].set.revision, 1);
    // Anybody who may takes it away.
    write(&mut net, 1, Vec::new()).unwrap();
    net.settle();
    assert!((0..4).all(|at| held(&net, at) == Some((2, Vec::new(), Toy(1).id()))));
}

#[test]
fn who_is_not_to_carry_ends_telling_once_all_do_that_are() {
    let (mut net, _) = clique(8);
    for (n, at) in (0..8).enumerate() {
        write(&mut net, at, vec![rule(&format!("r{n}"))]).unwrap();
        net.settle();
    }
    net.run(Duration::from_secs(1_500));
    assert_eq!(carriers(&net, 8), CARRIERS);
    assert_eq!(held(&net, 8).unwrap().0, 8);
    let all = net.kept[..8].iter().map(|kept| kept[&s()].set.revision);
    assert!(all.eq([8; 8]));
}

/// Chance of the tests, one sequence a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        usize::try_from(proto::rule::mix(self.0) % bound as u64).unwrap()
    }
}

/// What the test does to a network of operators, and what must be so once it is quiet.
struct World {
    net: Net,
    dice: Dice,
    links: BTreeMap<(usize, usize), LinkId>,
    /// What of each that is down is on its disk, and in which life it was.
    down: BTreeMap<usize, Arc<KeptSets>>,
    lives: Vec<u64>,
    written: u64,
}

impl World {
    const OPERATORS: u32 = 6;

    fn new(seed: u64) -> Self {
        let (net, links) = clique(Self::OPERATORS);
        let lives = vec![1; Self::OPERATORS as usize + 1];
        Self { net, dice: Dice(seed), links, down: BTreeMap::new(), lives, written: 0 }
    }

    fn up(&self) -> Vec<usize> {
        (0..Self::OPERATORS as usize).filter(|at| !self.down.contains_key(at)).collect()
    }

    fn one_of(&mut self, all: &[usize]) -> usize {
        all[self.dice.below(all.len())]
    }

    fn happen(&mut self) {
        let up = self.up();
        let at = self.one_of(&up);
        match self.dice.below(7) {
            0 | 1 => {
                self.written += 1;
                let empty = self.dice.below(3) == 0;
                let rules =
                    if empty { Vec::new() } else { vec![rule(&format!("w{}", self.written))] };
                // Refused where it has just heard of something newer, as people are.
                let _ = write(&mut self.net, at, rules);
            }
            2 | 3 if up.len() > 2 => {
                // It is heard of what was written last; then it stops or dies.
                self.net.run(Duration::from_millis(500));
                if self.dice.below(2) == 0 {
                    self.net.request(at, Request::Leave).unwrap();
                }
                self.down.insert(at, Arc::clone(&self.net.kept[at]));
                cut(&mut self.net, &mut self.links, at);
            }
            4 => self.rise(),
            5 => {
                let other = self.one_of(&up);
                let ends = (at.min(other), at.max(other));
                self.links.remove(&ends).into_iter().for_each(|link| self.net.unlink(link));
            }
            _ => self.net.run(Duration::from_millis(400)),
        }
        self.net.run(Duration::from_millis(50));
    }

    /// One that is down is started again with what is on its disk.
    fn rise(&mut self) {
        let Some((at, kept)) = self.down.pop_first() else { return };
        self.lives[at] += 1;
        let who = Toy(u32::try_from(at).unwrap());
        self.net.routers[at] = router(who, self.lives[at], operator(who, "*"));
        for (service, kept) in (*kept).clone() {
            let (set, told) = ((*kept.set).clone(), kept.told);
            self.net.request(at, Request::Restore { service, set, told }).unwrap();
        }
        self.join(at);
    }

    /// Links one with all that are up.
    fn join(&mut self, at: usize) {
        for other in self.up().into_iter().chain([Self::OPERATORS as usize]) {
            let ends = (at.min(other), at.max(other));
            if at != other && !self.links.contains_key(&ends) {
                let link = self.net.link(ends.0, ends.1, 1_000);
                self.links.insert(ends, link);
            }
        }
    }

    /// The newest set that anybody who is up has.
    fn newest(&self) -> Option<u64> {
        let kept = self.up().into_iter().filter_map(|at| self.net.kept[at].get(&s()));
        kept.map(|kept| kept.set.revision).max()
    }

    fn check(&mut self) -> Result<(), String> {
        for at in self.up() {
            self.join(at);
        }
        // Longer than the wait of those that keep rules for those that are to carry them.
        self.net.run(Duration::from_secs(12));
        let newest = self.newest();
        let plain = Self::OPERATORS as usize;
        let wanted = held(&self.net, plain);
        if wanted.as_ref().map(|(revision, ..)| *revision) != newest {
            return Err(format!("{wanted:?} holds, and {newest:?} is the newest"));
        }
        for at in self.up() {
            if held(&self.net, at) != wanted {
                return Err(format!("{at} has {:?}, {plain} {wanted:?}", held(&self.net, at)));
            }
        }
        let (telling, least) = (carriers(&self.net, plain), CARRIERS.min(self.up().len()));
        match newest {
            Some(_) if telling < least => Err(format!("{telling} tell it, not {least}")),
            _ => Ok(()),
        }
    }
}

#[test]
fn the_newest_rules_hold_everywhere_after_anything() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        let mut last = 0;
        for round in 0..6 {
            for _ in 0..12 {
                world.happen();
            }
            world.check().unwrap_or_else(|wrong| panic!("seed {seed}, round {round}: {wrong}"));
            // At least one that has heard of it was always up: nothing older comes back.
            let newest = world.newest().unwrap_or(0);
            assert!(newest >= last, "seed {seed}, round {round}: {newest} after {last}");
            last = newest;
        }
    }
}
