//! The face of SOCKS 5 (RFC 1928): bytes to the service that a program names to its proxy.
//!
//! Without authentication: who may use a listener is decided by its owner, before the first byte.
//! `BIND` and `UDP ASSOCIATE` are answered as what they are: not served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::begin::Meaning;
use crate::carry::raw::Connected;
use crate::error::Error;
use crate::headers::Asked;
use crate::heads::RequestHead;
use crate::metrics::{Face, Outcome};
use crate::outside;
use crate::proxy::Shared;
use crate::splice::Peer;
use crate::tcp;

/// The version, first in everything that is said.
pub(crate) const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NONE_OF_THEM: u8 = 0xff;
const CONNECT: u8 = 1;

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
        Ok(Some(Ok(asked))) => asked,
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

/// Greets, and reads which host and port are wanted. `None`: not a word more is to be said.
async fn ask(stream: &mut TcpStream, read: &mut BytesMut) -> Option<Result<(String, u16), Reply>> {
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
    Some(if command == CONNECT { Ok((host, port)) } else { Err(Reply::CommandNotSupported) })
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
        let authority: Authority =
            format!("{host}:{port}").parse().map_err(|_| Error::Malformed("not a host name"))?;
        let mut head = RequestHead {
            method: Method::CONNECT,
            path: PathAndQuery::from_static("/"),
            authority: Some(authority),
            headers: HeaderMap::new(),
        };
        match shared.meaning(&mut head, Asked::default(), false, &mut Vec::new()) {
            Ok(Meaning::Service(meant)) => return shared.connect(meant, head.headers).await,
            // Ours are spoken to in gRPC, at this port.
            Ok(Meaning::Own) => {}
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
    Ok(Connected { peer: Peer::Near(socket), at: None })
}

/// The address that the answer has room for is of no use to anybody, and none is told.
async fn answer(stream: &mut TcpStream, reply: Reply) {
    // Whoever is gone is not told.
    let _ = stream.write_all(&[VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await;
}

impl From<&Error> for Reply {
    fn from(error: &Error) -> Self {
        match error.code() {
            1004 => Self::Refused,
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
