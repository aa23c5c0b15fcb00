//! One connection, asked of the kernel (sock_diag(7)).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::Ends;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`, without `NLM_F_DUMP`: one socket, looked up as for a packet.
const REQUEST: u16 = 1;
const TCP: u8 = 6;
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;
/// `TCP_LISTEN`: what a lookup falls back to where there is no connection.
const LISTEN: u8 = 10;
/// `ENOENT`: there is no such connection.
const NOT_FOUND: i32 = -2;
/// A header and an `inet_diag_msg`.
const ANSWER: usize = 16 + 72;
/// Answers read that are to earlier questions.
const MAX_STALE: usize = 8;

/// A socket to ask with.
#[derive(Debug)]
pub(super) struct Diag(Mutex<Asked>);

#[derive(Debug)]
struct Asked {
    socket: OwnedFd,
    questions: u32,
}

impl Diag {
    pub(super) fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let protocol = Some(netlink::SOCK_DIAG);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self(Mutex::new(Asked { socket, questions: 0 })))
    }

    /// The user whose program has the connection open; `None` when no program has. Does not wait:
    /// the kernel answers before it has taken the question.
    pub(super) fn owner(&self, ends: Ends) -> io::Result<Option<u32>> {
        let mut asked = self.0.lock();
        asked.questions = asked.questions.wrapping_add(1);
        let number = asked.questions;
        rustix::net::send(&asked.socket, &question(ends, number), SendFlags::empty())?;
        let mut bytes = [0; 512];
        for _ in 0..MAX_STALE {
            let (_, length) = rustix::net::recv(&asked.socket, &mut bytes, RecvFlags::DONTWAIT)?;
            if let Some(owner) = read(&bytes[..length.min(bytes.len())], ends, number)? {
                return Ok(owner);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The question of the kernel's `inet_diag.h`: 16 bytes of `nlmsghdr`, then `inet_diag_req_v2`.
/// Headers are in the order of the machine, ports and addresses in that of the network.
fn question(ends: Ends, number: u32) -> [u8; 72] {
    let mut out = [0; 72];
    out[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    out[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    out[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    out[8..12].copy_from_slice(&number.to_ne_bytes());
    out[16] = if ends.own.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
    out[17] = TCP;
    // Every state.
    out[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    out[24..26].copy_from_slice(&ends.own.port().to_be_bytes());
    out[26..28].copy_from_slice(&ends.peer.port().to_be_bytes());
    put_ip(&mut out[28..44], ends.own);
    put_ip(&mut out[44..60], ends.peer);
    // No interface, and no cookie: `INET_DIAG_NOCOOKIE`.
    out[64..72].copy_from_slice(&[0xff; 8]);
    out
}

fn put_ip(out: &mut [u8], at: SocketAddr) {
    match at.ip() {
        IpAddr::V4(ip) => out[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.copy_from_slice(&ip.octets()),
    }
}

/// The answer to question `number`; `None` when it is one to another question.
fn read(bytes: &[u8], ends: Ends, number: u32) -> io::Result<Option<Option<u32>>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let word = |at: usize| -> io::Result<u32> {
        let bytes = bytes.get(at..at + 4).ok_or_else(bad)?;
        Ok(u32::from_ne_bytes(bytes.try_into().map_err(|_| bad())?))
    };
    if word(8)? != number {
        return Ok(None);
    }
    let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
    if kind == ERROR {
        let error = word(16)?.cast_signed();
        return match error {
            NOT_FOUND => Ok(Some(None)),
            error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        };
    }
    if kind != BY_FAMILY || bytes.len() < ANSWER {
        return Err(bad());
    }
    let state = bytes[17];
    let ports = (ends.own.port().to_be_bytes(), ends.peer.port().to_be_bytes());
    let same = bytes[20..22] == ports.0 && bytes[22..24] == ports.1;
    let (uid, inode) = (word(80)?, word(84)?);
    // A connection that no program has open any more is told with user 0 and inode 0: who sends and
    // closes must not pass for root.
    let is_open = state != LISTEN && same && inode != 0;
    Ok(Some(is_open.then_some(uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: fn() -> Ends = || Ends {
        own: "127.0.0.1:40000".parse().unwrap(),
        peer: "127.0.0.1:8081".parse().unwrap(),
    };

    fn answer(state: u8, uid: u32, inode: u32) -> Vec<u8> {
        let mut bytes = question(ENDS(), 7).to_vec();
        bytes.resize(ANSWER, 0);
        // The answer has four bytes before the ends where the question has eight.
        bytes.copy_within(24..60, 20);
        bytes[17] = state;
        bytes[80..84].copy_from_slice(&uid.to_ne_bytes());
        bytes[84..88].copy_from_slice(&inode.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_an_open_connection_has_an_owner() {
        let owner = |bytes: &[u8]| read(bytes, ENDS(), 7).unwrap();
        assert_eq!(owner(&answer(1, 1000, 42)), Some(Some(1000)));
        assert_eq!(owner(&answer(4, 0, 0)), Some(None), "closed by its program");
        assert_eq!(owner(&answer(LISTEN, 0, 42)), Some(None));
        assert_eq!(read(&answer(1, 0, 42), ENDS(), 8).unwrap(), None, "of another question");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let whole = answer(1, 1000, 42);
        for length in 0..ANSWER {
            assert!(read(&whole[..length], ENDS(), 7).is_err(), "{length} bytes");
        }
    }
}
