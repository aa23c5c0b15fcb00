//! The face of SOCKS 5 (RFC 1928): bytes to the service that a program names to its proxy.
//!
//! Without authentication: who may use a listener is decided by its owner, before the first byte.
//! `UDP ASSOCIATE` is in [`crate::udp::socks`]; `BIND` is answered as what it is: not served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::carry::raw::Connected;
use crate::error::Error;
use crate::metrics::{Face, Outcome};
use crate::outside;
use crate::proxy::{Shared, drained};
use crate::splice::Peer;
use crate::tcp;
use crate::udp::socks::Association;

/// The version, first in everything that is said.
pub(crate) const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NONE_OF_THEM: u8 = 0xff;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;

/// What a request was answered with (RFC 1928 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Succeeded = 0,
    Failed = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

/// Serves one connection, of which `seen` was read already, until it has ended.
pub(crate) async fn serve(shared: &Arc<Shared>, mut stream: TcpStream, seen: Bytes) {
    let began = Instant::now();
    let mut read = BytesMut::from(seen);
    let asked = ask(&mut stream, &mut read);
    let (host, port) = match tokio::time::timeout(shared.limits.first_bytes, asked).await {
        Ok(Some(Ok(Command::Connect(host, port)))) => (host, port),
        Ok(Some(Ok(Command::Associate))) => return associate(shared, stream).await,
        Ok(Some(Err(reply))) => return answer(&mut stream, reply).await,
        // Gone, or it does not speak this after all.
        Ok(None) | Err(_) => return,
    };
    let counted = shared.calls.enter(shared.limits.calls);
    let connected = match (&counted, stream.local_addr()) {
        (Some(_), Ok(local)) => begin(shared, &host, port, local).await,
        (Some(_), Err(_)) => return,
        (None, _) => Err(Error::Overloaded { what: "this node is", limit: shared.limits.calls }),
    };
    match connected {
        Ok(connected) => {
            answer(&mut stream, Reply::Succeeded).await;
            tcp::carry(shared, stream, read.freeze(), connected, began).await;
        }
        Err(error) => {
            shared.metrics.call(Face::Tcp, Outcome::from(&error), began.elapsed());
            tracing::info!(host, port, %error, code = error.code(), "a connection came to nothing");
            answer(&mut stream, Reply::from(&error)).await;
        }
    }
}

/// What is asked for.
enum Command {
    /// A connection to a host and a port.
    Connect(String, u16),
    /// A port for packets. From where they will come is not known by most programs, and not needed.
    Associate,
}

/// A port for the packets of this program, as long as its connection lasts.
async fn associate(shared: &Arc<Shared>, mut stream: TcpStream) {
    let opened = async {
        let association = Association::open(stream.local_addr()?, stream.peer_addr()?).await?;
        association.at().map(|at| (association, at))
    };
    let (association, at) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, "no port for packets");
            return answer(&mut stream, Reply::Failed).await;
        }
    };
    let mut said = vec![VERSION, Reply::Succeeded as u8, 0];
    match at.ip() {
        IpAddr::V4(ip) => {
            said.push(1);
            said.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            said.push(4);
            said.extend(ip.octets());
        }
    }
    said.extend(at.port().to_be_bytes());
    if stream.write_all(&said).await.is_err() {
        return;
    }
    let mut draining = shared.draining.subscribe();
    // Nothing more is said on the connection; what is read and dropped waits for its end.
    let ended = async {
        let mut dropped = [0; 64];
        while stream.read(&mut dropped).await.is_ok_and(|length| length > 0) {}
    };
    tokio::select! {
        () = association.serve(shared) => {}
        () = ended => {}
        () = drained(&mut draining) => {}
    }
}

/// Greets, and reads what is wanted. `None`: not a word more is to be said.
async fn ask(stream: &mut TcpStream, read: &mut BytesMut) -> Option<Result<Command, Reply>> {
    fill(stream, read, 2).await?;
    let methods = usize::from(read[1]);
    fill(stream, read, 2 + methods).await?;
    let takes = read[2..2 + methods].contains(&NO_AUTHENTICATION);
    read.advance(2 + methods);
    let method = if takes { NO_AUTHENTICATION } else { NONE_OF_THEM };
    stream.write_all(&[VERSION, method]).await.ok()?;
    if !takes {
        return None;
    }
    fill(stream, read, 5).await?;
    let [version, command, reserved, kind, first] = *read.first_chunk()?;
    if version != VERSION || reserved != 0 {
        return Some(Err(Reply::Failed));
    }
    let length = match kind {
        1 => 4,
        3 => 1 + usize::from(first),
        4 => 16,
        _ => return Some(Err(Reply::AddressNotSupported)),
    };
    fill(stream, read, 4 + length + 2).await?;
    read.advance(4);
    let address = read.split_to(length);
    let port = read.get_u16();
    let host = match (kind, &address[..]) {
        (1, address) => IpAddr::from(Ipv4Addr::from(*address.first_chunk()?)).to_string(),
        (4, address) => IpAddr::from(Ipv6Addr::from(*address.first_chunk()?)).to_string(),
        (_, name) => match std::str::from_utf8(&name[1..]) {
            Ok(name) => name.to_owned(),
            Err(_) => return Some(Err(Reply::AddressNotSupported)),
        },
    };
    Some(match command {
        CONNECT => Ok(Command::Connect(host, port)),
        UDP_ASSOCIATE => Ok(Command::Associate),
        _ => Err(Reply::CommandNotSupported),
    })
}

/// Reads until there are so many bytes.
async fn fill(stream: &mut TcpStream, read: &mut BytesMut, count: usize) -> Option<()> {
    while read.len() < count {
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}

async fn begin(
    shared: &Arc<Shared>,
    host: &str,
    port: u16,
    local: SocketAddr,
) -> Result<Connected, Error> {
    let address = host.parse::<IpAddr>().is_ok();
    let mut unknown = Error::NoService(host.to_owned());
    if !address {
        match shared.named(&format!("{host}:{port}")) {
            Ok(Some((meant, headers))) => return shared.connect(meant, headers).await,
            // Ours are spoken to in gRPC, at this port.
            Ok(None) => {}
            Err(error @ Error::NoService(_)) => unknown = error,
            Err(error) => return Err(error),
        }
    }
    if !(outside::is_outside(host) && outside::may_leave(local)) {
        return Err(unknown);
    }
    if let Some(meant) = shared.meant_by_address(host, port) {
        return shared.connect(meant, HeaderMap::new()).await;
    }
    let socket = shared.leave(host, port).await?;
    Ok(Connected { peer: Peer::Near(socket, Bytes::new()), at: None })
}

/// The address that the answer has room for is of no use to anybody, and none is told.
async fn answer(stream: &mut TcpStream, reply: Reply) {
    // Whoever is gone is not told.
    let _ = stream.write_all(&[VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await;
}

impl From<&Error> for Reply {
    fn from(error: &Error) -> Self {
        match error.code() {
            1004 | 1016 => Self::Refused,
            1003 => Self::NetworkUnreachable,
            1002 | 1203 => Self::HostUnreachable,
            1011 | 1015 => Self::NotAllowed,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_the_answer_that_programs_know() {
        assert_eq!(Reply::from(&Error::NoService("a".into())), Reply::HostUnreachable);
        assert_eq!(Reply::from(&Error::NotAllowed("no")), Reply::NotAllowed);
        let refused = Error::Refused { instance: "a".into(), why: "b".into() };
        assert_eq!(Reply::from(&refused), Reply::Refused);
        assert_eq!(Reply::from(&Error::Draining), Reply::Failed);
    }
}
