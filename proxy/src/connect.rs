//! The face of `CONNECT` (RFC 9110 §9.3.6): bytes to the service that the request line names, for
//! any program that takes a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::answer::Form;
use crate::begin::Meaning;
use crate::carry::raw::Connected;
use crate::error::Error;
use crate::headers;
use crate::heads::RequestHead;
use crate::metrics::{Face, Outcome};
use crate::proxy::Shared;
use crate::splice::Peer;
use crate::{outside, target, tcp, turn_away};

/// What is said when an instance has taken the connection.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const FIELDS: usize = proto::head::MAX_FIELDS;

/// Serves one connection, of which `seen` was read already, until it has ended. One for this proxy
/// itself is given back with what was read behind its head, unless that happened before (`again`): what
/// follows is as on any connection. Go programs send even what they ask of their registry through their
/// proxy (contract, clients 8).
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    mut stream: TcpStream,
    seen: Bytes,
    again: bool,
) -> Option<(TcpStream, BytesMut)> {
    let began = Instant::now();
    let mut read = BytesMut::from(seen);
    let head = head(&mut stream, &mut read, shared.limits.head as usize);
    let head = match tokio::time::timeout(shared.limits.head_wait, head).await {
        Ok(Ok(head)) => head,
        // Gone before it said what it wants, or too slow to.
        Ok(Err(None)) | Err(_) => return None,
        Ok(Err(Some(error))) => {
            fail(shared, stream, &error, &Form::Text, began).await;
            return None;
        }
    };
    if !again && is_for_us(shared, &head) {
        stream.write_all(ESTABLISHED).await.ok()?;
        return Some((stream, read));
    }
    let form = Form::of(&head.headers, false);
    let counted = shared.calls.enter(shared.limits.calls);
    let connected = match (&counted, stream.local_addr()) {
        (Some(_), Ok(local)) => begin(shared, head, local).await,
        (Some(_), Err(_)) => return None,
        (None, _) => Err(Error::Overloaded { what: "this node is", limit: shared.limits.calls }),
    };
    let connected = match connected {
        Ok(connected) => connected,
        Err(error) => {
            fail(shared, stream, &error, &form, began).await;
            return None;
        }
    };
    if stream.write_all(ESTABLISHED).await.is_ok() {
        tcp::carry(shared, stream, read.freeze(), connected, began).await;
    }
    None
}

/// Whether the target is an address at which this proxy listens.
fn is_for_us(shared: &Shared, head: &RequestHead) -> bool {
    let Some(authority) = &head.authority else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    let (Ok(ip), Some(port)) = (host.parse(), authority.port_u16()) else { return false };
    shared.deliver.is_own(SocketAddr::new(ip, port)) && !target::is_cross_site(head)
}

/// A connection to what `head` names.
async fn begin(
    shared: &Arc<Shared>,
    mut head: RequestHead,
    local: SocketAddr,
) -> Result<Connected, Error> {
    let asked = headers::clean_request(&mut head.headers)?;
    if target::is_cross_site(&head) {
        return Err(Error::NotAllowed("a web page of another site made the request"));
    }
    let place = head.authority.clone().and_then(|to| Some((to.host().to_owned(), to.port_u16()?)));
    let Some((host, port)) = place else {
        return Err(Error::Malformed("CONNECT names a host and a port"));
    };
    match shared.meaning(&mut head, asked, false, &mut Vec::new()) {
        Ok(Meaning::Service(meant)) => shared.connect(meant, head.headers).await,
        // Ours are spoken to in gRPC, at this port.
        Ok(Meaning::Own) => Err(Error::NoService(host)),
        Err(Error::NoService(_)) if outside::is_outside(&host) && outside::may_leave(local) => {
            if let Some(meant) = shared.meant_by_address(&host, port) {
                return shared.connect(meant, head.headers).await;
            }
            let socket = shared.leave(&host, port).await?;
            Ok(Connected { peer: Peer::Near(socket, Bytes::new()), at: None })
        }
        Err(error) => Err(error),
    }
}

async fn fail(shared: &Shared, stream: TcpStream, error: &Error, form: &Form, began: Instant) {
    shared.metrics.call(Face::Tcp, Outcome::from(error), began.elapsed());
    let node = shared.node_of(error);
    // Whoever takes longer to read it is told nothing.
    let told = turn_away::http1(stream, error, &node, form);
    let _ = tokio::time::timeout(turn_away::PATIENCE, told).await;
}

/// Reads the head; what follows it stays in `read`. `Err(None)`: the program is gone.
async fn head(
    stream: &mut TcpStream,
    read: &mut BytesMut,
    most: usize,
) -> Result<RequestHead, Option<Error>> {
    loop {
        if let Some((head, length)) = parse(read).map_err(Some)? {
            read.advance(length);
            return Ok(head);
        }
        if read.len() >= most {
            return Err(Some(Error::HeadTooLarge(most)));
        }
        match stream.read_buf(read).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(_) => {}
        }
    }
}

/// The head at the front of `bytes` and its length; `None` while it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Error> {
    let malformed = || Error::Malformed("not a request to CONNECT");
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(malformed()),
    };
    // The library takes a lone line feed for the end of a line, which others do not.
    let lone = bytes[..length].iter().enumerate().any(|(at, byte)| {
        *byte == b'\n' && at.checked_sub(1).is_none_or(|before| bytes[before] != b'\r')
    });
    if lone || request.method != Some("CONNECT") {
        return Err(malformed());
    }
    let authority: Authority = request.path.unwrap_or_default().parse().map_err(|_| malformed())?;
    if authority.as_str().contains('@') {
        return Err(Error::Malformed("the authority is not a host and a port"));
    }
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed())?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| malformed())?;
        headers.append(name, value);
    }
    // It says the same as the request line, or nothing that counts (RFC 9112 §3.2.3).
    headers.remove(http::header::HOST);
    let path = PathAndQuery::from_static("/");
    let head = RequestHead { method: Method::CONNECT, path, authority: Some(authority), headers };
    Ok(Some((head, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_whole_and_nothing_behind_it() {
        let whole = b"CONNECT shop:80 HTTP/1.1\r\nHost: shop:80\r\nMicro-Version: v2\r\n\r\nbytes";
        for cut in 0..whole.len() - 5 {
            assert!(parse(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        let (head, length) = parse(whole).unwrap().unwrap();
        assert_eq!(&whole[length..], b"bytes");
        assert_eq!(head.authority.unwrap().as_str(), "shop:80");
        assert_eq!(head.headers["micro-version"], "v2");
        assert!(!head.headers.contains_key("host"));
    }

    #[test]
    fn what_two_readers_could_take_for_two_things_is_refused() {
        for bad in [
            "CONNECT shop:80 HTTP/1.1\nHost: a\r\n\r\n",
            "CONNECT shop:80 HTTP/1.1\r\nA: b\n\r\n",
            "CONNECT ada@shop:80 HTTP/1.1\r\n\r\n",
            "CONNECT http://shop/ HTTP/1.1\r\n\r\n",
            "CONNECT /path HTTP/1.1\r\n\r\n",
            "CONNECT shop:80 HTTP/1.1\r\nA : b\r\n\r\n",
            "CONNECT shop:80 HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "CONNECT shop:80 HTTP/9\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
