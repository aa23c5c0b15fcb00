//! Header blocks: `NATS/1.0`, then fields as HTTP/1.1 writes them, then an empty line.

use bytes::BytesMut;
use proto::DecodeError;
use proto::publish::Headers;

use crate::broker::{DESCRIPTION, STATUS};

const FIRST: &[u8] = b"NATS/1.0";

/// The fields of a block. What stands behind the version, a status of a server, is not kept.
///
/// # Errors
/// [`DecodeError`] when it is not such a block.
pub(super) fn read(block: &[u8]) -> Result<Headers, DecodeError> {
    if block.is_empty() {
        return Ok(Headers::default());
    }
    let fields = block.strip_prefix(FIRST).ok_or(DecodeError::Invalid("headers"))?;
    let fields = fields.strip_suffix(b"\r\n\r\n").ok_or(DecodeError::Truncated("headers"))?;
    let mut lines = fields.split(|byte| *byte == b'\n');
    // The rest of the first line.
    let _ = lines.next();
    let mut pairs = Vec::new();
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':');
        let colon = colon.ok_or(DecodeError::Invalid("header"))?;
        let name = std::str::from_utf8(&line[..colon]);
        let name = name.map_err(|_| DecodeError::Invalid("header name"))?;
        pairs.push((name, line[colon + 1..].trim_ascii()));
    }
    Headers::of(pairs)
}

/// Appends the block of these fields.
pub(super) fn put(out: &mut BytesMut, headers: &Headers) {
    let (status, count) = status(headers);
    out.extend_from_slice(FIRST);
    for word in status.iter().take(count).filter(|word| !word.is_empty()) {
        out.extend_from_slice(b" ");
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers.iter().skip(count) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Bytes that [`put`] appends.
pub(super) fn size(headers: &Headers) -> usize {
    let (status, count) = status(headers);
    let words = status.iter().filter(|word| !word.is_empty()).map(|word| word.len() + 1);
    let fields = headers.iter().skip(count).map(|(name, value)| name.len() + value.len() + 4);
    FIRST.len() + 4 + words.sum::<usize>() + fields.sum::<usize>()
}

/// What stands behind the version, and how many headers say it: a status and what it means, where they come first.
fn status(headers: &Headers) -> ([&[u8]; 2], usize) {
    let mut all = headers.iter();
    match (all.next(), all.next()) {
        (Some((STATUS, code)), Some((DESCRIPTION, words))) if is_code(code) => ([code, words], 2),
        (Some((STATUS, code)), _) if is_code(code) => ([code, b""], 1),
        _ => ([b"", b""], 0),
    }
}

fn is_code(code: &[u8]) -> bool {
    code.len() == 3 && code.iter().all(u8::is_ascii_digit)
}

/// The fields of a block that clients of NATS wrote.
///
/// # Errors
/// [`DecodeError`] when it is not such a block.
pub fn headers_of(block: &[u8]) -> Result<Headers, DecodeError> {
    read(block)
}

/// A header block as clients of NATS write it.
#[must_use]
pub fn header_block(headers: &Headers) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(size(headers));
    put(&mut out, headers);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_order_and_repetition_are_kept() {
        let block = b"NATS/1.0\r\nX-A: 1\r\nx-a:2 \r\nX-A: \r\n\r\n";
        let headers = read(block).unwrap();
        assert!(headers.iter().eq([("X-A", &b"1"[..]), ("x-a", b"2"), ("X-A", b"")]));
        let mut out = BytesMut::new();
        put(&mut out, &headers);
        assert_eq!((out.len(), read(&out)), (size(&headers), Ok(headers)));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for block in ["HTTP/1.1\r\n\r\n", "NATS/1.0\r\n", "NATS/1.0\r\nno colon\r\n\r\n"] {
            assert!(read(block.as_bytes()).is_err(), "{block:?}");
        }
        assert!(read(b"NATS/1.0\r\n\r\n").unwrap().is_empty());
        assert!(read(b"NATS/1.0 503 No Responders\r\n\r\n").unwrap().is_empty());
    }
}
