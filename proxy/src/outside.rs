//! Addresses that are not of the network: a program that sends everything through this node, by a
//! proxy variable, still reaches the rest of the world.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use proto::open::Messages;
use proto::record::Protocol;
use tokio::net::TcpStream;

use crate::begin::{Meant, take_host};
use crate::body::Body;
use crate::carry::{Call, Form, Reply, leg};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::heads::RequestHead;
use crate::proxy::Shared;
use crate::source::Source;
use crate::{headers, host, target};

/// Until somebody out there has taken a connection: as long as browsers' own attempts.
const CONNECT: Duration = Duration::from_secs(20);

/// The port of a target that names none.
const HTTP: u16 = 80;

/// Whether `host` may be somebody outside: this machine, an address, or a name with a dot that is not
/// one of ours. A name without one that no service has is a mistake, and is told to nobody.
pub(crate) fn is_outside(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    let address = bare.parse::<IpAddr>().is_ok() || bare.eq_ignore_ascii_case("localhost");
    address || bare.trim_end_matches('.').contains('.') && !target::is_ours(bare)
}

/// Whether a connection to the listener at `local` may go on to the outside: only a listener that
/// nobody but this machine reaches, or the node would be everybody's way out.
pub(crate) fn may_leave(local: SocketAddr) -> bool {
    local.ip().is_loopback()
}

impl Shared {
    /// A connection to `host`, which [`is_outside`].
    ///
    /// # Errors
    /// [`Error::Refused`] by it, or by the system; [`Error::TooManyHops`] for this node itself.
    pub(crate) async fn leave(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let host = host.trim_matches(['[', ']']);
        let address = match host.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{host}:{port}"),
        };
        self.deliver.dial_address(&address, CONNECT).await
    }

    /// Whether the absolute target of a request (RFC 9112 §3.2.2) is somebody outside.
    pub(crate) fn names_outside(&self, head: &RequestHead) -> bool {
        let Some(authority) = &head.authority else { return false };
        let routes = self.routes.load();
        let is_known = |name: &str| host::known_by(name, &head.headers, &routes).is_some();
        is_outside(authority.host()) && !target::names(head, false).any(is_known)
    }

    /// Gives the response of whoever [is outside](Shared::names_outside), once it has begun. Nothing
    /// that is said to this network is said to them.
    ///
    /// # Errors
    /// [`Error`] as for an instance of this node.
    pub(crate) async fn begin_outside(
        self: &Arc<Self>,
        mut head: Box<RequestHead>,
        body: Body,
    ) -> Result<Reply, Error> {
        if self.is_draining() {
            return Err(Error::Draining);
        }
        headers::clean_request(&mut head.headers)?;
        take_host(&mut head)?;
        let ours = |name: &HeaderName| name.as_str().starts_with("micro-");
        let names: Vec<_> = head.headers.keys().filter(|name| ours(name)).cloned().collect();
        for name in names {
            head.headers.remove(name);
        }
        if target::is_cross_site(&head) {
            return Err(Error::NotAllowed("a web page of another site made the request"));
        }
        let authority = head.authority.as_ref().ok_or(Error::Malformed("no host"))?;
        let port = authority.port_u16().unwrap_or(HTTP);
        if let Some(meant) = self.meant_by_address(authority.host(), port) {
            return self.begin_chosen(head, body, meant).await;
        }
        let address = format!("{}:{port}", authority.host()).into();
        let source = Box::new(Source::new(body, None, &self.metrics.up));
        let mut none = Deadline::default();
        let unknown = Messages::Unknown;
        let sent =
            leg::local(&self.deliver, &address, Protocol::Http1, head, source, unknown, &mut none);
        let mut reply = sent.await.map_err(|failed| failed.error)?;
        headers::clean_response(&mut reply.headers);
        Ok(reply)
    }

    /// The same of an instance of the network that the caller chose by its address.
    async fn begin_chosen(
        self: &Arc<Self>,
        head: Box<RequestHead>,
        body: Body,
        meant: Meant,
    ) -> Result<Reply, Error> {
        let Meant { service, selector, via, named } = meant;
        let source = Source::new(body, None, &self.metrics.up).replayable(self.limits.replay);
        let (form, mut deadline) = (Form::Http, Deadline::default());
        let mut call = Call {
            head,
            source,
            service,
            selector,
            form,
            idempotent: false,
            messages: Messages::default(),
            ruled: None,
            via,
            named,
            trace: None,
        };
        self.rule(&mut call, &mut deadline).await?;
        let mut reply = self.carry(&mut call, &mut deadline).await?;
        headers::clean_response(&mut reply.headers);
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_names_with_a_dot_are_outside() {
        for outside in
            ["example.com", "localhost", "192.0.2.1", "[2001:db8::1]", "2001:db8::1", "127.0.0.1"]
        {
            assert!(is_outside(outside), "{outside}");
        }
        for ours in ["shop", "shop.", "shop.localhost", "shop.micro.internal", "v2.Shop.Localhost."]
        {
            assert!(!is_outside(ours), "{ours}");
        }
    }
}
