//! What a node may be told to do: let somebody in, link with a seed, offer a service, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use proto::grant::Pattern;
use proto::record::{Endpoint, Instance, Protocol, ValueType};
use proto::{LabelSet, Role, Roles, ServiceName, Ticket};
use proxy::{Registrar as _, RegistrarError};
use router::Registration;
use tunnel::LinkInfo;
use tunnel::issuer::Template;

use super::answer::{Answer, Body, document, malformed};
use super::{detect, read};
use crate::api;
use crate::error::{Exit, Problem};
use crate::member;
use crate::node::{Node, Phase};
use crate::registrar::ToRouter;
use crate::registrar::probe::Check;

/// How long a ticket is valid unless the request says: long enough to walk to the other machine.
const TICKET_TTL: u64 = 15 * 60;
/// The longest a ticket may be valid.
const LONGEST_TICKET: u64 = 30 * 86_400;
/// How long `join` waits for the peer to answer before it says that none has.
const DIALLED: Duration = Duration::from_secs(3);
/// Most uses of one ticket.
const MOST_USES: u32 = 10_000;
/// The version of a service that names none, as go-micro calls it.
const LATEST: &str = "latest";

/// `POST /v1/invite`.
pub(super) async fn invite(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::InviteRequest>,
) -> Answer<api::Invited> {
    let (ttl, uses) = (ask.ttl_s.unwrap_or(TICKET_TTL), ask.uses.unwrap_or(1));
    if !(1..=LONGEST_TICKET).contains(&ttl) || !(1..=MOST_USES).contains(&uses) {
        let bounds = format!("1 second to 30 days, 1 to {MOST_USES} uses");
        return Err(malformed(&format!("a ticket is valid for {bounds}")));
    }
    let roles = role(ask.role.as_deref())?;
    let template = Template {
        roles,
        namespaces: patterns(&ask.namespaces, &["default"])?,
        // The least by default: who joins may call, and offers what it was granted.
        services: patterns(&ask.services, &[])?,
        life: node.grant_ttl.as_secs(),
    };
    let shown = |patterns: &[Pattern]| patterns.iter().map(|p| p.as_str().to_owned()).collect();
    let (services, namespaces) = (shown(&template.services), shown(&template.namespaces));
    let ticket = make_ticket(&node, template, ttl, uses).await?;
    document(
        "Ticket",
        api::Invited {
            ticket: ticket.to_text(),
            id: ticket.id.to_string(),
            expires: read::time(ticket.expires),
            uses,
            role: roles.names(),
            services,
            namespaces,
        },
    )
}

/// A ticket from this node's desk for `uses` nodes, valid for `ttl` seconds, with this node's
/// addresses as seeds.
///
/// # Errors
/// M3011 where this node is no issuer, M6003 where the ledger cannot be written.
pub async fn make_ticket(
    node: &Node,
    template: Template,
    ttl: u64,
    uses: u32,
) -> Result<Ticket, Problem> {
    let Some(desk) = node.desk.clone() else {
        let routes = node.routes();
        let issuer = routes.nodes().find(|other| other.roles.has(Role::Issuer));
        let issuer = issuer.map_or("the node that made the network".to_owned(), |other| {
            format!("{} ({})", other.name, other.region)
        });
        return Err(Problem::new("M3011", Exit::NotAllowed, "this node does not make tickets")
            .why(format!("only an issuer does: {issuer}"))
            .attempt("micro network invite", "on that node"));
    };
    let seeds = node.advertised.load().iter().map(SocketAddr::to_string).collect();
    // Waits for the disk.
    let made = move || desk.invite(template, ttl, uses, seeds, member::now());
    let made = tokio::task::spawn_blocking(made).await;
    let made = made.map_err(|why| Problem::bug(format!("the desk panicked: {why}")))?;
    made.map_err(|why| {
        Problem::new("M6003", Exit::Failed, "the ticket could not be written down")
            .why(why.to_string())
            .attempt("micro config path", "shows where state is kept: is the disk full?")
    })
}

/// `POST /v1/join`: link with one more seed of the same network.
pub(super) async fn join(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::JoinRequest>,
) -> Answer<api::Joined> {
    let seeds = match (&ask.address, &ask.ticket) {
        (Some(address), None) => vec![address.clone()],
        (None, Some(text)) => {
            let ticket: Ticket = text.parse().map_err(|why| malformed(&why))?;
            if ticket.network != node.network {
                return Err(Problem::new(
                    "M3008",
                    Exit::NotAllowed,
                    format!("this node is a member of {} already", node.network_name),
                )
                .why(format!("the ticket is for network {}", ticket.network_name))
                .attempt(
                    "micro network --name NAME --join TICKET",
                    "joins it with a second node",
                ));
            }
            ticket.seeds
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(malformed(&"an address or a ticket is needed, and only one of them"));
        }
    };
    let mut addresses = Vec::new();
    let mut failed = None;
    for seed in &seeds {
        match tunnel::seeds::resolve(seed).await {
            Ok(found) => addresses.extend(found),
            Err(why) => failed = Some(why.to_string()),
        }
    }
    if let (true, Some(why)) = (addresses.is_empty(), failed) {
        let what = format!("no address for {}", seeds.join(", "));
        return Err(Problem::new("M2001", Exit::Unreachable, what).why(why));
    }
    node.asks.dial_seed(addresses.clone()).await;
    let link = tokio::time::timeout(DIALLED, linked(&node, &addresses)).await.ok();
    let shown = addresses.iter().map(SocketAddr::to_string).collect();
    let peer = link.as_ref().map(|link| Node::name_of(&node.routes(), &link.peer));
    let rtt_ns = link.map(|link| u64::try_from(link.rtt.as_nanos()).unwrap_or(u64::MAX));
    document("Joined", api::Joined { addresses: shown, peer: peer.unwrap_or_default(), rtt_ns })
}

/// A neighbour link with one of `addresses`: the one there is, or the one that comes.
async fn linked(node: &Node, addresses: &[SocketAddr]) -> LinkInfo {
    let mut links = node.shared.links.subscribe();
    loop {
        links.borrow_and_update();
        let found =
            node.tunnel.links().into_iter().find(|link| {
                link.neighbour && addresses.iter().any(|at| same_place(*at, link.remote))
            });
        match found {
            Some(link) => return link,
            // The sender lives in the node, which this borrows.
            None => drop(links.changed().await),
        }
    }
}

/// Whether two addresses are one: IPv4 may be written as IPv6.
fn same_place(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

/// `POST /v1/expose`.
pub(super) async fn expose(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::ExposeRequest>,
) -> Answer<api::Exposed> {
    let service: ServiceName = ask.name.parse().map_err(|why| malformed(&why))?;
    let is_socket = ask.address.strip_prefix("unix:").is_some_and(|path| path.starts_with('/'));
    let is_port = ask.address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if !is_socket && (!is_port || ask.address.starts_with("unix:")) {
        return Err(malformed(&format!("{:?} is not host:port or unix:/path", ask.address)));
    }
    let check = ask.check.as_ref().map(Check::read).transpose().map_err(|why| malformed(&why))?;
    if node.proxy_at.iter().any(|at| at.to_string() == ask.address) {
        return Err(malformed(&"that is this node's own proxy: calls would go round in a circle"));
    }
    let protocol = match ask.protocol.as_deref() {
        Some(name) => protocol(name)?,
        None => detect::protocol(&ask.address).await?,
    };
    let version = ask.version.filter(|v| !v.is_empty()).unwrap_or_else(|| LATEST.to_owned());
    let registration = Registration {
        service: service.clone(),
        version: version.clone(),
        metadata: LabelSet::default(),
        endpoints: ask.endpoints.iter().map(endpoint).collect(),
        instance: Instance {
            id: format!("{service}@{}", ask.address),
            address: ask.address.clone(),
            protocol,
            metadata: ask.labels.into_iter().collect(),
        },
        ttl: ask.ttl_s.map(Duration::from_secs),
    };
    let registered = node.checks.register(registration, check).await;
    registered.map_err(|why| not_registered(&service, &why))?;
    document(
        "Exposed",
        api::Exposed {
            name: service.to_string(),
            address: ask.address,
            protocol: protocol.name().to_owned(),
            version,
        },
    )
}

/// `POST /v1/unexpose`.
pub(super) async fn unexpose(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::UnexposeRequest>,
) -> Answer<api::Unexposed> {
    let service: ServiceName = ask.name.parse().map_err(|why| malformed(&why))?;
    let routes = node.routes();
    let here = routes.service(service.as_str()).map(|found| found.instances.iter());
    let mine: Vec<String> = here
        .into_iter()
        .flatten()
        .filter(|i| i.here && ask.address.as_ref().is_none_or(|at| **at == *i.address))
        .map(|instance| instance.id.to_string())
        .collect();
    let registrar = ToRouter(node.asks.clone());
    let mut instances = 0;
    for instance in mine {
        node.checks.forget(&(service.clone(), instance.clone()));
        match registrar.deregister(service.clone(), None, instance).await {
            Ok(()) => instances += 1,
            // Gone in between: what was asked for is so.
            Err(RegistrarError::NotFound) => {}
            Err(why) => {
                return Err(not_registered(&service, &why));
            }
        }
    }
    if instances == 0 {
        return Err(match routes.service(service.as_str()) {
            None => read::no_service(&routes, &node.network_name, service.as_str()),
            Some(_) => {
                let what = format!("{service} is not exposed on this node");
                Problem::new("M1203", Exit::NotFound, what)
                    .why("its instances are on other nodes, or at another address")
                    .attempt(format!("micro describe {service}"), "shows where they are")
            }
        });
    }
    document("Unexposed", api::Unexposed { name: service.to_string(), instances })
}

/// `POST /v1/down`: drain and stop, as SIGTERM does.
pub(super) async fn down(State(node): State<Arc<Node>>) -> Answer<serde_json::Value> {
    node.phase.send_if_modified(|phase| {
        let changes = *phase < Phase::Draining;
        *phase = Phase::Draining.max(*phase);
        changes
    });
    let grace_ms = u64::try_from(node.grace.as_millis()).unwrap_or(u64::MAX);
    let body = serde_json::json!({ "node": { "name": node.name }, "grace_ms": grace_ms });
    document("Draining", body)
}

fn not_registered(service: &ServiceName, why: &RegistrarError) -> Problem {
    match why {
        RegistrarError::Refused(reason) => {
            Problem::new("M3009", Exit::NotAllowed, format!("{service} cannot be offered here"))
                .why(reason.clone())
                .attempt(
                    format!("micro network invite --service {service}"),
                    "on an issuer, makes a ticket that allows it; join again with it",
                )
        }
        RegistrarError::TooMuch(reason) => {
            Problem::new("M4001", Exit::Usage, format!("{service} cannot be offered so"))
                .why(reason.clone())
                .attempt("micro services", "lists what is offered; labels are short and few")
        }
        RegistrarError::Unavailable => {
            Problem::new("M1013", Exit::Unreachable, "the node is stopping").why(why.to_string())
        }
        RegistrarError::NotFound => {
            Problem::new("M1203", Exit::NotFound, format!("{service} has no such instance"))
        }
    }
}

fn protocol(name: &str) -> Result<Protocol, Problem> {
    match name {
        "grpc" => Ok(Protocol::Grpc),
        "http" | "http1" => Ok(Protocol::Http1),
        "http2" | "h2c" => Ok(Protocol::Http2),
        "mucp" => Ok(Protocol::Mucp),
        "tcp" => Ok(Protocol::Tcp),
        "tls" => Ok(Protocol::Tls),
        "udp" => Ok(Protocol::Udp),
        other => {
            let known = "grpc, http, http2, mucp, tcp, tls and udp are delivered";
            Err(malformed(&format!("protocol {other:?}: {known}")))
        }
    }
}

fn role(name: Option<&str>) -> Result<Roles, Problem> {
    match name {
        None | Some("" | "edge") => Ok(Roles::NONE),
        Some("relay") => Ok(Roles::NONE.with(Role::Relay)),
        Some("gate" | "gateway") => Ok(Roles::NONE.with(Role::Gateway)),
        Some("operator") => Ok(Roles::NONE.with(Role::Operator)),
        // Another issuer needs an appointment by the root, which a ticket cannot give.
        Some(other) => {
            Err(malformed(&format!("role {other:?}: edge, relay, gate and operator can be given")))
        }
    }
}

fn patterns(texts: &[String], default: &[&str]) -> Result<Vec<Pattern>, Problem> {
    let given = texts.iter().map(String::as_str);
    let chosen: Vec<&str> = if texts.is_empty() { default.to_vec() } else { given.collect() };
    let one = |text: &str| {
        Pattern::new(text).map_err(|_| {
            malformed(&format!("{text:?} is not a pattern: a name, a prefix and *, or * alone"))
        })
    };
    chosen.into_iter().map(one).collect()
}

fn endpoint(endpoint: &api::Endpoint) -> Endpoint {
    Endpoint {
        name: endpoint.name.clone(),
        request: endpoint.request.as_ref().map(shape),
        response: endpoint.response.as_ref().map(shape),
        metadata: endpoint.metadata.clone().into_iter().collect(),
    }
}

fn shape(shape: &api::Shape) -> ValueType {
    ValueType {
        name: shape.name.clone(),
        kind: shape.kind.clone(),
        values: shape.values.iter().map(self::shape).collect(),
    }
}
