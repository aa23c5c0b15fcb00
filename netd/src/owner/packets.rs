//! Whose program sends packets from a port of this machine: the kernel's table of UDP sockets (proc(5),
//! `/proc/net/udp`).

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;

use super::table::address;

/// The users whose sockets can have sent from `at`: several may share a port. Empty: nobody has one.
pub(super) fn owners(at: SocketAddr) -> io::Result<Vec<u32>> {
    let mut owners = Vec::new();
    // A socket of IPv6 may speak IPv4.
    for name in ["/proc/net/udp", "/proc/net/udp6"] {
        let table = match File::open(name) {
            Ok(table) => BufReader::new(table),
            // A system without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in table.lines() {
            owners.extend(read(&line?, at));
        }
    }
    owners.sort_unstable();
    owners.dedup();
    Ok(owners)
}

/// One line: the user, if its socket can have sent from `at`.
fn read(line: &str, at: SocketAddr) -> Option<u32> {
    let mut fields = line.split_whitespace();
    let own = address(fields.nth(1)?)?;
    let uid = fields.nth(5)?.parse().ok()?;
    let fits = own.port() == at.port() && (own.ip() == at.ip() || own.ip().is_unspecified());
    fits.then_some(uid)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_owner_of_a_socket_is_found_by_where_it_sends_from() {
        let me = rustix::process::geteuid().as_raw();
        for (bound, seen) in
            [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), ("[::1]:0", "::1")]
        {
            let socket = UdpSocket::bind(bound).unwrap();
            let port = socket.local_addr().unwrap().port();
            let at = SocketAddr::new(seen.parse().unwrap(), port);
            assert_eq!(owners(at).unwrap(), [me], "{bound}");
            drop(socket);
            assert_eq!(owners(at).unwrap(), [] as [u32; 0], "{bound}");
        }
    }
}
