//! Ports: the one asked for or an error, the usual one or the next that is free.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use crate::config::Address;
use crate::error::{Exit, Problem};

/// Ports tried after the usual one.
const TRIES: u16 = 100;
/// Where programs of go-micro dial their registry and their broker, and those of micro v3 their broker,
/// when nobody tells them another address; taken where they are free.
const ALIASES: [SocketAddr; 3] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8001),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8003),
];

/// TCP listeners of the proxy: the address, the aliases where nothing was asked for, and the one where
/// programs look for etcd.
///
/// # Errors
/// As [`tcp`].
pub fn proxy(address: Address, etcd: Option<SocketAddr>) -> Result<Vec<TcpListener>, Problem> {
    let mut listeners = vec![tcp(address)?];
    if !address.asked {
        listeners.extend(ALIASES.into_iter().filter_map(|alias| bind_tcp(alias).ok()));
    }
    if let Some(at) = etcd {
        listeners.push(tcp(Address { at, asked: true })?);
    }
    Ok(listeners)
}

/// A TCP listener at the address, or at the next free port where nobody insists.
///
/// # Errors
/// M6001 when it is taken, M6002 when the system refuses for another reason.
pub fn tcp(address: Address) -> Result<TcpListener, Problem> {
    first_free(address, "TCP", bind_tcp)
}

/// A socket for packets at the address, as [`tcp`].
///
/// # Errors
/// As [`tcp`].
pub fn packets(address: Address) -> Result<UdpSocket, Problem> {
    first_free(address, "UDP", |at| {
        let socket = UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

/// TCP and UDP on one port, for names.
///
/// # Errors
/// As [`tcp`].
pub fn dns(address: Address) -> Result<(TcpListener, UdpSocket), Problem> {
    let both = |at| {
        let listener = bind_tcp(at)?;
        let socket = UdpSocket::bind(listener.local_addr()?)?;
        socket.set_nonblocking(true)?;
        Ok((listener, socket))
    };
    first_free(address, "DNS", |at| match both(at) {
        // The port that the system drew for one may be taken for the other: it draws again.
        Err(error) if at.port() == 0 && is_taken(&error) => both(at),
        bound => bound,
    })
}

/// UDP addresses for links, each free a moment ago. Without IPv6 the usual address is that of IPv4.
///
/// # Errors
/// As [`tcp`].
pub fn udp(addresses: &[Address]) -> Result<Vec<SocketAddr>, Problem> {
    let bind = |at: SocketAddr| match UdpSocket::bind(at) {
        Ok(_) => Ok(at),
        Err(error) if is_taken(&error) || !at.ip().is_unspecified() => Err(error),
        Err(_no_ipv6) => {
            let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port()));
            UdpSocket::bind(at).map(|_| at)
        }
    };
    addresses.iter().map(|address| first_free(*address, "UDP", bind)).collect()
}

fn bind_tcp(at: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn first_free<T>(
    address: Address,
    what: &str,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, Problem> {
    let last = if address.asked || address.at.port() == 0 { 0 } else { TRIES };
    for step in 0..=last {
        let Some(port) = address.at.port().checked_add(step) else { break };
        match bind(SocketAddr::new(address.at.ip(), port)) {
            Ok(bound) => return Ok(bound),
            Err(error) if is_taken(&error) => {}
            Err(error) => {
                let what = format!("{what} {} cannot be listened on", address.at);
                return Err(Problem::machine(what, &error));
            }
        }
    }
    Err(taken(address.at, what))
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// The address is in use.
#[must_use]
pub fn taken(at: SocketAddr, what: &str) -> Problem {
    Problem::new("M6001", Exit::Failed, format!("{what} port {} is taken", at.port()))
        .why(format!("another program listens on {at}"))
        .attempt("micro status", "use the node that is already running")
        .attempt("micro network --name b", "run a second one on a free port")
}

/// What others can be told to dial, where nobody has said: for each family the address that this
/// machine uses to reach the world, with the port listened on. Without any network, the loopback,
/// so that nodes of one machine find each other.
#[must_use]
pub fn found_out(listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for at in listen {
        let candidates = match at.ip() {
            ip if !ip.is_unspecified() => vec![ip],
            IpAddr::V4(_) => local(true).into_iter().collect(),
            IpAddr::V6(_) => local(false).into_iter().collect(),
        };
        found.extend(candidates.into_iter().map(|ip| SocketAddr::new(ip, at.port())));
    }
    if found.is_empty() {
        let loopback = |at: &SocketAddr| SocketAddr::from((Ipv4Addr::LOCALHOST, at.port()));
        found.extend(listen.iter().map(loopback));
    }
    found.dedup();
    found
}

/// The address from which packets to the world would leave. Nothing is sent: connecting a UDP
/// socket only asks the routing table. The targets are documentation addresses (RFC 5737, 3849).
fn local(v4: bool) -> Option<IpAddr> {
    let (from, to): (IpAddr, IpAddr) = if v4 {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    } else {
        let to = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        (Ipv6Addr::UNSPECIFIED.into(), to.into())
    };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_asked_for_and_taken_is_an_error_and_the_usual_one_moves_on() {
        let first = bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = first.local_addr().unwrap();
        assert_eq!(tcp(Address { at, asked: true }).unwrap_err().code, "M6001");
        let next = tcp(Address { at, asked: false }).unwrap().local_addr().unwrap();
        assert!(next.port() > at.port(), "{next} comes after {at}");
    }

    #[test]
    fn udp_moves_on_too() {
        let first = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let at = first.local_addr().unwrap();
        assert_eq!(udp(&[Address { at, asked: true }]).unwrap_err().code, "M6001");
        let next = udp(&[Address { at, asked: false }]).unwrap()[0];
        assert!(next.port() > at.port());
    }

    #[test]
    fn names_have_one_port_for_both_or_the_next() {
        let (first, _udp) = dns(Address { at: ([127, 0, 0, 1], 0).into(), asked: true }).unwrap();
        let at = first.local_addr().unwrap();
        assert_eq!(dns(Address { at, asked: true }).unwrap_err().code, "M6001");
        let (tcp, udp) = dns(Address { at, asked: false }).unwrap();
        assert_eq!(tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        drop(first);
        let error = dns(Address { at, asked: true }).unwrap_err();
        assert_eq!(error.code, "M6001", "UDP is still taken");
    }

    #[test]
    fn an_address_that_is_listened_on_alone_is_what_others_are_told() {
        let at: SocketAddr = "192.0.2.7:8085".parse().unwrap();
        assert_eq!(found_out(&[at]), [at]);
        assert!(!found_out(&["0.0.0.0:8085".parse().unwrap()]).is_empty());
    }
}
