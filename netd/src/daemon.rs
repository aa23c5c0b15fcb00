//! The table of contents of the program: every part of a node, built in order.
//!
//! Two event loops. The data plane's, on a thread of its own ([`Data`]), owns listeners, links and
//! calls. The control plane's runs everything else: the router ([`crate::drive`]), the admin
//! socket, health, and upkeep. They share one pointer, the published routes, and handles.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use proto::{LabelSet, ServiceName};
use proxy::nats::{Face, Login};
use proxy::own::{self, Own};
use proxy::{Proxy, Published};
use router::{Router, Routes};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tunnel::door::Door;
use tunnel::quic::Quic;
use tunnel::{Control, Incoming, Tunnel};

use crate::backend::Backends;
use crate::config::{Settings, StoreBackend};
use crate::data::Data;
use crate::drain::{self, Signals};
use crate::drive::{Asks, Clock, Drive, Shared};
use crate::error::{Exit, Problem};
use crate::intercept::Intercept;
use crate::labels::{self, Kept, Labels};
use crate::member::{self, Member};
use crate::metrics::Metrics;
use crate::node::{Beats, Node, Phase};
use crate::output::Output;
use crate::registrar::ToRouter;
use crate::registrar::alive::{self, Alive};
use crate::registrar::checked::Checks;
use crate::rules::keep::Keeper;
use crate::store::{self, Backing};
use crate::upkeep::{Upkeep, describe};
use crate::{
    admin, bridge, health, interest, listen, log, names, owner, revisions, seeds, streams, welcome,
};

/// Runs a node until it is told to stop, or a part that it cannot do without ends.
///
/// # Errors
/// Why it could not start.
pub fn run(settings: Settings, output: Output) -> Result<Exit, Problem> {
    log::start(&settings.log_level, settings.log_format)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Problem::machine("no event loop can be made", &error))?;
    let ended = runtime.block_on(live(settings, output));
    // What still runs belongs to nobody any more.
    runtime.shutdown_background();
    ended
}

async fn live(settings: Settings, output: Output) -> Result<Exit, Problem> {
    let began = Instant::now();
    let mut signals = Signals::listen()?;
    let member = tokio::select! {
        member = member::establish(&settings) => member?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let settings = Settings { name: member.name.clone(), ..settings };
    let socket = admin::Socket::bind(&settings.socket_path()).await?;
    let origin = member.origin;
    let mut running = start(&settings, member, began).await?;
    let node = Arc::clone(&running.node);
    let admin = tokio::spawn(socket.serve(Arc::clone(&node), running.stop.clone()));
    let greeting = tokio::spawn(welcome::tell(Arc::clone(&node), origin, output));

    let mut phase = node.phase.subscribe();
    let exit = tokio::select! {
        () = signals.next() => Exit::Done,
        // The sender lives in the node, which this function holds.
        _ = phase.wait_for(|phase| *phase == Phase::Draining) => Exit::Done,
        ended = &mut running.drive => {
            greeting.abort();
            let why = ended.err().map_or_else(|| "it returned".to_owned(), |why| why.to_string());
            return Err(Problem::bug("the router has ended").why(why));
        }
    };
    greeting.abort();
    if let Err(problem) = node.intercept.off(None).await {
        tracing::error!(%problem, "connections are still led here");
    }
    drain::leave(&node, &mut signals, &running.accepting, output).await;
    running.streams.ended().await;
    running.stop.cancel();
    // Its socket goes with it: whoever looks afterwards is to find none.
    let _ = tokio::time::timeout(LAST, admin).await;
    Ok(exit)
}

/// A node that runs, until this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Its parts.
    pub node: Arc<Node>,
    /// The router's task: ends when the router has left.
    pub drive: JoinHandle<Control>,
    /// Ends the listeners of programs.
    pub accepting: CancellationToken,
    /// Ends everything else.
    pub stop: CancellationToken,
    /// The topics that are kept: at an end when what consumers have done is written down.
    pub streams: streams::Running,
    /// Dropped last: what runs there uses what is above.
    _data: Data,
}

/// Builds every part of a node, in order, and lets it run.
///
/// # Errors
/// M6001 for a port that is taken; M6002 for what else the system refuses.
pub async fn start(
    settings: &Settings,
    member: Member,
    began: Instant,
) -> Result<Running, Problem> {
    let data = Data::start()?;
    let (stop, accepting) = (CancellationToken::new(), CancellationToken::new());

    // Ports, before anybody is told of them.
    let proxies = listen::proxy(settings.proxy, settings.etcd)?;
    let (dns, dns_udp) = listen::dns(settings.dns)?;
    let nats = listen::tcp(settings.nats)?;
    let observe = listen::tcp(settings.observe)?;
    let at = |listener: &std::net::TcpListener| {
        listener.local_addr().map_err(|error| Problem::machine("a listener has no address", &error))
    };
    let proxy_at = proxies.iter().map(at).collect::<Result<Vec<_>, _>>()?;
    let (dns_at, nats_at, observe_at) = (at(&dns)?, at(&nats)?, at(&observe)?);

    // Links.
    let me = member.node();
    let routes = Arc::new(Published::with(Arc::new(Routes::empty(me))));
    let advertised = Arc::new(ArcSwap::from_pointee(Vec::new()));
    let (tunnel, control, incoming) = tunnel(&data, settings, &member, &routes).await?;
    let told = match &settings.advertise[..] {
        [] => listen::found_out(&tunnel.local_addresses()),
        told => seeds::resolve_all(told).await?,
    };
    advertised.store(Arc::new(told));

    // The router.
    let shared = Arc::new(Shared {
        routes: Arc::clone(&routes),
        links: watch::Sender::new(0),
        kept: watch::Sender::new(Arc::default()),
        trouble: watch::Sender::new(None),
    });
    let door = Door::new(member.network);
    let labelled = Kept::load(&member.state);
    let (drive, asks) = {
        let door = door.clone();
        let credential = member.credential.load();
        let (told, labels) = (advertised.load(), labelled.node(&settings.labels));
        let node = describe(settings, &member.name, &credential, &told, &labels);
        let config = router::Config {
            network: member.network,
            epoch: member.epoch,
            started: member::now(),
            seed: u64::from_be_bytes(tunnel::identity::random()),
            limits: router::Limits::default(),
        };
        let signer: Arc<dyn proto::sign::Sign> = Arc::clone(&member.key) as _;
        let clock = Clock::start();
        Drive::new(Router::new(signer, node, config), control, door, Arc::clone(&shared), clock)
    };
    let drive = tokio::spawn(drive.run());
    let (state, published) = (Arc::clone(&member.state), Arc::clone(&routes));
    let rules = Keeper::start(me, state, published, shared.kept.subscribe(), asks.clone()).await;
    let now = Arc::new(ArcSwap::from_pointee(labelled.node(&settings.labels)));
    let described = (settings.clone(), member.name.clone());
    let known = (Arc::clone(&member.credential), Arc::clone(&advertised));
    let describe = move |labels: &LabelSet| {
        let ((settings, name), (credential, told)) = (&described, &known);
        describe(settings, name, &credential.load(), &told.load(), labels)
    };
    let parts = labels::Parts {
        configured: settings.labels.clone(),
        now: Arc::clone(&now),
        state: Arc::clone(&member.state),
        asks: asks.clone(),
        describe: Box::new(describe),
    };
    let labels = Labels::start(labelled, parts).await;

    // The proxy.
    let face = Arc::new(admin::Face::default());
    let own = own(settings, &member, &routes, &asks, &face, &proxy_at)?;
    let proxy = proxy(settings, &member, &routes, &tunnel, own)?;
    let bridged = bridge::Counts::default();
    let kept = streams::Counts::default();
    let metrics = Arc::new(Metrics::new(|registry| {
        proxy.metrics(registry);
        bridged.register(registry);
        kept.register(registry);
        tunnel.counters().register(registry);
        door.counts().register(registry);
    }));
    let node = Arc::new(Node {
        name: member.name.clone(),
        region: settings.region.clone(),
        network_name: member.network_name.clone(),
        network: member.network,
        me,
        credential: Arc::clone(&member.credential),
        desk: member.desk.clone(),
        tunnel: tunnel.clone(),
        proxy: proxy.clone(),
        data: data.handle(),
        forwards: Arc::new(tokio::sync::Semaphore::new(admin::MAX_HELD)),
        intercept: Intercept::new(proxy.clone(), data.handle()),
        shared: Arc::clone(&shared),
        asks: asks.clone(),
        checks: Checks::new(Arc::new(ToRouter(asks.clone())), Box::new(offered(&routes))),
        rules,
        backends: Backends::start(&settings.backends, &asks, &routes, &proxy_at),
        labels,
        proxy_at,
        observe_at,
        dns_at,
        nats_at,
        advertised: Arc::clone(&advertised),
        began,
        grant_ttl: settings.grant_ttl,
        grace: settings.grace,
        phase: watch::Sender::new(Phase::Starting),
        alone: AtomicBool::new(member.desk.is_some()),
        beats: Beats::default(),
    });
    face.is_of(&node);
    serve_calls(&data, &proxy, proxies, incoming, &accepting).await?;
    serve_nats(&data, &proxy, (nats, face_of_nats(settings, &member)), &accepting).await?;
    names::serve(&data, &proxy, (dns, dns_udp), &member.state, &accepting).await?;
    tokio::spawn(interest::tell(proxy.broker().clone(), asks.clone()));
    let parts = bridge::Parts {
        broker: proxy.broker().clone(),
        routes: Arc::clone(&routes),
        network: member.network,
        counts: bridged.clone(),
    };
    bridge::start(&settings.bridges, &parts, &accepting);
    let parts = streams::Parts {
        broker: proxy.broker().clone(),
        routes: Arc::clone(&routes),
        dir: member.state.path("streams"),
        counts: kept,
        bridged,
    };
    let streams = streams::start(&settings.streams, &settings.bridges, parts, &accepting)?;
    data.spawn(Beats::keep(Arc::clone(&node), |beats| &beats.data));

    // What goes on beside the calls.
    tokio::spawn(Beats::keep(Arc::clone(&node), |beats| &beats.control));
    let observe = TcpListener::from_std(observe)
        .map_err(|error| Problem::machine("the health port cannot be served", &error))?;
    tokio::spawn(health::serve(observe, Arc::clone(&node), metrics, stop.clone()));
    let upkeep = Upkeep {
        settings: settings.clone(),
        name: member.name,
        key: member.key,
        credential: member.credential,
        state: member.state,
        peers: member.peers,
        tunnel,
        asks,
        shared,
        advertised,
        labels: now,
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(upkeep.run()));
    node.phase.send_replace(Phase::Serving);
    Ok(Running { node, drive, accepting, stop, streams, _data: data })
}

/// The tunnel, on the data plane. Where nobody insists on a port and the one found free was taken
/// in between, another is looked for.
async fn tunnel(
    data: &Data,
    settings: &Settings,
    member: &Member,
    routes: &Arc<Published>,
) -> Result<(Tunnel, Control, Incoming), Problem> {
    /// Losing the race for a port this often is no accident.
    const RACES: usize = 10;
    for _ in 0..RACES {
        let (book, peers) = (Arc::clone(routes), member.peers.clone());
        let config = tunnel::Config {
            key: Arc::clone(&member.key),
            network: member.network,
            credential: Arc::clone(&member.credential),
            epoch: member.epoch,
            listen: listen::udp(&settings.listen)?,
            reset_key: member.reset_key,
            desk: member.desk.clone(),
            book: Arc::new(move |node| addresses(&book, &peers, node)),
            limits: tunnel::config::Limits::default(),
        };
        let started = data.run(async move {
            let quic = Quic::bind(&config)?;
            tunnel::start(config, quic).await
        });
        match started.await? {
            Ok(parts) => return Ok(parts),
            Err(tunnel::Error::Bind { error, .. })
                if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(Problem::machine("links cannot be opened", &error)),
        }
    }
    let at = settings.listen.first().map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |first| first.at);
    Err(listen::taken(at, "UDP"))
}

/// Where `node` may be reached: as it says itself, else as it was known before.
fn addresses(routes: &Published, peers: &member::Peers, node: proto::NodeId) -> Vec<SocketAddr> {
    match routes.load().node(&node) {
        Some(found) if !found.addresses.is_empty() => found.addresses.to_vec(),
        Some(_) | None => peers.addresses(node),
    }
}

fn proxy(
    settings: &Settings,
    member: &Member,
    routes: &Arc<Published>,
    tunnel: &Tunnel,
    own: Own,
) -> Result<Proxy, Problem> {
    Ok(Proxy::new(proxy::Config {
        me: member.node(),
        node_name: member.name.clone(),
        routes: Arc::clone(routes),
        tunnel: tunnel.clone(),
        own: Some(own),
        admit: owner::admit(&settings.allow_users)?,
        admit_packets: owner::admit_packets(&settings.allow_users),
        limits: proxy::Limits { calls: settings.max_inflight, ..proxy::Limits::default() },
    }))
}

/// What the tokens of accounts are marked with is made for.
const TOKENS: &str = "micro network 2026-11 tokens of go.micro.auth";

/// The services of the node itself.
fn own(
    settings: &Settings,
    member: &Member,
    routes: &Arc<Published>,
    asks: &Asks,
    face: &Arc<admin::Face>,
    proxy_at: &[SocketAddr],
) -> Result<Own, Problem> {
    let config = own::Config {
        me: member.node(),
        node_name: member.name.clone(),
        network: member.network_name.clone(),
        routes: Arc::clone(routes),
        registrar: Arc::new(registrar(routes, asks)),
        admin: Arc::new(seeds::Connect(asks.clone())),
        logs: log::kept(),
    };
    let rules = Some(Arc::clone(face) as Arc<dyn own::Rules>);
    let etcd = own::etcd::Parts {
        revisions: Arc::new(revisions::Kept::start(Arc::clone(&member.state), member::now_ms())),
        urls: proxy_at.iter().map(ToString::to_string).collect(),
    };
    let backing = match settings.store {
        StoreBackend::Disk => Backing::File(member.state.path("store")),
        StoreBackend::Memory => Backing::Memory,
    };
    let store = Some(Arc::new(store::Kept::start(backing)?) as Arc<dyn own::store::Store>);
    // Known to this node alone, and the same in its next life: a signature that is told to nobody.
    let secret = proto::sign::Sign::sign(&*member.key, TOKENS.as_bytes());
    let tokens = Some(blake3::derive_key(TOKENS, secret.as_bytes()));
    Ok(Own::with(config, own::Parts { rules, etcd, store, tokens }))
}

/// Takes the registrations of programs: one without a TTL lasts as long as its address answers.
fn registrar(routes: &Arc<Published>, asks: &Asks) -> Alive {
    let router = Arc::new(ToRouter(asks.clone()));
    Alive::start(router, Box::new(offered(routes)), alive::Terms::default())
}

/// Whether this node offers an instance, by its id.
fn offered(routes: &Arc<Published>) -> impl Fn(&ServiceName, &str) -> bool + Send + Sync + use<> {
    let routes = Arc::clone(routes);
    move |service: &ServiceName, id: &str| {
        let routes = routes.load();
        let service = routes.service(service.as_str());
        service.is_some_and(|of| of.instances.iter().any(|one| one.here && &*one.id == id))
    }
}

/// Takes calls: of programs on every listener, of other nodes from the tunnel.
async fn serve_calls(
    data: &Data,
    proxy: &Proxy,
    listeners: Vec<std::net::TcpListener>,
    incoming: Incoming,
    accepting: &CancellationToken,
) -> Result<(), Problem> {
    for listener in listeners {
        let (proxy, accepting) = (proxy.clone(), accepting.clone());
        // The listener belongs to the event loop it is made in.
        let served = data.run(async move {
            let listener = TcpListener::from_std(listener)?;
            let serve = async move { proxy.serve(listener).await };
            tokio::spawn(accepting.run_until_cancelled_owned(serve));
            Ok::<_, std::io::Error>(())
        });
        let failed = |error| Problem::machine("the proxy port cannot be served", &error);
        served.await?.map_err(failed)?;
    }
    let proxy = proxy.clone();
    data.spawn(async move { proxy.arrive(incoming).await });
    Ok(())
}

/// What clients of NATS are asked for.
fn face_of_nats(settings: &Settings, member: &Member) -> Face {
    let tokens = settings.nats_tokens.iter().map(|token| token.expose());
    let login = Login::new(tokens, settings.nats_keys.clone());
    Face { login, cluster: member.network.to_string() }
}

/// Takes clients of NATS.
async fn serve_nats(
    data: &Data,
    proxy: &Proxy,
    (listener, face): (std::net::TcpListener, Face),
    accepting: &CancellationToken,
) -> Result<(), Problem> {
    let (proxy, accepting) = (proxy.clone(), accepting.clone());
    let served = data.run(async move {
        let listener = TcpListener::from_std(listener)?;
        let serve = async move { proxy.nats(listener, face).await };
        tokio::spawn(accepting.run_until_cancelled_owned(serve));
        Ok::<_, std::io::Error>(())
    });
    let failed = |error| Problem::machine("the port for NATS cannot be served", &error);
    served.await?.map_err(failed)
}

/// Lets the process open as many files as it may: every connection is one. Refused, it runs with
/// what it has.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files was not raised");
    }
}

/// How long what ends last may take: removing a file.
const LAST: Duration = Duration::from_secs(1);

/// How long a node may take to be ready before it says what it waits for.
pub const READY_HINT: Duration = Duration::from_secs(3);
