//! Listeners at virtual addresses: on the ports that the instances of a name have, TCP and UDP, from
//! when it is first asked for until it gives its address to another name.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use crate::proxy::Proxy;
use crate::tcp::Destination;

/// Ports of one name; of more, the lowest.
pub(super) const PER_NAME: usize = 8;
/// Ports of all names together: each is a socket. Where there are more, the name asked for longest
/// ago loses its own.
const MAX_PORTS: usize = 1024;

/// A port, and what is taken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Port {
    /// Connections.
    Tcp(u16),
    /// Packets.
    Udp(u16),
}

impl Port {
    pub(super) fn number(self) -> u16 {
        let (Self::Tcp(number) | Self::Udp(number)) = self;
        number
    }
}

/// A program of this machine listens on this port at every address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken(pub(super) Port);

/// What listens.
#[derive(Debug, Default)]
pub(super) struct Ports {
    at: HashMap<Ipv4Addr, Name>,
    /// Counts calls of [`Ports::open`]: who was opened longest ago is the first to go.
    asked: u64,
}

#[derive(Debug)]
struct Name {
    to: Destination,
    listeners: HashMap<Port, JoinHandle<()>>,
    asked: u64,
}

impl Drop for Name {
    fn drop(&mut self) {
        // Connections that were taken are tasks of their own and go on; flows of packets end.
        self.listeners.values().for_each(JoinHandle::abort);
    }
}

impl Ports {
    /// Listens at `address` for `to` on these ports; those there already stay. A port that the system
    /// refuses for want of a privilege is left out, and so refuses connections.
    pub(super) fn open(
        &mut self,
        proxy: &Proxy,
        address: Ipv4Addr,
        to: &Destination,
        ports: &BTreeSet<Port>,
    ) -> Result<(), Taken> {
        self.asked += 1;
        // The same name may mean another service since one of a longer name has come.
        if self.at.get(&address).is_some_and(|name| name.to != *to) {
            self.close(address);
        }
        let fresh = || Name { to: to.clone(), listeners: HashMap::new(), asked: 0 };
        let name = self.at.entry(address).or_insert_with(fresh);
        name.asked = self.asked;
        for port in ports.iter().copied().take(PER_NAME) {
            if name.listeners.len() >= PER_NAME || name.listeners.contains_key(&port) {
                continue;
            }
            match listen(proxy, address, port, to) {
                Ok(task) => {
                    name.listeners.insert(port, task);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(Taken(port)),
                Err(error) => {
                    tracing::warn!(%address, ?port, %error, "a port of a name cannot be listened on");
                }
            }
        }
        while self.count() > MAX_PORTS {
            let others = self.at.iter().filter(|(at, _)| **at != address);
            let oldest = others.min_by_key(|(_, name)| name.asked).map(|(at, _)| *at);
            let Some(oldest) = oldest else { break };
            self.close(oldest);
        }
        Ok(())
    }

    /// Takes no more connections at an address.
    pub(super) fn close(&mut self, address: Ipv4Addr) {
        self.at.remove(&address);
    }

    /// The same at all of them.
    pub(super) fn close_all(&mut self) {
        self.at.clear();
    }

    fn count(&self) -> usize {
        self.at.values().map(|name| name.listeners.len()).sum()
    }
}

fn listen(
    proxy: &Proxy,
    address: Ipv4Addr,
    port: Port,
    to: &Destination,
) -> io::Result<JoinHandle<()>> {
    let at = SocketAddr::from((address, port.number()));
    let (proxy, to) = (proxy.clone(), to.clone());
    match port {
        Port::Tcp(_) => {
            let listener = std::net::TcpListener::bind(at)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            Ok(tokio::spawn(async move { proxy.forward(listener, to).await }))
        }
        Port::Udp(_) => {
            let socket = std::net::UdpSocket::bind(at)?;
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            Ok(tokio::spawn(async move { proxy.forward_packets(socket, to).await }))
        }
    }
}
