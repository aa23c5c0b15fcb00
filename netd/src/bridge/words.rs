//! A message in the words of the other side: its headers, with the mark.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use proto::publish::Headers;

use super::mark::HEADER;

/// The marks among headers.
pub(crate) fn marks(headers: &Headers) -> impl Iterator<Item = &[u8]> {
    headers.iter().filter(|(name, _)| is_mark(name)).map(|(_, value)| value)
}

/// The marks of a message of NATS.
pub(crate) fn marks_of(headers: Option<&HeaderMap>) -> Vec<&[u8]> {
    let all = headers.into_iter().flat_map(HeaderMap::iter);
    let marks = all.filter(|(name, _)| is_mark(as_str(name)));
    marks.flat_map(|(_, values)| values).map(|value| value.as_str().as_bytes()).collect()
}

fn is_mark(name: &str) -> bool {
    name.eq_ignore_ascii_case(HEADER)
}

fn as_str(name: &HeaderName) -> &str {
    name.as_ref()
}

/// For NATS. `None` where one of them cannot be a header there: its value is no text.
pub(crate) fn to_nats(headers: &Headers, mark: Option<&str>) -> Option<HeaderMap> {
    let mut all = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !is_mark(name)) {
        let name: HeaderName = name.parse().ok()?;
        let value: HeaderValue = std::str::from_utf8(value).ok()?.parse().ok()?;
        all.append(name, value);
    }
    if let Some(mark) = mark {
        all.insert(HEADER, mark);
    }
    Some(all)
}

/// For the network, by name: the client that reads them does not keep the order of different names.
/// `None` where they cannot be headers of a topic.
pub(crate) fn to_network(headers: Option<&HeaderMap>, mark: Option<&str>) -> Option<Headers> {
    let mut pairs: Vec<(&str, &[u8])> = headers
        .into_iter()
        .flat_map(HeaderMap::iter)
        .filter(|(name, _)| !is_mark(as_str(name)))
        .flat_map(|(name, values)| values.iter().map(|value| (as_str(name), value.as_str())))
        .map(|(name, value)| (name, value.as_bytes()))
        .collect();
    // Stable: values of one name keep their order.
    pairs.sort_by_key(|(name, _)| *name);
    pairs.extend(mark.map(|mark| (HEADER, mark.as_bytes())));
    Headers::of(pairs).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_case_and_repetition_and_have_one_mark() {
        let pairs: [(&str, &[u8]); 4] =
            [("X-A", b"1"), ("micro-bridge", b"net:old"), ("x-a", b"2"), ("X-A", b"3")];
        let headers = Headers::of(pairs).unwrap();
        assert!(marks(&headers).eq([&b"net:old"[..]]));
        let there = to_nats(&headers, Some("net:new")).unwrap();
        assert_eq!(marks_of(Some(&there)), [b"net:new"]);
        let back = to_network(Some(&there), None).unwrap();
        let wanted: [(&str, &[u8]); 3] = [("X-A", b"1"), ("X-A", b"3"), ("x-a", b"2")];
        assert!(back.iter().eq(wanted), "{:?}", back.iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_a_header_there_is_not_carried() {
        let headers = Headers::of([("a", &b"\xff"[..])]).unwrap();
        assert_eq!(to_nats(&headers, None), None);
        assert_eq!(to_network(None, None), Some(Headers::default()));
    }
}
