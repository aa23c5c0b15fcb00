//! The way of a call as hops: who had it when, for how long, and what they did.

use proxy::explain::{Attempt, Route};
use serde::Serialize;

use super::probe::Probed;
use crate::output::text;

/// One stop of a call. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Hop {
    /// The node; for the last one the service.
    pub(super) node: String,
    /// Where it is.
    pub(super) region: String,
    /// When the call came there, from its start. Where two clocks meet, half of the way back and
    /// forth is taken for the way there.
    pub(super) since_us: u64,
    /// How long it stayed; absent where the node did not say.
    pub(super) spent_us: Option<u64>,
    /// What was done.
    pub(super) what: String,
    /// Whether it went on from here.
    pub(super) ok: bool,
}

/// The stops, in turn.
#[must_use]
pub(super) fn of(service: &str, probed: &Probed) -> Vec<Hop> {
    let route = &probed.route;
    let mut all = vec![Hop {
        node: route.node.clone(),
        region: route.region.clone(),
        since_us: 0,
        spent_us: Some(route.chosen_us),
        what: entry(route),
        ok: !route.attempts.is_empty(),
    }];
    for attempt in &route.attempts {
        attempted(service, attempt, probed, &mut all);
    }
    all
}

/// What the first node did: found instances, looked at rules, chose one.
fn entry(route: &Route) -> String {
    let why = &route.why;
    let mut what = Vec::new();
    if let Some(none) = &why.none {
        return format!("refused: {none}");
    }
    let rule = why.rules.last().filter(|last| last.matches);
    if let (Some(rule), Some(revision)) = (rule, why.revision) {
        what.push(format!("rule {} of revision {revision}", rule.rule));
    }
    if let Some(subset) = &why.subset {
        what.push(format!("subset {subset}"));
    }
    if why.diverted {
        what.push("diverted".to_owned());
    }
    let chosen = why.candidates.iter().find(|one| one.state == "chosen");
    match chosen {
        Some(one) => {
            let near = why.candidates.iter().filter(|one| one.nearest).count();
            let of = why.exist;
            let cost = text::cost(one.cost_us);
            what.push(format!("chosen of {near} near ones, {of} in all; cost {cost}"));
        }
        None if route.attempts.is_empty() => what.push("refused".to_owned()),
        None => what.push(format!("chosen of {}", why.exist)),
    }
    what.join("; ")
}

fn attempted(service: &str, attempt: &Attempt, probed: &Probed, all: &mut Vec<Hop>) {
    let at = |since_us, spent_us, what: String, ok| Hop {
        node: attempt.node.clone(),
        region: attempt.region.clone(),
        since_us,
        spent_us,
        what,
        ok,
    };
    let began = attempt.began_us;
    if attempt.status.is_none() {
        let what = match &*attempt.code {
            "M1005" => format!("silent: no answer from {} until the deadline", attempt.address),
            "" => format!("no answer from {}", attempt.address),
            code => format!("{code}: {}", attempt.error),
        };
        all.push(at(began, Some(attempt.took_us), what, false));
        return;
    }
    let delivered = format!("delivered to {}", attempt.address);
    let service = |since_us, spent| Hop {
        node: service.to_owned(),
        region: String::new(),
        since_us,
        spent_us: Some(spent),
        what: answer(probed),
        ok: true,
    };
    match attempt.at_node {
        // The first hop said where it goes.
        _ if attempt.here => {
            match all.last_mut() {
                Some(last) if last.ok => last.what = format!("{}; {delivered}", last.what),
                Some(_) | None => all.push(at(began, Some(0), delivered, true)),
            }
            all.push(service(began, attempt.took_us));
        }
        None => all.push(at(
            began,
            None,
            format!("{delivered}; what that took, this node does not tell"),
            true,
        )),
        Some(part) => {
            let both_ways = attempt.took_us.saturating_sub(part.before_us + part.instance_us);
            let arrived = began + both_ways / 2;
            let link = text::cost(Some(both_ways));
            let what = format!("link {link} there and back; {delivered}");
            all.push(at(arrived, Some(part.before_us), what, true));
            all.push(service(arrived + part.before_us, part.instance_us));
        }
    }
}

/// What the service said.
fn answer(probed: &Probed) -> String {
    match (probed.grpc_status, probed.status) {
        (Some(number), _) => super::super::call::failure::status_name(number).to_owned(),
        (None, Some(status)) => status.to_string(),
        (None, None) => "answered".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy::explain::AtNode;

    fn probed(attempts: Vec<Attempt>) -> Probed {
        let route = Route {
            node: "ada".into(),
            chosen_us: 200,
            took_us: 94_100,
            attempts,
            ..Route::default()
        };
        Probed { status: Some(200), grpc_status: None, route, problem: None }
    }

    #[test]
    fn the_time_on_the_way_is_what_neither_node_nor_service_took() {
        let attempt = Attempt {
            node: "iad-2".into(),
            address: "10.2.0.7:9000".into(),
            began_us: 200,
            took_us: 93_400,
            status: Some(200),
            at_node: Some(AtNode { before_us: 100, instance_us: 1_300 }),
            ..Attempt::default()
        };
        let hops = of("shop", &probed(vec![attempt]));
        let told: Vec<_> =
            hops.iter().map(|hop| (&*hop.node, hop.since_us, hop.spent_us)).collect();
        assert_eq!(
            told,
            [("ada", 0, Some(200)), ("iad-2", 46_200, Some(100)), ("shop", 46_300, Some(1_300)),]
        );
        assert!(hops[1].what.contains("link 92ms there and back; delivered to 10.2.0.7:9000"));
        assert_eq!(hops[2].what, "200");
    }

    #[test]
    fn a_hop_that_did_not_answer_is_where_it_ends_and_the_next_attempt_follows() {
        let silent = Attempt {
            node: "iad-2".into(),
            address: "10.2.0.7:9000".into(),
            code: "M1005".into(),
            took_us: 2_000_000,
            ..Attempt::default()
        };
        let hops = of("shop", &probed(vec![silent.clone()]));
        assert_eq!((hops.len(), hops[1].ok, hops[1].spent_us), (2, false, Some(2_000_000)));
        assert!(hops[1].what.starts_with("silent: no answer from 10.2.0.7:9000"));
        let refused =
            Attempt { code: "M1004".into(), error: "took no connection".into(), ..silent.clone() };
        let answered = Attempt { status: Some(200), here: true, ..silent };
        let hops = of("shop", &probed(vec![refused, answered]));
        let ok: Vec<_> = hops.iter().map(|hop| hop.ok).collect();
        assert_eq!(ok, [true, false, true, true]);
        assert_eq!(hops[1].what, "M1004: took no connection");
    }
}
