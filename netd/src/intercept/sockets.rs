//! Sockets in a network namespace, and the right to change it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;

use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, capabilities, configure_capability_in_ambient_set,
    move_into_link_name_space, set_capabilities,
};

use super::rules::{DNS, Ports};
use crate::error::{Exit, Problem};

/// What connections are taken with.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) v4: TcpListener,
    /// Where the machine has IPv6.
    pub(super) v6: Option<TcpListener>,
    /// Where names are asked for, in another namespace than the node's.
    pub(super) dns: Option<(TcpListener, UdpSocket)>,
}

impl Sockets {
    /// Binds them in the namespace of this thread; those for names when it is `another` one.
    pub(super) fn bind(another: bool) -> Result<Self, Problem> {
        let failed = |what: &str| {
            let what = format!("{what} cannot be listened on");
            move |error: io::Error| Problem::machine(what, &error)
        };
        let v4 = tcp((Ipv4Addr::LOCALHOST, 0).into()).map_err(failed("the loopback"))?;
        let v6 = tcp((Ipv6Addr::LOCALHOST, 0).into()).ok();
        let dns = another.then(|| dns().map_err(failed(&DNS.to_string()))).transpose()?;
        Ok(Self { v4, v6, dns })
    }

    pub(super) fn ports(&self) -> Result<Ports, Problem> {
        let port = |listener: &TcpListener| {
            let at = listener.local_addr();
            at.map(|at| at.port().to_string())
                .map_err(|error| Problem::machine("a listener has no address", &error))
        };
        Ok(Ports { v4: port(&self.v4)?, v6: self.v6.as_ref().map(port).transpose()? })
    }
}

fn tcp(at: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn dns() -> io::Result<(TcpListener, UdpSocket)> {
    let udp = UdpSocket::bind(DNS)?;
    udp.set_nonblocking(true)?;
    Ok((tcp(DNS)?, udp))
}

/// Puts this thread into a network namespace.
pub(super) fn enter(namespace: &File) -> Result<(), Problem> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
        |error| {
            Problem::machine("the network namespace cannot be entered", &error)
                .attempt("sudo micro network", "a node that runs as root may")
        },
    )
}

/// That this thread may change the rules of its namespace, and that the programs it starts may.
pub(super) fn may() -> Result<(), Problem> {
    let refused = |why: String| {
        Problem::new("M6012", Exit::NotAllowed, "this node may not lead connections")
            .why(why)
            .attempt(
                "sudo setcap cap_net_admin+ep \"$(command -v micro)\"",
                "and start the node again",
            )
            .attempt("micro exec -- CMD", "needs no privilege")
    };
    let user = rustix::process::geteuid();
    let mut sets = capabilities(None).map_err(|error| refused(error.to_string()))?;
    if !sets.effective.contains(CapabilitySet::NET_ADMIN) {
        let user = user.as_raw();
        return Err(refused(format!("it runs as user {user} without the capability NET_ADMIN")));
    }
    if !user.is_root() {
        // Else the program nft would not have it.
        sets.inheritable |= CapabilitySet::NET_ADMIN;
        set_capabilities(None, sets)
            .and_then(|()| configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true))
            .map_err(|error| refused(format!("the capability cannot be passed on: {error}")))?;
    }
    Ok(())
}
