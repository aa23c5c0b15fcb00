//! Connections to the instances of this node.

pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod mucp;
mod resets;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpStream, UnixStream};

use crate::error::Error;
use crate::limits::Limits;
use crate::mucp::socket::Room;
use crate::socket;

/// Addresses with connections that are remembered; those without any are forgotten first.
const MAX_HOSTS: usize = 16_384;

/// What the address of a socket in the file system begins with.
const UNIX: &str = "unix:";

/// Connections to instances, by address.
pub(crate) struct Deliver {
    hosts: Mutex<HashMap<Arc<str>, Arc<Host>, foldhash::fast::RandomState>>,
    limits: Arc<Limits>,
    /// For large messages of MUCP.
    room: Room,
    /// Where this proxy itself listens over TCP: never dialled, for the call would come back for ever.
    own: Own,
    /// The same over UDP.
    pub(crate) own_packets: Own,
}

/// Addresses at which this proxy listens.
#[derive(Clone, Default)]
pub(crate) struct Own(Arc<Mutex<Vec<SocketAddr>>>);

/// One of them, until it is dropped.
pub(crate) struct Listens {
    own: Own,
    address: SocketAddr,
}

impl Own {
    /// Takes note of an address, until what it gives is dropped.
    pub(crate) fn listens(&self, address: SocketAddr) -> Listens {
        self.0.lock().push(address);
        Listens { own: self.clone(), address }
    }

    /// Whether dialling `address` would reach this proxy.
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        self.0.lock().iter().any(|own| is_same_listener(*own, address))
    }
}

impl Drop for Listens {
    fn drop(&mut self) {
        let mut own = self.own.0.lock();
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
        Self {
            hosts: Mutex::default(),
            limits,
            room,
            own: Own::default(),
            own_packets: Own::default(),
        }
    }

    /// Takes note of an address at which this proxy listens, until what it gives is dropped.
    pub(crate) fn listens(&self, address: SocketAddr) -> Listens {
        self.own.listens(address)
    }

    /// Whether dialling `address` would reach this proxy.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        self.own.has(address)
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

    /// A new connection to `address`, as [`dial`] takes it.
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
        let socket = match tokio::time::timeout(patience, dial(address)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused(format!("no answer in {patience:?}"))),
        };
        socket::tune(&socket);
        Ok(socket)
    }
}

/// A new connection to `address`: a host and a port, or `unix:` and the path of a socket.
///
/// A socket of the file system comes in the type of those of the network: a stream of bytes is read and
/// written by the same calls whichever it is, and what only TCP has is refused by the system and not
/// needed. One difference cannot be hidden: it knows no reset, so what breaks off looks like an end.
///
/// # Errors
/// What the system says.
pub async fn dial(address: &str) -> io::Result<TcpStream> {
    if let Some(path) = address.strip_prefix(UNIX) {
        let socket = UnixStream::connect(path).await?.into_std()?;
        return TcpStream::from_std(OwnedFd::from(socket).into());
    }
    match address.parse::<SocketAddr>() {
        Ok(address) => TcpStream::connect(address).await,
        Err(_) => TcpStream::connect(address).await,
    }
}

/// What a request names that names nobody: where it is delivered to says it, unless that is no host.
pub(crate) fn host_of(address: &str) -> &str {
    if address.starts_with(UNIX) { "localhost" } else { address }
}

/// Whether dialling `address` reaches the listener at `own`.
fn is_same_listener(own: SocketAddr, address: SocketAddr) -> bool {
    let covers = own.ip() == address.ip()
        || own.ip().is_unspecified() && address.ip().is_loopback()
        || address.ip().is_unspecified() && (own.ip().is_loopback() || own.ip().is_unspecified());
    own.port() == address.port() && covers
}
