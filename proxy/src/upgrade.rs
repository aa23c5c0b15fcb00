//! Connections of programs that ask to become something else (`Upgrade`, RFC 9110 §7.8), such as
//! WebSocket: whether one asks, and what is done with it once a service has agreed.
//!
//! ```text
//! asked     the request ends here: what follows it waits, for nobody knows yet what it is
//! 101       the connection is given back by the HTTP library; bytes both ways from then on
//! else      an answer like any other; what waited is the next request
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use crate::carry::Upgraded;
use crate::detect::Captured;
use crate::headers::has_token;
use crate::proxy::Shared;
use crate::splice::{self, Broken};
use crate::strict::Strict;

/// Whether a request without a body asks that its connection become something that can be passed on.
/// A server may ignore what it does not want (RFC 9110 §7.8): HTTP/2 and TLS are not for the service,
/// but for whoever it is connected to.
pub(crate) fn is_asked(parts: &Parts) -> bool {
    let mut all = parts.headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (all.next(), all.next()) else { return false };
    let named = parts.headers.get_all(header::CONNECTION).iter();
    let ours = |value: &HeaderValue| {
        let Ok(text) = value.to_str() else { return true };
        text.split(',').map(str::trim).any(|one| {
            let name = one.split('/').next().unwrap_or_default();
            ["h2c", "h2", "tls", "http"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
        })
    };
    // In HTTP/1.0 it means nothing (RFC 9110 §7.8).
    parts.version == Version::HTTP_11
        && named.into_iter().any(|value| has_token(value, "upgrade"))
        && !ours(protocol)
}

/// The fields of a 101 beside those of the service.
pub(crate) fn say(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Whether what follows a request is read already. Closed behind one that asks for an upgrade, and
/// opened when that is answered otherwise.
#[derive(Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn open(&self) {
        self.closed.store(false, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.closed.load(Ordering::Acquire) { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// What the calls of a connection hand to the connection itself.
pub(crate) struct Handover<C> {
    pub(crate) gate: std::sync::Arc<Gate>,
    /// An answer that ends with its reader is being written.
    pub(crate) one_way: std::sync::Arc<AtomicBool>,
    agreed: Mutex<Option<Agreed<C>>>,
}

/// A service has agreed; `call` lasts as long as the connection.
pub(crate) struct Agreed<C> {
    pub(crate) connection: OnUpgrade,
    pub(crate) upgraded: Upgraded,
    pub(crate) call: C,
}

impl<C> Handover<C> {
    pub(crate) fn new() -> Self {
        Self {
            gate: std::sync::Arc::default(),
            one_way: std::sync::Arc::default(),
            agreed: Mutex::new(None),
        }
    }

    /// What was answered to a request: unless it is to be upgraded, the connection goes on.
    pub(crate) fn answered(&self, status: StatusCode) {
        if status != StatusCode::SWITCHING_PROTOCOLS {
            self.gate.open();
        }
    }

    pub(crate) fn agree(&self, agreed: Agreed<C>) {
        *self.agreed.lock() = Some(agreed);
    }

    pub(crate) fn take(&self) -> Option<Agreed<C>> {
        self.agreed.lock().take()
    }
}

/// Moves bytes between a program and the service that has agreed to its upgrade, until both have
/// ended. Gives what the call lasted for, with how it ended; `None` if the program went away before it
/// was told.
pub(crate) async fn carry<C>(
    shared: &Shared,
    agreed: Agreed<C>,
) -> (C, Option<Result<(), Broken>>) {
    let Agreed { connection, upgraded, call } = agreed;
    let Ok(connection) = connection.await else { return (call, None) };
    let Ok(parts) = connection.downcast::<TokioIo<Strict<Captured>>>() else {
        debug_assert!(false, "the connections of this face are of this type");
        return (call, None);
    };
    // Empty, as long as the gate is closed.
    let mut seen = parts.read_buf.to_vec();
    let (captured, waiting) = parts.io.into_inner().into_parts();
    let (socket, unread) = captured.into_parts();
    seen.extend_from_slice(&waiting);
    seen.extend_from_slice(&unread);
    let (up, down) = (&shared.metrics.up, &shared.metrics.down);
    let ended = splice::both_ways(socket, seen.into(), upgraded.peer, up, down).await;
    (call, Some(ended))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn only_what_a_service_can_become_is_asked_of_it() {
        for (version, connection, upgrade, is) in [
            (Version::HTTP_11, "Upgrade", "websocket", true),
            (Version::HTTP_11, "keep-alive, upgrade", "WebSocket", true),
            (Version::HTTP_11, "upgrade", "tcp", true),
            (Version::HTTP_10, "upgrade", "websocket", false),
            (Version::HTTP_11, "keep-alive", "websocket", false),
            (Version::HTTP_11, "Upgrade, HTTP2-Settings", "h2c", false),
            (Version::HTTP_11, "Upgrade", "TLS/1.2, HTTP/1.1", false),
        ] {
            let request = Request::get("/").version(version);
            let request = request.header("connection", connection).header("upgrade", upgrade);
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(is_asked(&parts), is, "{connection} {upgrade}");
        }
    }
}
