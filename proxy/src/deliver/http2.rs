//! Connections to instances that speak HTTP/2 in clear text with prior knowledge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use parking_lot::Mutex;

use super::resets::Resets;
use super::{Deliver, Host};
use crate::error::Error;

/// Streams put on one connection while another may be opened. Below the 100 that servers commonly
/// allow, and what one connection carries well.
pub(super) const STREAMS: usize = 96;
/// Connections to one instance that get no new stream for many were reset, while calls on them go
/// on. Above it connections are used all the same: better a connection that may be closed than none.
const RETIRED: usize = 8;
/// Bytes of a response that an instance may send ahead, per stream and per connection. Every stream
/// of a connection may be full at once: callers that do not read must not hold up those that do.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * (STREAMS as u32 + 4);
/// What small frames may cost before the connection is closed, a few hundred bytes each: no single
/// stream of tiny messages can come near it within its window, a flood on many can.
const FRAME_BUDGET: usize = 32 << 20;
/// Largest frame of the instance: fewer, larger pieces for bulk.
const FRAME: u32 = 64 * 1024;

/// The connections to one instance.
#[derive(Default)]
pub(crate) struct Pool {
    connections: Mutex<Vec<Connection>>,
    /// Held while dialling: one dial at a time, and those who wait use what it brought.
    dialling: tokio::sync::Mutex<()>,
}

struct Connection {
    /// `None` once it is retired: without it the connection ends with its last stream.
    send: Option<SendRequest<Bytes>>,
    shared: Arc<Shared>,
}

struct Shared {
    streams: AtomicUsize,
    closed: AtomicBool,
    /// Too many of its streams were reset.
    worn: AtomicBool,
    resets: Mutex<Resets>,
}

/// A place on a connection; given back when dropped. Unless its call has [ended](Lease::ended) by
/// then, its stream is reset.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    ended: bool,
}

impl Lease {
    /// Both halves of its stream have ended.
    pub(crate) fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
        if !self.ended && self.shared.resets.lock().add(Instant::now()) {
            self.shared.worn.store(true, Ordering::Relaxed);
        }
    }
}

impl Pool {
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.lock().is_empty()
    }

    /// Connections that may get new streams.
    fn open(&self) -> usize {
        self.connections.lock().iter().filter(|one| one.send.is_some()).count()
    }

    /// A place on the first connection that has one.
    fn take(&self, most: usize) -> Option<(SendRequest<Bytes>, Lease)> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.shared.closed.load(Ordering::Relaxed));
        let mut retired = connections.iter().filter(|one| one.send.is_none()).count();
        for connection in connections.iter_mut() {
            let worn = connection.shared.worn.load(Ordering::Relaxed);
            if worn && retired < RETIRED && connection.send.take().is_some() {
                retired += 1;
            }
        }
        connections.iter().find_map(|Connection { send, shared }| {
            let send = send.as_ref()?;
            let streams = shared.streams.load(Ordering::Relaxed);
            let room = most.min(send.current_max_send_streams());
            if streams >= room {
                return None;
            }
            shared.streams.fetch_add(1, Ordering::Relaxed);
            Some((send.clone(), Lease { shared: Arc::clone(shared), ended: false }))
        })
    }
}

impl Deliver {
    /// A way to send one request to `host`.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Overloaded`]: nothing was sent.
    pub(crate) async fn http2(&self, host: &Host) -> Result<(SendRequest<Bytes>, Lease), Error> {
        if let Some(taken) = host.http2.take(STREAMS) {
            return Ok(taken);
        }
        // Boxed, for it is rare and much larger than what every call does.
        Box::pin(self.http2_fresh(host)).await
    }

    async fn http2_fresh(&self, host: &Host) -> Result<(SendRequest<Bytes>, Lease), Error> {
        let _one = host.http2.dialling.lock().await;
        if let Some(taken) = host.http2.take(STREAMS) {
            return Ok(taken);
        }
        if host.http2.open() >= host.limits.connections_per_instance {
            // Every connection is well filled: fill them up before refusing.
            return host.http2.take(usize::MAX).ok_or(Error::Overloaded {
                what: "the connections to the instance are",
                limit: u32::try_from(host.limits.connections_per_instance).unwrap_or(u32::MAX),
            });
        }
        self.connect(host).await?;
        host.http2.take(usize::MAX).ok_or_else(|| Error::Refused {
            instance: host.address.to_string(),
            why: "it closed the connection at once".to_owned(),
        })
    }

    async fn connect(&self, host: &Host) -> Result<(), Error> {
        let socket = self.dial(host).await?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .data_frame_budget(FRAME_BUDGET)
            .max_header_list_size(host.limits.head)
            .max_send_buffer_size(256 * 1024)
            .enable_push(false)
            .handshake::<_, Bytes>(socket)
            .await
            .map_err(|error| Error::Refused {
                instance: host.address.to_string(),
                why: error.to_string(),
            })?;
        let shared = Arc::new(Shared {
            streams: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            worn: AtomicBool::new(false),
            resets: Mutex::default(),
        });
        let of_task = Arc::clone(&shared);
        tokio::spawn(async move {
            let ended = connection.await;
            of_task.closed.store(true, Ordering::Relaxed);
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to an instance ended");
            }
        });
        host.http2.connections.lock().push(Connection { send: Some(send), shared });
        Ok(())
    }
}

/// What an error of the request stream means for the call: whether the instance may have seen it.
pub(crate) fn blame(error: &h2::Error, instance: &str) -> Error {
    let instance = instance.to_owned();
    if error.is_remote() {
        // RFC 9113 §6.8, §8.7: neither was looked at by the application.
        if error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM) {
            return Error::TurnedAway(instance);
        }
        return Error::InstanceProtocol { instance, why: error.to_string() };
    }
    if error.is_library() && error.reason().is_some() {
        return Error::InstanceProtocol { instance, why: error.to_string() };
    }
    Error::InstanceLost { instance, why: error.to_string() }
}
