//! How one neighbour behaves on its control stream: how much of it is read, what it did wrong, and
//! when it has to go. Pure: the time comes in with each thing that happened.
//!
//! ```text
//! read a frame ── pay ──▶ checked ──▶ router: news ── give back
//!      ▲                    │               │ known, stale: paid
//!      └── wait, in debt    └── rejected ───┴──▶ a line for the log, a strike, the end of the link
//! ```
//!
//! What turns out to be news is given back, so a database of any size comes as fast as it can be
//! checked. Only what was of no use is rationed; and that by reading slower, never by dropping: a
//! neighbour that tells again what others told first loses nothing.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelValue;
use proto::frame::Frame;
use proto::grant::Refused;
use proto::record::Rejected as Why;
use proto::{RecordId, Time};

use crate::bucket::{Bucket, Rate};
use crate::close::Close;

/// Records of no use that are read of one neighbour. Five hundred a second is more than the relays of
/// a busy network tell twice, and at some 100 µs for a record in a frame of its own 5 % of a core;
/// the burst is twice what may be on its way before the router has said what it thought of it.
const RECORDS: Rate = Rate::new(500, 4_096);
/// Who is in debt is read again when there is room for so many: checking one batch costs half of what
/// checking as many records one by one does.
const GULP: u64 = 64;
/// Bytes of the same: what a database of a hundred thousand records is compared with at once.
const BYTES: Rate = Rate::new(4 << 20, 16 << 20);
/// Things that no node of ours sends: each checks what it passes on. The few that are forgiven are
/// for a neighbour whose memory or disk is broken, and who should be found by its log.
const STRIKES: Rate = Rate::new(1, 64);
/// Useless records after which a neighbour has to go. Twice as slow as [`RECORDS`], so it is reached
/// by who uses all of that for more than six minutes, and not by one whole database told twice.
const FLOOD: Rate = Rate::new(250, 100_000);
/// A digest may be answered with a summary of everything, and a hello has two signatures checked:
/// both cost as much as this many records.
const DEAR: u64 = 512;
/// Records asked for, or named in a summary, that cost as much as one that is checked: they are looked
/// up and perhaps sent.
const NAMED: usize = 16;
/// Between two lines of the log about the same thing on one link.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Why a record of a neighbour was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Reason {
    /// Its bytes are not a record, or its body is not what its kind promises.
    Unreadable,
    /// The signature is not its origin's, or is for another network.
    Forged,
    /// A node record with a grant of another node or network, or one nobody signed.
    ForeignGrant,
    /// A node record whose grant has not begun or is over.
    OutOfTerm,
    /// Its origin is not known to be a member.
    NotAMember,
    /// Its origin has as many records or services as it may.
    OriginFull,
    /// Its origin changes its mind too often.
    TooOften,
    /// The database is full.
    Full,
    /// A service that the grant of its origin does not cover. It is kept and not believed.
    NotGranted,
}

/// How many reasons there are.
const REASONS: usize = 9;

impl Reason {
    /// Whether an honest neighbour may send it: because of a clock, an order, or a limit.
    const fn is_forgivable(self) -> bool {
        match self {
            Self::Unreadable | Self::Forged | Self::ForeignGrant => false,
            Self::OutOfTerm
            | Self::NotAMember
            | Self::OriginFull
            | Self::TooOften
            | Self::Full
            | Self::NotGranted => true,
        }
    }
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::Unreadable(_) | Why::NotAMember(Refused::Unreadable(_)) => Self::Unreadable,
            Why::Forged => Self::Forged,
            Why::NotAMember(Refused::TooEarly | Refused::Expired) => Self::OutOfTerm,
            Why::NotAMember(Refused::ForeignNetwork | Refused::ForeignNode | Refused::Forged) => {
                Self::ForeignGrant
            }
        }
    }
}

/// Records of one frame that were turned away: how many for each reason, and the first of them.
#[derive(Clone, Debug, Default)]
pub struct Rejected {
    by_reason: [Option<(u64, RecordId)>; REASONS],
}

impl Rejected {
    /// One record.
    #[must_use]
    pub fn one(reason: Reason, record: RecordId) -> Self {
        let mut rejected = Self::default();
        rejected.add(reason, record);
        rejected
    }

    /// One more.
    pub fn add(&mut self, reason: Reason, record: RecordId) {
        let (count, _) = self.by_reason[reason as usize].get_or_insert((0, record));
        *count += 1;
    }

    /// Those there are.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64, &RecordId)> {
        let all = REASONS_ALL.iter().zip(&self.by_reason);
        all.filter_map(|(reason, found)| found.as_ref().map(|(n, id)| (*reason, *n, id)))
    }
}

const REASONS_ALL: [Reason; REASONS] = [
    Reason::Unreadable,
    Reason::Forged,
    Reason::ForeignGrant,
    Reason::OutOfTerm,
    Reason::NotAMember,
    Reason::OriginFull,
    Reason::TooOften,
    Reason::Full,
    Reason::NotGranted,
];

/// The conduct of one neighbour on one link.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    records: Bucket,
    bytes: Bucket,
    flood: Bucket,
    strikes: Bucket,
    rejections: [Told; REASONS],
    slowed: Told,
    slow: bool,
    ended: bool,
}

impl Conduct {
    /// Pays for a frame that was read, or for `size` bytes that made none.
    ///
    /// # Errors
    /// The reason to close the link with.
    pub(crate) fn pay(
        &mut self,
        frame: Option<&Frame>,
        size: usize,
        now: Time,
    ) -> Result<(), Close> {
        let records = frame.map_or(0, records);
        self.records.take(records, RECORDS, now);
        self.bytes.take(size as u64, BYTES, now);
        self.flood.take(records, FLOOD, now);
        if self.flood.wait(FLOOD, now).is_zero() { Ok(()) } else { Err(Close::Flooded) }
    }

    /// Gives back what was paid for records that were news.
    pub(crate) fn give_back(&mut self, records: u64, bytes: u64) {
        self.records.give(records, RECORDS);
        self.bytes.give(bytes, BYTES);
        self.flood.give(records, FLOOD);
    }

    /// How long nothing more is read; to be asked again then. The first of a series asks for a line in
    /// the log, with the number of series since the last one.
    pub(crate) fn wait(&mut self, now: Time) -> (Duration, Option<u64>) {
        if self.ended {
            return (Duration::ZERO, None);
        }
        let mut wait = self.records.wait(RECORDS, now).max(self.bytes.wait(BYTES, now));
        if !wait.is_zero() {
            wait = wait.max(self.records.wait_for(GULP, RECORDS, now));
        }
        let begins = !wait.is_zero() && !self.slow;
        self.slow = !wait.is_zero() || self.slow && !self.records.is_full(now);
        (wait, if begins { self.slowed.count(1, now) } else { None })
    }

    /// Whether it is being read slower than it speaks.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow
    }

    /// Takes note of records that were turned away; how many to tell of now, if any.
    ///
    /// # Errors
    /// The reason to close the link with.
    pub(crate) fn rejected(
        &mut self,
        reason: Reason,
        count: u64,
        now: Time,
    ) -> (Option<u64>, Result<(), Close>) {
        let say = self.rejections[reason as usize].count(count, now);
        let forgiven = reason.is_forgivable()
            || (0..count.min(STRIKES_SEEN)).all(|_| self.strikes.try_take(STRIKES, now));
        (say, if forgiven { Ok(()) } else { Err(Close::Misbehaved) })
    }

    /// The link has ended; gives what was counted and not yet told of.
    pub(crate) fn end(&mut self) -> impl Iterator<Item = (Reason, u64)> {
        (self.slow, self.ended) = (false, true);
        let all = REASONS_ALL.iter().zip(&self.rejections);
        all.filter(|(_, told)| told.untold > 0).map(|(reason, told)| (*reason, told.untold))
    }
}

/// More strikes than this in one frame say nothing more.
const STRIKES_SEEN: u64 = 1_000;

/// When something was told of last, and how often it has happened since.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    at: Option<Time>,
    untold: u64,
}

impl Told {
    /// The first is told at once, what follows once a minute.
    fn count(&mut self, more: u64, now: Time) -> Option<u64> {
        self.untold += more;
        if self.at.is_some_and(|at| now.since(at) < SAY_EVERY) {
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// What a frame costs, in records.
fn records(frame: &Frame) -> u64 {
    let named = |count: usize| 1 + (count / NAMED) as u64;
    match frame {
        Frame::Records(records) => (records.len() as u64).max(1),
        Frame::Digest(_) | Frame::Hello(_) => DEAR,
        Frame::Summary(summary) => {
            named(summary.origins.iter().map(|origin| origin.records.len()).sum())
        }
        Frame::Want(want) => named(want.records.len()),
        Frame::Bye => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// Bytes of a common record.
    const SIZE: usize = 300;

    /// Sends as many useless records as are read until `until`, in steps of a millisecond.
    fn flood(conduct: &mut Conduct, from: u64, until: u64) -> (u64, Option<Close>) {
        let mut read = 0;
        let mut next = from;
        for millis in from..until {
            // 50,000 a second.
            for _ in 0..50 {
                if millis < next {
                    break;
                }
                let wait = conduct.wait(at(millis)).0;
                next = millis + u64::try_from(wait.as_micros().div_ceil(1000)).unwrap();
                if millis < next {
                    break;
                }
                read += 1;
                if let Err(close) = conduct.pay(Some(&Frame::Bye), SIZE, at(millis)) {
                    return (read, Some(close));
                }
            }
        }
        (read, None)
    }

    #[test]
    fn a_flood_is_read_slowly_within_a_second() {
        let mut conduct = Conduct::default();
        let (first, _) = flood(&mut conduct, 0, 1_000);
        assert!(conduct.is_slow());
        assert!((4_096..4_700).contains(&first), "{first}");
        let (then, _) = flood(&mut conduct, 1_000, 11_000);
        assert!((4_900..5_070).contains(&then), "{then}");
    }

    #[test]
    fn a_flood_that_goes_on_ends_the_link_and_one_database_told_twice_does_not() {
        let mut conduct = Conduct::default();
        let (read, close) = flood(&mut conduct, 0, 600_000);
        assert_eq!(close, Some(Close::Flooded));
        assert!(read > 150_000, "{read}");
        let mut conduct = Conduct::default();
        let mut millis = 0;
        for _ in 0..100_000 {
            let wait = conduct.wait(at(millis)).0;
            millis += u64::try_from(wait.as_millis()).unwrap() + u64::from(!wait.is_zero());
            assert_eq!(conduct.pay(Some(&Frame::Bye), SIZE, at(millis)), Ok(()));
        }
    }

    #[test]
    fn a_database_of_news_is_never_waited_for() {
        let mut conduct = Conduct::default();
        for frame in 0..1_000_000_u64 {
            assert_eq!(conduct.wait(at(0)).0, Duration::ZERO, "frame {frame}");
            assert_eq!(conduct.pay(Some(&Frame::Bye), SIZE, at(0)), Ok(()));
            // The router is as far behind as it may be.
            if frame > 2_048 {
                conduct.give_back(1, SIZE as u64);
            }
        }
    }

    #[test]
    fn forgeries_end_the_link_soon_and_what_honest_nodes_may_send_never() {
        let mut conduct = Conduct::default();
        for _ in 0..64 {
            assert_eq!(conduct.rejected(Reason::Forged, 1, at(0)).1, Ok(()));
        }
        assert_eq!(conduct.rejected(Reason::Forged, 1, at(0)).1, Err(Close::Misbehaved));
        let mut conduct = Conduct::default();
        assert_eq!(conduct.rejected(Reason::Unreadable, 500, at(0)).1, Err(Close::Misbehaved));
        for reason in REASONS_ALL.into_iter().filter(|reason| reason.is_forgivable()) {
            let mut conduct = Conduct::default();
            assert_eq!(conduct.rejected(reason, 1_000_000, at(0)).1, Ok(()), "{reason:?}");
        }
    }

    #[test]
    fn each_reason_is_told_once_and_then_every_minute() {
        let mut conduct = Conduct::default();
        assert_eq!(conduct.rejected(Reason::TooOften, 3, at(0)).0, Some(3));
        assert_eq!(conduct.rejected(Reason::Full, 1, at(1)).0, Some(1));
        for second in 1..60 {
            assert_eq!(conduct.rejected(Reason::TooOften, 2, at(second * 1000)).0, None);
        }
        assert_eq!(conduct.rejected(Reason::TooOften, 1, at(60_000)).0, Some(119));
        let _ = conduct.rejected(Reason::TooOften, 7, at(60_001));
        assert_eq!(conduct.end().collect::<Vec<_>>(), [(Reason::TooOften, 7)]);
    }

    #[test]
    fn every_reason_has_its_own_place() {
        for (place, reason) in REASONS_ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
