//! What rules decide about real calls.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Place, World, nobody, soon};
use proto::UnixTime;
use proto::record::Protocol;
use proto::rule::{
    Abort, Actions, Condition, Delay, Divert, HeaderTest, Key, Mirror, Part, Rate, Rule, Subset,
    Test,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A web server that says its name.
struct Named {
    address: SocketAddr,
    heads: Arc<std::sync::Mutex<Vec<String>>>,
    asked: Arc<AtomicUsize>,
    told: Arc<Notify>,
}

impl Named {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, asked, told) =
            <(Arc<std::sync::Mutex<Vec<_>>>, Arc<_>, Arc<Notify>)>::default();
        let all = (Arc::clone(&heads), Arc::clone(&asked), Arc::clone(&told));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, name, all.clone()));
            }
        });
        Self { address, heads, asked, told }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

type Kept = (Arc<std::sync::Mutex<Vec<String>>>, Arc<AtomicUsize>, Arc<Notify>);

async fn serve(socket: TcpStream, name: &str, (heads, asked, told): Kept) {
    let mut socket = BufReader::new(socket);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line.to_ascii_lowercase());
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        head.push_str(&String::from_utf8(body).unwrap());
        heads.lock().unwrap().push(head);
        asked.fetch_add(1, Ordering::SeqCst);
        told.notify_one();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Asks once; gives the status, the head and the body.
async fn ask(world: &World, headers: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(world.here.address).await.unwrap();
    let request = format!("GET /x HTTP/1.1\r\nhost: web\r\nconnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

async fn tally(world: &World, calls: usize, headers: &str) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for _ in 0..calls {
        *tally.entry(ask(world, headers).await.2).or_default() += 1;
    }
    tally
}

fn rule(then: Actions) -> Rule {
    Rule { name: "r".to_owned(), when: Condition::default(), then }
}

/// `web` as v1 and v2, both here.
async fn two_versions(world: &World) -> (Named, Named) {
    let (one, two) = (Named::start("v1").await, Named::start("v2").await);
    let protocol = Protocol::Http1;
    world.offer_with("web", Place::Here, one.address, protocol, &[("version", "v1")]);
    world.offer_with("web", Place::Here, two.address, protocol, &[("version", "v2")]);
    (one, two)
}

fn subset(version: &str, weight: u16) -> Subset {
    let select = format!("version={version}").parse().unwrap();
    Subset { name: version.to_owned(), select, weight }
}

#[tokio::test]
async fn weights_divide_the_calls_and_a_key_keeps_a_user_on_one_side() {
    let world = World::new().await;
    let _services = two_versions(&world).await;
    let then = Actions { subsets: vec![subset("v1", 90), subset("v2", 10)], ..Actions::default() };
    world.rule("web", vec![rule(then.clone())]);
    let divided = tally(&world, 400, "").await;
    // 40 are expected of 400; fewer than 15 or more than 75 come once in a million runs.
    assert!((15..=75).contains(&divided["v2"]), "{divided:?}");

    let split_by = Some(Key::Header("x-user".to_owned()));
    world.rule("web", vec![rule(Actions { split_by, ..then })]);
    for user in ["ada", "bob", "eve"] {
        assert_eq!(tally(&world, 20, &format!("x-user: {user}\r\n")).await.len(), 1, "{user}");
    }
}

#[tokio::test]
async fn a_divert_takes_what_it_matches_until_its_time_is_over() {
    let world = World::new().await;
    let (here, there) = (Named::start("here").await, Named::start("there").await);
    world.offer("web", Place::Here, here.address, Protocol::Http1);
    world.offer("web", Place::There, there.address, Protocol::Http1);
    let test = Test::Is("ada".to_owned());
    let headers = vec![HeaderTest { name: "x-dev".to_owned(), test }];
    let divert = |until| {
        let then = Actions {
            divert: Some(Divert { node: world.there.id, until: UnixTime(until) }),
            ..Actions::default()
        };
        let when = Condition { headers: headers.clone(), ..Condition::default() };
        vec![Rule { when, ..rule(then) }]
    };
    world.rule("web", divert(u64::MAX >> 8));
    assert_eq!(ask(&world, "x-dev: ada\r\n").await.2, "there");
    assert_eq!(ask(&world, "x-dev: bob\r\n").await.2, "here");
    world.rule("web", divert(1));
    assert_eq!(ask(&world, "x-dev: ada\r\n").await.2, "here");
}

#[tokio::test]
async fn a_diverted_call_that_its_node_does_not_take_goes_where_it_would_have_gone() {
    let world = World::new().await;
    let here = Named::start("here").await;
    world.offer("web", Place::Here, here.address, Protocol::Http1);
    world.offer("web", Place::There, nobody().await, Protocol::Http1);
    let divert = Divert { node: world.there.id, until: UnixTime(u64::MAX >> 8) };
    world.rule("web", vec![rule(Actions { divert: Some(divert), ..Actions::default() })]);
    assert_eq!(ask(&world, "").await.2, "here");
}

#[tokio::test]
async fn a_rate_limit_refuses_what_is_above_it_and_says_when_to_come_back() {
    let world = World::new().await;
    let (one, _two) = two_versions(&world).await;
    let by = Some(Key::Header("x-user".to_owned()));
    let rate = Some(Rate { per_second: 1, burst: 3, by });
    world.rule("web", vec![rule(Actions { rate, ..Actions::default() })]);
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(ask(&world, "x-user: ada\r\n").await);
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.0 == 429).collect();
    assert!((2..=3).contains(&refused.len()), "{answers:?}");
    for (_, head, _) in refused {
        assert!(head.contains("micro-error: m1306") && head.contains("retry-after: 1"), "{head}");
    }
    assert_eq!(ask(&world, "x-user: bob\r\n").await.0, 200, "each key for itself");
    assert!(one.asked() <= 5);
}

#[tokio::test]
async fn an_abort_is_told_as_the_rule_says_and_never_looks_like_the_service() {
    let world = World::new().await;
    let (one, two) = two_versions(&world).await;
    let abort = Some(Abort { status: 418, part: Part::WHOLE });
    world.rule("web", vec![rule(Actions { abort, ..Actions::default() })]);
    let (status, head, body) = ask(&world, "").await;
    assert_eq!(status, 418);
    assert!(head.contains("micro-error: m1307"), "{head}");
    assert!(body.contains("rule \"r\" refuses the call with 418"), "{body}");
    assert_eq!(one.asked() + two.asked(), 0);
}

#[tokio::test]
async fn a_call_that_is_held_up_beyond_its_timeout_never_reaches_the_service() {
    let world = World::new().await;
    let (one, two) = two_versions(&world).await;
    let delay = Some(Delay { millis: 600_000, part: Part::WHOLE });
    let then = Actions { delay, timeout: Some(20), ..Actions::default() };
    world.rule("web", vec![rule(then)]);
    let (status, head, _) = ask(&world, "").await;
    assert_eq!(status, 504);
    assert!(head.contains("micro-error: m1005"), "{head}");
    assert_eq!(one.asked() + two.asked(), 0);
}

#[tokio::test]
async fn calls_of_one_key_stay_at_one_instance_and_move_when_it_goes() {
    let world = World::new().await;
    let _services = two_versions(&world).await;
    let affinity = Some(Key::Cookie("sid".to_owned()));
    world.rule("web", vec![rule(Actions { affinity, ..Actions::default() })]);
    let mut sides = BTreeMap::new();
    for user in 0..24 {
        let tally = tally(&world, 4, &format!("cookie: a=b; sid={user}\r\n")).await;
        assert_eq!(tally.len(), 1, "user {user}: {tally:?}");
        *sides.entry(tally.into_keys().next().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(sides.len(), 2, "keys are spread: {sides:?}");
}

#[tokio::test]
async fn a_copy_goes_elsewhere_marked_and_its_answer_is_thrown_away() {
    let world = World::new().await;
    let (one, two) = two_versions(&world).await;
    let shadow = Named::start("shadow").await;
    world.offer("shadow", Place::There, shadow.address, Protocol::Http1);
    let target = "shadow".parse().unwrap();
    let mirror = Some(Mirror { target, part: Part::WHOLE });
    world.rule("web", vec![rule(Actions { mirror, ..Actions::default() })]);
    let (status, _, body) = ask(&world, "x-user: ada\r\n").await;
    assert_eq!(status, 200);
    assert!(body == "v1" || body == "v2", "{body}");
    soon(shadow.told.notified()).await;
    let heads = shadow.heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].contains("micro-mirror: 1") && heads[0].contains("x-user: ada"), "{heads:?}");
    let asked = [one.heads.lock().unwrap().clone(), two.heads.lock().unwrap().clone()].concat();
    assert!(asked.iter().all(|head| !head.contains("micro-mirror")), "{asked:?}");
    // A program cannot make its call look like a copy.
    ask(&world, "micro-mirror: 1\r\n").await;
    let asked = [one.heads.lock().unwrap().clone(), two.heads.lock().unwrap().clone()].concat();
    assert!(asked.iter().all(|head| !head.contains("micro-mirror")), "{asked:?}");
}

/// Headers of `micro-*` that a service was given with one call.
fn micro_headers(heads: &[String]) -> Vec<String> {
    let last = heads.last().unwrap();
    let mut all: Vec<String> =
        last.lines().filter(|line| line.starts_with("micro-")).map(str::to_owned).collect();
    all.sort_unstable();
    all
}

/// What a caller says of the instance it wants, and that two of it are for the calls behind as well.
const WANTED: [(&str, &str); 6] = [
    ("micro-version", "v2"),
    ("micro-region", "eu"),
    ("micro-label", "tier=gold"),
    ("micro-select", "colour=red"),
    ("micro-colour", "red"),
    ("micro-node", ""),
];

/// Labels that [`WANTED`] finds.
const CARRIED: [(&str, &str); 4] =
    [("version", "v2"), ("region", "eu/fra"), ("tier", "gold"), ("colour", "red")];

fn wanted(place: Place) -> Vec<(&'static str, &'static str)> {
    let node = if place == Place::Here { "here" } else { "there" };
    WANTED.map(|(name, value)| (name, if name == "micro-node" { node } else { value })).to_vec()
}

#[tokio::test]
async fn headers_that_select_are_used_up_over_http_unless_they_are_sticky() {
    for place in [Place::Here, Place::There] {
        let world = World::new().await;
        let (right, wrong) = (Named::start("right").await, Named::start("wrong").await);
        world.offer_with("web", place, right.address, Protocol::Http1, &CARRIED);
        world.offer_with("web", Place::Here, wrong.address, Protocol::Http1, &[("version", "v1")]);
        let lines = |more: &[(&str, &str)]| -> String {
            let all = wanted(place).into_iter().chain(more.iter().copied());
            all.map(|(name, value)| format!("{name}: {value}\r\n")).collect()
        };
        assert_eq!(ask(&world, &lines(&[])).await.2, "right", "{place:?}");
        let left = micro_headers(&right.heads.lock().unwrap());
        assert!(left.is_empty(), "{place:?}: {left:?}");

        let sticky = ("micro-sticky", "region, colour,select");
        assert_eq!(ask(&world, &lines(&[sticky])).await.2, "right", "{place:?}");
        let left = micro_headers(&right.heads.lock().unwrap());
        let expected = [
            "micro-colour: red",
            "micro-region: eu",
            "micro-select: colour=red",
            "micro-sticky: region, colour,select",
        ];
        assert_eq!(left, expected, "{place:?}");
        assert_eq!(wrong.asked(), 0);
    }
}

#[tokio::test]
async fn headers_that_select_are_used_up_over_grpc_unless_they_are_sticky() {
    for place in [Place::Here, Place::There] {
        let world = World::new().await;
        let mut right = common::service::Service::start().await;
        world.offer_with("greeter", place, right.address, Protocol::Grpc, &CARRIED);
        world.offer_with(
            "greeter",
            Place::Here,
            nobody().await,
            Protocol::Grpc,
            &[("version", "v1")],
        );
        let client = common::grpc::Client::connect(world.here.address).await;
        let sticky = [("micro-sticky", "region, colour,select")];
        for (more, expected) in [
            (&[][..], &[][..]),
            (&sticky[..], &["micro-colour", "micro-region", "micro-select", "micro-sticky"][..]),
        ] {
            let headers = [wanted(place), more.to_vec()].concat();
            let answer = client.unary("/greeter.Say/Echo", &headers, b"hello").await;
            assert_eq!(answer.status(), Some("0"), "{place:?} {answer:?}");
            let seen = loop {
                if let common::service::Seen::Request(seen) = soon(right.next()).await {
                    break seen;
                }
            };
            let mut left: Vec<&str> =
                seen.keys().map(|name| name.as_str()).filter(|n| n.starts_with("micro-")).collect();
            left.sort_unstable();
            assert_eq!(left, expected, "{place:?}");
        }
    }
}
