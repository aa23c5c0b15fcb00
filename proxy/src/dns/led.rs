//! Connections to addresses of names that the kernel leads to one listener: on whatever port, and also
//! where no program of a user may listen.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{Face, connections, datagrams, places, zone};
use crate::capture;
use crate::proxy::{Proxy, Shared, drained};
use crate::{splice, tcp};

/// Which connections are led here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// Those of every program that can ask for names: nothing else on this machine can take them.
    pub all: bool,
    /// Those to addresses of IPv6 too.
    pub v6: bool,
}

impl Proxy {
    /// Says which connections are led here from now on, so that names are answered accordingly.
    pub fn led(&self, led: Led) {
        if let Some(face) = face(&self.0) {
            *face.led.lock() = led;
        }
    }

    /// Takes connections that the kernel has led to `listener`, for the names that they were meant for.
    /// `anybody`: of all who can reach it; else of those who may use this node. Returns when the proxy
    /// drains; dropped, it takes no more, and those there are go on.
    pub async fn intercept(&self, listener: TcpListener, anybody: bool) {
        capture::accept_all(&self.0, &listener, |shared, stream, peer| async move {
            serve(&shared, stream, peer, anybody).await;
        })
        .await;
    }

    /// Answers questions at further sockets, in the words of the face that [`Proxy::dns`] serves.
    /// Returns when the proxy drains.
    pub async fn dns_also(&self, udp: UdpSocket, tcp: TcpListener) {
        let Some(face) = face(&self.0) else { return };
        let mut draining = self.0.draining.subscribe();
        tokio::select! {
            () = datagrams(&face, Arc::new(udp)) => {}
            () = connections(&face, tcp) => {}
            () = drained(&mut draining) => {}
        }
    }
}

async fn serve(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr, anybody: bool) {
    // One that nobody led here, or to what is no name any more, is refused as a closed port does.
    let meant = meant_for(&stream).ok().and_then(|at| Some((at, face(shared)?.of(at)?)));
    let Some((at, to)) = meant else { return splice::abort(&stream) };
    // Rules lead here what programs of this machine send, so that the owner can be told.
    let own = || peer.ip().to_canonical().is_loopback() && tcp::may(shared, peer, at);
    if anybody || own() {
        tcp::serve_anybody(shared, stream, &to).await;
    } else {
        splice::abort(&stream);
    }
}

fn face(shared: &Shared) -> Option<Arc<Face>> {
    shared.names.get()?.upgrade()
}

/// Where the program wanted to go (`SO_ORIGINAL_DST` of netfilter, `IP6T_SO_ORIGINAL_DST`).
fn meant_for(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = if stream.local_addr()?.is_ipv4() {
        socket.original_dst_v4()?
    } else {
        socket.original_dst_v6()?
    };
    address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

impl Face {
    /// The service that stands at an address now.
    fn of(&self, at: SocketAddr) -> Option<tcp::Destination> {
        let place = places::place(at.ip())?;
        let name = self.table.lock().places.name(place)?;
        let routes = self.proxy.0.routes.load_full();
        zone::meant(&name, &routes).map(|(_, to)| to)
    }
}
