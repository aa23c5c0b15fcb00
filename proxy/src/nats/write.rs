//! What a client is sent: answers in their order, and the messages of its mailbox.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use proto::Topic;
use proto::publish::{Headers, Message};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::headers;
use super::session::Pings;
use crate::broker::{ACKNOWLEDGE, Item, Mailbox, STREAM_TOPIC};

/// How long one write may take. A client that reads nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a silent client is asked whether it is there, and how many times in vain: as the
/// servers of NATS do.
const PING_EVERY: Duration = Duration::from_secs(120);
const PINGS: u32 = 2;
/// Messages taken out of the mailbox for one write.
const BATCH: usize = 128;
/// Bytes gathered before they are written; a longer payload is written from where it is.
const GATHER: usize = 64 * 1024;

/// What is said to a client besides messages.
#[derive(Debug)]
pub(super) enum Answer {
    Ok,
    Pong,
    Error(String),
    /// Nobody will answer what was asked with this reply topic.
    NoResponders {
        sid: Bytes,
        topic: Topic,
    },
    /// Why the client is told to go; nothing is written after it.
    Last(String),
}

/// What reader and writer of one client both know.
#[derive(Debug, Default)]
pub(super) struct Alive {
    names: Mutex<HashMap<u64, Named, foldhash::fast::RandomState>>,
    done: Mutex<Vec<(u64, Bytes)>>,
    pings: Pings,
}

/// A subscription, as messages of it are written.
#[derive(Debug)]
struct Named {
    sid: Bytes,
    given: u64,
    most: Option<u64>,
}

impl Alive {
    pub(super) fn heard(&self) {
        self.pings.heard();
    }

    pub(super) fn name(&self, number: u64, sid: Bytes) {
        self.names.lock().insert(number, Named { sid, given: 0, most: None });
    }

    /// From now on nothing of it is written, also what waits already.
    pub(super) fn end(&self, number: u64) {
        self.names.lock().remove(&number);
    }

    /// Lets it have `most` messages since it was made; true when it has had them.
    pub(super) fn limit(&self, number: u64, most: u64) -> bool {
        let mut names = self.names.lock();
        let Some(named) = names.get_mut(&number) else { return true };
        named.most = Some(most);
        let over = named.given >= most;
        if over {
            names.remove(&number);
        }
        over
    }

    /// Those that have had all their messages.
    pub(super) fn take_done(&self) -> Vec<(u64, Bytes)> {
        std::mem::take(&mut *self.done.lock())
    }

    /// Counts a message, and gives the name it is written under.
    fn give(&self, number: u64) -> Option<Bytes> {
        let mut names = self.names.lock();
        let named = names.get_mut(&number)?;
        named.given += 1;
        let sid = named.sid.clone();
        if named.most.is_some_and(|most| named.given >= most) {
            names.remove(&number);
            self.done.lock().push((number, sid.clone()));
        }
        Some(sid)
    }
}

/// Writes until the client is gone, too slow, or told to go.
pub(super) async fn run(
    mut write: OwnedWriteHalf,
    info: String,
    mut answers: mpsc::Receiver<Answer>,
    mailbox: Mailbox,
    alive: Arc<Alive>,
) {
    let mut out = BytesMut::from(info.as_bytes());
    let mut pinging = tokio::time::interval(PING_EVERY);
    pinging.reset();
    loop {
        if !out.is_empty() && put(&mut write, &mut out).await.is_err() {
            return;
        }
        tokio::select! {
            items = mailbox.take(BATCH) => {
                let Ok(items) = items else { return };
                if messages(&mut write, &mut out, items, &alive).await.is_err() {
                    return;
                }
            }
            answer = answers.recv() => {
                let Some(answer) = answer else { return };
                // A client that asked for a pong has, when it comes, all that came before.
                let before = mailbox.take_waiting();
                if messages(&mut write, &mut out, before, &alive).await.is_err() {
                    return;
                }
                if answered(&mut write, &mut out, answer).await.is_err() {
                    return;
                }
            }
            _ = pinging.tick() => {
                if alive.pings.sent() > PINGS {
                    out.extend_from_slice(b"-ERR 'Stale Connection'\r\n");
                    let _ = put(&mut write, &mut out).await;
                    return;
                }
                out.extend_from_slice(b"PING\r\n");
            }
        }
    }
}

/// Tells a client that is not served.
pub(super) async fn refuse(mut stream: TcpStream, why: &str) {
    let _ = tokio::time::timeout(PATIENCE, async {
        let _ = stream.write_all(format!("-ERR '{why}'\r\n").as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await;
}

/// The client is gone or too slow.
struct Gone;

async fn put(write: &mut OwnedWriteHalf, out: &mut BytesMut) -> Result<(), Gone> {
    let written = tokio::time::timeout(PATIENCE, write.write_all(out)).await;
    out.clear();
    if written.is_ok_and(|written| written.is_ok()) { Ok(()) } else { Err(Gone) }
}

async fn answered(
    write: &mut OwnedWriteHalf,
    out: &mut BytesMut,
    answer: Answer,
) -> Result<(), Gone> {
    match answer {
        Answer::Ok => out.extend_from_slice(b"+OK\r\n"),
        Answer::Pong => out.extend_from_slice(b"PONG\r\n"),
        Answer::Error(why) => {
            out.extend_from_slice(format!("-ERR '{why}'\r\n").as_bytes());
        }
        Answer::NoResponders { sid, topic } => {
            out.extend_from_slice(b"HMSG ");
            out.extend_from_slice(topic.bytes());
            out.extend_from_slice(b" ");
            out.extend_from_slice(&sid);
            out.extend_from_slice(b" 16 16\r\nNATS/1.0 503\r\n\r\n\r\n");
        }
        Answer::Last(why) => {
            out.extend_from_slice(format!("-ERR '{why}'\r\n").as_bytes());
            put(write, out).await?;
            let _ = write.shutdown().await;
        }
    }
    Ok(())
}

async fn messages(
    write: &mut OwnedWriteHalf,
    out: &mut BytesMut,
    items: Vec<Item>,
    alive: &Alive,
) -> Result<(), Gone> {
    for Item { tag, message } in items {
        let Some(sid) = alive.give(tag) else { continue };
        begin(out, &sid, &message);
        if message.payload.len() > GATHER {
            put(write, out).await?;
            let written = tokio::time::timeout(PATIENCE, write.write_all(&message.payload)).await;
            if !written.is_ok_and(|written| written.is_ok()) {
                return Err(Gone);
            }
        } else {
            out.extend_from_slice(&message.payload);
        }
        out.extend_from_slice(b"\r\n");
        if out.len() > GATHER {
            put(write, out).await?;
        }
    }
    Ok(())
}

/// The line of a message, and its headers.
fn begin(out: &mut BytesMut, sid: &[u8], message: &Message) {
    let (topic, headers) = shown(message);
    let with_headers = !headers.is_empty();
    out.extend_from_slice(if with_headers { b"HMSG " } else { b"MSG " });
    out.extend_from_slice(&topic);
    out.extend_from_slice(b" ");
    out.extend_from_slice(sid);
    if let Some(reply) = &message.reply {
        out.extend_from_slice(b" ");
        out.extend_from_slice(reply.bytes());
    }
    let head = if with_headers { headers::size(&headers) } else { 0 };
    // Writing to memory does not fail.
    let _ = match with_headers {
        true => write!(out, " {head} {}\r\n", head + message.payload.len()),
        false => write!(out, " {}\r\n", message.payload.len()),
    };
    if with_headers {
        headers::put(out, &headers);
    }
}

/// The topic and the headers that are written. What a stream gives to who asked goes to the address that was
/// named by the question, and says in its first header which topic it was published to; that is what the client
/// is to see.
fn shown(message: &Message) -> (Bytes, Cow<'_, Headers>) {
    let given = message.reply.as_ref().is_some_and(|to| to.bytes().starts_with(ACKNOWLEDGE));
    if given {
        let mut all = message.headers.iter();
        if let Some((STREAM_TOPIC, topic)) = all.next() {
            let rest = Headers::of(all).unwrap_or_default();
            return (Bytes::copy_from_slice(topic), Cow::Owned(rest));
        }
    }
    (message.topic.bytes().clone(), Cow::Borrowed(&message.headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_nats_writes_it() {
        let mut message = Message {
            namespace: "".into(),
            topic: Topic::new("a.b").unwrap(),
            reply: None,
            headers: Headers::default(),
            payload: Bytes::from_static(b"hi"),
        };
        let written = |message: &Message| {
            let mut out = BytesMut::new();
            begin(&mut out, b"7", message);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(written(&message), "MSG a.b 7 2\r\n");
        message.reply = Some(Topic::new("r").unwrap());
        message.headers = Headers::of([("X", &b"1"[..])]).unwrap();
        assert_eq!(written(&message), "HMSG a.b 7 r 18 20\r\nNATS/1.0\r\nX: 1\r\n\r\n");

        // Of a stream, with the topic it was published to; from anybody else that header is one like others.
        let pairs = [(STREAM_TOPIC, &b"orders.new"[..]), ("X", b"1")];
        message.headers = Headers::of(pairs).unwrap();
        assert!(written(&message).starts_with("HMSG a.b 7 r "));
        message.reply = Some(Topic::new("$JS.ACK.s.c.1.1.1.1.0").unwrap());
        let given = "HMSG orders.new 7 $JS.ACK.s.c.1.1.1.1.0 18 20\r\nNATS/1.0\r\nX: 1\r\n\r\n";
        assert_eq!(written(&message), given);
        message.headers = Headers::of([pairs[0]]).unwrap();
        assert_eq!(written(&message), "MSG orders.new 7 $JS.ACK.s.c.1.1.1.1.0 2\r\n");
        // What became of a question stands in the first line.
        message.reply = None;
        message.headers = Headers::of([
            (crate::broker::STATUS, &b"404"[..]),
            (crate::broker::DESCRIPTION, b"No Messages"),
            ("X", b"1"),
        ])
        .unwrap();
        let told = "HMSG a.b 7 34 36\r\nNATS/1.0 404 No Messages\r\nX: 1\r\n\r\n";
        assert_eq!(written(&message), told);
    }

    #[test]
    fn a_subscription_with_a_limit_is_done_after_so_many() {
        let alive = Alive::default();
        alive.name(1, Bytes::from_static(b"s"));
        assert!(alive.give(1).is_some());
        assert!(!alive.limit(1, 2));
        assert!(alive.give(1).is_some() && alive.give(1).is_none());
        assert_eq!(alive.take_done(), [(1, Bytes::from_static(b"s"))]);
    }
}
