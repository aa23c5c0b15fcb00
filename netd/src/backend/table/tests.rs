use proptest::prelude::*;

use super::super::entry::tests::registration;
use super::super::standing::Word;
use super::*;

fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

/// A table with a router that takes everything, and counts what it is told.
struct World {
    table: Table,
    router: BTreeMap<Id, Registration>,
    told: usize,
    now: Time,
}

impl World {
    fn new() -> Self {
        let now = at(0);
        Self { table: Table::new("prod", now), router: BTreeMap::new(), told: 0, now }
    }

    fn hear(&mut self, heard: Heard) {
        self.table.heard(heard, self.now);
    }

    fn all(&mut self, ids: &[&str]) {
        self.hear(Heard::All(ids.iter().map(|id| read("s", id)).collect()));
    }

    /// Lets time pass.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.table.due() <= end {
            self.now = self.now.max(self.table.due());
            let router = &self.router;
            let is_ours = |service: &ServiceName, id: &str| {
                router.contains_key(&(service.clone(), id.to_owned()))
            };
            let changes = self.table.changes(self.now, is_ours);
            for change in changes {
                self.told += 1;
                for (key, id) in &change.away {
                    self.router.remove(&(change.service.clone(), id.clone()));
                    self.table.withdrawn(key, id);
                }
                for put in &change.put {
                    self.router.insert(id_of(&put.said), put.marked.clone());
                    self.table.settled(put, Ok(()));
                }
            }
        }
        self.now = end;
    }

    fn ids(&self) -> Vec<&str> {
        self.router.keys().map(|(_, id)| id.as_str()).collect()
    }

    fn stale(&self) -> usize {
        let marked = |one: &&Registration| one.instance.metadata.get(STALE).is_some();
        self.router.values().filter(marked).count()
    }
}

fn read(service: &str, id: &str) -> (String, Read) {
    (format!("{service}/{id}"), Ok(registration(service, id, "10.0.0.7:1")))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_burst_is_one_change_a_service() {
    let mut world = World::new();
    let all = (0..20_000).map(|n| read(&format!("s{}", n % 500), &format!("i{n}")));
    world.hear(Heard::All(all.collect()));
    world.run(SECOND);
    assert_eq!((world.router.len(), world.told), (20_000, 500));
    world.run(SECOND * 300);
    assert_eq!(world.told, 500, "and nothing is told again");
    world.hear(Heard::Put("one/more".into(), read("s", "x").1));
    world.run(SECOND);
    let counts = world.table.counts();
    assert_eq!((world.router.len(), counts.skipped), (20_000, 1));
    assert!(counts.examples[0].1.contains("20000"), "{counts:?}");
}

#[test]
fn what_a_silent_back_end_said_stays_and_is_marked_until_it_answers() {
    let mut world = World::new();
    world.all(&["a", "b"]);
    world.run(SECOND);
    assert_eq!(world.router.values().next().unwrap().instance.metadata.get(BACKEND), Some("prod"));
    for _ in 0..10 {
        world.hear(Heard::Lost(Trouble::new("connection refused")));
        world.run(SECOND);
    }
    assert_eq!((world.ids(), world.stale()), (vec!["a", "b"], 2));
    assert_eq!(world.table.standing().word, Word::Stale);
    assert_eq!(world.table.standing().since, at(1_000), "since it was silent first");
    assert_eq!(world.told, 2, "marked once");
    world.all(&["b", "c"]);
    world.run(SECOND);
    assert_eq!(
        (world.ids(), world.stale()),
        (vec!["b", "c"], 0),
        "what vanished meanwhile is gone"
    );
    world.hear(Heard::Lost(Trouble::new("a moment")));
    world.run(SECOND);
    world.all(&["b", "c"]);
    let told = world.told;
    world.run(SECOND * 20);
    assert_eq!(world.told, told, "a moment's silence is worth no record");
}

#[test]
fn what_flaps_is_held_back_and_offered_once_it_is_calm() {
    let mut world = World::new();
    world.all(&["steady", "flaps"]);
    world.run(SECOND);
    for _ in 0..100 {
        world.hear(Heard::Gone("s/flaps".into()));
        world.run(SECOND / 20);
        world.hear(Heard::Put("s/flaps".into(), read("s", "flaps").1));
        world.run(SECOND / 20);
    }
    assert!(world.told < 8, "ten times a second for ten seconds made {} changes", world.told);
    world.run(SECOND);
    assert_eq!(world.table.counts().held, 1);
    world.run(SECOND * 60);
    assert_eq!((world.ids(), world.table.counts().held), (vec!["flaps", "steady"], 0));
}

#[test]
fn what_the_router_refuses_is_named_and_tried_again() {
    let mut table = Table::new("prod", at(0));
    table.heard(Heard::All(vec![read("s", "a")]), at(0));
    let changes = table.changes(at(200), |_, _| false);
    table.settled(&changes[0].put[0], Err("not granted".into()));
    let counts = table.counts();
    assert_eq!((counts.entries, counts.offered, counts.skipped), (1, 0, 1));
    assert_eq!(counts.examples, [("s/a".to_owned(), "not granted".to_owned())]);
    assert!(table.changes(at(10_000), |_, _| false).is_empty());
    let again = table.changes(at(31_000), |_, _| false);
    table.settled(&again[0].put[0], Ok(()));
    assert_eq!((table.counts().offered, table.counts().skipped), (1, 0));
    // Somebody else took its place meanwhile, and left.
    let again = table.changes(at(62_000), |_, _| false);
    assert_eq!(again[0].put.len(), 1);
}

#[test]
fn an_instance_that_was_told_twice_stays_while_one_of_both_is_there() {
    let told = |key: &str| (key.to_owned(), Ok(registration("s", "pod", "10.0.0.7:1")));
    let put = |key: &str| Heard::Put(key.to_owned(), told(key).1);
    let mut world = World::new();
    world.hear(Heard::All(vec![told("a")]));
    world.run(SECOND);
    // It moves to another entry, which is told before the first one goes; and back in a listing.
    world.hear(put("b"));
    world.run(SECOND);
    let counts = world.table.counts();
    assert_eq!((counts.entries, counts.skipped), (1, 1), "{counts:?}");
    assert!(counts.examples[0].1.contains("the same service and id as a"), "{counts:?}");
    world.hear(Heard::Gone("a".to_owned()));
    world.run(SECOND);
    assert_eq!(world.ids(), ["pod"]);
    assert_eq!(world.table.counts().skipped, 0);
    world.hear(Heard::All(vec![told("c"), told("d")]));
    world.run(SECOND);
    assert_eq!(world.ids(), ["pod"]);
    // One that waits and goes waits no more, and the last one takes it along.
    world.hear(Heard::Gone("d".to_owned()));
    world.hear(Heard::Gone("c".to_owned()));
    world.run(SECOND);
    assert!(world.ids().is_empty() && world.table.waiting.is_empty(), "{:?}", world.table);
}

#[test]
fn garbage_is_named_and_leaves_the_rest_alone() {
    let mut world = World::new();
    let bad = ("s/bad".to_owned(), Err("not JSON\u{7}".to_owned()));
    world.hear(Heard::All(vec![read("s", "a"), bad, ("k".repeat(2000), read("s", "b").1)]));
    world.hear(Heard::Put("other/a".into(), read("s", "a").1));
    world.run(SECOND);
    let counts = world.table.counts();
    assert_eq!((world.ids(), counts.skipped), (vec!["a"], 3));
    assert!(counts.examples.iter().any(|(_, why)| why == "not JSON "), "{counts:?}");
    assert!(counts.examples.iter().any(|(_, why)| why.contains("id as s/a")), "{counts:?}");
    world.hear(Heard::Put("s/bad".into(), read("s", "good").1));
    world.run(SECOND);
    assert_eq!(world.ids(), ["a", "good"]);
    world.hear(Heard::Put("s/a".into(), Err("garbage now".into())));
    world.run(SECOND);
    assert_eq!(world.ids(), ["a", "good"], "of the other entry that has it");
    world.hear(Heard::Gone("other/a".into()));
    world.run(SECOND);
    assert_eq!(world.ids(), ["good"]);
}

proptest! {
    /// Whatever is said in whichever order: once all is calm, the router has what was said last.
    #[test]
    fn in_the_end_the_router_has_what_the_back_end_has(
        story in proptest::collection::vec((0u8..6, 0u8..8, 0u8..3), 0..80),
    ) {
        let mut world = World::new();
        let mut there: BTreeMap<String, String> = BTreeMap::new();
        for (what, id, pause) in story {
            let (id, service) = (format!("i{id}"), format!("s{}", id % 2));
            match what {
                0..=2 => {
                    there.insert(id.clone(), service.clone());
                    world.hear(Heard::Put(id.clone(), read(&service, &id).1));
                }
                3 => {
                    there.remove(&id);
                    world.hear(Heard::Gone(id));
                }
                4 => world.hear(Heard::Lost(Trouble::new("gone"))),
                _ => {
                    there.remove(&id);
                    let all = there.iter().map(|(id, service)| (id.clone(), read(service, id).1));
                    world.hear(Heard::All(all.collect()));
                }
            }
            world.run(SECOND * u32::from(pause));
        }
        let all = there.iter().map(|(id, service)| (id.clone(), read(service, id).1));
        world.hear(Heard::All(all.collect()));
        world.run(SECOND * 120);
        let wanted: BTreeSet<Id> =
            there.into_iter().map(|(id, service)| (service.parse().unwrap(), id)).collect();
        prop_assert_eq!(world.router.keys().cloned().collect::<BTreeSet<_>>(), wanted);
        prop_assert_eq!(world.stale(), 0);
        prop_assert_eq!(world.table.known.len(), world.router.len(), "nothing else is remembered");
    }
}
