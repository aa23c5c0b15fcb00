//! The commands of a client, one after another, out of its bytes.
//!
//! ```text
//! CONNECT json            SUB topic [group] sid          PING    PONG
//! PUB topic [reply] size  UNSUB sid [most]               HPUB topic [reply] head-size size
//! ```
//!
//! A line ends with CR LF; words are parted by spaces and tabs, the first is read in any case. A
//! payload of `size` bytes and CR LF follow PUB and HPUB. Nothing is copied: what a command holds
//! are slices of what came.

use bytes::{Buf, Bytes, BytesMut};
use proto::publish::{MAX_HEADERS, MAX_PAYLOAD};

/// Bytes of a line, as the servers of NATS have it.
const MAX_LINE: usize = 4096;
/// Bytes of a subscription's name.
const MAX_SID: usize = 64;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// What the client is: JSON.
    Connect(Bytes),
    /// A message; `headers` is empty without any.
    Publish {
        /// Where to, unchecked.
        topic: Bytes,
        /// Where answers are waited for, unchecked.
        reply: Option<Bytes>,
        /// The header block.
        headers: Bytes,
        /// The rest.
        payload: Bytes,
    },
    /// Interest in topics.
    Subscribe {
        /// The pattern, unchecked.
        pattern: Bytes,
        /// The queue group, unchecked.
        group: Option<Bytes>,
        /// How the client names it.
        sid: Bytes,
    },
    /// No more of it, at once or after so many messages.
    Unsubscribe {
        /// How the client named it.
        sid: Bytes,
        /// Since it was made.
        most: Option<u64>,
    },
    /// Are you there?
    Ping,
    /// I am.
    Pong,
    /// What servers say to clients, which some clients say too: nothing to be done.
    Nothing,
}

/// Why what came is no command. Every one ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The first word is none of the protocol.
    #[error("Unknown Protocol Operation")]
    Unknown,
    /// More than 4096 bytes without an end.
    #[error("maximum control line exceeded")]
    LineTooLong,
    /// More than [`MAX_PAYLOAD`] bytes.
    #[error("Maximum Payload Violation")]
    PayloadTooLarge,
    /// Words that the command does not have, or a payload that does not end where it should.
    #[error("Parser Error")]
    Malformed,
}

/// Cuts what comes into commands.
#[derive(Debug, Default)]
pub struct Parser {
    /// A publication whose payload has not come whole.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    topic: Bytes,
    reply: Option<Bytes>,
    head: usize,
    size: usize,
}

impl Parser {
    /// The next command; `None` while it is incomplete.
    ///
    /// # Errors
    /// [`ParseError`]; nothing more can be read.
    pub fn next(&mut self, come: &mut BytesMut) -> Result<Option<Command>, ParseError> {
        if self.waiting.is_none() {
            let Some(command) = self.line(come)? else { return Ok(None) };
            if self.waiting.is_none() {
                return Ok(Some(command));
            }
        }
        self.payload(come)
    }

    /// How many bytes are still to come before there is a command, as far as that is known.
    #[must_use]
    pub fn missing(&self, come: &BytesMut) -> usize {
        let wanted = self.waiting.as_ref().map_or(0, |waiting| waiting.size + 2);
        wanted.saturating_sub(come.len())
    }

    fn payload(&mut self, come: &mut BytesMut) -> Result<Option<Command>, ParseError> {
        let Some(Waiting { size, .. }) = self.waiting else { return Ok(None) };
        if come.len() < size + 2 {
            return Ok(None);
        }
        if &come[size..size + 2] != b"\r\n" {
            return Err(ParseError::Malformed);
        }
        let Some(Waiting { topic, reply, head, .. }) = self.waiting.take() else {
            return Ok(None);
        };
        let mut payload = come.split_to(size).freeze();
        come.advance(2);
        let headers = payload.split_to(head);
        Ok(Some(Command::Publish { topic, reply, headers, payload }))
    }

    fn line(&mut self, come: &mut BytesMut) -> Result<Option<Command>, ParseError> {
        let end = come.iter().take(MAX_LINE + 1).position(|byte| *byte == b'\n');
        let Some(end) = end else {
            // What can no longer become a command is refused before more of it is waited for.
            let begin: Vec<u8> = come.iter().take(8).map(u8::to_ascii_uppercase).collect();
            let known = OPERATIONS.iter().any(|known| {
                let shared = known.len().min(begin.len());
                begin[..shared] == known.as_bytes()[..shared]
            });
            return match known {
                false => Err(ParseError::Unknown),
                true if come.len() > MAX_LINE => Err(ParseError::LineTooLong),
                true => Ok(None),
            };
        };
        let mut line = come.split_to(end + 1).freeze();
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        self.command(line).map(Some)
    }

    fn command(&mut self, line: Bytes) -> Result<Command, ParseError> {
        let first = line.iter().position(|byte| is_space(*byte)).unwrap_or(line.len());
        let (operation, rest) = (&line[..first], line.slice(first..));
        let mut upper = [0; 8];
        let name = upper.get_mut(..operation.len()).ok_or(ParseError::Unknown)?;
        name.copy_from_slice(operation);
        name.make_ascii_uppercase();
        match &*name {
            b"PUB" => self.publish(&rest, false),
            b"HPUB" => self.publish(&rest, true),
            b"SUB" => subscribe(&rest),
            b"UNSUB" => unsubscribe(&rest),
            b"CONNECT" => Ok(Command::Connect(trimmed(&rest))),
            b"PING" => Ok(Command::Ping),
            b"PONG" => Ok(Command::Pong),
            b"+OK" | b"-ERR" | b"INFO" => Ok(Command::Nothing),
            _ => Err(ParseError::Unknown),
        }
    }

    fn publish(&mut self, line: &Bytes, with_head: bool) -> Result<Command, ParseError> {
        let (words, count) = words::<5>(line)?;
        let sizes = if with_head { 2 } else { 1 };
        let names = count.checked_sub(sizes).ok_or(ParseError::Malformed)?;
        if !(1..=2).contains(&names) {
            return Err(ParseError::Malformed);
        }
        let size = number(&words[count - 1])?;
        let head = if with_head { number(&words[count - 2])? } else { 0 };
        if size > MAX_PAYLOAD {
            return Err(ParseError::PayloadTooLarge);
        }
        if head > size || head > MAX_HEADERS {
            return Err(ParseError::Malformed);
        }
        let reply = (names == 2).then(|| words[1].clone());
        self.waiting = Some(Waiting { topic: words[0].clone(), reply, head, size });
        Ok(Command::Nothing)
    }
}

/// How lines begin.
const OPERATIONS: [&str; 10] =
    ["PUB", "HPUB", "SUB", "UNSUB", "CONNECT", "PING", "PONG", "+OK", "-ERR", "INFO"];

fn subscribe(line: &Bytes) -> Result<Command, ParseError> {
    let (words, count) = words::<3>(line)?;
    if count < 2 {
        return Err(ParseError::Malformed);
    }
    let sid = sid(&words[count - 1])?;
    let group = (count == 3).then(|| words[1].clone());
    Ok(Command::Subscribe { pattern: words[0].clone(), group, sid })
}

fn unsubscribe(line: &Bytes) -> Result<Command, ParseError> {
    let (words, count) = words::<2>(line)?;
    if count == 0 {
        return Err(ParseError::Malformed);
    }
    let most = if count == 2 { Some(number(&words[1])? as u64) } else { None };
    Ok(Command::Unsubscribe { sid: sid(&words[0])?, most })
}

/// What a client names a subscription stays in memory: in memory of its own.
fn sid(word: &Bytes) -> Result<Bytes, ParseError> {
    if word.len() > MAX_SID { Err(ParseError::Malformed) } else { Ok(Bytes::copy_from_slice(word)) }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trimmed(line: &Bytes) -> Bytes {
    let blank = line.iter().take_while(|byte| is_space(**byte)).count();
    line.slice(blank..)
}

/// The words of a line, at most `MOST`, and how many there are.
fn words<const MOST: usize>(line: &Bytes) -> Result<([Bytes; MOST], usize), ParseError> {
    let mut found = [const { Bytes::new() }; MOST];
    let mut count = 0;
    for word in line.split(|byte| is_space(*byte)).filter(|word| !word.is_empty()) {
        *found.get_mut(count).ok_or(ParseError::Malformed)? = line.slice_ref(word);
        count += 1;
    }
    Ok((found, count))
}

/// Digits alone, at most nine.
fn number(word: &Bytes) -> Result<usize, ParseError> {
    if word.is_empty() || word.len() > 9 || !word.iter().all(u8::is_ascii_digit) {
        return Err(ParseError::Malformed);
    }
    Ok(word.iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], size: usize) -> (Vec<Command>, Option<ParseError>) {
        let (mut parser, mut come, mut found) = (Parser::default(), BytesMut::new(), Vec::new());
        for piece in input.chunks(size.max(1)) {
            come.extend_from_slice(piece);
            loop {
                match parser.next(&mut come) {
                    Ok(Some(command)) => found.push(command),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    fn one(input: &str) -> Result<Command, ParseError> {
        let (mut found, error) = all(input.as_bytes(), usize::MAX);
        error.map_or_else(|| Ok(found.pop().unwrap()), Err)
    }

    #[test]
    fn commands_come_out_however_the_bytes_are_cut() {
        let input = b"connect {}\r\nSUB a.* q  7\r\nPUB a.b 5\r\nhe\r\no\r\n\
            hpub\ta r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nUNSUB 7 3\r\nPING\r\nPONG\r\n+OK\r\n";
        let text = Bytes::from_static;
        let expected = [
            Command::Connect(text(b"{}")),
            Command::Subscribe { pattern: text(b"a.*"), group: Some(text(b"q")), sid: text(b"7") },
            Command::Publish {
                topic: text(b"a.b"),
                reply: None,
                headers: Bytes::new(),
                payload: text(b"he\r\no"),
            },
            Command::Publish {
                topic: text(b"a"),
                reply: Some(text(b"r")),
                headers: text(b"NATS/1.0\r\n\r\n"),
                payload: text(b"hi"),
            },
            Command::Unsubscribe { sid: text(b"7"), most: Some(3) },
            Command::Ping,
            Command::Pong,
            Command::Nothing,
        ];
        for size in [1, 3, usize::MAX] {
            assert_eq!(all(input, size), (expected.to_vec(), None), "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused_with_the_words_of_nats() {
        for (input, error) in [
            ("GET / HTTP/1.1\r\n", ParseError::Unknown),
            ("GET", ParseError::Unknown),
            ("PUB a\r\n", ParseError::Malformed),
            ("PUB a b c 1\r\n", ParseError::Malformed),
            ("PUB a -1\r\n", ParseError::Malformed),
            ("PUB a 99999999999999999999\r\n", ParseError::Malformed),
            ("PUB a 8388609\r\n", ParseError::PayloadTooLarge),
            ("PUB a 2\r\nabc\r\n", ParseError::Malformed),
            ("HPUB a 9 2\r\n", ParseError::Malformed),
            ("SUB a\r\n", ParseError::Malformed),
            ("UNSUB\r\n", ParseError::Malformed),
            ("SUBSCRIBE-TO-ALL a 1\r\n", ParseError::Unknown),
        ] {
            assert_eq!(one(input), Err(error), "{input:?}");
        }
        let long = format!("SUB {} 1\r\n", "x".repeat(64 * 1024));
        assert_eq!(one(&long), Err(ParseError::LineTooLong));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_alike_however_they_are_cut(
            bytes in proptest::collection::vec(
                proptest::sample::select(&b"PUBSHCON \t\r\n0123a.*>{}"[..]), 0..200),
            size in 1..20usize,
        ) {
            proptest::prop_assert_eq!(all(&bytes, size), all(&bytes, usize::MAX));
        }
    }
}
