//! Connections to the instances of this node.

pub(crate) mod http1;
pub(crate) mod http2;
mod resets;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::error::Error;
use crate::limits::Limits;
use crate::socket;

/// Addresses with connections that are remembered; those without any are forgotten first.
const MAX_HOSTS: usize = 16_384;

/// Connections to instances, by address.
pub(crate) struct Deliver {
    hosts: Mutex<HashMap<Arc<str>, Arc<Host>, foldhash::fast::RandomState>>,
    limits: Arc<Limits>,
    /// Where this proxy itself listens: never dialled, for the call would come back for ever.
    own: Mutex<Vec<SocketAddr>>,
}

/// The connections to one address.
pub(crate) struct Host {
    pub(crate) address: Arc<str>,
    pub(crate) http2: http2::Pool,
    pub(crate) http1: http1::Pool,
    limits: Arc<Limits>,
}

impl Deliver {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        Self { hosts: Mutex::default(), limits, own: Mutex::default() }
    }

    /// Takes note of an address at which this proxy listens.
    pub(crate) fn listens(&self, address: SocketAddr) {
        self.own.lock().push(address);
    }

    /// The connections to `address`.
    pub(crate) fn host(&self, address: &Arc<str>) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get(address) {
            return Arc::clone(host);
        }
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, host| !host.http2.is_empty() || !host.http1.is_empty());
        }
        let host = Arc::new(Host {
            address: Arc::clone(address),
            http2: http2::Pool::default(),
            http1: http1::Pool::default(),
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
        let refused = |why: String| Error::Refused { instance: host.address.to_string(), why };
        let address = &*host.address;
        if let Ok(address) = address.parse::<SocketAddr>()
            && self.own.lock().iter().any(|own| is_same_listener(*own, address))
        {
            return Err(Error::TooManyHops);
        }
        let dialled = async {
            match address.parse::<SocketAddr>() {
                Ok(address) => TcpStream::connect(address).await,
                Err(_) => TcpStream::connect(address).await,
            }
        };
        let socket = match tokio::time::timeout(self.limits.connect, dialled).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused(format!("no answer in {:?}", self.limits.connect))),
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
