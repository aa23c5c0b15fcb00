//! Neighbours are told news, and find out what differs.
//!
//! ```text
//! who opened the link             the other
//!   Digest ───────────────────────▶  the same: nothing more
//!   ◀──────────────────── Summary   of the buckets that differ
//!   Records, Want ────────────────▶  what the other lacks; what is lacked
//!   ◀──────────────────── Records
//! ```
//!
//! Only origins that can be reached are compared: of others each keeps what it has, for a day, and
//! forgets it without anybody bringing it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::frame::{Digest, Frame, MAX_FRAME, OriginDigest, Summary, Want};
use proto::record::Kind;
use proto::{LinkId, NodeId, RecordId, Time, Verified, Version};

use super::Router;
use crate::backbone::Part;
use crate::flood::{AT_ONCE, GATHER, TELL_EVERY, Taken};
use crate::links::Link;
use crate::lsdb::{Origin, record_id};
use crate::output::{Note, Output};
use crate::timer::Timer;

/// How often each link is compared, give or take a quarter.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// How soon it is compared when there is reason to: somebody is reached again, of whom a neighbour
/// was told nothing, or a neighbour tells of somebody unknown.
const COMPARE_SOON: Duration = Duration::from_millis(400);
/// But not more often than this: while many come, most of what differs is on its way.
const COMPARE_AGAIN: Duration = Duration::from_secs(3);
/// Records that are told rather than compared for.
const FEW: usize = 64;
/// Bytes of one summary or list of wants, below [`MAX_FRAME`] with its framing.
const PIECE: usize = MAX_FRAME - 8 * 1024;
/// The wait before it is looked again whether news may be told.
const REVIEW: Duration = Duration::from_millis(20);
/// Digests that are due wait for so long a pause in what is learnt …
const CALM: Duration = Duration::from_millis(500);
/// … are looked at again after this …
const AGAIN: Duration = Duration::from_secs(1);
/// … and are sent at the latest so much later.
const AT_LATEST: Duration = Duration::from_secs(10);
/// The wait before more is sent on a link that has more waiting.
const BREATH: Duration = Duration::from_millis(2);

impl Router {
    pub(super) fn arm_flood(&mut self, now: Time) {
        let due = now + self.chance.between(GATHER.0, GATHER.1);
        let due = self.told.map_or(due, |told| due.max(told + TELL_EVERY));
        self.timers.arm(Timer::Flood, due);
    }

    pub(super) fn arm_digest(&mut self, now: Time) {
        self.digests_due = now + self.chance.around(COMPARE_EVERY);
        self.timers.set(Timer::Digest, self.digests_due);
    }

    pub(super) fn compare_soon(&mut self, now: Time) {
        let due = now + self.chance.around(COMPARE_SOON);
        let due = self.compared.map_or(due, |last| due.max(last + COMPARE_AGAIN));
        self.timers.arm(Timer::Compare, due);
    }

    /// These are reached who were not, each since the time beside it: neighbours that were linked
    /// later were not told what is held of them.
    pub(super) fn tell_of_reached(&mut self, reached: &[(NodeId, Time)], now: Time) {
        let held = |(node, _): &(NodeId, Time)| self.lsdb.origin(node).map_or(0, Origin::len);
        let few = reached.iter().map(held).sum::<usize>() <= FEW;
        let links = self.links.iter().map(|(id, link)| (id, link.since));
        let links: Vec<(LinkId, Time)> = links.collect();
        for (id, linked) in links {
            let missed = reached.iter().filter(|(_, since)| linked >= *since);
            let missed: Vec<&Origin> =
                missed.filter_map(|(node, _)| self.lsdb.origin(node)).collect();
            if few {
                let records = missed.into_iter().flat_map(Origin::records).cloned();
                for record in records.collect::<Vec<_>>() {
                    self.push(id, record, now);
                }
            } else if !missed.is_empty() {
                self.compare_over(id, now);
            }
        }
    }

    /// Has what is held compared with what a neighbour holds.
    pub(super) fn compare_over(&mut self, id: LinkId, now: Time) {
        if let Some(link) = self.links.get_mut(id) {
            link.compare = true;
            self.compare_soon(now);
        }
    }

    /// Whether `node` hears from others what it would hear from here: a leaf, from relays that
    /// hear what this node hears; a relay, from another that this leaf hears.
    ///
    /// A leaf hears from its two nearest relays, one more than it needs.
    pub(super) fn is_served(&self, node: &NodeId) -> bool {
        if let Some(mine) = self.backbone.part(&self.me) {
            let relay = self.backbone.part(node).is_some();
            return !relay && self.backbone.is_far(mine, node, &self.me, &self.graph);
        }
        let relays = self.links.iter().filter(|(_, link)| link.is_live() && link.node != *node);
        let mut parts = relays.filter_map(|(_, link)| self.backbone.part(&link.node)).peekable();
        match self.backbone.part(node) {
            Some(part) => parts.peek().is_some() && parts.all(|other| other == part),
            None => parts.any(|part| self.backbone.is_heard_by(part, node, &self.me, &self.graph)),
        }
    }

    /// Whether `node` hears relays that this node hears, or is one of them.
    pub(super) fn is_beside(&self, node: &NodeId) -> bool {
        let hears = |part| match self.backbone.part(node) {
            Some(of) => of == part,
            None => self.backbone.is_heard_by(part, node, &self.me, &self.graph),
        };
        if let Some(mine) = self.backbone.part(&self.me) {
            return hears(mine);
        }
        let relays = self.links.iter().filter(|(_, link)| link.is_live() && link.node != *node);
        relays.filter_map(|(_, link)| self.backbone.part(&link.node)).any(hears)
    }

    /// Neighbours that no longer hear from others what this node hears may have missed something
    /// meanwhile.
    pub(super) fn review_served(&mut self, now: Time) {
        let served = self.links.iter().map(|(id, link)| (id, self.is_served(&link.node)));
        let served: Vec<_> = served.collect();
        for (id, served) in served {
            let Some(link) = self.links.get_mut(id) else { continue };
            if !std::mem::replace(&mut link.served, served) || served || link.closing {
                continue;
            }
            if now.since(link.compared) >= COMPARE_SOON {
                link.compared = now;
                self.send_digest(id);
            } else {
                self.compare_over(id, now);
            }
        }
    }

    /// Sends a record to one neighbour.
    pub(super) fn push(&mut self, link: LinkId, record: Arc<Verified>, now: Time) {
        if let Some(link) = self.links.get_mut(link) {
            link.backlog.push(record);
            self.arm_flood(now);
        }
    }

    /// Tells the news, and what is waiting from before.
    pub(super) fn tell_news(&mut self, now: Time) {
        let news = if self.keeps_back() { Taken::default() } else { self.flood.take() };
        // Which relays are at the other ends; none for a relay, which tells all relays.
        let links = self.links.iter().filter(|_| !self.is_relay());
        let parts = links.filter_map(|(id, link)| Some((id, self.backbone.part(&link.node)?)));
        let parts: BTreeMap<LinkId, Part> = parts.collect();
        self.told = Some(now);
        let mut more = false;
        let mut behind = Vec::new();
        for (id, link) in self.links.iter_mut() {
            let mut batch: Vec<proto::Record> = Vec::new();
            let mut bytes = 0;
            // What waited may have been superseded since, and goes out as it is now; what has been
            // dropped, not at all.
            while !link.full
                && bytes < AT_ONCE
                && let Some(record) = link.backlog.pop()
            {
                let Some(current) = self.lsdb.get(record.id()) else { continue };
                bytes += current.record().bytes().len();
                batch.push(current.record().clone());
            }
            let part = parts.get(&id);
            let alike = |other| part.is_some() && parts.get(&other) == part;
            // A leaf that hears it from relays.
            let silent = link.served && part.is_none();
            for record in news.for_link(id, alike).filter(|_| !silent) {
                if !link.full && bytes < AT_ONCE && link.backlog.is_empty() {
                    bytes += record.record().bytes().len();
                    batch.push(record.record().clone());
                } else {
                    link.backlog.push(record.clone());
                }
            }
            if !batch.is_empty() {
                self.outputs.push_back(Output::Send(id, Frame::Records(batch)));
            }
            more |= !link.full && !link.backlog.is_empty();
            if link.backlog.is_empty() && std::mem::take(&mut link.backlog.lossy) {
                behind.push(id);
            }
        }
        for id in behind {
            self.note(Note::Behind(id));
            self.send_digest(id);
        }
        // What never comes is given up in the end.
        self.review_catch_up(now);
        if self.is_catching_up() {
            self.timers.arm(Timer::Flood, now + REVIEW);
        }
        if more {
            self.timers.arm(Timer::Flood, now + BREATH);
        }
    }

    /// Compares over a link that was just opened; a little later where another comparison has just
    /// begun, which may bring all of it.
    pub(super) fn begin_compare(&mut self, id: LinkId, now: Time) {
        let another = self
            .links
            .iter()
            .any(|(other, link)| other != id && link.begun && now.since(link.since) < COMPARE_SOON);
        let knows_somebody = self.lsdb.around(&self.me).next().is_some();
        let Some(link) = self.links.get_mut(id) else { return };
        if another {
            link.put_off = true;
            return self.compare_soon(now);
        }
        link.begun = true;
        if !knows_somebody {
            self.send_digest(id);
            self.begins(id, now);
        } else if self.paths.reach_others() {
            self.send_digest(id);
        } else {
            // Whom it knows it is about to reach over this link: until then it would be told of all.
            link.compare = true;
            self.timers.arm(Timer::Compare, now + COMPARE_SOON);
        }
    }

    /// Compares with every neighbour whose link was opened here; of those that hear the same relays
    /// with one, another each time. While much is being learnt most differences are on their way.
    pub(super) fn send_digests(&mut self, now: Time) {
        let busy = now.since(self.learnt) < CALM;
        if busy && now.since(self.digests_due) < AT_LATEST {
            return self.timers.set(Timer::Digest, now + AGAIN);
        }
        let served = self.links.iter().filter(|(_, link)| link.dialled && link.served);
        let oldest = served.min_by_key(|(id, link)| (link.compared, *id)).map(|(id, _)| id);
        self.send_digests_where(now, |id, link| {
            link.dialled && (!link.served || oldest == Some(id))
        });
        self.arm_digest(now);
    }

    /// Compares where there was reason to.
    pub(super) fn compare_asked(&mut self, now: Time) {
        self.send_digests_where(now, |_, link| link.compare || (link.put_off && !link.served));
        self.links.iter_mut().for_each(|(_, link)| link.put_off = false);
        self.compared = Some(now);
    }

    fn send_digests_where(&mut self, now: Time, wanted: impl Fn(LinkId, &Link) -> bool) {
        if self.leaving {
            return;
        }
        let mut links = Vec::new();
        for (id, link) in self.links.iter_mut() {
            if wanted(id, link) && !link.closing {
                (link.compare, link.put_off) = (false, false);
                link.compared = now;
                links.push(id);
            }
        }
        for id in links {
            self.send_digest(id);
        }
    }

    pub(super) fn send_digest(&mut self, link: LinkId) {
        let digest = Digest { buckets: self.lsdb.buckets().to_vec() };
        self.outputs.push_back(Output::Send(link, Frame::Digest(digest)));
    }

    /// Answers a digest with a summary of what differs.
    pub(super) fn compare(&mut self, digest: &Digest, link: LinkId) {
        let pairs = digest.buckets.iter().zip(self.lsdb.buckets()).zip(0u8..=255);
        let differ = pairs.filter(|((theirs, ours), _)| theirs != ours).map(|(_, at)| at);
        let differ: Vec<u8> = differ.collect();
        for summary in self.summaries(&differ) {
            self.outputs.push_back(Output::Send(link, Frame::Summary(summary)));
        }
    }

    /// What is held in `buckets`, in pieces that fit into frames. A bucket that does not fit into
    /// one is told in several that are complete for none.
    fn summaries(&self, buckets: &[u8]) -> Vec<Summary> {
        let mut all = Vec::new();
        let mut piece = Summary::default();
        let mut room = PIECE;
        for &bucket in buckets {
            let held = self.lsdb.in_bucket(bucket).filter(|(_, origin)| origin.is_reachable());
            let origins: Vec<_> = held.map(|(id, origin)| origin_digest(*id, origin)).collect();
            let size = origins.iter().map(size_of).sum::<usize>() + 1;
            if size > room && room < PIECE {
                all.push(std::mem::take(&mut piece));
                room = PIECE;
            }
            if size <= room {
                piece.buckets.push(bucket);
                piece.origins.extend(origins);
                room -= size;
            } else {
                let parts = origins.into_iter().flat_map(in_parts);
                all.extend(
                    parts.map(|origin| Summary { origins: vec![origin], ..Summary::default() }),
                );
            }
        }
        if room < PIECE {
            all.push(piece);
        }
        all
    }

    /// Sends what the neighbour lacks, and asks for what is lacked here.
    pub(super) fn settle(&mut self, summary: Summary, link: LinkId, now: Time) {
        let mut theirs: BTreeMap<NodeId, BTreeMap<(Kind, Bytes), Version>> = BTreeMap::new();
        for OriginDigest { origin, records } in summary.origins {
            let records = records.into_iter().map(|(kind, key, version)| ((kind, key), version));
            theirs.entry(origin).or_default().extend(records);
        }
        self.want(&theirs, link, now);
        let mut missed = Vec::new();
        for &bucket in &summary.buckets {
            for (id, origin) in self.lsdb.in_bucket(bucket) {
                if origin.is_reachable() {
                    missed.extend(lacking(origin, theirs.get(id)));
                }
            }
        }
        // Of origins that came in parts only what was named is compared; what the neighbour did
        // not name it learns from the same parts of ours.
        let partial = |id: &&NodeId| !summary.buckets.contains(&id.as_bytes()[0]);
        for id in theirs.keys().filter(partial).filter(|_| !summary.reply) {
            let Some(origin) = self.lsdb.origin(id) else { continue };
            for part in in_parts(origin_digest(*id, origin)) {
                let reply = Summary { buckets: Vec::new(), origins: vec![part], reply: true };
                self.outputs.push_back(Output::Send(link, Frame::Summary(reply)));
            }
        }
        // Who writes comes before what it writes, or the rest would not be believed.
        missed.sort_by_key(|record: &Arc<Verified>| record.id().kind != Kind::NODE);
        for record in missed {
            self.push(link, record, now);
        }
    }

    /// Asks for what the neighbour has newer, or alone.
    fn want(
        &mut self,
        theirs: &BTreeMap<NodeId, BTreeMap<(Kind, Bytes), Version>>,
        link: LinkId,
        now: Time,
    ) {
        let mut wanted = Vec::new();
        for (origin, records) in theirs {
            let held = self.lsdb.origin(origin);
            let epoch = held.map(Origin::epoch).unwrap_or_default();
            for ((kind, key), version) in records {
                let newer = match held.and_then(|held| held.get(*kind, key)) {
                    Some(held) => held.version() < *version,
                    // What belongs to an earlier life would not be taken in.
                    None => *kind == Kind::NODE || version.epoch >= epoch,
                };
                if newer {
                    wanted.push(record_id(*origin, *kind, key));
                }
            }
        }
        wanted.sort_by_key(|id| id.kind != Kind::NODE);
        let count = wanted.len();
        let mut want = Want::default();
        let mut room = PIECE;
        for id in wanted {
            let size = id.key.len() + 48;
            if size > room {
                let full = std::mem::take(&mut want);
                self.outputs.push_back(Output::Send(link, Frame::Want(full)));
                room = PIECE;
            }
            room -= size;
            want.records.push(id);
        }
        self.awaits(link, count, now);
        if !want.records.is_empty() {
            self.outputs.push_back(Output::Send(link, Frame::Want(want)));
        }
        self.arm_flood(now);
    }

    /// Sends what the neighbour asks for.
    pub(super) fn give(&mut self, want: &Want, link: LinkId, now: Time) {
        for id in &want.records {
            if let Some(record) = self.lsdb.get(id).cloned() {
                self.push(link, record, now);
            }
        }
    }
}

/// What of `origin` the neighbour lacks, or has older.
fn lacking<'a>(
    origin: &'a Origin,
    theirs: Option<&'a BTreeMap<(Kind, Bytes), Version>>,
) -> impl Iterator<Item = Arc<Verified>> + 'a {
    let lacks = move |record: &&Arc<Verified>| {
        let RecordId { kind, key, .. } = record.id();
        let has = theirs.and_then(|theirs| theirs.get(&(*kind, key.clone())));
        match has {
            Some(version) => *version < record.version(),
            // A tombstone of what the neighbour never heard of is of no use to it.
            None => !record.record().is_tombstone(),
        }
    };
    origin.records().filter(lacks).cloned()
}

fn origin_digest(id: NodeId, origin: &Origin) -> OriginDigest {
    let records = origin.records().map(|record| {
        let RecordId { kind, key, .. } = record.id();
        (*kind, key.clone(), record.version())
    });
    OriginDigest { origin: id, records: records.collect() }
}

/// The most that one record of a summary takes: kind, length, key, epoch and sequence number.
fn size_of_record((_, key, _): &(Kind, Bytes, Version)) -> usize {
    key.len() + 20
}

fn size_of(origin: &OriginDigest) -> usize {
    48 + origin.records.iter().map(size_of_record).sum::<usize>()
}

/// Cut so that each part fits into a frame.
fn in_parts(origin: OriginDigest) -> Vec<OriginDigest> {
    let id = origin.origin;
    let mut parts = vec![OriginDigest { origin: id, records: Vec::new() }];
    let mut room = PIECE - 48;
    for record in origin.records {
        let size = size_of_record(&record);
        if size > room {
            parts.push(OriginDigest { origin: id, records: Vec::new() });
            room = PIECE - 48;
        }
        room -= size;
        parts.last_mut().expect("there is always one").records.push(record);
    }
    parts
}
