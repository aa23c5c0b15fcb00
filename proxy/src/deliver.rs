//! Connections to the instances of this node.

pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod mucp;
mod resets;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::error::Error;
use crate::limits::Limits;
use crate::mucp::socket::Room;
use crate::socket;

/// Addresses with connections that are remembered; those without any are forgotten first.
const MAX_HOSTS: usize = 16_384;

/// Connections to instances, by address.
pub(crate) struct Deliver {
    hosts: Mutex<HashMap<Arc<str>, Arc<Host>, foldhash::fast::RandomState>>,
    limits: Arc<Limits>,
    /// For large messages of MUCP.
    room: Room,
    /// Where this proxy itself listens: never dialled, for the call would come back for ever.
    own: Arc<Mutex<Vec<SocketAddr>>>,
}

/// An address at which this proxy listens.
pub(crate) struct Listens {
    own: Arc<Mutex<Vec<SocketAddr>>>,
    address: SocketAddr,
}

impl Drop for Listens {
    fn drop(&mut self) {
        let mut own = self.own.lock();
        if let Some(at) = own.iter().position(|own| *own == self.address) {
            own.swap_remove(at);
        }
    }
}

/// The connections to one address.
pub(crate) struct Host {
    pub(crate) address: Arc<str>,
    pub(crate) http2: http2::Pool,
    pub(crate) http1: http1::Pool,
    pub(crate) mucp: mucp::Pool,
    limits: Arc<Limits>,
}

impl Deliver {
    pub(crate) fn new(limits: Arc<Limits>, room: Room) -> Self {
        Self { hosts: Mutex::default(), limits, room, own: Arc::default() }
    }

    /// Takes note of an address at which this proxy listens, until what it gives is dropped.
    pub(crate) fn listens(&self, address: SocketAddr) -> Listens {
        self.own.lock().push(address);
        Listens { own: Arc::clone(&self.own), address }
    }

    /// Whether dialling `address` would reach this proxy.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        self.own.lock().iter().any(|own| is_same_listener(*own, address))
    }

    /// The connections to `address`.
    pub(crate) fn host(&self, address: &Arc<str>) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get(address) {
            return Arc::clone(host);
        }
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, host| {
                !(host.http2.is_empty() && host.http1.is_empty() && host.mucp.is_empty())
            });
        }
        let host = Arc::new(Host {
            address: Arc::clone(address),
            http2: http2::Pool::default(),
            http1: http1::Pool::default(),
            mucp: mucp::Pool::default(),
            limits: Arc::clone(&self.limits),
        });
        hosts.insert(Arc::clone(address), Arc::clone(&host));
        host
    }

    /// A new connection to `host`.
    ///
    /// # Errors
    /// [`Error::Refused`]: nothing was sent.
    pub(crate) async fn dial(&self, host: &Host) -> Result<TcpStream, Error> {
        self.dial_address(&host.address, self.limits.connect).await
    }

    /// A new connection to `address`, a host and a port.
    ///
    /// # Errors
    /// As [`Deliver::dial`].
    pub(crate) async fn dial_address(
        &self,
        address: &str,
        patience: Duration,
    ) -> Result<TcpStream, Error> {
        let refused = |why: String| Error::Refused { instance: address.to_owned(), why };
        if let Ok(address) = address.parse::<SocketAddr>()
            && self.is_own(address)
        {
            return Err(Error::TooManyHops);
        }
        let dialled = async {
            match address.parse::<SocketAddr>() {
                Ok(address) => TcpStream::connect(address).await,
                Err(_) => TcpStream::connect(address).await,
            }
        };
        let socket = match tokio::time::timeout(patience, dialled).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused(format!("no answer in {patience:?}"))),
        };
        socket::tune(&socket);
        Ok(socket)
    }
}

/// Whether dialling `address` reaches the listener at `own`.
fn is_same_listener(own: SocketAddr, address: SocketAddr) -> bool {
    let covers = own.ip() == address.ip()
        || own.ip().is_unspecified() && address.ip().is_loopback()
        || address.ip().is_unspecified() && (own.ip().is_loopback() || own.ip().is_unspecified());
    own.port() == address.port() && covers
}
