//! Heads between `http`'s types and the bytes of [`proto::head`], without an intermediate copy.

use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};
use proto::DecodeError;
use proto::exchange::{FrameKind, Load, MAX_HEAD, put_header};
use proto::head::{self, METHODS, NAMES, Name};
use proto::varint;

/// The head of a request, on its way.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    /// Host and port as the caller wrote them.
    pub(crate) authority: Option<Authority>,
    pub(crate) headers: HeaderMap,
}

impl RequestHead {
    /// The head itself, leaving an empty one.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self {
            method: Method::default(),
            path: PathAndQuery::from_static("/"),
            authority: None,
            headers: HeaderMap::new(),
        };
        std::mem::replace(self, empty)
    }
}

/// A head has more than [`MAX_HEAD`] bytes.
#[derive(Debug)]
pub(crate) struct TooLarge;

/// The `HEAD` frame of a request.
pub(crate) fn request(head: &RequestHead) -> Result<Bytes, TooLarge> {
    let path = head.path.as_str().as_bytes();
    let authority = head.authority.as_ref().map_or("", Authority::as_str).as_bytes();
    let method = head.method.as_str();
    let line = 1 + 8 + method.len() + 8 + path.len() + 8 + authority.len();
    frame(FrameKind::Head, line, &head.headers, None, |out| {
        head::put_request(out, method, path, authority);
    })
}

/// The `HEAD` frame of a response, after a `LOAD` frame if there is something to tell.
pub(crate) fn response(
    status: StatusCode,
    headers: &HeaderMap,
    load: Option<Load>,
) -> Result<Bytes, TooLarge> {
    let line = |out: &mut BytesMut| head::put_response(out, status.as_u16());
    frame(FrameKind::Head, 2, headers, load, line)
}

/// The `TRAILERS` frame.
pub(crate) fn trailers(headers: &HeaderMap) -> Result<Bytes, TooLarge> {
    frame(FrameKind::Trailers, 0, headers, None, |_| ())
}

/// The length goes before what it counts: it is written in the 4-byte form of a varint, then set.
fn frame(
    kind: FrameKind,
    line: usize,
    headers: &HeaderMap,
    load: Option<Load>,
    put_line: impl FnOnce(&mut BytesMut),
) -> Result<Bytes, TooLarge> {
    let fields: usize = headers.iter().map(|(n, v)| 8 + n.as_str().len() + v.len()).sum();
    if line + fields > MAX_HEAD || headers.len() > head::MAX_FIELDS {
        return Err(TooLarge);
    }
    let mut out = BytesMut::with_capacity(8 + line + fields + Load::MAX_FRAME);
    if let Some(load) = load {
        load.put(&mut out);
    }
    // A length that takes four bytes as a varint (RFC 9000 §16), whatever it will be.
    put_header(&mut out, kind, 1 << 14);
    let start = out.len();
    put_line(&mut out);
    for (name, value) in headers {
        match index_of(name.as_str()) {
            Some(index) => out.put_u8(index + 1),
            None => {
                out.put_u8(0);
                put_text(&mut out, name.as_str().as_bytes());
            }
        }
        put_text(&mut out, value.as_bytes());
    }
    let length = u32::try_from(out.len() - start).map_err(|_| TooLarge)?;
    if length as usize > MAX_HEAD {
        return Err(TooLarge);
    }
    out[start - 4..start].copy_from_slice(&(length | 0x8000_0000).to_be_bytes());
    Ok(out.freeze())
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    varint::put(out, text.len() as u64);
    out.put_slice(text);
}

/// Reads the head of a request.
///
/// # Errors
/// [`DecodeError`] when it is none, or names something HTTP does not allow.
pub(crate) fn read_request(mut bytes: Bytes) -> Result<RequestHead, DecodeError> {
    let line = head::take_request(&mut bytes)?;
    let method = match line.method {
        Name::Known(index) => METHODS_HTTP[index].clone(),
        Name::Literal(text) => {
            Method::from_bytes(&text).map_err(|_| DecodeError::Invalid("method"))?
        }
    };
    if !line.path.starts_with(b"/") && &line.path[..] != b"*" {
        return Err(DecodeError::Invalid("path"));
    }
    let path =
        PathAndQuery::from_maybe_shared(line.path).map_err(|_| DecodeError::Invalid("path"))?;
    let authority = if line.authority.is_empty() {
        None
    } else {
        let authority = Authority::from_maybe_shared(line.authority);
        Some(authority.map_err(|_| DecodeError::Invalid("authority"))?)
    };
    Ok(RequestHead { method, path, authority, headers: read_fields(bytes)? })
}

/// Reads the head of a response. `101` is one, for it is the last of a connection that is upgraded.
///
/// # Errors
/// [`DecodeError`] when it is none.
pub(crate) fn read_response(mut bytes: Bytes) -> Result<(StatusCode, HeaderMap), DecodeError> {
    let status = head::take_response(&mut bytes)?;
    // An interim response has no place here: the caller's own node answers `100-continue`.
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| !status.is_informational() || *status == StatusCode::SWITCHING_PROTOCOLS);
    Ok((status.ok_or(DecodeError::Invalid("status"))?, read_fields(bytes)?))
}

/// Reads trailers, or the fields of a head.
///
/// # Errors
/// [`DecodeError`] when they are none.
pub(crate) fn read_fields(mut bytes: Bytes) -> Result<HeaderMap, DecodeError> {
    let mut headers = HeaderMap::with_capacity(12);
    let mut count = 0;
    while let Some((name, value)) = head::take_field(&mut bytes)? {
        count += 1;
        if count > head::MAX_FIELDS {
            return Err(DecodeError::TooLarge("fields"));
        }
        let name = match name {
            Name::Known(index) => NAMES_HTTP[index].clone(),
            Name::Literal(text) => {
                HeaderName::from_lowercase(&text).map_err(|_| DecodeError::Invalid("name"))?
            }
        };
        let value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| DecodeError::Invalid("header value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

static METHODS_HTTP: LazyLock<Vec<Method>> = LazyLock::new(|| {
    let known = METHODS.iter().map(|m| Method::from_bytes(m.as_bytes()));
    known.collect::<Result<_, _>>().expect("the table holds methods")
});

static NAMES_HTTP: LazyLock<Vec<HeaderName>> =
    LazyLock::new(|| NAMES.iter().map(|name| HeaderName::from_static(name)).collect());

/// Slots of the table that finds the index of a name; a power of two well above the names.
const SLOTS: usize = 256;

/// `index + 1` of the names whose [`slot`] it is, or of one that did not fit where it belonged and
/// went to the next free slot; 0: free.
static INDEX: [u8; SLOTS] = {
    let mut table = [0; SLOTS];
    let mut index = 0;
    while index < NAMES.len() {
        let mut at = slot(NAMES[index].as_bytes());
        while table[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are 64 names")]
        let entry = index as u8 + 1;
        table[at] = entry;
        index += 1;
    }
    table
};

const fn slot(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let (first, middle) = (name[0] as usize, name[name.len() / 2] as usize);
    let last = name[name.len() - 1] as usize;
    (name.len() * 37 + first * 7 + middle * 13 + last * 3) % SLOTS
}

fn index_of(name: &str) -> Option<u8> {
    let mut at = slot(name.as_bytes());
    while INDEX[at] != 0 {
        let index = INDEX[at] - 1;
        if NAMES[usize::from(index)] == name {
            return Some(index);
        }
        at = (at + 1) % SLOTS;
    }
    None
}

#[cfg(test)]
mod tests {
    use proto::exchange::{Part, Reader};

    use super::*;

    #[test]
    fn every_name_of_the_table_is_found_and_no_other() {
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(index_of(name).map(usize::from), Some(at), "{name}");
        }
        assert_eq!(index_of("x-user"), None);
        assert_eq!(index_of(""), None);
    }

    #[test]
    fn a_request_head_is_read_as_it_was_written() {
        let mut headers = HeaderMap::new();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.append("x-user", HeaderValue::from_static("ada"));
        headers.append("x-user", HeaderValue::from_static("bob"));
        let written = RequestHead {
            method: Method::POST,
            path: PathAndQuery::from_static("/go.micro.srv.greeter.Say/Hello?x=1"),
            authority: Some(Authority::from_static("127.0.0.1:8081")),
            headers,
        };
        let mut reader = Reader::with(request(&written).unwrap());
        let Ok(Some(Part::Head(bytes))) = reader.next() else { panic!("a head") };
        assert!(reader.is_between_frames());
        let read = read_request(bytes).unwrap();
        assert_eq!(read.method, written.method);
        assert_eq!(read.path, written.path);
        assert_eq!(read.authority, written.authority);
        assert_eq!(read.headers, written.headers);
    }

    #[test]
    fn a_response_head_comes_after_the_load_of_its_instance() {
        let load = Load { in_flight: 3, limit: 4_096 };
        let frames = response(StatusCode::OK, &HeaderMap::new(), Some(load)).unwrap();
        let mut reader = Reader::with(frames);
        let Ok(Some(Part::Load(body))) = reader.next() else { panic!("a load") };
        assert_eq!(Load::read(&body), Some(load));
        let Ok(Some(Part::Head(head))) = reader.next() else { panic!("a head") };
        assert_eq!(read_response(head).unwrap().0, StatusCode::OK);
        assert!(reader.is_between_frames());
    }

    #[test]
    fn names_and_values_that_http_forbids_are_refused() {
        for (name, value) in [("Upper", "x"), ("a b", "x"), ("x", "a\r\nb"), ("", "x")] {
            let mut out = BytesMut::new();
            head::put_field(&mut out, name, value.as_bytes());
            assert!(read_fields(out.freeze()).is_err(), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn a_head_above_the_bound_is_not_written() {
        let mut headers = HeaderMap::new();
        let long = "x".repeat(MAX_HEAD);
        headers.insert("x-long", HeaderValue::from_str(&long).unwrap());
        assert!(trailers(&headers).is_err());
    }
}
