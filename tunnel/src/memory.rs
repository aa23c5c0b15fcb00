//! A transport of queues within one process, for tests that need many nodes or a clock of their
//! own. Streams have windows and codes as QUIC's have; nothing is encrypted, and keys are what
//! each end says they are.

mod connection;
mod pipe;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proto::PublicKey;
use tokio::sync::mpsc;

pub(crate) use connection::Connection;
pub(crate) use pipe::{Receiver, Sender};

use crate::close::{Close, Gone};

/// Connections that wait to be accepted.
const BACKLOG: usize = 1024;

/// A network within this process. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Places>>);

#[derive(Debug, Default)]
struct Places {
    ports: u16,
    at: BTreeMap<SocketAddr, Place>,
}

#[derive(Clone, Debug)]
struct Place {
    key: PublicKey,
    /// Neither sends nor receives.
    silent: Arc<AtomicBool>,
    knocks: mpsc::Sender<Connection>,
}

/// One node's place in a [`Hub`].
#[derive(Debug)]
pub struct Memory {
    hub: Hub,
    address: SocketAddr,
    place: Place,
    knocks: Mutex<Option<mpsc::Receiver<Connection>>>,
    /// Every connection that was made, to be closed with the transport.
    made: Arc<Mutex<Vec<Connection>>>,
}

impl Hub {
    /// A place for the holder of `key`, at an address of its own.
    #[must_use]
    pub fn bind(&self, key: PublicKey) -> Memory {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let place = Place { key, silent: Arc::default(), knocks: sender };
        let mut places = self.0.lock();
        places.ports += 1;
        let address = SocketAddr::from(([127, 0, 0, 1], places.ports));
        places.at.insert(address, place.clone());
        drop(places);
        let (knocks, made) = (Mutex::new(Some(receiver)), Arc::default());
        Memory { hub: self.clone(), address, place, knocks, made }
    }

    /// Makes a black hole of the node at `address`, or ends it: what it sends and what is sent to
    /// it does not arrive. Bytes of streams wait, datagrams are lost.
    pub fn silence(&self, address: SocketAddr, silent: bool) {
        let Some(place) = self.0.lock().at.get(&address).cloned() else { return };
        place.silent.store(silent, Ordering::Relaxed);
    }
}

impl Memory {
    /// Where it listens.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    pub(crate) fn listener(&self) -> Listener {
        Listener { knocks: self.knocks.lock().take(), made: Arc::clone(&self.made) }
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connection, Gone> {
        let there = self.hub.0.lock().at.get(&address).cloned().ok_or(Gone::Failed)?;
        let here = (self.address, self.place.key);
        let silent = [Arc::clone(&self.place.silent), Arc::clone(&there.silent)];
        if silent.iter().any(|silent| silent.load(Ordering::Relaxed)) {
            std::future::pending::<()>().await;
        }
        let (near, far) = connection::pair(here, (address, there.key), silent);
        there.knocks.send(far).await.map_err(|_| Gone::Failed)?;
        self.made.lock().push(near.clone());
        Ok(near)
    }

    pub(crate) async fn close(&self, close: Close) {
        self.hub.0.lock().at.remove(&self.address);
        for connection in self.made.lock().drain(..) {
            connection.close(close);
        }
        tokio::task::yield_now().await;
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    knocks: Option<mpsc::Receiver<Connection>>,
    made: Arc<Mutex<Vec<Connection>>>,
}

impl Listener {
    pub(crate) async fn accept(&mut self) -> Option<Knock> {
        let connection = self.knocks.as_mut()?.recv().await?;
        let mut made = self.made.lock();
        made.retain(|connection| !connection.is_closed());
        made.push(connection.clone());
        Some(Knock(connection))
    }
}

#[derive(Debug)]
pub(crate) struct Knock(Connection);

impl Knock {
    pub(crate) fn remote(&self) -> SocketAddr {
        self.0.remote()
    }

    pub(crate) fn is_validated(&self) -> bool {
        true
    }

    pub(crate) fn retry(self) {}

    pub(crate) fn refuse(self) {
        self.0.close(Close::TooMany);
    }

    pub(crate) async fn admit(self) -> Result<Connection, Gone> {
        Ok(self.0)
    }
}
