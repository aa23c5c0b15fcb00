//! A member that lies to its neighbour, and secrets that must not be told (reliability classes 13, 23 and 28).

use std::sync::Arc;

use proto::frame::Frame;
use proto::record::{Body, Instance, Node, Protocol, Record, Service, Verified, VersionOf};
use proto::sign::Sign as _;
use proto::time::{Epoch, Seq, Version};
use proto::{LabelSet, Ticket};
use tests::hostile::origin::Origin;
use tests::hostile::{Alone, Beat, GROWTH_KIB, until};
use tests::process::PATIENCE;
use tunnel::{Control, Event, Keypair};

/// Services that the member claims: many times what one node may offer.
const CLAIMED: u64 = 5_000;
/// What a node may offer by the router's own bound, and the one service of the node itself.
const KEPT: usize = 1_001;
/// Frames in one volley.
const VOLLEY: usize = 50;

/// A record of the member itself.
fn own(key: &Keypair, network: proto::NetworkId, seq: u64, body: Body) -> Record {
    let version = Version { epoch: Epoch(1), seq: Seq(seq) };
    Verified::own(network, key, version, body).record().clone()
}

fn service(name: &str, address: &str) -> Body {
    let instance = Instance {
        id: format!("{name}-evil"),
        address: address.to_owned(),
        protocol: Protocol::Http1,
        metadata: LabelSet::default(),
    };
    let version = VersionOf {
        version: "latest".to_owned(),
        instances: vec![instance],
        ..VersionOf::default()
    };
    let name = name.parse().expect("a name of a service");
    Body::Service(name, Box::new(Service { versions: vec![version] }))
}

/// The record with one bit of its signature turned, as it would come from the wire.
fn forged(record: &Record) -> Record {
    let mut bytes = record.bytes().to_vec();
    *bytes.last_mut().expect("a record has bytes") ^= 1;
    Record::decode(bytes.into()).expect("it still has the form of a record")
}

async fn up(control: &mut Control) -> proto::LinkId {
    let events = async {
        loop {
            if let Event::Up { link, .. } = control.event().await {
                return link;
            }
        }
    };
    tokio::time::timeout(PATIENCE, events).await.expect("a link comes up")
}

#[test]
fn a_member_that_forges_overreaches_and_floods_changes_nothing_for_others() {
    let Some(mut node) = Alone::up(&[]) else { return };
    let origin = Origin::start("");
    node.expose("web", origin.address, "http");
    let beat = Beat::start(node.proxy);
    beat.goes_on(10);
    let before = node.rss_kib();
    let trap = Origin::start("");
    let ticket: Ticket = node.invite("evil-*").parse().expect("a ticket");

    let runtime = tokio::runtime::Runtime::new().expect("threads are left");
    let held = runtime.block_on(async {
        let key = Arc::new(Keypair::generate());
        let joined = tunnel::join::redeem(&ticket, &key, "evil").await.expect("a good ticket");
        let network = ticket.network;
        let config = tunnel::Config::new(Arc::clone(&key), joined.clone(), Epoch(1));
        let quic = tunnel::quic::Quic::bind(&config).expect("the loopback has ports");
        let (tunnel, mut control, incoming) = tunnel::start(config, quic).await.expect("it starts");
        control.dial_seed(vec![node.link]);
        let link = up(&mut control).await;
        let named = |name: &str, region: &str| Node {
            name: name.to_owned(),
            region: region.to_owned(),
            labels: LabelSet::default(),
            addresses: Vec::new(),
            release: "0".to_owned(),
            protocol: proto::PROTOCOL,
            credential: Box::new(joined.clone()),
        };
        // A terminal would obey these; whether they are turned away or shown harmless is the node's to choose.
        let colour = Body::Node(Box::new(named("evil\u{1b}[31m", "evil")));
        let turned = Body::Node(Box::new(named("evil\u{202e}", "evil\u{202e}")));
        let plain = Body::Node(Box::new(named("evil", "evil")));
        let mut named = [plain, colour, turned].into_iter().zip(1..);
        let mut named = || named.next().map(|(body, seq)| own(&key, network, seq, body));
        let stranger = Keypair::generate();
        assert_ne!(stranger.public_key(), key.public_key());
        let address = trap.address.to_string();
        while let Some(record) = named() {
            control.send(link, Frame::Records(vec![record]));
        }
        // One that is no member's, one that was altered, and a service its grant does not name.
        let far = Version { epoch: Epoch(u64::MAX >> 2), seq: Seq(1) };
        let future = Verified::own(network, &stranger, far, service("web", &address));
        control.send(
            link,
            Frame::Records(vec![
                own(&stranger, network, 2, service("web", &address)),
                future.record().clone(),
                forged(&own(&key, network, 3, service("evil-1", &address))),
                own(&key, network, 4, service("web", &address)),
            ]),
        );
        for first in (0..CLAIMED).step_by(VOLLEY) {
            let claim = |n| own(&key, network, n + 10, service(&format!("evil-{n}"), &address));
            control.send(link, Frame::Records((first..first + VOLLEY as u64).map(claim).collect()));
            // The queue of a link is bounded; who runs ahead of it only drops its own.
            tokio::task::yield_now().await;
        }
        (tunnel, control, incoming)
    });
    // What it may say is heard, so the rest of what it said was read as well.
    until("the member is seen", || node.json(&["network", "nodes"]).to_string().contains("evil"));
    beat.goes_on(20);
    let listed = node.json(&["services"]);
    let items = listed["items"].as_array().expect("a list");
    assert!(items.len() <= KEPT, "{} services are kept", items.len());
    let web = items.iter().find(|item| item["name"] == "web").expect("web is there");
    assert_eq!(web["reachable"], 1, "{web}");
    for table in
        [&["network", "nodes"][..], &["services"], &["network", "graph"], &["network", "routes"]]
    {
        let ran = node.cli(table);
        let obeyed = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ran.out.contains(obeyed) && !ran.err.contains(obeyed), "{table:?}: {ran:?}");
    }
    beat.goes_on(20);
    assert!(trap.take().is_empty(), "a call went to the liar");
    let grown = node.rss_kib().saturating_sub(before);
    tests::say(&format!("{CLAIMED} claims: {} services kept, memory + {grown} KiB", items.len()));
    assert!(node.running() && grown <= 2 * GROWTH_KIB, "memory + {grown} KiB");
    drop(held);
    beat.stop();
}

/// The pieces of a ticket that another of the same node does not have: its secret, any part of which would give it away.
fn secret_pieces<'a>(ticket: &'a str, other: &str) -> Vec<&'a str> {
    const LONG: usize = 24;
    let differs = |at: &usize| {
        let (ours, theirs) = (&ticket.as_bytes()[*at..], &other.as_bytes()[*at..]);
        let same = ours.iter().zip(theirs).take(LONG).filter(|(a, b)| a == b).count();
        same < LONG / 3
    };
    let starts = 0..ticket.len().min(other.len()) - LONG;
    starts.filter(differs).map(|at| &ticket[at..at + LONG]).collect()
}

#[test]
fn a_ticket_is_told_to_nobody_by_the_node_that_uses_it() {
    let Some(first) = Alone::up(&[]) else { return };
    for way in ["stdin", "file", "environment"] {
        let ticket = first.invite("*");
        let file = first.home().join("ticket");
        std::fs::write(&file, &ticket).expect("our own directory");
        let named = format!("file:{}", file.display());
        let second = match way {
            "stdin" => Alone::up_as(
                &["--log-level", "trace", "--join", "-"],
                &[],
                None,
                format!("{ticket}\n").as_bytes(),
            ),
            "file" => Alone::up_as(&["--log-level", "trace", "--join", &named], &[], None, b""),
            _ => Alone::up_as(&["--log-level", "trace"], &[("MICRO_TICKET", &ticket)], None, b""),
        };
        let Some(second) = second else { return };
        until("the members see each other", || second.metric("micro_nodes ") >= 2.0);
        let pieces = secret_pieces(&ticket, &first.invite("*"));
        assert!(!pieces.is_empty(), "two tickets of one node have different secrets");
        let argv = std::fs::read(format!("/proc/{}/cmdline", second.pid())).expect("the node runs");
        for (where_, text) in [
            ("its log", second.said()),
            ("the issuer's log", first.said()),
            ("its metrics", second.metrics()),
            ("the issuer's metrics", first.metrics()),
            ("its arguments", String::from_utf8_lossy(&argv).into_owned()),
            ("its status", second.json(&["status"]).to_string()),
        ] {
            let told = pieces.iter().any(|piece| text.contains(piece));
            assert!(!told, "{way}: the ticket is in {where_}");
        }
    }
}
