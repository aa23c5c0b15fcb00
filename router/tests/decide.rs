//! The whole way from a table, rules and a request to the instances that may take it, against a
//! reference that is written from the texts of `proto::selector` and `proto::rule` alone: slow,
//! plain, and with nothing of the code it is compared with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "decide/reference.rs"]
mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proto::record::Protocol;
use proto::rule::{
    Actions, Condition, Divert, HeaderTest, Key, Part, Rule, RuleSet, Share, Subset,
};
use proto::{Cost, LabelSet, NodeId, Selector, ServiceName, UnixTime};
use router::routes::UNREACHABLE;
use router::rules::Headers;
use router::{Instance, InstanceKey, Lookup, RequestView, Routes, ServiceRoutes};

use reference::{Ask, Found, Outcome, RuleModel, Thing};

const NOW: UnixTime = UnixTime(1_000);

struct Map(BTreeMap<String, String>);

impl Headers for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn instance(at: usize, thing: &Thing) -> Instance {
    Instance {
        key: InstanceKey(at as u64),
        id: thing.id.as_str().into(),
        node: node(thing.node),
        here: false,
        address: "127.0.0.1:1".into(),
        protocol: Protocol::Grpc,
        version: "latest".into(),
        labels: thing.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        metadata: LabelSet::default(),
        // One cost and one group a node, as the router gives them.
        cost: Cost::from_micros(u32::from(thing.node % 5) * 100),
        group: thing.group.unwrap_or(UNREACHABLE),
    }
}

fn rule(model: &RuleModel) -> Rule {
    let header = |value: &String| HeaderTest {
        name: "x-user".into(),
        test: proto::rule::Test::Is(value.clone()),
    };
    let subset = |(at, (select, weight)): (usize, &(Vec<Ask>, u16))| Subset {
        name: format!("s{at}"),
        select: reference::text(select).parse().unwrap(),
        weight: *weight,
    };
    Rule {
        name: model.name.clone(),
        when: Condition {
            endpoints: model
                .endpoint
                .iter()
                .map(|p| proto::grant::Pattern::new(p).unwrap())
                .collect(),
            headers: model.user.iter().map(header).collect(),
            share: model.share.map(|hundredths| Share {
                part: Part::of(hundredths).unwrap(),
                by: Some(Key::Header("x-user".into())),
            }),
            ..Condition::default()
        },
        then: Actions {
            subsets: model.subsets.iter().enumerate().map(subset).collect(),
            split_by: Some(Key::Header("x-user".into())),
            select: reference::text(&model.select).parse().unwrap(),
            divert: model.divert.map(|(n, until)| Divert { node: node(n), until: UnixTime(until) }),
            ..Actions::default()
        },
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let versions = || prop::sample::select(vec!["v1", "v2", "1.2.0", "1.4.1", "latest"]);
    let values = prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..4);
    let label = (prop::sample::select(vec!["tier", "zone", "none"]), values)
        .prop_map(|(key, values)| Ask::label(key, &values));
    let region = prop::sample::select(vec!["eu", "eu/fra", "us", "u", "ap"]).prop_map(Ask::region);
    let version = versions().prop_map(Ask::version);
    let ranges = vec!["^1", "^1.3", "~1.2", ">=1.2,<1.4", ">1", "<=1.2", "1.x", "<2", "^9"];
    let range = prop::sample::select(ranges).prop_map(Ask::range);
    (prop_oneof![4 => label, 2 => region, 1 => version, 2 => range], any::<(bool, bool)>())
        .prop_map(|(ask, (not, prefer))| Ask { not, prefer: prefer && not, ..ask })
}

fn asks(prefer: bool) -> impl Strategy<Value = Vec<Ask>> {
    let one =
        (ask(), any::<bool>()).prop_map(move |(ask, yes)| Ask { prefer: prefer && yes, ..ask });
    prop::collection::vec(one, 0..3)
}

fn thing() -> impl Strategy<Value = (u8, BTreeMap<String, String>)> {
    let choose = |all: &[&'static str]| prop::option::of(prop::sample::select(all.to_vec()));
    let labels = (
        choose(&["a", "b", "c"]),
        choose(&["a", "b", "d"]),
        choose(&["eu", "eu/fra", "eu/ber", "us", "us/iad", "euro"]),
        choose(&["v1", "v2", "1.2.0", "1.2.9", "1.4.1", "1.5.0-rc.1", "2.0.0", "latest"]),
    );
    (0u8..12, labels).prop_map(|(node, (tier, zone, region, version))| {
        let pairs = [("tier", tier), ("zone", zone), ("region", region), ("version", version)];
        let given = pairs.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned())));
        (node, given.collect())
    })
}

fn things() -> impl Strategy<Value = Vec<Thing>> {
    let groups = prop::collection::vec(prop::option::weighted(0.8, 0u32..4), 12);
    let sizes = prop_oneof![5 => 1usize..12, 1 => 200usize..700];
    let all = sizes.prop_flat_map(|size| prop::collection::vec(thing(), size));
    (all, groups).prop_map(|(all, groups)| {
        let one = |(at, (node, labels)): (usize, (u8, BTreeMap<String, String>))| Thing {
            id: format!("i{at:04}"),
            node,
            group: groups[usize::from(node)],
            labels,
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

fn rules() -> impl Strategy<Value = Vec<RuleModel>> {
    let endpoint = prop::option::of(prop::sample::select(vec!["Say.*", "Say.Hello", "Other", "*"]));
    let user = prop::option::of(prop::sample::select(vec!["ada", "bob"]));
    let subsets = prop::collection::vec((asks(false), 0u16..4), 0..3);
    let divert =
        prop::option::weighted(0.3, (0u8..12, prop::sample::select(vec![900, 1_000, 1_001])));
    let one = (endpoint, user, prop::option::of(0u16..=10_000), subsets, asks(true), divert);
    prop::collection::vec(one, 0..4).prop_map(|all| {
        let model = |(at, (endpoint, user, share, mut subsets, select, divert))| {
            let all: &mut Vec<(Vec<Ask>, u16)> = &mut subsets;
            if all.iter().all(|(_, weight)| *weight == 0) {
                all.clear();
            }
            let endpoint: Option<&str> = endpoint;
            let user: Option<&str> = user;
            RuleModel {
                name: format!("rule-{at}"),
                endpoint: endpoint.map(str::to_owned),
                user: user.map(str::to_owned),
                share,
                subsets,
                select,
                divert,
            }
        };
        all.into_iter().enumerate().map(model).collect()
    })
}

fn ids<'a>(all: impl Iterator<Item = &'a Instance>) -> Vec<String> {
    all.map(|instance| instance.id.to_string()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn what_is_decided_is_what_the_texts_say(
        things in things(),
        rules in rules(),
        asked in asks(true),
        user in prop::option::of(prop::sample::select(vec!["ada", "bob", "eve"])),
        endpoint in prop::sample::select(vec!["Say.Hello", "Say.Bye", "Other"]),
        chance in any::<u64>(),
    ) {
        let name: ServiceName = "s".parse().unwrap();
        let all = things.iter().enumerate().map(|(at, thing)| instance(at, thing)).collect();
        let rules_of_it = rules.iter().map(rule).collect();
        let set = RuleSet { revision: 3, rules: rules_of_it, ..RuleSet::default() };
        prop_assert_eq!(set.check(), Ok(()));
        prop_assert_eq!(RuleSet::decode(set.encode()), Ok(set.clone()));
        let service = ServiceRoutes::new(name.clone(), 1, all, Arc::from([]))
            .with_rules(Arc::new(set), node(1));
        let routes = Routes::empty(node(1)).updated([(name, Some(service))], []);
        let selector: Selector = reference::text(&asked).parse().unwrap();
        let headers: BTreeMap<_, _> =
            user.iter().map(|user| ("x-user".to_owned(), (*user).to_owned())).collect();
        let headers = Map(headers);
        let nobody = LabelSet::default();
        let request = RequestView {
            endpoint,
            headers: &headers,
            caller: "",
            node_name: "here",
            node_id: "n1",
            node_labels: &nobody,
            selector: &selector,
            chance,
        };
        let decision = routes.decide("s", &request, NOW);
        // What is left to chance is not predicted, but whatever it is must be explained by some.
        let wanted = reference::decide(&things, &rules, &asked, user, endpoint, NOW.0);
        let outcome = match decision.lookup {
            Lookup::Unknown => panic!("the service is known"),
            Lookup::NoMatch(_) => Found::NoMatch,
            Lookup::Unreachable(_) => Found::Unreachable,
            Lookup::Found(found) => {
                let nearest = ids(found.nearest());
                for throw in [0, chance, u64::MAX] {
                    prop_assert!(nearest.contains(&found.pick(throw).id.to_string()));
                }
                prop_assert_eq!(&nearest[0], &found.first().id.to_string());
                Found::These { nearest, all: ids(found.all()) }
            }
        };
        let got = Outcome {
            rule: decision.rule.map(|(rule, _)| rule.name.clone()),
            subset: decision.subset.map(|subset| subset.name.clone()),
            diverted: decision.diverted,
            found: outcome,
        };
        prop_assert!(wanted.contains(&got), "{:?}\nis none of\n{:?}", got, wanted);
        // The explanation says the same.
        let explained = routes.explain("s", &request, NOW);
        prop_assert_eq!(explained.subset, got.subset);
        let deciding = explained.looked_at.iter().find(|one| one.obstacle.is_none());
        prop_assert_eq!(deciding.map(|one| one.rule.clone()), got.rule);
        prop_assert_eq!(explained.candidates.len(), things.len().min(1000));
        let near = explained.candidates.iter()
            .filter(|one| one.verdict == router::rules::Verdict::Nearest)
            .map(|one| one.instance.clone());
        match got.found {
            Found::These { nearest, .. } => prop_assert_eq!(near.collect::<Vec<_>>(), nearest),
            Found::NoMatch | Found::Unreachable => prop_assert_eq!(near.count(), 0),
        }
    }
}
