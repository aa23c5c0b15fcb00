//! Connections to instances that speak HTTP/1.1.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Deliver, Host};
use crate::body::{Body, BodyError, Part, poll_frames};
use crate::error::Error;

/// The idle connections to one instance, the one used last at the back.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    send: SendRequest<Body>,
    since: Instant,
}

/// A response body, and the connection it comes on.
pub(crate) struct Lent {
    incoming: Incoming,
    send: Option<SendRequest<Body>>,
    host: Arc<Host>,
}

/// A request that was not sent, and why. Without the request: it may have been.
pub(crate) struct NotSent {
    pub(crate) error: Error,
    pub(crate) request: Option<Request<Body>>,
}

/// What became of a request for an upgrade.
pub(crate) enum Switched {
    /// The connection is something else now; it may have said something already.
    To(Response<()>, TcpStream, Bytes),
    /// The instance answered instead.
    Not(Response<Body>),
}

impl Pool {
    pub(crate) fn is_empty(&self) -> bool {
        self.idle.lock().is_empty()
    }

    /// A connection that is certainly idle: kept alive by the instance, nothing half sent or read.
    fn take(&self, host: &Host) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        let now = Instant::now();
        while idle.front().is_some_and(|i| now - i.since > host.limits.idle || i.send.is_closed()) {
            idle.pop_front();
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            match idle[at].send.poll_ready(&mut cx) {
                Poll::Ready(Ok(())) => return idle.remove(at).map(|idle| idle.send),
                Poll::Ready(Err(_)) => {
                    idle.remove(at);
                }
                // Its request is still being written, or its task had no turn since.
                Poll::Pending => {}
            }
        }
        None
    }

    fn put(&self, send: SendRequest<Body>, most: usize) {
        if send.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() >= most {
            idle.pop_front();
        }
        idle.push_back(Idle { send, since: Instant::now() });
    }
}

impl Deliver {
    /// Sends `request` to `host` and waits for the head of the response.
    ///
    /// # Errors
    /// [`NotSent`] gives the request back when the instance has certainly not seen it.
    pub(crate) async fn http1(
        &self,
        host: &Arc<Host>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, NotSent> {
        loop {
            let idle = host.http1.take(host);
            let fresh = idle.is_none();
            let mut send = match idle {
                Some(send) => send,
                None => match self.connect_http1(host).await {
                    Ok(send) => send,
                    Err(error) => return Err(NotSent { error, request: Some(request) }),
                },
            };
            match send.try_send_request(request).await {
                Ok(response) => {
                    return Ok(response.map(|incoming| {
                        Body::lent(Lent { incoming, send: Some(send), host: Arc::clone(host) })
                    }));
                }
                Err(mut failed) => {
                    let unsent = failed.take_message();
                    let error = blame(failed.error(), &host.address, unsent.is_some());
                    match unsent {
                        // The idle connection closed as we took it.
                        Some(unsent) if !fresh => request = unsent,
                        unsent => return Err(NotSent { error, request: unsent }),
                    }
                }
            }
        }
    }

    /// Sends a `request` that asks for an upgrade, on a connection of its own.
    ///
    /// # Errors
    /// [`Error`]; one that [is unseen](Error::is_unseen) if the instance has not seen the request.
    pub(crate) async fn upgrade(
        &self,
        host: &Arc<Host>,
        request: Request<Body>,
    ) -> Result<Switched, Error> {
        let mut send = self.connect_http1(host).await?;
        let sent = send.try_send_request(request).await;
        let mut response = sent.map_err(|mut failed| {
            let unsent = failed.take_message().is_some();
            blame(failed.error(), &host.address, unsent)
        })?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Switched::Not(response.map(|incoming| {
                Body::lent(Lent { incoming, send: Some(send), host: Arc::clone(host) })
            })));
        }
        let lost = |why: String| Error::InstanceLost { instance: host.address.to_string(), why };
        let upgraded = hyper::upgrade::on(&mut response).await;
        let upgraded = upgraded.map_err(|error| lost(error.to_string()))?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>();
        let parts = parts.map_err(|_| lost("its connection was not given back".to_owned()))?;
        Ok(Switched::To(response.map(|_| ()), parts.io.into_inner(), parts.read_buf))
    }

    async fn connect_http1(&self, host: &Host) -> Result<SendRequest<Body>, Error> {
        let socket = self.dial(host).await?;
        let (send, connection) = Builder::new()
            .max_buf_size(host.limits.head as usize + 16 * 1024)
            .max_headers(256)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| Error::Refused {
                instance: host.address.to_string(),
                why: error.to_string(),
            })?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to an instance ended");
            }
        });
        Ok(send)
    }
}

fn blame(error: &hyper::Error, instance: &str, unsent: bool) -> Error {
    let instance = instance.to_owned();
    let why = error.to_string();
    if unsent {
        Error::TurnedAway(instance)
    } else if error.is_parse() || error.is_parse_status() {
        Error::InstanceProtocol { instance, why }
    } else {
        Error::InstanceLost { instance, why }
    }
}

impl Lent {
    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, BodyError>>> {
        let polled = poll_frames(&mut self.incoming, cx, |error| {
            if error.is_parse() {
                BodyError::Protocol(error.to_string())
            } else {
                BodyError::Lost(error.to_string())
            }
        });
        if let Poll::Ready(None | Some(Ok(Part::Trailers(_)))) = polled {
            self.give_back();
        }
        polled
    }

    pub(crate) fn is_end(&self) -> bool {
        http_body::Body::is_end_stream(&self.incoming)
    }

    fn give_back(&mut self) {
        if let Some(send) = self.send.take() {
            self.host.http1.put(send, self.host.limits.idle_per_instance);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A body dropped before its end leaves a connection that nobody may use again; one without
        // a body (HEAD, 204, 304) is idle as it is.
        if self.is_end() {
            self.give_back();
        }
    }
}
