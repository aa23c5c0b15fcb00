mod programs;

use std::sync::Arc;
use std::time::Duration;

use proto::frame::Frame;
use proto::record::{Adjacency, Body, PathKind, Service, VersionOf};
use proto::{Cost, Epoch, NodeId, Selector, Seq, ServiceName, Verified, Version};

use super::Router;
use crate::testing::{Net, Toy, network, node, registration, router};
use crate::{LinkEvent, Lookup, Message, Note, Refusal, Request};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn version(epoch: u64, seq: u64) -> Version {
    Version { epoch: Epoch(epoch), seq: Seq(seq) }
}

/// A service record of `who` with one instance.
fn service(who: Toy, name: &str, id: &str, version: Version) -> Verified {
    let instance = registration(name, id, None).instance;
    let of = VersionOf { version: "1".into(), instances: vec![instance], ..VersionOf::default() };
    let body = Body::Service(name.parse().unwrap(), Box::new(Service { versions: vec![of] }));
    Verified::own(network(), &who, version, body)
}

fn node_record(who: Toy, services: &str, version: Version) -> Verified {
    Verified::own(network(), &who, version, Body::Node(Box::new(node(who, services, 1 << 20))))
}

/// What `net` has sent since, of records.
fn records_sent(net: &mut Net) -> usize {
    let frames = net.sent.iter_mut().flat_map(std::mem::take);
    frames
        .map(|frame| match frame {
            Frame::Records(records) => records.len(),
            Frame::Hello(_)
            | Frame::Digest(_)
            | Frame::Summary(_)
            | Frame::Want(_)
            | Frame::Bye => 0,
        })
        .sum()
}

#[test]
fn a_full_link_is_told_nothing_and_everything_once_it_is_drained() {
    let mut net = Net::new(2);
    let link = net.link(0, 1, 500);
    net.run(Duration::from_secs(1));
    net.event(0, link, LinkEvent::Full);
    for n in 0..50 {
        let name = format!("s{n}");
        net.register(0, &name, "a");
        net.run(Duration::from_millis(20));
    }
    let told = |net: &Net| net.routes[1].services().count();
    assert_eq!(told(&net), 0);
    net.event(0, link, LinkEvent::Drained);
    net.run(Duration::from_secs(1));
    assert_eq!(told(&net), 50);
}

#[test]
fn a_node_alone_finds_itself_and_its_services_at_once() {
    let mut net = Net::new(1);
    net.register(0, "greeter", "a");
    let none = Selector::default();
    let Lookup::Found(found) = net.routes[0].lookup("greeter", &none) else { panic!("not found") };
    let one = found.first();
    assert!(one.here && one.group == 0 && one.cost == Cost::ZERO);
    assert_eq!(one.labels.to_string(), "node=node-0,protocol=grpc,region=eu,version=latest");
    assert_eq!(net.reach(0), 1);
}

#[test]
fn what_one_registers_all_find_and_what_it_withdraws_none() {
    let mut net = Net::new(4);
    for (a, b) in [(0, 1), (1, 2), (2, 3)] {
        net.link(a, b, 1_000);
    }
    net.settle();
    net.register(0, "greeter", "a");
    net.register(0, "greeter", "b");
    net.register(2, "greeter", "c");
    net.settle();
    for at in 0..4 {
        assert_eq!(net.found(at, "greeter"), ["a", "b", "c"], "at {at}");
        assert_eq!(net.reach(at), 4);
    }
    let path = net.routes[0].node(&Toy(3).id()).unwrap();
    assert_eq!((path.cost, path.next), (Cost::from_micros(3_000), Some(Toy(1).id())));
    let withdraw = |id: &str| Request::Deregister {
        service: "greeter".parse().unwrap(),
        version: None,
        instance: id.into(),
    };
    net.request(0, withdraw("a")).unwrap();
    net.settle();
    assert_eq!(net.found(3, "greeter"), ["b", "c"]);
    net.request(0, withdraw("b")).unwrap();
    net.request(2, withdraw("c")).unwrap();
    net.settle();
    assert!((0..4).all(|at| net.routes[at].service("greeter").is_none()));
}

#[test]
fn news_reaches_a_neighbour_once_and_does_not_go_back() {
    let mut net = Net::new(3);
    net.link(0, 1, 1_000);
    net.link(1, 2, 1_000);
    net.settle();
    records_sent(&mut net);
    net.register(0, "greeter", "a");
    net.settle();
    assert_eq!(records_sent(&mut net), 2, "0 to 1, 1 to 2");
}

#[test]
fn a_quiet_network_says_one_digest_a_link_and_period() {
    let mut net = Net::new(4);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        net.link(a, b, 1_000);
    }
    net.settle();
    net.sent.iter_mut().for_each(Vec::clear);
    net.run(Duration::from_secs(100));
    let sent: Vec<_> = net.sent.iter().flatten().collect();
    assert!(sent.iter().all(|frame| matches!(frame, Frame::Digest(_))), "{sent:?}");
    assert!((30..=60).contains(&sent.len()), "{} digests", sent.len());
}

#[test]
fn a_lease_that_is_not_renewed_ends_everywhere() {
    let mut net = Net::new(2);
    net.link(0, 1, 1_000);
    let lease = || Request::Register(registration("s", "a", Some(Duration::from_secs(30))));
    net.request(0, lease()).unwrap();
    net.run(Duration::from_secs(20));
    net.request(0, lease()).unwrap();
    net.run(Duration::from_secs(20));
    assert_eq!(net.found(1, "s"), ["a"]);
    net.run(Duration::from_secs(11));
    assert!(net.routes[0].service("s").is_none() && net.routes[1].service("s").is_none());
    let ended = Note::LeaseEnded { service: "s".parse().unwrap(), instance: "a".into() };
    assert!(net.notes[0].contains(&ended));
}

#[test]
fn renewing_a_lease_tells_nobody() {
    let mut net = Net::new(2);
    net.link(0, 1, 1_000);
    let lease = || Request::Register(registration("s", "a", Some(Duration::from_secs(30))));
    net.request(0, lease()).unwrap();
    net.settle();
    records_sent(&mut net);
    net.request(0, lease()).unwrap();
    net.settle();
    assert_eq!(records_sent(&mut net), 0);
}

#[test]
fn a_service_outside_the_grant_is_refused_at_home_and_believed_nowhere() {
    let modest = Toy(1);
    let routers = vec![
        router(Toy(0), 1, node(Toy(0), "*", 1 << 20)),
        router(modest, 1, node(modest, "ok*", 1 << 20)),
    ];
    let mut net = Net::of(routers);
    let link = net.link(0, 1, 1_000);
    net.settle();
    let refused = net.request(1, Request::Register(registration("bank", "a", None)));
    assert_eq!(refused, Err(Refusal::NotGranted));
    let lie = Message::records(vec![service(modest, "bank", "a", version(1, 99))]);
    net.frame(0, link, lie);
    net.settle();
    assert!(net.routes[0].service("bank").is_none());
    let name: ServiceName = "bank".parse().unwrap();
    assert!(net.notes[0].contains(&Note::NotGranted { node: modest.id(), service: name }));
    // A wider grant makes the same record believed.
    net.frame(0, link, Message::records(vec![node_record(modest, "*", version(1, 100))]));
    net.settle();
    assert_eq!(net.found(0, "bank"), ["a"]);
}

#[test]
fn a_suspected_link_is_not_used_by_anybody_until_it_recovers() {
    let mut net = Net::new(3);
    net.link(0, 1, 1_000);
    let link = net.link(1, 2, 1_000);
    net.register(2, "s", "a");
    net.settle();
    net.event(1, link, LinkEvent::Suspected);
    net.run(Duration::from_millis(50));
    assert_eq!((net.reach(0), net.reach(1)), (2, 2));
    let none = Selector::default();
    assert!(matches!(net.routes[0].lookup("s", &none), Lookup::Unreachable(_)));
    net.event(1, link, LinkEvent::Recovered(Cost::from_micros(2_000)));
    net.settle();
    assert_eq!((net.reach(0), net.found(0, "s").len()), (3, 1));
}

#[test]
fn a_restart_replaces_all_of_the_life_before() {
    let mut net = Net::new(2);
    let link = net.link(0, 1, 1_000);
    net.register(1, "old", "a");
    net.settle();
    assert_eq!(net.found(0, "old"), ["a"]);
    net.unlink(link);
    net.routers[1] = router(Toy(1), 2, node(Toy(1), "*", 1 << 20));
    net.link(1, 0, 1_000);
    net.register(1, "new", "b");
    net.settle();
    assert!(net.routes[0].service("old").is_none());
    assert_eq!(net.found(0, "new"), ["b"]);
}

#[test]
fn a_life_whose_clock_is_behind_rises_above_the_one_before() {
    let routers = vec![
        router(Toy(0), 1, node(Toy(0), "*", 1 << 20)),
        router(Toy(1), 900, node(Toy(1), "*", 1 << 20)),
    ];
    let mut net = Net::of(routers);
    let link = net.link(0, 1, 1_000);
    net.register(1, "old", "a");
    net.settle();
    net.unlink(link);
    net.routers[1] = router(Toy(1), 5, node(Toy(1), "*", 1 << 20));
    net.register(1, "new", "b");
    net.link(1, 0, 1_000);
    net.settle();
    assert_eq!(net.routers[1].epoch(), Epoch(901));
    assert!(net.routes[0].service("old").is_none());
    assert_eq!((net.found(0, "new"), net.reach(0)), (vec!["b".to_owned()], 2));
    assert!(net.notes[1].contains(&Note::Overtaken));
}

#[test]
fn an_own_record_from_the_future_is_overruled() {
    let mut net = Net::new(3);
    net.link(0, 1, 1_000);
    let link = net.link(1, 2, 1_000);
    net.register(0, "true", "a");
    net.settle();
    // The key was stolen, or copied: neither record is what node 0 says.
    let lies = vec![
        service(Toy(0), "true", "lie", version(1, 500)),
        service(Toy(0), "false", "lie", version(1, 501)),
    ];
    net.frame(1, link, Message::records(lies));
    net.settle();
    for at in 0..3 {
        assert_eq!(net.found(at, "true"), ["a"], "at {at}");
        assert!(net.routes[at].service("false").is_none(), "at {at}");
    }
}

#[test]
fn what_was_withdrawn_is_not_brought_back_by_a_replay() {
    let mut net = Net::new(3);
    net.link(0, 1, 1_000);
    let link = net.link(1, 2, 1_000);
    net.register(0, "s", "a");
    net.settle();
    let old = held(&net.routers[2], Toy(0).id(), "s");
    let gone =
        Request::Deregister { service: "s".parse().unwrap(), version: None, instance: "a".into() };
    net.request(0, gone).unwrap();
    net.settle();
    net.frame(1, link, Message::Records(vec![old.clone()]));
    net.frame(2, link, Message::Records(vec![old]));
    net.settle();
    assert!((0..3).all(|at| net.routes[at].service("s").is_none()));
}

fn held(router: &Router, origin: NodeId, service: &str) -> Arc<Verified> {
    let id = crate::lsdb::record_id(origin, proto::record::Kind::SERVICE, service.as_bytes());
    router.lsdb.get(&id).unwrap().clone()
}

#[test]
fn records_of_strangers_are_not_taken_in() {
    let mut net = Net::new(2);
    let link = net.link(0, 1, 1_000);
    net.settle();
    let before = net.routers[0].records();
    let stranger = Toy(99);
    let adjacency = Adjacency { cost: Cost::from_micros(1), path: PathKind::Direct };
    let body = Body::Adjacency(Toy(0).id(), adjacency);
    let lies = vec![
        service(stranger, "s", "a", version(1, 1)),
        Verified::own(network(), &stranger, version(1, 2), body),
    ];
    net.frame(0, link, Message::records(lies));
    net.settle();
    assert_eq!(net.routers[0].records(), before);
    assert_eq!(net.notes[0].iter().filter(|n| matches!(n, Note::Rejected { .. })).count(), 2);
}

#[test]
fn who_leaves_is_gone_at_once_with_all_it_offered() {
    let mut net = Net::new(3);
    net.link(0, 1, 1_000);
    net.link(1, 2, 1_000);
    net.register(0, "s", "a");
    net.settle();
    net.request(0, Request::Leave).unwrap();
    assert_eq!(net.left, [0]);
    net.run(Duration::from_millis(50));
    for at in 1..3 {
        assert!(
            net.routes[at].service("s").is_none() && net.routes[at].node(&Toy(0).id()).is_none()
        );
        let left = Note::Left { node: Toy(0).id(), name: "node-0".into() };
        assert!(net.notes[at].contains(&left));
    }
    let refused = net.request(0, Request::Register(registration("s", "a", None)));
    assert_eq!(refused, Err(Refusal::Leaving));
}

#[test]
fn a_node_is_dropped_when_its_grant_ends_and_is_back_when_it_is_renewed() {
    let routers = vec![
        router(Toy(0), 1, node(Toy(0), "*", 1 << 20)),
        router(Toy(1), 1, node(Toy(1), "*", 60)),
    ];
    let mut net = Net::of(routers);
    net.link(0, 1, 1_000);
    net.register(1, "s", "a");
    net.run(Duration::from_secs(59));
    assert_eq!(net.found(0, "s"), ["a"]);
    net.run(Duration::from_secs(2));
    assert!(net.routes[0].service("s").is_none());
    assert!(net.notes[0].contains(&Note::Expired(Toy(1).id())));
    let refused = net.request(1, Request::Register(registration("t", "b", None)));
    assert_eq!(refused, Err(Refusal::Expired));
    net.request(1, Request::Describe(node(Toy(1), "*", 1 << 20))).unwrap();
    net.settle();
    assert_eq!((net.found(0, "s"), net.reach(0)), (vec!["a".to_owned()], 2));
}

#[test]
fn the_unreachable_are_remembered_for_a_day_and_then_forgotten() {
    let mut net = Net::new(2);
    let link = net.link(0, 1, 1_000);
    net.register(1, "s", "a");
    net.settle();
    net.unlink(link);
    net.run(DAY / 2);
    assert!(net.routes[0].service("s").is_some() && net.found(0, "s").is_empty());
    net.run(DAY);
    assert!(net.routes[0].node(&Toy(1).id()).is_none());
    assert!(net.routes[0].service("s").is_none());
    assert_eq!(net.routers[0].records(), 1, "its own node record");
}

#[test]
fn what_a_lossy_link_missed_is_found_by_a_digest() {
    let mut net = Net::new(2);
    let link = net.link(0, 1, 1_000);
    net.settle();
    // A record that 0 holds and never told: as if its frame had been dropped.
    let record = Arc::new(service(Toy(0), "s", "a", version(1, 50)));
    net.routers[0].lsdb.put(record, net.now);
    net.run(Duration::from_secs(13));
    assert_eq!(net.found(1, "s"), ["a"]);
    let _ = link;
}

#[test]
fn of_two_links_one_is_closed_by_who_opened_it() {
    let mut net = Net::new(2);
    let lower = usize::from(Toy(1).id() < Toy(0).id());
    let first = net.link(lower, 1 - lower, 1_000);
    let second = net.link(1 - lower, lower, 1_000);
    assert_eq!(net.closed, [(1 - lower, second)]);
    net.closed.clear();
    // While the one that is to stay is suspected, a new one takes its place instead.
    net.unlink(second);
    net.event(0, first, LinkEvent::Suspected);
    net.event(1, first, LinkEvent::Suspected);
    let third = net.link(1 - lower, lower, 1_000);
    assert_eq!(net.closed, [(lower, first)]);
    net.unlink(first);
    net.settle();
    assert_eq!((net.reach(0), net.reach(1)), (2, 2), "{third} carries on");
}

#[test]
fn one_origin_cannot_fill_the_database() {
    let mut net = Net::new(2);
    let link = net.link(0, 1, 1_000);
    net.settle();
    let flood = (0..2_000u64)
        .map(|n| service(Toy(1), &format!("s{n}"), "a", version(1, 1_000 + n)))
        .collect();
    net.frame(0, link, Message::records(flood));
    net.run(Duration::from_millis(100));
    assert_eq!(net.routes[0].service_count(), 1_000);
    let changes = (0..5_000u64).map(|n| service(Toy(1), "s0", "a", version(1, 10_000 + n)));
    let changes: Vec<_> = changes.collect();
    net.notes[0].clear();
    net.frame(0, link, Message::records(changes));
    let why =
        |note: &Note| matches!(note, Note::Rejected { why: crate::output::Reject::TooOften, .. });
    assert!(net.notes[0].iter().filter(|note| why(note)).count() >= 2_900);
}

#[test]
fn a_description_that_others_could_not_read_is_refused() {
    let mut net = Net::new(1);
    let mut long = registration("s", "a", None);
    long.instance.address = "x".repeat(301);
    assert!(matches!(net.request(0, Request::Register(long)), Err(Refusal::Malformed(_))));
    let mut large = registration("s", "a", None);
    large.endpoints = (0..500)
        .map(|n| proto::record::Endpoint { name: format!("{n:0>400}"), ..Default::default() })
        .collect();
    assert_eq!(net.request(0, Request::Register(large)), Err(Refusal::TooLarge));
    assert!(net.routes[0].service("s").is_none());
}

#[test]
fn a_large_origin_is_compared_in_parts() {
    let mut net = Net::new(2);
    let link = net.link(0, 1, 1_000);
    net.settle();
    net.unlink(link);
    let name = |n: usize| format!("{n:0>250}");
    for n in 0..1_000 {
        net.register(0, &name(n), "a");
    }
    let link = net.link(1, 0, 1_000);
    net.settle();
    assert_eq!(net.routes[1].service_count(), 1_000);
    // And the other way: what only the dialler has.
    net.unlink(link);
    net.request(
        0,
        Request::Deregister {
            service: name(5).parse().unwrap(),
            version: None,
            instance: "a".into(),
        },
    )
    .unwrap();
    net.link(0, 1, 1_000);
    net.run(Duration::from_secs(20));
    assert_eq!(net.routes[1].service_count(), 999);
    assert_eq!(net.routes[1].node(&Toy(0).id()).unwrap().services, 999);
}
