//! Strangers: whoever connects is one until its grant was checked, and gets little.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::PublicKey;
use proto::join::{Answer, JoinRequest, MAX_MESSAGE, Refusal};
use proto::open::{MAX_OPEN, Open, OpenKind};
use tokio::time::{Instant, timeout, timeout_at};

use crate::close::{Close, Gone};
use crate::counters::Handshake;
use crate::endpoint::Endpoint;
use crate::greet;
use crate::prefixes::{Prefixes, Verdict};
use crate::stream::{StreamError, read_all, write_all};
use crate::transport::{Connection, Knock, Listener, Sender};

/// Streams of a node that joins: the control stream, and the one it asks on.
const JOINER_STREAMS: u32 = 2;

/// Where strangers come from.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<Prefixes>);

/// Counts a stranger as long as it is one.
struct Stranger(Arc<Endpoint>);

impl Stranger {
    fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.counters.strangers.add();
        Self(Arc::clone(endpoint))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.counters.strangers.sub();
    }
}

/// Lets strangers in, as many as may be, until the transport is closed.
pub(crate) async fn listen(endpoint: Arc<Endpoint>, mut listener: Listener) {
    while let Some(knock) = listener.accept().await {
        let handshakes = &endpoint.counters.handshakes;
        match judge(&endpoint, &knock) {
            Knocking::Admit => drop(tokio::spawn(stranger(Stranger::new(&endpoint), knock))),
            Knocking::Retry => {
                handshakes.add(Handshake::Retried);
                knock.retry();
            }
            Knocking::Refuse(why) => {
                handshakes.add(why);
                knock.refuse();
            }
        }
    }
}

/// What to do with somebody who knocks.
enum Knocking {
    Admit,
    Retry,
    Refuse(Handshake),
}

fn judge(endpoint: &Endpoint, knock: &Knock) -> Knocking {
    let there = usize::try_from(endpoint.counters.strangers.get()).unwrap_or(0);
    let (most, proven) = (endpoint.config.limits.strangers, knock.is_validated());
    if there >= most || endpoint.is_full() || endpoint.is_closing() {
        return Knocking::Refuse(Handshake::Full);
    }
    let from = knock.remote().ip();
    match endpoint.strangers.0.lock().knock(from, proven, endpoint.clock.now()) {
        Verdict::Refuse => Knocking::Refuse(Handshake::Crowded),
        Verdict::Retry => Knocking::Retry,
        Verdict::Admit if there >= most / 2 && !proven => Knocking::Retry,
        Verdict::Admit => Knocking::Admit,
    }
}

/// What a stranger turns out to be.
enum Known {
    /// A member, with a link now.
    Member,
    /// A node with a ticket, waiting on this stream for an answer.
    Joiner(JoinRequest, Sender),
    /// A node that may ask, and asks one that cannot answer.
    Lost(Sender),
}

async fn stranger(stranger: Stranger, knock: Knock) {
    let endpoint = &stranger.0;
    let until = Instant::now() + endpoint.config.limits.greeting;
    let handshakes = &endpoint.counters.handshakes;
    let connection = match timeout_at(until, knock.admit()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return handshakes.add(Handshake::Failed),
        Err(_) => return handshakes.add(Handshake::Slow),
    };
    handshakes.add(Handshake::Proven);
    let close = match timeout_at(until, recognise(endpoint, &connection)).await {
        Ok(Ok(Known::Member)) => return,
        Ok(Ok(Known::Joiner(request, send))) => join(endpoint, &connection, request, send).await,
        Ok(Ok(Known::Lost(send))) => {
            answer(endpoint, &connection, send, Answer::Refused(Refusal::NotAnIssuer)).await
        }
        Ok(Err(Gone::Here(close))) => close,
        Ok(Err(gone)) => {
            endpoint.counters.strangers_refused.add(gone.into());
            Close::Done
        }
        Err(_) => Close::Slow,
    };
    if close != Close::Done {
        endpoint.counters.strangers_refused.add(Gone::Here(close).into());
        tracing::debug!(remote = %connection.remote(), reason = %close, "a stranger is refused");
    }
    connection.close(close);
}

async fn recognise(endpoint: &Arc<Endpoint>, connection: &Connection) -> Result<Known, Gone> {
    let mut greeted = greet::as_listener(connection).await?;
    let ours = endpoint.hello(greeted.hello.neighbour);
    if greeted.hello.credential.is_none() {
        greet::say(&mut greeted.send, ours).await?;
        return hear(endpoint, connection).await;
    }
    let (key, now) = (connection.peer(), (endpoint.config.limits.wall)());
    let peer =
        greet::judge(&greeted.hello, endpoint.config.network, &key, now).map_err(Gone::Here)?;
    if peer.node == endpoint.me {
        return Err(Gone::Here(Close::WrongNode));
    }
    if let Some(close) = endpoint.penalty_of(&peer.node) {
        return Err(Gone::Here(close));
    }
    greet::say(&mut greeted.send, ours).await?;
    let neighbour = greeted.hello.neighbour;
    endpoint.adopt(connection.clone(), greeted, &peer, false, neighbour).await;
    Ok(Known::Member)
}

/// Reads what a node without a grant asks for: to join, or it is refused.
async fn hear(endpoint: &Endpoint, connection: &Connection) -> Result<Known, Gone> {
    let broken = |_: StreamError| Gone::Here(Close::Protocol);
    connection.allow_streams(JOINER_STREAMS);
    let (send, mut recv) = connection.accept().await?;
    let mut asked = read_all(&mut recv, MAX_OPEN + MAX_MESSAGE).await.map_err(broken)?;
    let open = Open::decode(&mut asked).ok().flatten().ok_or(Gone::Here(Close::Protocol))?;
    if open.kind != OpenKind::Join {
        return Err(Gone::Here(Close::NotAMember));
    }
    let request = JoinRequest::decode(asked.freeze()).map_err(|_| Gone::Here(Close::Protocol))?;
    Ok(match endpoint.config.desk {
        Some(_) => Known::Joiner(request, send),
        None => Known::Lost(send),
    })
}

async fn join(
    endpoint: &Endpoint,
    connection: &Connection,
    request: JoinRequest,
    send: Sender,
) -> Close {
    let (key, binding): (PublicKey, _) = (connection.peer(), connection.binding());
    let now = (endpoint.config.limits.wall)();
    let redeemed = match endpoint.config.desk.clone() {
        // It waits for the disk.
        Some(desk) => {
            tokio::task::spawn_blocking(move || desk.redeem(&request, key, &binding, now)).await
        }
        None => Ok(Answer::Refused(Refusal::NotAnIssuer)),
    };
    answer(endpoint, connection, send, redeemed.unwrap_or(Answer::Refused(Refusal::Unavailable)))
        .await
}

async fn answer(
    endpoint: &Endpoint,
    connection: &Connection,
    mut send: Sender,
    answer: Answer,
) -> Close {
    match &answer {
        Answer::Granted(_) => endpoint.counters.joins_granted.add(),
        Answer::Refused(refusal) => {
            endpoint.counters.joins_refused.add();
            tracing::info!(remote = %connection.remote(), %refusal, "a ticket was refused");
        }
    }
    let bytes: Bytes = answer.encode();
    let said = async {
        if write_all(&mut send, bytes).await.is_ok() {
            // The joiner closes when it has read the answer.
            connection.closed().await;
        }
    };
    let _ = timeout(endpoint.config.limits.greeting, said).await;
    Close::Done
}
