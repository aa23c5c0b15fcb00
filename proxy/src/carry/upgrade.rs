//! A request that asks for another protocol (`Upgrade`, RFC 9110 §7.8): sent to an instance, and if
//! that answers 101, its connection instead of a body.
//!
//! Between nodes it is an exchange whose head keeps `Upgrade`. After a head that says 101 neither half
//! is framed any more; a node that does not know of this strips the field, and the service answers a
//! plain request.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use proto::fault::Code;

use super::{Call, Chosen, Held, Reply, leg, open};
use crate::body::Body;
use crate::deadline::{self, Deadline};
use crate::deliver::Deliver;
use crate::deliver::http1::Switched;
use crate::error::Error;
use crate::frames::{FrameSink, PartReader};
use crate::heads::{self, RequestHead};
use crate::proxy::Shared;
use crate::splice::{Far, Peer};

/// What a connection has become.
pub(crate) struct Upgraded {
    /// As the service calls it.
    pub(crate) protocol: HeaderValue,
    /// The connection to the instance.
    pub(crate) peer: Peer,
}

impl Shared {
    /// Sends a request that asks for an upgrade to an instance, and gives what that answers.
    ///
    /// # Errors
    /// [`Error`]; nothing but the head was sent.
    pub(super) async fn upgrade(
        &self,
        call: &mut Call,
        chosen: &Chosen,
        deadline: &mut Deadline,
    ) -> Result<Reply, Error> {
        if chosen.here {
            return here(&self.deliver, &chosen.address, call.head.clone(), deadline).await;
        }
        self.upgrade_there(call, chosen, deadline).await
    }

    async fn upgrade_there(
        &self,
        call: &mut Call,
        chosen: &Chosen,
        deadline: &mut Deadline,
    ) -> Result<Reply, Error> {
        let node = chosen.node;
        let Ok(frame) = heads::request(&call.head) else {
            return Err(Error::HeadTooLarge(proto::exchange::MAX_HEAD));
        };
        let open = open(call, chosen, deadline);
        let answered = async {
            let unreachable = |why: String| Error::Unreachable { node, why };
            let opened = self.tunnel.open(node, &open).await;
            let stream = opened.map_err(|error| unreachable(error.to_string()))?;
            let mut doubted = pin!(stream.recv.doubted(leg::DOUBT));
            let mut sink = FrameSink::new(stream.send);
            sink.queue_frame(frame);
            let flushed = poll_fn(|cx| sink.poll_flush(cx)).await;
            flushed.map_err(|error| unreachable(error.to_string()))?;
            let mut reader = Box::new(PartReader::new(stream.recv));
            let head = poll_fn(|cx| match reader.poll_head(cx) {
                Poll::Ready(head) => Poll::Ready(head.map_err(|error| leg::blame(error, node))),
                Poll::Pending => doubted.as_mut().poll(cx).map(|()| Err(Error::LinkLost(node))),
            });
            match head.await {
                Ok(head) => Ok((head, sink, reader)),
                Err(error) => {
                    reader.stop(Code::Cancelled);
                    sink.reset(Code::Cancelled);
                    Err(error)
                }
            }
        };
        let (head, mut sink, reader) = deadline.race(pin!(answered)).await?;
        let (status, mut headers) = leg::response(head, node)?;
        let mut reply = |body, upgraded| Reply {
            status,
            headers: std::mem::take(&mut headers),
            body,
            upload: None,
            held: Held::default(),
            upgraded,
        };
        if status != StatusCode::SWITCHING_PROTOCOLS {
            sink.finish();
            return Ok(reply(Body::stream(reader), None));
        }
        let mut reply = reply(Body::empty(), None);
        let protocol = protocol(&mut reply.headers, node)?;
        let (recv, first) = reader.into_half();
        let peer = Peer::Far(Box::new(Far { send: sink.into_half(), recv, first }));
        reply.upgraded = Some(Box::new(Upgraded { protocol, peer }));
        Ok(reply)
    }
}

/// Sends a request that asks for an upgrade to an instance of this node.
///
/// # Errors
/// [`Error`] as of [`Deliver::upgrade`].
pub(crate) async fn here(
    deliver: &Deliver,
    address: &Arc<str>,
    mut head: Box<RequestHead>,
    deadline: &mut Deadline,
) -> Result<Reply, Error> {
    let host = deliver.host(address);
    if let Some(left) = deadline.left() {
        deadline::rewrite(&mut head.headers, left);
    }
    // One that could not be passed on says nothing about the answer.
    head.headers.remove(header::TE);
    let mut request = leg::http1_request(*head, &host, Body::empty())?;
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    let held = Held::default();
    match deadline.race(pin!(deliver.upgrade(&host, request))).await? {
        Switched::Not(response) => {
            let (parts, body) = response.into_parts();
            let (status, headers) = (parts.status, parts.headers);
            Ok(Reply { status, headers, body, upload: None, held, upgraded: None })
        }
        Switched::To(response, socket, first) => {
            let mut headers = response.into_parts().0.headers;
            let protocol = protocol(&mut headers, address)?;
            let upgraded = Upgraded { protocol, peer: Peer::Near(socket, first) };
            let (status, body) = (StatusCode::SWITCHING_PROTOCOLS, Body::empty());
            let upgraded = Some(Box::new(upgraded));
            Ok(Reply { status, headers, body, upload: None, held, upgraded })
        }
    }
}

/// Takes what the connection becomes from the head of a 101, which has to say it (RFC 9110 §15.2.2).
fn protocol(headers: &mut HeaderMap, from: impl ToString) -> Result<HeaderValue, Error> {
    let why = || "it switched to a protocol that it does not name".to_owned();
    let none = || Error::InstanceProtocol { instance: from.to_string(), why: why() };
    headers.remove(header::UPGRADE).ok_or_else(none)
}
