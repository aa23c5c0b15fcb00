//! Heads of requests and responses, and trailers.
//!
//! ```text
//! request    method | path | authority | field*
//! response   status (varint) | field*
//! trailers   field*
//!
//! text       length (varint) | bytes
//! method     index into METHODS + 1 (1 byte), or 0 and text
//! field      name | value as text;  name: index into NAMES + 1 (1 byte), or 0 and text
//! ```
//!
//! No state is kept between streams: nothing blocks on another stream, and nothing can be bombed.
//! Names are lower case. The tables may only grow at their end: their order is the wire format.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::varint;

/// Fields of one head.
pub const MAX_FIELDS: usize = 256;

/// Methods with an index.
pub const METHODS: [&str; 8] =
    ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT"];

/// Header names with an index: those that gRPC, go-micro and browsers send.
pub const NAMES: [&str; 64] = [
    "content-type",
    "te",
    "user-agent",
    "grpc-timeout",
    "grpc-status",
    "grpc-message",
    "grpc-encoding",
    "grpc-accept-encoding",
    "grpc-status-details-bin",
    "content-length",
    "date",
    "server",
    "accept",
    "accept-encoding",
    "timeout",
    "x-content-type",
    "micro-from-service",
    "micro-trace-id",
    "micro-span-id",
    "micro-namespace",
    "micro-service",
    "micro-endpoint",
    "micro-method",
    "micro-id",
    "micro-error",
    "micro-topic",
    "micro-node",
    "micro-version",
    "micro-region",
    "micro-label",
    "authorization",
    "traceparent",
    "tracestate",
    "host",
    "cookie",
    "set-cookie",
    "cache-control",
    "etag",
    "last-modified",
    "if-none-match",
    "if-modified-since",
    "if-range",
    "range",
    "accept-ranges",
    "content-range",
    "content-encoding",
    "content-language",
    "accept-language",
    "location",
    "vary",
    "expires",
    "age",
    "origin",
    "referer",
    "upgrade",
    "connection",
    "trailer",
    "expect",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
    "retry-after",
    "allow",
];

/// Appends the first line of a request.
pub fn put_request(out: &mut BytesMut, method: &str, path: &[u8], authority: &[u8]) {
    put_indexed(out, &METHODS, method);
    put_text(out, path);
    put_text(out, authority);
}

/// Appends the first line of a response.
pub fn put_response(out: &mut BytesMut, status: u16) {
    varint::put(out, u64::from(status));
}

/// Appends one field whose name is not known to be in the table; `name` is lower case.
pub fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    put_indexed(out, &NAMES, name);
    put_text(out, value);
}

fn put_indexed(out: &mut BytesMut, table: &[&str], text: &str) {
    match table.iter().position(|entry| *entry == text) {
        #[expect(clippy::cast_possible_truncation, reason = "the tables have at most 64 entries")]
        Some(index) => out.put_u8(index as u8 + 1),
        None => {
            out.put_u8(0);
            put_text(out, text.as_bytes());
        }
    }
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    varint::put(out, text.len() as u64);
    out.put_slice(text);
}

/// A name as read: an index into its table, or its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// `TABLE[index]`.
    Known(usize),
    /// Any other.
    Literal(Bytes),
}

/// The first line of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// Index into [`METHODS`], or the method's bytes.
    pub method: Name,
    /// Path and query.
    pub path: Bytes,
    /// Host and port as the caller wrote them; may be empty.
    pub authority: Bytes,
}

/// Takes the first line of a request off the front.
///
/// # Errors
/// [`DecodeError`] when it is not one.
pub fn take_request(head: &mut Bytes) -> Result<RequestLine, DecodeError> {
    Ok(RequestLine {
        method: take_name(head, METHODS.len())?,
        path: take_text(head)?,
        authority: take_text(head)?,
    })
}

/// Takes the status of a response off the front.
///
/// # Errors
/// [`DecodeError`] when it is not 100 to 999.
pub fn take_response(head: &mut Bytes) -> Result<u16, DecodeError> {
    match take_varint(head)? {
        #[expect(clippy::cast_possible_truncation, reason = "the pattern bounds it")]
        status @ 100..=999 => Ok(status as u16),
        _ => Err(DecodeError::Invalid("status")),
    }
}

/// Takes one field off the front; `None` at the end.
///
/// # Errors
/// [`DecodeError`] when the bytes are not a field.
pub fn take_field(head: &mut Bytes) -> Result<Option<(Name, Bytes)>, DecodeError> {
    if head.is_empty() {
        return Ok(None);
    }
    let name = take_name(head, NAMES.len())?;
    Ok(Some((name, take_text(head)?)))
}

fn take_name(head: &mut Bytes, entries: usize) -> Result<Name, DecodeError> {
    if head.is_empty() {
        return Err(DecodeError::Truncated("head"));
    }
    match usize::from(head.get_u8()) {
        0 => Ok(Name::Literal(take_text(head)?)),
        index if index <= entries => Ok(Name::Known(index - 1)),
        _ => Err(DecodeError::Invalid("name index")),
    }
}

fn take_text(head: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = usize::try_from(take_varint(head)?).unwrap_or(usize::MAX);
    if length > head.len() {
        return Err(DecodeError::Truncated("head"));
    }
    Ok(head.split_to(length))
}

fn take_varint(head: &mut Bytes) -> Result<u64, DecodeError> {
    let mut rest = &head[..];
    let value = varint::take(&mut rest).ok_or(DecodeError::Truncated("head"))?;
    let read = head.len() - rest.len();
    head.advance(read);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_head_comes_back_as_it_was_written() {
        let mut out = BytesMut::new();
        put_request(&mut out, "POST", b"/go.micro.srv.greeter.Say/Hello", b"127.0.0.1:8081");
        put_field(&mut out, "te", b"trailers");
        put_field(&mut out, "x-user", b"ada");
        let mut head = out.freeze();
        let line = take_request(&mut head).unwrap();
        assert_eq!(line.method, Name::Known(0));
        assert_eq!(&line.path[..], b"/go.micro.srv.greeter.Say/Hello");
        let te = (Name::Known(1), Bytes::from_static(b"trailers"));
        assert_eq!(take_field(&mut head), Ok(Some(te)));
        let user = Name::Literal(Bytes::from_static(b"x-user"));
        assert_eq!(take_field(&mut head), Ok(Some((user, Bytes::from_static(b"ada")))));
        assert_eq!(take_field(&mut head), Ok(None));
    }

    #[test]
    fn the_tables_hold_each_name_once() {
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(NAMES.iter().position(|other| other == name), Some(at), "{name}");
            assert_eq!(*name, name.to_ascii_lowercase());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut head = Bytes::from(bytes);
            let _ = take_request(&mut head.clone());
            let _ = take_response(&mut head);
            while let Ok(Some(_)) = take_field(&mut head) {}
        }
    }
}
