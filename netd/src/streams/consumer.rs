//! What one consumer of a stream has been given, and what of it is done.
//!
//! Pure: it is told the time, and the numbers of messages. A message is given to the consumer, and given again when it
//! is not acknowledged in time; that it never is costs the consumer alone, for it has at most so many on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Messages on the way to one consumer, at most.
pub const MAX_PENDING: usize = 100_000;

/// When a message is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckPolicy {
    /// As soon as it is given.
    None,
    /// When it or one behind it is acknowledged.
    All,
    /// When it is acknowledged.
    Explicit,
}

/// How a consumer is given messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// When they are done with.
    pub ack: AckPolicy,
    /// After so long without a word one is given again.
    pub wait: Duration,
    /// In place of that, after it was given once, twice and so on; the last goes on.
    pub backoff: Vec<Duration>,
    /// How often one is given; `None`: until it is acknowledged.
    pub most: Option<u32>,
    /// How many may be on the way.
    pub pending: usize,
}

/// Numbers of a message: among those given, and in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Among those given to the consumer.
    pub consumer_seq: u64,
    /// In the stream.
    pub stream_seq: u64,
}

/// What a program says of a message that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is done.
    Ack,
    /// It could not be done: again, after a time or at once.
    Nak(Option<Duration>),
    /// It takes longer.
    Progress,
    /// It never will be done.
    Term,
}

/// One that is on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    /// Its number among those given, the first time.
    consumer_seq: u64,
    /// How often.
    count: u32,
    /// When it is given again: microseconds since 1970.
    until: u64,
}

/// The state, as it is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where in the stream the next message is looked for.
    pub next: u64,
    /// The last that was given.
    pub delivered: Position,
    /// How many were given more than once.
    #[serde(default)]
    pub redelivered: u64,
    /// Given up after the last time.
    #[serde(default)]
    pub given_up: u64,
    given: BTreeMap<u64, Given>,
}

impl Progress {
    /// Nothing was given yet; the first message is looked for here.
    #[must_use]
    pub fn at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }
}

/// One consumer.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// How it is given messages.
    pub policy: Policy,
    progress: Progress,
    /// Those on the way by when they are given again.
    due: BTreeSet<(u64, u64)>,
}

impl Consumer {
    /// One that goes on where its progress was saved.
    #[must_use]
    pub fn new(policy: Policy, progress: Progress) -> Self {
        let due = progress.given.iter().map(|(&number, given)| (given.until, number)).collect();
        Self { policy, progress, due }
    }

    /// What is saved of it.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How many are on the way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.progress.given.len()
    }

    /// How many of those were given more than once.
    #[must_use]
    pub fn redelivered(&self) -> usize {
        self.progress.given.values().filter(|given| given.count > 1).count()
    }

    /// All up to here are done.
    #[must_use]
    pub fn floor(&self) -> Position {
        match self.progress.given.iter().next() {
            Some((&number, given)) => Position {
                consumer_seq: given.consumer_seq.saturating_sub(1),
                stream_seq: number - 1,
            },
            None => self.progress.delivered,
        }
    }

    /// The message to give again now, if one is due. What was given as often as it may is given up.
    pub fn due(&mut self, now: u64) -> Option<u64> {
        loop {
            let &(until, number) = self.due.first()?;
            if until > now {
                return None;
            }
            let count = self.progress.given.get(&number).map_or(0, |given| given.count);
            if self.policy.most.is_none_or(|most| count < most) {
                return Some(number);
            }
            self.done(number);
            self.progress.given_up += 1;
        }
    }

    /// When the next one is due.
    #[must_use]
    pub fn due_at(&self) -> Option<u64> {
        self.due.first().map(|&(until, _)| until)
    }

    /// Whether one that was not given yet may be.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.policy.ack == AckPolicy::None || self.pending() < self.policy.pending
    }

    /// Where the next message that was not given yet is looked for.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.progress.next
    }

    /// Messages before this are not for it.
    pub fn skip(&mut self, next: u64) {
        self.progress.next = self.progress.next.max(next);
    }

    /// The message with this number is given; gives its number among those given, and how often it was.
    pub fn give(&mut self, number: u64, now: u64) -> (u64, u32) {
        self.skip(number + 1);
        self.progress.delivered.consumer_seq += 1;
        let consumer_seq = self.progress.delivered.consumer_seq;
        self.progress.delivered.stream_seq = self.progress.delivered.stream_seq.max(number);
        if self.policy.ack == AckPolicy::None {
            return (consumer_seq, 1);
        }
        let before = self.progress.given.get(&number).copied();
        if let Some(before) = before {
            self.due.remove(&(before.until, number));
            self.progress.redelivered += 1;
        }
        let count = before.map_or(1, |before| before.count.saturating_add(1));
        let until = now + micros(self.patience(count));
        let first = before.map_or(consumer_seq, |before| before.consumer_seq);
        self.progress.given.insert(number, Given { consumer_seq: first, count, until });
        self.due.insert((until, number));
        (consumer_seq, count)
    }

    fn patience(&self, count: u32) -> Duration {
        let place = (count as usize).min(self.policy.backoff.len());
        place.checked_sub(1).map_or(self.policy.wait, |place| self.policy.backoff[place])
    }

    /// It did not get the message that it was given last: nobody was there.
    pub fn take_back(&mut self, number: u64, now: u64) {
        if let Some(given) = self.progress.given.get_mut(&number) {
            self.due.remove(&(given.until, number));
            given.count = given.count.saturating_sub(1);
            given.until = now;
            self.due.insert((now, number));
        } else if self.policy.ack == AckPolicy::None {
            self.progress.next = self.progress.next.min(number);
        }
    }

    /// What a program says of a message; false where nothing is on the way with this number.
    pub fn hear(&mut self, number: u64, word: Word, now: u64) -> bool {
        let Some(given) = self.progress.given.get(&number).copied() else { return false };
        let until = match word {
            Word::Ack if self.policy.ack == AckPolicy::All => {
                let before: Vec<u64> =
                    self.progress.given.range(..=number).map(|(&number, _)| number).collect();
                before.into_iter().for_each(|number| self.done(number));
                return true;
            }
            Word::Ack | Word::Term => {
                self.done(number);
                return true;
            }
            Word::Nak(delay) => now + delay.map_or(0, micros),
            Word::Progress => now + micros(self.patience(given.count)),
        };
        self.due.remove(&(given.until, number));
        self.due.insert((until, number));
        self.progress.given.insert(number, Given { until, ..given });
        true
    }

    fn done(&mut self, number: u64) {
        if let Some(given) = self.progress.given.remove(&number) {
            self.due.remove(&(given.until, number));
        }
    }

    /// Messages before this are no longer kept: they are not given again.
    pub fn forget(&mut self, before: u64) {
        let gone: Vec<u64> =
            self.progress.given.range(..before).map(|(&number, _)| number).collect();
        gone.into_iter().for_each(|number| self.done(number));
        self.skip(before);
    }

    /// This message cannot be read any more.
    pub fn lost(&mut self, number: u64) {
        self.done(number);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn consumer(ack: AckPolicy) -> Consumer {
        let policy = Policy {
            ack,
            wait: Duration::from_secs(10),
            backoff: Vec::new(),
            most: None,
            pending: 3,
        };
        Consumer::new(policy, Progress::at(1))
    }

    #[test]
    fn what_is_not_acknowledged_in_time_is_given_again() {
        let mut one = consumer(AckPolicy::Explicit);
        assert_eq!((one.give(1, 0), one.give(2, SECOND)), ((1, 1), (2, 1)));
        assert!(one.hear(2, Word::Ack, SECOND) && !one.hear(2, Word::Ack, SECOND));
        assert_eq!((one.due(9 * SECOND), one.due_at()), (None, Some(10 * SECOND)));
        assert_eq!(one.due(10 * SECOND), Some(1));
        assert_eq!(one.give(1, 10 * SECOND), (3, 2));
        assert_eq!(one.floor(), Position::default());
        one.hear(1, Word::Ack, 11 * SECOND);
        assert_eq!(one.floor(), Position { consumer_seq: 3, stream_seq: 2 });
        assert_eq!((one.pending(), one.due_at(), one.next()), (0, None, 3));
    }

    #[test]
    fn words_of_programs_move_the_time() {
        let mut one = consumer(AckPolicy::Explicit);
        (1..=3).for_each(|number| {
            one.give(number, 0);
        });
        assert!(!one.has_room());
        one.hear(1, Word::Nak(None), SECOND);
        one.hear(2, Word::Nak(Some(Duration::from_secs(5))), SECOND);
        one.hear(3, Word::Progress, SECOND);
        assert_eq!(one.due(SECOND), Some(1));
        one.hear(1, Word::Term, SECOND);
        assert_eq!((one.due(SECOND), one.due(6 * SECOND)), (None, Some(2)));
        one.hear(2, Word::Ack, 6 * SECOND);
        assert_eq!((one.due(10 * SECOND), one.due(11 * SECOND)), (None, Some(3)));
    }

    #[test]
    fn one_is_given_so_often_and_then_given_up() {
        let mut one = consumer(AckPolicy::Explicit);
        one.policy.most = Some(3);
        one.policy.backoff = vec![Duration::from_secs(1), Duration::from_secs(2)];
        one.give(1, 0);
        for at in [1, 3] {
            assert_eq!((one.due(at * SECOND - 1), one.due(at * SECOND)), (None, Some(1)), "{at}");
            one.give(1, at * SECOND);
        }
        assert_eq!((one.due(5 * SECOND), one.pending()), (None, 0));
        assert_eq!(one.progress().given_up, 1);
    }

    #[test]
    fn all_acknowledges_what_is_before_and_none_all_at_once() {
        let mut all = consumer(AckPolicy::All);
        (1..=3).for_each(|number| {
            all.give(number, 0);
        });
        all.hear(2, Word::Ack, 0);
        assert_eq!((all.pending(), all.floor().stream_seq), (1, 2));
        let mut none = consumer(AckPolicy::None);
        (1..=9).for_each(|number| {
            none.give(number, 0);
        });
        assert!(none.has_room());
        assert_eq!((none.pending(), none.floor().stream_seq), (0, 9));
    }

    #[test]
    fn what_nobody_got_and_what_is_not_kept_are_not_waited_for() {
        let mut one = consumer(AckPolicy::Explicit);
        one.policy.most = Some(1);
        one.give(1, 0);
        one.take_back(1, SECOND);
        assert_eq!(one.due(SECOND), Some(1), "it counts as not given");
        one.give(1, SECOND);
        one.give(2, SECOND);
        one.forget(5);
        assert_eq!((one.pending(), one.next(), one.due_at()), (0, 5, None));
    }

    #[test]
    fn it_goes_on_where_it_was_saved() {
        let mut one = consumer(AckPolicy::Explicit);
        one.give(4, 0);
        let saved = serde_json::to_string(one.progress()).unwrap();
        let again = Consumer::new(one.policy.clone(), serde_json::from_str(&saved).unwrap());
        assert_eq!((again.progress(), again.due_at()), (one.progress(), Some(10 * SECOND)));
    }
}
