//! Looking up where a call may go, and publishing what changed, at growing sizes.
//!
//! Instances are spread over services of a hundred. Lookups go round few services (hot) or
//! many, in an order the caches cannot guess (cold). That a lookup allocates nothing is checked
//! before it is measured.

use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bench::allocations::{self, Counting};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use proto::record::Protocol;
use proto::rule::{Actions, Condition, HeaderTest, Key, Rule, RuleSet, Subset, Test};
use proto::{Cost, LabelSet, NodeId, Selector, ServiceName, UnixTime};
use router::{
    Candidates, Headers, Instance, InstanceKey, Lookup, RequestView, Routes, ServiceRoutes,
};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Instances of all services together.
const SIZES: [usize; 3] = [10, 10_000, 1_000_000];
/// Instances of one service, at most.
const OF_ONE: usize = 100;
/// Questions asked in turn when they are few: what a node usually calls.
const HOT: usize = 1 << 6;
/// Questions asked in turn when they are many: most of the table is not in any cache.
const COLD: usize = 1 << 16;
/// How many combinations of labels there are.
const COMBINATIONS: usize = 12;
/// What spreads questions over services: the golden ratio in 64 bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

fn me() -> NodeId {
    NodeId::from_bytes([1; 32])
}

fn name(service: usize) -> String {
    format!("go.micro.srv.service-{service}")
}

/// Region, zone, tier and build of an instance.
fn labels(number: usize) -> [(&'static str, String); 4] {
    [
        ("region", format!("r{}", number % 4)),
        ("zone", format!("z{}", number % 12)),
        ("tier", if number.is_multiple_of(2) { "gold" } else { "silver" }.to_owned()),
        ("build", format!("1.{}", number % 3)),
    ]
}

fn instance(number: usize) -> Instance {
    let labels = labels(number);
    let mut node = [0; 32];
    node[..8].copy_from_slice(&(number as u64).wrapping_mul(SPREAD).to_be_bytes());
    Instance {
        key: InstanceKey(number as u64),
        id: format!("instance-{number:08x}").into(),
        node: NodeId::from_bytes(node),
        here: false,
        address: "10.0.0.1:5000".into(),
        protocol: Protocol::Grpc,
        version: "latest".into(),
        labels: labels.iter().map(|(key, value)| (*key, &**value)).collect(),
        metadata: LabelSet::default(),
        cost: Cost::from_micros(100 * (number % 7) as u32),
        group: (number % 3) as u32 + 1,
    }
}

fn service(number: usize, instances: usize) -> (ServiceName, Option<ServiceRoutes>) {
    let name: ServiceName = name(number).parse().expect("a service name");
    let all = (0..instances).map(|at| instance(number * OF_ONE + at)).collect();
    (name.clone(), Some(ServiceRoutes::new(name, 1, all, Arc::from([]))))
}

fn routes(instances: usize) -> Routes {
    let services = (0..instances.div_ceil(OF_ONE)).map(|at| service(at, instances.min(OF_ONE)));
    let routes = Routes::empty(me()).updated(services, []);
    assert_eq!(routes.service_count(), instances.div_ceil(OF_ONE));
    routes
}

/// A question: which service, with which labels.
type Question = (String, Selector);

/// `count` questions that each find something, with four labels or without. They share selectors,
/// as a call brings its own into the cache: what is cold is the table.
fn questions(instances: usize, count: usize, selective: bool) -> Vec<Question> {
    let selector = |number: usize| -> Selector {
        let wanted = labels(number).map(|(key, value)| format!("{key}={value}")).join(",");
        if selective { wanted.parse() } else { "".parse() }.expect("a selector")
    };
    let shared: Vec<Selector> = (0..COMBINATIONS).map(selector).collect();
    let one = |at: usize| {
        let number = ((at as u64).wrapping_mul(SPREAD) >> 20) as usize % instances;
        (name(number / OF_ONE), shared[number % COMBINATIONS].clone())
    };
    (0..count).map(one).collect()
}

fn found<'a>(routes: &'a Routes, (name, selector): &'a Question) -> Candidates<'a> {
    match routes.lookup(name, selector) {
        Lookup::Found(candidates) => candidates,
        Lookup::Unknown | Lookup::NoMatch(_) | Lookup::Unreachable(_) => {
            panic!("{name} is there")
        }
    }
}

fn first(routes: &Routes, question: &Question, _: u64) -> InstanceKey {
    found(routes, question).first().key
}

fn pick(routes: &Routes, question: &Question, chance: u64) -> InstanceKey {
    found(routes, question).pick(chance).key
}

type Ask = fn(&Routes, &Question, u64) -> InstanceKey;

fn lookups(c: &mut Criterion) {
    let counted = allocations::during(|| drop(black_box(Box::new(1))));
    assert_eq!(counted, 1, "the counting allocator is in use");
    for size in SIZES {
        let routes = routes(size);
        for (what, ask) in [("lookup", first as Ask), ("lookup and pick", pick as Ask)] {
            let mut group = c.benchmark_group(what);
            for (by, selective) in [("by name", false), ("by name and 4 labels", true)] {
                for (heat, count) in [("hot", HOT), ("cold", COLD)] {
                    let questions = questions(size, count, selective);
                    let made = allocations::during(|| {
                        for question in &questions {
                            black_box(ask(&routes, question, SPREAD));
                        }
                    });
                    assert_eq!(made, 0, "{what} {by} allocates nothing");
                    group.bench_function(BenchmarkId::new(format!("{by}, {heat}"), size), |b| {
                        let mut at = 0_usize;
                        b.iter(|| {
                            at = at.wrapping_add(1);
                            let chance = (at as u64).wrapping_mul(SPREAD);
                            black_box(ask(&routes, &questions[at % count], chance))
                        });
                    });
                }
            }
            group.finish();
        }
    }
}

fn publication(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish one changed service");
    for size in SIZES {
        let shared = ArcSwap::from_pointee(routes(size));
        let instances: Vec<Instance> = (0..size.min(OF_ONE)).map(instance).collect();
        let name: ServiceName = name(0).parse().expect("a service name");
        let publish = |(name, instances): (ServiceName, Vec<Instance>)| {
            let changed = ServiceRoutes::new(name.clone(), 2, instances, Arc::from([]));
            let next = shared.load().updated([(name, Some(changed))], []);
            // The one before is kept until here, as a call in flight would.
            shared.swap(Arc::new(next))
        };
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            let change = || (name.clone(), instances.clone());
            b.iter_batched(change, publish, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// The headers of the calls of the bench: as many as a program sends.
struct Sent([(&'static str, &'static str); 8]);

impl Headers for Sent {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// 99 rules that are for developers, then a canary for everybody.
fn rules() -> Arc<RuleSet> {
    let dev = |n: usize| Rule {
        name: format!("dev-{n}"),
        when: Condition {
            headers: vec![HeaderTest {
                name: "x-dev".into(),
                test: Test::Is(format!("developer-{n}")),
            }],
            ..Condition::default()
        },
        then: Actions { select: "tier=gold".parse().expect("a selector"), ..Actions::default() },
    };
    let subset = |name: &str, select: &str, weight| Subset {
        name: name.into(),
        select: select.parse().expect("a selector"),
        weight,
    };
    let canary = Rule {
        name: "canary".into(),
        when: Condition::default(),
        then: Actions {
            subsets: vec![subset("old", "build in (1.0,1.1)", 90), subset("new", "build=1.2", 10)],
            split_by: Some(Key::Header("x-user".into())),
            ..Actions::default()
        },
    };
    let rules = (0..99).map(dev).chain([canary]).collect();
    let set = RuleSet { revision: 1, rules, ..RuleSet::default() };
    set.check().expect("rules that hold");
    Arc::new(set)
}

/// An instance with eight labels instead of four.
fn wide(number: usize) -> Instance {
    let more = ["a", "b", "c", "d"].map(|key| (key, format!("{key}{}", number % 5)));
    let more: LabelSet = more.iter().map(|(key, value)| (*key, &**value)).collect();
    let one = instance(number);
    Instance { labels: one.labels.overlaid(&more), ..one }
}

fn decisions(c: &mut Criterion) {
    let size = SIZES[2];
    let set = rules();
    let service = |number: usize| {
        let name: ServiceName = name(number).parse().expect("a service name");
        let all = (0..OF_ONE).map(|at| wide(number * OF_ONE + at)).collect();
        let service = ServiceRoutes::new(name.clone(), 1, all, Arc::from([]));
        (name, Some(service.with_rules(Arc::clone(&set), me())))
    };
    let routes = Routes::empty(me()).updated((0..size / OF_ONE).map(service), []);
    let nobody = LabelSet::default();
    let mut group = c.benchmark_group("lookup, 100 rules and two picks");
    for (who, dev) in [("anybody", "x-other"), ("the last developer", "x-dev")] {
        let sent = Sent([
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-go/1.60"),
            ("te", "trailers"),
            ("micro-from-service", "web"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("authorization", "Bearer"),
            ("x-user", "ada"),
            (dev, "developer-98"),
        ]);
        for (heat, count) in [("hot", HOT), ("cold", COLD)] {
            // Selectors of two labels: what the caller asks and the rule adds have to have a match.
            let questions = questions(size, count, true);
            let asked: Vec<Selector> = (0..COMBINATIONS)
                .map(|n| format!("tier={}", if n % 2 == 0 { "gold" } else { "silver" }))
                .map(|text| format!("{text}?,region,zone,a,b,c").parse().expect("a selector"))
                .collect();
            let two = |at: usize, chance: u64| {
                let request = RequestView {
                    endpoint: "Say.Hello",
                    headers: &sent,
                    caller: "web",
                    node_name: "laptop",
                    node_id: "n",
                    node_labels: &nobody,
                    selector: &asked[at % COMBINATIONS],
                    chance,
                };
                let service = &questions[at % count].0;
                let decision = routes.decide(service, &request, UnixTime(1));
                let Lookup::Found(found) = decision.lookup else { panic!("{service} is there") };
                let again = chance.wrapping_mul(SPREAD);
                (found.pick(chance).key, found.pick(again).key)
            };
            let made = allocations::during(|| {
                for at in 0..count {
                    black_box(two(at, SPREAD.wrapping_mul(at as u64)));
                }
            });
            assert_eq!(made, 0, "a decision allocates nothing");
            group.bench_function(BenchmarkId::new(format!("{who}, {heat}"), size), |b| {
                let mut at = 0_usize;
                b.iter(|| {
                    at = at.wrapping_add(1);
                    black_box(two(at, (at as u64).wrapping_mul(SPREAD)))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookups, publication, decisions);
criterion_main!(benches);
