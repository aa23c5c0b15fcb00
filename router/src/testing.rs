//! Signers, members and a few routers wired to each other, for tests.

use std::sync::Arc;
use std::time::Duration;

use proto::frame::Frame;
use proto::grant::{Issuer, Pattern};
use proto::record::Node;
use proto::sign::Sign;
pub(crate) use proto::testing::{Toy, ToyVerify};
use proto::{
    Cost, Credential, Epoch, Grant, LabelSet, LinkId, NetworkId, NodeId, Role, Roles, Time,
    UnixTime, Verified,
};

use crate::kept::KeptSets;
use crate::{
    Config, Input, Limits, LinkEvent, Message, Note, Output, Refusal, Registration, Request,
    RequestId, Router, Routes,
};

/// The wall clock when everything begins.
pub(crate) const STARTED: UnixTime = UnixTime(1_000_000);

const ROOT: Toy = Toy(251);
const ISSUER: Toy = Toy(252);

pub(crate) fn network() -> NetworkId {
    NetworkId::of(&ROOT.public_key())
}

/// A grant for `who`: all services that match, until so many seconds after the start.
pub(crate) fn credential(who: Toy, services: &str, seconds: u64, relay: bool) -> Credential {
    let issuer = Issuer::appoint(&ROOT, ISSUER.public_key(), STARTED.plus(1 << 30));
    let grant = Grant {
        network: network(),
        key: who.public_key(),
        network_name: "test".into(),
        roles: if relay { Roles::NONE.with(Role::Relay) } else { Roles::NONE },
        namespaces: vec![Pattern::any()],
        services: vec![Pattern::new(services).unwrap()],
        serial: 1,
        epoch: 1,
        not_before: UnixTime(0),
        not_after: STARTED.plus(seconds),
    };
    issuer.issue(&ISSUER, &grant)
}

pub(crate) fn node(who: Toy, services: &str, seconds: u64) -> Node {
    Node {
        name: format!("node-{}", who.0),
        region: "eu".into(),
        labels: LabelSet::default(),
        addresses: Vec::new(),
        release: "0".into(),
        protocol: proto::PROTOCOL,
        credential: Box::new(credential(who, services, seconds, true)),
    }
}

/// A node that may decide about the calls of services in `namespace`.
pub(crate) fn operator(who: Toy, namespace: &str) -> Node {
    let issuer = Issuer::appoint(&ROOT, ISSUER.public_key(), STARTED.plus(1 << 30));
    let plain = node(who, "*", 1 << 20);
    let grant = Grant {
        roles: Roles::NONE.with(Role::Relay).with(Role::Operator),
        namespaces: vec![Pattern::new(namespace).unwrap()],
        ..plain.credential.grant().clone()
    };
    Node { credential: Box::new(issuer.issue(&ISSUER, &grant)), ..plain }
}

pub(crate) fn registration(service: &str, id: &str, ttl: Option<Duration>) -> Registration {
    Registration {
        service: service.parse().unwrap(),
        version: "latest".into(),
        metadata: LabelSet::default(),
        endpoints: Vec::new(),
        instance: proto::record::Instance {
            id: id.into(),
            address: "127.0.0.1:9".into(),
            protocol: proto::record::Protocol::Grpc,
            metadata: LabelSet::default(),
        },
        ttl,
    }
}

/// Routers with links that take no time.
pub(crate) struct Net {
    pub(crate) routers: Vec<Router>,
    pub(crate) now: Time,
    pub(crate) routes: Vec<Arc<Routes>>,
    pub(crate) notes: Vec<Vec<Note>>,
    pub(crate) answers: Vec<(usize, Result<(), Refusal>)>,
    pub(crate) closed: Vec<(usize, LinkId)>,
    pub(crate) dials: Vec<(usize, NodeId)>,
    pub(crate) left: Vec<usize>,
    /// What each has on its disk of rules.
    pub(crate) kept: Vec<Arc<KeptSets>>,
    /// Frames sent, by router.
    pub(crate) sent: Vec<Vec<Frame>>,
    /// Both ends of each link, by its number; `None` when it is down.
    links: Vec<Option<(usize, usize)>>,
}

impl Net {
    /// Routers of the toys 0, 1, … in a first life.
    pub(crate) fn new(count: u32) -> Self {
        Self::of((0..count).map(|n| router(Toy(n), 1, node(Toy(n), "*", 1 << 20))).collect())
    }

    pub(crate) fn of(routers: Vec<Router>) -> Self {
        let count = routers.len();
        let mut net = Self {
            routes: routers.iter().map(|r| Arc::new(Routes::empty(r.me()))).collect(),
            routers,
            now: Time::ZERO,
            notes: vec![Vec::new(); count],
            answers: Vec::new(),
            closed: Vec::new(),
            dials: Vec::new(),
            left: Vec::new(),
            kept: vec![Arc::default(); count],
            sent: vec![Vec::new(); count],
            links: Vec::new(),
        };
        net.drain();
        net
    }

    /// Links two routers; the first is who dialled. Returns the link.
    pub(crate) fn link(&mut self, a: usize, b: usize, micros: u32) -> LinkId {
        let id = LinkId(self.links.len() as u64);
        self.links.push(Some((a, b)));
        for (near, far, dialled) in [(b, a, false), (a, b, true)] {
            let node = self.routers[far].me();
            let cost = Cost::from_micros(micros);
            let up = LinkEvent::Up { node, cost, dialled };
            self.routers[near].handle(Input::Link(id, up), self.now);
        }
        self.drain();
        id
    }

    pub(crate) fn unlink(&mut self, link: LinkId) {
        let Some((a, b)) = self.links[link.0 as usize].take() else { return };
        for end in [a, b] {
            self.event(end, link, LinkEvent::Down);
        }
    }

    pub(crate) fn event(&mut self, at: usize, link: LinkId, event: LinkEvent) {
        self.routers[at].handle(Input::Link(link, event), self.now);
        self.drain();
    }

    pub(crate) fn frame(&mut self, at: usize, link: LinkId, message: Message) {
        self.routers[at].handle(Input::Frame(link, message), self.now);
        self.drain();
    }

    pub(crate) fn request(&mut self, at: usize, request: Request) -> Result<(), Refusal> {
        self.routers[at].handle(Input::Request(RequestId(7), request), self.now);
        self.drain();
        self.answers.pop().map_or(Ok(()), |(_, answer)| answer)
    }

    pub(crate) fn register(&mut self, at: usize, service: &str, id: &str) {
        self.request(at, Request::Register(registration(service, id, None))).unwrap();
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let next = self.routers.iter().filter_map(Router::poll_timeout).map(|(at, _)| at).min();
            match next {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    for router in &mut self.routers {
                        router.handle_timeout(self.now);
                    }
                    self.drain();
                }
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    pub(crate) fn settle(&mut self) {
        self.run(Duration::from_secs(3));
    }

    /// The ids of the instances that `at` would call.
    pub(crate) fn found(&self, at: usize, service: &str) -> Vec<String> {
        let found = self.routes[at].service(service).map(|service| service.reachable());
        let mut ids: Vec<_> =
            found.unwrap_or_default().iter().map(|one| one.id.to_string()).collect();
        ids.sort();
        ids
    }

    /// How many nodes `at` can reach, itself included.
    pub(crate) fn reach(&self, at: usize) -> usize {
        self.routes[at].nodes().filter(|node| node.cost.is_finite()).count()
    }

    fn drain(&mut self) {
        while let Some(at) = (0..self.routers.len()).find(|at| self.drain_one(*at)) {
            let _ = at;
        }
    }

    /// Carries out what one router wants; true if there was anything.
    fn drain_one(&mut self, at: usize) -> bool {
        let mut any = false;
        while let Some(output) = self.routers[at].poll_output() {
            any = true;
            match output {
                Output::Send(link, frame) => self.deliver(at, link, frame),
                Output::Dial(node) => self.dials.push((at, node)),
                Output::Close(link) => self.closed.push((at, link)),
                Output::Routes(routes) => self.routes[at] = routes,
                Output::Answer(_, answer) => self.answers.push((at, answer)),
                Output::Note(note) => self.notes[at].push(note),
                Output::Kept(kept) => self.kept[at] = kept,
                Output::Left => self.left.push(at),
            }
        }
        any
    }

    fn deliver(&mut self, from: usize, link: LinkId, frame: Frame) {
        self.sent[from].push(frame.clone());
        let ends = usize::try_from(link.0).ok().and_then(|at| *self.links.get(at)?);
        let Some((a, b)) = ends else { return };
        let to = if from == a { b } else { a };
        let mut wire = bytes::BytesMut::new();
        frame.encode(&mut wire);
        while let Some(frame) = Frame::decode(&mut wire, proto::frame::MAX_FRAME).unwrap() {
            let records = match &frame {
                Frame::Records(records) => records.iter().cloned().map(believe).collect(),
                Frame::Hello(_)
                | Frame::Digest(_)
                | Frame::Summary(_)
                | Frame::Want(_)
                | Frame::Bye => Vec::new(),
            };
            if let Some(message) = Message::from_frame(frame, records) {
                self.routers[to].handle(Input::Frame(link, message), self.now);
            }
        }
    }
}

/// What the door would let in.
pub(crate) fn believe(record: proto::Record) -> Verified {
    Verified::check(record, network(), STARTED, &ToyVerify).unwrap()
}

pub(crate) fn router(who: Toy, epoch: u64, node: Node) -> Router {
    let config = Config {
        network: network(),
        epoch: Epoch(epoch),
        started: STARTED,
        seed: u64::from(who.0),
        limits: Limits::default(),
    };
    Router::new(Arc::new(who), node, config)
}
