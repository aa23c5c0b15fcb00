//! How a connection of a program arrives: accepted, admitted, recognised, served.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};

use crate::detect::{self, Captured, From, Protocol};
use crate::metrics::Turned;
use crate::proxy::{Served, Shared, drained};
use crate::turn_away::turn_away;
use crate::{connect, http1, http2, mucp, socket, socks, tls};

/// Pause after the system gave no socket: long enough not to spin, short enough that nobody
/// notices once there are sockets again.
const PAUSE: Duration = Duration::from_millis(20);

/// Accepts programs that say what they want, until the proxy drains.
pub(crate) async fn serve(shared: &Arc<Shared>, listener: TcpListener) {
    let listens = listener.local_addr().map(|address| shared.deliver.listens(address));
    accept_all(shared, &listener, |shared, socket, peer| async move {
        connection(&shared, socket, peer).await;
    })
    .await;
    drop(listens);
}

/// Accepts until the proxy drains, and has `serve` see to each connection. No error of `accept` ends
/// it: the next one may succeed (tonic stopped here once, CVE-2024-47609).
pub(crate) async fn accept_all<F: Future<Output = ()> + Send + 'static>(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    serve: impl Fn(Arc<Shared>, TcpStream, SocketAddr) -> F,
) {
    let mut draining = shared.draining.subscribe();
    let mut reserve = Reserve::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(shared, listener) => accepted,
            () = drained(&mut draining) => return,
        };
        match accepted {
            Ok((socket, peer, permit)) => {
                let connections = shared.metrics.connections.clone();
                let served = serve(Arc::clone(shared), socket, peer);
                tokio::spawn(async move {
                    connections.inc();
                    served.await;
                    connections.dec();
                    drop(permit);
                });
            }
            Err(error) if concerns_one(&error) => {}
            Err(error) => {
                shared.metrics.turned(Turned::Exhausted);
                tracing::warn!(%error, "no socket for a new connection");
                reserve.turn_away(listener).await;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

type Permit = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    shared: &Shared,
    listener: &TcpListener,
) -> io::Result<(TcpStream, SocketAddr, Permit)> {
    let permits = Arc::clone(&shared.connections);
    let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
    let (socket, peer) = listener.accept().await?;
    Ok((socket, peer, permit))
}

/// Whether an error of `accept` is about the one connection that was to be accepted (accept(2)).
fn concerns_one(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted
    )
}

/// A descriptor kept for when there are none left: with it a waiting client can be told at once
/// that it is not served, instead of being left to wait.
struct Reserve(Option<File>);

impl Reserve {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    async fn turn_away(&mut self, listener: &TcpListener) {
        if self.0.take().is_some() {
            // Only what waits already: this must not wait itself.
            let waiting = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(match listener.poll_accept(cx) {
                    std::task::Poll::Ready(Ok((socket, _))) => Some(socket),
                    std::task::Poll::Ready(Err(_)) | std::task::Poll::Pending => None,
                })
            });
            drop(waiting.await);
        }
        *self = Self::new();
    }
}

/// Serves one connection. `peer` is what `accept` said: of a connection that was reset since, the
/// socket does not tell it any more, and what was sent on it before can still be read.
async fn connection(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    socket::tune(&stream);
    let mut from = From { local: peer.ip().to_canonical().is_loopback(), owner: false };
    if let Some(admit) = &shared.admit {
        let Ok(local) = stream.local_addr() else { return };
        match admit(peer, local) {
            Ok(served) => from.owner = from.local && served == Served::Owner,
            Err(stranger) => return turn_away(shared, stream, stranger).await,
        }
    }
    let anew = recognised(shared, stream, BytesMut::new(), from, false).await;
    if let Some((stream, read)) = anew {
        // Once: whoever comes to us through us a second time goes in circles.
        Box::pin(recognised(shared, stream, read, from, true)).await;
    }
}

/// Serves one connection, of which `read` was read already, by what it speaks. Gives back one that is
/// to begin anew, unless it is the second time (`again`).
async fn recognised(
    shared: &Arc<Shared>,
    mut stream: TcpStream,
    read: BytesMut,
    from: From,
    again: bool,
) -> Option<(TcpStream, BytesMut)> {
    let detected = detect::protocol(&mut stream, read);
    let detected = tokio::time::timeout(shared.limits.first_bytes, detected).await;
    match detected {
        Ok(Ok((Protocol::Http2, seen))) => {
            http2::serve(shared, Captured::new(stream, seen, from)).await;
        }
        Ok(Ok((Protocol::Http1, seen))) => {
            let most = shared.limits.head as usize;
            let recognised = mucp::recognise(&mut stream, seen, most);
            match tokio::time::timeout(shared.limits.head_wait, recognised).await {
                Ok(Ok((true, seen))) => Box::pin(mucp::serve(shared, stream, seen, from)).await,
                Ok(Ok((false, seen))) => {
                    http1::serve(shared, Captured::new(stream, seen, from)).await;
                }
                Ok(Err(_)) => {}
                Err(_) => shared.metrics.turned(Turned::Silent),
            }
        }
        Ok(Ok((Protocol::Connect, seen))) => {
            return connect::serve(shared, stream, seen, again).await;
        }
        Ok(Ok((Protocol::Socks, seen))) => socks::serve(shared, stream, seen).await,
        Ok(Ok((Protocol::Tls, seen))) => tls::serve(shared, stream, seen).await,
        Ok(Ok((Protocol::Unknown, _))) => {
            shared.metrics.turned(Turned::Unknown);
            detect::refuse(&mut stream).await;
        }
        // Closed, or broken, before it said anything.
        Ok(Err(_)) => {}
        Err(_) => shared.metrics.turned(Turned::Silent),
    }
    None
}
