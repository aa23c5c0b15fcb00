//! Messages of MUCP as bytes.

use bytes::{BufMut as _, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::request::Echo;

/// Bytes of a head that is written without growing: those of go-micro's programs fit.
const ROOM: usize = 1024;

/// The answer to `echo`: with a body or with an error. `metadata` is what else its caller is told.
///
/// go-micro repeats every header of the request; here it is those that say which request it is, each
/// a second time with `X-` in front, where old clients look for it (contract, headers 4.1).
pub(crate) fn response(
    echo: &Echo,
    content: &HeaderValue,
    metadata: &HeaderMap,
    error: Option<&HeaderValue>,
    body: &[u8],
) -> BytesMut {
    let mut out = BytesMut::with_capacity(ROOM + body.len());
    out.put_slice(b"HTTP/1.1 200 OK\r\n");
    field(&mut out, "content-type", content);
    let named = [
        ("micro-service", Some(&echo.service)),
        ("micro-endpoint", Some(&echo.endpoint)),
        ("micro-method", Some(&echo.endpoint)),
        ("micro-id", echo.id.as_ref()),
        ("micro-stream", echo.stream.as_ref()),
        ("micro-error", error),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            field(&mut out, name, value);
            out.put_slice(b"X-");
            field(&mut out, name, value);
        }
    }
    for (name, value) in metadata {
        if is_for_caller(name) {
            field(&mut out, name.as_str(), value);
        }
    }
    end(&mut out, body);
    out
}

/// A request to an instance at `address`. `headers` is what travels with the call.
pub(crate) fn request(
    address: &str,
    echo: &Echo,
    content: &HeaderValue,
    headers: &HeaderMap,
    error: Option<&HeaderValue>,
    body: &[u8],
) -> BytesMut {
    let mut out = BytesMut::with_capacity(ROOM + body.len());
    out.put_slice(b"POST / HTTP/1.1\r\nHost: ");
    out.put_slice(address.as_bytes());
    out.put_slice(b"\r\n");
    field(&mut out, "accept", content);
    field(&mut out, "content-type", content);
    let named = [
        ("micro-service", Some(&echo.service)),
        ("micro-endpoint", Some(&echo.endpoint)),
        ("micro-method", Some(&echo.endpoint)),
        ("micro-id", echo.id.as_ref()),
        ("micro-stream", echo.stream.as_ref()),
        ("micro-error", error),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            field(&mut out, name, value);
        }
    }
    for (name, value) in headers {
        if is_for_instance(name) {
            field(&mut out, name.as_str(), value);
        }
    }
    end(&mut out, body);
    out
}

/// Whether metadata of a service's answer may stand in a message: not what frames it, and not what
/// says which message it is.
fn is_for_caller(name: &HeaderName) -> bool {
    let text = name.as_str();
    let ours = ["micro-node", "micro-route"].contains(&text);
    let reserved = text.starts_with("grpc-") || text.starts_with("x-micro-");
    ours || !(reserved || text.starts_with("micro-") || frames(name))
}

/// The same of a call's headers.
fn is_for_instance(name: &HeaderName) -> bool {
    let says = [
        "micro-service",
        "micro-endpoint",
        "micro-method",
        "micro-id",
        "micro-stream",
        "micro-error",
        "micro-topic",
        "micro-protocol",
        "micro-target",
        "x-content-type",
        "accept",
        "te",
    ];
    let text = name.as_str();
    !(text.starts_with("grpc-")
        || text.starts_with("x-micro-")
        || says.contains(&text)
        || frames(name))
}

fn frames(name: &HeaderName) -> bool {
    [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TRAILER,
        header::UPGRADE,
        header::HOST,
        header::EXPECT,
    ]
    .contains(name)
}

/// One field. Its name is in Title-Case, which is how go-micro looks for it.
fn field(out: &mut BytesMut, name: &str, value: &HeaderValue) {
    let mut upper = true;
    for byte in name.bytes() {
        out.put_u8(if upper { byte.to_ascii_uppercase() } else { byte });
        upper = byte == b'-';
    }
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

fn end(out: &mut BytesMut, body: &[u8]) {
    out.put_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    out.put_slice(body);
}
