//! One question to a name server: whether it is, or leads to, a node.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// That a name server knows micro.internal: only a node does.
///
/// # Errors
/// What came instead.
pub fn answers(server: SocketAddr) -> io::Result<()> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(QUESTION)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).map_err(|error| {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            io::Error::other("no answer")
        } else if error.kind() == ErrorKind::ConnectionRefused {
            io::Error::other("nothing listens there")
        } else {
            error
        }
    })?;
    let head = answer.get(..12).filter(|_| length >= 12).unwrap_or(&[0; 12]);
    let (code, count) = (head[3] & 0x0f, u16::from_be_bytes([head[6], head[7]]));
    match (code, count) {
        (0, 1..) => Ok(()),
        (3, _) => Err(io::Error::other("it does not know the name")),
        _ => Err(io::Error::other(format!("it cannot say (code {code})"))),
    }
}

/// The start of authority (SOA) of micro.internal, asked for with recursion (RFC 1035 §4.1).
const QUESTION: &[u8] =
    b"\x4d\x69\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05micro\x08internal\x00\
                          \x00\x06\x00\x01";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_answers_is_told_from_one_who_does_not_know() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let at = server.local_addr().unwrap();
        let said = std::thread::spawn(move || {
            for code in [3, 0] {
                let mut question = [0; 512];
                let (length, from) = server.recv_from(&mut question).unwrap();
                assert_eq!(&question[..length], QUESTION);
                question[2] |= 0x80;
                question[3] = code;
                question[7] = u8::from(code == 0);
                server.send_to(&question[..length], from).unwrap();
            }
        });
        assert_eq!(answers(at).unwrap_err().to_string(), "it does not know the name");
        answers(at).unwrap();
        said.join().unwrap();
        let refused = answers(at).unwrap_err();
        assert_eq!(refused.to_string(), "nothing listens there");
    }
}
