//! Which headers pass, which are used up here, and which nobody outside may set.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::error::Error;
use crate::explain::Ignored;

pub(crate) const MICRO_VERSION: HeaderName = HeaderName::from_static("micro-version");
pub(crate) const MICRO_REGION: HeaderName = HeaderName::from_static("micro-region");
pub(crate) const MICRO_LABEL: HeaderName = HeaderName::from_static("micro-label");
pub(crate) const MICRO_NODE: HeaderName = HeaderName::from_static("micro-node");
pub(crate) const MICRO_SELECT: HeaderName = HeaderName::from_static("micro-select");
pub(crate) const MICRO_STICKY: HeaderName = HeaderName::from_static("micro-sticky");
pub(crate) const MICRO_ERROR: HeaderName = HeaderName::from_static("micro-error");
pub(crate) const MICRO_NAMESPACE: HeaderName = HeaderName::from_static("micro-namespace");
pub(crate) const MICRO_IDEMPOTENT: HeaderName = HeaderName::from_static("micro-idempotent");
pub(crate) const MICRO_FROM_SERVICE: HeaderName = HeaderName::from_static("micro-from-service");
pub(crate) const MICRO_MIRROR: HeaderName = HeaderName::from_static("micro-mirror");
pub(crate) const MICRO_TRACE: HeaderName = HeaderName::from_static("micro-trace");
/// Marks a call that somebody sends to find something out. Passed on, so that a service can tell.
pub(crate) const MICRO_PROBE: HeaderName = HeaderName::from_static("micro-probe");
pub(crate) const MICRO_ROUTE: HeaderName = HeaderName::from_static("micro-route");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `micro-*` headers that programs may send: what go-micro programs say to one another
/// (contract, headers 2 and 3), and the filters that are for us.
const FROM_PROGRAMS: [&str; 27] = [
    "micro-service",
    "micro-endpoint",
    "micro-method",
    "micro-id",
    "micro-error",
    "micro-stream",
    "micro-protocol",
    "micro-target",
    "micro-topic",
    "micro-from-service",
    "micro-namespace",
    "micro-trace-id",
    "micro-span-id",
    "micro-database",
    "micro-table",
    "micro-version",
    "micro-region",
    "micro-label",
    "micro-select",
    "micro-sticky",
    "micro-node",
    "micro-idempotent",
    "micro-network",
    "micro-router",
    "micro-gateway",
    "micro-trace",
    "micro-probe",
];

/// What `micro-*` headers are called that mean something else than a label (contract, headers 2 to
/// 5), or that nodes say to one another, beyond [`FROM_PROGRAMS`].
const NEVER_LABELS: [&str; 19] = [
    "api",
    "address",
    "caller",
    "channel",
    "deadline",
    "hop",
    "link",
    "link-id",
    "path",
    "peer",
    "route",
    "rule",
    "session",
    "tunnel",
    "tunnel-channel",
    "tunnel-id",
    "tunnel-link",
    "tunnel-session",
    "via",
];

/// `micro-<key>` headers that may ask for labels, by key.
pub(crate) type Asked = SmallVec<[(HeaderName, HeaderValue); 2]>;

/// The key that a `micro-<key>` header asks for, if it may be one.
pub(crate) fn label_key(name: &HeaderName) -> Option<&str> {
    let key = name.as_str().strip_prefix("micro-")?;
    (!key.is_empty() && !FROM_PROGRAMS.contains(&name.as_str()) && !NEVER_LABELS.contains(&key))
        .then_some(key)
}

/// Headers that decide where a call goes, or say whose it is: given twice, the check and the use could differ.
const ONCE: [HeaderName; 13] = [
    MICRO_VERSION,
    MICRO_REGION,
    MICRO_SELECT,
    MICRO_STICKY,
    MICRO_NODE,
    MICRO_NAMESPACE,
    MICRO_IDEMPOTENT,
    MICRO_FROM_SERVICE,
    crate::deadline::GRPC_TIMEOUT,
    crate::deadline::TIMEOUT,
    header::AUTHORIZATION,
    header::HOST,
    header::CONTENT_TYPE,
];

/// Makes the headers of a request of a local program fit to travel: what concerns only its
/// connection goes (RFC 9110 §7.6.1), and so does every `micro-*` header, however it is spelled,
/// that a program has no business to set. Those that may ask for labels are given back.
///
/// # Errors
/// [`Error::Malformed`] when a header that decides something is there twice.
pub(crate) fn clean_request(headers: &mut HeaderMap) -> Result<Asked, Error> {
    let mut gone: SmallVec<[HeaderName; 8]> = SmallVec::new();
    let mut asked = Asked::new();
    for name in headers.keys() {
        if is_reserved(name.as_str()) && label_key(name).is_some() {
            let mut values = headers.get_all(name).iter();
            asked.extend(values.next().map(|value| (name.clone(), value.clone())));
            if values.next().is_some() {
                return Err(Error::Malformed("a header that decides is there twice"));
            }
        }
        if is_of_connection(name.as_str()) || is_reserved(name.as_str()) {
            gone.push(name.clone());
        }
    }
    if !gone.is_empty() {
        drop_all(headers, &gone);
    }
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        // Only `trailers` means something beyond one connection (RFC 9110 §10.1.4).
        let keep = headers.get_all(header::TE).iter().any(|te| has_token(te, "trailers"));
        headers.remove(header::TE);
        if keep {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    // As many names as values: no header is there twice.
    if headers.len() != headers.keys_len() {
        for name in ONCE {
            if headers.get_all(name).iter().nth(1).is_some() {
                return Err(Error::Malformed("a header that decides is there twice"));
            }
        }
    }
    Ok(asked)
}

/// Whether any header may be for us: most calls have none, and need not be asked for each of them.
pub(crate) fn says_something(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("micro-"))
}

/// Headers of a program that are taken away unheard, with the reason: in a form that only nodes
/// use, or in a spelling that some programs take for it. To be asked before [`clean_request`].
pub(crate) fn unheard(headers: &HeaderMap) -> Vec<Ignored> {
    let unheard =
        headers.keys().filter(|name| is_reserved(name.as_str()) && label_key(name).is_none());
    let why = "only nodes say this: it was taken away";
    let ignored = |name: &HeaderName| Ignored { header: name.to_string(), why: why.to_owned() };
    unheard.take(MOST_IGNORED).map(ignored).collect()
}

/// Ignored headers that are told.
pub(crate) const MOST_IGNORED: usize = 32;

/// Makes the headers of a service's response fit to travel; `micro-error`, `micro-node`,
/// `micro-path` and `micro-route` are only ever set by a node, so that a program can tell who speaks.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    let mut gone: SmallVec<[HeaderName; 4]> = SmallVec::new();
    for name in headers.keys() {
        let text = name.as_str();
        if is_of_connection(text) || is_of_node(text) {
            gone.push(name.clone());
        }
    }
    if !gone.is_empty() {
        drop_all(headers, &gone);
    }
}

/// Takes the names away, and if `Connection` is one, what it names.
fn drop_all(headers: &mut HeaderMap, gone: &[HeaderName]) {
    if gone.contains(&header::CONNECTION) {
        let named: SmallVec<[HeaderName; 4]> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // What frames the message or says where it goes is not a connection's to take away.
            .filter(|name| {
                !matches!(name.as_str(), "host" | "content-length" | "te" | "content-type")
            })
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in gone {
        headers.remove(name);
    }
}

fn is_of_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "expect"
    )
}

/// `name` without the `x` in front that some put there.
fn stem(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    bytes.strip_prefix(b"x-").or_else(|| bytes.strip_prefix(b"x_")).unwrap_or(bytes)
}

/// Whether `name`, in any spelling that some program takes for it, is what a node says of itself.
fn is_of_node(name: &str) -> bool {
    let rest = stem(name).strip_prefix(b"micro");
    let rest = rest.and_then(|rest| rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"_")));
    matches!(rest, Some(b"error" | b"node" | b"path" | b"route"))
}

/// Whether `name` is one of our own spellings that programs may not use.
fn is_reserved(name: &str) -> bool {
    let stem = stem(name);
    let ours = stem.len() > 5 && stem.starts_with(b"micro") && matches!(stem[5], b'-' | b'_');
    ours && !FROM_PROGRAMS.contains(&name)
}

/// Whether one of the comma-separated elements of `value` is `token`, in any case.
pub(crate) fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|text| text.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn what_belongs_to_one_connection_does_not_travel() {
        let mut headers = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("x-user", "ada"),
        ]);
        clean_request(&mut headers).unwrap();
        assert_eq!(headers, map(&[("te", "trailers"), ("x-user", "ada")]));
    }

    #[test]
    fn reserved_headers_are_stripped_in_every_spelling() {
        let spellings = ["micro-caller", "micro_caller", "x-micro-caller", "x_micro_caller"];
        let more = ["micro_node", "micro-hop", "micro-path", "x-micro-id", "micro_from_service"];
        for name in spellings.into_iter().chain(more) {
            let mut headers = map(&[(name, "root")]);
            clean_request(&mut headers).unwrap();
            assert!(headers.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_go_micro_programs_say_to_one_another_passes() {
        let mut headers = map(&[("micro-from-service", "shop"), ("micro-trace-id", "7")]);
        let before = headers.clone();
        clean_request(&mut headers).unwrap();
        assert_eq!(headers, before);
    }

    #[test]
    fn a_deciding_header_given_twice_is_refused() {
        let identity = ["micro-from-service", "authorization"];
        let decide = ["micro-version", "micro-node", "grpc-timeout", "timeout", "host"];
        for name in identity.into_iter().chain(decide) {
            let mut headers = map(&[(name, "1"), (name, "2")]);
            assert!(clean_request(&mut headers).is_err(), "{name}");
        }
        assert!(clean_request(&mut map(&[("x", "1"), ("x", "2")])).is_ok());
    }

    #[test]
    fn a_service_cannot_speak_as_a_node() {
        for name in [
            "micro-error",
            "micro-node",
            "micro-path",
            "micro-route",
            "micro_error",
            "x-micro-node",
        ] {
            let mut headers = map(&[(name, "M1203"), ("etag", "1"), ("micro-id", "7")]);
            clean_response(&mut headers);
            assert_eq!(headers, map(&[("etag", "1"), ("micro-id", "7")]), "{name}");
        }
    }
}
