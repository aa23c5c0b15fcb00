//! Watches: any number on one stream, each told what happens to its keys from a revision on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use prost::Message as _;
use proto::micro::etcd as pb;
use proto::micro::etcd::event::EventType;
use proto::micro::etcd::watch_create_request::FilterType;
use proto::micro::etcd::watch_request::RequestUnion;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::super::codec::Codec;
use super::super::dispatch::{decode, why};
use super::super::failure::Failure;
use super::super::messages::{Gathered, Messages};
use super::keys::Span;
use super::range::key_value;
use super::table::{Change, Table};
use super::{Face, NAME};

/// Watches of one stream; more are refused.
const MAX_WATCHES: usize = 1024;
/// Bytes of keys and values in one message; what there is more to tell comes with the next.
const BATCH: usize = 1 << 20;
/// How often a watch that wants it is told how far it is when nothing happens: etcd's own time.
const PROGRESS: Duration = Duration::from_secs(600);
/// How often one stream looks at new routes at most: in a large network something changes all the
/// time.
const PACE: Duration = Duration::from_millis(20);

struct Watch {
    span: Span,
    /// The first revision that it was not told of.
    next: i64,
    puts: bool,
    deletes: bool,
    before: bool,
    progress: bool,
    /// It was told something since the last tick.
    told: bool,
}

struct Watcher {
    face: Arc<Face>,
    messages: Messages,
    codec: Codec,
    routes: watch::Receiver<u64>,
    moved: watch::Receiver<i64>,
    watches: BTreeMap<i64, Watch>,
    next_id: i64,
    /// Whom the next message is for: the first with this id or above.
    turn: i64,
    answers: VecDeque<pb::WatchResponse>,
    tick: Interval,
    looked: Option<Instant>,
}

/// Serves one stream, until its caller half-closes.
pub(super) fn serve(
    face: &Arc<Face>,
    messages: Messages,
    codec: Codec,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    let mut tick = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        routes: face.config.routes.changed(),
        moved: face.moved.subscribe(),
        face: Arc::clone(face),
        messages,
        codec,
        watches: BTreeMap::new(),
        next_id: 0,
        turn: 0,
        answers: VecDeque::new(),
        tick,
        looked: None,
    };
    Box::pin(stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(Some(answer)) => Some((Ok(answer.encode_to_vec().into()), Some(watcher))),
            Ok(None) => None,
            Err(failure) => Some((Err(failure), None)),
        }
    }))
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Failure> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            if let Some(answer) = self.news() {
                return Ok(Some(answer));
            }
            // Each arm may be dropped: what was read stays in `messages`, the rest are marks.
            tokio::select! {
                biased;
                message = self.messages.next() => match message {
                    Ok(Some(Gathered { message, .. })) => self.take(message)?,
                    Ok(None) => return Ok(None),
                    Err(broken) => return Err(why(NAME, broken)),
                },
                () = changed(&mut self.routes, &mut self.moved, self.looked),
                    if !self.watches.is_empty() => {}
                _ = self.tick.tick() => self.progress(),
            }
        }
    }

    fn take(&mut self, message: Bytes) -> Result<(), Failure> {
        let message = self.codec.read(message);
        let message =
            message.map_err(|why| super::refusals::refused(tonic::Code::InvalidArgument, why))?;
        let request: pb::WatchRequest = decode(NAME, message)?;
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                // Nothing is left to tell when this is reached: it holds for all of them.
                let answer = self.answer(-1);
                self.answers.push_back(answer);
            }
            None => {}
        }
        Ok(())
    }

    fn cancel(&mut self, id: i64) {
        if self.watches.remove(&id).is_some() {
            let answer = pb::WatchResponse { canceled: true, ..self.answer(id) };
            self.answers.push_back(answer);
        }
    }

    fn create(&mut self, ask: pb::WatchCreateRequest) {
        let id = match ask.watch_id {
            0 => {
                while self.watches.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            }
            id => id,
        };
        let created = pb::WatchResponse { created: true, ..self.answer(id) };
        let refuse = |why: String| pb::WatchResponse {
            canceled: true,
            cancel_reason: why,
            ..created.clone()
        };
        if self.watches.contains_key(&id) {
            let why = "etcdserver: duplicate watch ID provided on the stream".to_owned();
            return self.answers.push_back(refuse(why));
        }
        if self.watches.len() >= MAX_WATCHES {
            let why = format!("a stream has at most {MAX_WATCHES} watches; open another");
            return self.answers.push_back(refuse(why));
        }
        let now = created.header.as_ref().map_or(0, |header| header.revision);
        // An empty key is the lowest there is (etcd's own reading).
        let key = if ask.key.is_empty() { Bytes::from_static(b"\0") } else { ask.key };
        let filtered = |filter: FilterType| ask.filters.contains(&(filter as i32));
        let watch = Watch {
            span: Span::of(key, ask.range_end),
            next: if ask.start_revision > 0 { ask.start_revision } else { now + 1 },
            puts: !filtered(FilterType::Noput),
            deletes: !filtered(FilterType::Nodelete),
            before: ask.prev_kv,
            progress: ask.progress_notify,
            told: false,
        };
        self.answers.push_back(created);
        self.watches.insert(id, watch);
    }

    /// What one of the watches has to be told, each in its turn.
    fn news(&mut self) -> Option<pb::WatchResponse> {
        if self.watches.is_empty() {
            return None;
        }
        self.looked = Some(Instant::now());
        self.routes.mark_unchanged();
        self.moved.mark_unchanged();
        let face = Arc::clone(&self.face);
        let state = face.now();
        let (table, header) = (&state.table, face.header(&state));
        let turn = self.turn;
        let ids: Vec<i64> = self
            .watches
            .range(turn..)
            .chain(self.watches.range(..turn))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let watch = self.watches.get_mut(&id)?;
            if watch.next <= table.compacted() {
                self.watches.remove(&id);
                return Some(pb::WatchResponse {
                    header: Some(header),
                    watch_id: id,
                    canceled: true,
                    compact_revision: table.compacted() + 1,
                    ..Default::default()
                });
            }
            let events = watch.events(table);
            if !events.is_empty() {
                watch.told = true;
                self.turn = id.saturating_add(1);
                let header = Some(header);
                return Some(pb::WatchResponse {
                    header,
                    watch_id: id,
                    events,
                    ..Default::default()
                });
            }
        }
        None
    }

    fn progress(&mut self) {
        let quiet = |watch: &mut Watch| watch.progress && !std::mem::take(&mut watch.told);
        let ids: Vec<i64> =
            self.watches.iter_mut().filter_map(|(id, watch)| quiet(watch).then_some(*id)).collect();
        let answers: Vec<_> = ids.into_iter().map(|id| self.answer(id)).collect();
        self.answers.extend(answers);
    }

    fn answer(&self, watch_id: i64) -> pb::WatchResponse {
        let header = Some(self.face.header(&self.face.now()));
        pb::WatchResponse { header, watch_id, ..Default::default() }
    }
}

/// Waits until there may be something new, and for [`PACE`] since the last look.
async fn changed(
    routes: &mut watch::Receiver<u64>,
    moved: &mut watch::Receiver<i64>,
    looked: Option<Instant>,
) {
    // Neither sender ends before its receivers do: routes and face are held by the stream.
    tokio::select! {
        _ = routes.changed() => {}
        _ = moved.changed() => {}
    }
    if let Some(looked) = looked {
        tokio::time::sleep_until(looked + PACE).await;
    }
}

impl Watch {
    /// What happened to its keys, as much as fits a message.
    fn events(&mut self, table: &Table) -> Vec<pb::Event> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for change in table.since(self.next) {
            if bytes > BATCH {
                return events;
            }
            self.next = change.revision + 1;
            let wanted = if change.after.is_some() { self.puts } else { self.deletes };
            if wanted && self.span.contains(&change.key) {
                let event = event(change, self.before);
                bytes += event.encoded_len();
                events.push(event);
            }
        }
        self.next = self.next.max(table.revision() + 1);
        events
    }
}

/// As etcd tells it: of a deleted key the name and the revision of its end, and what it was only
/// where that was asked for.
fn event(change: &Change, before: bool) -> pb::Event {
    let prev_kv = change.before.as_ref().filter(|_| before);
    let prev_kv = prev_kv.map(|entry| key_value(&change.key, entry));
    match &change.after {
        Some(after) => pb::Event {
            r#type: EventType::Put.into(),
            kv: Some(key_value(&change.key, after)),
            prev_kv,
        },
        None => {
            let kv = pb::KeyValue {
                key: change.key.clone(),
                mod_revision: change.revision,
                ..Default::default()
            };
            pb::Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv }
        }
    }
}
