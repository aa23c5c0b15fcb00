//! Rules that operators write, and which of them hold.

use super::*;

/// What `author` writes in place of revision `base`.
fn set(author: Toy, base: u64, rules: Vec<Rule>) -> RuleSet {
    let before = RuleSet { revision: base, ..RuleSet::default() };
    RuleSet::following(Some(&before), rules, author.id(), NOW)
}

fn apply(author: Toy, base: u64, rules: Vec<Rule>) -> Request {
    Request::Rule { service: "s".parse().unwrap(), set: set(author, base, rules) }
}

fn held(net: &Net, at: usize) -> Option<(u64, usize, NodeId)> {
    let rules = net.routes[at].rules("s")?;
    Some((rules.set().revision, rules.set().rules.len(), rules.author()))
}

#[test]
fn rules_reach_every_node_and_a_second_author_is_told_that_he_was_slower() {
    let (a, b) = (Toy(0), Toy(1));
    let routers = vec![
        router(a, 1, operator(a, "*")),
        router(b, 1, operator(b, "default")),
        router(Toy(2), 1, node(Toy(2), "*", 1 << 20)),
    ];
    let mut net = Net::of(routers);
    net.link(0, 1, 1_000);
    let last = net.link(1, 2, 1_000);
    net.register(2, "s", "one");
    net.settle();
    let some = || vec![rule("x", Condition::default(), Actions::default())];
    net.request(0, apply(Toy(0), 0, some())).unwrap();
    net.settle();
    assert!((0..3).all(|at| held(&net, at) == Some((1, 1, a.id()))));
    assert_eq!(net.request(1, apply(Toy(1), 0, some())), Err(Refusal::StaleRules(1)));
    net.request(1, apply(Toy(1), 1, vec![])).unwrap();
    net.settle();
    assert!((0..3).all(|at| held(&net, at) == Some((2, 0, b.id()))), "taken away is taken away");
    // What is decided stays decided while its author is away.
    net.unlink(last);
    net.settle();
    assert_eq!(held(&net, 2), Some((2, 0, b.id())));
}

#[test]
fn two_that_write_at_once_agree_on_one_of_them() {
    let routers = (0..2).map(|n| router(Toy(n), 1, operator(Toy(n), "*"))).collect();
    let mut net = Net::of(routers);
    net.register(0, "s", "one");
    net.register(1, "s", "two");
    let named = |name: &str| vec![rule(name, Condition::default(), Actions::default())];
    net.request(0, apply(Toy(0), 0, named("a"))).unwrap();
    net.request(1, apply(Toy(1), 0, named("b"))).unwrap();
    net.link(0, 1, 1_000);
    net.settle();
    assert_eq!(held(&net, 0), held(&net, 1));
    assert_eq!(held(&net, 0).unwrap().2, Toy(0).id().min(Toy(1).id()));
}

#[test]
fn rules_are_known_before_the_first_instance_and_after_the_last() {
    let mut net = Net::of(vec![
        router(Toy(0), 1, operator(Toy(0), "*")),
        router(Toy(1), 1, node(Toy(1), "*", 1 << 20)),
    ]);
    net.link(0, 1, 1_000);
    let abort = Some(Abort { status: 503, part: Part::WHOLE });
    let then = Actions { abort, ..Actions::default() };
    net.request(0, apply(Toy(0), 0, vec![rule("x", Condition::default(), then)])).unwrap();
    net.settle();
    let known = |net: &Net| {
        let routes = &net.routes[1];
        let names: Vec<String> = routes.ruled().map(|(name, _)| name.to_string()).collect();
        assert_eq!((held(net, 1), names), (Some((1, 1, Toy(0).id())), vec!["s".to_owned()]));
        let (map, none, any) = (Map(BTreeMap::new()), LabelSet::default(), Selector::default());
        let request = RequestView {
            endpoint: "/",
            headers: &map,
            caller: "",
            node_name: "laptop",
            node_id: "abc",
            node_labels: &none,
            selector: &any,
            chance: 5,
        };
        let decision = routes.decide("s", &request, NOW);
        assert_eq!(decision.abort.map(|abort| abort.status), Some(503));
        assert_eq!(routes.explain("s", &request, NOW).looked_at.len(), 1);
        (routes.service_count(), matches!(decision.lookup, Lookup::Unknown))
    };
    assert_eq!(known(&net), (0, true));
    net.register(1, "s", "one");
    net.settle();
    assert_eq!(known(&net), (1, false));
    let (service, instance) = ("s".parse().unwrap(), "one".into());
    net.request(1, Request::Deregister { service, version: None, instance }).unwrap();
    net.settle();
    assert_eq!(known(&net), (0, true));
}

#[test]
fn a_new_life_says_again_what_the_one_before_decided_and_overrules_nobody() {
    let (a, b) = (Toy(0), Toy(1));
    let mut net = Net::of(vec![router(a, 1, operator(a, "*")), router(b, 1, operator(b, "*"))]);
    let link = net.link(0, 1, 1_000);
    net.register(1, "s", "one");
    net.request(0, apply(Toy(0), 0, vec![])).unwrap();
    net.request(0, apply(Toy(0), 1, vec![])).unwrap();
    net.settle();
    net.unlink(link);
    // The author dies and comes back, and nobody has decided since.
    let restore =
        || Request::Restore { service: "s".parse().unwrap(), set: set(a, 1, vec![]), told: true };
    net.routers[0] = router(a, 2, operator(a, "*"));
    net.request(0, restore()).unwrap();
    let link = net.link(0, 1, 1_000);
    net.settle();
    assert_eq!(held(&net, 1), Some((2, 0, a.id())));
    // It dies again, and somebody does.
    net.unlink(link);
    let some = vec![rule("x", Condition::default(), Actions::default())];
    net.request(1, apply(Toy(1), 2, some)).unwrap();
    net.routers[0] = router(a, 3, operator(a, "*"));
    net.request(0, restore()).unwrap();
    net.link(0, 1, 1_000);
    net.settle();
    assert_eq!(held(&net, 1), Some((3, 1, b.id())));
    assert_eq!(net.request(0, apply(Toy(0), 2, vec![])), Err(Refusal::StaleRules(3)));
}

#[test]
fn who_is_no_operator_of_the_namespace_decides_nothing() {
    let (none, other) = (Toy(0), Toy(1));
    let routers =
        vec![router(none, 1, node(none, "*", 1 << 20)), router(other, 1, operator(other, "pay"))];
    let mut net = Net::of(routers);
    let link = net.link(0, 1, 1_000);
    net.register(0, "s", "one");
    net.settle();
    for at in [0, 1] {
        assert_eq!(net.request(at, apply(Toy(0), 0, vec![])), Err(Refusal::NotGranted));
    }
    // Nor does one who writes it all the same.
    let body = proto::record::Body::Rules("s".parse().unwrap(), Arc::default());
    let version = proto::Version { epoch: proto::Epoch(1), seq: proto::Seq(99) };
    let lie = proto::Verified::own(crate::testing::network(), &other, version, body);
    net.frame(0, link, crate::Message::records(vec![lie]));
    net.settle();
    assert_eq!(held(&net, 0), None);
}
