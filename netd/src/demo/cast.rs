//! The nodes of the demo and what they offer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::grant::Pattern;
use proto::record::{Instance, Protocol};
use proto::{LabelSet, Role, Roles};
use proxy::Registrar as _;
use router::Registration;
use tunnel::issuer::Template;

use super::distance::{Distance, Stage};
use crate::admin::make_ticket;
use crate::cli::demo::DemoArgs;
use crate::config::{Address, LogFormat, Paths, Settings, StoreBackend, secret};
use crate::daemon::{self, Running};
use crate::error::{Exit, Problem};
use crate::member;
use crate::node::Node;
use crate::registrar::ToRouter;
use crate::serve::{self, Builtin};

/// Where the demo's nodes stand, unless told otherwise.
const CITIES: [(&str, &str); 3] = [("eu", "Frankfurt"), ("us", "Virginia"), ("ap", "Tokyo")];
/// Round trips between them, in milliseconds: what one sees between such data centres.
const ROUND_TRIPS: [((usize, usize), u64); 3] = [((0, 1), 86), ((1, 2), 150), ((0, 2), 220)];
/// Round trip between nodes that have no city.
const ELSEWHERE: Duration = Duration::from_millis(60);
/// Seconds a ticket of the demo is valid.
const TICKET_TTL: u64 = 60;

/// What is to be shown.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// One a node; also their names.
    pub(super) regions: Vec<String>,
    /// What each region is in words, where it is one of the usual.
    pub(super) cities: Vec<Option<&'static str>>,
    /// Round trips between any two, row by column.
    pub(super) distance: Distance,
}

impl Plan {
    pub(super) fn new(args: &DemoArgs) -> Self {
        let usual = || CITIES.iter().map(|(region, _)| (*region).to_owned());
        let given: Vec<String> =
            if args.regions.is_empty() { usual().collect() } else { args.regions.clone() };
        let count = args.nodes.map_or(given.len(), usize::from).max(2);
        let mut regions: Vec<String> = Vec::with_capacity(count);
        for number in 0..count {
            let region = &given[number % given.len()];
            let round = number / given.len() + 1;
            regions.push(if round == 1 { region.clone() } else { format!("{region}-{round}") });
        }
        let is_usual = regions.iter().zip(CITIES).all(|(region, (usual, _))| region == usual);
        let city = |at: usize| CITIES.get(at).filter(|_| is_usual).map(|(_, city)| *city);
        let cities = (0..count).map(city).collect();
        let between = |a: usize, b: usize| match args.delay {
            Some(same) => same,
            None => ROUND_TRIPS
                .iter()
                .find(|((x, y), _)| is_usual && (*x, *y) == (a.min(b), a.max(b)))
                .map_or(ELSEWHERE, |(_, ms)| Duration::from_millis(*ms)),
        };
        let distance = Distance::new(count, between, args.loss / 100.0);
        Self { regions, cities, distance }
    }

    /// The node that greets.
    pub(super) const GREETER: usize = 1;

    /// What is offered where: the greeter on the second node, the clock on the last, echoes on all.
    fn services(&self) -> Vec<(Builtin, usize)> {
        let last = self.regions.len() - 1;
        let echoes = (0..self.regions.len()).map(|at| (Builtin::Echo, at));
        [(Builtin::Greeter, Self::GREETER), (Builtin::Clock, last)]
            .into_iter()
            .chain(echoes)
            .collect()
    }
}

/// Everything on stage; gone, with its files, when this is dropped.
#[derive(Debug)]
pub(super) struct Cast {
    plan: Plan,
    nodes: Vec<Running>,
    services: parking_lot::Mutex<Vec<serve::Running>>,
    runtime: PathBuf,
    _stage: Vec<Stage>,
    _files: Files,
}

/// A call, and where its time went.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) message: String,
    pub(super) total: Duration,
    pub(super) network: Duration,
    pub(super) service: Duration,
}

impl Cast {
    /// Starts the first node, and has the others join it with tickets, at once.
    pub(super) async fn start(plan: &Plan) -> Result<Self, Problem> {
        let files = Files::new()?;
        let paths = Paths::find(None)?;
        let runtime = paths.runtime.clone();
        let stages = (0..plan.regions.len()).map(|at| plan.distance.stage(at));
        let stages: Vec<Stage> = futures_util::future::try_join_all(stages)
            .await
            .map_err(|error| Problem::machine("no port for the demo", &error))?;
        let settings = |at: usize| settings(plan, at, stages[at].address, &files, &paths);
        let mut nodes = vec![start(settings(0), &plan.distance, &stages[0]).await?];
        let founder = Arc::clone(&nodes[0].node);
        let joiners = (1..plan.regions.len()).map(|at| {
            let (mut settings, founder) = (settings(at), Arc::clone(&founder));
            let stage = &stages[at];
            async move {
                let template = Template {
                    roles: Roles::NONE.with(Role::Relay),
                    namespaces: vec![Pattern::any()],
                    services: vec![Pattern::any()],
                    life: crate::config::DEFAULT_GRANT_TTL.as_secs(),
                };
                let ticket = make_ticket(&founder, template, TICKET_TTL, 1).await?;
                settings.ticket = secret::read(&ticket.to_text()).ok();
                start(settings, &plan.distance, stage).await
            }
        });
        nodes.extend(futures_util::future::try_join_all(joiners).await?);
        let services = parking_lot::Mutex::default();
        Ok(Self { plan: plan.clone(), nodes, services, runtime, _stage: stages, _files: files })
    }

    /// The node that another terminal talks to.
    pub(super) fn first(&self) -> &Arc<Node> {
        &self.nodes[0].node
    }

    /// Where it listens for that.
    pub(super) fn socket(&self) -> PathBuf {
        self.runtime.join(format!("{}.sock", self.first().name))
    }

    /// Where the clock is.
    pub(super) fn last_region(&self) -> &str {
        self.plan.regions.last().map_or("", String::as_str)
    }

    /// Waits until every node reaches every other.
    pub(super) async fn joined(&self) {
        let all = self.nodes.len();
        self.everywhere(|node| {
            node.routes().nodes().filter(|other| other.cost.is_finite()).count() >= all
        })
        .await;
    }

    /// Starts the services and registers each at its node; gives how many names that makes.
    pub(super) async fn offer(&self) -> Result<usize, Problem> {
        for (builtin, at) in self.plan.services() {
            let postscript = format!(", from {}", self.plan.regions[at]);
            let running = serve::start(builtin, &postscript)
                .await
                .map_err(|error| Problem::machine("no port for a service", &error))?;
            let registration = Registration {
                service: builtin.name().parse().expect("built-in services have plain names"),
                version: "latest".to_owned(),
                metadata: LabelSet::default(),
                endpoints: builtin.endpoints(),
                instance: Instance {
                    id: format!("{}-{}", builtin.name(), self.plan.regions[at]),
                    address: running.address.to_string(),
                    protocol: Protocol::Grpc,
                    metadata: LabelSet::default(),
                },
                ttl: None,
            };
            let registrar = ToRouter(self.nodes[at].node.asks.clone());
            let refused = |why| Problem::bug(format!("{} was not taken: {why}", builtin.name()));
            registrar.register(registration).await.map_err(refused)?;
            self.services.lock().push(running);
        }
        Ok(Builtin::ALL.len())
    }

    /// Waits until every node sees everything that is offered.
    pub(super) async fn agreed(&self, services: usize) {
        let instances = self.services.lock().len();
        self.everywhere(|node| {
            let routes = node.routes();
            let reachable = |s: &Arc<router::ServiceRoutes>| {
                s.instances.iter().filter(|i| i.cost.is_finite()).count()
            };
            routes.services().count() == services
                && routes.services().map(reachable).sum::<usize>() == instances
        })
        .await;
    }

    async fn everywhere(&self, holds: impl Fn(&Node) -> bool) {
        for running in &self.nodes {
            let mut changed = running.node.shared.routes.changed();
            loop {
                changed.borrow_and_update();
                if holds(&running.node) {
                    break;
                }
                // The sender lives in the node, which this holds.
                let _ = changed.changed().await;
            }
        }
    }

    /// Calls the greeter from the first node, through its proxy port as any program would.
    pub(super) async fn call(&self) -> Result<Called, Problem> {
        let failed = |why: String| {
            Problem::new("M1003", Exit::Unreachable, "the call of the demo failed").why(why)
        };
        let (from, to) = (self.first(), self.nodes[Plan::GREETER].node.me);
        let echo = bytes::Bytes::from_static(b"demo");
        let is_linked = from.tunnel.links().iter().any(|link| link.peer == to);
        let mut network = from.tunnel.echo(to, echo.clone()).await;
        if !is_linked {
            // The first one opened the link.
            network = from.tunnel.echo(to, echo).await;
        }
        let network = network.map_err(|why| failed(why.to_string()))?;
        let at =
            self.services.lock().iter().find(|s| s.builtin == Builtin::Greeter).map(|s| s.address);
        let direct = at.ok_or_else(|| failed("there is no greeter".to_owned()))?;
        // The first call of a process also pays for what is set up once: it is not shown.
        hello(direct).await.map_err(failed)?;
        let (_, service) = hello(direct).await.map_err(failed)?;
        let (message, total) = hello(from.proxy_at[0]).await.map_err(failed)?;
        Ok(Called { message, total, network, service })
    }

    /// Ends all nodes, at once: there is nobody else to say goodbye to.
    pub(super) fn leave(self) {
        for running in &self.nodes {
            running.accepting.cancel();
            running.stop.cancel();
        }
    }
}

/// Greets Ada; the time is that of the call alone, without the connection.
async fn hello(at: SocketAddr) -> Result<(String, Duration), String> {
    let mut greeter = serve::Greeter::connect(at).await?;
    let began = Instant::now();
    let message = greeter.hello("Ada").await?;
    Ok((message, began.elapsed()))
}

async fn start(settings: Settings, distance: &Distance, stage: &Stage) -> Result<Running, Problem> {
    let member = member::establish(&settings).await?;
    let running = daemon::start(&settings, member, Instant::now()).await?;
    if let Some(at) = running.node.tunnel.local_addresses().first() {
        distance.place(stage, *at);
    }
    Ok(running)
}

fn settings(plan: &Plan, at: usize, front: SocketAddr, files: &Files, paths: &Paths) -> Settings {
    let any = |at: SocketAddr, asked| Address { at, asked };
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let usual = SocketAddr::from(([127, 0, 0, 1], if at == 0 { 8081 } else { 0 }));
    Settings {
        backends: Vec::new(),
        name: plan.regions[at].clone(),
        name_asked: true,
        region: plan.regions[at].clone(),
        labels: LabelSet::default(),
        network: Some("demo".to_owned()),
        listen: vec![any(loopback, true)],
        advertise: vec![front.to_string()],
        join: Vec::new(),
        ticket: None,
        proxy: any(usual, at != 0),
        allow_users: crate::config::Users::These(Vec::new()),
        max_inflight: crate::config::DEFAULT_MAX_INFLIGHT,
        etcd: None,
        store: StoreBackend::Memory,
        dns: any(loopback, true),
        nats: any(loopback, true),
        nats_tokens: Vec::new(),
        nats_keys: Vec::new(),
        bridges: Vec::new(),
        streams: Vec::new(),
        observe: any(loopback, true),
        log_level: "error".to_owned(),
        log_format: LogFormat::Text,
        grace: Duration::ZERO,
        grant_ttl: crate::config::DEFAULT_GRANT_TTL,
        socket: Some(files.0.join(format!("{at}.sock"))),
        paths: Paths { state: files.0.join("state"), ..paths.clone() },
    }
}

/// A directory that goes with the demo.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Self, Problem> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = proto::id::base32().encode(&tunnel::identity::random::<10>());
        let dir = std::env::temp_dir().join(format!("micro-demo-{name}"));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|error| {
            Problem::machine(format!("{} cannot be made", dir.display()), &error)
        })?;
        Ok(Self(dir))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: Option<u8>, regions: &[&str]) -> Plan {
        Plan::new(&DemoArgs {
            once: true,
            nodes,
            regions: regions.iter().map(|r| (*r).to_owned()).collect(),
            delay: None,
            loss: 0.0,
        })
    }

    #[test]
    fn nodes_beyond_the_regions_get_names_of_their_own() {
        assert_eq!(plan(None, &[]).regions, ["eu", "us", "ap"]);
        assert_eq!(plan(Some(5), &["a", "b"]).regions, ["a", "b", "a-2", "b-2", "a-3"]);
        assert_eq!(plan(None, &["one"]).regions, ["one", "one-2"]);
    }

    #[test]
    fn the_usual_regions_are_as_far_apart_as_their_cities() {
        let usual = plan(None, &[]);
        assert_eq!(usual.distance.between(2, 0), Duration::from_millis(220));
        assert_eq!(usual.cities[1], Some("Virginia"));
        assert_eq!(plan(None, &["x", "y"]).distance.between(0, 1), ELSEWHERE);
    }
}
