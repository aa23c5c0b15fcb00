//! Keeps the events of each link in order while the records of some of its frames are still being
//! checked. Links do not wait for each other.

use std::collections::{BTreeMap, VecDeque};

use proto::LinkId;
use proto::frame::Frame;
use router::LinkEvent;

/// Events of one link that wait behind a check. Frames beyond it are dropped: what they said comes
/// back with the next digest. Link events are never dropped; the link machine spaces them.
const WAITING: usize = 256;

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// For the router, as it is.
    Event(LinkId, LinkEvent),
    /// To be checked; [`Lanes::checked`] must follow.
    Check(LinkId, Frame),
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
    checking: bool,
    closed: bool,
}

#[derive(Debug)]
enum Item {
    Event(LinkEvent),
    Frame(Frame),
}

impl Lanes {
    /// Something happened to a link.
    pub(super) fn event(&mut self, link: LinkId, event: LinkEvent) {
        self.push(link, Item::Event(event));
    }

    /// A frame came.
    pub(super) fn frame(&mut self, link: LinkId, frame: Frame) {
        if self.lanes.get(&link).is_some_and(|lane| lane.queue.len() >= WAITING) {
            tracing::debug!(%link, "frame dropped: too many wait to be checked");
            return;
        }
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

    use super::*;

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
        lanes.frame(A, Frame::Bye);
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
            lanes.frame(A, Frame::Bye);
        }
        lanes.event(A, LinkEvent::Down);
        assert_eq!(lanes.lanes[&A].queue.len(), WAITING + 1);
    }
}
