//! Connections of programs, carried as they are: an instance that takes the connection, here or on
//! another node. No byte of the program is read before one has, so another can always be asked.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use proto::exchange::{Load, Part, Reader};
use proto::fault::{Code, Fault};
use proto::open::{Messages, OpenKind};
use proto::{NodeId, Open};
use tunnel::{RecvHalf, StreamError};

use super::choose::Chosen;
use super::{Call, Form, Tried, outcome};
use crate::balance::shell::AtInstance;
use crate::balance::{Outcome, Report};
use crate::begin::Meant;
use crate::body::Body;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::heads::RequestHead;
use crate::proxy::Shared;
use crate::source::Source;
use crate::splice::{Far, Peer};

/// Until another node has said whether an instance took the connection: more than it takes to say
/// that none did, over the longest path there is.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a link may be suspected before another node is asked.
const DOUBT: Duration = Duration::from_millis(300);
/// Bytes read at a time while that is awaited.
const FIRST: usize = 16 * 1024;

/// What is carried: bytes, or packets.
pub(crate) trait Way: Sized + Send {
    /// How it is asked for at another node.
    const KIND: OpenKind;
    /// Whether an instance that has taken it is known to be there.
    const TAKEN_IS_ANSWERED: bool;

    /// To an instance of this node.
    fn near(
        shared: &Shared,
        address: &Arc<str>,
    ) -> impl Future<Output = Result<Self, Error>> + Send;

    /// To one of another node, which has taken it.
    fn far(far: Far) -> Self;
}

impl Way for Peer {
    const KIND: OpenKind = OpenKind::Bytes;
    const TAKEN_IS_ANSWERED: bool = true;

    async fn near(shared: &Shared, address: &Arc<str>) -> Result<Self, Error> {
        let host = shared.deliver.host(address);
        shared.deliver.dial(&host).await.map(|socket| Self::Near(socket, Bytes::new()))
    }

    fn far(far: Far) -> Self {
        Self::Far(Box::new(far))
    }
}

/// An instance that has taken a connection.
pub(crate) struct Connected<W = Peer> {
    pub(crate) peer: W,
    /// Counted there as long as the connection lasts; `None` outside of the network.
    pub(crate) at: Option<AtInstance>,
}

impl Shared {
    /// A connection to what is `meant`: the rules that hold for it are obeyed. `headers` are what the
    /// program said of it, if it could say anything.
    ///
    /// # Errors
    /// The [`Error`] of the first instance that was asked.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        meant: Meant,
        headers: HeaderMap,
    ) -> Result<Connected, Error> {
        self.connect_as(Form::Bytes, meant, headers).await
    }

    /// The same in another form of those that are carried as they are.
    ///
    /// # Errors
    /// As of [`Shared::connect`].
    pub(crate) async fn connect_as<W: Way>(
        self: &Arc<Self>,
        form: Form,
        meant: Meant,
        headers: HeaderMap,
    ) -> Result<Connected<W>, Error> {
        let Meant { service, selector, via, named } = meant;
        if self.is_draining() {
            return Err(Error::Draining);
        }
        self.balance.measure();
        self.balance.admit(|| None)?;
        let mut call = Call {
            head: Box::new(RequestHead {
                method: Method::CONNECT,
                path: http::uri::PathAndQuery::from_static("/"),
                authority: None,
                headers,
            }),
            source: Source::new(Body::empty(), None, &self.metrics.up),
            service,
            selector,
            form,
            idempotent: false,
            messages: Messages::Unknown,
            ruled: None,
            via,
            named,
            trace: None,
        };
        let mut deadline = Deadline::default();
        self.rule(&mut call, &mut deadline).await?;
        let attempts = call.ruled.as_ref().and_then(|ruled| ruled.attempts);
        let attempts = attempts.unwrap_or(self.limits.attempts) as usize;
        let mut tried = Tried::new();
        let mut first = None;
        loop {
            let chosen = match self.choose(&call, &tried) {
                Ok(chosen) => chosen,
                Err(error) => return Err(first.unwrap_or(error)),
            };
            tried.push(chosen.key);
            match self.connect_to(&call.service, chosen).await {
                Ok(connected) => return Ok(connected),
                Err((error, at)) => {
                    let error = first.get_or_insert(error);
                    if tried.len() >= attempts || !at.may_try_again() {
                        return Err(error.clone());
                    }
                    tracing::debug!(%error, service = call.service, "trying another instance");
                    self.metrics.retry();
                }
            }
        }
    }

    async fn connect_to<W: Way>(
        &self,
        service: &str,
        chosen: Chosen,
    ) -> Result<Connected<W>, (Error, AtInstance)> {
        let mut at = chosen.at;
        let taken = if chosen.here {
            W::near(self, &chosen.address).await.map(|near| (near, None))
        } else {
            self.connect_far(service, chosen.node, &chosen.id).await
        };
        match taken {
            Ok((peer, report)) => {
                if W::TAKEN_IS_ANSWERED {
                    at.settle(Outcome::Answered, report);
                }
                Ok(Connected { peer, at: Some(at) })
            }
            Err(error) => {
                if let Some(outcome) = outcome::of_error(&error) {
                    at.settle(outcome, None);
                }
                Err((error, at))
            }
        }
    }

    async fn connect_far<W: Way>(
        &self,
        service: &str,
        node: NodeId,
        instance: &str,
    ) -> Result<(W, Option<Report>), Error> {
        let open = Open {
            service: Bytes::copy_from_slice(service.as_bytes()),
            instance: Bytes::copy_from_slice(instance.as_bytes()),
            ..Open::new(W::KIND)
        };
        let unreachable = |why: String| Error::Unreachable { node, why };
        let connecting = async {
            let opened = self.tunnel.open(node, &open).await;
            let mut stream = opened.map_err(|error| unreachable(error.to_string()))?;
            let broken = |error: StreamError| unreachable(error.to_string());
            stream.send.flush().await.map_err(broken)?;
            let mut doubted = pin!(stream.recv.doubted(DOUBT));
            let (first, report) = tokio::select! {
                answer = answer(node, &mut stream.recv) => answer?,
                // Nothing of the program was sent: whatever became of it does no harm.
                () = &mut doubted => return Err(Error::LinkLost(node)),
            };
            let far = Far { send: stream.send, recv: stream.recv, first };
            Ok((W::far(far), report))
        };
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(unreachable(format!("it did not answer in {CONNECT:?}"))),
        }
    }
}

/// What the node of the instance says first, and what came after it.
async fn answer(node: NodeId, recv: &mut RecvHalf) -> Result<(Bytes, Option<Report>), Error> {
    let odd =
        |why: &str| Error::InstanceProtocol { instance: node.to_string(), why: why.to_owned() };
    let mut reader = Reader::default();
    loop {
        match reader.next() {
            Ok(Some(Part::Load(load))) => {
                return Ok((reader.into_rest(), Load::read(&load).map(Report::from)));
            }
            Ok(Some(Part::Fault(fault))) => {
                let fault = Fault::decode(fault);
                return Err(fault.map_or_else(|_| odd("a fault that is none"), Error::Fault));
            }
            Ok(Some(Part::Head(_) | Part::Data(_) | Part::Trailers(_))) | Err(_) => {
                recv.stop(Code::Protocol);
                return Err(odd("it did not begin with an answer"));
            }
            Ok(None) => {}
        }
        match recv.read(FIRST).await {
            Ok(Some(bytes)) => reader.push(bytes),
            Ok(None) => return Err(odd("it ended before it answered")),
            Err(StreamError::Reset(Code::Cancelled)) => return Err(Error::LinkLost(node)),
            Err(error) => return Err(Error::Unreachable { node, why: error.to_string() }),
        }
    }
}
