//! Whose program it is that connects on the loopback, whether the node serves that user, and whether
//! it is the one who may change what the node does.
//!
//! Everything on a machine can reach its loopback: other users, and what runs as them. So a
//! listener serves the user that runs the node, root, and whom `proxy.allow_users` names. The
//! owner is asked of the kernel once a connection, before a byte of it is read; connections of
//! other machines have none here, and are governed by the address that is listened on.

mod diag;
mod packets;
mod table;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proxy::{Admit, AdmitPackets, Served, Stranger};

use crate::config::Users;
use crate::error::{Exit, Problem};

/// Root may always: it may become anybody.
const ROOT: u32 = 0;

/// The two ends of a connection, as the program that opened it sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    own: SocketAddr,
    peer: SocketAddr,
}

/// How owners are found out.
#[derive(Debug)]
enum Source {
    /// The kernel is asked for one connection.
    Diag(diag::Diag),
    /// The table of all connections is read; slow where there are many.
    Table,
}

/// The check for the listeners of programs. Where everybody is served it turns nobody away, and
/// still tells the owner from others, who may not write; `None` there where that cannot be told.
///
/// # Errors
/// M6005 where this system does not tell who owns a connection, and not everybody is served.
pub fn admit(users: &Users) -> Result<Option<Admit>, Problem> {
    let me = rustix::process::geteuid().as_raw();
    let source = match (Source::find(), users) {
        (Ok(source), _) => source,
        (Err(error), Users::Everybody) => {
            tracing::warn!(%error, "it cannot be told whose programs connect: none may write");
            return Ok(None);
        }
        (Err(error), Users::These(_)) => {
            let what = "it cannot be told whose programs connect";
            return Err(Problem::new("M6005", Exit::Failed, what)
                .why(format!("this system does not say who owns a connection: {error}"))
                .attempt("micro network --allow-users '*'", "serve every user of this machine"));
        }
    };
    let users = users.clone();
    Ok(Some(Arc::new(move |peer, local| {
        if !peer.ip().to_canonical().is_loopback() {
            return Ok(Served::Other);
        }
        let ends = Ends { own: canonical(peer), peer: canonical(local) };
        let owner = source.owner(ends).unwrap_or_else(|error| {
            tracing::warn!(%error, "the owner of a connection was not found out");
            None
        });
        match owner {
            Some(uid) if uid == me || uid == ROOT => Ok(Served::Owner),
            uid => match (&users, uid) {
                (Users::Everybody, _) => Ok(Served::Other),
                (Users::These(also), Some(uid)) if also.contains(&uid) => Ok(Served::Other),
                (Users::These(_), uid) => Err(Stranger { uid, owner: me }),
            },
        }
    })))
}

/// The same check for packets, which have no connection: who sends is told by the port. `None` where
/// everybody is served.
#[must_use]
pub fn admit_packets(users: &Users) -> Option<AdmitPackets> {
    let Users::These(also) = users.clone() else { return None };
    let me = rustix::process::geteuid().as_raw();
    Some(Arc::new(move |peer: SocketAddr| {
        if !peer.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let owners = packets::owners(canonical(peer)).unwrap_or_else(|error| {
            tracing::warn!(%error, "the owner of packets was not found out");
            Vec::new()
        });
        let may = |uid: &u32| *uid == me || *uid == ROOT || also.contains(uid);
        // Where a port is shared, it may have been any of them.
        match owners.iter().find(|uid| !may(uid)) {
            None if !owners.is_empty() => Ok(()),
            stranger => Err(Stranger { uid: stranger.copied(), owner: me }),
        }
    }))
}

impl Source {
    /// The first source that knows the owner of a connection of this process.
    fn find() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let own = std::net::TcpStream::connect(listener.local_addr()?)?;
        let ends = Ends { own: own.local_addr()?, peer: own.peer_addr()? };
        let me = rustix::process::geteuid().as_raw();
        let knows = |source: &Self| matches!(source.owner(ends), Ok(Some(uid)) if uid == me);
        let diag = diag::Diag::open().map(Self::Diag);
        match diag {
            Ok(diag) if knows(&diag) => Ok(diag),
            Ok(_) | Err(_) if knows(&Self::Table) => Ok(Self::Table),
            Ok(_) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error),
        }
    }

    /// The user whose program has the connection open; `None` when no program has.
    fn owner(&self, ends: Ends) -> io::Result<Option<u32>> {
        match self {
            Self::Diag(diag) => diag.owner(ends),
            Self::Table => table::owner(ends),
        }
    }
}

/// An IPv4 address as such, whichever socket it was seen on.
fn canonical(at: SocketAddr) -> SocketAddr {
    let ip: IpAddr = at.ip().to_canonical();
    SocketAddr::new(ip, at.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn connected(host: &str) -> (TcpListener, TcpStream, Ends) {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ends = Ends { own: own.local_addr().unwrap(), peer: own.peer_addr().unwrap() };
        (listener, own, ends)
    }

    fn sources() -> [Source; 2] {
        [Source::Diag(diag::Diag::open().unwrap()), Source::Table]
    }

    #[test]
    fn both_sources_know_the_owner_of_a_connection_of_either_family() {
        let me = rustix::process::geteuid().as_raw();
        for source in sources() {
            for host in ["127.0.0.1", "::1"] {
                let (_listener, _own, ends) = connected(host);
                assert_eq!(source.owner(ends).unwrap(), Some(me), "{source:?} {host}");
            }
        }
    }

    #[test]
    fn a_connection_that_its_program_has_closed_belongs_to_nobody() {
        for source in sources() {
            let (listener, own, ends) = connected("127.0.0.1");
            // Kept at the other end, so that the kernel still has it; it tells user 0 of these.
            let (_kept, _) = listener.accept().unwrap();
            drop(own);
            assert_eq!(source.owner(ends).unwrap(), None, "{source:?}");
        }
    }

    #[test]
    fn a_listener_in_the_place_of_a_connection_is_not_its_owner() {
        for source in sources() {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let own = listener.local_addr().unwrap();
            let ends = Ends { own, peer: SocketAddr::from(([127, 0, 0, 1], 9)) };
            assert_eq!(source.owner(ends).unwrap(), None, "{source:?}");
        }
    }

    #[test]
    fn where_everybody_is_served_the_owner_is_still_known() {
        let admit = admit(&Users::Everybody).unwrap().unwrap();
        let (listener, own, ends) = connected("127.0.0.1");
        assert_eq!(admit(ends.own, ends.peer).unwrap(), Served::Owner);
        let (_kept, _) = listener.accept().unwrap();
        drop(own);
        assert_eq!(admit(ends.own, ends.peer).unwrap(), Served::Other, "whose is not known");
    }

    #[test]
    fn the_own_user_is_admitted_and_other_machines_are_not_asked() {
        let admit = admit(&Users::These(Vec::new())).unwrap().unwrap();
        let (_listener, own, ends) = connected("127.0.0.1");
        assert_eq!(admit(ends.own, ends.peer).unwrap(), Served::Owner);
        drop(own);
        assert_eq!(admit(ends.own, ends.peer).unwrap_err().uid, None);
        let far = admit("192.0.2.1:9".parse().unwrap(), ends.peer).unwrap();
        assert_eq!(far, Served::Other, "who may use the node does not decide about it");
    }
}
