//! What programs of one node say of a service, and what others lay over it.

use proto::ServiceName;

use super::records_sent;
use crate::testing::{Net, registration};
use crate::{Refusal, Registration, Request};

#[test]
fn labels_of_a_service_lie_over_what_its_programs_say_at_every_renewal() {
    let mut net = Net::new(2);
    net.link(0, 1, 1_000);
    let said = |pairs: &[(&str, &str)]| {
        let metadata = pairs.iter().copied().collect();
        Registration { metadata, ..registration("s", "a", None) }
    };
    let label = |pairs: &[(&str, &str)]| Request::Label {
        service: "s".parse().unwrap(),
        labels: pairs.iter().copied().collect(),
    };
    let of = |net: &Net, key: &str| {
        let service = net.routes[1].service("s").unwrap();
        service.instances[0].labels.get(key).map(str::to_owned)
    };
    // Kept while nobody offers it.
    net.request(0, label(&[("tier", "gold")])).unwrap();
    net.request(0, Request::Register(said(&[("tier", "free"), ("env", "prod")]))).unwrap();
    net.settle();
    assert_eq!((of(&net, "tier"), of(&net, "env")), (Some("gold".into()), Some("prod".into())));
    net.request(0, Request::Register(said(&[("tier", "free"), ("env", "test")]))).unwrap();
    net.settle();
    assert_eq!((of(&net, "tier"), of(&net, "env")), (Some("gold".into()), Some("test".into())));
    net.request(0, label(&[])).unwrap();
    net.settle();
    assert_eq!(of(&net, "tier"), Some("free".into()));

    // A program is never refused for what an operator added, and he is told that there is no room.
    let keys: Vec<String> = (0..proto::label::MAX_LABELS).map(|n| format!("k{n}")).collect();
    let full: Vec<(&str, &str)> = keys.iter().map(|key| (&**key, "v")).collect();
    net.request(0, label(&[("tier", "gold")])).unwrap();
    net.request(0, Request::Register(said(&full))).unwrap();
    net.settle();
    assert_eq!((of(&net, "k0"), of(&net, "tier")), (Some("v".into()), None));
    assert_eq!(net.request(0, label(&[("more", "1")])), Err(Refusal::TooLarge));
}

#[test]
fn many_changes_of_a_service_are_one_record_and_all_of_them_or_none() {
    let mut net = Net::new(2);
    net.link(0, 1, 500);
    net.settle();
    let name: ServiceName = "s".parse().unwrap();
    let change = |put: &[&str], away: &[&str]| Request::Change {
        service: name.clone(),
        put: put.iter().map(|id| registration("s", id, None)).collect(),
        away: away.iter().map(|&id| id.to_owned()).collect(),
    };
    records_sent(&mut net);
    net.request(0, change(&["a", "b", "c"], &[])).unwrap();
    net.settle();
    assert_eq!((net.found(1, "s").len(), records_sent(&mut net)), (3, 1));
    net.request(0, change(&["d"], &["a", "b", "gone before"])).unwrap();
    net.settle();
    assert_eq!((net.found(1, "s"), records_sent(&mut net)), (vec!["c".into(), "d".into()], 1));

    let many: Vec<String> = (0..proto::record::MAX_INSTANCES).map(|n| format!("i{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(net.request(0, change(&many, &["c"])), Err(Refusal::TooManyInstances));
    net.settle();
    assert_eq!((net.found(1, "s").len(), records_sent(&mut net)), (2, 0), "nothing of it");
    net.request(0, change(&[], &["c", "d"])).unwrap();
    net.settle();
    assert_eq!(net.found(1, "s"), Vec::<String>::new());
}
