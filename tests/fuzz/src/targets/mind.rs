//! A router under arbitrary inputs: every byte string is a story of links, frames, requests and
//! passing time.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use proto::frame::{Frame, MAX_FRAME};
use proto::grant::{Issuer, Pattern};
use proto::record::{Adjacency, Body, Instance, Node, PathKind, Protocol, Service, VersionOf};
use proto::sign::Sign;
use proto::{
    Cost, Credential, Epoch, Grant, LabelSet, LinkId, NetworkId, NodeId, PublicKey, Role, Roles,
    Seq, ServiceName, Signature, Time, UnixTime, Verified, Version,
};
use router::{
    Config, Input, Limits, LinkEvent, Message, Output, Registration, Request, RequestId, Router,
};

const STARTED: UnixTime = UnixTime(1_000_000);
/// Few, so that bounds are reached.
const LIMITS: Limits = Limits {
    records_per_origin: 12,
    services_per_origin: 6,
    records: 40,
    bytes: 64 * 1024,
    rules: 4096,
    rules_per_author: 2048,
    links: 6,
    backlog: 8,
};

/// A key whose signatures are not looked at.
#[derive(Clone, Copy)]
struct Key(u8);

impl Sign for Key {
    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes([self.0; 32])
    }

    fn sign(&self, _: &[u8]) -> Signature {
        Signature::from_bytes([0; 64])
    }
}

fn id(key: Key) -> NodeId {
    NodeId::of(&key.public_key())
}

fn network() -> NetworkId {
    NetworkId::of(&Key(250).public_key())
}

fn credential(key: Key, seconds: u64) -> Credential {
    let (root, issuer) = (Key(250), Key(251));
    let appointed = Issuer::appoint(&root, issuer.public_key(), STARTED.plus(1 << 30));
    let services = if key.0 % 3 == 2 { "s0" } else { "*" };
    let grant = Grant {
        network: network(),
        key: key.public_key(),
        network_name: "fuzz".into(),
        roles: if key.0.is_multiple_of(2) { Roles::NONE.with(Role::Relay) } else { Roles::NONE },
        namespaces: vec![Pattern::any()],
        services: vec![Pattern::new(services).expect("a pattern")],
        serial: 1,
        epoch: 1,
        not_before: UnixTime(0),
        not_after: STARTED.plus(seconds),
    };
    appointed.issue(&issuer, &grant)
}

fn node(key: Key, seconds: u64) -> Node {
    Node {
        name: format!("n{}", key.0),
        region: if key.0.is_multiple_of(2) { "eu".into() } else { String::new() },
        labels: LabelSet::default(),
        addresses: Vec::new(),
        release: String::new(),
        protocol: proto::PROTOCOL,
        credential: Box::new(credential(key, seconds)),
    }
}

fn name(n: u8) -> ServiceName {
    format!("s{}", n % 9).parse().expect("a service name")
}

fn instance(n: u8) -> Instance {
    Instance {
        id: format!("i{}", n % 5),
        address: "127.0.0.1:1".into(),
        protocol: Protocol::Grpc,
        metadata: LabelSet::default(),
    }
}

/// Takes a story apart, byte by byte; zeros when it is over.
struct Story<'a>(&'a [u8]);

impl Story<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Small mostly, and sometimes as large as can be.
    fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=239 => u64::from(byte % 16),
            byte @ 240..=251 => u64::from(byte) << 40,
            252 => u64::MAX - 1,
            _ => u64::MAX,
        }
    }

    /// A record of somebody, this node included, or of a stranger.
    fn record(&mut self) -> Verified {
        let author = Key(self.byte() % 8);
        let version = Version { epoch: Epoch(self.number()), seq: Seq(self.number()) };
        let kind = self.byte();
        let body = match kind % 4 {
            0 => Body::Node(Box::new(node(author, 10 + self.number().min(1 << 20)))),
            1 => {
                let cost = Cost::from_micros(u32::try_from(self.number()).unwrap_or(u32::MAX));
                let far = id(Key(self.byte() % 8));
                Body::Adjacency(far, Adjacency { cost, path: PathKind::Direct })
            }
            _ => {
                let instances = (0..self.byte() % 3).map(instance).collect();
                let of = VersionOf { instances, ..VersionOf::default() };
                let service = Box::new(Service { versions: vec![of] });
                Body::Service(name(self.byte()), service)
            }
        };
        let record = Verified::own(network(), &author, version, body);
        if kind >= 192 {
            Verified::tombstone(network(), &author, record.id(), version)
        } else {
            record
        }
    }

    fn message(&mut self) -> Option<Message> {
        match self.byte() % 4 {
            0..=2 => {
                let count = self.byte() % 12;
                Some(Message::records((0..count).map(|_| self.record()).collect()))
            }
            _ => {
                // Any frame at all, as the wire brings it; its records have no signatures.
                let length = usize::from(self.byte()) * 8;
                let (frame, rest) = self.0.split_at(length.min(self.0.len()));
                self.0 = rest;
                let frame = Frame::decode(&mut BytesMut::from(frame), MAX_FRAME).ok().flatten()?;
                Message::from_frame(frame, Vec::new())
            }
        }
    }

    fn link(&mut self) -> LinkId {
        LinkId(u64::from(self.byte() % 8))
    }

    fn input(&mut self) -> Option<Input> {
        let cost =
            |n: u64| Cost::from_micros(u32::try_from(n.saturating_mul(1000)).unwrap_or(u32::MAX));
        Some(match self.byte() % 10 {
            0 | 1 => {
                let node = id(Key(self.byte() % 8));
                let up = LinkEvent::Up {
                    node,
                    cost: cost(self.number()),
                    dialled: self.byte().is_multiple_of(2),
                };
                Input::Link(self.link(), up)
            }
            2 => {
                let event = match self.byte() % 4 {
                    0 => LinkEvent::Suspected,
                    1 => LinkEvent::Recovered(cost(self.number() & 15)),
                    2 => LinkEvent::Cost(cost(self.number() & 15)),
                    _ => LinkEvent::Down,
                };
                Input::Link(self.link(), event)
            }
            3..=6 => Input::Frame(self.link(), self.message()?),
            _ => Input::Request(RequestId(0), self.request()),
        })
    }

    fn request(&mut self) -> Request {
        match self.byte() % 8 {
            0..=2 => Request::Register(Registration {
                service: name(self.byte()),
                version: format!("v{}", self.byte() % 3),
                metadata: LabelSet::default(),
                endpoints: Vec::new(),
                instance: instance(self.byte()),
                ttl: match self.byte() % 4 {
                    0 => None,
                    1 => Some(Duration::MAX),
                    seconds => Some(Duration::from_secs(u64::from(seconds) * 5)),
                },
            }),
            3 | 4 => Request::Deregister {
                service: name(self.byte()),
                version: None,
                instance: instance(self.byte()).id,
            },
            5 => Request::Describe(node(Key(self.byte() % 2), 10 + self.number().min(1 << 20))),
            6 => Request::Dialled { node: id(Key(self.byte() % 8)), outcome: Err(()) },
            _ if self.byte() == 255 => Request::Leave,
            _ => Request::Dialled { node: id(Key(self.byte() % 8)), outcome: Ok(()) },
        }
    }
}

/// Drives a router through a story.
pub(super) fn router(input: &[u8]) {
    let mut story = Story(input);
    let me = Key(0);
    let epoch = Epoch(story.number());
    let config = Config {
        network: network(),
        epoch,
        started: STARTED,
        seed: story.number(),
        limits: LIMITS,
    };
    let mut router = Router::new(Arc::new(me), node(me, 1 << 20), config);
    let mut now = Time::ZERO;
    drain(&mut router);
    while !story.0.is_empty() {
        now = now + Duration::from_millis(story.number().min(1 << 20));
        if let Some(input) = story.input() {
            router.handle(input, now);
            drain(&mut router);
        }
        // Whatever came, the router comes to rest.
        for _ in 0..3 {
            let Some((at, _)) = router.poll_timeout() else { break };
            now = now.max(at);
            router.handle_timeout(now);
            drain(&mut router);
            let next = router.poll_timeout();
            assert!(next.is_none_or(|(at, _)| at > now), "it would spin on {next:?}");
        }
        // Own records are held whatever the limit: itself, its links, its services.
        assert!(router.records() <= LIMITS.records + 1 + 64 + 9, "{} records", router.records());
    }
}

fn drain(router: &mut Router) {
    while let Some(output) = router.poll_output() {
        match output {
            Output::Send(_, frame) => {
                let mut bytes = BytesMut::new();
                frame.encode(&mut bytes);
                let read = Frame::decode(&mut bytes, MAX_FRAME);
                assert!(matches!(read, Ok(Some(_))), "what it says can be read: {frame:?}");
            }
            Output::Routes(routes) => {
                let me = routes.me();
                for service in routes.services() {
                    assert!(!service.instances.is_empty());
                    for instance in service.reachable() {
                        let node = routes.node(&instance.node).expect("it is a member");
                        assert!(node.cost.is_finite() && (node.id == me) == instance.here);
                    }
                }
            }
            Output::Dial(_)
            | Output::Close(_)
            | Output::Answer(..)
            | Output::Note(_)
            | Output::Kept(_)
            | Output::Left => {}
        }
    }
}
