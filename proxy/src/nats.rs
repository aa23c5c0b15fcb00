//! Clients of NATS at their own node: the core protocol, on a port of its own.
//!
//! ```text
//! socket → parse: one command, its payload uncopied → session: what it means → broker
//! broker → mailbox → write: MSG and HMSG, many to one write → socket
//! ```
//!
//! A client sees one server that is the whole network. What is JetStream, an account or a cluster
//! in NATS is none of this port. The rules followed are those of the page "Client Protocol" of the
//! NATS documentation; where a server has a choice, the choice is named at the line.

mod headers;
mod login;
mod parse;
mod session;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::capture;
use crate::metrics::Turned;
use crate::proxy::Shared;
use crate::socket;

pub use headers::{header_block, headers_of};
pub use login::{KeyError, Login, user_key, user_text};
pub use parse::{Command, ParseError, Parser};

use self::login::Door;
use self::session::Session;

/// What a client is told of the protocol: the level that it speaks of NATS, headers included.
/// Clients ask for features by this number, and none that they ask for below it is missing here.
const VERSION: &str = "2.10.0";
/// Answers that wait for a client that does not read; then its commands wait.
const ANSWERS: usize = 64;

/// What clients are told and asked.
#[derive(Clone, Debug, Default)]
pub struct Face {
    /// What lets them in.
    pub login: Login,
    /// What the network is to them, a cluster: its id, by which a bridge knows its own network.
    pub cluster: String,
}

/// Accepts clients until the proxy drains.
pub(crate) async fn serve(shared: &Arc<Shared>, listener: TcpListener, face: Face) {
    let listens = listener.local_addr().map(|address| shared.deliver.listens(address));
    let (login, cluster) = (Arc::new(face.login), Arc::from(face.cluster));
    capture::accept_all(shared, &listener, |shared, socket, peer| {
        let (door, cluster) = (Door::of(&login), Arc::clone(&cluster));
        async move { connection(&shared, socket, peer, (door, cluster)).await }
    })
    .await;
    drop(listens);
}

async fn connection(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    (door, cluster): (Option<Door>, Arc<str>),
) {
    static NUMBERED: AtomicU64 = AtomicU64::new(1);
    socket::tune(&stream);
    let Ok(local) = stream.local_addr() else { return };
    if let Some(admit) = &shared.admit
        && admit(peer, local).is_err()
    {
        shared.metrics.turned(Turned::NotOwner);
        return write::refuse(stream, "Authorization Violation").await;
    }
    let number = NUMBERED.fetch_add(1, Ordering::Relaxed);
    let info = info(shared, (local, peer), number, &cluster, door.as_ref());
    let (read, write) = stream.into_split();
    let (answers, waiting) = mpsc::channel(ANSWERS);
    let mut session = Session::new(shared.broker.clone(), answers, door);
    let mailbox = session.mailbox().clone();
    let alive = session.alive();
    let mut draining = shared.draining.subscribe();
    // Whichever ends first ends the other: a client that is not read to is not heard either.
    tokio::select! {
        () = write::run(write, info, waiting, mailbox, alive) => {}
        () = session.run(read) => {}
        () = crate::proxy::drained(&mut draining) => {}
    }
    if session.was_refused() {
        tracing::debug!(%peer, "a client of NATS was refused: no token or key that is known");
        shared.metrics.turned(Turned::NoLogin);
    }
}

fn info(
    shared: &Shared,
    (local, peer): (SocketAddr, SocketAddr),
    number: u64,
    cluster: &str,
    door: Option<&Door>,
) -> String {
    let mut info = serde_json::json!({
        "server_id": shared.me_text,
        "server_name": shared.node_name,
        "version": VERSION,
        "proto": 1,
        "go": "",
        "host": local.ip().to_string(),
        "port": local.port(),
        "headers": true,
        "max_payload": proto::publish::MAX_PAYLOAD,
        "client_id": number,
        "client_ip": peer.ip().to_string(),
    });
    if !cluster.is_empty() {
        info["cluster"] = cluster.into();
    }
    if let Some(door) = door {
        info["auth_required"] = true.into();
        info["nonce"] = door.nonce.as_str().into();
    }
    format!("INFO {info}\r\n")
}
