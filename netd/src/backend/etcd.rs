//! etcd 3 with keys as go-micro writes them, `/micro/registry/SERVICE/ID`: all of them read at one
//! revision, then watched from the next. Leases are the affair of etcd; what runs out there is a
//! deletion here.
//!
//! The messages are those of our own face of etcd, called with tonic. Of a client library we would use
//! a range, a watch and a login; the one there is needs protoc to be built (decision 0030).
//!
//! **A node is no etcd.** Its face shows what the network knows already, and learning that again would
//! go round: who answers with a version of ours is refused. An instance that carries the mark of a
//! node is skipped, whichever way it came.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use proto::micro::etcd as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::entry::Read;
use super::http::deepest;
use super::session::Feed;
use super::standing::Trouble;
use super::table::MAX_ENTRIES;
use crate::config::secret::Secret;

/// For a connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Silence on a connection before it is asked whether anybody is there; etcd allows 5 s.
const PING: Duration = Duration::from_secs(10);
/// Until that must be answered.
const PONG: Duration = Duration::from_secs(5);
/// Keys of one page of a listing.
const PAGE: i64 = 256;
/// The same where values are so large that a page has no room.
const SMALL_PAGE: i64 = 8;
/// Bytes of one answer. A value of etcd has 1.5 MiB, so that a small page always fits.
const MAX_ANSWER: usize = 16 << 20;
/// Bytes of a value; more is no instance.
const MAX_VALUE: usize = 64 << 10;
/// Keys that are read at all.
const MAX_READ: usize = 2 * MAX_ENTRIES;
/// What our own face says its version is.
const OURS: &str = "+micro.";
/// Where keys of go-micro are, as they are read.
const USUAL: &[u8] = b"/micro/registry/";

const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// An etcd that is watched.
#[derive(Debug)]
pub(super) struct Source {
    addresses: Vec<String>,
    /// Which of them is asked next.
    turn: usize,
    login: Option<(String, Secret)>,
    prefix: Bytes,
}

impl Source {
    pub(super) fn new(
        addresses: Vec<String>,
        login: Option<(String, Secret)>,
        prefix: &str,
    ) -> Self {
        Self { addresses, turn: 0, login, prefix: Bytes::copy_from_slice(prefix.as_bytes()) }
    }

    /// Lists and watches at one of the addresses; the next time at the next.
    pub(super) async fn watch(&mut self, feed: &mut Feed) -> Result<(), Trouble> {
        let address = self.addresses[self.turn % self.addresses.len()].clone();
        self.turn += 1;
        let said =
            |trouble: Trouble| Trouble { why: format!("{address}: {}", trouble.why), ..trouble };
        let session = async {
            let session = Session::open(&address, &self.login, self.prefix.clone()).await?;
            let (revision, all) = session.list().await?;
            feed.all(all).await?;
            session.follow(revision, feed).await
        };
        let ended = session.await.map_err(said);
        if ended.is_ok() {
            // It is well, only behind: it is asked again.
            self.turn -= 1;
        }
        ended
    }
}

/// A connection to one member.
struct Session {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    prefix: Bytes,
}

impl Session {
    async fn open(
        address: &str,
        login: &Option<(String, Secret)>,
        prefix: Bytes,
    ) -> Result<Self, Trouble> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|why| Trouble::new(why.to_string()))?
            .connect_timeout(PATIENCE)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let channel =
            in_time(endpoint.connect()).await?.map_err(|why| Trouble::new(deepest(&why)))?;
        let mut session = Self { channel, token: None, prefix };
        session.refuse_nodes().await?;
        if let Some((user, password)) = login {
            let (name, password) = (user.clone(), password.expose().to_owned());
            let ask = pb::AuthenticateRequest { name, password };
            let answer: pb::AuthenticateResponse = session.ask(AUTHENTICATE, ask).await?;
            let token = answer.token.parse();
            session.token = Some(token.map_err(|_| Trouble::new("it gave a token that is none"))?);
        }
        Ok(session)
    }

    /// A node of a network is not to be watched. An etcd that does not tell its version is no node.
    async fn refuse_nodes(&self) -> Result<(), Trouble> {
        let asked = self.call::<pb::StatusResponse>(STATUS, pb::StatusRequest {}).await;
        match asked {
            Ok(status) if status.version.contains(OURS) => Err(Trouble::refused(
                "that is a node of micro and no etcd: what it knows would go round in a circle",
            )),
            Ok(_) => Ok(()),
            Err(status) if does_not_tell(status.code()) => Ok(()),
            Err(status) => Err(failed(&status)),
        }
    }

    /// All keys at one revision, page by page.
    async fn list(&self) -> Result<(i64, Vec<(String, Read)>), Trouble> {
        let (mut all, mut revision, mut page) = (Vec::new(), 0, PAGE);
        let (mut from, end) = (self.prefix.clone(), end_of(&self.prefix));
        while all.len() < MAX_READ {
            let ask = pb::RangeRequest {
                key: from.clone(),
                range_end: end.clone(),
                limit: page,
                revision,
                ..Default::default()
            };
            let answer: pb::RangeResponse = match self.call(RANGE, ask).await {
                Ok(answer) => answer,
                Err(status)
                    if status.code() == Code::OutOfRange
                        && page > SMALL_PAGE
                        && !is_compacted(&status) =>
                {
                    page = SMALL_PAGE;
                    continue;
                }
                Err(status) => return Err(failed(&status)),
            };
            if revision == 0 {
                let header =
                    answer.header.ok_or_else(|| Trouble::new("an answer has no header"))?;
                revision = header.revision;
            }
            let Some(last) = answer.kvs.last() else { break };
            // The next key there can be: the same with a zero byte.
            from = [&last.key[..], &[0]].concat().into();
            let more = answer.more;
            all.extend(answer.kvs.into_iter().map(|kv| self.entry(&kv)));
            if !more {
                break;
            }
        }
        Ok((revision, all))
    }

    /// Tells what changes after `revision`, until that is not kept any more.
    async fn follow(&self, revision: i64, feed: &mut Feed) -> Result<(), Trouble> {
        let create = pb::WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: end_of(&self.prefix),
            start_revision: revision + 1,
            fragment: true,
            ..Default::default()
        };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        // Held for as long as is watched: its end would be that of the watch.
        let (asks, asked) = mpsc::channel(1);
        let ask = pb::WatchRequest { request_union: Some(create) };
        asks.send(ask).await.map_err(|_| Trouble::new("the watch cannot be asked for"))?;
        let mut changes = in_time(self.open_watch(asked)).await?.map_err(|why| failed(&why))?;
        loop {
            let message = changes.message().await.map_err(|status| failed(&status))?;
            let message = message.ok_or_else(|| Trouble::new("it ended the watch"))?;
            if message.canceled {
                return if message.compact_revision > 0 {
                    // What was missed is compacted: the next listing has it.
                    Ok(())
                } else {
                    Err(Trouble::new(format!("it ended the watch: {}", message.cancel_reason)))
                };
            }
            for event in message.events {
                let deleted = event.r#type() == pb::event::EventType::Delete;
                let Some(kv) = event.kv else { continue };
                if deleted {
                    feed.gone(name_of(&kv.key)).await?;
                } else {
                    let (key, read) = self.entry(&kv);
                    feed.put(key, read).await?;
                }
            }
        }
    }

    async fn open_watch(
        &self,
        asked: mpsc::Receiver<pb::WatchRequest>,
    ) -> Result<Streaming<pb::WatchResponse>, Status> {
        let mut client = self.client().await?;
        let mut request = self.request(ReceiverStream::new(asked));
        // A member without a leader would wait for ever with a watch (etcd: WithRequireLeader).
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let path = PathAndQuery::from_static(WATCH);
        let codec = ProstCodec::<pb::WatchRequest, pb::WatchResponse>::default();
        Ok(client.streaming(request, path, codec).await?.into_inner())
    }

    fn entry(&self, kv: &pb::KeyValue) -> (String, Read) {
        (name_of(&kv.key), read(&self.prefix, &kv.key, &kv.value))
    }

    async fn ask<A: Message + Default + 'static>(
        &self,
        path: &'static str,
        message: impl Message + Default + 'static,
    ) -> Result<A, Trouble> {
        self.call(path, message).await.map_err(|status| failed(&status))
    }

    async fn call<A: Message + Default + 'static>(
        &self,
        path: &'static str,
        message: impl Message + Default + 'static,
    ) -> Result<A, Status> {
        let call = async {
            let mut client = self.client().await?;
            let path = PathAndQuery::from_static(path);
            client.unary(self.request(message), path, ProstCodec::default()).await
        };
        let late = |_| Status::deadline_exceeded(format!("no answer within {PATIENCE:?}"));
        let answer = tokio::time::timeout(PATIENCE, call).await.map_err(late)?;
        answer.map(tonic::Response::into_inner)
    }

    async fn client(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let client = tonic::client::Grpc::new(self.channel.clone());
        let mut client = client.max_decoding_message_size(MAX_ANSWER);
        client.ready().await.map_err(|why| Status::unavailable(deepest(&why)))?;
        Ok(client)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// What a key under `prefix` and its value describe.
fn read(prefix: &[u8], key: &[u8], value: &[u8]) -> Read {
    if value.len() > MAX_VALUE {
        return Err(format!("the value has {} bytes, more than {MAX_VALUE}", value.len()));
    }
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    proxy::own::etcd::read(&[USUAL, rest].concat(), value)
}

fn name_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// The first key above all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    // A prefix ends with a slash, which is not the highest byte.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// Whether a member keeps its version to itself.
fn does_not_tell(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
}

fn is_compacted(status: &Status) -> bool {
    status.message().contains("compacted")
}

fn failed(status: &Status) -> Trouble {
    let text = status.message();
    let text = if text.is_empty() { status.code().description() } else { text };
    Trouble::new(text)
}

async fn in_time<T>(what: impl Future<Output = T>) -> Result<T, Trouble> {
    let late = |_| Trouble::new(format!("no answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, what).await.map_err(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] = br#"{"name":"s","nodes":[{"id":"a","address":"10.0.0.7:1"}]}"#;

    #[test]
    fn keys_are_read_under_whichever_prefix_they_are() {
        for prefix in ["/micro/registry/", "/other/"] {
            let key = format!("{prefix}s/a");
            let read = read(prefix.as_bytes(), key.as_bytes(), VALUE).unwrap();
            assert_eq!(
                (read.service.as_str(), read.instance.address.as_str()),
                ("s", "10.0.0.7:1")
            );
        }
        for key in ["/micro/registry/s", "/micro/registry/t/a", "/micro/registry/s/a/b"] {
            assert!(read(USUAL, key.as_bytes(), VALUE).is_err(), "{key}");
        }
        assert!(read(USUAL, b"/micro/registry/s/a", &vec![b' '; MAX_VALUE + 1]).is_err());
        assert_eq!(end_of(b"/micro/registry/"), "/micro/registry0");
    }

    proptest::proptest! {
        #[test]
        fn any_key_and_value_are_read_or_refused(key: Vec<u8>, value: Vec<u8>) {
            let _ = read(USUAL, &key, &value);
        }
    }
}
