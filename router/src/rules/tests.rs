mod written;

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::rule::{
    Abort, Actions, Condition, Divert, HeaderTest, Key, Mirror, Part, Rate, Rule, RuleSet, Subset,
    Test,
};
use proto::{LabelSet, NodeId, Selector, ServiceName, UnixTime};

use super::*;
use crate::routes::Routes;
use crate::routes::tests_support::instance;
use crate::testing::{Net, Toy, node, operator, router};
use crate::{Lookup, Refusal, Request};

const NOW: UnixTime = UnixTime(1_000);

struct Map(BTreeMap<&'static str, &'static str>);

impl Headers for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).copied()
    }
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn rule(name: &str, when: Condition, then: Actions) -> Rule {
    Rule { name: name.into(), when, then }
}

fn with_header(name: &str, value: &str) -> Condition {
    let headers = vec![HeaderTest { name: name.into(), test: Test::Is(value.into()) }];
    Condition { headers, ..Condition::default() }
}

fn subset(name: &str, select: &str, weight: u16) -> Subset {
    Subset { name: name.into(), select: select.parse().unwrap(), weight }
}

/// Two instances of v1 and one of v2, on the nodes 1 to 3.
fn routes(rules: Vec<Rule>) -> Routes {
    let name: ServiceName = "shop".parse().unwrap();
    let one = |n: u8, version: &str| {
        instance(&format!("i{n}"), id(n), 1, u32::from(n), &[("version", version)])
    };
    let all = vec![one(1, "v1"), one(2, "v1"), one(3, "v2")];
    let set = Arc::new(RuleSet { revision: 4, rules, ..RuleSet::default() });
    assert_eq!(set.check(), Ok(()));
    let service = ServiceRoutes::new(name.clone(), 1, all, Arc::from([])).with_rules(set, id(9));
    Routes::empty(id(1)).updated([(name, Some(service))], [])
}

/// What is decided, in words: rule, subset, and the instances of the nearest group.
fn decided(
    routes: &Routes,
    headers: &[(&'static str, &'static str)],
    asked: &str,
    chance: u64,
) -> String {
    let (map, none) = (Map(headers.iter().copied().collect()), LabelSet::default());
    let selector: Selector = asked.parse().unwrap();
    let request = RequestView {
        endpoint: "Orders.Place",
        headers: &map,
        caller: "web",
        node_name: "laptop",
        node_id: "abc",
        node_labels: &none,
        selector: &selector,
        chance,
    };
    let decision = routes.decide("shop", &request, NOW);
    let rule = decision.rule.map_or("-", |(rule, _)| &rule.name);
    let subset = decision.subset.map_or("-", |subset| &subset.name);
    let found = match decision.lookup {
        Lookup::Found(found) => found.nearest().map(|one| &*one.id).collect::<Vec<_>>().join("+"),
        Lookup::Unknown | Lookup::NoMatch(_) | Lookup::Unreachable(_) => "none".to_owned(),
    };
    format!("{rule} {subset} {found}")
}

#[test]
fn a_canary_gets_its_share_and_a_user_always_the_same() {
    let then = Actions {
        subsets: vec![subset("stable", "version=v1", 90), subset("canary", "version=v2", 10)],
        split_by: Some(Key::Header("x-user".into())),
        ..Actions::default()
    };
    let routes = routes(vec![rule("canary", Condition::default(), then)]);
    let by_chance = (0..20_000).map(|n: u64| decided(&routes, &[], "", proto::rule::mix(n)));
    let canary = by_chance.filter(|what| what == "canary canary i3").count();
    assert!((1_800..=2_200).contains(&canary), "{canary}");
    let of =
        |user| (0..50).map(|n| decided(&routes, &[("x-user", user)], "", n)).collect::<Vec<_>>();
    for user in ["ada", "bob", "eve"] {
        assert!(of(user).windows(2).all(|two| two[0] == two[1]), "{user}");
    }
}

#[test]
fn what_the_caller_requires_stands_above_a_canary() {
    let then = Actions { subsets: vec![subset("new", "version=v2", 1)], ..Actions::default() };
    let routes = routes(vec![rule("all", Condition::default(), then)]);
    assert_eq!(decided(&routes, &[], "", 0), "all new i3");
    assert_eq!(decided(&routes, &[], "version=v1", 0), "all new i1+i2");
    assert_eq!(decided(&routes, &[], "version=v9", 0), "all new none");
}

#[test]
fn a_divert_holds_for_its_calls_its_time_and_while_its_node_is_there() {
    let to = |n: u8, until: u64| Actions {
        divert: Some(Divert { node: id(n), until: UnixTime(until) }),
        ..Actions::default()
    };
    let all = vec![
        rule("ada", with_header("x-dev", "ada"), to(3, 1_001)),
        rule("bob", with_header("x-dev", "bob"), to(3, 1_000)),
        rule("eve", with_header("x-dev", "eve"), to(77, 2_000)),
        rule("old", with_header("x-old", "1"), to(1, 2_000)),
    ];
    let routes = routes(all);
    assert_eq!(decided(&routes, &[("x-dev", "ada")], "", 0), "ada - i3");
    assert_eq!(decided(&routes, &[("x-dev", "bob")], "", 0), "- - i1+i2+i3", "it has ended");
    assert_eq!(decided(&routes, &[("x-dev", "eve")], "", 0), "- - i1+i2+i3", "not there");
    assert_eq!(decided(&routes, &[("x-dev", "zoe")], "", 0), "- - i1+i2+i3");
    assert_eq!(decided(&routes, &[], "", 0), "- - i1+i2+i3");
    assert_eq!(decided(&routes, &[("x-old", "1")], "", 0), "old - i1");
    assert_eq!(decided(&routes, &[("x-old", "1")], "version=v2", 0), "- - i3", "not what is asked");
}

#[test]
fn a_divert_that_is_over_or_has_nobody_there_leaves_the_call_to_the_rules_behind_it() {
    let to = |n: u8, until: u64| Actions {
        divert: Some(Divert { node: id(n), until: UnixTime(until) }),
        timeout: Some(1),
        ..Actions::default()
    };
    let canary = Actions { subsets: vec![subset("new", "version=v2", 1)], ..Actions::default() };
    let routes = routes(vec![
        rule("ended", Condition::default(), to(1, 1_000)),
        rule("away", Condition::default(), to(77, 2_000)),
        rule("canary", Condition::default(), canary),
    ]);
    assert_eq!(decided(&routes, &[], "", 0), "canary new i3");
    let (map, none, selector) = (Map(BTreeMap::new()), LabelSet::default(), Selector::default());
    let request = RequestView {
        endpoint: "/",
        headers: &map,
        caller: "",
        node_name: "laptop",
        node_id: "abc",
        node_labels: &none,
        selector: &selector,
        chance: 5,
    };
    let why = routes.explain("shop", &request, NOW).to_string();
    for part in [
        "ended not for this call: divert, which has ended",
        "away not for this call: divert, whose node has no instance for it",
        "canary decides",
    ] {
        assert!(why.contains(part), "{part:?} is not in\n{why}");
    }
}

#[test]
fn headers_are_told_apart_by_value_name_and_number() {
    // More names than a call remembers, values that begin alike, and one that is too long for any.
    let named =
        |n: usize| rule(&format!("r{n}"), with_header(&format!("x-{n}"), "1"), Actions::default());
    let mut all: Vec<Rule> = (0..20).map(named).collect();
    let begins = HeaderTest { name: "x-3".into(), test: Test::Prefix("long".into()) };
    let two =
        vec![with_header("x-3", "2").headers.remove(0), with_header("x-19", "2").headers.remove(0)];
    all.push(rule("two", Condition { headers: two, ..Condition::default() }, Actions::default()));
    all.push(rule(
        "begins",
        Condition { headers: vec![begins], ..Condition::default() },
        Actions::default(),
    ));
    let routes = routes(all);
    let of = |headers: &[(&'static str, &'static str)]| {
        decided(&routes, headers, "", 0).split(' ').next().unwrap().to_owned()
    };
    assert_eq!(of(&[("x-0", "1")]), "r0");
    assert_eq!(of(&[("x-19", "1")]), "r19");
    assert_eq!(of(&[("x-0", "2"), ("x-19", "1")]), "r19");
    assert_eq!(of(&[("x-3", "2"), ("x-19", "2")]), "two");
    assert_eq!(of(&[("x-3", "2"), ("x-19", "3")]), "-");
    let long: &'static str = format!("long{}", "x".repeat(64 * 1024)).leak();
    assert_eq!(of(&[("x-3", long)]), "begins");
}

#[test]
fn the_first_rule_that_matches_decides_alone() {
    let select = |text: &str| Actions { select: text.parse().unwrap(), ..Actions::default() };
    let endpoint = |text: &str| Condition {
        endpoints: vec![proto::grant::Pattern::new(text).unwrap()],
        ..Condition::default()
    };
    let caller = Condition {
        callers: vec![proto::grant::Pattern::new("web").unwrap()],
        ..Condition::default()
    };
    let routes = routes(vec![
        rule("other", endpoint("Users.*"), select("version=v9")),
        rule("orders", endpoint("Orders.*"), select("version=v2")),
        rule("web", caller, select("version=v1")),
    ]);
    assert_eq!(decided(&routes, &[], "", 0), "orders - i3");
    assert_eq!(decided(&routes, &[], "version=v1", 0), "orders - none", "both must hold");
}

#[test]
fn keys_faults_and_limits_are_those_of_the_call() {
    let then = Actions {
        affinity: Some(Key::Cookie("sid".into())),
        abort: Some(Abort { status: 503, part: Part::WHOLE }),
        mirror: Some(Mirror { target: "copy".parse().unwrap(), part: Part::default() }),
        rate: Some(Rate { per_second: 1, burst: 1, by: Some(Key::Caller) }),
        timeout: Some(250),
        ..Actions::default()
    };
    let routes = routes(vec![rule("all", Condition::default(), then)]);
    let (none, selector) = (LabelSet::default(), Selector::default());
    let request = |headers, caller| RequestView {
        endpoint: "/",
        headers,
        caller,
        node_name: "laptop",
        node_id: "abc",
        node_labels: &none,
        selector: &selector,
        chance: 5,
    };
    let cookies = Map([("cookie", "a=1; sid=7")].into_iter().collect());
    let others = Map([("cookie", "sid=8; a=1")].into_iter().collect());
    let nothing = Map(BTreeMap::new());
    let one = routes.decide("shop", &request(&cookies, "web"), NOW);
    let two = routes.decide("shop", &request(&others, "app"), NOW);
    let three = routes.decide("shop", &request(&nothing, "web"), NOW);
    assert!(one.affinity.is_some() && two.affinity.is_some() && one.affinity != two.affinity);
    assert_eq!(three.affinity, None);
    let counted = |decision: &Decision<'_>| decision.rate.map(|(_, key)| key);
    assert_eq!(counted(&one), counted(&three));
    assert_ne!(counted(&one), counted(&two));
    assert_eq!(one.abort.map(|abort| abort.status), Some(503));
    assert_eq!((one.timeout(), one.mirror.is_none()), (Some(250), true));
}

#[test]
fn an_explanation_names_the_rule_its_revision_and_every_candidate() {
    let then = Actions { select: "version=v2".parse().unwrap(), ..Actions::default() };
    let routes = routes(vec![
        rule("dev", with_header("x-dev", "ada"), Actions::default()),
        rule("new", Condition::default(), then),
    ]);
    let (map, none, selector) = (Map(BTreeMap::new()), LabelSet::default(), Selector::default());
    let request = RequestView {
        endpoint: "/",
        headers: &map,
        caller: "",
        node_name: "laptop",
        node_id: "abc",
        node_labels: &none,
        selector: &selector,
        chance: 5,
    };
    let why = routes.explain("shop", &request, NOW);
    assert_eq!(why.rules, Some((4, id(9))));
    let text = why.to_string();
    for part in [
        "rules     revision 4 of",
        "dev not for this call: header",
        "new decides",
        "in: one of the nearest",
        "out: not version=v2, but v1",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let passed: Vec<_> = why.looked_at.iter().map(|one| (&*one.rule, one.obstacle)).collect();
    assert_eq!(passed, [("dev", Some("header")), ("new", None)]);
    assert_eq!(why.exist, why.candidates.len());
}

#[test]
fn what_an_author_can_hardly_mean_is_told() {
    let select = |text: &str| Actions { select: text.parse().unwrap(), ..Actions::default() };
    let mirror = |to: &str| Actions {
        mirror: Some(Mirror { target: to.parse().unwrap(), part: Part::WHOLE }),
        ..Actions::default()
    };
    let name: ServiceName = "shop".parse().unwrap();
    let routes = routes(vec![]);
    let said = |rules: Vec<Rule>| -> Vec<String> {
        let set = RuleSet { revision: 1, rules, ..RuleSet::default() };
        lint(&set, &name, &routes, NOW).iter().map(ToString::to_string).collect()
    };
    let a = || with_header("x", "1");
    let divert_on = |n: u8| Actions {
        divert: Some(Divert { node: id(n), until: UnixTime(NOW.0 + 1) }),
        ..Actions::default()
    };
    for (rules, wanted) in [
        (vec![rule("a", a(), select("version=v1"))], None),
        (
            vec![
                rule("a", Condition::default(), Actions::default()),
                rule("b", a(), Actions::default()),
            ],
            Some("rule b: cannot match: a before it takes every call"),
        ),
        (
            vec![rule("a", a(), Actions::default()), rule("b", a(), Actions::default())],
            Some("rule b: cannot match: a before it has the same conditions"),
        ),
        (
            vec![
                rule("a", Condition::default(), divert_on(1)),
                rule("b", Condition::default(), select("version=v1")),
            ],
            None,
        ),
        (vec![rule("a", a(), select("tier=gold"))], Some("no instance carries the label tier")),
        (vec![rule("a", a(), select("version=v7"))], Some("no instance is version=v7")),
        (
            vec![rule("a", a(), select("version=v1,version=v2"))],
            Some("select can never hold: version=v1 and version=v2"),
        ),
        (vec![rule("a", a(), select("version,!version"))], Some("version and !version")),
        (vec![rule("a", a(), mirror("shop"))], Some("copies go round in a circle")),
        (
            vec![rule(
                "a",
                a(),
                Actions { divert: Some(Divert { node: id(1), until: NOW }), ..Actions::default() },
            )],
            Some("its divert has ended"),
        ),
        (
            vec![rule("a", a(), {
                let until = NOW.plus(3 * 24 * 3600);
                Actions { divert: Some(Divert { node: id(1), until }), ..Actions::default() }
            })],
            Some("its divert ends only in 3 days"),
        ),
    ] {
        let said = said(rules);
        match wanted {
            None => assert!(said.is_empty(), "{said:?}"),
            Some(wanted) => assert!(said.iter().any(|one| one.contains(wanted)), "{said:?}"),
        }
    }
}
