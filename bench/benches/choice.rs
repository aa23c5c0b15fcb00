//! Choosing one of a hundred instances: with everything known of them, behind the lock as the data
//! plane has it, with the outcome and the end of the call. That it allocates nothing is checked
//! before it is measured.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::allocations::{self, Counting};
use criterion::{Criterion, criterion_group, criterion_main};
use parking_lot::Mutex;
use proto::record::Protocol;
use proto::{Cost, LabelSet, NodeId, Selector, ServiceName, Time};
use proxy::balance::{Balancer, Outcome, Pool, Report};
use router::{Candidates, Instance, InstanceKey, Lookup, Routes, ServiceRoutes};

#[global_allocator]
static COUNTING: Counting = Counting;

const INSTANCES: usize = 100;
const NAME: &str = "go.micro.srv.shop";

fn instance(number: usize) -> Instance {
    Instance {
        key: InstanceKey((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        id: format!("instance-{number:08x}").into(),
        node: NodeId::from_bytes([number as u8; 32]),
        here: false,
        address: "10.0.0.1:5000".into(),
        protocol: Protocol::Grpc,
        version: "latest".into(),
        labels: [("tier", if number.is_multiple_of(2) { "gold" } else { "silver" })]
            .into_iter()
            .collect::<LabelSet>(),
        metadata: LabelSet::default(),
        cost: Cost::from_micros(100),
        group: 2,
    }
}

fn routes() -> Routes {
    let name: ServiceName = NAME.parse().expect("a service name");
    let all = (0..INSTANCES).map(instance).collect();
    let service = ServiceRoutes::new(name.clone(), 1, all, Arc::from([]));
    Routes::empty(NodeId::from_bytes([1; 32])).updated([(name, Some(service))], [])
}

fn found<'a>(routes: &'a Routes, selector: &'a Selector) -> Candidates<'a> {
    match routes.lookup(NAME, selector) {
        Lookup::Found(candidates) => candidates,
        Lookup::Unknown | Lookup::NoMatch(_) | Lookup::Unreachable(_) => panic!("it is there"),
    }
}

/// One call as the data plane makes it: the time is read twice.
fn call(balancer: &Mutex<Balancer>, start: Instant, candidates: &Candidates<'_>, any: &Selector) {
    let now = || {
        let passed = start.elapsed();
        Time::from_micros(passed.as_secs() * 1_000_000 + u64::from(passed.subsec_micros()))
    };
    let pool = Pool::new(candidates, |instance: &Instance| {
        instance.protocol == Protocol::Grpc && (any.is_empty() || any.matches(&instance.labels))
    });
    let chosen = balancer.lock().choose(&pool, true, now());
    let Ok((instance, mut ticket)) = chosen else { panic!("one is ready") };
    black_box(instance.key);
    let report = Report { in_flight: 3, limit: 4_096 };
    balancer.lock().settle(&mut ticket, Outcome::Answered, Some(report), now());
    let end = ticket.began();
    balancer.lock().leave(ticket, end);
}

fn choice(c: &mut Criterion) {
    let routes = routes();
    let start = Instant::now();
    let mut group = c.benchmark_group("choice among 100");
    for (what, selector) in [("any", ""), ("half match", "tier=gold")] {
        let selector: Selector = selector.parse().expect("a selector");
        let balancer = Mutex::new(Balancer::new(1, 4_096));
        let candidates = found(&routes, &selector);
        for _ in 0..1_000 {
            call(&balancer, start, &candidates, &selector);
        }
        let made = allocations::during(|| call(&balancer, start, &candidates, &selector));
        assert_eq!(made, 0, "a choice allocates nothing");
        group.bench_function(format!("choose, settle, leave: {what}"), |b| {
            b.iter(|| call(&balancer, start, &candidates, &selector));
        });
        let mut core = Balancer::new(1, u32::MAX);
        let mut now = Time::from_micros(1);
        group.bench_function(format!("choose and leave, no clock, no lock: {what}"), |b| {
            let fits =
                |instance: &Instance| selector.is_empty() || selector.matches(&instance.labels);
            b.iter(|| {
                now = now + Duration::from_micros(1);
                let pool = Pool::new(&candidates, fits);
                let (_, ticket) = core.choose(&pool, true, now).expect("one is ready");
                core.leave(black_box(ticket), now);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, choice);
criterion_main!(benches);
