//! Ports of this machine that are services somewhere, for as long as somebody holds the answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use proto::record::Protocol;
use proto::{Selector, ServiceName};
use proxy::Destination;
use router::Lookup;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::answer::{Body, malformed};
use crate::api;
use crate::config::Address;
use crate::error::{Exit, Problem};
use crate::listen;
use crate::node::Node;

/// Ports of one request.
const MAX_PORTS: usize = 64;
/// Requests that are held at a time: the admin socket stays open for others.
pub const MAX_HELD: usize = 48;

/// `POST /v1/forward`
pub(super) async fn forward(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::ForwardRequest>,
) -> Result<Response, Problem> {
    if ask.forwards.is_empty() || ask.forwards.len() > MAX_PORTS {
        return Err(malformed(&format!("1 to {MAX_PORTS} ports are forwarded at once")));
    }
    let Ok(place) = Arc::clone(&node.forwards).try_acquire_owned() else {
        let what = format!("{MAX_HELD} forwards are held already");
        return Err(Problem::new("M1305", Exit::Failed, what)
            .why("each holds a place at the admin socket, and others need some too")
            .attempt("micro exec --service a --service b -- CMD", "forwards several in one"));
    };
    // All of them or none.
    let mut bound = Vec::new();
    for asked in &ask.forwards {
        bound.push(bind(&node, asked)?);
    }
    let mut ports = JoinSet::new();
    let mut items = Vec::new();
    for (port, to) in bound {
        let at = port.local_addr();
        let at = at.map_err(|error| Problem::machine("a port has no address", &error))?;
        let instances = match node.routes().lookup(&to.service, &to.selector) {
            Lookup::Found(candidates) => candidates.all().count(),
            Lookup::Unknown | Lookup::NoMatch(_) | Lookup::Unreachable(_) => 0,
        };
        let (service, udp) = (to.service.clone(), matches!(port, Port::Udp(_)));
        items.push(api::Forward { service, address: at.to_string(), udp, instances });
        ports.spawn_on(port.serve(node.proxy.clone(), to), &node.data);
    }
    let document = api::Document::new("ForwardList", api::Items { items });
    let mut line = serde_json::to_vec(&document)
        .map_err(|error| Problem::bug(format!("an answer cannot be written: {error}")))?;
    line.push(b'\n');
    let held = Held { line: Some(line.into()), ports, _place: place };
    Ok(([(header::CONTENT_TYPE, "application/json")], Stream::new(held)).into_response())
}

/// A port that stands for a service.
enum Port {
    Tcp(std::net::TcpListener),
    Udp(std::net::UdpSocket),
}

impl Port {
    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }

    /// Serves it, in the event loop this runs in, to which its socket then belongs.
    async fn serve(self, proxy: proxy::Proxy, to: Destination) {
        let failed = |error| tracing::error!(%error, "a forwarded port cannot be served");
        match self {
            Self::Tcp(listener) => match TcpListener::from_std(listener) {
                Ok(listener) => proxy.forward(listener, to).await,
                Err(error) => failed(error),
            },
            Self::Udp(socket) => match UdpSocket::from_std(socket) {
                Ok(socket) => proxy.forward_packets(socket, to).await,
                Err(error) => failed(error),
            },
        }
    }
}

fn bind(node: &Node, asked: &api::ForwardAsked) -> Result<(Port, Destination), Problem> {
    let service: ServiceName = asked.service.parse().map_err(|why| malformed(&why))?;
    let selector: Selector = asked.select.parse().map_err(|why| malformed(&why))?;
    let at: SocketAddr = asked
        .address
        .parse()
        .map_err(|_| malformed(&format!("{:?} is not an address and a port", asked.address)))?;
    let free = |taken: Problem| taken.attempt("micro forward SERVICE", "takes a port that is free");
    let address = Address { at, asked: true };
    let port = if asked.udp || is_udp(node, &service) {
        Port::Udp(listen::packets(address).map_err(free)?)
    } else {
        Port::Tcp(listen::tcp(address).map_err(free)?)
    };
    Ok((port, Destination { service: service.as_str().to_owned(), selector }))
}

/// Whether all there is of a service takes packets.
fn is_udp(node: &Node, service: &ServiceName) -> bool {
    let routes = node.routes();
    let instances = routes.service(service.as_str()).map(|found| &found.instances);
    instances
        .is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.protocol == Protocol::Udp))
}

/// The answer, which ends when the ports do; dropped, it ends them. Connections there are go on.
struct Held {
    line: Option<Bytes>,
    ports: JoinSet<()>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(line) = self.line.take() {
            return Poll::Ready(Some(Ok(Frame::data(line))));
        }
        while let Some(_ended) = std::task::ready!(self.ports.poll_join_next(cx)) {}
        Poll::Ready(None)
    }
}
