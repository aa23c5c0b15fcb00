//! The small HTTP server under the admin socket and the health port: bounded in connections, in
//! time for a head, and in what it keeps.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Time for a request head; also bounds idle keep-alive connections.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Bytes kept of one connection.
const MAX_BUFFER: usize = 64 * 1024;
/// Pause after an accept that failed for want of something: it is not there again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Room for connections.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Semaphore>);

impl Slots {
    /// Room for so many.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections)))
    }

    /// Waits for room for one more; it is free again when what this gives is dropped.
    pub async fn take(&self) -> OwnedSemaphorePermit {
        let slot = Arc::clone(&self.0).acquire_owned().await;
        slot.expect("nobody closes the semaphore")
    }
}

/// Serves one connection to its end. `_slot` is its room.
pub async fn serve<S>(stream: S, service: Router, _slot: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

/// After an accept that failed: says so, and waits a moment where the system lacks something.
pub async fn accept_failed(what: &str, error: &io::Error) {
    tracing::warn!(what, %error, "connection not accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
