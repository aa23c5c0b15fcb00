//! Two routers with a link between them, each under the services of its node.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use proto::frame::Frame;
use proto::grant::{Issuer, Pattern};
use proto::record::Node;
use proto::sign::Sign;
use proto::{
    Cost, Epoch, Grant, LabelSet, LinkId, NetworkId, NodeId, Roles, ServiceName, Time, UnixTime,
    Verified,
};
use proxy::own::{Admin, Config, Own, OwnService};
use proxy::{Body, Published, Registrar, RegistrarError};
use router::{
    Input, Limits, LinkEvent, Message, Output, Refusal, Registration, Request, RequestId, Router,
};
use tunnel::{Ed25519, Keypair};

use crate::client::Client;

/// When the test begins, by the wall clock that nobody looks at.
const STARTED: UnixTime = UnixTime(1_800_000_000);

pub(crate) struct World {
    routers: Arc<Mutex<Routers>>,
    addresses: Vec<SocketAddr>,
}

/// Both routers, and what is between them.
struct Routers {
    network: NetworkId,
    now: Time,
    routers: Vec<Router>,
    ids: Vec<NodeId>,
    published: Vec<Arc<Published>>,
    answers: BTreeMap<u64, Result<(), Refusal>>,
    requests: u64,
    /// The link, while there is one; a link that comes back is another.
    link: Option<LinkId>,
    links: u64,
}

impl World {
    /// Two nodes that may offer anything.
    pub(crate) async fn new() -> Self {
        Self::granting(&["*"]).await
    }

    /// Two nodes that may offer what `services` cover.
    pub(crate) async fn granting(services: &[&str]) -> Self {
        let (root, desk) = (Keypair::generate(), Keypair::generate());
        let issuer = Issuer::appoint(&root, desk.public_key(), UnixTime(u64::MAX >> 4));
        let network = issuer.network();
        let mut all = Routers {
            network,
            now: Time::ZERO,
            routers: Vec::new(),
            ids: Vec::new(),
            published: Vec::new(),
            answers: BTreeMap::new(),
            requests: 0,
            link: None,
            links: 0,
        };
        for (at, name) in ["here", "there"].into_iter().enumerate() {
            let key = Arc::new(Keypair::generate());
            let grant = Grant {
                network,
                key: key.public_key(),
                network_name: "test".into(),
                roles: Roles::NONE,
                namespaces: vec![Pattern::any()],
                services: services.iter().map(|text| Pattern::new(*text).unwrap()).collect(),
                serial: at as u64 + 1,
                epoch: 0,
                not_before: UnixTime(0),
                not_after: UnixTime(u64::MAX >> 4),
            };
            let node = Node {
                name: name.into(),
                region: "eu".into(),
                labels: LabelSet::default(),
                addresses: Vec::new(),
                release: "test".into(),
                protocol: proto::PROTOCOL,
                credential: Box::new(issuer.issue(&desk, &grant)),
            };
            let config = router::Config {
                network,
                epoch: Epoch(1),
                started: STARTED,
                seed: at as u64,
                limits: Limits::default(),
            };
            all.ids.push(key.node());
            all.published.push(Arc::new(Published::new(key.node())));
            all.routers.push(Router::new(key, node, config));
        }
        let published = all.published.clone();
        let ids = all.ids.clone();
        let routers = Arc::new(Mutex::new(all));
        let mut addresses = Vec::new();
        for (at, (routes, me)) in published.into_iter().zip(ids).enumerate() {
            let desk = Arc::new(Desk { routers: Arc::clone(&routers), at });
            let own = Own::new(Config {
                me,
                node_name: format!("node-{at}"),
                network: "test".into(),
                routes,
                registrar: Arc::clone(&desk) as Arc<dyn Registrar>,
                admin: desk,
                logs: Arc::default(),
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            tokio::spawn(serve(listener, own));
        }
        let world = Self { routers, addresses };
        world.heal();
        world.pass(Duration::from_secs(5));
        world
    }

    pub(crate) async fn client(&self, at: usize) -> Client {
        Client::connect(self.addresses[at]).await
    }

    /// Lets so much time pass, with everything that happens in it.
    pub(crate) fn pass(&self, by: Duration) {
        self.routers.lock().pass(by);
    }

    pub(crate) fn cut(&self) {
        let mut all = self.routers.lock();
        if let Some(link) = all.link.take() {
            let now = all.now;
            for router in &mut all.routers {
                router.handle(Input::Link(link, LinkEvent::Down), now);
            }
        }
        all.settle();
    }

    pub(crate) fn heal(&self) {
        let mut all = self.routers.lock();
        all.links += 1;
        let (link, now) = (LinkId(all.links), all.now);
        all.link = Some(link);
        let ids = all.ids.clone();
        for (at, router) in all.routers.iter_mut().enumerate() {
            let cost = Cost::from_micros(5_000);
            let event = LinkEvent::Up { node: ids[1 - at], cost, dialled: at == 0 };
            router.handle(Input::Link(link, event), now);
        }
        all.settle();
    }
}

impl Routers {
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        self.settle();
        loop {
            let due = self.routers.iter().filter_map(|router| Some(router.poll_timeout()?.0)).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            for router in &mut self.routers {
                router.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = until;
    }

    /// Does what the routers want done, until they want nothing.
    fn settle(&mut self) {
        let mut frames = VecDeque::new();
        loop {
            for at in 0..self.routers.len() {
                while let Some(output) = self.routers[at].poll_output() {
                    match output {
                        Output::Send(link, frame) if Some(link) == self.link => {
                            frames.push_back((1 - at, link, frame));
                        }
                        Output::Routes(routes) => self.published[at].publish(routes),
                        Output::Answer(RequestId(id), answer) => {
                            self.answers.insert(id, answer);
                        }
                        Output::Send(..)
                        | Output::Dial(_)
                        | Output::Close(_)
                        | Output::Note(_)
                        | Output::Kept(_)
                        | Output::Left => {}
                    }
                }
            }
            let Some((to, link, frame)) = frames.pop_front() else { return };
            let verified = match &frame {
                Frame::Records(records) => {
                    records.iter().map(|record| self.verified(record)).collect()
                }
                Frame::Hello(_)
                | Frame::Digest(_)
                | Frame::Summary(_)
                | Frame::Want(_)
                | Frame::Bye => Vec::new(),
            };
            if let Some(message) = Message::from_frame(frame, verified) {
                self.routers[to].handle(Input::Frame(link, message), self.now);
            }
        }
    }

    fn verified(&self, record: &proto::Record) -> Verified {
        Verified::check(record.clone(), self.network, STARTED, &Ed25519).unwrap()
    }

    fn ask(&mut self, at: usize, request: Request) -> Result<(), RegistrarError> {
        self.requests += 1;
        let id = self.requests;
        self.routers[at].handle(Input::Request(RequestId(id), request), self.now);
        self.settle();
        let answer = self.answers.remove(&id).expect("a router answers a request at once");
        // Whatever it holds back to gather changes is due well within this.
        self.pass(Duration::from_millis(200));
        answer.map_err(|refusal| RegistrarError::Refused(refusal.to_string()))
    }
}

/// The registrar of one of the two.
struct Desk {
    routers: Arc<Mutex<Routers>>,
    at: usize,
}

impl Registrar for Desk {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<(), RegistrarError>> {
        let answer = self.routers.lock().ask(self.at, Request::Register(registration));
        Box::pin(std::future::ready(answer))
    }

    fn deregister(
        &self,
        service: ServiceName,
        version: Option<String>,
        instance: String,
    ) -> BoxFuture<'_, Result<(), RegistrarError>> {
        let request = Request::Deregister { service, version, instance };
        let answer = self.routers.lock().ask(self.at, request);
        Box::pin(std::future::ready(answer))
    }
}

impl Admin for Desk {
    fn connect(&self, _: Vec<String>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Err("there is one link here".into())))
    }
}

async fn serve(listener: tokio::net::TcpListener, own: Own) {
    while let Ok((socket, _)) = listener.accept().await {
        let own = own.clone();
        let service = hyper::service::service_fn(move |request: http::Request<_>| {
            let own = own.clone();
            async move {
                let request = request.map(Body::new::<hyper::body::Incoming>);
                Ok::<_, std::convert::Infallible>(own.serve(request).await)
            }
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(socket);
        let connection = hyper::server::conn::http2::Builder::new(executor);
        tokio::spawn(async move { connection.serve_connection(io, service).await });
    }
}
