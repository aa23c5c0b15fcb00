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

pub use parse::{Command, ParseError, Parser};

use self::session::Session;

/// What a client is told of the protocol: the level that it speaks of NATS, headers included.
/// Clients ask for features by this number, and none that they ask for below it is missing here.
const VERSION: &str = "2.10.0";
/// Answers that wait for a client that does not read; then its commands wait.
const ANSWERS: usize = 64;

/// Accepts clients until the proxy drains.
pub(crate) async fn serve(shared: &Arc<Shared>, listener: TcpListener) {
    let listens = listener.local_addr().map(|address| shared.deliver.listens(address));
    capture::accept_all(shared, &listener, |shared, socket, peer| async move {
        connection(&shared, socket, peer).await;
    })
    .await;
    drop(listens);
}

async fn connection(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
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
    let info = info(shared, local, peer, number);
    let (read, write) = stream.into_split();
    let (answers, waiting) = mpsc::channel(ANSWERS);
    let mut session = Session::new(shared.broker.clone(), answers);
    let mailbox = session.mailbox().clone();
    let alive = session.alive();
    let mut draining = shared.draining.subscribe();
    // Whichever ends first ends the other: a client that is not read to is not heard either.
    tokio::select! {
        () = write::run(write, info, waiting, mailbox, alive) => {}
        () = session.run(read) => {}
        () = crate::proxy::drained(&mut draining) => {}
    }
}

fn info(shared: &Shared, local: SocketAddr, peer: SocketAddr, number: u64) -> String {
    let info = serde_json::json!({
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
    format!("INFO {info}\r\n")
}
