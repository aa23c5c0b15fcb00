//! The kernel's table of connections (proc(5), `/proc/net/tcp`), where it cannot be asked for one.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Ends;

/// `TCP_LISTEN`, as the table has it.
const LISTEN: &str = "0A";

/// The user whose program has the connection open; `None` when no program has.
pub(super) fn owner(ends: Ends) -> io::Result<Option<u32>> {
    // A socket of IPv6 may speak IPv4.
    for name in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = match File::open(name) {
            Ok(table) => BufReader::new(table),
            // A system without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in table.lines() {
            if let Some((found, uid)) = read(&line?)
                && found == ends
            {
                return Ok(uid);
            }
        }
    }
    Ok(None)
}

/// One line: whose ends, and the user if a program has it open.
fn read(line: &str) -> Option<(Ends, Option<u32>)> {
    let mut fields = line.split_whitespace();
    let (own, peer, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    let (uid, inode) = (fields.nth(3)?, fields.nth(1)?);
    let ends = Ends { own: address(own)?, peer: address(peer)? };
    let uid = uid.parse().ok()?;
    // Without an inode no program has it; the user is then told as 0.
    Some((ends, (state != LISTEN && inode != "0").then_some(uid)))
}

/// `0100007F:1F91`: words in the order of the machine, in hexadecimal.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[..]).ok()?)),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_is_read_and_what_nobody_has_open_has_no_owner() {
        let line = |state: &str, inode: &str| {
            format!(
                "  7: 0100007F:9C40 0100007F:1F91 {state} 00000000:00000000 00:00000000 \
                 00000000  1000        0 {inode} 1 0000000000000000 20 4 30 10 -1"
            )
        };
        let own = "127.0.0.1:40000".parse().unwrap();
        let ends = Ends { own, peer: "127.0.0.1:8081".parse().unwrap() };
        assert_eq!(read(&line("01", "42")), Some((ends, Some(1000))));
        assert_eq!(read(&line("04", "0")), Some((ends, None)));
        assert_eq!(read(&line("0A", "42")), Some((ends, None)));
        assert_eq!(read("  sl  local_address rem_address   st tx_queue"), None);
        let mapped = "0000000000000000FFFF00000100007F:9C40";
        assert_eq!(address(mapped), Some(own));
    }
}
