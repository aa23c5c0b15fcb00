//! The framing of MUCP: HTTP/1.1 messages one after another, each whole, requests and responses
//! not paired.
//!
//! ```text
//! POST / HTTP/1.1 CRLF          HTTP/1.1 200 OK CRLF
//! Name: value CRLF …            Name: value CRLF …
//! CRLF                          CRLF
//! body: Content-Length bytes, or chunks (RFC 9112 §6, §7.1)
//! ```
//!
//! There is one way to read a message, or it is refused: what two readers in a row could take for
//! two things (two lengths, a lone line feed, a folded field, a size that is not plain hexadecimal)
//! is no message (RFC 9112 §11.2).

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Fields of a head.
const FIELDS: usize = proto::head::MAX_FIELDS;
/// Bytes of a line with the size of a chunk, or of a trailer.
const LINE: usize = 4 * 1024;
/// Hexadecimal digits of a chunk's size: enough for any that is allowed.
const DIGITS: usize = 8;
/// Bytes of trailers, which are read and dropped.
const TRAILERS: usize = 16 * 1024;

/// Which side's messages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Requests: those without a length have no body.
    Requests,
    /// Responses: those without a length would end with the connection, and are refused.
    Responses,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its first line.
    pub line: Line,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The first line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A request.
    Request {
        /// The method, as written.
        method: String,
        /// The target, as written.
        target: String,
    },
    /// A response with this status.
    Response(u16),
}

/// Why bytes are not a message. Final: what follows on the connection cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The head is not one, or could be read in two ways.
    #[error("{0}")]
    Head(&'static str),
    /// The head is longer than is read.
    #[error("the head is longer than {0} bytes")]
    HeadTooLarge(usize),
    /// The body is longer than is read.
    #[error("the body is longer than {0} bytes")]
    BodyTooLarge(usize),
}

/// Takes messages off a stream of bytes.
#[derive(Debug)]
pub struct Decoder {
    side: Side,
    /// Bytes of a head.
    head: usize,
    /// Bytes of a body.
    body: usize,
    at: At,
}

#[derive(Debug)]
enum At {
    /// So many bytes of the head were looked at.
    Head(usize),
    Fixed(Begun, usize),
    Size(Begun, BytesMut),
    Chunk(Begun, BytesMut, usize),
    /// The line end behind a chunk.
    Behind(Begun, BytesMut),
    /// So many bytes of trailers were read.
    Trailers(Begun, BytesMut, usize),
}

#[derive(Debug)]
struct Begun {
    line: Line,
    headers: HeaderMap,
}

impl Decoder {
    /// Reads heads of at most `head` bytes and bodies of at most `body`.
    #[must_use]
    pub fn new(side: Side, head: usize, body: usize) -> Self {
        Self { side, head, body, at: At::Head(0) }
    }

    /// Whether no head was read whole yet of the message that comes next.
    #[must_use]
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::Head(_))
    }

    /// Whether the sender waits for a word before it sends the body (RFC 9110 §10.1.1). Says so once.
    pub fn take_expectation(&mut self) -> bool {
        let begun = match &mut self.at {
            At::Fixed(begun, _) | At::Size(begun, _) => begun,
            At::Head(_) | At::Chunk(..) | At::Behind(..) | At::Trailers(..) => return false,
        };
        let expects = begun.headers.remove(http::header::EXPECT);
        expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }

    /// Takes one message off the front of `input`; `None` while it is incomplete.
    ///
    /// # Errors
    /// [`Malformed`]; the decoder is of no use then.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, Malformed> {
        loop {
            match self.step(input)? {
                Step::On(at) => self.at = at,
                Step::Wait(at) => {
                    self.at = at;
                    return Ok(None);
                }
                Step::Whole(message) => return Ok(Some(message)),
            }
        }
    }

    fn step(&mut self, input: &mut BytesMut) -> Result<Step, Malformed> {
        Ok(match std::mem::replace(&mut self.at, At::Head(0)) {
            At::Head(seen) => self.head(input, seen)?,
            At::Fixed(begun, left) if input.len() < left => Step::Wait(At::Fixed(begun, left)),
            At::Fixed(begun, left) => Step::Whole(begun.whole(input.split_to(left))),
            At::Size(begun, body) => match line(input)? {
                None => Step::Wait(At::Size(begun, body)),
                Some(text) => match chunk_size(&text)? {
                    0 => Step::On(At::Trailers(begun, body, 0)),
                    size if size > self.body - body.len() => {
                        return Err(Malformed::BodyTooLarge(self.body));
                    }
                    size => Step::On(At::Chunk(begun, body, size)),
                },
            },
            At::Chunk(begun, mut body, left) => {
                let piece = input.split_to(left.min(input.len()));
                body.extend_from_slice(&piece);
                match left - piece.len() {
                    0 => Step::On(At::Behind(begun, body)),
                    left => Step::Wait(At::Chunk(begun, body, left)),
                }
            }
            At::Behind(begun, body) => match input.get(..2) {
                None => Step::Wait(At::Behind(begun, body)),
                Some(b"\r\n") => {
                    input.advance(2);
                    Step::On(At::Size(begun, body))
                }
                Some(_) => return Err(Malformed::Head("a chunk is longer than it says")),
            },
            At::Trailers(begun, body, read) => match line(input)? {
                None => Step::Wait(At::Trailers(begun, body, read)),
                Some(text) if text.is_empty() => Step::Whole(begun.whole(body)),
                Some(text) if read + text.len() > TRAILERS || !text.contains(&b':') => {
                    return Err(Malformed::Head("trailers that are none"));
                }
                Some(text) => Step::On(At::Trailers(begun, body, read + text.len())),
            },
        })
    }

    fn head(&self, input: &mut BytesMut, seen: usize) -> Result<Step, Malformed> {
        // The end may have begun in what was looked at before.
        let from = seen.saturating_sub(3);
        let end = input[from..].windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end.map(|end| from + end + 4).filter(|end| *end <= self.head) else {
            if input.len() >= self.head {
                return Err(Malformed::HeadTooLarge(self.head));
            }
            // Known at once: some readers would end a head here for which this one would wait.
            return if has_lone_line_feed(&input[from..], from == 0) {
                Err(Malformed::Head(LONE))
            } else {
                Ok(Step::Wait(At::Head(input.len())))
            };
        };
        let bytes = input.split_to(end).freeze();
        let (line, headers) = read_head(self.side, &bytes)?;
        let length = length(self.side, &line, &headers)?;
        let begun = Begun { line, headers };
        Ok(Step::On(match length {
            Length::Fixed(length) if length > self.body => {
                return Err(Malformed::BodyTooLarge(self.body));
            }
            Length::Fixed(length) => At::Fixed(begun, length),
            Length::Chunks => At::Size(begun, BytesMut::new()),
        }))
    }
}

enum Step {
    On(At),
    Wait(At),
    Whole(Message),
}

const LONE: &str = "a line ends without a carriage return";

/// Whether a line feed has no carriage return before it. `start`: nothing comes before `bytes`;
/// otherwise their first byte was looked at already.
fn has_lone_line_feed(bytes: &[u8], start: bool) -> bool {
    (start && bytes.first() == Some(&b'\n'))
        || bytes.windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r')
}

impl Begun {
    fn whole(self, body: BytesMut) -> Message {
        Message { line: self.line, headers: self.headers, body: body.freeze() }
    }
}

/// Takes a line and its end off the front; `None` while it is incomplete.
fn line(input: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    let looked_at = &input[..input.len().min(LINE)];
    let Some(end) = looked_at.iter().position(|byte| *byte == b'\n') else {
        return if input.len() >= LINE {
            Err(Malformed::Head("a line is too long"))
        } else {
            Ok(None)
        };
    };
    let mut text = input.split_to(end + 1);
    text.truncate(end);
    if text.last() != Some(&b'\r') || text[..end - 1].iter().any(|b| b.is_ascii_control()) {
        return Err(Malformed::Head(LONE));
    }
    text.truncate(end - 1);
    Ok(Some(text))
}

/// The size in front of a chunk; extensions mean nothing to anybody (RFC 9112 §7.1.1).
fn chunk_size(line: &[u8]) -> Result<usize, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let plain = matches!(line.get(digits), None | Some(b';'));
    let text = std::str::from_utf8(&line[..digits]).ok().filter(|_| plain && digits <= DIGITS);
    text.and_then(|text| usize::from_str_radix(text, 16).ok())
        .ok_or(Malformed::Head("the size of a chunk is not a number"))
}

fn read_head(side: Side, bytes: &[u8]) -> Result<(Line, HeaderMap), Malformed> {
    // The library takes a lone line feed for the end of a line, which others do not.
    let stray = bytes.windows(2).any(|two| two[0] == b'\r' && two[1] != b'\n');
    if stray || has_lone_line_feed(bytes, true) {
        return Err(Malformed::Head(LONE));
    }
    let not_one = Malformed::Head("the head cannot be read");
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let (line, fields) = match side {
        Side::Requests => {
            let mut request = httparse::Request::new(&mut fields);
            let status = request.parse(bytes).map_err(|_| not_one)?;
            if status != httparse::Status::Complete(bytes.len()) || request.version != Some(1) {
                return Err(not_one);
            }
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            let line = Line::Request { method: text(request.method), target: text(request.path) };
            (line, &*request.headers)
        }
        Side::Responses => {
            let mut response = httparse::Response::new(&mut fields);
            let status = response.parse(bytes).map_err(|_| not_one)?;
            if status != httparse::Status::Complete(bytes.len()) || response.version != Some(1) {
                return Err(not_one);
            }
            (Line::Response(response.code.unwrap_or_default()), &*response.headers)
        }
    };
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| not_one)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| not_one)?;
        headers.append(name, value);
    }
    Ok((line, headers))
}

enum Length {
    Fixed(usize),
    Chunks,
}

/// How long the body is. Unlike RFC 9112 §6.3, nothing is chosen where there are two answers.
fn length(side: Side, line: &Line, headers: &HeaderMap) -> Result<Length, Malformed> {
    use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (Some(_), Some(_)) => Err(Malformed::Head("two lengths of one body")),
        _ if lengths.next().is_some() || codings.next().is_some() => {
            Err(Malformed::Head("a length that is there twice"))
        }
        (Some(length), None) => {
            let digits = length.as_bytes();
            let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let number = length.to_str().ok().filter(|_| plain).and_then(|text| text.parse().ok());
            number
                .map(Length::Fixed)
                .ok_or(Malformed::Head("the length of the body is not a number"))
        }
        (None, Some(coding)) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(Length::Chunks)
        }
        (None, Some(_)) => Err(Malformed::Head("a transfer coding other than chunked")),
        (None, None) => match (side, line) {
            (Side::Requests, _) | (_, Line::Response(100..=199 | 204 | 304)) => {
                Ok(Length::Fixed(0))
            }
            (Side::Responses, _) => Err(Malformed::Head("a response without a length")),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoder(side: Side) -> Decoder {
        Decoder::new(side, 1024, 64)
    }

    /// All messages of `bytes`, given `cut` at a time; `None` at the first that is refused.
    fn all(side: Side, bytes: &[u8], cut: usize) -> Option<Vec<Message>> {
        let (mut decoder, mut input, mut out) = (decoder(side), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(cut) {
            input.extend_from_slice(piece);
            while let Some(message) = decoder.decode(&mut input).ok()? {
                out.push(message);
            }
        }
        Some(out)
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let requests = b"POST / HTTP/1.1\r\nMicro-Service: a\r\nContent-Length: 5\r\n\r\nhello\
            POST / HTTP/1.1\r\nMicro-Error: EOS\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
            POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=1\r\nabc\r\n02\r\nde\r\n0\r\nX: y\r\n\r\n\
            POST / HTTP/1.1\r\nHost: a\r\n\r\n";
        let whole = all(Side::Requests, requests, requests.len()).unwrap();
        let bodies: Vec<_> = whole.iter().map(|message| &message.body[..]).collect();
        assert_eq!(bodies, [&b"hello"[..], b"", b"abcde", b""]);
        assert_eq!(whole[0].headers["micro-service"], "a");
        for cut in 1..requests.len() {
            assert_eq!(all(Side::Requests, requests, cut).unwrap(), whole, "cut every {cut}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused_however_it_is_cut() {
        for bad in [
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 65\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\nHost: a\n\n",
            "POST / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
            "POST / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
            "POST / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "POST / HTTP/1.1\r\nA : b\r\n\r\n",
            "POST / HTTP/1.1\r\nA: b\0c\r\n\r\n",
            "POST / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n000000001\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\rb\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n",
        ] {
            for cut in 1..=bad.len() {
                assert_eq!(
                    all(Side::Requests, bad.as_bytes(), cut),
                    None,
                    "{bad:?} cut every {cut}"
                );
            }
        }
        let endless = "HTTP/1.1 200 OK\r\nContent-Type: a\r\n\r\n";
        assert_eq!(all(Side::Responses, endless.as_bytes(), 99), None);
    }

    #[test]
    fn a_head_above_the_bound_is_refused_before_it_has_ended() {
        let mut input = BytesMut::from(&b"POST / HTTP/1.1\r\nA: "[..]);
        input.resize(1024, b'a');
        assert_eq!(decoder(Side::Requests).decode(&mut input), Err(Malformed::HeadTooLarge(1024)));
    }

    #[test]
    fn who_waits_for_a_word_before_the_body_is_known_once() {
        let mut input = BytesMut::from(
            &b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n"[..],
        );
        let mut decoder = decoder(Side::Requests);
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert!(decoder.take_expectation() && !decoder.take_expectation());
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_messages_however_they_are_cut(
            bytes in "(POST / HTTP/1.1\r\n|A: b\r\n|Content-Length: [0-9]\r\n|Transfer-Encoding: chunked\r\n|\r\n|[0-9a]\r\n|\n|x){0,12}",
            cut in 1..9_usize,
        ) {
            let bytes = bytes.as_bytes();
            prop_assert_eq!(all(Side::Requests, bytes, cut), all(Side::Requests, bytes, bytes.len().max(1)));
        }
    }
}
