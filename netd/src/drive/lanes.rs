//! Keeps the events of each link in order while the records of some of its frames are still being
//! checked. Links do not wait for each other.

use std::collections::{BTreeMap, VecDeque};

use proto::LinkId;
use router::LinkEvent;
use tunnel::control::Received;

/// Events of one link that wait behind a check. Frames beyond it are dropped: what they said comes
/// back with the next digest. Link events are never dropped; the link machine spaces them.
///
/// The tunnel reads no more of a neighbour than fits well below both bounds, so an honest burst
/// waits on the wire and is not dropped here.
const WAITING: usize = 512;
/// Bytes of the frames among them; the same gives way. Twice what the tunnel reads ahead.
const WAITING_BYTES: usize = 4 << 20;

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// For the router, as it is.
    Event(LinkId, LinkEvent),
    /// To be checked; [`Lanes::checked`] must follow.
    Check(LinkId, Received),
}

/// One queue a link.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<LinkId, Lane>,
    /// Lanes that may have something to do.
    due: VecDeque<LinkId>,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Item>,
    /// Bytes of the frames in `queue`.
    bytes: usize,
    checking: bool,
    closed: bool,
}

#[derive(Debug)]
enum Item {
    Event(LinkEvent),
    Frame(Received),
}

impl Lanes {
    /// Something happened to a link.
    pub(super) fn event(&mut self, link: LinkId, event: LinkEvent) {
        self.push(link, Item::Event(event));
    }

    /// A frame came.
    pub(super) fn frame(&mut self, link: LinkId, frame: Received) {
        let lane = self.lanes.entry(link).or_default();
        if lane.queue.len() >= WAITING || lane.bytes + frame.size > WAITING_BYTES {
            tracing::debug!(%link, "frame dropped: too many wait to be checked");
            return;
        }
        lane.bytes += frame.size;
        let frame = match lane.queue.back_mut() {
            Some(Item::Frame(last)) => match last.join(frame) {
                Ok(()) => return,
                Err(frame) => frame,
            },
            Some(Item::Event(_)) | None => frame,
        };
        self.push(link, Item::Frame(frame));
    }

    /// The check begun last on this link is done.
    pub(super) fn checked(&mut self, link: LinkId) {
        if let Some(lane) = self.lanes.get_mut(&link) {
            lane.checking = false;
            self.due.push_back(link);
        }
    }

    /// The link has had its last event.
    pub(super) fn close(&mut self, link: LinkId) {
        if let Some(lane) = self.lanes.get_mut(&link) {
            lane.closed = true;
            self.due.push_back(link);
        }
    }

    /// What may be done now; `None` when everything waits for a check.
    pub(super) fn next(&mut self) -> Option<Next> {
        while let Some(&link) = self.due.front() {
            let Some(lane) = self.lanes.get_mut(&link) else {
                self.due.pop_front();
                continue;
            };
            let item = if lane.checking { None } else { lane.queue.pop_front() };
            match item {
                Some(Item::Event(event)) => return Some(Next::Event(link, event)),
                Some(Item::Frame(frame)) => {
                    lane.bytes -= frame.size;
                    lane.checking = true;
                    return Some(Next::Check(link, frame));
                }
                None => {
                    self.due.pop_front();
                    if lane.closed && !lane.checking && lane.queue.is_empty() {
                        self.lanes.remove(&link);
                    }
                }
            }
        }
        None
    }

    fn push(&mut self, link: LinkId, item: Item) {
        self.lanes.entry(link).or_default().queue.push_back(item);
        self.due.push_back(link);
    }
}

#[cfg(test)]
mod tests {
    use proto::Cost;
    use proto::frame::Frame;

    use super::*;

    fn frame(size: usize) -> Received {
        Received::of(Frame::Bye, size)
    }

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);

    fn kind(next: Option<Next>) -> Option<(&'static str, LinkId)> {
        next.map(|next| match next {
            Next::Event(link, _) => ("event", link),
            Next::Check(link, _) => ("check", link),
        })
    }

    #[test]
    fn events_of_a_link_wait_behind_its_check_and_other_links_do_not() {
        let mut lanes = Lanes::default();
        lanes.frame(A, frame(1));
        lanes.event(A, LinkEvent::Down);
        lanes.close(A);
        lanes.event(B, LinkEvent::Cost(Cost::ZERO));
        assert_eq!(kind(lanes.next()), Some(("check", A)));
        assert_eq!(kind(lanes.next()), Some(("event", B)));
        assert_eq!(kind(lanes.next()), None);
        lanes.checked(A);
        assert_eq!(kind(lanes.next()), Some(("event", A)));
        assert_eq!(kind(lanes.next()), None);
        assert!(!lanes.lanes.contains_key(&A), "a closed link leaves nothing behind");
    }

    #[test]
    fn frames_beyond_the_bound_are_dropped_and_link_events_are_not() {
        let mut lanes = Lanes::default();
        for _ in 0..WAITING * 2 {
            lanes.frame(A, frame(1));
        }
        lanes.event(A, LinkEvent::Down);
        assert_eq!(lanes.lanes[&A].queue.len(), WAITING + 1);
    }

    #[test]
    fn records_that_wait_are_checked_together_and_stay_in_their_order() {
        let records = |count| {
            let record = proto::record::Verified::own(
                proto::NetworkId::from_bytes([1; 32]),
                &tunnel::Keypair::from_seed([2; 32]),
                proto::Version::default(),
                proto::record::Body::Adjacency(
                    proto::NodeId::from_bytes([3; 32]),
                    proto::record::Adjacency {
                        cost: Cost::from_micros(1),
                        path: proto::record::PathKind::Direct,
                    },
                ),
            );
            Received::of(Frame::Records(vec![record.record().clone(); count]), count)
        };
        let mut lanes = Lanes::default();
        lanes.frame(A, records(1));
        lanes.frame(A, records(2));
        lanes.frame(A, frame(1));
        lanes.frame(A, records(500));
        lanes.frame(A, records(13));
        let mut sizes = Vec::new();
        while let Some(Next::Check(_, received)) = lanes.next() {
            sizes.push(received.size);
            lanes.checked(A);
        }
        assert_eq!(sizes, [3, 1, 500, 13]);
        assert_eq!(lanes.lanes[&A].bytes, 0);
    }

    #[test]
    fn large_frames_are_bounded_by_their_bytes_and_make_room_when_they_are_checked() {
        let mut lanes = Lanes::default();
        for _ in 0..WAITING {
            lanes.frame(A, frame(256 << 10));
        }
        assert_eq!(lanes.lanes[&A].queue.len(), WAITING_BYTES / (256 << 10));
        lanes.frame(B, frame(256 << 10));
        assert_eq!(kind(lanes.next()), Some(("check", A)));
        lanes.frame(A, frame(256 << 10));
        lanes.frame(A, frame(1));
        let lane = &lanes.lanes[&A];
        assert_eq!((lane.queue.len(), lane.bytes), (WAITING_BYTES / (256 << 10), WAITING_BYTES));
        assert_eq!(kind(lanes.next()), Some(("check", B)), "another link has room of its own");
    }
}
